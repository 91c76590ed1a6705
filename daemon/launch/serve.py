"""A daemon that waits for plates: it runs those that are submitted and started over the service, one after another."""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console

from spheroidd.daemon.catalog.plate_queue import PlateQueue
from spheroidd.daemon.catalog.transaction import may_pass
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.config.alarm_settings import AlarmsConfig
from spheroidd.daemon.config.model import Config, ServiceConfig
from spheroidd.daemon.config.submitted_plates import SubmittedPlates
from spheroidd.daemon.config.verification_settings import VerificationConfig
from spheroidd.daemon.launch.open_catalog import open_catalog
from spheroidd.daemon.launch.plate_end import was_aborted
from spheroidd.daemon.launch.run import acquire_plate, say_ended, say_state, score_again
from spheroidd.daemon.launch.sweep import swept
from spheroidd.daemon.monitoring.event_log import logging_to
from spheroidd.daemon.monitoring.monitor import RunMonitor
from spheroidd.daemon.monitoring.preflight import preflight, require
from spheroidd.daemon.pipeline import queue_orders
from spheroidd.daemon.pipeline.catalog_outage import state_of
from spheroidd.daemon.pipeline.orders import (
    Done,
    GoOn,
    Order,
    QueueOrder,
    RelabelWell,
    Rescore,
    StartPlate,
    Stop,
    Ticket,
)
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
RELEASE_S = 60.0  # the longest way of a stage back to where it stood, and an image that is still being exposed
LOADING_S = 600.0  # drivers that a live view just loads have their own bound (`start_timeout_s`): this is the last one
PROMPT_S = 2.0  # whoever ordered a start is answered by then, though the instrument is not free yet


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
        waiting = Waiting(data_dir, catalog, service, console, monitor, from_well, settings.time_zone)
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
        time_zone: str | None = None,
    ) -> None:
        self._monitor, self._from_well, self._time_zone = monitor, from_well, time_zone
        self._data_dir, self._catalog, self._service = data_dir, catalog, service
        self._console = console
        self._plans = SubmittedPlates(data_dir)
        self._started_s = time.time()
        self._queue = PlateQueue(catalog)
        self._stopping = False
        self._ended: SpheroiddError | None = None
        self._settle: tuple[str, str | None] | None = None  # a plate that was run, and its verdict where it is finished
        self._wait_because: str | None = None  # why the queue does not go on

    def stop(self) -> None:
        """End after what is under way; the run itself is stopped by its own handler."""
        self._stopping = True

    def run(self) -> None:
        """Take one order after another, and where a person wants it one plate after another."""
        self._queue.take_up(self._plans.names())
        self._service.live.allow()
        while not self._stopping:
            self._beat("idle")
            ticket = self._service.inbox.take(HEARTBEAT_S)
            if ticket is not None:
                self._obey(ticket)
            elif self._settle is None and self._wait_because is None and self._queue.run.goes_on:
                self._go_on()
        self._beat("stopped")

    def _go_on(self) -> None:
        """Start the next plate; where none is left, or this one cannot be run, wait for a person."""
        plate = self._queue.next()
        if plate is None:
            self._wait_because = "no plate waits that is not held"
            return
        try:
            with self._instrument() as free:
                if free:
                    self._run(self._ready(plate))
        except SpheroiddError as error:
            self._plate_failed(error)

    @contextlib.contextmanager
    def _instrument(self, waits: Callable[[], object] = lambda: None) -> Iterator[bool]:
        """The instrument for a run: whoever looks through it lets it go first, which may take as long as loading it.

        False where the daemon is to end instead. `waits` is called where it is not free at once. RefusedError where it
        is not let go in time.
        """
        live, began_s = self._service.live, time.monotonic()
        free_s = began_s  # since when nothing is loaded any more
        try:
            while not live.forbid("the instrument belongs to the run of a plate", HEARTBEAT_S / 2):
                now_s = time.monotonic()
                free_s = now_s if live.loading else free_s
                if self._stopping:
                    break
                if now_s > free_s + RELEASE_S or now_s > began_s + LOADING_S:
                    do = "see to its stages and its program, and start the plate again"
                    raise RefusedError("the live view does not let the instrument go", do=do)
                if now_s > began_s + PROMPT_S:
                    waits()
                self._beat("starting")
            yield not self._stopping
        finally:
            live.allow()

    def _obey(self, ticket: Ticket) -> None:
        order = ticket.order
        try:
            match order:
                case StartPlate():
                    self._start(order, ticket)
                case Rescore():
                    self._score(order, ticket)
                case GoOn(goes_on=True):
                    do = "start the queue: `spheroidd queue start`"
                    raise RefusedError("no plate is being run", do=do)
                case QueueOrder():
                    done = queue_orders.carry_out(order, self._catalog)
                    ticket.answer(Done(audited(self._catalog, order.plate, order, done), "idle"))
                case RelabelWell():
                    ticket.answer(Done(self._relabel(order), "idle"))
                case Stop():
                    self._stopping = True
                    ticket.answer(Done(audited(self._catalog, "", order, "the daemon ends"), "stopping"))
                case _:
                    raise RefusedError("no plate is being run", do="start one")
        except SpheroiddError as error:
            told = not ticket.answered and ticket.answer(error)
            if not told and isinstance(order, StartPlate | Rescore):
                self._plate_failed(error)

    def _plate_failed(self, error: SpheroiddError) -> None:
        self._console.print(f"{type(error).__name__}: {error}", highlight=False)
        if isinstance(error, DaemonError):  # not only this plate ended
            self._catalog.raise_fault(FaultCode.PLATE_ENDED, error)
            raise error
        self._ended = error  # the next heartbeat writes it down: a full disk may refuse it now
        self._wait_because = error.what

    def _start(self, order: StartPlate, ticket: Ticket) -> None:
        plate = order.plate or self._queue.next()
        if plate is None:
            do = "submit one, or release one that is held (`spheroidd queue`)"
            raise RefusedError("no plate waits in the queue", do=do)
        at = f" at well {self._from_well}" if self._from_well else ""
        then = "" if order.plate else "; the queue goes on after it"

        def accept(when: str = "") -> None:
            if not ticket.answered:
                done = f"plate {plate} starts{at}{when}{then}"
                ticket.answer(Done(audited(self._catalog, "", order, done), "starting"))

        with self._instrument(lambda: accept(" once the live view lets the instrument go")) as free:
            if not free:
                if not ticket.answered:
                    ticket.answer(RefusedError("the daemon is ending", do="start it again, and then the plate"))
                return
            config = self._ready(plate)
            self._catalog.clear_fault(FaultCode.PLATE_ENDED)
            if not order.plate:
                self._queue.go_on(True, "")
            accept()
            self._run(config)

    def _ready(self, plate: str) -> Config:
        config = self._plans.load(plate)
        require(preflight(config, locked=True))
        return config

    def _run(self, config: Config) -> None:
        """One plate to its end; it is finished, or the next again where it was stopped in the middle."""
        plate, began_s = config.plate_name, time.time()
        from_well, self._from_well = self._from_well, None  # of this plate alone: the next one may not have that well
        self._queue.started(plate)
        self._settle = (plate, None)
        acquire_plate(
            config,
            self._catalog,
            self._service,
            self._context(),
            console=self._console,
            live=False,
            from_well=from_well,
        )
        verdict = say_ended(self._catalog, plate, began_s, self._time_zone, self._console)
        if verdict is None and not self._stopping:  # else it would be the next for ever
            verdict = "it ended with wells that have no final row; `spheroidd status` says why"
            self._wait_because = f"plate {plate} is not whole"
        elif was_aborted(self._catalog, plate):
            self._wait_because = f"plate {plate} was aborted"
        self._settle = (plate, verdict)

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
                if self._settle is not None:
                    self._queue.ended(*self._settle)
                if self._wait_because is not None and self._queue.run.goes_on:
                    self._queue.go_on(False, self._wait_because)
        except StorageError as error:
            if not may_pass(error):
                raise
            self._monitor.catalog_unwritable(error, state_of(error))
        else:
            self._ended = self._settle = self._wait_because = None
            self._monitor.after_heartbeat(state)
