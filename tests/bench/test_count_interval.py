"""Constants that are found by some wells hold the truth of others as often as they say."""

import numpy as np
import pytest

from bench.count_interval import Counted, calibrated, coverage, seeds_of
from spheroidd.inference.viability import count_interval

TRUE_ERRORS = {"mean": -0.3, "counting": 0.8, "foreign": 0.2}


def wells(seed: int, n: int) -> list[Counted]:
    """Wells whose counts are off by errors of a known kind."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(n):
        score, total = float(rng.uniform(0.4, 5.0)), int(rng.integers(40, 600))
        live = int(rng.binomial(total, rng.uniform(0.1, 0.9)))
        dead = total - live
        counting = TRUE_ERRORS["counting"] * np.sqrt(1 / (live + 0.5) + 1 / (dead + 0.5))
        sd = np.hypot(counting, TRUE_ERRORS["foreign"] * score)
        off = TRUE_ERRORS["mean"] + sd * rng.normal()
        true_live = round(total / (1 + np.exp(-(np.log((live + 0.5) / (dead + 0.5)) + off))))
        found.append(Counted("real", number, live, dead, true_live, total - true_live, score, ()))
    return found


def test_nine_in_ten_are_held_by_constants_of_other_wells(monkeypatch: pytest.MonkeyPatch) -> None:
    errors = calibrated(wells(1, 300))
    assert errors.mean == pytest.approx(TRUE_ERRORS["mean"], abs=0.1)
    monkeypatch.setitem(count_interval.MEASURED, "network", errors)
    told = coverage(wells(2, 400), "network")
    assert told["intervals"] + told["without"] == 400
    assert told["without"] < 5
    assert 0.85 <= told["held"] <= 0.95
    narrow = errors._replace(counting=0.3, foreign=0.05)
    monkeypatch.setitem(count_interval.MEASURED, "network", narrow)
    assert coverage(wells(2, 400), "network")["held"] < 0.8


def test_wells_of_an_unmeasured_network_have_no_interval() -> None:
    assert coverage(wells(3, 5), "never") == {"intervals": 0, "without": 5}


def test_seeds_are_read_as_ranges() -> None:
    assert seeds_of("8000-8002,8005") == [8000, 8001, 8002, 8005]
