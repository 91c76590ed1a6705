"""What people ordered of the run under way: pause, resume, abort, skip, repeat, re-order, re-score. Only main calls it.

It decides for each planned stack whether it is taken, and says why a stack ended without all its slices.
"""

from collections.abc import Callable
from dataclasses import replace

from spheroidd.acquisition.channel import ChannelClosedError
from spheroidd.daemon.catalog.audit_chain import Action
from spheroidd.daemon.catalog.plate_queue import PlateQueue
from spheroidd.daemon.catalog.rows import StackRow, StackState
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.pipeline import queue_orders
from spheroidd.daemon.pipeline.acquisition_threads import AcquisitionThreads
from spheroidd.daemon.pipeline.orders import (
    Abort,
    Done,
    FinishPush,
    Inbox,
    Order,
    Pause,
    QueueOrder,
    ReorderWells,
    RepeatWell,
    Rescore,
    Resume,
    SkipWell,
    StartPlate,
    Stop,
)
from spheroidd.daemon.pipeline.run_context import Inlet
from spheroidd.daemon.pipeline.throughput import Throughput
from spheroidd.daemon.scoring.scheduler import ScoringScheduler
from spheroidd.protocols.errors import MissingError, RefusedError, SpheroiddError, StorageError
from spheroidd.protocols.events import StackHeld
from spheroidd.protocols.stack import StackKey, StackPlan
from spheroidd.protocols.stack_end import Ending, StackEnd
from spheroidd.protocols.well import WellId

_TO_COME = (StackState.QUEUED, StackState.ACQUIRING)
_AGAIN = "run the plate again, or repeat the well, to take it"


class Steering:
    """What operators want of one run. Without `threads` only its scoring can be steered."""

    def __init__(
        self,
        catalog: Catalog,
        scheduler: ScoringScheduler,
        pace: Throughput,
        threads: AcquisitionThreads | None,
        *,
        stop: Callable[[], None],
        inlet: Inlet,
    ) -> None:
        self._catalog, self._scheduler, self._pace, self._threads = catalog, scheduler, pace, threads
        self._plate = pace.plate or ""
        self._stop, self._inlet = stop, inlet
        self._waiting: StackPlan | None = None  # planned while paused: decided on resume
        self._paused = self._held = False
        self._after_well = self._stopped = False
        self._skipped: dict[WellId, Ending] = {}
        self._aborted: Ending | None = None

    @property
    def word(self) -> str:
        """The run's state in a word."""
        if self._stopped:
            return "stopping"
        if self._aborted is not None:
            return "aborting"
        if self._paused or self._after_well:
            still = self._pace.current is None or self._held or self._waiting is not None
            return "paused" if still else "pausing"
        return "running"

    # -- what becomes of stacks ------------------------------------------------------------------------------------

    def planned(self, plan: StackPlan) -> None:
        """Decide over a stack that the source is about to take, or keep the source waiting while the plate is paused.

        Opening a stack that only lacks its seal takes no new frame.
        """
        if self._threads is None or self._aborted is not None:
            return
        if self._paused or self._after_well:
            self._waiting = plan
            return
        row = self._catalog.stack(plan.key)
        whole = row.whole
        skipped = self._skipped.get(plan.key.well)
        if skipped is not None and not whole:
            self._catalog.end_stack(plan.key, skipped)
        self._threads.decide(plan, take=not whole and skipped is None)

    def held(self, event: StackHeld) -> None:
        """The shutter is closed."""
        self._held = True

    def why_short(self, key: StackKey) -> Ending | None:
        """How a stack was ended without all its slices; None where no order did it."""
        return self._skipped.get(key.well) or self._aborted

    # -- orders ----------------------------------------------------------------------------------------------------

    def handle_orders(self, inbox: Inbox) -> bool:
        """Carry out what waits; whether there was anything."""
        any_came = False
        while ticket := inbox.take():
            any_came = True
            try:
                if isinstance(ticket.order, QueueOrder):  # of other plates than the one that is run
                    done = queue_orders.carry_out(ticket.order, self._catalog)
                    ticket.answer(Done(audited(self._catalog, ticket.order.plate, ticket.order, done), self.word))
                    continue
                done = self._carry_out(ticket.order)
                ticket.answer(Done(audited(self._catalog, self._plate, ticket.order, done), self.word))
            except SpheroiddError as error:
                ticket.answer(error)
        return any_came

    def _carry_out(self, order: Order) -> str:
        if order.plate not in ("", self._plate):
            what = f"the plate being run is {self._plate}, not {order.plate}"
            raise RefusedError(what, do=f"name {self._plate}, or wait for its end")
        match order:
            case StartPlate() if not order.plate:
                PlateQueue(self._catalog).go_on(True, "")
                return queue_orders.GOES_ON
            case Pause():
                return self._pause(order)
            case Resume():
                return self._resume()
            case Abort():
                return self._abort(order)
            case SkipWell():
                return self._skip(order)
            case RepeatWell():
                return self._repeat(order)
            case ReorderWells():
                return self._reorder(order)
            case Rescore():
                return self._rescore(order)
            case FinishPush():
                return self._finish_push()
            case Stop():
                self._stopped = True
                self._stop()
                return "the daemon ends once what it took is on disk"
        name = type(order).__name__
        raise RefusedError(
            f"{name} cannot be done while plate {self._plate} is run", do="abort it, or wait for its end"
        )

    def _pause(self, order: Pause) -> str:
        threads = self._acquiring()
        if self._paused:
            return f"plate {self._plate} is paused already"
        self._after_well, self._paused = order.after_well, not order.after_well
        if self._paused:
            self._held = False
            threads.hold()
            return f"plate {self._plate} pauses; resume takes the slices that are missing"
        return f"plate {self._plate} pauses after this well"

    def _resume(self) -> str:
        threads = self._acquiring()
        if not (self._paused or self._after_well):
            return f"plate {self._plate} is not paused"
        self._paused = self._after_well = self._held = False
        threads.release()
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            self.planned(waiting)
        return f"plate {self._plate} goes on"

    def _abort(self, order: Abort) -> str:
        threads = self._acquiring()
        aborted = _by_order(StackEnd.ABORTED, f"the plate was aborted by {order.who}", order.reason)
        with self._catalog.transaction():
            for row in self._stacks():
                if row.state is StackState.QUEUED:
                    self._catalog.end_stack(row.key, aborted)
        self._aborted = aborted
        threads.stop()
        return f"plate {self._plate} is aborted; what is stored is still scored"

    def _skip(self, order: SkipWell) -> str:
        threads, well = self._acquiring(), order.well
        rows = self._stacks(well)
        if rows and not self._awaited(well):
            raise RefusedError(f"well {well} is imaged already", do="exclude it from the results instead")
        self._known(well)
        skipped = _by_order(StackEnd.SKIPPED, f"skipped by {order.who}", order.reason)
        with self._catalog.transaction():
            for row in rows:
                if row.state is StackState.QUEUED:
                    self._catalog.end_stack(row.key, skipped)
        self._skipped[well] = skipped
        for row in rows:
            if row.state is StackState.ACQUIRING:
                threads.skip(row.key)
        return f"well {well} is skipped"

    def _repeat(self, order: RepeatWell) -> str:
        threads, well = self._acquiring(), order.well
        self._known(well)
        if self._inlet.pushes:
            raise RefusedError("the program that pushes decides what is imaged", do="push the well as a further stack")
        rows = self._stacks(well)
        if not rows or self._awaited(well):
            raise RefusedError(f"well {well} is still to be imaged", do="repeat it once it was imaged")
        n_fields = self._catalog.n_fields(self._plate)
        first = (rows[-1].key.stack // n_fields + 1) * n_fields
        plans = [replace(row.plan, key=StackKey(self._plate, well, first + n)) for n, row in enumerate(rows[:n_fields])]
        try:
            with self._catalog.transaction():
                for plan in plans:
                    self._catalog.expect(plan)
                    threads.repeat(plan)
        except ChannelClosedError:
            raise RefusedError("the instrument has finished this plate", do="start the plate again") from None
        self._skipped.pop(well, None)
        named = f"stack {first}" if len(plans) == 1 else f"stacks {first} to {plans[-1].key.stack}"
        return f"well {well} will be imaged again as {named}, which will count instead of what is there"

    def _reorder(self, order: ReorderWells) -> str:
        threads, wells = self._acquiring(), tuple(dict.fromkeys(order.wells))
        if not wells:
            raise RefusedError("no well is named", do="name those that are to be imaged next")
        if not threads.takes_any_order:
            what = "this source takes its wells as they come: their order is the instrument's"
            raise RefusedError(what, do="change the order in the instrument's own program")
        for well in wells:
            self._known(well)
            if not self._waits(well):
                do = "leave it out, or repeat it once it was imaged"
                raise RefusedError(f"well {well} is imaged already, or under way", do=do)
        with self._catalog.transaction():
            for row in (row for well in wells if well in self._skipped for row in self._newest(well)):
                if not row.whole:
                    self._catalog.set_stack_state(row.key, StackState.QUEUED)
        for well in wells:
            self._skipped.pop(well, None)
        threads.bring_forward(wells)
        return f"{', '.join(map(str, wells))} will be imaged next"

    def _rescore(self, order: Rescore) -> str:
        if order.model or order.normalisation:
            do = "wait for the end of the run, or leave model and normalisation as they are"
            raise RefusedError("another model or normalisation cannot be used in the middle of a plate", do=do)
        for well in order.wells:
            self._known(well)
        n = self._scheduler.score_again(frozenset(order.wells), order.who or None)
        if not n:
            raise RefusedError("no stack of these wells is stored and scored", do="wait until they are")
        return f"{n} stacks of plate {self._plate} are scored again"

    def _finish_push(self) -> str:
        if not (self._inlet.pushes and self._scheduler.source_finished and self._aborted is None):
            self._acquiring()
            self._inlet.finish()  # else the last well came first: then this was known
        return f"no more stacks of plate {self._plate} are awaited"

    # -- what orders are checked against ---------------------------------------------------------------------------

    def _acquiring(self) -> AcquisitionThreads:
        """The threads, as long as the instrument is not done with the plate."""
        if self._threads is None or self._scheduler.source_finished or self._aborted is not None:
            raise RefusedError(f"no slices of plate {self._plate} are being taken any more", do="look at the status")
        return self._threads

    def _known(self, well: WellId) -> None:
        if well not in {entry.well for entry in self._catalog.plate_map(self._plate).imaged()}:
            raise MissingError(f"plate {self._plate} has no well {well} to image", do="choose one of its plate map")

    def _awaited(self, well: WellId) -> bool:
        """Whether a stack of a well is under way or still to come."""
        return self._waits(well) or any(row.state in _TO_COME for row in self._stacks(well))

    def _waits(self, well: WellId) -> bool:
        """Whether a stack of a well that lacks something waits for its turn, be it one that would be skipped."""
        waiting = self._threads.to_come() if self._threads is not None else set()
        return well in waiting and not all(row.whole for row in self._stacks(well))

    def _newest(self, well: WellId) -> list[StackRow]:
        """The stacks of the last time that a well was to be imaged: those before had their turn."""
        rows, n_fields = self._stacks(well), self._catalog.n_fields(self._plate)
        return [row for row in rows if row.key.stack // n_fields == rows[-1].key.stack // n_fields]

    def _stacks(self, well: WellId | None = None) -> list[StackRow]:
        return [row for row in self._catalog.stacks(self._plate) if well is None or row.key.well == well]


def audited(catalog: Catalog, plate: str, order: Order, done: str) -> str:
    """Enter an order that was carried out into the audit trail; what was done, and that it is not there if it is not.

    An order to stop must not fail because the disk is full.
    """
    well = getattr(order, "well", None)
    given: dict[str, object] = {"order": type(order).__name__, "done": done}
    if isinstance(order, ReorderWells):
        given["wells"] = [str(one) for one in order.wells]
    reason = " ".join(getattr(order, "reason", "").split()) or None
    try:
        catalog.append_event(
            Action.ORDERED, plate=plate or None, well=well and str(well), new=given, reason=reason, who=order.who
        )
    except StorageError as error:
        return f"{done}; the audit trail does not have it: {error.what}"
    return done


def _by_order(how: StackEnd, what: str, reason: str) -> Ending:
    why = f": {' '.join(reason.split())}" if reason.strip() else ""
    return Ending(how, f"{what}{why}", _AGAIN)
