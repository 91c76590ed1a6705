"""Profile-likelihood limits of the two IC50s, for many curves at once.

The profile of a quantity is the least sum of squares with that quantity held. A dose belongs to the interval as long
as its profile stays below RSS_min + s^2 F(level; 1, df): exact for a linear model. Unlike the interval of a standard
error it neither leaves the positive doses nor pretends that a far plateau is known (Bates and Watts 1988, chapter 6).
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from spheroidd.inference.dose_response.log_logistic import Floats, LogLogistic
from spheroidd.inference.dose_response.variable_projection import OUTSIDE, Crossing, Descent, Points, Until, descend

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
        return descend(model, points, curves, start, crossing=crossing, boxed=True, until=until)

    return _limits(held, points, best, estimate, threshold, which)


def _limits(
    held: Held, points: Points, best: Descent, estimate: Floats, threshold: Floats, which: np.ndarray
) -> Limits:
    """Both limits of the curves `which`: for each the outermost dose of a scan inside the interval, then closed in on.

    From here on a lane is a curve's lower or upper side.
    """
    found = np.full((2, len(estimate)), np.nan)
    if len(which):
        curves, sides = np.tile(which, 2), np.repeat((-1.0, 1.0), len(which))
        brackets = _bracket(held, points, best, estimate, threshold, curves, sides)
        closed = ~brackets.open_ended
        limits = np.full(len(curves), np.nan)
        limits[closed] = _close_in(held, curves[closed], brackets.take(closed), best.rss, threshold)
        found[:, which] = limits.reshape(2, -1)
    return Limits(*found)


class _Brackets(NamedTuple):
    """For each lane a dose inside the interval and one outside, their sums of squares, the inner one's shape."""

    near: Floats
    near_rss: Floats
    near_q: Floats
    far: Floats
    far_rss: Floats
    open_ended: np.ndarray

    def take(self, lanes: np.ndarray) -> "_Brackets":
        return _Brackets(*(values[lanes] for values in self))


def _bracket(
    held: Held,
    points: Points,
    best: Descent,
    estimate: Floats,
    threshold: Floats,
    curves: np.ndarray,
    sides: Floats,
) -> _Brackets:
    margin = np.log(OUTSIDE)
    lowest, highest = points.low[curves] - margin, points.high[curves] + margin
    middle = estimate[curves]
    steps = np.concatenate(([0.0], DISTANCES))
    doses = (middle[:, None] + sides[:, None] * steps).clip(lowest[:, None], highest[:, None])
    rss, q = np.empty(doses.shape), np.empty((*doses.shape, 3))
    rss[:, 0], q[:, 0] = best.rss[curves], best.q[curves]
    many = np.repeat(curves, len(DISTANCES))
    scanned = _scan(held, many, doses[:, 1:].ravel(), (doses - middle[:, None])[:, 1:].ravel(), best.q, threshold)
    rss[:, 1:], q[:, 1:] = scanned[0].reshape(len(curves), -1), scanned[1].reshape(len(curves), -1, 3)
    last = len(DISTANCES)
    inside = rss <= threshold[curves, None]
    inside[:, 0] = True
    near = last - inside[:, ::-1].argmax(axis=1)
    far = np.minimum(near + 1, last)
    lanes = np.arange(len(curves))
    return _Brackets(
        doses[lanes, near], rss[lanes, near], q[lanes, near], doses[lanes, far], rss[lanes, far], near == last
    )


def _scan(
    held: Held, curves: np.ndarray, doses: Floats, moved: Floats, best_q: Floats, threshold: Floats
) -> tuple[Floats, Floats]:
    """The sum of squares with each dose held, and the shape that has it: from the curve's own slope, then from others.

    Exact only near the threshold: inside of it the search stops at once, far outside when it is plain.
    """
    start = best_q[curves]
    start[:, 1] += moved
    found = held(curves, doses, start, Until(ITERATIONS, enough=threshold[curves]))
    rss, q = found.rss, found.q
    outside = np.flatnonzero(rss > threshold[curves])
    lanes = np.tile(outside, len(OTHER_SLOPES))
    if len(lanes):
        begin = start[lanes]
        begin[:, 0] = np.log(np.repeat(OTHER_SLOPES, len(outside)))
        others = held(curves[lanes], doses[lanes], begin, Until(ITERATIONS, enough=threshold[curves[lanes]]))
        tries = others.rss.reshape(len(OTHER_SLOPES), -1)
        chosen = tries.argmin(axis=0) * len(outside) + np.arange(len(outside))
        better = others.rss[chosen] < rss[outside]
        rss[outside[better]], q[outside[better]] = others.rss[chosen[better]], others.q[chosen[better]]
    return rss, q


def _close_in(held: Held, curves: np.ndarray, bracket: _Brackets, least: Floats, threshold: Floats) -> Floats:
    """Regula falsi with the Illinois rule, all lanes together."""
    rise = threshold[curves] - least[curves]

    def distance(lanes: np.ndarray, rss: Floats) -> Floats:
        """The profile's height over the limit, as a root: nearly linear in ln dose."""
        return np.asarray(np.sqrt(np.maximum(rss - least[curves[lanes]], 0)) - np.sqrt(rise[lanes]))

    lanes = np.arange(len(curves))
    a, b, q = bracket.near.copy(), bracket.far.copy(), bracket.near_q.copy()
    fa, fb = distance(lanes, bracket.near_rss), distance(lanes, bracket.far_rss)
    last = np.zeros(len(curves))
    dose = a.copy()
    moving = lanes[fa < 0]
    for _ in range(REFINEMENTS):
        if not len(moving):
            break
        i = moving
        trial = (a[i] * fb[i] - b[i] * fa[i]) / (fb[i] - fa[i])
        found = held(curves[i], trial, q[i], Until(ITERATIONS, tolerance=1e-4 * rise[i]))
        value = distance(i, found.rss)
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
