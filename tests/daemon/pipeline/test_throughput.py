"""The time left of a run: it counts the way from well to well, which the rate of the last minute hides."""

import pytest

from spheroidd.daemon.pipeline.throughput import Throughput
from spheroidd.protocols.stack import StackKey, StackPlan
from spheroidd.protocols.well import WellId

PERIOD_S, WAY_S, N_SLICES = 0.5, 30.0, 100


def run(pace: Throughput, n_stacks: int, pauses_s: dict[int, float] | None = None, begun_s: float = 1000.0) -> float:
    """Acknowledge whole stacks, each followed by the way to the next; the time of the last slice."""
    now_s = begun_s
    for number in range(n_stacks):
        now_s += (pauses_s or {}).get(number, 0.0)
        pace.current = StackKey("P1", WellId(0, number))
        for _ in range(N_SLICES):
            pace.acknowledged(1, now_s)
            now_s += PERIOD_S
        now_s += WAY_S
    return now_s - WAY_S - PERIOD_S


def test_before_the_first_slice_nobody_knows() -> None:
    assert Throughput(1000, 0).seconds_left(0.0) is None


def test_within_the_first_stack_the_rate_is_all_there_is() -> None:
    pace = Throughput(10 * N_SLICES, 0)
    now_s = run(pace, 1)
    assert pace.seconds_left(now_s) == pytest.approx(9 * N_SLICES * PERIOD_S, rel=0.05)


def test_the_way_between_wells_is_counted() -> None:
    pace = Throughput(12 * N_SLICES, 0)
    now_s = run(pace, 4)
    truth_s = 8 * (N_SLICES * PERIOD_S + WAY_S)
    assert pace.seconds_left(now_s) == pytest.approx(truth_s)
    rate = pace.slices_per_s(now_s)
    assert rate is not None
    assert 8 * N_SLICES / rate < 0.75 * truth_s  # what the last minute alone would have said


def test_a_pause_does_not_count_for_wells_to_come() -> None:
    pace = Throughput(12 * N_SLICES, 0)
    now_s = run(pace, 5, pauses_s={2: 3600.0})
    assert pace.seconds_left(now_s) == pytest.approx(7 * (N_SLICES * PERIOD_S + WAY_S))


def test_at_the_end_nothing_is_left() -> None:
    pace = Throughput(3 * N_SLICES, 0)
    assert pace.run_state(run(pace, 3)).eta_s == 0


def test_the_rate_is_of_the_last_seconds_and_no_time_is_promised_while_nothing_comes() -> None:
    pace = Throughput(10 * N_SLICES, 0, state="running")
    now_s = run(pace, 1)
    assert pace.slices_per_s(now_s + 5.0) == pytest.approx(1 / PERIOD_S / 2, rel=0.05)
    late = pace.run_state(0.0, now_s + 11.0)
    assert (late.slices_per_s, late.eta_s) == (0.0, None)


@pytest.mark.parametrize("state", ["storage full", "storage fails", "paused", "stopping"])
def test_a_run_that_is_held_up_promises_no_time(state: str) -> None:
    pace = Throughput(10 * N_SLICES, 0, state=state)
    assert pace.run_state(0.0, run(pace, 1)).eta_s is None


def test_a_slow_instrument_has_a_rate_between_two_slices() -> None:
    pace = Throughput(10, 0, state="running")
    pace.opened(StackPlan(StackKey("P1", WellId(0, 0)), ("488",), 10, 8, 8, 0.5, 1.0, slice_period_s=20.0))
    for now_s in (100.0, 120.0, 140.0):
        pace.acknowledged(1, now_s)
    assert pace.slices_per_s(155.0) == pytest.approx(3 / 55)
    assert pace.seconds_left(155.0) == pytest.approx(7 * 55 / 3)
