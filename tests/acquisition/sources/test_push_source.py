"""Pushed slices as a source: the contract every source keeps, and what a program may do wrong."""

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from spheroidd.acquisition.sources.push import PushInlet, PushSession, PushSettings, PushSource
from spheroidd.acquisition.store.shard import crc32c
from spheroidd.protocols.errors import ConfigError, StackError
from spheroidd.protocols.events import SliceDurable, StackOpened, StackSealed
from spheroidd.protocols.plate import PlateMap, PlateWell, Treatment, WellRole
from spheroidd.protocols.ports import Clock, Interruptible, StackSource
from spheroidd.protocols.stack import Frame, SliceIndex, StackKey, StackPlan
from spheroidd.protocols.well import WellId
from spheroidd.testing.source_contract import FakeClock, SourceContract

KEY = StackKey("P1", WellId(0, 0))
PLAN = StackPlan(KEY, ("488", "561"), 3, 8, 8, 0.1, 0.5)
MAP = PlateMap("P1", (PlateWell(KEY.well, Treatment(WellRole.NEGATIVE_CONTROL)),))


def frame(index: SliceIndex, seed: int = 0) -> Frame:
    rng = np.random.default_rng([seed, index.z, int(index.channel)])
    return Frame(KEY, index, rng.integers(0, 65535, (8, 8)).astype(np.uint16), 1.0)


def push_source(patience_s: float = 0.0) -> PushSource:
    return PushSource(PushSettings(patience_s=patience_s), MAP, "P1", FakeClock())


class Program(threading.Thread):
    """An instrument's program that pushes one stack, for as long as it is not told to go."""

    def __init__(self, inlet: PushInlet, plan: StackPlan = PLAN, indices: list[SliceIndex] | None = None) -> None:
        super().__init__(daemon=True)
        self.inlet, self.plan = inlet, plan
        self.indices = list(plan.indices()) if indices is None else indices
        self.session: PushSession | None = None

    def run(self) -> None:
        self.session = self.inlet.open(self.plan, 20.0)
        for index in self.indices:
            while not self.session.put(frame(index)):
                if self.session.over:
                    return
        self.inlet.leave(self.session)


class TirelessProgram(Program):
    """Pushes the stack again and again, until nobody takes it any more."""

    def run(self) -> None:
        with contextlib.suppress(StackError):
            while True:
                super().run()


class TestPushSource(SourceContract):
    def make_source(self, folder: Path, clock: Clock) -> StackSource:
        source = PushSource(PushSettings(patience_s=20.0), MAP, "P1", clock)
        TirelessProgram(source.inlet).start()
        return source


def taken(source: PushSource) -> Iterator[tuple[StackPlan, list[SliceIndex]]]:
    for plan in source.plans():
        yield plan, [f.index for f in source.frames(plan, set(plan.indices()))]


def test_it_can_be_told_to_stop_waiting() -> None:
    source = push_source()
    assert isinstance(source, Interruptible)
    source.set_interrupt(lambda: True)
    assert list(source.plans()) == []


def test_it_needs_a_plate_map() -> None:
    with pytest.raises(ConfigError, match=r"plate\.map"):
        PushSource(PushSettings(), None, "P1", FakeClock())


def test_the_run_ends_when_every_well_was_pushed() -> None:
    source = push_source()
    Program(source.inlet).start()
    assert list(taken(source)) == [(PLAN, list(PLAN.indices()))]
    source.close()
    with pytest.raises(StackError, match="no more stacks"):
        source.inlet.open(PLAN, 1.0)


def test_a_program_that_comes_back_completes_the_stack() -> None:
    source, indices = push_source(), list(PLAN.indices())
    Program(source.inlet, indices=indices[:2]).start()
    stacks = taken(source)
    assert next(stacks) == (PLAN, indices[:2])
    Program(source.inlet, indices=indices[2:]).start()
    found: list[SliceIndex] = []
    for plan in source.plans():
        found += [f.index for f in source.frames(plan, set(indices[2:]))]
    assert found == indices[2:]


def test_a_program_that_comes_back_in_time_finds_the_stack_open() -> None:
    source, indices = push_source(patience_s=20.0), list(PLAN.indices())
    first, second = Program(source.inlet, indices=indices[:2]), Program(source.inlet, indices=indices[2:])
    first.start()
    threading.Thread(target=lambda: (first.join(), second.start()), daemon=True).start()
    assert list(taken(source)) == [(PLAN, indices)]


def test_finish_ends_a_run_with_wells_left() -> None:
    source = push_source()
    source.inlet.finish()
    assert list(source.plans()) == []


def test_two_programs_at_once_are_refused() -> None:
    source = push_source()
    plans = source.plans()
    thread = threading.Thread(target=lambda: source.inlet.open(PLAN, 5.0), daemon=True)
    thread.start()
    assert next(iter(plans)) == PLAN
    with pytest.raises(StackError, match="another connection"):
        source.inlet.open(PLAN, 0.1)
    source.close()
    thread.join()


class LingeringProgram(Program):
    """One whose call is not over yet when it has pushed all."""

    def __init__(self, inlet: PushInlet, indices: list[SliceIndex]) -> None:
        super().__init__(inlet, indices=indices)
        self.pushed, self.gone = threading.Event(), threading.Event()

    def run(self) -> None:
        self.session = self.inlet.open(self.plan, 20.0)
        for index in self.indices:
            assert self.session.put(frame(index))
        self.pushed.set()
        self.gone.wait(20.0)
        self.inlet.leave(self.session)


def test_a_program_whose_last_call_is_being_ended_is_let_in() -> None:
    source, indices = push_source(patience_s=20.0), list(PLAN.indices())
    first, second = LingeringProgram(source.inlet, indices[:2]), Program(source.inlet, indices=indices[2:])

    def end() -> None:
        first.pushed.wait(20.0)
        second.start()  # before the first one has left
        first.gone.wait(0.1)
        first.gone.set()

    first.start()
    threading.Thread(target=end, daemon=True).start()
    assert list(taken(source)) == [(PLAN, indices)]


def test_a_run_that_does_not_take_the_stack_up_in_time() -> None:
    with pytest.raises(TimeoutError):
        push_source().inlet.open(PLAN, 0.05)


@pytest.fixture
def session() -> PushSession:
    """An open session, with nobody who takes its frames."""
    inlet = PushInlet()
    opened: list[PushSession] = []
    thread = threading.Thread(target=lambda: opened.append(inlet.open(PLAN, 5.0)))
    thread.start()
    while inlet.next_plan(lambda: False) is None:
        time.sleep(0.001)
    inlet.opened(PLAN)
    thread.join()
    inlet.told(StackOpened(PLAN))
    opened[0].inlet = inlet  # type: ignore[attr-defined]
    return opened[0]


FIRST = next(PLAN.indices())


def durable(session: PushSession, given: Frame) -> None:
    session.inlet.told(SliceDurable(KEY, given.index, crc32c(given.pixels), 1.0))  # type: ignore[attr-defined]


def test_a_slice_is_acknowledged_when_it_was_committed_and_not_before(session: PushSession) -> None:
    given = frame(FIRST)
    assert session.put(given)
    assert session.acknowledgements() == []
    assert not session.settled
    durable(session, given)
    assert session.acknowledgements() == [(FIRST, crc32c(given.pixels))]
    assert session.settled


def test_without_room_a_slice_is_not_taken_and_may_be_given_again(session: PushSession) -> None:
    frames = [frame(index) for index in PLAN.indices()]
    assert [session.put(each) for each in frames] == [True] * 4 + [False] * 2
    assert session.frames.get().index == FIRST
    assert session.put(frames[4])


def test_what_is_durable_already_is_acknowledged_at_once(session: PushSession) -> None:
    given = frame(FIRST)
    session.known({FIRST: crc32c(given.pixels)})
    assert session.put(given)
    assert len(session.frames) == 0
    assert session.acknowledgements() == [(FIRST, crc32c(given.pixels))]


def test_the_same_slice_with_other_pixels_is_refused(session: PushSession) -> None:
    session.known({FIRST: crc32c(frame(FIRST, seed=1).pixels)})
    with pytest.raises(StackError, match="other pixels"):
        session.put(frame(FIRST))


def test_the_same_slice_before_its_acknowledgement_is_refused(session: PushSession) -> None:
    session.put(frame(FIRST))
    with pytest.raises(StackError, match="before it was acknowledged"):
        session.put(frame(FIRST))


def test_what_was_not_durable_when_the_stack_was_sealed_is_given_up(session: PushSession) -> None:
    session.put(frame(FIRST))
    inlet: PushInlet = session.inlet  # type: ignore[attr-defined]
    inlet.ended(PLAN)
    assert not session.sealed
    inlet.told(StackSealed(KEY))
    assert session.sealed
    assert not session.put(frame(SliceIndex("488", 1)))


def test_what_a_crash_kept_from_the_ledger_is_acknowledged_when_the_stack_is_opened(session: PushSession) -> None:
    """It was durable all along, so the store reports it with the stack and not again when it is pushed."""
    given = frame(FIRST)
    session.put(given)
    session.inlet.told(StackOpened(PLAN, {FIRST: crc32c(given.pixels)}))  # type: ignore[attr-defined]
    assert session.acknowledgements() == [(FIRST, crc32c(given.pixels))]
    durable(session, given)
    assert session.acknowledgements() == []
