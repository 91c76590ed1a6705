"""The two threads between the instrument and the disk, and the bounded channel that joins them.

`source` asks main whether to take each stack, pulls its frames, and hands them on. `store` is the only writer of
Zarr. Neither touches SQLite: they tell main what happened. A full disk stops `store`, a full channel stops `source`,
and so the instrument: no frame is taken that could not be kept.
"""

import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from spheroidd.acquisition.channel import Channel, ChannelClosedError
from spheroidd.daemon.pipeline.stack_queue import PlanQueue
from spheroidd.protocols.errors import InstrumentError, NoRoomError, SpheroiddError, StackError, StorageError
from spheroidd.protocols.events import (
    Event,
    FaultRaised,
    SlicesCameTwice,
    SourceFinished,
    StackHeld,
    StackOpened,
    StackPlanned,
    StackRejected,
    ThreadDied,
)
from spheroidd.protocols.faults import FaultCode
from spheroidd.protocols.ports import FaultTelling, Interruptible, StackSource, StackStore
from spheroidd.protocols.stack import Frame, SliceIndex, StackKey, StackPlan
from spheroidd.protocols.well import WellId

T = TypeVar("T")
STORAGE_RETRY_S = 1.0
STORAGE_PATIENCE_S = 300.0  # a share that hangs, a cable that is put back; then the daemon ends, and says so
LEAVE_S = 10.0
INSTRUMENT_RETRY_S = 2.0
HELD_CHECK_S = 0.2  # how soon a paused stack notices that it was skipped


@dataclass(frozen=True, slots=True)
class _Open:
    plan: StackPlan
    found: Channel[Mapping[SliceIndex, int]]


@dataclass(frozen=True, slots=True)
class _Close:
    key: StackKey


class AcquisitionThreads:
    """Runs what a queue holds of one source into one store; every fact goes to `emit`, which may block and so slow the
    instrument down.

    `has_room` raises StorageError while the disk has too little space left to begin anything.
    """

    def __init__(
        self,
        source: StackSource,
        store: StackStore,
        queue: PlanQueue,
        emit: Callable[[Event | StackPlanned | StackHeld | SlicesCameTwice | ThreadDied], None],
        *,
        has_room: Callable[[], None],
        frames_capacity: int,
        attempts: int,
    ) -> None:
        self._source, self._store, self._emit = source, store, emit
        self._has_room, self._attempts = has_room, attempts
        self._frames: Channel[Frame | _Open | _Close] = Channel(capacity=frames_capacity)
        self._decisions: Channel[bool] = Channel(capacity=1)
        self._queue = queue
        self._stop = threading.Event()
        self._going = threading.Event()  # not paused
        self._going.set()
        self._taking: StackKey | None = None  # while frames are being pulled
        self._skipped: StackKey | None = None
        if isinstance(source, Interruptible):
            source.set_interrupt(self._interrupted)
        if isinstance(source, FaultTelling):
            source.set_event_sink(emit)
        self._threads = [
            threading.Thread(
                target=self._watched, args=(self._run_source, self._end_source), name="source", daemon=True
            ),
            threading.Thread(target=self._watched, args=(self._run_store, self._end_store), name="store", daemon=True),
        ]

    def start(self) -> None:
        """Start both threads; StackPlanned for the first stack follows."""
        for thread in self._threads:
            thread.start()

    def decide(self, plan: StackPlan, *, take: bool) -> None:
        """Answer the last StackPlanned. Where another stack was put before this one meanwhile, that one is planned
        instead, and this one again later.
        """
        self._decisions.put(self._queue.settle(plan.key) and take)

    def hold(self) -> None:
        """Close the shutter after the frame in hand; StackHeld follows where a stack is under way."""
        self._going.clear()

    def release(self) -> None:
        """Go on with the slices that are missing."""
        self._going.set()

    def skip(self, key: StackKey) -> None:
        """End this stack where it is, if it is under way; it is sealed as it is."""
        self._skipped = key

    def repeat(self, plan: StackPlan) -> None:
        """Plan a stack of the instrument's again, under its new key; ChannelClosedError once it is too late."""
        self._queue.repeat(plan)

    @property
    def takes_any_order(self) -> bool:
        """Whether the instrument lets its wells be taken in any order."""
        return self._queue.takes_any_order

    def to_come(self) -> set[WellId]:
        """The wells of which a stack waits to be decided over."""
        return self._queue.to_come()

    def bring_forward(self, wells: Sequence[WellId]) -> None:
        """Take the stacks of these wells next, in this order, once the one under way has ended."""
        self._queue.bring_forward(wells)

    def stop(self) -> None:
        """Take no further frame; what was taken is still stored and told, and SourceFinished follows."""
        self._stop.set()
        self._going.set()
        self._decisions.close()

    def join(self) -> list[str]:
        """Wait until both threads have ended; keep draining `emit`'s channel until SourceFinished before.

        The names of those that have not after a while, because the instrument does not let them go.
        """
        for thread in self._threads:
            thread.join(LEAVE_S)
        return [thread.name for thread in self._threads if thread.is_alive()]

    def _run_source(self) -> None:
        try:
            while (plan := self._queue.head()) is not None and not self._stop.is_set():
                self._emit(StackPlanned(plan))
                if self._decisions.get():
                    self._take(plan)
        except ChannelClosedError:
            pass  # stopped between two stacks
        except SpheroiddError as error:
            self._emit(FaultRaised(FaultCode.INSTRUMENT, error))

    def _end_source(self) -> None:
        try:
            self._source.close()
        finally:
            self._frames.close()

    def _take(self, plan: StackPlan) -> None:
        """Acquire one stack; an instrument that fails is tried again for just the slices that are still missing."""
        for attempt in range(1, self._attempts + 1):
            try:
                while not self._pull(plan, self._missing(plan)) and self._held(plan.key):
                    pass
                break
            except StackError as error:
                self._emit(StackRejected(plan.key, error))
                break
            except InstrumentError as error:
                self._emit(FaultRaised(FaultCode.INSTRUMENT, error, plan.key))
                if attempt == self._attempts:
                    raise
            finally:
                self._frames.put(_Close(plan.key))
            if self._stop.wait(INSTRUMENT_RETRY_S):
                break

    def _missing(self, plan: StackPlan) -> set[SliceIndex]:
        """Open a stack, or take it up again: the slices that it lacks."""
        found: Channel[Mapping[SliceIndex, int]] = Channel(capacity=1)
        self._frames.put(_Open(plan, found))
        return set(plan.indices()) - set(found.get())

    def _held(self, key: StackKey) -> bool:
        """Wait while the stack is paused; False where it was not, or is to end for good."""
        if self._going.is_set():
            return False
        self._emit(StackHeld(key))
        while not self._interrupted_for_good(key) and not self._going.wait(HELD_CHECK_S):
            pass
        return not self._interrupted_for_good(key)

    def _interrupted(self) -> bool:
        """Whether whoever waits for the instrument now must give up: asked from the source thread."""
        if self._taking is None:
            return self._stop.is_set()
        return self._interrupted_for_good(self._taking) or not self._going.is_set()

    def _interrupted_for_good(self, key: StackKey) -> bool:
        return self._stop.is_set() or self._skipped == key

    def _pull(self, plan: StackPlan, missing: set[SliceIndex]) -> bool:
        """Pull frames until the source has no more; False where that was interrupted."""
        self._taking = plan.key
        if self._interrupted():
            self._taking = None
            return False
        frames = self._source.frames(plan, missing)
        came: set[SliceIndex] = set()
        again: list[SliceIndex] = []
        try:
            for frame in frames:
                frame.check(plan)
                if frame.index in came:
                    again.append(frame.index)
                came.add(frame.index)
                self._frames.put(frame)
                if self._interrupted():
                    return False
            return not self._interrupted()
        finally:
            self._taking = None
            if again:
                self._emit(SlicesCameTwice(plan.key, len(again), again[0]))
            if isinstance(frames, Generator):
                frames.close()  # aborts the acquisition

    def _run_store(self) -> None:
        unusable: set[StackKey] = set()
        try:
            for item in self._frames:
                match item:
                    case _Open(plan, found):
                        unusable.discard(plan.key)
                        if not self._open(plan, found):
                            unusable.add(plan.key)
                    case _Close(key) if key not in unusable:
                        self._retry_storage(lambda key=key: self._store.seal(key))  # type: ignore[misc]
                    case Frame() as frame:
                        self._retry_storage(lambda frame=frame: self._store.append(frame))  # type: ignore[misc]
            self._retry_storage(self._store.close)
        except StorageError:
            if not self._stop.is_set():  # else told before, when it began; stopped while the disk was still full
                raise

    def _open(self, plan: StackPlan, found: Channel[Mapping[SliceIndex, int]]) -> bool:
        """Open a stack and tell the source what it has; False where what is on the disk of it cannot be taken up."""
        try:
            held = self._retry_storage(lambda: self._open_or_reject(plan))
            self._emit(StackOpened(plan, held))
            found.put(held)
        except StackError as error:
            found.fail(error)
            return False
        finally:
            found.close()  # whatever happened, nobody waits for it
        return True

    def _open_or_reject(self, plan: StackPlan) -> Mapping[SliceIndex, int]:
        """StackError where the disk works and what it holds of the stack is not what it should be."""
        try:
            return self._store.open(plan)
        except StorageError as error:
            if isinstance(error, NoRoomError) or isinstance(error.__cause__, OSError):
                raise
            raise StackError(error.what, where=error.where, do=error.do) from error

    def _end_store(self) -> None:
        self._release_source()
        self._emit(SourceFinished())

    def _retry_storage(self, action: Callable[[], T]) -> T:
        """Do it, or wait until the disk lets us: the frame in hand is the one thing that must not be dropped.

        A full disk is waited for until a person stops the run; one that fails, for STORAGE_PATIENCE_S.
        """
        told: type[StorageError] | None = None
        give_up_s = time.monotonic() + STORAGE_PATIENCE_S
        while True:
            try:
                self._has_room()
                result = action()
            except StorageError as error:
                if told is not type(error):
                    self._emit(FaultRaised(FaultCode.STORAGE, error))
                told = type(error)
                if isinstance(error, NoRoomError):
                    give_up_s = time.monotonic() + STORAGE_PATIENCE_S
                if self._stop.wait(STORAGE_RETRY_S) or time.monotonic() > give_up_s:
                    raise
            else:
                if told:
                    self._emit(FaultRaised(FaultCode.STORAGE, StorageError("the disk takes data again"), cleared=True))
                return result

    def _release_source(self) -> None:
        """Let the source go where the store has ended before it: nobody may wait for an answer that cannot come."""
        self._frames.close()
        for item in self._frames:
            if isinstance(item, _Open):
                item.found.close()

    def _watched(self, run: Callable[[], None], end: Callable[[], None]) -> None:
        """Run a thread's work and then its end; main is told of what broke in either before it hears of the end."""
        for part in (run, end):
            try:
                part()
            except BaseException as error:
                self._emit(ThreadDied(threading.current_thread().name, error))
