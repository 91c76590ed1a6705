"""One scan after the other on LAS X: which stacks it is of, whether it goes on, and how it is ended.

LAS X goes on by itself once a scan has begun, connected or not. So a lost connection ends nothing, a scan whose end
may have gone unheard is stopped before the next, and whoever lets go stops it.
"""

import contextlib
import math
import time
from collections.abc import Callable, Mapping

from spheroidd.acquisition.sources.leica.cam_client import NOTICE_S, CamInterruptedError, LeicaCam
from spheroidd.acquisition.sources.leica.settings import LeicaCamSettings
from spheroidd.protocols.errors import InstrumentError
from spheroidd.protocols.stack import StackKey

STOP_S = 0.7  # whoever aborts does not wait longer
RECONNECT_S = 2.0  # from one try to the next, and for one
IDLE_S = 3.0  # how long LAS X may take to say that what was stopped has ended


class LeicaScan:
    """Owns the connection. `give_up` is asked often; CamInterruptedError follows where it says so."""

    def __init__(self, settings: LeicaCamSettings, give_up: Callable[[], bool]) -> None:
        self._settings, self._give_up, self._heeding = settings, give_up, True
        self._cam = LeicaCam(
            settings.host,
            settings.port,
            name=settings.client,
            timeout_s=settings.timeout_s,
            give_up=lambda: self._heeding and give_up(),
        )
        self._of: frozenset[StackKey] = frozenset()
        self._stop: Callable[[float], None] | None = None  # how to end what goes on; None where nothing does
        self._started, self._finished = 0, 0  # LAS X's counts when it began
        self._is_loaded = False
        self._is_ending = False  # it was stopped, and LAS X has not said that it ended
        self._retry_s = -math.inf
        self.fault: InstrumentError | None = None  # why there is no connection
        self.stage_um = (math.nan, math.nan, math.nan)

    @property
    def goes_on(self) -> bool:
        """Whether a scan of ours has begun and LAS X has not said that it ended."""
        return self._stop is not None

    def is_of(self, key: StackKey) -> bool:
        """Whether the scan that goes on brings this stack."""
        return self.goes_on and key in self._of

    def check(self) -> None:
        """Raise InstrumentError where LAS X does not answer; changes nothing there."""
        self._connect(self._settings.timeout_s)
        self.stage_um = self._cam.stage_um()

    def begin(self, places: Mapping[StackKey, tuple[int, int]], *, again: bool) -> None:
        """Scan just these stacks, each at its field (x, y): `again` from a CAM list where the settings name its job."""
        self._connect(self._settings.timeout_s)
        if not self._is_loaded:
            self._cam.stop_scan()  # what an earlier run, or a person, left going would refuse the template
            self._cam.load_template(self._settings.template)
            self._is_loaded = True
        if again and self._settings.cam_job is not None:
            self._begin_list(self._settings.cam_job, places)
        else:
            self._begin_fields(places)
        self._of = frozenset(places)

    def _begin_fields(self, places: Mapping[StackKey, tuple[int, int]]) -> None:
        self._cam.enable_all(False)
        for key, (x, y) in places.items():
            self._cam.enable(key.well, x, y, slide=self._settings.slide)
        self._mark()
        self._stop = self._cam.stop_scan  # from here on it may have begun, whatever becomes of the echo
        self._cam.start_scan()

    def _begin_list(self, job: str, places: Mapping[StackKey, tuple[int, int]]) -> None:
        self._cam.delete_list()
        for key, (x, y) in places.items():
            self._cam.add_to_list(job, key.well, x, y, slide=self._settings.slide)
        once_s = math.ceil(self._settings.end_after_s)  # it repeats when it would end: once
        self._mark()
        self._stop = self._cam.stop_cam_scan
        self._cam.start_cam_scan(once_s, once_s)

    def _mark(self) -> None:
        self._cam.poll()
        self._started, self._finished = self._cam.n_started, self._cam.n_finished

    def listen(self) -> bool:
        """Take in what LAS X says; whether it told of anything. A broken connection is made again, now and then."""
        try:
            if not self._cam.connected:
                self._reconnect()
            if self._cam.connected:
                self._cam.poll()
                self._cam.settle_tail()
        except InstrumentError as error:
            self.fault = error
        told = bool(self._cam.hints)
        self._cam.hints.clear()
        if self.goes_on and self._has_ended():
            self._over()
            return True
        return told

    def _has_ended(self) -> bool:
        """LAS X says "started" and "finished" of an autofocus too; and some say nothing when a scan starts."""
        began = self._cam.n_started - self._started
        ended = self._cam.n_finished - self._finished
        return ended >= max(began, 1) and (began > 0 or self._cam.n_started == 0)

    def _over(self) -> None:
        self._stop, self._of = None, frozenset()

    def _connect(self, limit_s: float) -> None:
        if self._cam.connected:
            return
        self._is_loaded = False  # it may be another LAS X by now
        self._cam.connect(limit_s)
        self._started = self._finished = 0
        self.fault = None

    def _reconnect(self) -> None:
        now_s = time.monotonic()
        if now_s - self._retry_s >= RECONNECT_S:
            self._retry_s = now_s
            self._connect(RECONNECT_S)

    def stop(self) -> None:
        """End the scan that goes on, within a second; InstrumentError where LAS X does not say that it does."""
        if self._stop is None:
            return
        stop, end_s = self._stop, time.monotonic() + STOP_S
        self._over()
        self._is_ending = True
        self._heeding = False
        try:
            if not self._cam.connected:
                self._connect(STOP_S)
            stop(max(0.1, end_s - time.monotonic()))
        except InstrumentError as error:
            what = f"the scan could not be stopped: {error.what}"
            raise InstrumentError(what, where=error.where, do="press Stop in LAS X, and close the shutter") from error
        finally:
            self._heeding = True

    def await_rest(self) -> None:
        """After a stop: hear LAS X out until it says that the scan has ended, so that this is not taken for the end of
        the next. Some time is enough where it never does.
        """
        end_s = time.monotonic() + IDLE_S
        with contextlib.suppress(InstrumentError):
            while self._is_ending and self._cam.connected and not self._has_ended() and time.monotonic() < end_s:
                if self._give_up():
                    raise CamInterruptedError("given up while LAS X stops", where=self._cam.where)
                self._cam.poll(NOTICE_S)
        self._is_ending = False

    def close(self) -> None:
        """Stop what goes on and hang up; may be called twice."""
        try:
            self.stop()
        finally:
            self._cam.close()
