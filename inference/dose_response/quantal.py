"""Quantal dose response: so many of so many affected, by binomial likelihood (R drc's type = "binomial", LL.2).

    p(x) = 1 / (1 + exp(b (ln x - ln e))), b below 0 where the affected share rises with the dose

The limits of e are of the profile likelihood (deviance against chi-squared), the test is the likelihood ratio against
one share at all doses, and the rules of `curve_status` hold with 1 as the full scale.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, stats

from spheroidd.inference.dose_response import log_logistic
from spheroidd.inference.dose_response import status_rules as curve_status
from spheroidd.inference.dose_response.log_logistic import Floats
from spheroidd.inference.dose_response.observations import Curve, Observations
from spheroidd.inference.dose_response.status import failed
from spheroidd.inference.dose_response.status_rules import Effect, Interval, Verdict
from spheroidd.inference.dose_response.variable_projection import OUTSIDE, SLOPES
from spheroidd.protocols.dose import CurveStatus, DoseResponseFit
from spheroidd.protocols.errors import ConfigError

MODEL = "LL.2"
LEVEL = 0.95
_LEAST = 1e-12  # of a probability, so that one affected control does not make everything impossible


def fit_quantal(
    doses_um: ArrayLike, affected: ArrayLike, totals: ArrayLike, *, name: str = "", increasing: bool = True
) -> DoseResponseFit:
    """Fit the share affected, which runs from 0 to 1 (from 1 to 0 where not `increasing`).

    The three sequences have one entry a group. ConfigError for counts that are not 0 <= affected <= total.

    >>> fit = fit_quantal([0, 1, 2, 4, 8], [0, 2, 7, 15, 19], [20] * 5)
    >>> fit.status.value, round(fit.ic50_rel, 2)
    ('ok', 2.53)
    """
    affected, totals = np.ravel(np.asarray(affected, float)), np.ravel(np.asarray(totals, float))
    where = f"curve {name!r}" if name else "the curve"
    if len(affected) != len(totals):
        what = f"{len(affected)} counts of affected and {len(totals)} totals"
        raise ConfigError(what, where=where, do="give one of each for every group")
    known = np.isfinite(affected) & np.isfinite(totals)
    wrong = known & ((affected < 0) | (affected > totals))
    if wrong.any():
        at = int(np.flatnonzero(wrong)[0])
        raise ConfigError(f"{affected[at]:g} of {totals[at]:g} affected", where=where, do="give 0 to total")
    share = np.divide(affected, totals, out=np.full(len(totals), np.nan), where=known & (totals > 0))
    observed = Observations.of(Curve(name, doses_um, share, np.where(known, totals, 0.0), control=1.0))
    failure = _why_not(observed)
    return failed(observed, failure) if failure else _Quantal(observed, -1.0 if increasing else 1.0).said()


class _Quantal:
    """One curve's likelihood in (ln |b|, ln e)."""

    def __init__(self, observed: Observations, sign: float, check_other_way: bool = True) -> None:
        self.observed, self.sign, self.check_other_way = observed, sign, check_other_way
        self.u = log_logistic.log_dose(observed.doses_um)
        self.low, self.high = (math.log(end) for end in observed.range_um)
        self.q = self._best()

    def deviance(self, q: Floats) -> float:
        """Twice the negative log likelihood."""
        z = self.sign * math.exp(q[0]) * (self.u - q[1])
        share = (1 / (1 + np.exp(z.clip(-700, 700)))).clip(_LEAST, 1 - _LEAST)
        hit = self.observed.responses
        return float(-2 * (self.observed.weights * (hit * np.log(share) + (1 - hit) * np.log(1 - share))).sum())

    def said(self) -> DoseResponseFit:
        """The fit by the rules."""
        parameters = {"b": self.sign * math.exp(self.q[0]), "c": 0.0, "d": 1.0, "e": math.exp(self.q[1])}
        effect = self._effect(parameters)
        verdict = self._other_way() or curve_status.without_ic50(effect)
        numbers: tuple[float | None, float | None, float | None] = (None, None, None)
        if verdict is None:
            low, high = (self._limit(side) for side in (-1, 1))
            place = curve_status.place(Interval(parameters["e"], low, high), *self.observed.range_um)
            verdict = curve_status.together(place, place, effect.increasing)
            numbers = (parameters["e"], low, high) if place.status in curve_status.NUMBERED else numbers
        grid = np.geomspace(*self.observed.range_um, 200)
        return DoseResponseFit(
            self.observed.name,
            verdict.status,
            verdict.reason,
            MODEL,
            *numbers,
            *numbers,
            hill=abs(parameters["b"]),
            top=1.0,
            bottom=0.0,
            auc=float(log_logistic.value(parameters, grid).mean()),
            e_max=self.observed.mean_at(self.observed.range_um[1]),
            n=len(self.observed.doses_um),
            p_effect=effect.p_effect,
            parameters=parameters,
            covariance=self._covariance(parameters),
        )

    def _other_way(self) -> Verdict | None:
        """Where the share runs against what was asked for."""
        if not self.check_other_way:
            return None
        other = _Quantal(self.observed, -self.sign, check_other_way=False)
        if self.deviance(self.q) - other.deviance(other.q) < stats.chi2.isf(curve_status.ALPHA, 1):
            return None
        way, do = ("rises", "with") if self.sign > 0 else ("falls", "without")
        return Verdict(CurveStatus.INACTIVE, f"the response {way} with the dose; fit it {do} `increasing`")

    def _best(self) -> Floats:
        starts = [(math.log(b), t) for b in (0.7, 2.0, 6.0) for t in np.linspace(self.low, self.high, 5)]
        margin = math.log(OUTSIDE)
        bounds = [tuple(np.log(SLOPES)), (self.low - margin, self.high + margin)]
        found = [optimize.minimize(self.deviance, start, bounds=bounds, tol=1e-12) for start in starts]
        best = min(found, key=lambda fit: float(fit.fun)).x
        return np.asarray(optimize.minimize(self.deviance, best, method="Nelder-Mead", tol=1e-10, bounds=bounds).x)

    def _limit(self, side: int) -> float | None:
        """Where the profile deviance passes its limit on one side; None where it does not."""
        limit = self.deviance(self.q) + float(stats.chi2.isf(1 - LEVEL, 1))
        end = (self.low if side < 0 else self.high) + side * math.log(OUTSIDE)
        rise: Callable[[float], float] = lambda t: self._profile(t) - limit  # noqa: E731
        return None if rise(end) < 0 else math.exp(optimize.brentq(rise, self.q[1], end, xtol=1e-6))

    def _profile(self, log_dose: float) -> float:
        found = optimize.minimize_scalar(
            lambda log_b: self.deviance(np.array((log_b, log_dose))), bounds=tuple(np.log(SLOPES)), method="bounded"
        )
        return float(found.fun)

    def _effect(self, parameters: dict[str, float]) -> Effect:
        observed = self.observed
        mean = float(np.average(observed.responses, weights=observed.weights))
        constant = (mean * (1 - mean)) > 0
        gain = 0.0
        if constant:
            total = float(observed.weights.sum())
            flat = -2 * total * (mean * math.log(mean) + (1 - mean) * math.log(1 - mean))
            gain = flat - self.deviance(self.q)
        start, end = (float(log_logistic.value(parameters, dose)) for dose in (0.0, observed.range_um[1]))
        shares = observed.dose_means()
        increasing = self.sign < 0
        return Effect(
            p_effect=float(stats.chi2.sf(max(gain, 0.0), 1)) if constant else None,
            fitted_start=start,
            fitted_end=end,
            full_scale=1.0,
            control_known=True,
            kept=float((1 - shares if increasing else shares).max()),
            increasing=increasing,
        )

    def _covariance(self, parameters: dict[str, float]) -> tuple[tuple[float, ...], ...] | None:
        """The inverse of the information on (b, e), as rows of (b, c, d, e)."""
        share = log_logistic.value(parameters, self.observed.doses_um)
        slopes = log_logistic.jacobian(parameters, self.observed.doses_um)[:, [0, 3]]
        variance = (share * (1 - share)).clip(_LEAST)
        information = (slopes * (self.observed.weights / variance)[:, None]).T @ slopes
        if not np.isfinite(information).all() or np.linalg.cond(information) > 1e14:
            return None
        whole = np.zeros((4, 4))
        whole[np.ix_([0, 3], [0, 3])] = np.linalg.inv(information)
        return tuple(tuple(float(value) for value in row) for row in whole)


def _why_not(observed: Observations) -> str | None:
    if len(observed.dosed_um) < 3:
        return f"{len(observed.dosed_um)} different doses above 0; {MODEL} needs three"
    return None
