"""A plate's intensity limits out of its catalog: what its wells' light says, as they are labelled now."""

from collections.abc import Container, Mapping, Set

from spheroidd.daemon.catalog.reader import CatalogReader
from spheroidd.daemon.catalog.rows import StackState
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.inference.preprocessing.plate_limits import WellLight, plate_limits
from spheroidd.protocols.evidence import StackLight
from spheroidd.protocols.plate import PlateMap, WellRole
from spheroidd.protocols.results import Limits, Normalisation
from spheroidd.protocols.stack import StackKey

CONTROLS = (WellRole.NEGATIVE_CONTROL, WellRole.POSITIVE_CONTROL)


def limits_of_wells(catalog: CatalogReader, plate_map: PlateMap) -> dict[str, Limits]:
    """What the light of a plate's wells says, those left out that a person excluded; empty without any."""
    plate = plate_map.name
    lights = catalog.stack_lights(plate)
    return limits_of_lights(plate_map, lights, catalog.current_stacks(plate), catalog.wells_left_out(plate))


def limits_of_lights(
    plate_map: PlateMap, lights: Mapping[StackKey, StackLight], current: Set[StackKey], left_out: Container[str]
) -> dict[str, Limits]:
    """The same of what is known already: lights, the stacks that are current, and the names of wells left out."""
    roles = {entry.well: entry.treatment.role for entry in plate_map}
    return plate_limits(
        WellLight(roles[key.well], light)
        for key, light in lights.items()
        if key in current and str(key.well) not in left_out
    )


def follow_labels(catalog: Catalog, plate_map: PlateMap, reason: str) -> bool:
    """Move a plate's limits to those of its controls as they are labelled now; False where they cannot follow: they
    were given, or a control's light is not known, because an older version scored it.
    """
    plate, inference = plate_map.name, catalog.plate_inference(plate_map.name)
    old = catalog.locked_limits(plate)
    if old is None or inference.get("limits") or inference.get("normalisation") == Normalisation.STACK:
        return False
    lights = catalog.stack_lights(plate)
    controls = {entry.well for entry in plate_map if entry.treatment.role in CONTROLS}
    scored = [row.key for row in catalog.stacks(plate) if row.state is StackState.SCORED and row.key.well in controls]
    if not scored or any(key not in lights for key in scored):
        return False
    new = limits_of_wells(catalog, plate_map)
    if not new.keys() >= old.keys():
        return False
    catalog.move_limits(plate, new, reason)
    return True
