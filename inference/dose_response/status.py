"""From a batch of fits to what is said of each curve: status, IC50s with limits, area, warnings."""

import math
from typing import NamedTuple

import numpy as np
from scipy import stats

from spheroidd.inference.dose_response import log_logistic
from spheroidd.inference.dose_response import status_rules as curve_status
from spheroidd.inference.dose_response.batch_fit import Covariance, CurveBatch
from spheroidd.inference.dose_response.hormesis import find_hump
from spheroidd.inference.dose_response.log_logistic import Floats
from spheroidd.inference.dose_response.observations import Observations
from spheroidd.inference.dose_response.profile_likelihood import Limits, crossing_limits, midpoint_limits
from spheroidd.inference.dose_response.status_rules import Doses, Effect, Interval, Verdict
from spheroidd.inference.dose_response.variable_projection import SLOPES
from spheroidd.protocols.dose import ALPHA, CurveStatus, DoseResponseFit
from spheroidd.protocols.phrase import phrase

LEVEL = 0.95
OUTLIER = 3.5  # robust standard deviations
LACK_OF_FIT = 1e-3
AREA_POINTS = 201
HUMP_GATE = 0.05  # of the full scale; no search for hormesis where no dose lies as high above the untreated response


class _Level(NamedTuple):
    """The response of the absolute IC50, offset + share * d, and ln of the dose of the fit there (NaN: none); (C,)."""

    offset: Floats
    share: Floats
    estimate: Floats


def failed(each: Observations, reason: str) -> DoseResponseFit:
    """What can be said without a fit."""
    return DoseResponseFit(
        name=each.name,
        status=CurveStatus.FAILED,
        reason=reason,
        model="",
        **NO_IC50,
        hill=None,
        top=None,
        bottom=None,
        auc=None,
        e_max=each.mean_at(float(each.doses_um.max())) if len(each.doses_um) else None,
        n=len(each.doses_um),
        p_effect=None,
        parameters={},
        warnings=_missing(each),
        dose_unit=each.dose_unit,
    )


def classify_curves(batch: CurveBatch, area_um: tuple[float, float] | None) -> list[DoseResponseFit]:
    """Say of every curve of the batch what can be said; `area_um` is the dose range of the areas, None each one's."""
    effects = [_effect(batch, i) for i in range(len(batch.observations))]
    verdicts = [curve_status.without_ic50(effect) for effect in effects]
    level = _level(batch)
    open_ones = np.array([verdict is None for verdict in verdicts])
    relative, absolute = _relative(batch, open_ones, effects), _absolute(batch, open_ones, effects, level)
    return [
        _said(batch, i, effects[i], verdict, relative[i], absolute[i], area_um) for i, verdict in enumerate(verdicts)
    ]


NO_IC50: dict[str, None] = dict.fromkeys(f"ic50_{kind}{end}" for kind in ("rel", "abs") for end in ("", "_lo", "_hi"))


def _effect(batch: CurveBatch, i: int) -> Effect:
    each, parameters = batch.observations[i], batch.parameters(i)
    increasing = batch.model.increasing
    untreated = each.mean_at(0.0)
    start = parameters["c" if increasing else "d"] if untreated is not None else _at(parameters, each.range_um[0])
    end = _at(parameters, each.range_um[1])
    control = each.control if increasing or each.control is not None else untreated
    known = control is not None and control > 0
    with np.errstate(over="ignore"):  # beside a control of next to nothing
        shares = each.dose_means() / control if known and control is not None else np.ones(1)
    return Effect(
        p_effect=batch.p_effect(i),
        fitted_start=start,
        fitted_end=end,
        seen_end=float(each.dose_means()[-1]),
        full_scale=each.control or max(start, end),
        control_known=known,
        kept=float((1 - shares if increasing else shares).max()),
        increasing=increasing,
        n=len(each.doses_um),
        half_gone=known and untreated is None and bool((shares[0] >= 0.5) if increasing else (shares[0] <= 0.5)),
    )


def _at(parameters: dict[str, float], dose_um: float) -> float:
    return float(log_logistic.value(parameters, dose_um))


def _level(batch: CurveBatch) -> _Level:
    count = len(batch.observations)
    offset, share, estimate = np.zeros(count), np.zeros(count), np.full(count, np.nan)
    for i, each in enumerate(batch.observations):
        parameters = batch.parameters(i)
        if each.control is not None:
            offset[i] = each.control / 2
        elif batch.model.bottom:  # half of d cannot be held beside a lower plateau that is held above 0
            offset[i] = parameters["d"] / 2
        else:
            share[i] = 0.5
        found = log_logistic.log_dose_at(parameters, offset[i] + share[i] * parameters["d"])
        estimate[i] = math.nan if found is None else found
    return _Level(offset, share, estimate)


def _relative(batch: CurveBatch, open_ones: np.ndarray, effects: list[Effect]) -> list[Interval]:
    estimate = batch.best.q[:, 1]
    inside = open_ones & ~batch.runaway & (estimate >= batch.points.low) & (estimate <= batch.points.high)
    strict = np.array([curve_status.strict_level(effect, relative=True) for effect in effects])
    asked = inside & (strict > 0)
    limits = _midpoint_limits(batch, inside, np.full(len(effects), LEVEL))
    intervals = _intervals(batch, estimate, limits, asked, _midpoint_limits(batch, asked, strict))
    return [_of_a_runaway(batch, i, interval) if batch.runaway[i] else interval for i, interval in enumerate(intervals)]


def _of_a_runaway(batch: CurveBatch, i: int, interval: Interval) -> Interval:
    """Without a limit on the side of the plateau that is not known, and none the other way that could be missed."""
    lowest, highest = (math.exp(end[i]) for end in (batch.points.low, batch.points.high))
    upper, lower = batch.at_the_box(i)
    start, end = (lower, upper) if batch.model.increasing else (upper, lower)
    inside = min(max(interval.estimate, lowest), highest)
    either = start or end
    return Interval(inside, lowest if either and not start else None, highest if either and not end else None)


def _absolute(batch: CurveBatch, open_ones: np.ndarray, effects: list[Effect], level: _Level) -> list[Interval | None]:
    inside = open_ones & (level.estimate >= batch.points.low) & (level.estimate <= batch.points.high)
    strict = np.array([curve_status.strict_level(effect, relative=False) for effect in effects])
    asked = inside & (strict > 0)
    limits = _crossing_limits(batch, inside, np.full(len(effects), LEVEL), level)
    stricter = _crossing_limits(batch, asked, strict, level)
    # Half of the control is not passed where the estimate is NaN.
    known = np.isfinite(level.estimate)
    intervals = _intervals(batch, np.where(known, level.estimate, 0.0), limits, asked, stricter)
    return [interval if there else None for interval, there in zip(intervals, known, strict=True)]


def _midpoint_limits(batch: CurveBatch, chosen: np.ndarray, confidence: Floats) -> Limits:
    which = np.flatnonzero(chosen)
    return midpoint_limits(batch.model, batch.points, batch.best, batch.threshold(confidence), which)


def _crossing_limits(batch: CurveBatch, chosen: np.ndarray, confidence: Floats, level: _Level) -> Limits:
    # Half of the upper plateau over a lower one of 0 is halfway between the plateaus.
    same = chosen & (level.share > 0) & (batch.model.bottom is not None)
    halfway = _midpoint_limits(batch, same, confidence)
    passing = crossing_limits(
        batch.model,
        batch.points,
        batch.best,
        batch.threshold(confidence),
        np.flatnonzero(chosen & ~same),
        estimate=level.estimate,
        offset=level.offset,
        share=level.share,
    )
    return Limits(np.where(same, halfway.low, passing.low), np.where(same, halfway.high, passing.high))


def _intervals(
    batch: CurveBatch, estimate: Floats, limits: Limits, asked: np.ndarray, stricter: Limits
) -> list[Interval]:
    """With `stricter` limits where they were `asked` for: one that does not close (NaN) is not within the doses."""
    sure_low = ~asked | (stricter.low >= batch.points.low)
    sure_high = ~asked | (stricter.high <= batch.points.high)
    return [
        Interval(
            math.exp(estimate[i]), _dose(limits.low[i]), _dose(limits.high[i]), bool(sure_low[i]), bool(sure_high[i])
        )
        for i in range(len(estimate))
    ]


def _dose(log_dose: float) -> float | None:
    return None if math.isnan(log_dose) else math.exp(log_dose)


def _said(
    batch: CurveBatch,
    i: int,
    effect: Effect,
    verdict: Verdict | None,
    relative: Interval,
    absolute: Interval | None,
    area_um: tuple[float, float] | None,
) -> DoseResponseFit:
    each = batch.observations[i]
    numbers: dict[str, float | None] = dict(NO_IC50)
    if verdict is None:
        doses = Doses(*each.range_um, each.dose_unit)
        verdict = curve_status.together(relative, absolute, doses, effect)
        for kind, ic50 in (("rel", relative), ("abs", absolute)):
            numbers |= told(kind, ic50, doses)
    is_curve = effect.p_effect is not None and effect.p_effect <= ALPHA
    parameters, covariance = _to_draw(batch, i, is_curve)
    warnings = _missing(each) + (_warnings(batch, i, effect) if is_curve else ())
    return DoseResponseFit(
        name=each.name,
        status=verdict.status,
        reason=phrase("and-hormesis", what=verdict.reason) if "hormesis" in " ".join(warnings) else verdict.reason,
        model=batch.model.name,
        **numbers,
        hill=abs(parameters["b"]) if is_curve else None,
        top=parameters["d"],
        bottom=parameters["c"],
        auc=_area(parameters, area_um or each.range_um),
        e_max=each.mean_at(each.range_um[1]),
        n=len(each.doses_um),
        p_effect=effect.p_effect,
        parameters=parameters,
        covariance=covariance,
        residual_sd=math.sqrt(batch.variance[i]),
        warnings=warnings,
        residual_df=int(batch.df[i]),
        dose_unit=each.dose_unit,
    )


def told(kind: str, ic50: Interval | None, doses: Doses) -> dict[str, float | None]:
    """An IC50 ("rel" or "abs") and its limits by the names of `DoseResponseFit`; empty where it may not be told."""
    if ic50 is None or curve_status.place(ic50, doses).status not in curve_status.NUMBERED:
        return {}
    return {f"ic50_{kind}": ic50.estimate, f"ic50_{kind}_lo": ic50.low, f"ic50_{kind}_hi": ic50.high}


def _to_draw(batch: CurveBatch, i: int, is_curve: bool) -> tuple[dict[str, float], Covariance | None]:
    """The curve's parameters, or, where the F-test finds no effect, those of a constant: both plateaus the mean."""
    if is_curve:
        return batch.parameters(i), batch.covariance(i)
    mean, variance = batch.mean_and_variance(i)
    middle = math.sqrt(math.prod(batch.observations[i].range_um))
    parameters = {"b": batch.model.sign, "c": mean, "d": mean, "e": middle}
    parameters |= {"f": 1.0} if batch.model.asymmetric else {}
    plateaus = [variance * (name in "cd") for name in parameters]
    rows = (tuple(there * (name in "cd") for there in plateaus) for name in parameters)
    return parameters, tuple(rows)


def _area(parameters: dict[str, float], range_um: tuple[float, float]) -> float:
    """The mean response over ln dose between two doses."""
    return float(np.mean(_midpoints(log_logistic.value(parameters, np.geomspace(*range_um, AREA_POINTS)))))


def _midpoints(values: Floats) -> Floats:
    return (values[1:] + values[:-1]) / 2


def _missing(each: Observations) -> tuple[str, ...]:
    total = each.missing + len(each.doses_um)
    return (phrase("observations-missing", n=str(each.missing), total=str(total)),) if each.missing else ()


def _warnings(batch: CurveBatch, i: int, effect: Effect) -> tuple[str, ...]:
    found = (
        _slope_warning(batch, i),
        _plateau_warning(batch, i),
        _hump_warning(batch, i, effect),
        _fit_warning(batch, i),
        _outliers(batch, i),
    )
    return tuple(warning for warning in found if warning)


def _plateau_warning(batch: CurveBatch, i: int) -> str | None:
    """That a plateau lies further outside of the data than they span, or would if it were let."""
    upper, lower = batch.at_the_box(i)
    if not (upper or lower):
        return None
    at_lower, at_upper = (f"{value:.4g}" for value in batch.ends(i))
    how = "held" if batch.runaway[i] else "far"
    if upper and lower:
        return phrase(f"plateaus-{how}", upper=at_upper, lower=at_lower)
    return phrase(f"plateau-{'upper' if upper else 'lower'}-{how}", value=at_upper if upper else at_lower)


def _slope_warning(batch: CurveBatch, i: int) -> str | None:
    slope = math.exp(batch.best.q[i, 0])
    if slope > 0.99 * SLOPES[1]:
        return phrase("slope-steep")
    return phrase("slope-shallow") if slope < 1.01 * SLOPES[0] else None


def _hump_warning(batch: CurveBatch, i: int, effect: Effect) -> str | None:
    model, sign = batch.model, -1.0 if batch.model.increasing else 1.0
    doses, weights, means = batch.columns(i)
    above = sign * (means - effect.fitted_start)
    noise = np.sqrt(batch.variance[i] / weights)
    if effect.full_scale <= 0 or not ((above > HUMP_GATE * effect.full_scale) & (above > noise))[doses > 0].any():
        return None
    held = model.top if model.increasing else model.bottom
    hump = find_hump(
        doses,
        weights,
        sign * means,
        rss=float(batch.best.rss[i]),
        scatter=float(batch.points.scatter[i]),
        df=int(batch.df[i]),
        full_scale=effect.full_scale,
        bottom=None if held is None else sign * held,
    )
    if hump is None:
        return None
    return phrase(
        "hormesis-below" if model.increasing else "hormesis-above",
        percent=f"{100 * hump.height / effect.full_scale:.0f}",
        dose=_said_dose(batch, i, hump.dose),
        p=f"{hump.p:.2g}",
    )


def _said_dose(batch: CurveBatch, i: int, dose: float) -> str:
    return Doses(*batch.observations[i].range_um, batch.observations[i].dose_unit).said(dose)


def _fit_warning(batch: CurveBatch, i: int) -> str | None:
    """The F-test for lack of fit against the replicates' own scatter."""
    scatter = float(batch.points.scatter[i])
    columns = int((batch.points.root_weight[i] > 0).sum())
    spare, replicates = columns - len(batch.model.free), len(batch.observations[i].doses_um) - columns
    if spare < 1 or replicates < 1 or scatter <= 0:
        return None
    f = max(float(batch.best.rss[i]) - scatter, 0) / spare / (scatter / replicates)
    p = float(stats.f.sf(f, spare, replicates))
    return phrase("lack-of-fit", p=f"{p:.2g}") if p < LACK_OF_FIT else None


def _outliers(batch: CurveBatch, i: int) -> str | None:
    each, residuals = batch.observations[i], batch.residuals(i)
    size = np.abs(residuals) * np.sqrt(each.weights)
    spare = math.sqrt(len(size) / (len(size) - len(batch.model.free)))
    limit = OUTLIER * 1.4826 * float(np.median(size)) * spare
    far = np.flatnonzero(size > limit) if limit > 0 else ()
    if not len(far):
        return None
    worst = far[size[far].argmax()]
    where = {"value": f"{each.responses[worst]:.4g}", "dose": _said_dose(batch, i, each.doses_um[worst])}
    return phrase("outlier-kept", **where) if len(far) == 1 else phrase("outliers-kept", n=str(len(far)), **where)
