"""Dose response: R drc's numbers, honest intervals, and no IC50 where there is none."""

import csv
import json
import math
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from spheroidd.inference.dose_response import log_logistic
from spheroidd.inference.dose_response.fit import Curve, band, fit_curve, fit_many, predict, standard_errors
from spheroidd.inference.dose_response.log_logistic import LogLogistic
from spheroidd.inference.dose_response.quantal import fit_quantal
from spheroidd.protocols.dose import CurveStatus, DoseResponseFit
from spheroidd.protocols.errors import ConfigError
from tests.places import REAL_DATA, needs_real_data

DATA = REAL_DATA / "dose_response"
DOSES = np.geomspace(0.01, 100, 8)
WELLS = np.concatenate((np.zeros(8), np.repeat(DOSES, 3)))
NUMBERED = {CurveStatus.OK, CurveStatus.APPROXIMATE}
IC50S = [f"ic50_{kind}{end}" for kind in ("rel", "abs") for end in ("", "_lo", "_hi")]


def response(x, b=1.2, c=5.0, d=100.0, e=1.0):
    return log_logistic.value({"b": b, "c": c, "d": d, "e": e}, x)


def table(name: str, dose: str, answer: str, by: str = "") -> list[Curve]:
    with (DATA / f"{name}.csv").open() as file:
        rows = list(csv.DictReader(file))
    picked: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        picked.setdefault(row.get(by, "(Intercept)"), []).append((float(row[dose]), float(row[answer])))
    return [Curve(key, *zip(*values, strict=True)) for key, values in picked.items()]


def simulated(rng, midpoints, noise, *, wells=WELLS, control=100.0):
    """Curves with ln IC50s `midpoints`, and their truths (ln relative, ln absolute)."""
    slope, bottom = rng.uniform(0.8, 2.5, len(midpoints)), rng.uniform(0, 30, len(midpoints))
    with np.errstate(divide="ignore"):
        run = slope[:, None] * (np.log(wells) - midpoints[:, None])
    clean = bottom[:, None] + (100 - bottom[:, None]) / (1 + np.exp(run))
    noisy = clean + rng.normal(0, 1, clean.shape) * np.broadcast_to(noise, len(midpoints))[:, None]
    curves = [Curve(str(i), wells, row, control=control) for i, row in enumerate(noisy)]
    return curves, midpoints, midpoints + np.log(50 / (50 - bottom)) / slope


# R drc's numbers


@needs_real_data
@pytest.mark.parametrize(
    ("key", "name", "columns", "model"),
    [
        ("ryegrass_LL3", "ryegrass", ("conc", "rootl"), "LL.3"),
        ("ryegrass_LL4", "ryegrass", ("conc", "rootl"), "LL.4"),
        ("ryegrass_LL5", "ryegrass", ("conc", "rootl"), "LL.5"),
        ("S.alba_LL4", "S.alba", ("Dose", "DryMatter", "Herbicide"), "LL.4"),
        ("lettuce_LL3", "lettuce", ("conc", "weight"), "LL.3"),
    ],
)
def test_coefficients_and_standard_errors_are_those_of_drc(key, name, columns, model):
    known = json.loads((DATA / "drc_reference.json").read_text())[key]
    curves = table(name, *columns)
    fits = {fit.name: fit for fit in fit_many(curves, model=model, pooled_variance=True)}
    residuals = [curve.responses - predict(fits[curve.name], curve.doses_um) for curve in curves]
    rss = sum(float((r**2).sum()) for r in residuals)
    assert rss <= known["rss"] * (1 + 1e-9)  # drc stops a little early
    # drc's own rest to the optimum, where its sum of squares is above ours, is at most 1 % of a standard error.
    early = known["rss"] > rss * (1 + 1e-6)
    for label, value in known["coef"].items():
        parameter, _, curve = label.partition(":")
        fit, error = fits[curve], known["se"][label]
        assert fit.parameters[parameter] == pytest.approx(value, rel=1e-3, abs=0.01 * error if early else 0.0)
        assert standard_errors(fit)[parameter] == pytest.approx(error, rel=1e-2)


@needs_real_data
def test_relative_and_absolute_ic50_of_ryegrass():
    fit = fit_many(table("ryegrass", "conc", "rootl"))[0]
    assert (fit.status, fit.warnings) == (CurveStatus.OK, ())
    assert fit.ic50_rel == pytest.approx(3.05795, rel=1e-5)
    assert fit.ic50_abs == pytest.approx(3.19621, rel=1e-5)


@needs_real_data
def test_midpoint_of_the_asymmetric_curve_is_drcs_ed50():
    known = json.loads((DATA / "drc_reference.json").read_text())["ryegrass_LL5"]["ED"]["e:1:50"]["Estimate"]
    assert fit_many(table("ryegrass", "conc", "rootl"), model="LL.5")[0].ic50_rel == pytest.approx(known, rel=1e-4)


@needs_real_data
def test_binomial_fit_is_drcs():
    known = json.loads((DATA / "drc_reference.json").read_text())["finney71"]
    (affected,), (total,) = table("finney71", "dose", "affected"), table("finney71", "dose", "total")
    fit = fit_quantal(affected.doses_um, affected.responses, total.responses)
    for parameter in "be":
        label = f"{parameter}:(Intercept)"
        assert fit.parameters[parameter] == pytest.approx(known["coef"][label], rel=1e-3)
        assert standard_errors(fit)[parameter] == pytest.approx(known["se"][label], rel=1e-2)
    assert fit.status is CurveStatus.OK
    assert 4.3 < fit.ic50_rel_lo < fit.ic50_rel < fit.ic50_rel_hi < 5.4


@needs_real_data
@pytest.mark.parametrize("model", ["LL.3", "LL.4"])
def test_a_monotone_fit_of_hormetic_data_says_so(model):
    fit = fit_many(table("lettuce", "conc", "weight"), model=model)[0]
    assert "hormesis" in fit.reason
    assert any("hormesis" in warning for warning in fit.warnings)


def test_monotone_data_are_seldom_called_hormetic():
    curves, _, _ = simulated(np.random.default_rng(4), np.random.default_rng(5).uniform(-2, 2, 200), 6.0)
    assert sum(any("hormesis" in w for w in fit.warnings) for fit in fit_many(curves)) <= 6


# The functions


@given(
    st.sampled_from([-1.0, 1.0]), st.floats(0.2, 8), st.floats(-50, 50), st.floats(60, 150), st.floats(0.05, 50),
    st.floats(0.2, 4),
)  # fmt: skip
@settings(deadline=None)
def test_jacobian_is_the_derivative(sign, b, c, d, e, f):
    parameters = {"b": sign * b, "c": c, "d": d, "e": e, "f": f}
    slopes = log_logistic.jacobian(parameters, [0.0, *DOSES])
    for i, name in enumerate("bcdef"):
        step = 1e-6 * max(abs(parameters[name]), 1e-3)
        up, down = (log_logistic.value(parameters | {name: parameters[name] + s}, [0.0, *DOSES]) for s in (step, -step))
        assert slopes[:, i] == pytest.approx((up - down) / (2 * step), abs=2e-4 * (1 + np.abs(slopes[:, i]).max()))


@given(st.booleans(), st.floats(-1, 2), st.floats(-4, 4), st.floats(-2, 2))
@settings(deadline=None)
def test_shape_and_its_derivative_agree_with_the_function(increasing, log_b, midpoint, log_f):
    model = LogLogistic("LL.5", increasing)
    q, u = np.array([[log_b, midpoint, log_f]]), log_logistic.log_dose([[0.0, *DOSES]])
    s, rest, slopes = log_logistic.shape(model, q, u)
    parameters = log_logistic.natural(model, q[0], 0.0, 1.0)
    assert s[0] == pytest.approx(log_logistic.value(parameters, [0.0, *DOSES]), abs=1e-9)
    assert s + rest == pytest.approx(np.ones_like(s))
    assert log_logistic.log_midpoint(parameters) == pytest.approx(midpoint, abs=1e-6)
    for i in range(3):
        step = np.zeros((1, 3))
        step[0, i] = 1e-6
        up, down = log_logistic.shape(model, q + step, u)[0], log_logistic.shape(model, q - step, u)[0]
        assert slopes[i] == pytest.approx((up - down) / 2e-6, abs=1e-5)


@given(st.sampled_from([-2.0, 0.7, 3.0]), st.floats(0.02, 0.98), st.floats(0.3, 3))
def test_a_dose_gives_back_its_response(b, fraction, f):
    parameters = {"b": b, "c": 10.0, "d": 90.0, "e": 2.0, "f": f}
    wanted = 10 + 80 * fraction
    dose = math.exp(log_logistic.log_dose_at(parameters, wanted))
    assert float(log_logistic.value(parameters, dose)) == pytest.approx(wanted)
    assert log_logistic.log_dose_at(parameters, 95.0) is None


# Intervals


@pytest.mark.parametrize("model", ["LL.3", "LL.4", "LL.5"])
@pytest.mark.parametrize("control", [None, 100.0])
def test_limits_are_where_the_profile_passes_its_threshold(model, control):
    """The profile by another route: scipy's general minimiser with the constraint solved for one parameter."""
    rng = np.random.default_rng(11)
    y = response(WELLS, c=8.0) + rng.normal(0, 5, len(WELLS))
    fit = fit_curve(WELLS, y, model=model, control=control)
    free = {"LL.3": 3, "LL.4": 4, "LL.5": 5}[model]
    u = np.log(np.maximum(WELLS, 1e-300))

    def parts(p):
        b, e, f = p[0], p[1], math.exp(p[2]) if model == "LL.5" else 1.0
        return lambda x: np.exp(-f * np.logaddexp(0, b * (x - e)))

    def plain(p):
        c = 0.0 if model == "LL.3" else p[4]
        return c + (p[3] - c) * parts(p)(u) - y

    def relative(p, dose):  # e from the midpoint
        f = math.exp(p[2]) if model == "LL.5" else 1.0
        e = dose - math.log(2 ** (1 / f) - 1) / p[0]
        return plain([p[0], e, *p[2:]])

    def absolute(p, dose):  # c, or in LL.3 d, from the level
        s = float(parts(p)(dose))
        if model == "LL.3":
            d = 50 / max(s, 1e-12) if control else p[3]
            return d * parts(p)(u) - y if control else relative(p, dose)
        level = 50.0 if control else p[3] / 2
        return plain([*p[:4], (level - p[3] * s) / max(1 - s, 1e-12)])

    def least(held, dose):
        starts = [
            [b, math.log(fit.parameters["e"]) + shift, 0.0, 100.0, 5.0] for b in (0.9, 1.6) for shift in (-0.4, 0.4)
        ]
        return min(2 * optimize.least_squares(held, start, args=(dose,)).cost for start in starts)

    rss = 2 * optimize.least_squares(plain, [1.2, 0.0, 0.0, 100.0, 5.0], xtol=1e-12, ftol=1e-12).cost
    df = len(y) - free
    threshold = rss * (1 + stats.f.isf(0.05, 1, df) / df)
    limits = [(relative, fit.ic50_rel_lo), (relative, fit.ic50_rel_hi), (absolute, fit.ic50_abs_lo)]
    for held, limit in [*limits, (absolute, fit.ic50_abs_hi)]:
        assert least(held, math.log(limit)) == pytest.approx(threshold, rel=2e-3)


def test_limits_cover_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(3)
    curves, relative, absolute = simulated(rng, rng.uniform(-3, 3, 360), np.repeat([2.5, 5.0, 8.0], 120))
    fits = fit_many(curves)
    for kind, truth in (("rel", relative), ("abs", absolute)):
        told = [
            getattr(f, f"ic50_{kind}_lo") <= math.exp(t) <= getattr(f, f"ic50_{kind}_hi")
            for f, t in zip(fits, truth, strict=True)
            if getattr(f, f"ic50_{kind}") is not None
        ]
        assert len(told) > 340
        # 95 % of 350, three standard deviations to either side; half of the threshold's rise fails, and twice of it.
        assert 0.915 <= np.mean(told) <= 0.985


@pytest.mark.parametrize("n", [200, pytest.param(500, marks=pytest.mark.slow)])
def test_no_ic50_where_there_is_none(n):
    """Curves that are flat, dead at every dose, and with an IC50 threefold or more outside of the doses: n of each."""
    rng = np.random.default_rng(8)
    low, high = np.log(DOSES[[0, -1]])
    outside = np.log(rng.uniform(3, 100, 2 * n))
    midpoints = np.concatenate((np.full(n, 60.0), np.full(n, -60.0), high + outside[:n], low - outside[n:]))
    curves, _, _ = simulated(rng, midpoints, rng.uniform(1.5, 9, 4 * n))
    fits = fit_many(curves)
    assert [f.reason for f in fits if f.status in NUMBERED or any(getattr(f, name) is not None for name in IC50S)] == []
    assert {f.status for f in fits[:n]} == {CurveStatus.INACTIVE}
    assert {f.status for f in fits[n : 2 * n]} <= {CurveStatus.ALL_DEAD, CurveStatus.CENSORED_LOW}
    assert {f.status for f in fits[3 * n :]} <= {CurveStatus.ALL_DEAD, CurveStatus.CENSORED_LOW}


def test_no_ic50_of_dead_wells_without_a_control():
    """Nothing says that a response of 7 is dead, and noise alone may span most of it."""
    rng = np.random.default_rng(9)
    wells = np.repeat(DOSES, 3)
    fits = fit_many([Curve("", wells, 7 + rng.normal(0, 8, len(wells))) for _ in range(300)])
    assert {fit.ic50_rel for fit in fits} == {fit.ic50_abs for fit in fits} == {None}


# Statuses


def exact(x, noise=1.0, **parameters):
    """A curve with the same small alternating noise everywhere."""
    return response(x, **parameters) + noise * np.where(np.arange(len(x)) % 2, 1.0, -1.0)


@pytest.mark.parametrize(
    ("status", "words", "responses"),
    [
        (CurveStatus.OK, "IC50", exact(WELLS)),
        (CurveStatus.OK, "never falls", exact(WELLS, c=60.0)),
        (CurveStatus.INACTIVE, "no effect of the dose was shown", exact(WELLS, e=1e9)),
        (CurveStatus.INACTIVE, "% of the control", exact(WELLS, c=85.0)),
        (CurveStatus.INACTIVE, "rises", 120 - exact(WELLS)),
        (CurveStatus.INACTIVE, "the same", np.full(len(WELLS), 100.0)),
        (CurveStatus.ALL_DEAD, "every dose", exact(WELLS, e=1e-9)),
        (CurveStatus.CENSORED_LOW, "below the lowest", exact(WELLS, e=0.004, b=0.9)),
        (CurveStatus.CENSORED_HIGH, "the highest dose", exact(WELLS, e=130.0, c=0.0)),
        (CurveStatus.FAILED, "doses above 0", np.where(WELLS > 0, np.nan, 100.0)),
    ],
)
def test_status(status, words, responses):
    fit = fit_curve(WELLS, responses, control=100.0)
    assert fit.status is status
    assert words in fit.reason
    assert (status in NUMBERED) == any(getattr(fit, name) is not None for name in IC50S)


def test_approximate_is_inside_and_wider_than_tenfold():
    rng = np.random.default_rng(2)
    wells = np.concatenate((np.zeros(3), np.geomspace(1e-4, 1e4, 9)))
    fits = fit_many([Curve("", wells, response(wells, b=0.6) + rng.normal(0, 11, 12), control=100) for _ in range(40)])
    wide = [fit for fit in fits if fit.status is CurveStatus.APPROXIMATE and fit.ic50_rel]
    assert wide
    for fit in wide:
        assert "fold" in fit.reason
        assert fit.ic50_rel_hi > 10 * fit.ic50_rel_lo
        assert 1e-4 <= fit.ic50_rel_lo < fit.ic50_rel_hi <= 1e4


@pytest.mark.parametrize("low", [30.0, 45.0])
def test_a_control_that_is_known_but_not_in_the_table(low):
    """The lowest dose has less than half of it left: the IC50 lies below, wherever the fit would put it."""
    wells = np.repeat(DOSES, 3)
    responses = exact(wells, c=2.0, d=low, e=1.0)
    assert fit_curve(wells, responses, control=100.0).status is CurveStatus.CENSORED_LOW


def test_weights_of_means_are_as_good_as_replicates():
    rng = np.random.default_rng(1)
    y = response(WELLS) + rng.normal(0, 4, len(WELLS))
    doses, index, count = np.unique(WELLS, return_inverse=True, return_counts=True)
    means = np.bincount(index, y) / count
    whole, shrunk = fit_curve(WELLS, y), fit_curve(doses, means, weights=count)
    assert shrunk.parameters == pytest.approx(whole.parameters, rel=1e-6)


def test_untreated_wells_take_part():
    """A plateau that the doses do not reach is known from the wells of dose 0."""
    y = exact(WELLS, e=0.02, b=1.0, c=0.0, noise=2.0)
    with_them, without = fit_curve(WELLS, y), fit_curve(WELLS[8:], y[8:])
    assert with_them.ic50_rel == pytest.approx(0.02, rel=0.1)
    assert (without.status, without.ic50_rel) == (CurveStatus.CENSORED_LOW, None)


def test_robust_loss_is_hubers_and_shrugs_at_outliers():
    rng = np.random.default_rng(5)
    y = response(WELLS) + rng.normal(0, 3, len(WELLS))
    y[[12, 20]] = 180.0, 150.0
    plain, robust = fit_curve(WELLS, y), fit_curve(WELLS, y, robust=True)
    assert abs(math.log(robust.ic50_rel)) < 0.15 < abs(math.log(plain.ic50_rel or 1e9))
    u = np.log(np.maximum(WELLS, 1e-300))

    def residual(p):
        return p[1] + (p[2] - p[1]) / (1 + np.exp(p[0] * (u - p[3]))) - y

    size = np.abs(y - predict(robust, WELLS))
    scale = 1.345 * 1.4826 * np.median(size) * math.sqrt(len(y) / (len(y) - 4))
    at = robust.parameters
    start = [at["b"], at["c"], at["d"], math.log(at["e"])]
    scipys = optimize.least_squares(residual, start, loss="huber", f_scale=scale, xtol=1e-12, ftol=1e-12)
    assert scipys.x == pytest.approx(start, abs=1e-3)


# What must not matter


@settings(deadline=None, max_examples=12)
@given(st.floats(1e-4, 1e4), st.floats(0.01, 100), st.randoms(use_true_random=False))
def test_units_and_order_do_not_matter(dose_unit, response_unit, random):
    y = exact(WELLS, noise=3.0)
    order = list(range(len(WELLS)))
    random.shuffle(order)
    plain = fit_curve(WELLS, y, control=100.0)
    other = fit_curve(WELLS[order] * dose_unit, y[order] * response_unit, control=100.0 * response_unit)
    assert other.status is plain.status
    for name in IC50S:
        assert getattr(other, name) == pytest.approx(getattr(plain, name) * dose_unit, rel=1e-3)
    assert other.auc == pytest.approx(plain.auc * response_unit, rel=1e-5)


def test_a_rising_curve_is_a_falling_one_upside_down():
    y = exact(WELLS, c=0.0, noise=3.0)
    falling, rising = fit_curve(WELLS, y, control=100.0), fit_curve(WELLS, 100 - y, control=100.0, increasing=True)
    assert rising.status is CurveStatus.OK
    assert rising.parameters["b"] == pytest.approx(-falling.parameters["b"], rel=1e-5)
    for name in IC50S:
        assert getattr(rising, name) == pytest.approx(getattr(falling, name), rel=1e-3)
    assert "falls with the dose" in fit_curve(WELLS, y, control=100.0, increasing=True).reason


def test_a_curve_does_not_depend_on_its_neighbours():
    rng = np.random.default_rng(6)
    curves, _, _ = simulated(rng, rng.uniform(-6, 6, 12), 5.0)
    curves.append(Curve("short", [0, 1, 2], [1, 2, 3]))
    curves.append(
        Curve("other doses", [0, 0, *np.geomspace(0.01, 100, 11)], exact(np.r_[0, 0, np.geomspace(0.01, 100, 11)]))
    )
    for together, curve in zip(fit_many(curves, auc_range_um=(0.1, 10)), curves, strict=True):
        alone = fit_many([curve], auc_range_um=(0.1, 10))[0]
        assert (together.status, together.reason) == (alone.status, alone.reason)
        assert together.parameters == pytest.approx(alone.parameters, rel=1e-6)


number = st.one_of(st.floats(-1e6, 1e6), st.floats(-1e99, 1e99), st.sampled_from([0.0, 1.0, 100.0, math.nan, math.inf]))
dose = st.one_of(st.sampled_from([0.0, 0.01, 0.1, 1.0, 10.0]), st.floats(1e-29, 1e29))


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.tuples(dose, number), max_size=16),
    st.sampled_from(["LL.3", "LL.4", "LL.5"]),
    st.booleans(),
    st.booleans(),
)
def test_any_numbers_give_an_answer(wells, model, robust, increasing):
    doses, responses = zip(*wells, strict=True) if wells else ((), ())
    fit = fit_curve(doses, responses, model=model, robust=robust, increasing=increasing)
    check_sane(fit, [x for x, y in wells if x > 0 and math.isfinite(y)])


def check_sane(fit: DoseResponseFit, dosed: list[float]) -> None:
    assert fit.reason
    for kind in ("rel", "abs"):
        low, ic50, high = (getattr(fit, f"ic50_{kind}{end}") for end in ("_lo", "", "_hi"))
        if ic50 is None:
            assert low is high is None
        else:
            assert fit.status in NUMBERED
            assert min(dosed) <= ic50 <= max(dosed)
            assert (low or 0) <= ic50 * (1 + 1e-9)
            assert ic50 <= (high or math.inf) * (1 + 1e-9)
    values = asdict(fit)
    numbers = [values[name] for name in (*IC50S, "hill", "top", "bottom", "auc", "e_max", "p_effect", "residual_sd")]
    assert all(value is None or math.isfinite(value) for value in [*numbers, *fit.parameters.values()])


# Beside the IC50


def test_figures_that_are_always_there():
    fit = fit_curve(WELLS, np.where(WELLS == 100, 40.0, exact(WELLS, e=1e9)), control=100.0)
    assert (fit.n, fit.e_max) == (32, pytest.approx(40.0))
    assert fit.top == pytest.approx(100, abs=2)
    flat = fit_curve(WELLS, exact(WELLS, e=1e9, noise=2.0))
    assert [flat.auc, flat.top, flat.bottom] == pytest.approx([100] * 3)
    assert (flat.hill, flat.ic50_rel) == (None, None)


def test_area_is_taken_over_the_doses_that_all_curves_have():
    narrow, wide = np.geomspace(0.1, 10, 8), np.geomspace(0.001, 1000, 8)
    curves = [Curve(str(i), np.r_[0, 0, x], exact(np.r_[0, 0, x], noise=0.1)) for i, x in enumerate((narrow, wide))]
    first, second = fit_many(curves)
    assert first.auc == pytest.approx(second.auc, abs=0.5)
    assert first.auc == pytest.approx(52.5, abs=1)  # symmetric about the middle of the plateaus
    assert fit_many(curves[1:])[0].auc == pytest.approx(52.5, abs=1)
    assert fit_many(curves, auc_range_um=(0.001, 0.01))[0].auc > 98


def test_band_holds_the_curve_and_most_true_responses():
    rng = np.random.default_rng(12)
    doses = np.geomspace(0.005, 200, 40)
    held = []
    for fit in fit_many([Curve("", WELLS, response(WELLS) + rng.normal(0, 5, len(WELLS))) for _ in range(60)]):
        low, high = band(fit, doses)
        assert (low < predict(fit, doses)).all()
        assert (predict(fit, doses) < high).all()
        held.append(((low <= response(doses)) & (response(doses) <= high)).mean())
    assert 0.88 < np.mean(held) < 0.99


def test_a_curve_without_effect_is_drawn_flat():
    fit = fit_curve(WELLS, exact(WELLS, e=1e9, noise=2.0))
    assert np.ptp(predict(fit, [0, *DOSES])) == 0
    low, high = band(fit, [0.0, 1.0])
    assert (high - low) == pytest.approx(np.full(2, 2 * stats.t.isf(0.025, 28) * 2.03 / math.sqrt(32)), rel=0.02)


def test_a_failed_curve_cannot_be_drawn():
    with pytest.raises(ConfigError, match="no curve was fitted"):
        predict(fit_curve([1, 2], [3, 4], name="x"), [1.0])


def test_missing_wells_and_outliers_are_told():
    y = exact(WELLS, noise=2.0)
    y[9], y[15] = math.nan, 220.0
    fit = fit_curve(WELLS, y)
    assert fit.n == 31
    assert any("1 of 32 observations are missing" in warning for warning in fit.warnings)
    assert any("outlier" in warning and "220" in warning for warning in fit.warnings)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"doses_um": [0, -1, 2], "responses": [1, 2, 3]}, "-1"),
        ({"doses_um": [0, math.inf, 2], "responses": [1, 2, 3]}, "inf"),
        ({"doses_um": [0, 1], "responses": [1, 2, 3]}, "2 doses, 3 responses"),
        ({"doses_um": [0, 1e-40, 2], "responses": [1, 2, 3]}, "1e-40"),
        ({"doses_um": [0, 1], "responses": [1e200, 2]}, "1e\\+200"),
        ({"doses_um": [0, 1], "responses": ["a", 2]}, "not all numbers"),
        ({"doses_um": [0, 1], "responses": [1, 2], "weights": [1, -1]}, "weight"),
        ({"doses_um": [0, 1], "responses": [1, 2], "control": 0.0}, "control"),
        ({"doses_um": [0, 1], "responses": [1, 2], "model": "LL.9"}, "LL.9"),
        ({"doses_um": [0, 1], "responses": [1, 2], "auc_range_um": (1, 0)}, "auc_range_um"),
        ({"doses_um": [0, 1], "responses": [1, 2], "bottom": 0.0, "top": 1.0}, "plateaus"),
    ],
)
def test_numbers_that_cannot_be_right_are_refused(arguments, words):
    with pytest.raises(ConfigError, match=words):
        fit_curve(**arguments, name="x")


@pytest.mark.parametrize("bottom", [0.0, 5.0])
def test_a_held_plateau_stays(bottom):
    fit = fit_curve(WELLS, exact(WELLS, c=5.0), model="LL.4", bottom=bottom)
    assert fit.bottom == bottom
    assert fit.covariance is not None
    assert set(standard_errors(fit)) == {"b", "d", "e"}
    assert fit.ic50_abs_lo < fit.ic50_abs < fit.ic50_abs_hi
