"""The scrub: a thread of the daemon that verifies stored stacks, over and over, while nothing else wants the disk.

It reads one file at a time and then rests, so that neither a core nor the disk gives it more than its share. A plate
that goes on finds it within one file. Main writes down what it found; where it is stands in `scrub_state`.
"""

import logging
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from spheroidd.daemon.catalog.reader import CatalogReader
from spheroidd.daemon.catalog.rows import StackRow, StackState
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.config.verification_settings import VerificationConfig
from spheroidd.daemon.verification.findings import Finding, Report
from spheroidd.daemon.verification.last_verified import record
from spheroidd.daemon.verification.plate_checks import conclude, stack_work
from spheroidd.daemon.verification.scrub_state import ScrubState
from spheroidd.daemon.verification.stack_check import Checked
from spheroidd.protocols.errors import SpheroiddError, StackError
from spheroidd.protocols.faults import FaultCode
from spheroidd.protocols.stack import StackKey

LOOK_S = 2.0  # how soon it begins after the daemon became idle, or a pass is due
SAVE_S = 5.0  # how much work a daemon that is killed may lose
RECHECK_S = 600.0  # a damaged stack is read again so often: one that was restored ends its alarm
LEAVE_S = 5.0
MOST_TOLD = 3  # findings of a stack in its alarm; `spheroidd verify` has them all
_QUIET = ("idle", "running", "paused")  # states in which nothing may be under way
_AT_WORK = ("scoring", "measuring")  # words of a worker that reads images
_log = logging.getLogger(__name__)

Found = Mapping[tuple[FaultCode, StackKey | None], SpheroiddError]


def pause_s(cpu_s: float, wall_s: float, share: float) -> float:
    """How long to rest after so much work, so that both the core and the disk are used for `share` of the time.

    The disk was busy for no longer than the work took.
    """
    return max(cpu_s, wall_s) / share - wall_s


class Scrub:
    """`found` is what is damaged, as alarms. Without settings it reads nothing, and says what an earlier one found."""

    def __init__(self, data_dir: Path, settings: VerificationConfig | None) -> None:
        self._data_dir = data_dir
        self._settings = settings or VerificationConfig(scrub=False)
        silent = settings is not None and not settings.scrub
        self._state = ScrubState() if silent else ScrubState.read(data_dir) or ScrubState()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="scrub", daemon=True)
        self._busy_s = self._saved_s = time.monotonic()
        self._rechecked_s = -RECHECK_S
        self._ended: tuple[Report, Mapping[str, int]] | None = None
        self._save_refused = False
        self.found: Found = {}
        self._tell()

    def start(self) -> None:
        """Begin, where it is switched on."""
        if self._settings.scrub:
            self._thread.start()

    def close(self) -> None:
        """End within one file; the next daemon goes on."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join(LEAVE_S)

    def disk_needed(self) -> None:
        """A plate is at work: nothing is read until it has been quiet for long enough."""
        self._busy_s = time.monotonic()

    def record(self, catalog: Catalog) -> None:
        """Enter a pass that has ended into the audit trail. Inside main's transaction; may be done again."""
        if self._ended is not None:
            report, slices = self._ended
            record(catalog, report, "scrub", slices=slices)

    def recorded(self) -> None:
        """That transaction was committed."""
        self._ended = None

    # -- the thread -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._over.wait(LOOK_S):
            try:
                with CatalogReader.read_only(self._data_dir) as catalog:
                    self._work(catalog)
            except SpheroiddError as error:
                _log.warning("the scrub waits: %s", error)
            except Exception as error:  # a mistake in here must stop no plate, and must not go unseen
                _log.exception("the scrub ended")
                do = "report this with a support bundle; `spheroidd verify` reads all images meanwhile"
                broken = StackError(f"stored images are not verified any more: {error!r}", where="scrub", do=do)
                self.found = {**self.found, (FaultCode.SCRUB_BROKEN, None): broken}
                return

    def _work(self, catalog: CatalogReader) -> None:
        """What is due, file by file, with its rests."""
        steps = self.steps(catalog)
        while self._wait_until_idle(catalog):
            wall_s, cpu_s = time.monotonic(), time.thread_time()
            if next(steps, None) is None:
                return
            wall_s, cpu_s = time.monotonic() - wall_s, time.thread_time() - cpu_s
            if self._over.wait(pause_s(cpu_s, wall_s, self._settings.share)):
                break
        self._save()

    def _wait_until_idle(self, catalog: CatalogReader) -> bool:
        """False where the daemon ends meanwhile."""
        while not self.may_read(catalog):
            if self._over.wait(LOOK_S):
                return False
        return not self._over.is_set()

    def may_read(self, catalog: CatalogReader) -> bool:
        """Whether nobody else needs the disk."""
        if time.monotonic() - self._busy_s < self._settings.quiet_s:
            return False
        run = catalog.run_state()
        return run is None or (run.state in _QUIET and not run.worker.startswith(_AT_WORK))

    def steps(self, catalog: CatalogReader) -> Iterator[bool]:
        """Check what is due; each step has read one file at most. Ends where nothing is due."""
        if self._state.damage and time.monotonic() - self._rechecked_s >= RECHECK_S:
            self._rechecked_s = time.monotonic()
            for name in list(self._state.damage):
                yield from self._stack(catalog, catalog.stack(StackKey.parse(name)))
        now_s, state = time.time(), self._state
        if state.started_s is None:
            if state.finished_s is not None and 0 <= now_s - state.finished_s < 3600 * self._settings.every_h:
                return
            state.begin(now_s)
        rows = [row for row in catalog.stacks() if row.n_slices_acked and row.state not in _UNDER_WAY]
        state.all_bytes = sum(row.plan.n_bytes // row.plan.n_slices * row.n_slices_acked for row in rows)
        for row in rows:
            yield from self._stack(catalog, row, of_pass=True)
        self._end_pass(rows)

    def _stack(self, catalog: CatalogReader, row: StackRow, *, of_pass: bool = False) -> Iterator[bool]:
        work = stack_work(catalog, self._data_dir, row)
        name, state = str(row.key), self._state
        if of_pass and state.done.get(name) == work.digest:
            return
        found: list[Finding] = []
        for _ in range(2):  # the daemon may have written between two looks: only what stays is so
            done: list[Checked] = []
            for piece in work.pieces:
                done.append(piece())
                yield True
            found = _damage(conclude(catalog, self._data_dir, work, done).findings)
            if not found:
                break
            work = stack_work(catalog, self._data_dir, catalog.stack(row.key))
        if of_pass:
            state.done[name] = work.digest
            state.done_bytes += work.n_bytes
        before = state.damage.pop(name, None)
        if found:
            state.damage[name] = found
        if found != (before or []):
            self._tell()
            self._save()
        elif time.monotonic() - self._saved_s > SAVE_S:
            self._save()

    def _end_pass(self, rows: Iterable[StackRow]) -> None:
        state, now_s = self._state, time.time()
        slices: dict[str, int] = {}
        for row in rows:
            slices[row.key.plate] = slices.get(row.key.plate, 0) + row.n_slices_acked
        found = tuple(finding for each in state.damage.values() for finding in each)
        began_s = state.started_s or now_s
        n, n_bytes = sum(slices.values()), state.done_bytes
        report = Report(
            str(self._data_dir), found, len(state.done), n, 0, 0, 0, n_bytes, 0, began_s, now_s - began_s, deep=False
        )
        self._ended = report, slices
        state.end(now_s)
        self._save()

    def _tell(self) -> None:
        self.found = {
            (FaultCode.SCRUB_DAMAGE, StackKey.parse(name)): _alarm(name, found)
            for name, found in self._state.damage.items()
        }

    def _save(self) -> None:
        self._saved_s = time.monotonic()
        try:
            self._state.write(self._data_dir)
        except OSError as error:
            if not self._save_refused:
                _log.warning("a later daemon could not go on with the scrub: %s (%s)", error.strerror, error.filename)
            self._save_refused = True


_UNDER_WAY = (StackState.QUEUED, StackState.ACQUIRING)


def _damage(findings: Iterable[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.kind.is_damage]


def _alarm(name: str, found: list[Finding]) -> SpheroiddError:
    told = "; ".join(f"{finding.kind.value}, {finding}" for finding in found[:MOST_TOLD])
    more = f"; and {len(found) - MOST_TOLD} more" if found[MOST_TOLD:] else ""
    return StackError(f"what is stored is not what was written: {told}{more}", where=name, do=found[0].kind.do)
