"""Screens with 8 doses, one value a dose and no untreated well: what is told of an IC50, and what is not."""

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import optimize, stats

from bench import ccle_like
from spheroidd.inference.dose_response.batch_fit import CurveBatch
from spheroidd.inference.dose_response.fit import fit_curve, fit_many
from spheroidd.inference.dose_response.log_logistic import LogLogistic, value
from spheroidd.inference.dose_response.observations import Observations
from spheroidd.inference.dose_response.patient_curve import PatientCurve, evidence_of
from spheroidd.inference.dose_response.quantal import fit_quantal
from spheroidd.inference.dose_response.variable_projection import Crossing, Until, descend
from spheroidd.protocols.dose import STATUS_WORDS, CurveStatus
from spheroidd.protocols.errors import ConfigError

DOSES = np.array([0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0])
SLOW = (94, 81, 93, 70, 57, 38, 25, 12)  # over three decades, to nearly nothing
LATE = (104, 96, 95, 109, 74, 71, 62, 17)  # half is passed before the highest dose, the lower plateau never seen
EARLY = (61, 16, 12, 8, 6, 5, 3, 5)  # half is passed after the lowest dose, the upper plateau never seen
STEEP = (97, 102, 99, 101, 96, 103, 92, 31)
ABOVE = (101, 98, 103, 99, 97, 96, 88, 66)


def fitted(responses, **options):
    return fit_curve(DOSES, responses, control=100.0, **options)


def screen(count, noise, seed):
    rng = np.random.default_rng(seed)
    truth = ccle_like.drawn(count, rng)
    return ccle_like.simulated(truth, noise, rng), truth


def profile(responses, log_dose):
    """The least sum of squares of an LL.4 that passes 50 at a dose, by scipy over (b, e, d) from the best twelve of a
    grid, its c between the bounds that the fit keeps."""
    y, u = np.array(responses, float), np.log(DOSES)
    least, most = y.min() - np.ptp(y), y.max() + np.ptp(y)

    def residual(p):
        share = 1 / (1 + np.exp((p[0] * (np.append(u, log_dose) - p[1])).clip(-700, 700)))
        c = (50 - p[2] * share[-1]) / max(1 - share[-1], 1e-12)
        beyond = max(least - c, 0) + max(c - most, 0)
        return np.append(c + (p[2] - c) * share[:-1] - y, 1e3 * beyond)

    bounds = ([0.1, u[0] - 4.6, least], [20, u[-1] + 4.6, most])
    starts = [
        (b, e, d) for b in (0.4, 1.0, 3.0, 12.0) for e in np.linspace(u[0], u[-1], 7) for d in (70.0, 100.0, 118.0)
    ]
    starts.sort(key=lambda start: float((residual(start) ** 2).sum()))
    return min(2 * optimize.least_squares(residual, start, bounds=bounds).cost for start in starts[:12])


@pytest.mark.parametrize("responses", [SLOW, EARLY], ids=["slow", "early"])
def test_the_absolute_ic50_has_the_limits_of_its_profile(responses):
    fit = fitted(responses)
    assert fit.status in (CurveStatus.OK, CurveStatus.APPROXIMATE)
    least = profile(responses, math.log(fit.ic50_abs))
    threshold = least * (1 + stats.f.isf(0.05, 1, 4) / 4)
    for limit in (fit.ic50_abs_lo, fit.ic50_abs_hi):
        assert profile(responses, math.log(limit)) == pytest.approx(threshold, rel=0.02)


@pytest.mark.parametrize("boxed", [True, False], ids=["within the box", "free"])
def test_no_point_of_a_profile_lies_below_the_minimum(boxed):
    curves, _ = screen(120, 12.0, 5)
    model = LogLogistic()
    batch = CurveBatch.fitted(model, [Observations.of(curve) for curve in curves], robust=False)
    which = np.repeat(np.flatnonzero(~batch.runaway) if not boxed else np.arange(len(curves)), 40)
    doses = np.tile(np.linspace(math.log(2.5e-5), math.log(800), 40), len(which) // 40)
    for slope in (-1.0, 0.5, 2.5):  # the logarithm
        start = np.stack((np.full(len(which), slope), doses, np.zeros(len(which))), axis=1)
        crossing = Crossing(doses, np.full(len(which), 50.0), np.zeros(len(which)))
        found = descend(model, batch.points, which, start, crossing=crossing, boxed=boxed, until=Until(40))
        assert (found.rss >= batch.best.rss[which] * (1 - 1e-6)).all()


def test_a_held_fit_has_the_sum_of_squares_of_its_own_parameters():
    curves, _ = screen(60, 12.0, 6)
    model = LogLogistic()
    batch = CurveBatch.fitted(model, [Observations.of(curve) for curve in curves], robust=False)
    which = np.repeat(np.arange(60), 9)
    doses = np.tile(np.log(np.geomspace(1e-4, 200, 9)), 60)
    start = np.stack((np.full(len(which), 2.9), doses, np.zeros(len(which))), axis=1)
    crossing = Crossing(doses, np.full(len(which), 50.0), np.zeros(len(which)))
    found = descend(model, batch.points, which, start, crossing=crossing, boxed=True)
    for lane, i in enumerate(which):
        b, e = np.exp(found.q[lane, :2])
        parameters = {"b": b, "c": found.c[lane], "d": found.d[lane], "e": e}
        rss = ((value(parameters, ccle_like.DOSES_UM) - curves[i].responses) ** 2).sum()
        assert rss == pytest.approx(found.rss[lane], rel=1e-6, abs=1e-6)


def test_more_than_half_of_the_ic50s_in_range_are_told_and_none_where_none_is():
    curves, truth = screen(400, 7.0, 1)
    found = ccle_like.figures(fit_many(curves), truth)
    assert found["share_told"] > 0.65
    assert found["none"]["told"] == 0
    assert found["limits_hold_the_truth"] > 0.9
    assert found["above_the_highest_dose_below_half"] == found["inactive_below_half_with_effect"] == 0


@pytest.mark.parametrize(
    ("responses", "status"),
    [
        (LATE, CurveStatus.UNPLACED),
        (STEEP, CurveStatus.OK),
        (ABOVE, CurveStatus.CENSORED_HIGH),
        (SLOW, CurveStatus.OK),
    ],
    ids=["late", "steep", "above", "slow"],
)
def test_above_the_highest_dose_only_where_more_than_half_is_left_there(responses, status):
    fit = fitted(responses)
    assert fit.status is status
    assert ("highest dose" in fit.reason) == (status is CurveStatus.CENSORED_HIGH)


@pytest.mark.parametrize("turned", [False, True], ids=["falling", "rising"])
def test_a_plateau_that_runs_away_is_held_and_flagged(turned):
    responses = np.array(LATE, float)
    fit = fitted(100 - responses, increasing=True) if turned else fitted(responses)
    span = np.ptp(responses)
    assert fit.status is CurveStatus.UNPLACED
    assert fit.ic50_rel is None
    far = fit.top if turned else fit.bottom
    assert far == pytest.approx(100 - (responses.min() - span) if turned else responses.min() - span)
    said = f"the {'upper' if turned else 'lower'} plateau cannot be determined"
    assert any(said in warning for warning in fit.warnings)


def test_a_held_plateau_leaves_the_other_one_unbounded_and_says_so():
    fit = fitted((20, 9, 6, 4, 2, 1, 1, 1), model="LL.3")
    assert fit.top > 200
    assert any("upper plateau" in warning for warning in fit.warnings)


def test_an_effect_without_a_place_says_nothing_of_a_patient():
    fit = fitted(LATE)
    assert evidence_of(PatientCurve("C", "P", "A", 0.003, 10.0, fit)) is None


def test_what_few_wells_do_not_show_is_not_said_to_be_absent():
    """Half of the signal is lost, in five wells that scatter: p = .1 is no proof of nothing."""
    fit = fit_curve([0, 0.1, 1, 10, 100], [100, 83, 96, 78, 48], model="LL.3")
    assert (fit.status, fit.p_effect > 0.05) == (CurveStatus.INACTIVE, True)
    assert fit.reason.startswith("no effect of the dose was shown (p = ")
    assert "with 5 values, too few for the fitted 49 % of the control" in fit.reason
    assert fit.words.instead == "no effect shown"


def test_no_effect_is_never_written_over_an_effect():
    weak = fit_curve(np.repeat([0, *DOSES], 6), np.repeat([100, *np.linspace(100, 80, 8)], 6) + np.tile([-1, 1], 27))
    assert (weak.status, weak.p_effect < 1e-3) == (CurveStatus.INACTIVE, True)
    assert "no effect" not in " ".join((weak.reason, *(word or "" for word in weak.words)))


def test_every_status_stands_in_the_documentation():
    text = (Path(__file__).parents[3] / "docs" / "dose-response.md").read_text(encoding="utf-8")
    assert set(STATUS_WORDS) == set(CurveStatus)
    for status, words in STATUS_WORDS.items():
        assert f"| `{status}` | {words.when} | {words.instead or ''} |" in text


# Shares

WORMS = ([0, 0.1, 0.3, 1, 3, 10], [22, 18, 13, 3, 1, 1], [36, 41, 48, 40, 43, 38])


def likelihood(model):
    """The binomial fit by another route: R drc's parameters themselves, by Nelder-Mead."""
    x, affected, total = (np.array(column, float) for column in WORMS)

    def deviance(p):
        c = p[3] if model == "LL.4" else 0.0
        share = (c + (p[1] - c) / (1 + (x / abs(p[2])) ** p[0])).clip(1e-12, 1 - 1e-12)
        return -2 * (affected * np.log(share) + (total - affected) * np.log(1 - share)).sum()

    start = [1.5, 0.6, 0.1, *([0.02] if model == "LL.4" else [])]
    return optimize.minimize(
        deviance, start, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-11, "maxiter": 9000}
    )


@pytest.mark.parametrize("model", ["LL.3", "LL.4"])
def test_shares_with_free_plateaus_are_fitted_by_their_likelihood(model):
    known = likelihood(model)
    fit = fit_quantal(*WORMS, increasing=False, model=model)
    assert fit.model == model
    assert (fit.bottom == 0.0) == (model == "LL.3")
    found = [fit.parameters[name] for name in ("b", "d", "e", "c")][: len(known.x)]
    assert found == pytest.approx(list(known.x), rel=2e-3, abs=2e-4)
    assert fit.status is CurveStatus.OK
    assert fit.ic50_rel_lo < fit.ic50_rel < fit.ic50_rel_hi


def test_a_model_that_fits_worse_than_one_share_at_all_doses_says_so():
    fit = fit_quantal(*WORMS, increasing=False)
    assert (fit.status, fit.ic50_abs, fit.p_effect) == (CurveStatus.FAILED, None, None)
    assert "LL.2, from 0 to 1, does not fit; fit LL.3 or LL.4" in fit.reason
    assert "no effect" not in fit.reason


def test_one_share_at_all_doses_is_no_effect_with_a_p_of_its_own():
    fit = fit_quantal([0, 1, 2, 4, 8], [6, 7, 6, 5, 6], [20] * 5)
    chi = stats.chi2_contingency([[6, 7, 6, 5, 6], [14, 13, 14, 15, 14]], lambda_="log-likelihood", correction=False)
    assert fit.status is CurveStatus.INACTIVE
    assert fit.p_effect == pytest.approx(chi.pvalue, rel=1e-6)


def test_a_model_of_shares_that_there_is_not():
    with pytest.raises(ConfigError, match=r"LL\.5"):
        fit_quantal(*WORMS, model="LL.5")
