"""Tells one receiver of alarms, in a thread of its own: in order, each notice until it is accepted.

It holds one notice in memory; the others wait in the catalog. Whoever waits for it waits a few seconds at most.
"""

import contextlib
import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from spheroidd.daemon.catalog.reader import CatalogReader
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.monitoring.notifications import DeliveryState, Notification, next_notice
from spheroidd.daemon.monitoring.transports import REFUSALS, Deliver, why
from spheroidd.protocols.errors import ConfigError, SpheroiddError, StorageError

LOOK_S = 1.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 300.0
TRIES_BEFORE_IT_IS_SAID = 2  # one failure is an everyday thing
FAREWELL_S = 5.0
MAX_URGENT = 8  # beginnings and ends of a catalog that cannot be written; older ones make room
_log = logging.getLogger(__name__)


class Notifier:
    """One receiver's thread. `problem` is why it could not be told, None where it could."""

    def __init__(
        self,
        data_dir: Path,
        receiver: str,
        where: str,
        deliver: Deliver,
        *,
        pause_s: float = FIRST_PAUSE_S,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._data_dir, self._receiver, self._where, self._deliver = data_dir, receiver, where, deliver
        self._first_pause_s, self._jitter = pause_s, jitter
        self._told = DeliveryState(data_dir, receiver, time.time())
        self._failures = 0
        self._urgent: deque[Notification] = deque(maxlen=MAX_URGENT)
        self._leaving, self._wake = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"alarms-{receiver}", daemon=True)
        self.problem: SpheroiddError | None = None

    def start(self) -> None:
        """Begin to tell."""
        with contextlib.suppress(StorageError):  # from when on news is news; on a full disk it is asked again
            self._told.keep(self._told.told)
        self._thread.start()

    def wake(self) -> None:
        """There may be something new."""
        if not self._failures:
            self._wake.set()

    def say_now(self, notice: Notification) -> None:
        """Tell what cannot stand in the catalog, before anything else; known no longer than this process lives."""
        self._urgent.append(notice)
        self._wake.set()

    def close(self, patience_s: float = FAREWELL_S) -> None:
        """Tell what is left, each notice once, and end; what is not accepted in time is told by the next daemon."""
        self._leaving.set()
        self._wake.set()
        self._thread.join(patience_s)

    def _run(self) -> None:
        while True:
            leaving = self._leaving.is_set()
            self._tell_urgent()
            try:
                with Catalog.read_only(self._data_dir) as catalog:
                    while self._tell_next(catalog):
                        pass
            except SpheroiddError as error:  # the catalog cannot be read at this moment
                _log.warning("alarms wait: %s", error)
            if leaving:
                return
            self._wake.wait(self._pause_s())
            self._wake.clear()

    def _tell_next(self, catalog: CatalogReader) -> bool:
        """Whether there was a notice, and it was accepted."""
        notice = next_notice(catalog, self._data_dir, self._told.told, self._receiver)
        if notice is None:
            return False
        if not self._accepted(notice):
            return False
        try:
            self._told.keep(self._told.told.after(notice))
        except StorageError as error:
            _log.warning("%s", error)
        return True

    def _tell_urgent(self) -> None:
        while self._urgent and self._accepted(notice := self._urgent[0]):
            if self._urgent[0] is notice:  # main may have put another in its place
                self._urgent.popleft()

    def _accepted(self, notice: Notification) -> bool:
        try:
            self._deliver(notice)
        except REFUSALS as error:
            self._failures += 1
            if self._failures >= TRIES_BEFORE_IT_IS_SAID:
                do = f"look at [alarms.{self._receiver}] and its receiver; what is not delivered yet is delivered later"
                what = f"alarms cannot be delivered: {why(error)}"
                self.problem = ConfigError(what, where=self._where, do=do)
            return False
        self._failures, self.problem = 0, None
        return True

    def _pause_s(self) -> float:
        """Twice as long after each failure, and a little more or less, so that not all daemons come back at once."""
        if not self._failures:
            return LOOK_S
        pause_s = min(self._first_pause_s * 2.0 ** min(self._failures - 1, 20), LONGEST_PAUSE_S)
        return pause_s * (0.75 + 0.5 * self._jitter())
