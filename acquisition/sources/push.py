"""Slices that an instrument's own program pushes: the source of them, and the inlet through which they come.

The inlet is where three threads meet: the service puts frames in and waits for acknowledgements, the source thread
takes frames out, and main says what is durable. It speaks in plans, frames and events, and knows nothing of a network.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Set
from enum import StrEnum
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from spheroidd.acquisition.channel import Channel
from spheroidd.acquisition.store.shard import crc32c
from spheroidd.protocols.errors import ConfigError, StackError
from spheroidd.protocols.events import SliceDurable, StackOpened, StackSealed
from spheroidd.protocols.plate import PlateMap
from spheroidd.protocols.ports import Clock
from spheroidd.protocols.stack import Frame, SliceIndex, StackPlan

FRAMES_CAPACITY = 4  # 5 MB of a screen stack: the ring and the channel behind it are what rides out a slow disk
WAKE_S = 0.1  # how soon a waiting source notices that it is to end
LEAVING_S = 2.0  # a call that was cut off is noticed a moment later than its program begins the next one


class PushSettings(BaseModel):
    """Take slices that another program pushes over gRPC."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["push"] = "push"
    patience_s: float = Field(default=30.0, ge=0, le=86_400, allow_inf_nan=False)
    """How long a stack waits for a program whose connection broke; then it ends where it is."""


class SessionState(StrEnum):
    """How far a program has come with the stack it wants to push."""

    OFFERED = "offered"
    OPEN = "open"
    REFUSED = "refused"  # the stack is whole already, or skipped
    ENDED = "ended"


class PushSession:
    """One program's connection for one stack. Everything in it is guarded by the inlet's condition."""

    def __init__(self, plan: StackPlan, change: threading.Condition) -> None:
        self.plan = plan
        self._change = change
        self.state = SessionState.OFFERED
        self.attached = True
        self._opened = self._sealed = False  # as main was told
        self.frames: Channel[Frame] = Channel(capacity=FRAMES_CAPACITY)
        self._pushed: set[SliceIndex] = set()
        self._durable: dict[SliceIndex, int] = {}  # crc32c; of the whole stack, whoever pushed it
        self._news: list[tuple[SliceIndex, int]] = []  # bounded: a slice gets in once for each time it was pushed
        self._failure: Exception | None = None

    def known(self, ledger: Mapping[SliceIndex, int]) -> None:
        """What was acknowledged before, read from the ledger after the session was made."""
        with self._change:
            self._durable |= ledger

    def put(self, frame: Frame) -> bool:
        """Hand a frame on; waits a moment where there is no room, False where there was none or the stack has ended.

        A slice that is durable already is acknowledged again. StackError for one that the plan does not promise, that
        comes again with other pixels, or while it is still on its way to the disk.
        """
        frame.check(self.plan)
        with self._change:
            if self.state is not SessionState.OPEN:
                return False
            held = self._durable.get(frame.index)
            if held is None:
                if frame.index in self._pushed:
                    raise _again(frame, "before it was acknowledged", "wait for the acknowledgement")
                self._pushed.add(frame.index)
            elif held != crc32c(frame.pixels):
                raise _again(frame, "with other pixels", "the first were kept; push the well as a further stack")
            else:
                self._news.append((frame.index, held))
                return True
        try:
            self.frames.put(frame, timeout=WAKE_S)
        except TimeoutError:
            with self._change:
                self._pushed.discard(frame.index)
            return False
        return True

    def acknowledgements(self) -> list[tuple[SliceIndex, int]]:
        """What became durable since the last call, with its crc32c; waits a moment where there is nothing.

        Raises what `fail` was given.
        """
        with self._change:
            if not self._news and self._failure is None:
                self._change.wait(WAKE_S)
            if self._failure is not None:
                raise self._failure
            news, self._news = self._news, []
            return news

    def fail(self, error: Exception) -> None:
        """Raise this where acknowledgements are waited for."""
        with self._change:
            self._failure = error
            self._change.notify_all()

    @property
    def settled(self) -> bool:
        """Nothing is on its way to the disk, and no acknowledgement waits to be told."""
        with self._change:
            return not self._news and self._pushed <= self._durable.keys()

    @property
    def complete(self) -> bool:
        """Every slice of the plan is durable."""
        return len(self._durable) == self.plan.n_slices

    @property
    def over(self) -> bool:
        """No further frame is taken."""
        return self.state in (SessionState.REFUSED, SessionState.ENDED)

    @property
    def sealed(self) -> bool:
        """It is over, and what is not durable by now will not be."""
        with self._change:
            return self.state is SessionState.REFUSED or (self.over and self._sealed and not self._news)

    def _told(self, event: StackOpened | SliceDurable | StackSealed) -> None:
        match event:
            case StackOpened():
                self._opened, self._sealed = True, False
                for index, crc in event.found.items():  # some of it a crash had kept from the ledger until now
                    self._became_durable(index, crc)
            case SliceDurable():
                self._became_durable(event.index, event.crc32c)
            case StackSealed():
                self._sealed = self._opened  # of an earlier opening, where this one is still to come

    def _became_durable(self, index: SliceIndex, crc: int) -> None:
        if index in self._pushed and index not in self._durable:
            self._news.append((index, crc))
        self._durable[index] = crc


def _again(frame: Frame, how: str, do: str) -> StackError:
    what = f"channel {frame.index.channel} z {frame.index.z} arrived again {how}"
    return StackError(what, where=str(frame.key), do=do)


class PushInlet:
    """Where one program at a time pushes stacks into one run."""

    pushes = True  # that program decides what is imaged, and not the run

    def __init__(self) -> None:
        self._change = threading.Condition()
        self._session: PushSession | None = None
        self._finished = self._closed = False

    # -- for the service

    def open(self, plan: StackPlan, timeout_s: float) -> PushSession:
        """Offer a stack and wait for the run to take it or not: an open session, or a refused one.

        StackError where another program is at it or the run takes no more; TimeoutError where it does not decide in
        that time, because it is paused.
        """
        with self._change:
            self._change.wait_for(lambda: not self._busy or self._finished or self._closed, min(LEAVING_S, timeout_s))
            if self._finished or self._closed:
                raise StackError("the run takes no more stacks", where=str(plan.key), do="start the plate again")
            if self._session is not None and self._busy:
                what = f"stack {self._session.plan.key} is being pushed by another connection"
                raise StackError(what, where=str(plan.key), do="end that one first: one stack at a time")
            before, session = self._session, PushSession(plan, self._change)
            if before is not None and before.plan.key == plan.key:
                session._opened = before._opened
            self._session = session
            self._change.notify_all()
            if not self._change.wait_for(lambda: session.state is not SessionState.OFFERED, timeout_s):
                session.attached, session.state = False, SessionState.ENDED
                raise TimeoutError(f"the run did not take up stack {plan.key} within {timeout_s:.1f} s")
            return session

    @property
    def _busy(self) -> bool:
        """Whether another program's stack is under way."""
        return self._session is not None and self._session.attached and not self._session.over

    def leave(self, session: PushSession) -> None:
        """The program is gone, or done."""
        with self._change:
            session.attached = False
            self._change.notify_all()

    def finish(self) -> None:
        """No more stacks will come."""
        with self._change:
            self._finished = True
            self._change.notify_all()

    # -- for main

    def told(self, event: object) -> None:
        """An event was committed; never blocks."""
        if isinstance(event, StackOpened | SliceDurable | StackSealed):
            key = event.plan.key if isinstance(event, StackOpened) else event.key
            with self._change:
                session = self._session
                if session is not None and session.plan.key == key:
                    session._told(event)
                    self._change.notify_all()

    # -- for the source

    def next_plan(self, interrupted: Callable[[], bool]) -> StackPlan | None:
        """Wait for the next stack that is offered; None where no more will come."""
        with self._change:
            while not (self._finished or self._closed or interrupted()):
                if self._session is not None and self._session.state is SessionState.OFFERED:
                    return self._session.plan
                self._change.wait(WAKE_S)
            return None

    def opened(self, plan: StackPlan) -> PushSession | None:
        """The session that a stack's frames come through from now on; None where its program is gone."""
        with self._change:
            session = self._session
            if session is None or session.plan.key != plan.key or session.over:
                return None
            if session.state is SessionState.OFFERED:
                session.state = SessionState.OPEN
                self._change.notify_all()
            return session

    def another_waits(self, plan: StackPlan) -> bool:
        """Whether a program has moved on to another stack, or said that it is done."""
        with self._change:
            session = self._session
            other = session is not None and session.plan.key != plan.key and session.state is SessionState.OFFERED
            return self._finished or other

    def ended(self, plan: StackPlan) -> None:
        """The source is done with a stack."""
        with self._change:
            session = self._session
            if session is not None and session.plan.key == plan.key:
                refused = session.state is SessionState.OFFERED
                session.state = SessionState.REFUSED if refused else SessionState.ENDED
                self._change.notify_all()

    def close(self) -> None:
        """The source is gone."""
        with self._change:
            self._closed = True
            if self._session is not None:
                self._session.state = SessionState.ENDED
            self._change.notify_all()


class PushSource:
    """A StackSource whose stacks come when a program opens them, in the program's order and geometry.

    It ends when the program says so or when every well to be imaged has been pushed once.
    """

    Settings: ClassVar[type[PushSettings]] = PushSettings

    def __init__(self, settings: PushSettings, plate_map: PlateMap | None, plate_name: str, clock: Clock) -> None:
        if plate_map is None:
            raise ConfigError("plate.map is missing", do="write the path of the plate map (CSV): a push brings none")
        self._settings, self._map = settings, plate_map
        self._interrupted: Callable[[], bool] = lambda: False
        self._whole = True  # the last planned stack
        self.inlet = PushInlet()

    @property
    def plate_map(self) -> PlateMap:
        """The map it was given."""
        return self._map

    def check(self) -> None:
        """Nothing can be out of order before a program comes."""

    def set_interrupt(self, interrupted: Callable[[], bool]) -> None:
        """See `Interruptible`."""
        self._interrupted = interrupted

    def plans(self) -> Iterator[StackPlan]:
        """Each stack when a program opens it; one whose program came back is planned again."""
        to_come = {entry.well for entry in self._map.imaged()}
        while to_come:
            plan = self.inlet.next_plan(self._interrupted)
            if plan is None:
                return
            self._whole = True  # unless `frames` finds otherwise: a stack that is not taken is whole, or skipped
            yield plan
            self.inlet.ended(plan)
            if self._whole:
                to_come.discard(plan.key.well)

    def frames(self, plan: StackPlan, wanted: Set[SliceIndex]) -> Iterator[Frame]:
        """What the program pushes, until all that is wanted has come, or the program is gone for too long."""
        self._whole = False
        left, last_s = set(wanted), time.monotonic()
        session: PushSession | None = None
        while left and not self._interrupted():
            if session is None or not len(session.frames):  # what a program left behind comes before its successor's
                session = self.inlet.opened(plan)
            gone = session is None or not session.attached  # asked before its last frames are looked for
            frame = _next(session)
            if frame is not None:
                left.discard(frame.index)
                yield frame
            elif not gone:
                last_s = time.monotonic()
            elif self.inlet.another_waits(plan) or time.monotonic() - last_s > self._settings.patience_s:
                break
        self._whole = not left

    def close(self) -> None:
        """Let a waiting program go."""
        self.inlet.close()


def _next(session: PushSession | None) -> Frame | None:
    """The next frame of a session; None where none came in a moment."""
    if session is None:
        time.sleep(WAKE_S)
        return None
    try:
        return session.frames.get(timeout=WAKE_S)
    except TimeoutError:
        return None
