"""From the state to what must be said of it: stops, stalls, short stacks, a disk too small, controls out of range.

Reads over a connection of its own, in any thread; `monitoring.alarms.settle` writes down what was found.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from spheroidd.daemon.catalog.reader import CatalogReader
from spheroidd.daemon.catalog.rows import RunState, StackState, stack_key
from spheroidd.daemon.config.alarm_settings import AlarmsConfig
from spheroidd.daemon.monitoring.alarms import UNDELIVERED, Place
from spheroidd.daemon.monitoring.preflight import DISK_BYTES_PER_RAW_BYTE
from spheroidd.protocols.errors import InstrumentError, SpheroiddError, StackError, StorageError
from spheroidd.protocols.faults import FaultCode, of_flag
from spheroidd.protocols.quality import QualityFlag, Verdict
from spheroidd.protocols.stack import UPSAMPLING
from spheroidd.protocols.stack_end import StackEnd

DISK_EASE = 1.02  # room by so much more than is needed ends the alarm, so that it does not come and go
SLOW_PERIODS = 10.0  # a stack that is slow by its plan has stalled after so many slices' time
_ENDED_BADLY: Mapping[str, FaultCode] = MappingProxyType(
    {StackEnd.SHORT: FaultCode.STACK_INCOMPLETE, StackEnd.FAILED: FaultCode.STACK_FAILED}
)
_ORDERED = (StackEnd.SKIPPED, StackEnd.ABORTED)  # a person wanted it so
_NO_SLICE_COMES = (FaultCode.STORAGE, FaultCode.STORAGE_CATALOG, FaultCode.INSTRUMENT)
_AT_WORK = ("running", "pausing", "paused", "aborting")


@dataclass(frozen=True, slots=True)
class Situation:
    """What the catalog alone does not say.

    `free_bytes` of the data's disk; `acquiring`: the source may give more; `silent_s`: how long it has run without a
    slice and without a new stack, by a clock that is never set.
    """

    now_s: float
    free_bytes: int
    acquiring: bool
    silent_s: float = 0.0
    flags: tuple[QualityFlag, ...] = ()
    undelivered: Mapping[str, SpheroiddError] = field(default_factory=lambda: MappingProxyType({}))  # by receiver
    failed_logins: SpheroiddError | None = None
    scrubbed: Mapping[Place, SpheroiddError] = field(default_factory=lambda: MappingProxyType({}))


def conditions(
    catalog: CatalogReader, settings: AlarmsConfig, situation: Situation
) -> dict[Place, SpheroiddError] | None:
    """What must be said of the plate under way, or of the last one; None while a daemon is starting."""
    run = catalog.run_state()
    if run is None or run.state == "starting":
        return None
    found: dict[Place, SpheroiddError] = {
        (UNDELIVERED[name], None): error for name, error in situation.undelivered.items()
    }
    found |= situation.scrubbed
    if situation.failed_logins is not None:
        found[FaultCode.FAILED_LOGINS, None] = situation.failed_logins
    plate = current_plate(catalog, run)
    if plate is None:
        return found
    stacks = _latest_stacks(catalog, plate)
    left = _wells_left(catalog, plate, stacks)
    found |= _short_stacks(stacks)
    unscored = [row["well"] for row in stacks if row["state"] in (StackState.STORED, StackState.SCORING)]
    if (left or unscored) and run.state in ("stopped", "idle"):
        parts = [f"{len(left)} wells left to image: {_named(left)}"] if left else []
        parts += [f"{len(unscored)} stacks to score: {_named(unscored)}"] if unscored else []
        what = f"the plate has stopped with {' and '.join(parts)}"
        found[FaultCode.PLATE_STOPPED, None] = InstrumentError(what, where=plate, do="start the plate again to go on")
    if situation.acquiring and run.state in _AT_WORK:
        found |= _short_disk(catalog, plate, stacks, left, situation)
        if run.state == "running" and not _told_why(catalog):
            found |= _stall(stacks, left, run, settings, situation)
    return found | _controls(plate, stacks, {*left, *unscored}, situation.flags)


def _controls(
    plate: str, stacks: list[dict[str, Any]], under_way: set[str], flags: tuple[QualityFlag, ...]
) -> dict[Place, SpheroiddError]:
    """Controls out of range, unless they may still get a value, or a person left them out."""
    found: dict[Place, SpheroiddError] = {}
    ordered = {row["well"] for row in stacks if row["ended"] in _ORDERED}
    for flag in flags:
        code = of_flag(flag.code)
        if code is None or flag.verdict not in (Verdict.WARN, Verdict.FAIL) or not under_way.isdisjoint(flag.wells):
            continue
        if code is FaultCode.QUALITY_CONTROL_LOST and ordered.issuperset(flag.wells):
            continue
        where = f"{plate} {' '.join(flag.wells[:8])}".strip()
        found[code, None] = StackError(flag.what, where=where, do=flag.do)
    return found


def current_plate(catalog: CatalogReader, run: RunState | None) -> str | None:
    """The plate under way, or else the one of which a stack was opened last."""
    if run is not None and run.plate is not None:
        return run.plate
    rows = catalog.query("SELECT plate FROM stacks ORDER BY opened_s DESC, plate LIMIT 1")
    return rows[0]["plate"] if rows else None


def _latest_stacks(catalog: CatalogReader, plate: str) -> list[dict[str, Any]]:
    """The last stack of each well: an earlier one was taken again."""
    sql = "SELECT * FROM stacks AS s WHERE plate = :plate AND stack = (SELECT max(stack) FROM stacks AS other "
    sql += "WHERE other.plate = s.plate AND other.well = s.well)"
    return catalog.query(sql, {"plate": plate})


def _wells_left(catalog: CatalogReader, plate: str, stacks: list[dict[str, Any]]) -> list[str]:
    begun = {row["well"]: row["state"] for row in stacks}
    wells = [str(entry.well) for entry in catalog.plate_map(plate).imaged()]
    to_come = (StackState.QUEUED, StackState.ACQUIRING)
    stopped = {row["well"] for row in stacks if row["ended"] == StackEnd.STOPPED}
    return [well for well in wells if begun.get(well, StackState.QUEUED) in to_come or well in stopped]


def _short_stacks(stacks: list[dict[str, Any]]) -> dict[Place, SpheroiddError]:
    """The stacks that ended badly, and that nobody ordered to end."""
    found: dict[Place, SpheroiddError] = {}
    for row in stacks:
        code = _ENDED_BADLY.get(row["ended"])
        if code is not None:
            key = stack_key(row)
            what, do = row["reason"] or "no reason is known", row["todo"] or "image the well again"
            found[code, key] = StackError(what, where=str(key), do=do)
    return found


def _short_disk(
    catalog: CatalogReader, plate: str, stacks: list[dict[str, Any]], left: list[str], situation: Situation
) -> dict[Place, SpheroiddError]:
    """The disk holds less than the slices that are still to come and the space that is never to be used."""
    sizes = {row["well"]: _raw_bytes(row) for row in stacks}
    if not sizes:
        return {}
    typical = max(sizes.values())  # for a well of which nothing is planned yet
    raw: float = sum(sizes.get(well, typical) for well in left)
    raw -= _taken_bytes(catalog, plate, stacks, left)
    settings = json.loads(catalog.plate_config(plate))
    kept = 1e9 * float(settings.get("store", {}).get("min_free_gb", 0.0))
    need = DISK_BYTES_PER_RAW_BYTE * raw + kept
    stands = catalog.query(
        "SELECT 1 FROM faults WHERE code = :code AND cleared_s IS NULL", {"code": FaultCode.DISK_SHORT}
    )
    if not left or situation.free_bytes >= need * (DISK_EASE if stands else 1.0):
        return {}
    what = f"{_gb(situation.free_bytes)} are free, and the rest of the plate needs up to {_gb(need)}"
    do = "make room before it is full; then no slice is taken until there is space again"
    return {(FaultCode.DISK_SHORT, None): StorageError(what, where=plate, do=do)}


def _raw_bytes(row: Mapping[str, Any]) -> int:
    plan = json.loads(row["plan_json"])
    if "raw" in plan:  # a frame has half as many pixels along both sides
        plan = {**plan, "height": plan["height"] // UPSAMPLING, "width": plan["width"] // UPSAMPLING}
    return int(row["n_slices"]) * int(plan["height"]) * int(plan["width"]) * (1 if plan["dtype"] == "uint8" else 2)


def _taken_bytes(catalog: CatalogReader, plate: str, stacks: list[dict[str, Any]], left: list[str]) -> float:
    begun = [row for row in stacks if row["well"] in left and row["state"] != StackState.QUEUED]
    sql = "SELECT count(*) AS n FROM slices WHERE plate = :plate AND well = :well AND stack = :stack"
    taken = 0.0
    for row in begun:
        place = {"plate": plate, "well": row["well"], "stack": row["stack"]}
        taken += _raw_bytes(row) * catalog.query(sql, place)[0]["n"] / row["n_slices"]
    return taken


def _told_why(catalog: CatalogReader) -> bool:
    """Whether a fault says already why no slice comes."""
    sql = "SELECT 1 FROM faults WHERE cleared_s IS NULL AND key = '' AND code IN (SELECT value FROM json_each(:codes))"
    return bool(catalog.query(sql, {"codes": json.dumps(_NO_SLICE_COMES)}))


def _stall(
    stacks: list[dict[str, Any]], left: list[str], run: RunState, settings: AlarmsConfig, situation: Situation
) -> dict[Place, SpheroiddError]:
    """No slice for longer than there may be none. Whoever just started or went on is given the same time."""
    silent_s = situation.silent_s
    at_work = [row for row in stacks if row["state"] == StackState.ACQUIRING and row["well"] == run.well]
    if at_work:
        row = at_work[0]
        period_s = json.loads(row["plan_json"]).get("slice_period_s") or 0.0
        if silent_s > max(settings.stall_s, SLOW_PERIODS * period_s):
            since = time.strftime("%H:%M:%S UTC", time.gmtime(situation.now_s - silent_s))
            what, key = f"no slice has come since {since}", stack_key(row)
            do = "look at the microscope and its software; a stack that goes on ends this alarm"
            return {(FaultCode.STALLED, key): InstrumentError(what, where=str(key), do=do)}
    elif left and silent_s > settings.between_s:
        since = time.strftime("%H:%M UTC", time.gmtime(situation.now_s - silent_s))
        what = f"no stack has begun since {since}, and {len(left)} wells are left"
        return {(FaultCode.STALLED, None): InstrumentError(what, where=run.plate or "", do="look at the microscope")}
    return {}


def _named(wells: list[str]) -> str:
    return ", ".join(wells[:6]) + (f" and {len(wells) - 6} more" if len(wells) > 6 else "")


def _gb(n_bytes: float) -> str:
    """Two digits: words that change with every slice would be written down with every slice."""
    return f"{n_bytes / 1e9:.2g} GB" if n_bytes < 10e9 else f"{n_bytes / 1e9:.0f} GB"
