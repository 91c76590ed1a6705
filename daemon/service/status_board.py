"""The newest status, looked up by one thread for everybody who asks: fifty viewers cost no more than one."""

import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path

from spheroidd.daemon.catalog.kept_standings import KeptStandings
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.monitoring.status import ATTENTION, SILENT_S, look
from spheroidd.daemon.service.messages import last_change, status_message
from spheroidd.protocols import spheroidd_pb2 as wire
from spheroidd.protocols.errors import RefusedError, SpheroiddError
from spheroidd.protocols.faults import FaultCode

PERIOD_S = 0.25  # a person sees a row within half a second; main writes its state down once a second


class EndingError(RefusedError):
    """The daemon is ending, and with it every stream."""


class StatusBoard:
    """Keeps the newest `Status` with a sequence number; `extra` adds what only the service knows.

    A message that was handed out is never changed again.
    """

    def __init__(self, data_dir: Path, extra: Callable[[wire.Status], None]) -> None:
        self._data_dir, self._extra = data_dir, extra
        self.instance = secrets.token_hex(8)
        self._newest: wire.Status | None = None
        self._closed = False
        self._looked_s = time.monotonic()
        self._change = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="service-status", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def close(self) -> None:
        """Stop looking; whoever waits is let go."""
        with self._change:
            self._closed = True
            self._change.notify_all()
        self._thread.join()

    @property
    def closed(self) -> bool:
        """Whether the daemon is ending."""
        return self._closed

    def wait_open(self, seconds: float) -> None:
        """Sleep that long, or until the daemon ends; then RefusedError, which ends a stream."""
        with self._change:
            if self._change.wait_for(lambda: self._closed, seconds):
                raise EndingError("the daemon is ending", do="ask again when it was started again")

    def newest(self, after: int = 0, timeout_s: float = PERIOD_S) -> wire.Status | None:
        """The newest status if it is newer than sequence `after`, waiting for it that long; None where it is not."""
        with self._change:
            self._change.wait_for(lambda: self._closed or self._sequence() > after, timeout_s)
            return self._newest if self._sequence() > after else None

    def _sequence(self) -> int:
        return self._newest.sequence if self._newest is not None else 0

    def _run(self) -> None:
        while not self._closed:
            try:
                self._look_for_good()
            except SpheroiddError as error:
                self._say_blind(error)
            with self._change:
                self._change.wait_for(lambda: self._closed, PERIOD_S)

    def _look_for_good(self) -> None:
        with Catalog.read_only(self._data_dir) as catalog:
            kept = KeptStandings()
            while not self._closed:
                now_s = time.time()
                found = status_message(look(self._data_dir, catalog, now_s, kept, figures=False))
                found.instance, found.changes = self.instance, last_change(catalog)
                self._extra(found)
                self._show(found, now_s)
                self._looked_s = time.monotonic()
                with self._change:
                    self._change.wait_for(lambda: self._closed, PERIOD_S)

    def _say_blind(self, error: SpheroiddError) -> None:
        """The catalog cannot be read: the status stays as it was, and says so as soon as that is old."""
        newest, now_s = self._newest, time.time()
        if newest is None or time.monotonic() - self._looked_s < SILENT_S:
            return
        if any(fault.code == FaultCode.ALARMS_BROKEN for fault in newest.faults):
            return
        found = wire.Status()
        found.CopyFrom(newest)
        what = f"the status is not read any more: {error.what}"
        kind = type(error).__name__
        found.faults.add(
            code=FaultCode.ALARMS_BROKEN, kind=kind, what=what, where=error.where, do=error.do, raised_s=now_s
        )
        found.verdict = max(found.verdict, ATTENTION)
        self._show(found, now_s)

    def _show(self, found: wire.Status, now_s: float) -> None:
        with self._change:
            if self._newest is not None:
                found.sequence, found.observed_s = self._newest.sequence, self._newest.observed_s
                if found == self._newest:
                    return
            found.sequence, found.observed_s = self._sequence() + 1, now_s
            self._newest = found
            self._change.notify_all()
