"""The best fit of many curves of one model at once, robust where asked, with what the tests and intervals need."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from spheroidd.inference.dose_response import log_logistic
from spheroidd.inference.dose_response.log_logistic import Floats, LogLogistic
from spheroidd.inference.dose_response.observations import Observations
from spheroidd.inference.dose_response.variable_projection import Box, Descent, Points, Until, descend

SLOPE_STARTS = (0.4, 1.0, 2.0, 5.0, 12.0)
ASYMMETRY_STARTS = (0.3, 1.0, 3.0)
MIDPOINT_STARTS = 14  # over the doses and a little beyond
DESCENTS = 5  # of the starts, the best at different midpoints
PATIENCE = Until(iterations=400)  # along a curved valley a step gains little, and yet the minimum is far
HUBER = 1.345  # 95 % as efficient as least squares on normal noise
ROUNDS = 40  # of reweighting
LEAST_LIMIT = 1e-3  # of the largest residual, where more than half of the points lie on the curve

Covariance = tuple[tuple[float, ...], ...]


@dataclass(slots=True)
class CurveBatch:
    """C fitted curves. `variance` and `df` (C,) are the residuals' and may be replaced by pooled ones.

    `runaway` (C,) are those whose least squares want a plateau further outside of the data than the data's own span:
    their `best` is the least within it (`Points.least`, `Points.most`), and the relative IC50 of such a fit is no fact.
    """

    model: LogLogistic
    observations: Sequence[Observations]
    weights: list[Floats]  # of every observation, after the robust loss
    points: Points
    best: Descent
    variance: Floats
    df: Floats
    constant_rss: Floats
    runaway: np.ndarray

    @classmethod
    def fitted(cls, model: LogLogistic, observations: Sequence[Observations], *, robust: bool) -> "CurveBatch":
        """Fit every curve from several starts."""
        weights = [each.weights for each in observations]
        points = gather(observations, weights)
        best = _best_of_starts(model, points)
        if robust:
            weights, points, best = _reweighted(model, observations, best)
        best, runaway = _within_the_box(model, points, best)
        df = np.array([float(len(each.doses_um) - len(model.free)) for each in observations])
        scale = [float(np.ptp(each.responses)) for each in observations]
        found = cls(model, observations, weights, points, best, best.rss / df, df, np.zeros(len(df)), runaway)
        if robust:
            found.variance = np.array([found._huber_variance(i) for i in range(len(df))])
        found.variance = np.maximum(found.variance, (1e-8 * np.array(scale)) ** 2)
        found.constant_rss = np.array([found._constant_rss(i) for i in range(len(df))])
        return found

    def parameters(self, i: int) -> dict[str, float]:
        """R drc's parameters of a curve."""
        best = self.best
        return log_logistic.natural(self.model, best.q[i], float(best.c[i]), float(best.d[i]))

    def ends(self, i: int) -> tuple[float, float]:
        """The lower and the upper plateau of a curve."""
        c, d = float(self.best.c[i]), float(self.best.d[i])
        return min(c, d), max(c, d)

    def at_the_box(self, i: int) -> tuple[bool, bool]:
        """Whether the upper and the lower plateau lie as far outside of the data as these span, or further."""
        lower, upper = self.ends(i)
        least, most = self.points.least[i], self.points.most[i]
        near = 1e-6 * (most - least)
        return bool(upper >= most - near), bool(lower <= least + near)

    def residuals(self, i: int) -> Floats:
        """Of every observation of a curve, in the unit of the data."""
        each = self.observations[i]
        return each.responses - log_logistic.value(self.parameters(i), each.doses_um)

    def p_effect(self, i: int) -> float | None:
        """The F-test against no effect of the dose; None where all responses are the same."""
        spread = self.constant_rss[i]
        if spread <= 1e-20 * float((self.weights[i] * self.observations[i].responses ** 2).sum()):
            return None
        extra = len(self.model.free) - (0 if self._start_held() is not None else 1)
        f = max(spread - self.best.rss[i], 0.0) / extra / self.variance[i]
        return float(stats.f.sf(f, extra, self.df[i]))

    def threshold(self, level: float | Floats) -> Floats:
        """The sum of squares (C,) below which a held value belongs to the profile interval."""
        return np.asarray(self.best.rss + self.variance * stats.f.isf(1 - level, 1, self.df))

    def mean_and_variance(self, i: int) -> tuple[float, float]:
        """The constant model: the curve's mean response, and the variance of that mean."""
        held = self._start_held()
        if held is not None:
            return held, 0.0
        each, weights = self.observations[i], self.weights[i]
        n = len(weights)
        return float(np.average(each.responses, weights=weights)), float(
            self.constant_rss[i] / max(n - 1, 1) / weights.sum()
        )

    def covariance(self, i: int) -> Covariance | None:
        """Of `parameters`, in their order, from the curvature of the sum of squares as R drc has it.

        Rows of held parameters are 0. None where the data do not determine the parameters.
        """
        parameters = self.parameters(i)
        names, unit = list(parameters), parameters["e"]
        free = [names.index(name) for name in self.model.free]
        doses, weights, responses = self.columns(i)
        doses, parameters = doses / unit, parameters | {"e": 1.0}  # in units of e, whatever the doses' own

        def gradient(at: Floats) -> Floats:
            here = dict(zip(names, at, strict=True))
            slopes = log_logistic.jacobian(here, doses)[:, : len(names)]
            return np.asarray(((log_logistic.value(here, doses) - responses) * weights) @ slopes)[free]

        at = np.array([parameters[name] for name in names])
        slopes = log_logistic.jacobian(parameters, doses)[:, free]
        flat = _inverse((slopes * weights[:, None]).T @ slopes)
        if flat is None:
            return None
        # The steps are in proportion to the standard errors and small enough to keep every parameter's sign.
        sizes = np.minimum(1e-3 * np.sqrt(np.diag(flat) * self.variance[i]), 0.01 * np.abs(at[free]) + 1e-9)
        sizes = np.maximum(sizes, 1e-7 * np.abs(at[free]) + 1e-12)
        curvature = np.empty_like(flat)
        for row, (index, size) in enumerate(zip(free, sizes, strict=True)):
            step = np.zeros(len(at))
            step[index] = size
            curvature[row] = (gradient(at + step) - gradient(at - step)) / (2 * size)
        inverse = _inverse((curvature + curvature.T) / 2)
        whole = np.zeros((len(names), len(names)))
        whole[np.ix_(free, free)] = self.variance[i] * (flat if inverse is None else inverse)
        e = names.index("e")
        whole[e] *= unit
        whole[:, e] *= unit
        return tuple(tuple(float(value) for value in row) for row in whole)

    def columns(self, i: int) -> tuple[Floats, Floats, Floats]:
        """The different doses of a curve, their weights and mean responses, all (D,)."""
        weights = self.points.root_weight[i] ** 2
        used = weights > 0
        u = self.points.log_dose[i, used]
        doses = np.where(u > log_logistic.LOG_OF_ZERO, np.exp(u.clip(-700)), 0.0)
        return doses, weights[used], self.points.response[i, used]

    def _start_held(self) -> float | None:
        """The response without compound, where the model holds it."""
        return self.model.bottom if self.model.increasing else self.model.top

    def _constant_rss(self, i: int) -> float:
        responses, weights = self.observations[i].responses, self.weights[i]
        held = self._start_held()
        mean = np.average(responses, weights=weights) if held is None else held
        return float((weights * (responses - mean) ** 2).sum())

    def _huber_variance(self, i: int) -> float:
        """What the residual variance must be for the frozen weights to give Huber's asymptotic covariance (1973)."""
        prior, weights = self.observations[i].weights, self.weights[i]
        score = self.residuals(i) * weights / np.sqrt(prior)
        untouched = float((weights >= prior).mean())
        share = float((weights / prior).mean())
        return share * float((score**2).sum()) / float(self.df[i]) / max(untouched, 0.5) ** 2


def gather(observations: Sequence[Observations], weights: Sequence[Floats]) -> Points:
    """Replicates to means: one row a curve, padded with columns of weight 0."""
    columns = max(len(np.unique(each.doses_um)) for each in observations)
    log_dose, root_weight, response = (np.zeros((len(observations), columns)) for _ in range(3))
    scatter = np.zeros(len(observations))
    for i, (each, weight) in enumerate(zip(observations, weights, strict=True)):
        doses, index = np.unique(each.doses_um, return_inverse=True)
        total = np.bincount(index, weight)
        mean = np.bincount(index, weight * each.responses) / total
        scatter[i] = float((weight * (each.responses - mean[index]) ** 2).sum())
        log_dose[i, : len(doses)] = log_logistic.log_dose(doses)
        root_weight[i, : len(doses)], response[i, : len(doses)] = np.sqrt(total), mean
    low, high = np.log(np.array([each.range_um for each in observations])).T
    used = root_weight > 0
    lowest, highest = np.where(used, response, np.inf).min(axis=1), np.where(used, response, -np.inf).max(axis=1)
    span = highest - lowest
    return Points(log_dose, root_weight, response, scatter, low, high, lowest - span, highest + span)


def _within_the_box(model: LogLogistic, points: Points, best: Descent) -> tuple[Descent, np.ndarray]:
    """The best fits, those with a runaway plateau done again within the points' box, and which those are."""
    if model.holds_a_plateau:
        return best, np.zeros(len(best.rss), bool)
    runaway = Box(points.least, points.most).outside(best.c, best.d)
    if runaway.any():
        which = np.flatnonzero(runaway)
        for whole, found in zip(best, _best_of_starts(model, points, which, boxed=True), strict=True):
            whole[which] = found
    return best, runaway


def _best_of_starts(
    model: LogLogistic, points: Points, chosen: np.ndarray | None = None, *, boxed: bool = False
) -> Descent:
    """Look at a grid of shapes, descend from the best ones at different midpoints and of every slope, keep the deepest.

    For the curves `chosen` (C,), or all of them.
    """
    chosen = np.arange(len(points.scatter)) if chosen is None else chosen
    count = len(chosen)
    shares = np.linspace(-0.15, 1.15, MIDPOINT_STARTS)
    asymmetries = ASYMMETRY_STARTS if model.asymmetric else (1.0,)
    others = np.array([(np.log(b), np.log(f)) for b in SLOPE_STARTS for f in asymmetries])
    low, high = points.low[chosen], points.high[chosen]
    midpoints = low[:, None] + shares * (high - low)[:, None]
    grid = np.empty((count, len(shares), len(others), 3))
    grid[..., 1] = midpoints[:, :, None]
    grid[..., 0], grid[..., 2] = others[:, 0], others[:, 1]
    which = np.repeat(chosen, len(shares) * len(others))
    looked = descend(model, points, which, grid.reshape(-1, 3), boxed=boxed, until=Until(iterations=0)).rss
    looked = looked.reshape(grid.shape[:3])
    best_other = looked.argmin(axis=2)
    rss = np.take_along_axis(looked, best_other[..., None], axis=2)[..., 0]
    first = np.argsort(rss, axis=1)[:, :DESCENTS]
    rows = np.arange(count)[:, None]
    best_middle = looked.argmin(axis=1)
    by_slope = np.take_along_axis(looked, best_middle[:, None], axis=1)[:, 0].reshape(count, len(SLOPE_STARTS), -1)
    other = by_slope.argmin(axis=2) + np.arange(len(SLOPE_STARTS)) * by_slope.shape[2]
    starts = (grid[rows, first, best_other[rows, first]], grid[rows, best_middle[rows, other], other])
    many = DESCENTS + len(SLOPE_STARTS)
    q = np.concatenate(starts, axis=1).reshape(-1, 3)
    found = descend(model, points, np.repeat(chosen, many), q, boxed=boxed)
    deepest = found.rss.reshape(count, many).argmin(axis=1) + many * np.arange(count)
    return descend(model, points, chosen, found.q[deepest], boxed=boxed, until=PATIENCE)


def _reweighted(
    model: LogLogistic, observations: Sequence[Observations], best: Descent
) -> tuple[list[Floats], Points, Descent]:
    """Huber's loss by reweighting, its scale the median absolute residual of each round."""
    which = np.arange(len(observations))
    weights = [each.weights for each in observations]
    for _ in range(ROUNDS):
        fresh = [_huber_weights(model, each, best, i) for i, each in enumerate(observations)]
        change = max(float(np.abs(new - old).max()) for new, old in zip(fresh, weights, strict=True))
        weights = fresh
        points = gather(observations, weights)
        best = descend(model, points, which, best.q, until=Until(iterations=25))
        if change < 1e-5:
            break
    return weights, points, best


def _huber_weights(model: LogLogistic, each: Observations, best: Descent, i: int) -> Floats:
    parameters = log_logistic.natural(model, best.q[i], float(best.c[i]), float(best.d[i]))
    size = np.abs(each.responses - log_logistic.value(parameters, each.doses_um)) * np.sqrt(each.weights)
    n = len(size)
    limit = HUBER * 1.4826 * float(np.median(size)) * np.sqrt(n / (n - len(model.free)))
    limit = max(limit, LEAST_LIMIT * float(size.max()))
    return np.asarray(each.weights * np.minimum(1.0, np.divide(limit, size, out=np.ones(n), where=size > limit)))


def _inverse(matrix: Floats) -> Floats | None:
    """Of a positive definite matrix, scaled first; None where it is not one."""
    diagonal = np.diag(matrix)
    if not np.isfinite(matrix).all() or (diagonal <= 0).any():
        return None
    unit = np.sqrt(diagonal)
    values, vectors = np.linalg.eigh(matrix / np.outer(unit, unit))
    if values[0] < 1e-12 * values[-1]:
        return None
    return np.asarray((vectors / values) @ vectors.T / np.outer(unit, unit))
