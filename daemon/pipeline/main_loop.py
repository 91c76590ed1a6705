"""One run of one plate: the main loop that joins source, store, worker and catalog.

`main` is the only writer of SQLite. Everything that happens reaches it as an event on one bounded channel; it commits
a batch of events in one transaction, and only then acts on them: a slice is acknowledged by that commit.
"""

import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from spheroidd.acquisition.channel import Channel
from spheroidd.acquisition.store.labels import commit_label, discard_label, remove_objects
from spheroidd.acquisition.store.ngff import OBJECTS
from spheroidd.daemon.catalog.rows import Exclusion, StackState
from spheroidd.daemon.catalog.transaction import may_pass
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.pipeline.acquisition_threads import AcquisitionThreads
from spheroidd.daemon.pipeline.catalog_outage import RETRY_S, CatalogOutage, state_of
from spheroidd.daemon.pipeline.run_context import RunContext
from spheroidd.daemon.pipeline.steering import Steering
from spheroidd.daemon.pipeline.throughput import Throughput
from spheroidd.daemon.scoring.messages import PatternsFound, Scored
from spheroidd.daemon.scoring.pool import (
    ScoringAbandoned,
    ScoringFailed,
    ScoringPool,
    WorkerBroken,
    WorkerEvent,
    WorkerLost,
    WorkerReady,
)
from spheroidd.daemon.scoring.scheduler import ScoringScheduler
from spheroidd.daemon.system.garbage import settle_memory
from spheroidd.daemon.system.thread_deaths import death
from spheroidd.protocols.errors import RowRefusedError, SpheroiddError, StorageError
from spheroidd.protocols.events import (
    BlockStored,
    Event,
    FaultRaised,
    SliceDurable,
    SlicesCameTwice,
    SourceFinished,
    StackHeld,
    StackOpened,
    StackPlanned,
    StackRejected,
    StackSealed,
    ThreadDied,
)
from spheroidd.protocols.faults import FaultCode
from spheroidd.protocols.focus import FocusFound
from spheroidd.protocols.stack import StackKey
from spheroidd.protocols.stack_end import Ending, StackEnd

T = TypeVar("T")
_log = logging.getLogger(__name__)
AnyEvent = Event | StackPlanned | StackHeld | SlicesCameTwice | ThreadDied | WorkerEvent
_FREQUENT = (SliceDurable, BlockStored)  # hundreds a second, and none of them changes what can be scored
EVENTS_CAPACITY = 512  # small objects; bounds how far the ledger may lag behind the disk
BATCH = 128  # events in one commit: at 100 planes/s a commit never waits, in a burst it is shared
TICK_S = 0.1
RELATING_S = 0.008  # a turn relates rows until so long after it began: slices that wait for their commit come first
LAST_RELATING_S = 5.0  # and so long at the end
HEARTBEAT_S = 1.0
FIRST_SLICE_S = 3.0  # rows are not related before the run's first slice is acknowledged, or so long
_STOPPED = Ending(StackEnd.STOPPED, "stopped in the middle", "`spheroidd run` goes on")


class PlateRun:
    """Runs one plate until its source has nothing more to give and every stored stack is scored.

    Without `threads` it only scores what is stored. `shown` is called after each turn of the loop; it may draw, and
    must not block. The orders of `context` are carried out between turns; its inlet and its monitor are told what was
    committed.
    """

    def __init__(
        self,
        catalog: Catalog,
        scheduler: ScoringScheduler,
        pool: ScoringPool,
        events: Channel[AnyEvent],
        pace: Throughput,
        shown: Callable[[], None],
        threads: AcquisitionThreads | None,
        context: RunContext,
    ) -> None:
        self._context, self._monitor = context, context.monitor
        self._catalog, self._scheduler, self._pool, self._events = catalog, scheduler, pool, events
        self._pace, self._shown, self._threads = pace, shown, threads
        self._steering = Steering(catalog, scheduler, pace, threads, stop=self.stop, inlet=context.inlet)
        self._stopping = False
        self._next_heartbeat_s = 0.0  # by the clock that never jumps
        self._instrument_error: SpheroiddError | None = None
        self._outage: StorageError | None = None  # the catalog could not be written, and does not say so yet
        self._slices_refused = ""  # the run's state while the disk takes no slices
        self._unwritten: list[AnyEvent] = []  # of the last batch: what the catalog cannot hold
        self._took_slices = False
        self._relates_at_s = time.monotonic() + FIRST_SLICE_S

    def run(self) -> None:
        """Run to the end, or to a stop.

        Raises InstrumentError where the instrument gave up (what was taken is scored first), ModelError where no
        worker can start, and whatever a thread died of.
        """
        settle_memory()
        self._scheduler.source_finished = self._threads is None
        self._pace.state = "running"
        self._pool.start()
        if self._threads:
            self._threads.start()
        try:
            while not self._over():
                self._turn()
        finally:
            self._finish()
        if self._instrument_error:
            raise self._instrument_error

    def stop(self) -> None:
        """Take no further frame; keep and commit what was taken; leave the scoring for the next run."""
        self._stopping = True
        self._context.on_stop()
        self._pace.state = "stopping"
        if self._threads:
            self._threads.stop()

    def _over(self) -> bool:
        return self._scheduler.source_finished and (self._stopping or self._scheduler.idle())

    def _finish(self) -> None:
        if self._threads and not self._scheduler.source_finished:
            self._threads.stop()
            while not self._scheduler.source_finished:  # the store may still be telling of slices it made durable
                self._turn()
        self._pool.stop()
        left = self._threads.join() if self._threads else []
        if left:
            _log.error("the threads %s do not end, because the instrument does not let them go", ", ".join(left))
        self._pace.state, self._pace.worker, self._pace.current = "stopped", "stopped", None
        self._next_heartbeat_s = 0.0
        self._commit([])
        self._patiently(self._relate_last)
        self._scheduler.drop_raw()

    def _relate_last(self) -> None:
        with self._catalog.transaction():
            self._scheduler.record_relations(LAST_RELATING_S)

    def _turn(self) -> None:
        batch = self._take_batch()
        self._commit(batch)
        self._monitor.after_commit(batch)
        for event in batch:
            if isinstance(event, SliceDurable) and any(event is one for one in self._unwritten):
                continue  # durable, and not acknowledged
            self._act(event)
            self._context.inlet.told(event)
        if self._steering.handle_orders(self._context.orders):
            self._next_heartbeat_s = 0.0  # whoever ordered it wants to see it
        self._pace.state = self._word()
        if not all(isinstance(event, _FREQUENT) for event in batch) or not batch:
            self._patiently(lambda: self._scheduler.dispatch(self._pool))
            self._pace.worker = self._scheduler.describe()
        self._show()

    def _word(self) -> str:
        word = "stopping" if self._stopping else self._steering.word
        return self._slices_refused or word if word == "running" else word

    def _show(self) -> None:
        with contextlib.suppress(StorageError):  # a disk that fails is told of in other places
            self._shown()

    def _take_batch(self) -> list[AnyEvent]:
        batch: list[AnyEvent] = []
        with contextlib.suppress(TimeoutError):
            batch.append(self._events.get(timeout=0 if self._relations_due else TICK_S))
            while len(batch) < BATCH:
                batch.append(self._events.get(timeout=0))
        return [self._with_its_masks(event) for event in batch]

    def _with_its_masks(self, event: AnyEvent) -> AnyEvent:
        """Put the masks of an answer into their place: before its row, so that a row never lacks them."""
        if isinstance(event, Scored):
            try:
                for label in event.labels:
                    commit_label(self._catalog.path.parent, label)
                if event.labels and not any(label.name.endswith(OBJECTS) for label in event.labels):
                    remove_objects(self._catalog.path.parent, event.key)  # those of masks that were replaced
            except StorageError as error:
                for label in event.labels:
                    with contextlib.suppress(StorageError):  # what stays is swept at the next start
                        discard_label(self._catalog.path.parent, label)
                return ScoringFailed(event.key, error)
        return event

    def _commit(self, batch: Sequence[AnyEvent]) -> None:
        """Write a batch down in one transaction, however long it takes the disk to take it."""
        started_s = time.monotonic()  # the other clock may jump: it must not put off a heartbeat
        beat = started_s >= self._next_heartbeat_s
        self._unwritten = []
        if not batch and not beat and not self._relations_due:
            return
        now_s = time.time()
        try:
            excluded = self._patiently(lambda: self._write_down(batch, now_s, self._record, beat=beat))
        except RowRefusedError:  # one of them, for which the others must not suffer
            self._unwritten = []
            excluded = self._patiently(lambda: self._write_down(batch, now_s, self._record_apart, beat=beat))
        self._outage = None
        if beat:
            if excluded is not None:
                self._scheduler.related_without(excluded)
            self._next_heartbeat_s = started_s + HEARTBEAT_S
            self._monitor.after_heartbeat(self._pace.state)
            self._scheduler.drop_raw()

    @property
    def _relations_due(self) -> bool:
        return self._scheduler.relations_due and self._may_relate()

    def _may_relate(self) -> bool:
        """Whether the first slice has come, or will not soon: to read a large plate's rows takes seconds, for which it
        shall not wait.
        """
        none_comes = self._threads is None or self._scheduler.source_finished
        return none_comes or self._took_slices or time.monotonic() > self._relates_at_s

    def _write_down(
        self, batch: Sequence[AnyEvent], now_s: float, record: Callable[[AnyEvent, float], None], *, beat: bool
    ) -> Mapping[str, Exclusion] | None:
        """The exclusions that rows are related without from now on; None where they were not looked at."""
        excluded, may_relate, began_s = None, self._may_relate(), time.monotonic()
        with self._catalog.transaction():
            for event in batch:
                record(event, now_s)
            if beat or not all(isinstance(event, _FREQUENT) for event in batch):
                self._scheduler.lock_when_ready()
            if beat:
                excluded = self._scheduler.record_exclusions(budget_s=0.0) if may_relate else None
                self._catalog.set_run_state(self._pace.run_state(now_s))
                self._monitor.record(acquiring=not self._scheduler.source_finished)
            left_s = RELATING_S - (time.monotonic() - began_s)  # a turn that had more to write relates less
            if may_relate:
                self._scheduler.record_relations(max(0.0, left_s))
            if self._outage is not None:
                self._catalog.raise_fault(FaultCode.STORAGE_CATALOG, self._outage)
                self._catalog.clear_fault(FaultCode.STORAGE_CATALOG)
        return excluded

    def _patiently(self, write: Callable[[], T]) -> T:
        """Do what writes to the catalog, and once more where that is refused for now.

        Raises what the catalog refused it with where to wait does not help, or was of no use for long enough.
        """
        outage: CatalogOutage | None = None
        while True:
            try:
                done = write()
            except StorageError as error:
                if not may_pass(error):
                    raise
                outage = outage or CatalogOutage()
                outage.refused(error, stopping=self._stopping)
                self._outage, self._pace.state = error, state_of(error)
                self._show()
                self._monitor.catalog_unwritable(error, self._pace.state)
                self._steering.handle_orders(self._context.orders)
                time.sleep(RETRY_S)
            else:
                if outage is not None:
                    self._pace.state = self._word()
                return done

    def _record_apart(self, event: AnyEvent, now_s: float) -> None:
        """Record one event by itself; one that the catalog cannot hold fails its stack."""
        try:
            with self._catalog.transaction():
                self._record(event, now_s)
        except RowRefusedError as error:
            key = _stack_of(event)
            if key is None:
                raise
            self._unwritten.append(event)
            self._catalog.end_stack(key, Ending.of(error, key))

    # -- inside the transaction: may run again for the same event, so it only writes rows --------------------------

    def _record(self, event: AnyEvent, now_s: float) -> None:
        match event:
            case SliceDurable():
                self._acknowledge(event, now_s)
            case BlockStored(block):
                self._catalog.block_stored(block)
            case StackPlanned(plan):
                self._catalog.expect(plan)
            case StackOpened():
                self._opened(event, now_s)
            case StackSealed(key):
                self._sealed(key)
            case StackRejected(key, error):
                self._catalog.end_stack(key, Ending.of(error, key))
            case FaultRaised(code, error, key, cleared):
                self._catalog.clear_fault(code, key) if cleared else self._catalog.raise_fault(code, error, key)
            case FocusFound():
                self._catalog.put_focus(event)
            case PatternsFound():
                self._scheduler.record_patterns(event)
            case Scored():
                self._scheduler.record_scored(event)
            case ScoringFailed():
                self._scheduler.record_failed(event)
            case WorkerLost():
                self._scheduler.record_lost(event)
                self._monitor.worker_lost(event)
            case _:
                pass  # said to main alone: nothing to keep

    def _opened(self, event: StackOpened, now_s: float) -> None:
        """Take over what the store found on disk; what was acknowledged must be among it, byte for byte."""
        key = event.plan.key
        ledger = self._catalog.acknowledged(key)
        lost = {index: crc for index, crc in ledger.items() if event.found.get(index) != crc}
        if self._catalog.stack(key).state is not StackState.SCORED:  # held at its last slice, the worker was quicker
            self._catalog.set_stack_state(key, StackState.ACQUIRING)
        for code in (FaultCode.INSTRUMENT, FaultCode.STORAGE):  # an earlier run ended with it; now both are there again
            self._catalog.clear_fault(code)
        if lost:
            index = min(lost)
            what = f"{len(lost)} acknowledged slices do not read back, the first is {index}"
            self._broken(
                key, StorageError(what, where=str(key), do="keep this disk as it is and check its file system")
            )
        for index in event.found.keys() - ledger.keys():  # durable, but the crash came before the commit
            found = SliceDurable(key, index, event.found[index], now_s, {"recovered": "after a stop"})
            self._acknowledge(found, now_s)

    def _acknowledge(self, event: SliceDurable, now_s: float) -> None:
        try:
            self._catalog.acknowledge(event, now_s)
        except StorageError as error:
            if error.__cause__ is not None:
                raise
            self._broken(event.key, error)  # other bytes than were acknowledged: this stack is never to be trusted

    def _broken(self, key: StackKey, error: StorageError) -> None:
        self._catalog.raise_fault(FaultCode.SLICES_LOST, error, key)
        self._catalog.end_stack(key, Ending.of(error, key))

    def _sealed(self, key: StackKey) -> None:
        row = self._catalog.stack(key)
        if row.state is StackState.FAILED:
            return
        if row.complete:
            self._catalog.set_stack_state(key, StackState.STORED)
            if row.state is StackState.SCORED:  # the worker needs no pyramid, so it may be quicker than the seal
                self._catalog.set_stack_state(key, StackState.SCORED)
            return
        if self._stopping:
            self._catalog.end_stack(key, _STOPPED)
            return
        if ordered := self._steering.why_short(key):
            self._catalog.end_stack(key, ordered)
            return
        acknowledged = self._catalog.acknowledged(key)
        missing = next(index for index in row.plan.indices() if index not in acknowledged)
        what = f"{row.n_slices_acked} of {row.plan.n_slices} slices arrived, the first missing is {missing}"
        self._catalog.end_stack(key, Ending(StackEnd.SHORT, what, "run the plate again to take the missing ones"))

    # -- after the commit: it happened ----------------------------------------------------------------------------

    def _act(self, event: AnyEvent) -> None:
        match event:
            case SliceDurable():
                self._took_slices = True
                self._pace.acknowledged(1)
            case StackPlanned(plan):
                self._pace.slices_total, _ = self._catalog.slices_of(plan.key.plate)
                if not self._stopping:
                    self._patiently(lambda: self._steering.planned(plan))
            case StackHeld():
                self._steering.held(event)
            case StackOpened(plan):
                self._pace.opened(plan)
            case SourceFinished():
                self._scheduler.source_finished = True
                self._pace.current = None
            case WorkerReady():
                self._scheduler.joined(event)
            case WorkerBroken(error):
                raise error
            case WorkerLost():
                self._scheduler.lost(event)
            case Scored() | PatternsFound() | ScoringFailed() | ScoringAbandoned():
                self._scheduler.answered(event)
            case ThreadDied(name, error):
                broken = error if isinstance(error, StorageError) else death(name, error)
                self._monitor.dying(broken)
                raise broken from error
            case FaultRaised(FaultCode.STORAGE, StorageError() as error, cleared=cleared):
                self._slices_refused = "" if cleared else state_of(error)
            case FaultRaised(FaultCode.INSTRUMENT, error, None):
                self._instrument_error = error
            case _:
                pass


def _stack_of(event: AnyEvent) -> StackKey | None:
    """The stack that an event is about; None for one about the run."""
    match event:
        case StackOpened(plan) | StackPlanned(plan):
            return plan.key
        case BlockStored(block):
            return block.key
        case _:
            return getattr(event, "key", None)
