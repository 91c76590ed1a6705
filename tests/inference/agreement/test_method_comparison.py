"""Agreement of estimates with references: by hand, against scipy, and intervals that draw whole patients."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from spheroidd.inference.agreement.method_comparison import clustered_intervals, paired_figures, spread
from spheroidd.protocols.errors import ConfigError


def test_by_hand() -> None:
    found = paired_figures([12, 18, 33, 37], [10, 20, 30, 40], ["a"] * 4)
    assert (found.n, found.n_groups, found.mae, found.bias) == (4, 1, 2.5, 0.0)
    sd = np.std([2, -2, 3, -3], ddof=1)
    assert (found.loa_low, found.loa_high) == pytest.approx((-1.96 * sd, 1.96 * sd))
    assert found.r2 == pytest.approx(1 - 26 / 500)
    assert found.intervals == {}  # one patient says nothing about patients


def test_a_straight_line_that_is_off_has_r_1_and_a_low_r2() -> None:
    found = paired_figures([20, 40, 60], [10, 20, 30], [1, 2, 3])
    assert found.pearson_r == pytest.approx(1)
    assert found.r2 == pytest.approx(1 - 1400 / 200)


values = st.lists(st.tuples(st.floats(-200, 200), st.floats(-200, 200)), min_size=3, max_size=20)


@given(values)
@settings(deadline=None, max_examples=40)
def test_pearson_is_scipys_and_nothing_is_nan(pairs: list[tuple[float, float]]) -> None:
    estimates, references = zip(*pairs, strict=True)
    found = paired_figures(estimates, references, [0] * len(pairs))
    assert all(np.isfinite(v) for v in (found.mae, found.bias, found.loa_low, found.loa_high) if v is not None)
    if found.pearson_r is not None and np.std(estimates) > 1e-3 and np.std(references) > 1e-3:
        assert found.pearson_r == pytest.approx(stats.pearsonr(estimates, references).statistic, abs=1e-9)


@pytest.mark.parametrize("n", [0, 1, 2])
def test_few_pairs_leave_figures_unknown(n: int) -> None:
    found = paired_figures([1.0] * n, [2.0] * n, range(n))
    assert (found.n, found.pearson_r, found.r2) == (n, None, None)
    assert (found.bias is None) == (n == 0)


def test_a_constant_reference_has_neither_r_nor_r2() -> None:
    found = paired_figures([1, 2, 3, 4], [5, 5, 5, 5], range(4))
    assert (found.pearson_r, found.r2, found.mae) == (None, None, 2.5)


@pytest.mark.parametrize("estimates", [[1.0, 2.0], [1.0, float("nan"), 3.0]])
def test_what_cannot_be_paired_is_refused(estimates: list[float]) -> None:
    with pytest.raises(ConfigError, match="cannot be paired"):
        paired_figures(estimates, [1, 2, 3], range(3))


def test_an_interval_draws_patients_and_not_wells() -> None:
    """Ten equal wells of each of four patients are four observations: the interval is as wide as with one well each."""
    means = np.array([1.0, 2.0, 4.0, 9.0])
    one = spread(means, range(4))
    ten = spread(np.repeat(means, 10), np.repeat(range(4), 10).tolist())
    assert (one.mean_lo, one.mean_hi) == pytest.approx((ten.mean_lo, ten.mean_hi))
    alone = spread(np.repeat(means, 10), list(range(40)))
    assert alone.mean_lo is not None
    assert ten.mean_lo is not None
    assert alone.mean_lo > ten.mean_lo


def test_an_interval_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(120):
        column = rng.normal(0, 1, (25, 1)) + rng.normal(0, 0.3, (25, 3))
        groups = np.repeat(range(25), 3).tolist()
        found = clustered_intervals({"mean": lambda v: float(v.mean())}, (column.ravel(),), groups, draws=300)
        low, high = found["mean"]
        hits += low <= 0 <= high
    assert 0.86 <= hits / 120 <= 0.99


def test_nothing_measured_is_unknown() -> None:
    assert spread([], []).mean is None
    assert spread([0.5], ["a"]).sd is None
