"""A position list of Micro-Manager as a configuration and a plate map: wells by their labels, sites as fields.

The wells farthest apart are taken as taught, and every other position must lie where the plate then has it. Each well's
focus position becomes the start of its stack, in the plate map where they differ.
"""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from spheroidd.acquisition.plates.plan_settings import PlanSettings
from spheroidd.daemon.planning.config_draft import TO_FILL_IN, Words, draft, draft_files, plain_name
from spheroidd.daemon.planning.position_list import Position, read_positions
from spheroidd.daemon.planning.useq_export import write_text
from spheroidd.protocols.acquisition_plan import AcquisitionPlan
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.plate import PlateWell, Treatment, WellRole, check_plate_name
from spheroidd.protocols.plate_format import Point
from spheroidd.protocols.plate_map.file import write_plate_map
from spheroidd.protocols.stack import CHANNELS
from spheroidd.protocols.well import WellId
from spheroidd.protocols.well_imaging import Z_START

# "A1", "Well B03", and what the plug-in for well plates writes: "A1-Site_0", with a number before it in some versions.
_LABEL = re.compile(
    r"(?:\d+[-_ ])?(?:well[-_ ]?)?([A-Za-z]{1,2}0*[1-9]\d?)(?:[-_ ]+(?:site|pos|field)?[-_ ]?(\d{1,6}))?", re.IGNORECASE
)
TOLERANCE_UM = 100.0  # as [source.plan] taught_tolerance_um
SAME_Z_UM = 0.05
MOST_TOLD = 5
_OF_IMAGES = {
    "n_z": "slices of a stack",
    "z_step_um": "from slice to slice",
}
Wells = dict[WellId, list[Position]]


def import_positions(
    path: Path, out: Path, labware: str, channels: Mapping[str, str] | None = None, z_offset_um: float = 0.0
) -> list[Path]:
    """Write a configuration and, beside it, a plate map; both paths.

    `labware` is a plate of `spheroidd plan formats`; `channels` the presets of "488" and "561"; `z_offset_um` how far
    above a position's focus its stack begins. ConfigError names what cannot be expressed.
    """
    config, plate_map = draft_files(out)
    try:
        wells = _by_well(read_positions(path))
        centres = {well: _mean([one.xy_um for one in sites]) for well, sites in wells.items()}
        plan = _plan(labware, centres)
        sites = plan.unchecked()
        fields = _fields(wells, centres, sites)
        starts = _starts(wells, z_offset_um)
        name = check_plate_name(plain_name(out.stem))
    except ConfigError as error:
        where = error.where if error.where.startswith(str(path)) else ", ".join(filter(None, (str(path), error.where)))
        raise ConfigError(error.what, where=where, do=error.do) from error
    given: Words = {"labware": labware, "order": "map", "controls_first": False}
    given |= {"fields_um": fields} if len(fields) > 1 else {}
    source: Words = {"kind": "micromanager"}
    fill_in, own = dict(_OF_IMAGES), len(set(starts.values())) > 1
    if starts:
        source["z_start_um"] = next(iter(starts.values()))
    else:
        fill_in["z_start_um"] = "the focus stage's position for the first slice"
    tables = {
        "source.plan": given,
        "source.plan.taught": {well: list(place) for well, place in plan.taught.items()},
        **{f"source.channels.{channel}": {"preset": preset} for channel, preset in (channels or {}).items()},
    }
    if not channels:
        fill_in["channels.488"] = '{ preset = "...", exposure_ms = ... }, and 561 the same'
    text = draft(path.name, {"name": name, "map": plate_map.name}, source, tables, fill_in | TO_FILL_IN)
    for channel in channels or {}:
        head = f"[source.channels.{channel}]\n"
        text = text.replace(head, f"{head}# exposure_ms =   # the camera's, for this channel\n")
    write_text(config, text)
    entries = (PlateWell(well, Treatment(WellRole.SAMPLE), annotations=_noted(starts, well, own)) for well in wells)
    write_plate_map(plate_map, entries)
    return [config, plate_map]


def _noted(starts: Mapping[WellId, float], well: WellId, own: bool) -> Mapping[str, str]:
    return {Z_START: repr(starts[well])} if own else {}


def _by_well(positions: Sequence[Position]) -> Wells:
    """The positions of each well, by the number of the site where each has one, else in their order."""
    wells: dict[WellId, list[tuple[int, Position]]] = {}
    nameless = []
    for number, one in enumerate(positions, start=1):
        match = _LABEL.fullmatch(one.label.strip())
        if match is None:
            nameless.append(f"position {number} is called {one.label!r}")
            continue
        wells.setdefault(WellId.parse(match[1]), []).append((int(match[2] or 0), one))
    if nameless:
        listed = _listed(nameless)
        do = "call each by its well, such as B03, or B03-Site_1 for one of several in it"
        raise ConfigError(f"labels that name no well: {listed}", do=do)
    if len(wells) < 2:
        do = "mark two wells or more, far apart: one cannot tell how the plate is turned"
        raise ConfigError("it holds positions of one well", do=do)
    return {well: [one for _, one in sorted(sites, key=lambda site: site[0])] for well, sites in wells.items()}


def _listed(faults: Sequence[str]) -> str:
    more = [f"and {len(faults) - MOST_TOLD} more"] if len(faults) > MOST_TOLD else []
    return "; ".join([*faults[:MOST_TOLD], *more])


def _mean(points: Sequence[Point]) -> Point:
    return sum(x for x, _ in points) / len(points), sum(y for _, y in points) / len(points)


def _plan(labware: str, centres: Mapping[WellId, Point]) -> PlanSettings:
    """The plate, laid by the wells that lie farthest out in each direction."""
    ends = [
        chosen(centres, key=lambda well: (row * well.row + column * well.column, well))
        for row, column in ((1, 1), (1, -1))
        for chosen in (min, max)
    ]
    taught = {str(well): _tidy(centres[well]) for well in dict.fromkeys(ends)}
    return PlanSettings(labware=labware, taught=taught)


def _fields(wells: Wells, centres: Mapping[WellId, Point], sites: AcquisitionPlan) -> list[Point]:
    """Where a well's sites lie from its centre, in the plate's axes; ConfigError where wells differ."""
    first = next(iter(wells))
    turn = sites.calibration.plate_direction_um
    fields = [_tidy(turn(x - centres[first][0], y - centres[first][1])) for x, y in (p.xy_um for p in wells[first])]
    faults = []
    for well, positions in wells.items():
        if len(positions) != len(fields):
            faults.append(f"well {well} has {len(positions)} positions and {first} has {len(fields)}")
            continue
        apart = math.dist(sites.xy_um(well), centres[well])
        own = [turn(x - centres[well][0], y - centres[well][1]) for x, y in (p.xy_um for p in positions)]
        moved = max(math.dist(a, b) for a, b in zip(own, fields, strict=True))
        if apart > TOLERANCE_UM:
            faults.append(f"well {well} lies {apart:.0f} um from where the plate has it")
        elif moved > TOLERANCE_UM:
            faults.append(f"a position of well {well} lies {moved:.0f} um from where those of {first} have it")
    if faults:
        raise ConfigError(_listed(faults), do="mark them again, or name the plate that it is by --labware")
    return fields


def _starts(wells: Wells, z_offset_um: float) -> dict[WellId, float]:
    """Where each well's stack begins; none where the list has no focus. ConfigError where only some of it has."""
    starts = {}
    for well, positions in wells.items():
        known = [one.z_um for one in positions if one.z_um is not None]
        if known and len(known) == len(positions):
            if max(known) - min(known) > SAME_Z_UM:
                do = "give a well's positions one focus"
                raise ConfigError(f"they stand at {min(known):g} to {max(known):g} um", where=f"well {well}", do=do)
            starts[well] = round(known[0] + z_offset_um, 3)
        elif known:
            raise ConfigError("some of its positions have no focus", where=f"well {well}", do="mark them again")
    if starts and len(starts) < len(wells):
        missing = next(well for well in wells if well not in starts)
        raise ConfigError("it has no focus, and other wells have one", where=f"well {missing}", do="mark it again")
    if starts and max(starts.values()) - min(starts.values()) <= SAME_Z_UM:
        return dict.fromkeys(starts, next(iter(starts.values())))
    return starts


def _tidy(point: Point) -> Point:
    """To the nanometre."""
    return round(point[0], 3) + 0.0, round(point[1], 3) + 0.0


def presets_of(given: Sequence[str]) -> dict[str, str]:
    """ "488=PRESET" as a mapping; ConfigError for anything else."""
    presets = {}
    for text in given:
        name, _, preset = text.partition("=")
        if name not in CHANNELS or not preset:
            raise ConfigError(f"it is {text!r}", where="--channel", do=f"write {CHANNELS[0]}=PRESET")
        presets[name] = preset
    return presets
