"""Growth-rate inhibition and quantal responses."""

import math

import numpy as np
import pytest

from spheroidd.inference.dose_response.fit import fit_many
from spheroidd.inference.dose_response.growth_rate import growth_rate_curve, growth_rates
from spheroidd.inference.dose_response.quantal import fit_quantal
from spheroidd.protocols.dose import CurveStatus
from spheroidd.protocols.errors import ConfigError

WELLS = np.concatenate((np.zeros(6), np.repeat(np.geomspace(0.01, 100, 8), 3)))


def fitted(*counted):
    """As the fit's table does it."""
    (fit,) = fit_many([growth_rate_curve("x", *counted)], top=1.0)
    return fit


@pytest.mark.parametrize(
    ("count", "gr"),
    [(800, 1.0), (100, 0.0), (math.sqrt(800 * 100), math.sqrt(2) - 1), (0, -1.0), (50, 2 ** (-1 / 3) - 1)],
)
def test_growth_rate_of_a_count(count, gr):
    """Three doublings in the control: half a doubling lost of each is 2^0.5 - 1, one halving is 2^(-1/3) - 1."""
    assert float(growth_rates(count, control_count=800, time_zero_count=100)) == pytest.approx(gr)


@pytest.mark.parametrize("doublings", [1.0, 3.0])
def test_growth_rate_does_not_depend_on_how_fast_cells_divide(doublings):
    """The counts differ, the GR50 does not: that is what it is for."""
    gr = -0.3 + 1.3 / (1 + (WELLS / 1.5) ** 1.2)
    noise = 0.03 * np.where(np.arange(len(WELLS)) % 2, 1, -1)
    counts = 100 * 2 ** (doublings * np.log2(gr + noise + 1))
    fit = fitted(WELLS, counts, 100.0, 100 * 2**doublings)
    assert fit.status is CurveStatus.OK
    assert fit.top == 1.0
    assert fit.ic50_rel == pytest.approx(1.5, rel=0.1)
    assert fit.ic50_abs == pytest.approx(1.5 * (0.5 / 0.8) ** (1 / 1.2), rel=0.1)
    assert fit.bottom == pytest.approx(-0.3, abs=0.05)


def test_growth_rate_without_effect_has_no_number():
    counts = 400 * np.where(np.arange(len(WELLS)) % 2, 1.05, 0.95)
    fit = fitted(WELLS, counts, 100.0)
    assert (fit.status, fit.ic50_abs) == (CurveStatus.INACTIVE, None)


@pytest.mark.parametrize(
    ("counts", "control", "start", "words"),
    [
        ([1.0], 100, 100, "did not grow"),
        ([1.0], 100, 0, "time 0"),
        ([-1.0], 100, 10, "a count"),
        ([1], math.nan, 1, "grow"),
    ],
)
def test_growth_rates_that_do_not_exist(counts, control, start, words):
    with pytest.raises(ConfigError, match=words):
        growth_rates(counts, control, start)


def test_growth_rate_needs_untreated_wells():
    with pytest.raises(ConfigError, match="no untreated well"):
        growth_rate_curve("x", [1, 2, 3], [4, 5, 6], 1.0)


@pytest.mark.parametrize(
    ("affected", "status", "words"),
    [
        ([0, 2, 7, 15, 19], CurveStatus.OK, "IC50"),
        ([0, 0, 0, 0, 0], CurveStatus.INACTIVE, "the same"),
        ([3, 3, 2, 4, 3], CurveStatus.INACTIVE, "no effect of the dose was shown"),
        ([20, 18, 9, 4, 0], CurveStatus.INACTIVE, "falls"),
        ([0, 20, 20, 19, 20], CurveStatus.ALL_DEAD, "full effect"),
        ([0, 0, 1, 4, 8], CurveStatus.CENSORED_HIGH, "highest dose"),
    ],
)
def test_quantal_status(affected, status, words):
    fit = fit_quantal([0, 1, 2, 4, 8], affected, [20] * 5)
    assert (fit.status, words in fit.reason) == (status, True)
    assert (fit.ic50_rel is not None) == (status is CurveStatus.OK)


def test_quantal_limits_are_of_the_profile():
    """Where the deviance, minimised over the slope on a fine grid, has risen by chi-squared's 3.84."""
    doses, affected, totals = np.array([1.0, 2, 4, 8]), np.array([2.0, 7, 15, 19]), 20.0
    fit = fit_quantal(doses, affected, [totals] * 4)

    def least(e):
        p = 1 / (1 + (doses[:, None] / e) ** -np.linspace(0.3, 8, 4000))
        return (-2 * (affected[:, None] * np.log(p) + (totals - affected[:, None]) * np.log(1 - p))).sum(axis=0).min()

    for limit in (fit.ic50_rel_lo, fit.ic50_rel_hi):
        assert least(limit) - least(fit.ic50_rel) == pytest.approx(3.8415, abs=0.01)


@pytest.mark.parametrize(
    ("affected", "totals", "words"),
    [([3, 2], [2, 2], "3 of 2"), ([-1, 2], [2, 2], "-1 of 2"), ([1], [1, 2], "1 counts")],
)
def test_quantal_counts_that_cannot_be(affected, totals, words):
    with pytest.raises(ConfigError, match=words):
        fit_quantal([1, 2], affected, totals)
