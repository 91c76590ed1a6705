"""What stands beside main and tells of it: alarms, the log, the service manager.

Main calls `record` inside the transaction of each heartbeat and `after_heartbeat` after it; both cost it microseconds.
Looking at the state and telling of it are done by threads of their own, over readers' connections.
"""

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from spheroidd.daemon.catalog.audit_chain import utc
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.config.alarm_settings import AlarmsConfig
from spheroidd.daemon.config.verification_settings import VerificationConfig
from spheroidd.daemon.monitoring import outage_note
from spheroidd.daemon.monitoring import transports as delivery
from spheroidd.daemon.monitoring.alarm_watch import AlarmWatch
from spheroidd.daemon.monitoring.alarms import settle
from spheroidd.daemon.monitoring.event_log import tell, tell_event
from spheroidd.daemon.monitoring.failed_logins import FailedLogins
from spheroidd.daemon.monitoring.notifications import (
    FINISHED,
    PLATE_FINISHED,
    DeliveryCursor,
    next_notice,
    notice_without_catalog,
)
from spheroidd.daemon.monitoring.notifier import Notifier
from spheroidd.daemon.scoring.pool import WorkerLost
from spheroidd.daemon.system.last_resort import LastResort
from spheroidd.daemon.system.systemd import READY, STOPPING, WATCHDOG, notify
from spheroidd.daemon.system.thread_deaths import ThreadDeaths
from spheroidd.daemon.verification.scrub import Scrub
from spheroidd.protocols.errors import DaemonError, SpheroiddError, StackError
from spheroidd.protocols.faults import FaultCode

_log = logging.getLogger(__name__)
ENDING_S = 30.0  # for a daemon that ends because a part of it broke: what is in flight is kept meanwhile


class RunMonitor:
    """A context manager around all that a daemon does with one data directory; main's own but for its threads."""

    def __init__(
        self, data_dir: Path, catalog: Catalog, settings: AlarmsConfig, verification: VerificationConfig | None = None
    ) -> None:
        self._data_dir, self._catalog, self._settings = data_dir, catalog, settings
        self._notifiers = _notifiers(data_dir, settings)
        self.failed_logins = FailedLogins()
        self._scrub = Scrub(data_dir, verification)
        self._watch = AlarmWatch(
            data_dir, settings, self._undelivered, self.failed_logins.alarm, lambda: self._scrub.found
        )
        self._logged = _told_so_far(catalog)
        self._state = ""
        self._ready = False
        self._refused: tuple[SpheroiddError, float] | None = None  # since when the catalog cannot be written
        self._deaths, self._last_resort = ThreadDeaths(), LastResort()

    def __enter__(self) -> Self:
        self._deaths.__enter__()
        outage_note.prepare(self._data_dir)
        self._tell_if_killed()
        self._watch.start()
        self._scrub.start()
        for notifier in self._notifiers.values():
            notifier.start()
        tell("daemon-started", data_dir=str(self._data_dir))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        notify(STOPPING)
        self._deaths.__exit__(kind, error, trace)
        self._scrub.close()
        self._watch.close()
        if isinstance(error, SpheroiddError):
            tell("daemon-failed", None, logging.ERROR, what=error.what, where=error.where, do=error.do)
        elif error is not None:
            _log.critical("the daemon met an unforeseen error", exc_info=error)
        try:
            self._watch.look_last(self._catalog)
            self.record(acquiring=False)
        except SpheroiddError as failure:  # the disk is full: the next daemon tells of it
            _log.warning("the last alarms are not written down: %s", failure)
        except Exception:  # nor may a mistake in here hide what the run ended with
            _log.exception("the last alarms are not looked for")
        else:
            self._log_faults()
        for notifier in self._notifiers.values():
            notifier.close()
        outage_note.remove(self._data_dir)
        tell("daemon-stopped", data_dir=str(self._data_dir))
        self._last_resort.__exit__(kind, error, trace)

    def record(self, *, acquiring: bool) -> None:
        """Write down the alarms that were found since. Inside main's transaction; may be done again."""
        self._watch.acquiring = acquiring
        self._scrub.record(self._catalog)
        if self._watch.found is not None:
            settle(self._catalog, self._watch.found, time.time())

    def worker_lost(self, event: WorkerLost) -> None:
        """Raise the alarm for a worker that died while it had no stack. Inside main's transaction."""
        if event.key is None:
            what = f"the inference worker {event.how} and is started again"
            do = "look for lack of memory if it comes back; acquisition goes on meanwhile"
            self._catalog.raise_fault(FaultCode.WORKER_RESTARTED, StackError(what, where="worker", do=do))

    def after_commit(self, batch: Sequence[object]) -> None:
        """Log what was committed."""
        if batch:
            self._scrub.disk_needed()
        for event in batch:
            tell_event(event)

    def after_heartbeat(self, state: str) -> None:
        """A heartbeat was committed."""
        self.alive()
        self._scrub.recorded()
        if self._refused is not None:
            self._say_refused("ended")
            self._refused = None
            outage_note.clear(self._data_dir)
        if not self._ready:
            self._ready = notify(READY, f"STATUS={state}")
        if state != self._state:
            tell("state", state=state)
            notify(f"STATUS={state}")
            self._scrub.disk_needed()
            self._state = state
        self._log_faults()

    def alive(self) -> None:
        """Main is at work, though it may wait for a disk. DaemonError where a thread beside it has died."""
        notify(WATCHDOG)
        try:
            self._deaths.check()
        except DaemonError as error:
            self.dying(error)
            raise

    def dying(self, error: SpheroiddError) -> None:
        """The daemon ends because a part of it broke: it is said, and it does end, whatever else hangs."""
        self._last_resort.end_within(ENDING_S, error.exit_code)
        try:
            self._catalog.raise_fault(FaultCode.DAEMON_BROKEN, error)
        except SpheroiddError as refused:
            _log.warning("the end of the daemon is not written down: %s", refused)

    def catalog_unwritable(self, error: SpheroiddError, state: str) -> None:
        """The catalog cannot be written, so this alarm cannot stand in it: it is told at once, and beside it."""
        self.alive()
        now_s = time.time()
        is_news = self._refused is None or type(self._refused[0]) is not type(error)
        self._refused = (error, now_s if self._refused is None else self._refused[1])
        outage_note.write(self._data_dir, state, error, self._refused[1], now_s)
        if is_news:
            self._say_refused("raised")

    def _say_refused(self, event: str) -> None:
        if self._refused is not None:
            error, since_s = self._refused
            notice = notice_without_catalog(error, event, self._data_dir, since_s, time.time())
            tell(f"alarm-{event}", None, logging.ERROR, code=notice.code, what=notice.what, do=notice.do)
            for notifier in self._notifiers.values():
                notifier.say_now(notice)

    def _undelivered(self) -> dict[str, SpheroiddError]:
        problems = {name: notifier.problem for name, notifier in self._notifiers.items()}
        return {name: problem for name, problem in problems.items() if problem is not None}

    def _tell_if_killed(self) -> None:
        """A daemon that was killed could not say so itself."""
        before = self._catalog.run_state()
        if before is None or before.state == "stopped":
            return
        what = f"the daemon (pid {before.pid}) ended without a word; its last sign of life was at "
        do = "look for lack of memory or a power cut; what was acknowledged is kept, and the run goes on"
        error = StackError(what + utc(before.heartbeat_s), where=str(self._data_dir), do=do)
        self._catalog.raise_fault(FaultCode.DAEMON_KILLED, error)

    def _log_faults(self) -> None:
        any_came = False
        while notice := next_notice(self._catalog, self._data_dir, self._logged, "log"):
            any_came = True
            self._logged = self._logged.after(notice)
            level = logging.ERROR if notice.event == "raised" else logging.INFO
            place = {"plate": notice.plate or None, "well": notice.well or None, "stack": notice.stack}
            words = {"code": notice.code, "what": notice.what, "where": notice.where, "do": notice.do}
            name = PLATE_FINISHED if notice.event == FINISHED else f"alarm-{notice.event}"
            tell(name, None, level, **place, **words, id=notice.id)
        if any_came:
            for notifier in self._notifiers.values():
                notifier.wake()


def _notifiers(data_dir: Path, settings: AlarmsConfig) -> dict[str, Notifier]:
    """One for each receiver that is configured; ConfigError for a secret that is not set."""
    found = {}
    if settings.webhook is not None:
        deliver = delivery.webhook(settings.webhook, data_dir)
        found["webhook"] = Notifier(data_dir, "webhook", delivery.address(settings.webhook), deliver)
    if settings.email is not None:
        deliver = delivery.email(settings.email, data_dir)
        found["email"] = Notifier(data_dir, "email", delivery.address(settings.email), deliver)
    return found


def _told_so_far(catalog: Catalog) -> DeliveryCursor:
    """As if everything before now was told: the log has it."""
    rows = catalog.query("SELECT id, cleared_s FROM faults")
    stands = tuple(row["id"] for row in rows if row["cleared_s"] is None)
    (ends,) = catalog.query("SELECT coalesce(max(id), 0) AS newest FROM plate_ends")
    return DeliveryCursor(0.0, max((row["id"] for row in rows), default=0), stands, ends["newest"])
