"""A plate and a well by the name that a person gave."""

from spheroidd.daemon.catalog.reader import CatalogReader
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.well import WellId


def the_plate(catalog: CatalogReader, plate: str | None) -> str:
    """The plate of that name, or the only one there is; ConfigError otherwise."""
    plates = catalog.plates()
    if plate is None and len(plates) == 1:
        return plates[0]
    if plate not in plates:
        what = f"there is no plate {plate!r}" if plate else f"there are {len(plates)} plates"
        raise ConfigError(what, where=str(catalog.path), do=f"give --plate, one of: {', '.join(plates) or 'none'}")
    return plate


def the_well(catalog: CatalogReader, plate: str, well: str) -> str:
    """A well's name as the catalog writes it; ConfigError where the plate has no such well."""
    return str(catalog.plate_map(plate)[WellId.parse(well)].well)
