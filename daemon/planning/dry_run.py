"""The dry run of a plate: every position, the fields in their wells, the disk and the time, without the instrument."""

import json
import math
from collections.abc import Callable, Sequence, Sized
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from spheroidd.acquisition.plates.plan_settings import PlanSettings
from spheroidd.acquisition.sources.micromanager.settings import MicroManagerSettings
from spheroidd.daemon.catalog.connection import CATALOG_NAME
from spheroidd.daemon.catalog.reader import CatalogReader
from spheroidd.daemon.config.errors import line_of
from spheroidd.daemon.config.model import Config, load_config, open_source
from spheroidd.daemon.monitoring.preflight import Check, Verdict, space_check
from spheroidd.daemon.monitoring.status import duration
from spheroidd.daemon.planning.time_estimate import LearntTimes, PlateTime, learn, reckon
from spheroidd.daemon.system.clock import SystemClock
from spheroidd.protocols.acquisition_plan import AcquisitionPlan, travel_um
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.plate import PlateMap
from spheroidd.protocols.regular_file import read_regular_text
from spheroidd.protocols.stack import StackKey, StackPlan
from spheroidd.protocols.well import WellId

FAR = 2.0  # wells that lie so many times as far out as the taught ones feel an error of teaching as many times
UM_IN_MM = 1000.0


@dataclass(frozen=True, slots=True)
class Stop:
    """One stack of the way over the plate; the stage's position where the source is told one."""

    number: int
    key: StackKey
    xy_um: tuple[float, float] | None
    fault: str = ""


@dataclass(frozen=True, slots=True)
class PlanReport:
    """What a dry run found. `sites` is there where [source.plan] is.

    `stops` is None where the source learns what it images only while it runs.
    """

    plate_map: PlateMap
    sites: AcquisitionPlan | None
    stops: tuple[Stop, ...] | None
    time: PlateTime | None
    checks: tuple[Check, ...]

    @property
    def exit_code(self) -> int:
        """That of the error a run would end with; 0 where it could start."""
        return self.failed[0].exit_code if self.failed else 0

    @property
    def failed(self) -> list[Check]:
        """The checks that a run would not pass."""
        return [check for check in self.checks if check.verdict is Verdict.FAIL]

    @property
    def length_um(self) -> float | None:
        """How far the XY stage goes in all, on straight lines; None where nobody knows where it goes."""
        if not self.stops:
            return None
        places = [stop.xy_um for stop in self.stops if stop.xy_um is not None]
        return travel_um(places) if len(places) == len(self.stops) else None


def dry_run(path: Path, past: Path | None = None) -> PlanReport:
    """Check a configuration's plan; times are learnt from the data directory `past`, else from its own.

    ConfigError names the file, the line and the key where nothing more can be said of the plate.
    """
    config = load_config(path)
    text = read_regular_text(path)

    def located(error: ConfigError) -> ConfigError:
        return at_its_line(error, path, text)

    try:
        with closing(open_source(config, SystemClock())) as source:
            plate_map, promised = source.plate_map, source.plans()
            plans = tuple(promised) if isinstance(promised, Sized) else None
    except ConfigError as error:
        raise located(error) from error
    settings = config.source if isinstance(config.source, MicroManagerSettings) else None
    stops = _stops(plans, settings) if plans is not None else None
    checks = [] if settings is None or stops is None else _site_checks(settings, stops, located)
    checks.append(space_check(config, plans))
    time, timing = _time(config, plans, past, _focus_images(settings))
    sites = settings.sites if settings and settings.plan else None
    return PlanReport(plate_map, sites, stops, time, (*checks, timing))


def at_its_line(error: ConfigError, path: Path, text: str) -> ConfigError:
    """An error that names a key, with the file and the line in which the key stands."""
    if not error.where.startswith(("source.", "plate.")):
        return error
    line = line_of(text, error.where.split("."))
    return ConfigError(f"{error.where}: {error.what}", where=f"{path}, line {line}" if line else str(path), do=error.do)


def to_json(report: PlanReport) -> str:
    """One JSON object: the plate, the calibration, every stop, the checks and the time."""
    sites, length_um = report.sites, report.length_um
    calibration = sites.calibration if sites else None
    found = {
        "plate": report.plate_map.name,
        "format": asdict(sites.plate) if sites else None,
        "calibration": calibration
        and {
            "offset_um": calibration.offset_um,
            "matrix": calibration.matrix,
            "rotation_deg": calibration.rotation_deg,
            "scale": calibration.scale,
            "mirrored": calibration.mirrored,
            "residuals_um": {str(well): residual for well, residual in calibration.residuals_um},
        },
        "stops": None if report.stops is None else [_stop_row(stop) for stop in report.stops],
        "travel_mm": None if length_um is None else length_um / UM_IN_MM,
        "time": asdict(report.time) if report.time else None,
        "checks": [asdict(check) for check in report.checks],
        "exit_code": report.exit_code,
    }
    return json.dumps(found, allow_nan=False)


def _stop_row(stop: Stop) -> dict[str, object]:
    x_um, y_um = stop.xy_um or (None, None)
    where = {"well": str(stop.key.well), "stack": stop.key.stack, "x_um": x_um, "y_um": y_um}
    return {"number": stop.number, **where, "fault": stop.fault}


def _stops(plans: Sequence[StackPlan], settings: MicroManagerSettings | None) -> tuple[Stop, ...]:
    stops = []
    for number, plan in enumerate(plans, start=1):
        xy_um = settings.xy_um(plan.key.well, plan.key.stack) if settings else None
        fault = _beyond(settings, xy_um) if settings and xy_um else ""
        stops.append(Stop(number, plan.key, xy_um, fault))
    return tuple(stops)


def _beyond(settings: MicroManagerSettings, xy_um: tuple[float, float]) -> str:
    """Which of the stage's limits a position is beyond, as the key of that limit; empty where it is inside."""
    for name, value, (low, high) in zip(
        ("x_limits_um", "y_limits_um"), xy_um, (settings.x_limits_um, settings.y_limits_um), strict=True
    ):
        if not low <= value <= high:
            return name
    return ""


def _site_checks(
    settings: MicroManagerSettings, stops: Sequence[Stop], located: Callable[[ConfigError], ConfigError]
) -> list[Check]:
    sites, checks = settings.sites, []
    if settings.plan is not None:
        checks += [_plate_check(sites), _calibration_check(sites, settings.plan, stops), _fields_check(settings)]
    return [*checks, _reach_check(settings, stops, located), _z_check(settings)]


def _plate_check(sites: AcquisitionPlan) -> Check:
    plate = sites.plate
    size = " x ".join(f"{side:g}" for side in dict.fromkeys(plate.well_um))
    pitch = " and ".join(f"{pitch:g}" for pitch in dict.fromkeys(plate.pitch_um))
    shape = "round" if plate.round_wells else "rectangular"
    what = f"{plate.name}: {plate.rows} x {plate.columns} {shape} wells of {size} um, {pitch} um apart"
    return Check("plate", Verdict.PASS, what)


def _calibration_check(sites: AcquisitionPlan, settings: PlanSettings, stops: Sequence[Stop]) -> Check:
    found = sites.calibration
    what = f"turned by {found.rotation_deg:.3f} degrees, scale {found.scale:.5f}"
    what += ", one axis mirrored" if found.mirrored else ""
    what += f"; {len(found.residuals_um)} taught wells lie within {found.worst_um:.1f} um of the fit"
    taught = [sites.plate.centre_um(well) for well, _ in found.residuals_um]
    middle = sum(x for x, _ in taught) / len(taught), sum(y for _, y in taught) / len(taught)
    reach = max(math.dist(middle, place) for place in taught)
    farthest = max((stop.key.well for stop in stops), key=lambda well: math.dist(middle, sites.plate.centre_um(well)))
    times = math.dist(middle, sites.plate.centre_um(farthest)) / reach
    if times > FAR:
        what += f"; {farthest} lies {times:.1f} times as far out as they do, and so is an error of theirs"
        return Check("calibration", Verdict.WARN, what, "teach wells that lie farther apart")
    if found.worst_um > settings.taught_tolerance_um / 2:
        return Check("calibration", Verdict.WARN, what, "centre the taught wells once more")
    return Check("calibration", Verdict.PASS, what)


def _fields_check(settings: MicroManagerSettings) -> Check:
    n_fields = len(settings.sites.fields_um)
    width_um, height_um = settings.image_um
    fields = "1 field" if n_fields == 1 else f"{n_fields} fields"
    return Check("fields", Verdict.PASS, f"{fields} of {width_um:g} x {height_um:g} um inside each well")


def _reach_check(
    settings: MicroManagerSettings, stops: Sequence[Stop], located: Callable[[ConfigError], ConfigError]
) -> Check:
    outside = [stop for stop in stops if stop.fault]
    limits = f"x {_range(settings.x_limits_um)}, y {_range(settings.y_limits_um)}"
    if not outside:
        return Check("stage limits", Verdict.PASS, f"all {len(stops)} positions within {limits} um")
    first = outside[0]
    x_um, y_um = first.xy_um or (0.0, 0.0)
    what = f"well {first.key.well}, field {first.key.stack} is at ({x_um:.1f}, {y_um:.1f}) um, outside {limits} um"
    what += f" ({len(outside)} of {len(stops)} positions are)" if outside[1:] else ""
    do = "teach the wells again or correct the plate; widen the limits only where the stage may go there"
    error = located(ConfigError(what, where=f"source.{first.fault}", do=do))
    return Check("stage limits", Verdict.FAIL, f"{error.where}: {error.what}", error.do, ConfigError.exit_code)


def _z_check(settings: MicroManagerSettings) -> Check:
    """Fixed places are within the limits, or the settings would not have been read; a focus may be found elsewhere."""
    first, last = settings.z_um(0), settings.z_um(settings.n_z - 1)
    if (focus := settings.autofocus) is not None:
        middle = first - focus.offset_um if focus.expected_um is None else focus.expected_um
        lowest, highest = (middle + side * focus.range_um / 2 for side in (-1, 1))
        bottom, top = lowest + min(0.0, focus.offset_um), highest + max(0.0, focus.offset_um + last - first)
        what = f"focus looked for from {lowest:g} to {highest:g} um: the stack lies between {bottom:g} and {top:g} um"
        if settings.z_limits_um[0] <= bottom and top <= settings.z_limits_um[1]:
            return Check("z", Verdict.PASS, f"{what}, within {_range(settings.z_limits_um)} um")
        what += f", which is not all within {_range(settings.z_limits_um)} um: such a well is left out"
        return Check("z", Verdict.WARN, what, "narrow source.autofocus.range_um, or see where the stage may go")
    what = f"{settings.n_z} slices from {first:g} to {last:g} um within {_range(settings.z_limits_um)} um"
    return Check("z", Verdict.PASS, f"{what}; {settings.retract_z_um:g} um on the way between wells")


def _range(limits_um: tuple[float, float]) -> str:
    return f"[{limits_um[0]:g}, {limits_um[1]:g}]"


def _focus_images(settings: MicroManagerSettings | None) -> int:
    """About how many images the autofocus takes of a stack once the wells around are known; 0 where there is none."""
    if settings is None or (focus := settings.autofocus) is None:
        return 0
    return round(focus.near_range_um / focus.coarse_um + 3 * focus.coarse_um / focus.fine_um)


def _time(
    config: Config, plans: Sequence[StackPlan] | None, past: Path | None, n_focus_images: int
) -> tuple[PlateTime | None, Check]:
    if plans is None:
        return None, Check("time", Verdict.PASS, "the source does not say how many stacks will come")
    found = reckon(plans, _learnt(config, plans, past), n_focus_images)
    if found.total_s is None or found.slice_s is None:
        do = "give a data directory of like stacks by --past"
        return found, Check("time", Verdict.WARN, "nobody knows how long a slice takes", do)
    end = datetime.now(UTC) + timedelta(seconds=found.total_s)
    what = f"{duration(found.total_s)}, until {end:%Y-%m-%d %H:%M} UTC if started now: {found.n_slices} slices at "
    what += f"{found.slice_s.seconds:.3f} s ({found.slice_s.source}), {found.n_moves_to_wells} moves to a well at "
    what += f"{found.next_well_s.seconds:.2f} s ({found.next_well_s.source})"
    if found.n_moves_to_fields:
        what += f", {found.n_moves_to_fields} to a field at {found.next_field_s.seconds:.2f} s "
        what += f"({found.next_field_s.source})"
    return found, Check("time", Verdict.PASS, what)


def _learnt(config: Config, plans: Sequence[StackPlan], past: Path | None) -> LearntTimes:
    """From the directory that was named, which must be one; else from the plan's own where something was run there."""
    if not plans or (past is None and not (config.data.dir / CATALOG_NAME).is_file()):
        return LearntTimes()
    with CatalogReader.read_only(past or config.data.dir) as catalog:
        return learn(catalog, plans[0])


def wells_in_turn(report: PlanReport) -> list[WellId]:
    """The wells in the order of their first stack."""
    return list(dict.fromkeys(stop.key.well for stop in report.stops or ()))
