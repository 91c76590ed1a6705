"""A daemon that waits for plates: it runs those that are submitted and started over the service, one after another."""

import contextlib
import time
from pathlib import Path

from rich.console import Console

from spheroidd.daemon.catalog.transaction import may_pass
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.config.alarm_settings import AlarmsConfig
from spheroidd.daemon.config.model import ServiceConfig
from spheroidd.daemon.config.submitted_plates import SubmittedPlates
from spheroidd.daemon.config.verification_settings import VerificationConfig
from spheroidd.daemon.launch.open_catalog import open_catalog
from spheroidd.daemon.launch.run import acquire_plate, say_state, score_again
from spheroidd.daemon.launch.sweep import swept
from spheroidd.daemon.monitoring.event_log import logging_to
from spheroidd.daemon.monitoring.monitor import RunMonitor
from spheroidd.daemon.monitoring.preflight import preflight, require
from spheroidd.daemon.pipeline.catalog_outage import state_of
from spheroidd.daemon.pipeline.orders import Done, Order, RelabelWell, Rescore, StartPlate, Stop, Ticket
from spheroidd.daemon.pipeline.run_context import RunContext
from spheroidd.daemon.pipeline.steering import audited
from spheroidd.daemon.scoring.relabelling import relabel_well
from spheroidd.daemon.service.server import Service
from spheroidd.daemon.system.lock import acquire_lock
from spheroidd.daemon.system.privacy import Readers, readable_by
from spheroidd.daemon.system.stop_signals import interrupt, stopped_by_signals
from spheroidd.daemon.web.server import page_beside
from spheroidd.protocols.errors import DaemonError, RefusedError, SpheroiddError, StorageError
from spheroidd.protocols.faults import FaultCode
from spheroidd.protocols.well import WellId

HEARTBEAT_S = 1.0


def serve(
    data_dir: Path,
    settings: ServiceConfig,
    *,
    console: Console,
    alarms: AlarmsConfig | None = None,
    verification: VerificationConfig | None = None,
    from_well: WellId | None = None,
    readers: Readers = Readers.OWNER,
) -> int:
    """Serve until a stop is ordered or signalled. ConfigError where another daemon has the directory.

    The first plate that is started begins at `from_well`; its wells before that one come last. What is written is for
    `readers`.
    """
    data_dir = data_dir.absolute()  # plates are submitted from other folders than this one
    with (
        readable_by(readers),
        stopped_by_signals(interrupt, console.print),
        acquire_lock(data_dir),
        logging_to(data_dir),
        open_catalog(data_dir) as catalog,
        contextlib.ExitStack() as open_things,
    ):
        open_things.enter_context(swept(data_dir))
        watched = alarms or AlarmsConfig(), verification or VerificationConfig()
        monitor = open_things.enter_context(RunMonitor(data_dir, catalog, *watched))
        say_state(catalog, "starting", time.time())  # not what a daemon that was killed said last
        service = open_things.enter_context(Service(data_dir, settings, monitor.failed_logins))
        console.print(f"spheroidd waits for plates, port {service.port}, data in {data_dir}", highlight=False)
        open_things.enter_context(page_beside(service, data_dir, settings, console))
        waiting = Waiting(data_dir, catalog, service, console, monitor, from_well)
        with stopped_by_signals(waiting.stop, console.print):
            waiting.run()
    return 0


class Waiting:
    """The daemon between two plates. Runs in main, the only writer of SQLite."""

    def __init__(
        self,
        data_dir: Path,
        catalog: Catalog,
        service: Service,
        console: Console,
        monitor: RunMonitor,
        from_well: WellId | None = None,
    ) -> None:
        self._monitor, self._from_well = monitor, from_well
        self._data_dir, self._catalog, self._service = data_dir, catalog, service
        self._console = console
        self._plans = SubmittedPlates(data_dir)
        self._started_s = time.time()
        self._stopping = False
        self._ended: SpheroiddError | None = None

    def stop(self) -> None:
        """End after what is under way; the run itself is stopped by its own handler."""
        self._stopping = True

    def run(self) -> None:
        """Take one order after another."""
        while not self._stopping:
            self._beat("idle")
            ticket = self._service.inbox.take(HEARTBEAT_S)
            if ticket is not None:
                self._obey(ticket)
        self._beat("stopped")

    def _obey(self, ticket: Ticket) -> None:
        order = ticket.order
        try:
            match order:
                case StartPlate():
                    self._start(order, ticket)
                case Rescore():
                    self._score(order, ticket)
                case RelabelWell():
                    ticket.answer(Done(self._relabel(order), "idle"))
                case Stop():
                    self._stopping = True
                    ticket.answer(Done(audited(self._catalog, "", order, "the daemon ends"), "stopping"))
                case _:
                    raise RefusedError("no plate is being run", do="start one")
        except SpheroiddError as error:
            if not ticket.answered:
                ticket.answer(error)
                return
            self._console.print(f"{type(error).__name__}: {error}", highlight=False)
            if isinstance(error, DaemonError):  # not only this plate ended
                self._catalog.raise_fault(FaultCode.PLATE_ENDED, error)
                raise
            self._ended = error  # the next heartbeat writes it down: a full disk may refuse it now

    def _start(self, order: StartPlate, ticket: Ticket) -> None:
        config = self._plans.load(order.plate)
        require(preflight(config, locked=True))
        self._catalog.clear_fault(FaultCode.PLATE_ENDED)
        from_well, self._from_well = self._from_well, None  # of this plate alone: the next one may not have that well
        done = f"plate {order.plate} starts" + (f" at well {from_well}" if from_well else "")
        ticket.answer(Done(audited(self._catalog, "", order, done), "starting"))
        acquire_plate(
            config,
            self._catalog,
            self._service,
            self._context(),
            console=self._console,
            live=False,
            from_well=from_well,
        )

    def _score(self, order: Rescore, ticket: Ticket) -> None:
        self._check_stored(order)
        if order.wells:
            raise RefusedError("single wells are scored again while their plate is run", do="name no wells")
        self._catalog.clear_fault(FaultCode.PLATE_ENDED)
        done = audited(self._catalog, order.plate, order, f"plate {order.plate} is scored again")
        ticket.answer(Done(done, "starting"))
        given = {"model": order.model or None, "normalisation": order.normalisation or None}
        score_again(self._catalog, order.plate, given, self._data_dir, self._console, self._context())

    def _relabel(self, order: RelabelWell) -> str:
        """No plate is run: so the rows are related here, to the wells as they are labelled now."""
        given = (order.plate, order.well, order.treatment, order.reason)
        done = relabel_well(self._data_dir, self._catalog, *given, who=order.who)
        return "; ".join((*done.changes, *done.notes))

    def _context(self) -> RunContext:
        return RunContext(self._service.inbox, monitor=self._monitor, on_stop=self.stop)

    def _check_stored(self, order: Order) -> None:
        self._catalog.plate_config(order.plate)  # ConfigError for a plate that never was run

    def _beat(self, state: str) -> None:
        try:
            with self._catalog.transaction():
                say_state(self._catalog, state, self._started_s)
                self._monitor.record(acquiring=False)
                if self._ended is not None:
                    self._catalog.raise_fault(FaultCode.PLATE_ENDED, self._ended)
        except StorageError as error:
            if not may_pass(error):
                raise
            self._monitor.catalog_unwritable(error, state_of(error))
        else:
            self._ended = None
            self._monitor.after_heartbeat(state)
