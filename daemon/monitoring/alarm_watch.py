"""The thread that looks for alarms every few seconds, over a reader's connection; main writes down what it found."""

import logging
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from spheroidd.daemon.catalog.reader import CatalogReader
from spheroidd.daemon.catalog.rows import RunState
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.config.alarm_settings import AlarmsConfig
from spheroidd.daemon.monitoring.alarm_conditions import Situation, conditions, current_plate
from spheroidd.daemon.monitoring.alarms import Place
from spheroidd.protocols.errors import SpheroiddError, StackError
from spheroidd.protocols.faults import FaultCode
from spheroidd.protocols.quality import QualityFlag

LOOK_S = 2.0
QUALITY_S = 30.0  # a plate is judged anew so often at most, and only where a row has changed
BLIND_S = 10.0  # a catalog that cannot be read for so long is an alarm itself: nobody looks for the others
LARGE_ROWS, LARGE_FIRST_LOOK_S = 384, 10.0
REST = 20.0  # a plate is not judged anew before this many times as long as judging it took
LEAVE_S = 5.0
_log = logging.getLogger(__name__)


class AlarmWatch:
    """`found` is what must be said now, None as long as that is not known; `acquiring` is main's to set."""

    def __init__(
        self,
        data_dir: Path,
        settings: AlarmsConfig,
        undelivered: Callable[[], Mapping[str, SpheroiddError]],
        failed_logins: Callable[[], SpheroiddError | None],
        scrubbed: Callable[[], Mapping[Place, SpheroiddError]],
    ) -> None:
        self._data_dir, self._settings = data_dir, settings
        self._undelivered, self._failed_logins, self._scrubbed = undelivered, failed_logins, scrubbed
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="alarm-watch", daemon=True)
        self._judged: tuple[object, float, tuple[QualityFlag, ...]] = (None, 0.0, ())
        self._rest_s = QUALITY_S
        self._newest: object = None  # slice and stack
        self._newest_since_s = time.monotonic()  # a clock that is set neither hides a stall nor makes one
        self._blind_since_s: float | None = None  # by the clock that never jumps
        self.found: Mapping[Place, SpheroiddError] | None = None
        self.acquiring = False

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def close(self) -> None:
        """Look no more."""
        self._over.set()
        self._thread.join(LEAVE_S)

    def look_last(self, catalog: CatalogReader) -> None:
        """Look once more, at everything anew, when the source has nothing more to give; not beside the thread."""
        self.acquiring, self._judged = False, (None, 0.0, ())
        self.look(catalog)

    def look(self, catalog: CatalogReader) -> None:
        """Look once."""
        now_s, run = time.time(), catalog.run_state()
        situation = Situation(
            now_s,
            shutil.disk_usage(self._data_dir).free,
            self.acquiring,
            silent_s=self._silent_s(catalog, run),
            flags=self._flags(catalog, current_plate(catalog, run), now_s),
            undelivered=self._undelivered(),
            failed_logins=self._failed_logins(),
            scrubbed=self._scrubbed(),
        )
        self.found = conditions(catalog, self._settings, situation)

    def _silent_s(self, catalog: CatalogReader, run: RunState | None) -> float:
        """Since when no slice came and no stack began; whoever just started or went on begins anew."""
        newest = catalog.query("SELECT total(n_acked) AS slices, count(*) AS n, total(opened_s) AS opened FROM stacks")
        if run is None or run.state != "running" or newest != self._newest:
            self._newest, self._newest_since_s = newest, time.monotonic()
        return time.monotonic() - self._newest_since_s

    def _run(self) -> None:
        wait_s = self._first_look_s()
        while not self._over.wait(wait_s):
            wait_s = LOOK_S
            try:
                with Catalog.read_only(self._data_dir) as catalog:
                    self.look(catalog)
                self._blind_since_s = None
            except SpheroiddError as error:
                _log.warning("alarms are not looked for at this moment: %s", error)
                self._blind(error)
            except Exception as error:  # a mistake in here must stop no plate, and must not go unseen
                _log.exception("alarms are not looked for")
                what = f"alarms are not looked for: {error!r}"
                broken = StackError(what, where="alarms", do="report this with a support bundle; the run goes on")
                self.found = {**(self.found or {}), (FaultCode.ALARMS_BROKEN, None): broken}

    def _blind(self, error: SpheroiddError) -> None:
        """The catalog cannot be read: too many files are open, say, while main writes to it as before."""
        now_s = time.monotonic()
        self._blind_since_s = self._blind_since_s if self._blind_since_s is not None else now_s
        if now_s - self._blind_since_s >= BLIND_S:
            told = type(error)(f"alarms are not looked for: {error.what}", where=error.where, do=error.do)
            self.found = {**(self.found or {}), (FaultCode.ALARMS_BROKEN, None): told}

    def _first_look_s(self) -> float:
        """A large plate takes seconds to judge, which a run that is taken up needs for its first slice."""
        try:
            with Catalog.read_only(self._data_dir) as catalog:
                n_rows = int(catalog.query("SELECT count(*) AS n FROM results")[0]["n"])
        except SpheroiddError:
            return LOOK_S
        return LARGE_FIRST_LOOK_S if n_rows >= LARGE_ROWS else LOOK_S

    def _flags(self, catalog: CatalogReader, plate: str | None, now_s: float) -> tuple[QualityFlag, ...]:
        """What is wrong with the plate's controls."""
        if plate is None:
            return ()
        newest = "(SELECT max(id) FROM result_changes) AS change, (SELECT max(seq) FROM audit) AS act"
        rows = catalog.query(f"SELECT {newest}")
        state = (plate, rows[0]["change"], rows[0]["act"])
        seen, judged_s, flags = self._judged
        if rows[0]["change"] is None or state == seen:
            return flags if state == seen else ()
        if seen is not None and isinstance(seen, tuple) and seen[0] == plate and 0 <= now_s - judged_s < self._rest_s:
            return flags
        from spheroidd.daemon.analysis.plate_quality import (
            plate_quality,  # needs scipy, which a daemon's start does not wait for
        )

        began_s = time.monotonic()
        flags = plate_quality(catalog, plate).flags
        self._rest_s = max(QUALITY_S, REST * (time.monotonic() - began_s))
        self._judged = (state, now_s, flags)
        return flags
