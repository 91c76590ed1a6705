"""What every StackSource owes its holder. Inherit it, and give `make_source`."""

import itertools
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spheroidd.protocols.ports import Clock, StackSource
from spheroidd.protocols.stack import Frame, SliceIndex, StackPlan


class FakeClock:
    """A clock that only sleeping moves."""

    def __init__(self, start_s: float = 1_700_000_000.0) -> None:
        self.time_s, self.slept_s = start_s, 0.0

    def now(self) -> float:
        return self.time_s

    def elapsed(self) -> float:
        return self.slept_s

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.time_s += seconds
        self.slept_s += seconds


def take(source: StackSource, plan: StackPlan, wanted: set[SliceIndex]) -> dict[SliceIndex, np.ndarray[Any, Any]]:
    """Every wanted slice that came, copied."""
    return {f.index: f.pixels.copy() for f in source.frames(plan, wanted) if f.index in wanted}


class SourceContract:
    """Plans hold, what is wanted comes whole and unchanged, an interrupted stack can be completed, closing is safe."""

    def make_source(self, folder: Path, clock: Clock) -> StackSource:
        """A new source over the same instrument or files each time it is called in one test."""
        raise NotImplementedError

    @pytest.fixture
    def clock(self) -> FakeClock:
        """What the source is given for its time."""
        return FakeClock()

    @pytest.fixture
    def source(self, tmp_path: Path, clock: FakeClock) -> Iterator[StackSource]:
        """The source under test."""
        with closing(self.make_source(tmp_path, clock)) as source:
            yield source

    def first_plan(self, source: StackSource) -> StackPlan:
        """The plan that the tests of one stack use."""
        return next(iter(source.plans()))

    def test_a_source_in_order_passes_its_check(self, source: StackSource) -> None:
        source.check()

    def test_plans_are_of_this_plate_and_each_stack_comes_once(self, source: StackSource) -> None:
        plans = list(source.plans())
        wells = {entry.well for entry in source.plate_map.imaged()}
        assert plans
        assert len({plan.key for plan in plans}) == len(plans)
        assert {plan.key.plate for plan in plans} == {source.plate_map.name}
        assert {plan.key.well for plan in plans} <= wells

    def test_every_slice_of_the_plan_comes(self, source: StackSource) -> None:
        plan = self.first_plan(source)
        assert set(take(source, plan, set(plan.indices()))) == set(plan.indices())

    def test_frames_are_in_the_plan_and_stay_as_they_came(self, source: StackSource) -> None:
        plan = self.first_plan(source)
        frames: list[tuple[Frame, int]] = []
        for frame in source.frames(plan, set(plan.indices())):
            frame.check(plan)
            frames.append((frame, hash(frame.pixels.tobytes())))
        for frame, seen in frames:
            assert hash(frame.pixels.tobytes()) == seen
            with pytest.raises(ValueError, match="read-only"):
                frame.pixels[0, 0] = 0

    def test_a_part_that_is_wanted_comes_alone_or_with_more_of_the_same(self, source: StackSource) -> None:
        plan = self.first_plan(source)
        whole = take(source, plan, set(plan.indices()))
        wanted = set(itertools.islice(plan.indices(), plan.n_slices // 2, None, 3))
        part = take(source, plan, wanted)
        assert set(part) == wanted
        assert all(np.array_equal(part[index], whole[index]) for index in wanted)

    def test_nothing_wanted_is_no_error(self, source: StackSource) -> None:
        plan = self.first_plan(source)
        for frame in source.frames(plan, set()):
            frame.check(plan)

    def test_a_stack_interrupted_and_taken_up_by_another_source_is_the_same(
        self, tmp_path: Path, clock: FakeClock
    ) -> None:
        with closing(self.make_source(tmp_path, clock)) as first:
            plan = self.first_plan(first)
            whole = take(first, plan, set(plan.indices()))
        got: dict[SliceIndex, np.ndarray[Any, Any]] = {}
        with closing(self.make_source(tmp_path, clock)) as second:
            frames = second.frames(plan, set(plan.indices()))
            for frame in itertools.islice(frames, plan.n_slices // 3 + 1):
                got[frame.index] = frame.pixels.copy()
            frames.close()  # type: ignore[attr-defined]  # sources' iterators are generators
        with closing(self.make_source(tmp_path, clock)) as third:
            got |= take(third, plan, set(plan.indices()) - set(got))
        assert set(got) == set(whole)
        assert all(np.array_equal(got[index], whole[index]) for index in whole)

    def test_it_may_be_closed_twice(self, source: StackSource) -> None:
        source.close()
        source.close()
