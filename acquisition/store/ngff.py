"""OME-NGFF 0.5: the names and the JSON of a plate, its wells, images and labels. Knows no pixels and no threads.

`<images>/<plate>.ome.zarr/<row>/<column>/<stack>` is an image group with one array a pyramid level; a stack is a field.
A well is listed by its plate, and a stack by its well, from the moment it is opened: a reader never meets a well that
is promised but not there, and every validator accepts the plate at any time after the first stack was opened. What
the whole plate holds, imaged or not, stands in the plate's own attribute `spheroidd`.

`<root>/<plate>.raw.zarr/<row>/<column>/<stack>` holds the raw frames that a reconstructed stack is made of. They are no
OME-NGFF image, which has no axes for angle and phase: one array (channel, frame, y, x), explained by its group.
"""

import colorsys
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from spheroidd.acquisition.disk.disk_priority import RightOfWay
from spheroidd.acquisition.disk.durable_file import write_durably
from spheroidd.acquisition.store.image_folder import images_root
from spheroidd.acquisition.store.shard import ShardCodec, ShardGrid
from spheroidd.protocols.errors import StorageError
from spheroidd.protocols.json_text import parse_json
from spheroidd.protocols.plate import PlateMap
from spheroidd.protocols.sim_pattern import SimPattern, pattern_from
from spheroidd.protocols.stack import DEAD_CHANNEL, LIVE_CHANNEL, Block, StackKey, StackPlan
from spheroidd.protocols.well import WellId

VERSION = "0.5"
OWN = "spheroidd"  # the attribute that holds what OME-NGFF has no word for
TABLES = "tables"  # the folder of tables, beside a plate's rows and an image's levels
OBJECTS, FEATURES = "_objects", "_features"  # how a label of numbered objects, and the table of them, are called
COARSEST_PX = 256  # the last pyramid level is no larger than this in y and x
_NAMES = {LIVE_CHANNEL: "Calcein-AM (488)", DEAD_CHANNEL: "Propidium iodide (561)"}
_COLOURS = {LIVE_CHANNEL: "00FF00", DEAD_CHANNEL: "FF0000"}
_LABEL_RGBA = {"live": [0, 255, 0, 128], "dead": [255, 0, 0, 128]}
_OBJECT_HUES = {"live": (0.15, 0.35), "dead": (0.78, 0.32)}  # where the hues begin, and how many of all there are
_GOLDEN, _SILVER = 0.6180339887498949, 0.41421356237309515  # multiples, less their whole parts, lie far apart
MOST_COLOURS = 5000  # of objects of a label: 300 kB of JSON
IMAGE_AXES, RAW_AXES = ("c", "z", "y", "x"), ("c", "frame", "y", "x")
JSON = dict[str, Any]


def plate_path(root: Path, plate: str) -> Path:
    """The folder of a plate's Zarr hierarchy; `root` is a data directory, or the folder that its plates lie in."""
    return images_root(root) / f"{plate}.ome.zarr"


def well_path(root: Path, plate: str, well: WellId) -> Path:
    """The folder of a well's group."""
    return plate_path(root, plate) / well.row_name / well.column_name


def image_path(root: Path, key: StackKey) -> Path:
    """The folder of a stack's image group."""
    return well_path(root, key.plate, key.well) / str(key.stack)


def raw_plate_path(root: Path, plate: str) -> Path:
    """The folder of a plate's raw frames."""
    return root / f"{plate}.raw.zarr"


def raw_path(root: Path, key: StackKey) -> Path:
    """The folder of a stack's raw frames."""
    return raw_plate_path(root, key.plate) / key.well.row_name / key.well.column_name / str(key.stack)


def stored_path(root: Path, plan: StackPlan) -> Path:
    """Where the camera images of a stack go: its image, or beside it where they are raw."""
    return image_path(root, plan.key) if plan.raw is None else raw_path(root, plan.key)


def stored_shapes(plan: StackPlan) -> list[tuple[int, int]]:
    """The (y, x) of every level of what is stored of a plan; raw frames have no coarser ones."""
    return level_shapes(plan.height, plan.width) if plan.raw is None else [plan.frame_shape]


def label_path(root: Path, key: StackKey, name: str) -> Path:
    """The folder of one label image of a stack, or of the table of its objects."""
    return image_path(root, key) / (TABLES if name.endswith(FEATURES) else "labels") / name


def shard_path(array: Path, *shard: int) -> Path:
    """The file of a shard: (channel, shard number) in an image, (shard number,) in a label."""
    return array.joinpath("c", *map(str, shard), "0", "0")


def level_shapes(height: int, width: int) -> list[tuple[int, int]]:
    """The (y, x) of every pyramid level, the full one first; each halves, rounding up."""
    shapes = [(height, width)]
    while max(shapes[-1]) > COARSEST_PX:
        y, x = shapes[-1]
        shapes.append((-(-y // 2), -(-x // 2)))
    return shapes


def read_attributes(group: Path) -> JSON:
    """The attributes of a group; StorageError where there is none or its zarr.json is damaged."""
    return dict(read_node(group).get("attributes", {}))


def read_node(folder: Path) -> JSON:
    """A group's or array's zarr.json; StorageError where it is missing or damaged."""
    path = folder / "zarr.json"
    try:
        node = parse_json(path.read_bytes())
    except FileNotFoundError as error:
        raise StorageError("there is no such stack or array", where=str(folder), do="check the name") from error
    except ValueError as error:
        raise StorageError(f"not valid JSON: {error}", where=str(path), do="restore the file") from error
    if not isinstance(node, dict):
        raise StorageError("not a JSON object", where=str(path), do="restore the file")
    return node


def write_group(folder: Path, attributes: Mapping[str, Any], right_of_way: RightOfWay | None = None) -> None:
    """Write or replace a group's zarr.json, atomically and durably; nothing is written where nothing changes."""
    node = {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes)}
    write_node(folder, node, right_of_way)


def write_node(folder: Path, node: Mapping[str, Any], right_of_way: RightOfWay | None = None) -> None:
    """Write or replace a zarr.json, atomically and durably; nothing is written where nothing changes."""
    text = json.dumps(node, indent=2, allow_nan=False).encode()
    path = folder / "zarr.json"
    if not path.exists() or path.read_bytes() != text:
        write_durably(path, [text], right_of_way=right_of_way)


def array_node(shape: Sequence[int], grid: ShardGrid, codec: ShardCodec, axes: Sequence[str] = IMAGE_AXES) -> JSON:
    """The zarr.json of an array of shards: the last of these axes, (c, z, y, x) or (z, y, x)."""
    lead = (1,) * (len(shape) - 3)
    sharding = {
        "chunk_shape": [*lead, *grid.tile_shape],
        "codecs": codec.to_zarr(grid.dtype),
        "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}],
        "index_location": "end",
    }
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": grid.dtype.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [*lead, *grid.shard_shape]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0,
        "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
        "dimension_names": list(axes[-len(shape) :]),
        "attributes": {},
    }


def grid_from(array: Path) -> ShardGrid:
    """How an array of ours is cut into shards and tiles; StorageError where it is not one of ours."""
    node = read_node(array)
    try:
        depth, tile_y, tile_x = node["codecs"][0]["configuration"]["chunk_shape"][-3:]
        height, width = node["shape"][-2:]
        return ShardGrid(depth, height, width, tile_y, tile_x, np.dtype(node["data_type"]))
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise StorageError("not an array of shards", where=str(array), do="read it with a Zarr library") from error


def image_attributes(plan: StackPlan, own: Mapping[str, Any], windows: Mapping[str, tuple[int, int]]) -> JSON:
    """An image group's attributes; `windows` are display limits by channel, where they are known."""
    top = int(np.iinfo(plan.dtype).max)
    channels = []
    for name in plan.channels:
        start, end = windows.get(name, (0, top))
        window = {"min": 0, "max": top, "start": start, "end": end}
        channels.append({"label": _NAMES[name], "color": _COLOURS[name], "active": True, "window": window})
    ome = {
        "version": VERSION,
        "multiscales": [_multiscale(str(plan.key.well), plan, "czyx")],
        "omero": {"channels": channels},
    }
    return {"ome": ome, OWN: dict(own)}


def label_attributes(plan: StackPlan, name: str, own: Mapping[str, Any]) -> JSON:
    """A label group's attributes: value 1 is the object, 0 the background."""
    colours = [{"label-value": 1, "rgba": _LABEL_RGBA.get(name, [255, 255, 0, 128])}]
    ome = {
        "version": VERSION,
        "multiscales": [_multiscale(name, plan, "zyx")],
        "image-label": {"colors": colours, "source": {"image": "../../"}},
    }
    return {"ome": ome, OWN: dict(own)}


def objects_attributes(plan: StackPlan, name: str, spacing_um: Sequence[float], n: int, own: Mapping[str, Any]) -> JSON:
    """A label group whose values 1 to n are objects, at a sampling (z, y, x) of its own from the stack's corner."""
    fine = (plan.z_step_um, plan.pixel_um, plan.pixel_um)  # the centre of its first voxel is where the image begins
    shift = [(step - own_step) / 2 for step, own_step in zip(spacing_um, fine, strict=True)]
    steps: list[JSON] = [{"type": "scale", "scale": list(spacing_um)}, {"type": "translation", "translation": shift}]
    datasets = [{"path": "0", "coordinateTransformations": steps}]
    ome = {
        "version": VERSION,
        "multiscales": [{"name": name, "axes": [_axis(axis) for axis in "zyx"], "datasets": datasets}],
        "image-label": {**_object_colours(name, n), "source": {"image": "../../"}},
    }
    return {"ome": ome, OWN: {**own, "n": n}}


def _object_colours(name: str, n: int) -> JSON:
    """A colour for each object: greens and yellows for living ones, reds and violets for dead ones, neighbours apart.

    All or none: to most viewers an object without a colour among others that have one is transparent. Where there is
    no object value 1 has one: a list of none is not valid, and strictly no list is not, either.
    """
    if n > MOST_COLOURS:
        return {}
    first, width = _OBJECT_HUES.get(name.removesuffix(OBJECTS), (0.0, 1.0))
    colours = []
    for number in range(1, max(n, 1) + 1):
        step = number * _GOLDEN % 1
        light = 0.75 + 0.25 * (number * _SILVER % 1)
        rgb = colorsys.hsv_to_rgb((first + width * step) % 1, 0.9, light)
        colours.append({"label-value": number, "rgba": [*(round(255 * part) for part in rgb), 160]})
    return {"colors": colours}


def _multiscale(name: str, plan: StackPlan, axes: str) -> JSON:
    how = "mean" if "c" in axes else "maximum"
    method = {
        "type": how,
        "metadata": {"description": f"{how} of each 2x2 in y and x, rounding half up", "version": "1"},
    }
    lead = [1.0] * (len(axes) - 3)
    datasets = []
    for level in range(len(level_shapes(plan.height, plan.width))):
        pixel = plan.pixel_um * 2**level
        steps: list[JSON] = [{"type": "scale", "scale": [*lead, plan.z_step_um, pixel, pixel]}]
        if level:  # the centre of a 2x2 mean lies half a fine pixel further than that of its first pixel
            shift = plan.pixel_um * (2**level - 1) / 2
            steps.append({"type": "translation", "translation": [0.0] * (len(axes) - 2) + [shift, shift]})
        datasets.append({"path": str(level), "coordinateTransformations": steps})
    return {"name": name, "axes": [_axis(axis) for axis in axes], "datasets": datasets, **method}


def _axis(name: str) -> JSON:
    return {"name": name, "type": "channel"} if name == "c" else {"name": name, "type": "space", "unit": "micrometer"}


def plan_attributes(plan: StackPlan) -> JSON:
    """A plan as JSON; `plan_from` reads it back. Without raw frames nothing is said of them."""
    raw = {} if plan.raw is None else {"raw": json.loads(json.dumps(asdict(plan.raw)))}  # as JSON reads it back
    return {
        "channels": list(plan.channels),
        "n_z": plan.n_z,
        "height": plan.height,
        "width": plan.width,
        "pixel_um": plan.pixel_um,
        "z_step_um": plan.z_step_um,
        "dtype": plan.dtype,
        "slice_period_s": plan.slice_period_s,
        **raw,
    }


def raw_words(raw: SimPattern) -> JSON:
    """What the group of raw frames says to whoever reads it without this program."""
    return {
        "holds": "raw frames of structured illumination, as the camera gave them; nothing here is computed",
        "frame": f"(z * {raw.n_angles} + angle) * {raw.n_phases} + phase",
        "frame_pixel": "twice pixel_um, which like height and width is that of the reconstructed slices",
    }


def plan_from(own: Mapping[str, Any], key: StackKey, where: Path) -> StackPlan:
    """The plan a stack was made with; StorageError where its attributes do not hold one."""
    try:
        return StackPlan(
            key=key,
            channels=tuple(own["channels"]),
            n_z=own["n_z"],
            height=own["height"],
            width=own["width"],
            pixel_um=own["pixel_um"],
            z_step_um=own["z_step_um"],
            dtype=own["dtype"],
            slice_period_s=own.get("slice_period_s"),
            raw=pattern_from(own["raw"]) if "raw" in own else None,
        )
    except (KeyError, TypeError) as error:
        what = f"the attribute {OWN!r} does not hold a stack's plan"
        raise StorageError(what, where=str(where), do="only stacks that spheroidd wrote can be read here") from error


def block_shards(block: Block, depth: int) -> list[tuple[int, int, int]]:
    """The shards of a block: (shard number, first and last + 1 plane within it)."""
    shards = range(block.z_start // depth, -(-block.z_stop // depth))
    return [(k, max(block.z_start - k * depth, 0), min(block.z_stop - k * depth, depth)) for k in shards]


def list_stack(root: Path, plate_map: PlateMap, key: StackKey) -> None:
    """Name a stack in its well, and its well in its plate; the stack's image group is there already."""
    plate = plate_path(root, key.plate)
    well = well_path(root, key.plate, key.well)
    fields = sorted(int(path.parent.name) for path in well.glob("*/zarr.json") if path.parent.name.isdecimal())
    images = [{"path": str(field)} for field in fields]
    write_group(well, {"ome": {"version": VERSION, "well": {"images": images}}})
    write_group(well.parent, {})
    write_group(plate, _plate_attributes(plate, plate_map))


def _plate_attributes(plate: Path, plate_map: PlateMap) -> JSON:
    groups = (path.parent for path in plate.glob("*/*/zarr.json") if path.parent.parent.name != TABLES)
    stored = {group.parent.name + group.name for group in groups}
    imaged = set(map(WellId.parse, stored)) | {entry.well for entry in plate_map.imaged()}
    rows = sorted({well.row for well in imaged})
    columns = sorted({well.column for well in imaged})
    wells = [
        {
            "path": f"{well.row_name}/{well.column_name}",
            "rowIndex": rows.index(well.row),
            "columnIndex": columns.index(well.column),
        }
        for well in sorted(map(WellId.parse, stored))
    ]
    ome = {
        "name": plate_map.name,
        "rows": [{"name": WellId(row, 0).row_name} for row in rows],
        "columns": [{"name": WellId(0, column).column_name} for column in columns],
        "wells": wells,
        "field_count": max(sum(1 for _ in plate.glob(f"{well['path']}/*/zarr.json")) for well in wells),
    }
    return {"ome": {"version": VERSION, "plate": ome}, OWN: {"wells": treatments(plate_map)}}


def write_treatments(root: Path, plate_map: PlateMap) -> None:
    """Say anew what each well holds, after a person corrected it; nothing where no stack is stored."""
    plate = plate_path(root, plate_map.name)
    if (plate / "zarr.json").exists():
        write_group(plate, {**read_attributes(plate), OWN: {"wells": treatments(plate_map)}})


def treatments(plate_map: PlateMap) -> JSON:
    """What each well holds, as the plate's own attribute has it."""
    return {
        str(entry.well): {
            "role": str(entry.treatment.role),
            "compound": entry.treatment.compound,
            "dose_um": entry.treatment.dose_um,
            "patient": entry.treatment.patient,
        }
        for entry in plate_map
    }


def list_label(image: Path) -> None:
    """Name every finished label of an image in its `labels` group."""
    labels = image / "labels"
    names = sorted(path.parent.name for path in labels.glob("*/zarr.json"))
    write_group(labels, {"ome": {"version": VERSION, "labels": names}})
