"""Profile-likelihood limits of the two IC50s, for many curves at once.

The profile of a quantity is the least sum of squares with that quantity held. A dose belongs to the interval as long
as its profile stays below RSS_min + s^2 F(level; 1, df): exact for a linear model. Unlike the interval of a standard
error it neither leaves the positive doses nor pretends that a far plateau is known (Bates and Watts 1988, chapter 6).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from spheroidd.inference.log_logistic import Floats, LogLogistic
from spheroidd.inference.variable_projection import OUTSIDE, Crossing, Descent, Points, Until, descend

# Distances from the estimate at which the profile is looked at first, in ln dose: 3 % to ten thousandfold.
DISTANCES = 0.03 * 1.4 ** np.arange(18)
OTHER_SLOPES = (0.4, 2.0, 8.0)  # starts beside the estimate's own slope
REFINEMENTS = 8
ITERATIONS = 40
CLOSE_ENOUGH = 1e-4  # of ln dose


class Held(Protocol):
    """Minimises with something held at a log dose, for some lanes."""

    def __call__(
        self,
        curves: np.ndarray,
        dose: Floats,
        start: Floats,
        until: Until,
    ) -> Descent:
        """Hold `dose` (N,) in each of `curves` (N,), from `start` (N, 3)."""
        ...


@dataclass(frozen=True, slots=True)
class Limits:
    """Of ln dose, both (C,); NaN where the profile does not close within a hundredfold of the doses."""

    low: Floats
    high: Floats


def midpoint_limits(model: LogLogistic, points: Points, best: Descent, threshold: Floats, which: np.ndarray) -> Limits:
    """Limits of the relative IC50 of the curves `which`: where the profile passes their `threshold` (all (C,))."""

    def held(
        curves: np.ndarray,
        dose: Floats,
        start: Floats,
        until: Until,
    ) -> Descent:
        start = np.stack((start[:, 0], dose, start[:, 2]), axis=1)
        return descend(model, points, curves, start, hold_midpoint=True, until=until)

    return _limits(held, points, best, best.q[:, 1], threshold, which)


def crossing_limits(
    model: LogLogistic,
    points: Points,
    best: Descent,
    threshold: Floats,
    which: np.ndarray,
    *,
    estimate: Floats,
    offset: Floats,
    share: Floats,
) -> Limits:
    """Limits of the absolute IC50: the dose where the curve passes offset + share * d. All arrays are (C,)."""

    def held(
        curves: np.ndarray,
        dose: Floats,
        start: Floats,
        until: Until,
    ) -> Descent:
        crossing = Crossing(dose, offset[curves], share[curves])
        return descend(model, points, curves, start, crossing=crossing, until=until)

    return _limits(held, points, best, estimate, threshold, which)


def _limits(
    held: Held, points: Points, best: Descent, estimate: Floats, threshold: Floats, which: np.ndarray
) -> Limits:
    found = [np.full(len(estimate), np.nan) for _ in range(2)]
    if len(which):
        for side, limit in zip((-1, 1), found, strict=True):
            limit[which] = _limit(held, points, best, estimate, threshold, which, side)
    return Limits(*found)


def _limit(
    held: Held,
    points: Points,
    best: Descent,
    estimate: Floats,
    threshold: Floats,
    which: np.ndarray,
    side: int,
) -> Floats:
    """One side's limits of the curves `which`: the outermost dose of a scan inside the interval, then closed in on."""
    margin = np.log(OUTSIDE)
    lowest, highest = points.low[which] - margin, points.high[which] + margin
    middle = estimate[which]
    doses = (middle[:, None] + side * DISTANCES).clip(lowest[:, None], highest[:, None])
    curves = np.repeat(which, len(DISTANCES))
    moved = (doses - middle[:, None]).ravel()
    rss, q = _scan(held, curves, doses.ravel(), best.q[curves], moved, threshold)
    rss, q = rss.reshape(doses.shape), q.reshape(*doses.shape, 3)
    inside = rss <= threshold[which, None]
    outermost = np.where(inside.any(axis=1), len(DISTANCES) - 1 - inside[:, ::-1].argmax(axis=1), -1)
    open_ended = outermost == len(DISTANCES) - 1
    rows = np.arange(len(which))
    last, beyond = np.maximum(outermost, 0), np.minimum(outermost + 1, len(DISTANCES) - 1)
    none = outermost < 0  # the limit is nearer than the first distance: between the estimate itself and that
    near = np.where(none, middle, doses[rows, last])
    near_rss = np.where(none, best.rss[which], rss[rows, last])
    start = np.where(none[:, None], best.q[which], q[rows, last])
    far, far_rss = doses[rows, beyond], rss[rows, beyond]
    closed = np.flatnonzero(~open_ended)
    limit = np.full(len(which), np.nan)
    root = _root(best.rss[which], threshold[which])
    limit[closed] = _close_in(
        held,
        which[closed],
        lambda lanes, value: root(closed[lanes], value),
        1e-4 * (threshold[which[closed]] - best.rss[which[closed]]),
        (near[closed], near_rss[closed]),
        (far[closed], far_rss[closed]),
        start[closed],
    )
    return limit


def _root(least: Floats, threshold: Floats) -> Callable[[np.ndarray, Floats], Floats]:
    """The profile as a distance: sqrt of its rise, less that at the limit. Nearly linear in ln dose."""

    def root(lanes: np.ndarray, rss: Floats) -> Floats:
        rise = np.maximum(rss - least[lanes], 0)
        return np.asarray(np.sqrt(rise) - np.sqrt(np.maximum(threshold[lanes] - least[lanes], 0)))

    return root


def _close_in(
    held: Held,
    curves: np.ndarray,
    root: Callable[[np.ndarray, Floats], Floats],
    tolerance: Floats,
    near: tuple[Floats, Floats],
    far: tuple[Floats, Floats],
    start: Floats,
) -> Floats:
    """Regula falsi with the Illinois rule between a dose inside and one outside, all curves together."""
    lanes = np.arange(len(curves))
    (a, b), q = (near[0].copy(), far[0].copy()), start.copy()
    fa, fb = root(lanes, near[1]), root(lanes, far[1])
    last = np.zeros(len(curves))
    dose = a.copy()
    moving = lanes[fa < 0]
    for _ in range(REFINEMENTS):
        if not len(moving):
            break
        i = moving
        trial = (a[i] * fb[i] - b[i] * fa[i]) / (fb[i] - fa[i])
        found = held(curves[i], trial, q[i], Until(ITERATIONS, tolerance=tolerance[i]))
        value = root(i, found.rss)
        inside = value <= 0
        q[i[inside]] = found.q[inside]
        fb[i[inside & (last[i] < 0)]] *= 0.5
        fa[i[~inside & (last[i] > 0)]] *= 0.5
        a[i], fa[i] = np.where(inside, trial, a[i]), np.where(inside, value, fa[i])
        b[i], fb[i] = np.where(inside, b[i], trial), np.where(inside, fb[i], value)
        last[i] = np.where(inside, -1, 1)
        moved = np.abs(trial - dose[i])
        dose[i] = trial
        moving = i[(moved > CLOSE_ENOUGH) & (np.abs(b[i] - a[i]) > CLOSE_ENOUGH)]
    return dose


def _scan(
    held: Held, curves: np.ndarray, doses: Floats, start: Floats, moved: Floats, threshold: Floats
) -> tuple[Floats, Floats]:
    """The sum of squares with each dose held, over several starting slopes, and the shape that has it.

    Exact only near the threshold: inside of it the search stops at once, far outside when it is plain.
    """
    best_rss, best_q = np.full(len(curves), np.inf), start.copy()
    for slope in (None, *OTHER_SLOPES):
        lanes = np.flatnonzero(best_rss > threshold[curves])
        if not len(lanes):
            break
        begin = start[lanes]
        begin[:, 1] += moved[lanes]
        if slope is not None:
            begin[:, 0] = np.log(slope)
        found = held(curves[lanes], doses[lanes], begin, Until(ITERATIONS, enough=threshold[curves[lanes]]))
        better = found.rss < best_rss[lanes]
        best_rss[lanes[better]], best_q[lanes[better]] = found.rss[better], found.q[better]
    return best_rss, best_q
