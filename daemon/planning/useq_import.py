"""A useq-schema sequence as a configuration and a plate map. What the one says and the other cannot is refused by name.

A plan of our own export comes back as it was, as long as its positions were left alone; of others a WellPlatePlan is
read, because only that says what plate it is. What useq does not hold (pixel size, stage limits) is left to fill in.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from spheroidd.acquisition.plates.plan_settings import PlanSettings
from spheroidd.daemon.planning.config_draft import TO_FILL_IN, Words, draft, draft_files, plain_name
from spheroidd.daemon.planning.useq_export import METADATA_KEY, OwnWords, is_json, load_useq, write_text
from spheroidd.protocols.acquisition_plan import AcquisitionPlan
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.plate import PlateWell, Treatment, WellRole, check_plate_name
from spheroidd.protocols.plate_format import Point
from spheroidd.protocols.plate_map.file import write_plate_map
from spheroidd.protocols.stack import CHANNELS
from spheroidd.protocols.well import WellId

SAME_UM = 0.01  # a position written with fewer digits is still the same
Model = TypeVar("Model", bound=BaseModel)
_EXPRESSIBLE = {
    "MDASequence": {"metadata", "axis_order", "stage_positions", "channels", "z_plan"},
    "Channel": {"config", "group", "exposure"},
    "AbsolutePosition": {"x", "y", "name", "plate_row", "plate_col"},
}
_NOTHING: tuple[object, ...] = (None, (), [], {})


def import_useq(path: Path, out: Path, channels: Mapping[str, str] | None = None) -> list[Path]:
    """Write a configuration and, beside it, a plate map; both paths.

    `channels` gives the preset of "488" or "561" where neither the file nor the presets' names say it. ConfigError
    names what cannot be expressed, or what stands in the way of writing.
    """
    out, plate_map = draft_files(out)
    sequence = _read(path)
    try:
        _only(sequence, "")
        words = _validated(OwnWords, sequence.metadata.get(METADATA_KEY, {}), f"metadata.{METADATA_KEY}")
        tables, wells = _sites(sequence, words)
        source = {"kind": "micromanager", **_z(sequence, words), **_order(sequence)}
        lit = _channels(sequence, words.channels | dict(channels or {}))
        name = check_plate_name(words.plate or plain_name(out.stem))
    except ConfigError as error:
        what = f"{error.where}: {error.what}" if error.where else error.what
        raise ConfigError(what, where=str(path), do=error.do) from error
    source |= tables.pop("source", {}) | {"channel_group": next(iter(lit.values()))["group"]}
    tables |= {
        f"source.channels.{channel}": {key: one[key] for key in ("preset", "exposure_ms")}
        for channel, one in lit.items()
    }
    write_text(out, draft(path.name, {"name": name, "map": plate_map.name}, source, tables, TO_FILL_IN))
    treatments = {well: Treatment(words.roles.get(str(well), WellRole.SAMPLE)) for well in wells}
    write_plate_map(plate_map, [PlateWell(well, treatment) for well, treatment in treatments.items()])
    return [out, plate_map]


def _read(path: Path) -> Any:
    useq = load_useq()
    is_json(path)
    try:
        return useq.MDASequence.from_file(path)
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", where=str(path), do="check the path") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        do = "write a sequence that useq-schema reads"
        raise ConfigError(f"{key}: {first['msg']}", where=str(path), do=do) from error
    except Exception as error:  # a YAML or JSON parser's own
        do = "write a useq-schema sequence in YAML or JSON"
        raise ConfigError(f"it is no sequence: {' '.join(str(error).split())}", where=str(path), do=do) from error


def _only(model: BaseModel, where: str) -> None:
    """ConfigError for the first field that says something which a configuration has no words for."""
    known = _EXPRESSIBLE.get(type(model).__name__, set())
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if name not in known and value not in _NOTHING and value != field.get_default(call_default_factory=True):
            what = f"{name} = {value!r} cannot be expressed in a configuration"
            raise ConfigError(what[:200], where=f"{where}.{name}".lstrip("."), do="remove it, or set it up by hand")


def _sites(sequence: Any, words: OwnWords) -> tuple[dict[str, Words], list[WellId]]:
    """The tables that say where the wells are, and the wells in their order."""
    positions = sequence.stage_positions
    if isinstance(positions, load_useq().WellPlatePlan):
        return _of_plate_plan(positions)
    if not positions:
        raise ConfigError("there are none", where="stage_positions", do="a plate needs positions")
    if words.plan is not None:
        return _plan_tables(words.plan), _same_positions(positions, words.plan.unchecked())
    if words.a01_um is not None and words.pitch_um is not None and 0 not in words.pitch_um:
        wells = _same_positions(positions, AcquisitionPlan.at_pitch(words.a01_um, words.pitch_um))
        return {"source": {"a01_um": words.a01_um, "pitch_um": words.pitch_um}}, wells
    do = "make them a WellPlatePlan, which names the plate; or take a file that `spheroidd plan export` wrote"
    raise ConfigError("a list of positions does not say what plate it is", where="stage_positions", do=do)


def _of_plate_plan(positions: Any) -> tuple[dict[str, Words], list[WellId]]:
    """useq's plate: rows run towards lower y there, so one axis is mirrored; its fields follow the stage's axes."""
    plate = positions.plate
    if plate.size < 2:
        raise ConfigError("a plate of one well", where="stage_positions.plate", do="write the wells of a real plate")
    if not hasattr(positions.well_points_plan, "x") and not _is_grid(positions.well_points_plan):
        what = f"{type(positions.well_points_plan).__name__} cannot be expressed"
        raise ConfigError(what, where="stage_positions.well_points_plan", do="use one point or GridRowsColumns")
    centres = positions.selected_well_positions
    if len(positions) == 0:
        raise ConfigError("no well is selected", where="stage_positions.selected_wells", do="select wells")
    corners = [positions.all_well_positions[index] for index in (0, -1)]
    settings = {
        "format": {
            "rows": plate.rows,
            "columns": plate.columns,
            "pitch_um": [1000 * length for length in plate.well_spacing],
            "well_um": [1000 * length for length in plate.well_size],
            "round": plate.circular_wells,
        },
        "taught": {_name(corner): [corner.x, corner.y] for corner in corners},
        "mirrored": True,
    }
    sites = _validated(PlanSettings, settings, "stage_positions").unchecked()
    n_fields, first = positions.num_points_per_well, centres[0]
    fields = [
        _tidy(sites.calibration.plate_direction_um(point.x - first.x, point.y - first.y))
        for point in positions.image_positions[:n_fields]
    ]
    plan = _validated(PlanSettings, {**settings, "fields_um": fields}, "stage_positions")
    wells = [WellId(centre.plate_row, centre.plate_col) for centre in centres]
    if len(set(wells)) < len(wells):
        raise ConfigError("a well is selected twice", where="stage_positions.selected_wells", do="select it once")
    return _plan_tables(plan), wells


def _is_grid(points: Any) -> bool:
    return isinstance(points, load_useq().GridRowsColumns)


def _tidy(point: Point) -> Point:
    """To the picometre, which takes the dust off what was turned to and fro."""
    return round(point[0], 6) + 0.0, round(point[1], 6) + 0.0


def _name(position: Any) -> str:
    return str(WellId(position.plate_row, position.plate_col))


def _validated(model: type[Model], given: object, where: str) -> Model:
    try:
        return model.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join((where, *map(str, first["loc"])))
        raise ConfigError(first["msg"], where=key, do="correct it, or remove what is there") from error


def _same_positions(positions: Sequence[Any], sites: AcquisitionPlan) -> list[WellId]:
    """The wells in the order of their positions; ConfigError where a position is not where the plan has it."""
    way: dict[WellId, int] = {}
    for number, position in enumerate(positions):
        where, do = f"stage_positions.{number}", "export the plan again, or remove the metadata and name the plate"
        _only(position, where)
        if position.plate_row is None or position.plate_col is None or position.x is None or position.y is None:
            raise ConfigError("it does not say x, y, plate_row and plate_col", where=where, do=do)
        well = WellId(position.plate_row, position.plate_col)
        if way.get(well) and next(reversed(way)) != well:
            raise ConfigError(f"well {well} is left and visited again", where=where, do="keep a well's fields together")
        field = way.get(well, 0)
        way[well] = field + 1
        place = (position.x, position.y)
        known = well in sites.plate and field < len(sites.fields_um)
        if not (known and math.dist(sites.xy_um(well, field), place) <= SAME_UM):  # so that NaN is none either
            what = f"({place[0]:g}, {place[1]:g}) um is not where the metadata's plan has field {field} of {well}"
            raise ConfigError(what, where=where, do=do)
    for well, n_fields in way.items():
        if n_fields < len(sites.fields_um):
            what = f"well {well} has {n_fields} of {len(sites.fields_um)} fields"
            raise ConfigError(what, where="stage_positions", do="image the same fields in every well")
    return list(way)


def _plan_tables(plan: PlanSettings) -> dict[str, Words]:
    """The tables of [source.plan], the wells to be taken as the plate map lists them."""
    given = plan.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    given |= {"order": "map", "controls_first": False}
    inner = {f"source.plan.{name}": given.pop(name) for name in ("format", "taught") if name in given}
    return {"source.plan": given, **inner}


def _z(sequence: Any, words: OwnWords) -> dict[str, float | int]:
    plan = sequence.z_plan
    if plan is None:
        raise ConfigError("there is none, and a stack needs slices", where="z_plan", do="write ZTopBottom")
    if plan.is_relative:
        what = f"{type(plan).__name__} is relative to a focus that is not written down"
        raise ConfigError(what, where="z_plan", do="use ZTopBottom or ZAbsolutePositions")
    places = [float(z) for z in plan]
    steps = [after - before for before, after in pairwise(places)]
    step = round((places[-1] - places[0]) / len(steps), 9) if steps else words.z_step_um or 0.0
    if not step > 0 or any(abs(one - step) > 1e-6 for one in steps):
        what = "its slices do not follow upwards in equal steps"
        raise ConfigError(what, where="z_plan", do="write them from the lowest to the highest, equally far apart")
    return {"n_z": len(places), "z_start_um": places[0], "z_step_um": step}


def _order(sequence: Any) -> dict[str, bool]:
    """Slice by slice, or channel by channel, which a configuration leaves to a stage that steps by hardware."""
    axes = [str(axis) for axis in sequence.axis_order if str(axis) in "pzc"]
    if axes[:1] != ["p"]:
        what = f"{''.join(axes)}: a position is to be left only after its whole stack"
        raise ConfigError(
            what, where="axis_order", do='write "pzc", or "pcz" for a stage that steps through z by itself'
        )
    return {"z_sequencing": axes == ["p", "c", "z"]}


def _channels(sequence: Any, presets: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Each of ours with its preset, group and exposure."""
    found: dict[str, dict[str, Any]] = {}
    ours = {preset: name for name, preset in presets.items()}
    for number, channel in enumerate(sequence.channels):
        where = f"channels.{number}"
        _only(channel, where)
        named = [name for name in CHANNELS if name in channel.config]
        name = ours.get(channel.config) or (named[0] if len(named) == 1 else None)
        if name not in CHANNELS or name in found:
            what = f"{channel.config!r} does not say which of {' and '.join(CHANNELS)} it is"
            raise ConfigError(what, where=where, do=f"add --channel {CHANNELS[0]}={channel.config}")
        if channel.exposure is None:
            raise ConfigError("exposure is missing", where=where, do="write it in milliseconds")
        found[name] = {"preset": channel.config, "group": channel.group, "exposure_ms": channel.exposure}
    if not found:
        raise ConfigError("there are none", where="channels", do="write one or two")
    if len({one["group"] for one in found.values()}) > 1:
        raise ConfigError("they are of different groups", where="channels", do="use one channel group")
    return found
