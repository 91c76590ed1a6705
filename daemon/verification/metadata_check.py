"""The zarr.json files against the catalog: voxel size, shape and channels of a stack, treatments of a plate."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from spheroidd.acquisition.store import ngff, tables
from spheroidd.acquisition.store.image_folder import within
from spheroidd.acquisition.store.shard import IMAGE_CODEC
from spheroidd.daemon.catalog.reader import CatalogReader
from spheroidd.daemon.verification.findings import Finding, Kind
from spheroidd.daemon.verification.stack_check import StackOnDisk
from spheroidd.protocols.errors import SpheroiddError, StorageError
from spheroidd.protocols.stack import StackKey
from spheroidd.protocols.well import WellId

_ARRAY = ("shape", "data_type", "chunk_grid", "chunk_key_encoding", "fill_value", "dimension_names")


def stack_metadata(stack: StackOnDisk) -> Iterator[Finding]:
    """What a stack's zarr.json files say otherwise than the catalog's plan."""
    path = stack.image / "zarr.json"
    try:
        attributes = ngff.read_attributes(stack.image)
    except (OSError, StorageError, TypeError, ValueError) as error:
        yield stack.finding(Kind.METADATA, f"the stack's metadata: {getattr(error, 'what', error)}", path)
    else:
        own = attributes.get(ngff.OWN)
        for name, value in ngff.plan_attributes(stack.plan).items():
            found = own.get(name) if isinstance(own, dict) else None
            if name != "slice_period_s" and found != value:  # the pace is no part of the geometry
                yield stack.finding(Kind.METADATA, f"{name} is {found!r}, the catalog says {value!r}", path)
        expected = ngff.image_attributes(stack.plan, {}, {})["ome"]["multiscales"][0]
        scales = _first(attributes.get("ome"), "multiscales")
        for name in ("axes", "datasets") if stack.plan.raw is None else ():
            if scales.get(name) != expected[name]:
                what = f"the voxel size or the axes of its levels (multiscales, {name}) are not those of the catalog"
                yield stack.finding(Kind.METADATA, what, path)
    for level, grid in enumerate(stack.files.grids):
        array = stack.image / str(level)
        shape = (len(stack.plan.channels), stack.plan.n_planes, grid.height, grid.width)
        axes = ngff.IMAGE_AXES if stack.plan.raw is None else ngff.RAW_AXES
        wanted = ngff.array_node(shape, grid, IMAGE_CODEC, axes)
        try:
            node = ngff.read_node(array)
        except (OSError, StorageError) as error:
            what = f"the metadata of the level: {getattr(error, 'what', error)}"
            yield stack.finding(Kind.METADATA, what, array / "zarr.json", level=level)
            continue
        other = [name for name in _ARRAY if node.get(name) != wanted[name]]
        if other:
            what = f"{', '.join(other)} of the array are not those of the catalog's plan"
            yield stack.finding(Kind.METADATA, what, array / "zarr.json", level=level)


def _first(ome: Any, name: str) -> Mapping[str, Any]:
    found = ome.get(name) if isinstance(ome, dict) else None
    return found[0] if isinstance(found, list) and found and isinstance(found[0], dict) else {}


def plate_metadata(catalog: CatalogReader, data_dir: Path, plate: str) -> Iterator[Finding]:
    """What a plate's own zarr.json files say otherwise than the catalog, and stacks that only the disk knows."""
    folder = ngff.plate_path(data_dir, plate)
    known = {row.key: row for row in catalog.stacks(plate)}
    on_disk = {path.parent: _key(plate, path) for path in sorted(folder.glob("*/*/*/zarr.json"))}
    for path, key in on_disk.items():
        if key not in known:
            yield Finding(Kind.STRANGER, f"a stack of which the catalog knows nothing: {within(data_dir, path)}", plate)
    if not any(row.n_slices_acked for row in known.values()):
        return
    try:
        own = ngff.read_attributes(folder).get(ngff.OWN, {})
        told = own.get("wells") if isinstance(own, dict) else None
    except (OSError, StorageError, TypeError, ValueError) as error:
        place = within(data_dir, folder / "zarr.json")
        yield Finding(Kind.METADATA, f"the plate's metadata: {getattr(error, 'what', error)}", plate, path=place)
        return
    yield from _treatments(catalog, plate, told if isinstance(told, dict) else {}, Path(within(data_dir, folder)))
    yield from _conditions(catalog, data_dir, plate)


def _treatments(catalog: CatalogReader, plate: str, told: Mapping[str, Any], folder: Path) -> Iterator[Finding]:
    """What each well holds. One that was relabelled may say what it held: older versions left it so."""
    relabelled = {
        row["well"]
        for row in catalog.query(
            "SELECT DISTINCT well FROM audit WHERE plate = :plate AND action = 'well relabelled'", {"plate": plate}
        )
    }
    for well, treatment in ngff.treatments(catalog.plate_map(plate)).items():
        if told.get(well) != treatment and well not in relabelled:
            what = f"what the well holds is {told.get(well)!r} in the plate's metadata, the catalog says {treatment!r}"
            yield Finding(Kind.METADATA, what, plate, well, path=f"{folder.as_posix()}/zarr.json")


def _conditions(catalog: CatalogReader, data_dir: Path, plate: str) -> Iterator[Finding]:
    """The table of what each well holds, where there is one: plates of older versions have none."""
    path = ngff.plate_path(data_dir, plate) / ngff.TABLES / tables.CONDITIONS / tables.FILE
    try:
        told = path.read_bytes()
    except FileNotFoundError:
        return
    except OSError as error:
        what = f"the table of conditions cannot be read: {error.strerror}"
        yield Finding(Kind.METADATA, what, plate, path=within(data_dir, path))
        return
    if told != tables.conditions(catalog.plate_map(plate)).text():
        what = "the table of conditions is not what the catalog says of the wells"
        yield Finding(Kind.METADATA, what, plate, path=within(data_dir, path))


def _key(plate: str, path: Path) -> StackKey | None:
    row, column, stack = path.parts[-4:-1]
    try:
        return StackKey(plate, WellId.parse(row + column), int(stack))
    except (ValueError, SpheroiddError):
        return None
