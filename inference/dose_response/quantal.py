"""Quantal dose response: so many of so many affected, by binomial likelihood (R drc's type = "binomial").

    p(x) = c + (d - c) / (1 + exp(b (ln x - ln e))), b below 0 where the affected share rises with the dose

LL.2 runs from 0 to 1, LL.3 has a free d, LL.4 a free c as well. The limits of the IC50s are of the profile likelihood
(deviance against chi-squared), the test is the likelihood ratio against one share at all doses, and the rules of
`status_rules` hold with 1 as the full scale. The absolute IC50 is the dose with half of the share d without compound
where the share falls, and with half of all affected where it rises.
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
from spheroidd.inference.dose_response.status import NO_IC50, failed, told
from spheroidd.inference.dose_response.status_rules import Doses, Effect, Interval, Verdict
from spheroidd.inference.dose_response.variable_projection import OUTSIDE, SLOPES
from spheroidd.protocols.dose import ALPHA, CurveStatus, DoseResponseFit
from spheroidd.protocols.errors import ConfigError

MODEL = "LL.2"
MODELS = {"LL.2": "be", "LL.3": "bde", "LL.4": "bcde"}  # and what each estimates
_RANGES = {
    "LL.2": "from 0 to 1",
    "LL.3": "with a lower plateau of 0",
    "LL.4": "with free plateaus",
}
LEVEL = 0.95
_LEAST = 1e-12  # of a probability, so that one affected control does not make everything impossible
_FAR = 30.0  # |logit| of a plateau that is 0 or 1
_QUICK = {"L-BFGS-B": {"maxiter": 50}, "Nelder-Mead": {"xatol": 1e-4, "fatol": 1e-5}}
_NEVER = 1e300  # the deviance of what cannot be
LACK_OF_FIT = 1e-3
_PLATEAUS: dict[str, list[tuple[float, ...]]] = {  # where the search begins: logits of d and c
    "LL.2": [()],
    "LL.3": [(3.0,), (0.0,)],
    "LL.4": [(3.0, -3.0), (0.4, -3.0), (3.0, -0.8), (0.4, -0.8)],
}
STARTS = 5  # of those looked at, the best


def fit_quantal(
    doses_um: ArrayLike,
    affected: ArrayLike,
    totals: ArrayLike,
    *,
    name: str = "",
    increasing: bool = True,
    model: str = MODEL,
    dose_unit: str | None = "uM",
) -> DoseResponseFit:
    """Fit the share affected, which rises with the dose (falls where not `increasing`).

    The three sequences have one entry a group. ConfigError for what are no counts, 0 <= affected <= total, and for a
    model that is not one of `MODELS`.

    >>> fit = fit_quantal([0, 1, 2, 4, 8], [0, 2, 7, 15, 19], [20] * 5)
    >>> fit.status.value, round(fit.ic50_rel, 2)
    ('ok', 2.53)
    """
    if model not in MODELS:
        do = f"choose one of {', '.join(MODELS)}, or leave --total out"
        raise ConfigError(f"there is no model {model!r} of shares", where=name, do=do)
    affected, totals = np.ravel(np.asarray(affected, float)), np.ravel(np.asarray(totals, float))
    where = f"curve {name!r}" if name else "the curve"
    if len(affected) != len(totals):
        what = f"{len(affected)} counts of affected and {len(totals)} totals"
        raise ConfigError(what, where=where, do="give one of each for every group")
    known = np.isfinite(affected) & np.isfinite(totals)
    counted = (affected == np.round(affected)) & (totals == np.round(totals))
    wrong = known & ~((affected >= 0) & (affected <= totals) & counted)
    if wrong.any():
        at = int(np.flatnonzero(wrong)[0])
        what = f"{affected[at]:g} of {totals[at]:g} affected"
        raise ConfigError(what, where=where, do="give counts, 0 to total; shares are fitted without --total")
    share = np.divide(affected, totals, out=np.full(len(totals), np.nan), where=known & (totals > 0))
    weights = np.where(known, totals, 0.0)
    observed = Observations.of(Curve(name, doses_um, share, weights, control=1.0, dose_unit=dose_unit))
    if len(observed.dosed_um) < 3:
        return failed(observed, f"{len(observed.dosed_um)} different doses above 0; {model} needs three")
    return _Quantal(observed, model, -1.0 if increasing else 1.0).said()


class _Quantal:
    """One curve's likelihood in (ln |b|, ln e, logit d, logit c), as many of them as the model estimates."""

    def __init__(self, observed: Observations, model: str, sign: float) -> None:
        self.observed, self.model, self.sign = observed, model, sign
        self.u = log_logistic.log_dose(observed.doses_um)
        self.low, self.high = (math.log(end) for end in observed.range_um)
        margin, free = math.log(OUTSIDE), len(MODELS[model]) - 2
        self.bounds = [tuple(np.log(SLOPES)), (self.low - margin, self.high + margin), *[(-_FAR, _FAR)] * free]
        self.q = self._best()

    def parameters(self, q: Floats) -> dict[str, float]:
        """R drc's."""
        d, c = ([float(1 / (1 + np.exp(-value))) for value in q[2:]] + [1.0, 0.0][len(q) - 2 :])[:2]
        return {"b": self.sign * math.exp(q[0]), "c": c, "d": d, "e": math.exp(q[1])}

    def deviance(self, parameters: dict[str, float]) -> float:
        """Twice the negative log likelihood."""
        return self._of_shares(log_logistic.value(parameters, self.observed.doses_um))

    def said(self) -> DoseResponseFit:
        """The fit by the rules."""
        observed, parameters = self.observed, self.parameters(self.q)
        doses, effect = Doses(*observed.range_um, observed.dose_unit), self._effect(parameters)
        verdict = self._other_way() or self._misfit() or curve_status.without_ic50(effect)
        if verdict is not None and verdict.status is CurveStatus.FAILED:
            return failed(observed, verdict.reason)
        ic50s: dict[str, float | None] = dict(NO_IC50)
        if verdict is None:
            half = log_logistic.log_dose_at(parameters, self._half(parameters))
            relative = self._interval(self.q[1], self._at_midpoint)
            absolute = None if half is None else self._interval(half, self._at_half)
            verdict = curve_status.together(relative, absolute, doses, effect)
            ic50s |= told("rel", relative, doses) | told("abs", absolute, doses)
        grid = np.geomspace(*observed.range_um, 200)
        return DoseResponseFit(
            name=observed.name,
            status=verdict.status,
            reason=verdict.reason,
            model=self.model,
            **ic50s,
            hill=abs(parameters["b"]),
            top=parameters["d"],
            bottom=parameters["c"],
            auc=float(log_logistic.value(parameters, grid).mean()),
            e_max=observed.mean_at(observed.range_um[1]),
            n=len(observed.doses_um),
            p_effect=effect.p_effect,
            parameters=parameters,
            covariance=self._covariance(parameters),
            warnings=self._warnings(),
            residual_df=None,  # a binomial likelihood has no residual variance
            dose_unit=observed.dose_unit,
        )

    def _of_shares(self, shares: Floats) -> float:
        shares, hit = shares.clip(_LEAST, 1 - _LEAST), self.observed.responses
        return float(-2 * (self.observed.weights * (hit * np.log(shares) + (1 - hit) * np.log(1 - shares))).sum())

    def _least(self) -> float:
        return self.deviance(self.parameters(self.q))

    def _by_dose(self) -> tuple[float, int]:
        """The deviance of a share of its own for every dose, and how many doses."""
        observed = self.observed
        doses, index = np.unique(observed.doses_um, return_inverse=True)
        shares = np.bincount(index, observed.weights * observed.responses) / np.bincount(index, observed.weights)
        return self._of_shares(shares[index]), len(doses)

    def _constant(self) -> float:
        observed = self.observed
        return self._of_shares(np.full(len(self.u), np.average(observed.responses, weights=observed.weights)))

    def _p(self) -> float:
        """Against one share at all doses; 1 where the model does worse than that."""
        return float(stats.chi2.sf(max(self._constant() - self._least(), 0.0), len(MODELS[self.model]) - 1))

    def _p_by_dose(self) -> float:
        """Of a share of its own for every dose against one at all of them."""
        free, count = self._by_dose()
        return float(stats.chi2.sf(self._constant() - free, count - 1))

    def _misfit(self) -> Verdict | None:
        """Where the shares differ between the doses and the model does no better than one share at all of them."""
        p = self._p_by_dose()
        if self._p() <= ALPHA or p > ALPHA:
            return None
        others = " or ".join(name for name in MODELS if len(MODELS[name]) > len(MODELS[self.model]))
        do = f"; fit {others}" if others else ""
        what = f"{self.model}, {_RANGES[self.model]}, does not fit"
        return Verdict(CurveStatus.FAILED, f"the shares differ between the doses (p = {p:.2g}), but {what}{do}")

    def _warnings(self) -> tuple[str, ...]:
        free, count = self._by_dose()
        spare = count - len(MODELS[self.model])
        p = float(stats.chi2.sf(self._least() - free, spare)) if spare > 0 else 1.0
        return (f"lack of fit: the shares lie off the curve (p = {p:.2g})",) if p < LACK_OF_FIT else ()

    def _other_way(self) -> Verdict | None:
        """Where the share runs against what was asked for."""
        other = _Quantal(self.observed, MODEL, -self.sign)
        mine = self if self.model == MODEL else _Quantal(self.observed, MODEL, self.sign)
        if mine._least() - other._least() < stats.chi2.isf(ALPHA, 1):
            return None
        way, do = ("rises", "with") if self.sign > 0 else ("falls", "without")
        return Verdict(CurveStatus.INACTIVE, f"the response {way} with the dose; fit it {do} `increasing`")

    def _best(self) -> Floats:
        middles = np.linspace(self.low, self.high, 5)
        starts = [
            np.array([math.log(b), t, *plateaus])
            for b in (0.7, 2.0, 6.0)
            for t in middles
            for plateaus in _PLATEAUS[self.model]
        ]

        def least(q: Floats) -> float:
            return self.deviance(self.parameters(q))

        starts.sort(key=least)
        found = [optimize.minimize(least, start, bounds=self.bounds, tol=1e-12) for start in starts[:STARTS]]
        best = min(found, key=lambda fit: float(fit.fun)).x
        close = {"xatol": 1e-8, "fatol": 1e-10, "maxiter": 4000, "maxfev": 4000}
        polished = optimize.minimize(least, best, method="Nelder-Mead", bounds=self.bounds, options=close)
        return np.asarray(polished.x)

    def _half(self, parameters: dict[str, float]) -> float:
        """The share of the absolute IC50."""
        return parameters["d"] / 2 if self.sign > 0 else 0.5

    def _at_midpoint(self, log_dose: float, rest: Floats) -> float:
        """The deviance with the relative IC50 held; `rest` is q without ln e."""
        return self.deviance(self.parameters(np.insert(rest, 1, log_dose)))

    def _at_half(self, log_dose: float, rest: Floats) -> float:
        """The same with the absolute one held."""
        parameters = self.parameters(np.insert(rest, 1, 0.0))
        span = parameters["d"] - parameters["c"]
        fraction = (self._half(parameters) - parameters["c"]) / span if span else 0.0
        if not 0 < fraction < 1:
            return _NEVER
        log_e = log_dose - math.log(1 / fraction - 1) / parameters["b"]
        return self.deviance(parameters | {"e": math.exp(min(max(log_e, -300.0), 300.0))})

    def _interval(self, estimate: float, held: Callable[[float, Floats], float]) -> Interval:
        low, high = (self._limit(estimate, side, held) for side in (-1, 1))
        return Interval(math.exp(estimate), low, high)

    def _limit(self, estimate: float, side: int, held: Callable[[float, Floats], float]) -> float | None:
        """Where the profile deviance passes its limit on one side; None where it does not."""
        limit = self._least() + float(stats.chi2.isf(1 - LEVEL, 1))
        end = (self.low if side < 0 else self.high) + side * math.log(OUTSIDE)
        if not min(self.low, end) <= estimate <= max(self.high, end):
            return None
        rest, bounds = np.delete(self.q, 1), [self.bounds[0], *self.bounds[2:]]

        def rise(log_dose: float) -> float:
            def least(at: Floats) -> float:
                return held(log_dose, np.asarray(at))

            if len(rest) == 1:
                found = optimize.minimize_scalar(lambda log_b: least(np.array([log_b])), bounds=bounds[0])
                return float(found.fun) - limit
            starts = [rest, *(np.concatenate(([log_b], rest[1:])) for log_b in (0.0, 1.5))]
            # From the best start with slopes, then without: at the edge of what can be there are none.
            start = min(starts, key=least)
            for method in ("L-BFGS-B", "Nelder-Mead"):
                start = optimize.minimize(least, start, method=method, bounds=bounds, options=_QUICK[method]).x
            return least(start) - limit

        return None if rise(end) < 0 else math.exp(optimize.brentq(rise, estimate, end, xtol=1e-4))

    def _effect(self, parameters: dict[str, float]) -> Effect:
        observed = self.observed
        mean = float(np.average(observed.responses, weights=observed.weights))
        p = self._p() if self._least() < self._constant() else self._p_by_dose()
        start, end = (float(log_logistic.value(parameters, dose)) for dose in (0.0, observed.range_um[1]))
        increasing = self.sign < 0
        full = 1.0 if increasing else parameters["d"]
        shares = observed.dose_means() / full
        return Effect(
            p_effect=p if 0 < mean < 1 else None,
            fitted_start=start,
            fitted_end=end,
            seen_end=float(observed.dose_means()[-1]),
            full_scale=full,
            control_known=True,
            kept=float((1 - shares if increasing else shares).max()),
            increasing=increasing,
            n=len(observed.doses_um),
        )

    def _covariance(self, parameters: dict[str, float]) -> tuple[tuple[float, ...], ...] | None:
        """The inverse of the observed information on what is estimated, as rows of (b, c, d, e)."""
        names = list(parameters)
        free = [names.index(name) for name in MODELS[self.model]]
        at = np.array(list(parameters.values()))
        step = np.diag(1e-4 * np.maximum(np.abs(at), 1e-6))[free]

        def half(point: Floats) -> float:
            return self.deviance(dict(zip(names, point, strict=True))) / 2

        information = np.array(
            [[half(at + i + j) - half(at + i - j) - half(at - i + j) + half(at - i - j) for j in step] for i in step]
        ) / (4 * np.outer(step.sum(axis=1), step.sum(axis=1)))
        if not np.isfinite(information).all() or np.linalg.cond(information) > 1e14:
            return None
        whole = np.zeros((4, 4))
        whole[np.ix_(free, free)] = np.linalg.inv(information)
        if (np.diag(whole)[free] <= 0).any():
            return None
        return tuple(tuple(float(value) for value in row) for row in whole)
