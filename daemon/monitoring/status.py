"""How the daemon of a data directory is: read from its catalog, its lock and its disk, without troubling it."""

import json
import shutil
import time
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from spheroidd.daemon.analysis.results_table import STYLES, TRUST_STYLES, UNKNOWN
from spheroidd.daemon.catalog.audit_chain import utc
from spheroidd.daemon.catalog.kept_standings import KeptStandings
from spheroidd.daemon.catalog.reader import CatalogReader
from spheroidd.daemon.catalog.rows import Exclusion, Fault, RowStanding, RunState
from spheroidd.daemon.monitoring import outage_note
from spheroidd.daemon.system.address_files import read_address
from spheroidd.daemon.system.lock import is_locked
from spheroidd.daemon.verification.scrub_state import ScrubProgress, ScrubState
from spheroidd.protocols.faults import FaultCode
from spheroidd.protocols.results import WellResult, WellStatus
from spheroidd.protocols.stack import StackKey
from spheroidd.protocols.trust import Trust, meaning

HEALTHY, ATTENTION, STOPPED = 0, 1, 3  # exit codes of `spheroidd status`
SILENT_S = 10.0  # the daemon beats once a second; a commit on a bad disk may take a while
MAX_NAMED = 12  # wells that are doubtful for one reason; `spheroidd results` lists them all
FULL_BYTES = 1 << 20  # less than the catalog needs to write anything down


@dataclass(frozen=True, slots=True)
class Status:
    """One look at a data directory. `run` is None before the first run; `slice` counts within the stack at work."""

    data_dir: str
    running: bool
    silent_s: float | None  # since the last sign of life of a daemon that runs
    run: RunState | None
    slice: tuple[int, int] | None  # acknowledged, promised
    slices: tuple[int, int]  # the same of all planned stacks
    wells: dict[str, int]
    failed: tuple[WellResult, ...]
    doubtful: tuple[WellResult, ...]  # scored, to be looked at: trust is check or fail
    work_left: bool
    disk_free_gb: float
    faults: tuple[Fault, ...]
    excluded: tuple[Exclusion, ...] = ()
    left_out: tuple[WellResult, ...] = ()  # skipped, aborted: a person wanted it so
    service: str | None = None  # where the daemon that runs can be asked over gRPC
    asked: str = "catalog"  # or "daemon": whose words these are
    scrub: ScrubProgress | None = None  # None where none ever began

    @property
    def exit_code(self) -> int:
        """0 healthy, 1 a person should look, 3 it is not running and there is work left."""
        if not self.running and self.work_left:
            return STOPPED
        hung = self.silent_s is not None and self.silent_s > SILENT_S
        return ATTENTION if self.faults or self.failed or self.doubtful or hung else HEALTHY


def look(
    data_dir: Path,
    catalog: CatalogReader,
    now_s: float | None = None,
    kept: KeptStandings | None = None,
    *,
    figures: bool = True,
) -> Status:
    """See how a data directory is at the time `now_s` (seconds since 1970). Who looks again and again keeps `kept`.

    Without `figures` those of doubtful rows are None, and their trust is all that is read of them.
    """
    run, standings = catalog.run_state(), catalog.standings() if kept is None else kept.look(catalog)
    out = {(row["plate"], row["well"]) for row in catalog.query("SELECT plate, well FROM excluded_wells")}
    stacks = catalog.excluded_stacks()
    states = Counter(one.status for one in standings)
    named = {state for state in states if state.went_wrong or state.was_ordered}
    told: list[RowStanding] = []
    doubtful: list[WellResult] = []
    for one in standings:
        was_excluded = (stacks and one.key in stacks) or (out and _well_of(one.key) in out)
        is_doubtful = one.trust is Trust.CHECK or one.trust is Trust.FAIL
        if was_excluded or one.status in named or (is_doubtful and figures):
            told.append(one)
        elif is_doubtful:
            doubtful.append(one.bare if kept is None else kept.bare(one))
    rows = catalog.rows_of([one.key for one in told]) if kept is None else kept.rows_told(catalog, told)
    doubtful += [row.result for row in rows if row.to_look_at]
    now_s = time.time() if now_s is None else now_s
    running = is_locked(data_dir)
    if running is None:
        running = run is not None and run.state != "stopped" and now_s - run.heartbeat_s < SILENT_S
    note = outage_note.read(data_dir) if running else None
    run = _as_it_is(run, note, now_s) if run and running else run
    at_work = next((one for one in standings if run and _names(run, one.key)), None)
    return Status(
        data_dir=str(data_dir),
        running=running,
        silent_s=max(0.0, now_s - run.heartbeat_s) if running and run else None,
        run=run,
        slice=(at_work.n_slices_acked, at_work.n_slices_expected) if running and at_work else None,
        slices=(sum(one.n_slices_acked for one in standings), sum(one.n_slices_expected for one in standings)),
        wells={state.value: n for state, n in states.items()},
        failed=tuple(row.result for row in rows if row.result.status.went_wrong),
        doubtful=tuple(doubtful),
        work_left=any(state.is_to_come for state in states),
        disk_free_gb=shutil.disk_usage(data_dir).free / 1e9,
        faults=(*catalog.faults(), *unwritten_faults(data_dir, running=running, now_s=now_s)),
        excluded=tuple(dict.fromkeys(row.exclusion for row in rows if row.exclusion)),
        left_out=tuple(row.result for row in rows if row.result.status.was_ordered),
        service=_service(data_dir) if running else None,
        scrub=scrub.progress if (scrub := ScrubState.read(data_dir)) else None,
    )


def _well_of(key: StackKey) -> tuple[str, str]:
    return key.plate, str(key.well)


def _names(run: RunState, key: StackKey) -> bool:
    return (run.plate, run.well, run.stack) == (key.plate, str(key.well), key.stack)


def _service(data_dir: Path) -> str | None:
    address = read_address(data_dir)
    return address.address if address else None


def current_run(data_dir: Path, catalog: CatalogReader, now_s: float) -> RunState | None:
    """What the last daemon said of itself, beside the catalog too; nothing of its pace is older than SILENT_S."""
    run = catalog.run_state()
    return run and _as_it_is(run, outage_note.read(data_dir), now_s)


def _as_it_is(run: RunState, note: outage_note.OutageNote | None, now_s: float) -> RunState:
    if note is not None:
        alive_s = max(run.heartbeat_s, note.heartbeat_s)
        return replace(run, state=note.state, heartbeat_s=alive_s, slices_per_s=None, eta_s=None)
    return replace(run, slices_per_s=None, eta_s=None) if now_s - run.heartbeat_s > SILENT_S else run


def unwritten_faults(data_dir: Path, *, running: bool, now_s: float) -> tuple[Fault, ...]:
    """What a running daemon cannot write into the catalog: that it cannot, and a disk without a byte left."""
    note = outage_note.read(data_dir) if running else None
    return (*([note.fault] if note else []), *_full_disk(data_dir, running=running, now_s=now_s))


def _full_disk(data_dir: Path, *, running: bool, now_s: float) -> tuple[Fault, ...]:
    if not running or shutil.disk_usage(data_dir).free >= FULL_BYTES:
        return ()
    what, do = "the disk is full and no slice is acknowledged", "make room; the run goes on by itself"
    return (Fault(FaultCode.DISK_FULL, "", "StorageError", what, str(data_dir), do, now_s, None),)


def to_json(status: Status) -> str:
    """One JSON object; the keys are the fields of `Status`, and `exit_code`."""
    return json.dumps({**asdict(status), "exit_code": status.exit_code}, allow_nan=False)


def to_screen(status: Status) -> RenderableType:
    """The same for a person."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in _lines(status):
        table.add_row(name, value)
    parts: list[RenderableType] = [table]
    parts += [Text(f"! {_of(fault)}{fault.what}; {fault.do}", style="red") for fault in status.faults]
    told = {fault.key for fault in status.faults}
    parts += [
        Text(f"{result.well} {result.standing}", style="yellow")
        for result in status.failed
        if f"{result.plate}/{result.well}/{result.stack}" not in told
    ]
    parts += [
        Text(f"{_listed(wells)} trust {trust}: {meaning(flag).sentence}", style=TRUST_STYLES.get(trust, ""))
        for (trust, flag), wells in _by_flag(status.doubtful).items()
    ]
    parts += [Text(f"{', '.join(wells)} {why}") for why, wells in _by_reason(status.left_out).items()]
    parts += [Text(f"{one.plate}/{one.well} excluded by {one.who}: {one.reason}") for one in status.excluded]
    return Group(*parts)


def _by_flag(results: tuple[WellResult, ...]) -> dict[tuple[Trust | None, str], list[str]]:
    """The doubtful wells, by how far and why."""
    found: dict[tuple[Trust | None, str], list[str]] = {}
    for result in results:
        for flag in result.trust_flags or ():
            found.setdefault((result.trust, flag), []).append(result.well)
    return found


def _listed(wells: list[str]) -> str:
    more = f" and {len(wells) - MAX_NAMED} more" if len(wells) > MAX_NAMED else ""
    return ", ".join(wells[:MAX_NAMED]) + more


def _by_reason(results: tuple[WellResult, ...]) -> dict[str, list[str]]:
    """The wells that were left out, by how and why."""
    found: dict[str, list[str]] = {}
    for result in results:
        found.setdefault(result.standing, []).append(result.well)
    return found


def _lines(status: Status) -> list[tuple[str, str | Text]]:
    run = status.run
    lines: list[tuple[str, str | Text]] = [("daemon", _daemon(status)), ("data", status.data_dir)]
    lines.append(("asked", _asked(status)))
    if run and status.running:
        lines.append(("plate", _place(run)))
        if status.slice:
            lines.append(("stack", f"slice {status.slice[0]} of {status.slice[1]}"))
        lines.append(("slices", f"{status.slices[0]} of {status.slices[1]}"))
        lines.append(("rate", UNKNOWN if run.slices_per_s is None else f"{run.slices_per_s:.2f} slices/s"))
        lines.append(("time left", duration(run.eta_s)))
        lines.append(("worker", run.worker))
    wells = Text("  ").join(
        Text(f"{status.wells[state]} {state}", style=STYLES[state]) for state in WellStatus if state in status.wells
    )
    return [*lines, ("wells", wells), ("disk free", f"{status.disk_free_gb:.1f} GB"), ("scrub", _scrubbed(status))]


def _scrubbed(status: Status) -> Text:
    """When stored images were last read again in idle time, how far the pass under way is, and what is damaged."""
    scrub = status.scrub
    if scrub is None:
        return Text("no pass has begun")
    words = ["no pass has ended" if scrub.finished_s is None else f"last pass ended {utc(scrub.finished_s)}"]
    words += [] if scrub.share_done is None else [f"{scrub.share_done:.0%} of the next one"]
    words += [f"{scrub.damaged} stacks damaged" if scrub.damaged else "nothing damaged"]
    return Text(", ".join(words), style="red" if scrub.damaged else "")


def _daemon(status: Status) -> Text:
    run = status.run
    if not status.running:
        words = "not running, with work left: `spheroidd run` goes on" if status.work_left else "not running, all done"
        return Text(words, style="yellow" if status.work_left else "")
    if run is None or status.silent_s is None:
        return Text("starting")
    if status.silent_s > SILENT_S:
        return Text(f"no sign of life for {status.silent_s:.0f} s (pid {run.pid}): look at it", style="red")
    return Text(f"{run.state} (pid {run.pid}, version {run.version})", style="green")


def _asked(status: Status) -> str:
    if status.asked == "daemon":
        return f"the daemon at {status.service}"
    if not status.running:
        return "the catalog, as the last daemon left it"
    age = "" if status.silent_s is None else f" {status.silent_s:.0f} s ago"
    where = f"; the daemon answers at {status.service}" if status.service else ""
    return f"the catalog, as the daemon wrote it{age}{where}"


def _place(run: RunState) -> str:
    if run.plate is None:
        return UNKNOWN
    if run.well is None:
        return run.plate
    return f"{run.plate}, well {run.well}" + (f", stack {run.stack}" if run.stack else "")


def _of(fault: Fault) -> str:
    return f"{fault.where or fault.key}: " if fault.where or fault.key else ""


def duration(seconds: float | None) -> str:
    """ "2 h 05 min", "4 min 10 s", "9 s", or a dash."""
    if seconds is None or seconds < 0:
        return UNKNOWN
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
