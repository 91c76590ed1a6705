"""Least squares for many log-logistic curves at once: Levenberg-Marquardt over the shape, the plateaus solved for.

Given slope, midpoint and asymmetry, the plateaus are a linear least-squares problem with a closed answer, so only two
(LL.5: three) numbers are searched (variable projection, Golub and Pereyra 1973, with Kaufman's 1975 Jacobian). The
search runs on "lanes": every lane is one curve from one start, with one thing held or nothing. Starts, points of a
profile and curves are all just more lanes, and numpy does a step of all of them together.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from spheroidd.inference.dose_response.log_logistic import Floats, LogLogistic, shape

SLOPES = (0.1, 20.0)  # beyond the one a curve is a straight line in ln dose, beyond the other a step between two doses
ASYMMETRIES = (0.05, 20.0)
OUTSIDE = 100.0  # how many-fold beyond the doses a midpoint is looked for
SETTLED = 1e-13  # relative fall of the sum of squares
_TINY = 1e-100  # a fraction whose reciprocal can still be squared
_LEVEL = 1e-9  # where c hardly depends on how far d lies above the response that is held
STUCK = 1e9  # a damping at which no step moves anything
HOPELESS = 1e-3  # a step that gains less of what is missing will not be followed by one that gains it all


@dataclass(frozen=True, slots=True)
class Points:
    """The data of C curves, one column a dose: what least squares needs of replicates is their mean and weight.

    All arrays are (C, D); curves with fewer doses have columns of weight 0. `scatter` (C,) is the weighted sum of
    squares of the replicates around their means, which no curve can fit. `low`, `high` (C,): ln of the doses above 0.
    `least`, `most` (C,) are how far a plateau may lie outside of the means: as far again as the means' own span. A
    curve whose midpoint is among its doses has shown half of its way, so its plateaus are no further.
    """

    log_dose: Floats
    root_weight: Floats
    response: Floats
    scatter: Floats
    low: Floats
    high: Floats
    least: Floats
    most: Floats

    def bounds(self, which: np.ndarray) -> tuple[Floats, Floats]:
        """Lowest and highest (ln |b|, ln midpoint, ln f), each (N, 3)."""
        margin = np.log(OUTSIDE)
        fixed = np.ones(len(which))
        lowest = np.stack((np.log(SLOPES[0]) * fixed, self.low[which] - margin, np.log(ASYMMETRIES[0]) * fixed), axis=1)
        highest = np.stack(
            (np.log(SLOPES[1]) * fixed, self.high[which] + margin, np.log(ASYMMETRIES[1]) * fixed), axis=1
        )
        return lowest, highest


class Crossing(NamedTuple):
    """Holds each lane's curve to pass through a response at a log dose: level = offset + share * d, all (N,)."""

    log_dose: Floats
    offset: Floats
    share: Floats

    def take(self, lanes: np.ndarray) -> "Crossing":
        """Some of the lanes."""
        return Crossing(self.log_dose[lanes], self.offset[lanes], self.share[lanes])


class Box(NamedTuple):
    """The least and the most that the plateaus of each lane may be where both are free, (N,)."""

    least: Floats
    most: Floats

    def take(self, lanes: np.ndarray) -> "Box":
        """Some of the lanes."""
        return Box(self.least[lanes], self.most[lanes])

    def outside(self, c: Floats, d: Floats) -> np.ndarray:
        """Which lanes have a plateau that is not within it."""
        return np.asarray((np.minimum(c, d) < self.least) | (np.maximum(c, d) > self.most))


class Until(NamedTuple):
    """When a lane stops: when a step gains next to nothing, less than its `tolerance`, or, where it only matters
    whether it comes as low as `enough`, once it has or when it is plain that it will not. Both are (N,)."""

    iterations: int = 80
    enough: Floats | None = None
    tolerance: Floats | None = None

    def small(self, lanes: np.ndarray, rss: Floats, scatter: Floats) -> Floats:
        """The gain of a step below which the lanes stop."""
        if self.enough is not None:
            missing = rss + scatter - self.enough[lanes]
            return np.where(missing > 0, HOPELESS * missing, np.inf)
        return SETTLED * rss if self.tolerance is None else self.tolerance[lanes]


class Descent(NamedTuple):
    """Where the lanes ended: shape (N, 3), residual sum of squares (N,), plateaus c and d (N,)."""

    q: Floats
    rss: Floats
    c: Floats
    d: Floats


class _State(NamedTuple):
    rss: Floats
    residual: Floats  # (N, D), root-weighted, at right angles to the linear columns
    slopes: Floats  # (3, N, D), of the fit, likewise
    c: Floats
    d: Floats


def descend(
    model: LogLogistic,
    points: Points,
    which: np.ndarray,
    start: Floats,
    *,
    hold_midpoint: bool = False,
    crossing: Crossing | None = None,
    boxed: bool = False,
    until: "Until | None" = None,
) -> Descent:
    """Minimise every lane's sum of squares. `which` (N,) names its curve, `start` (N, 3) its shape.

    With `hold_midpoint` the midpoint stays where it starts; with a `crossing` the curve keeps passing through it;
    `boxed` keeps free plateaus between the points' `least` and `most`.
    """
    until = until or Until()
    box = (
        Box(points.least[which], points.most[which]) if boxed and not (hold_midpoint or model.holds_a_plateau) else None
    )
    free = [i for i in model.free_shape if not (hold_midpoint and i == 1)]
    lowest, highest = points.bounds(which)
    if hold_midpoint:
        lowest[:, 1] = highest[:, 1] = start[:, 1]
    q = start.clip(lowest, highest)
    state = _evaluate(model, points, which, q, crossing, box)
    damping = np.full(len(q), 1e-3)
    moving = np.arange(len(q))
    for _ in range(until.iterations):
        step = _step(state.slopes[np.array(free)[:, None], moving], state.residual[moving], damping[moving])
        trial = q[moving]
        trial[:, free] += step.clip(-2, 2)
        trial = trial.clip(lowest[moving], highest[moving])
        passing, sides = crossing and crossing.take(moving), box and box.take(moving)
        tried = _evaluate(model, points, which[moving], trial, passing, sides)
        fall = state.rss[moving] - tried.rss
        better = fall > 0
        q[moving[better]] = trial[better]
        _replace(state, tried, moving, better)
        damping[moving] *= np.where(better, 0.2, 6.0)
        small = until.small(moving, state.rss[moving], points.scatter[which[moving]])
        done = (better & (fall <= small)) | (damping[moving] > STUCK)
        moving = moving[~done]
        if not len(moving):
            break
    return Descent(q, state.rss + points.scatter[which], state.c, state.d)


def _replace(state: _State, tried: _State, moving: np.ndarray, better: np.ndarray) -> None:
    lanes = moving[better]
    state.rss[lanes], state.residual[lanes] = tried.rss[better], tried.residual[better]
    state.slopes[:, lanes] = tried.slopes[:, better]
    state.c[lanes], state.d[lanes] = tried.c[better], tried.d[better]


def _step(slopes: Floats, residual: Floats, damping: Floats) -> Floats:
    """The damped Gauss-Newton step (N, k)."""
    normal = np.einsum("knd,lnd->nkl", slopes, slopes)
    diagonal = np.einsum("nkk->nk", normal)
    scale = diagonal.max(axis=1, keepdims=True)
    diagonal += damping[:, None] * diagonal + 1e-12 * scale + np.finfo(float).tiny
    return np.asarray(np.linalg.solve(normal, np.einsum("knd,nd->nk", slopes, residual)[..., None])[..., 0])


def _evaluate(
    model: LogLogistic, points: Points, which: np.ndarray, q: Floats, crossing: Crossing | None, box: Box | None
) -> _State:
    u, weight, y = points.log_dose[which], points.root_weight[which], points.response[which]
    if crossing is not None:
        everywhere = np.concatenate((u, crossing.log_dose[:, None]), axis=1)
        return _passing(model, *shape(model, q, everywhere), weight, y, crossing, box)
    s, rest, ds = shape(model, q, u)
    state = _unheld(model.bottom, model.top, s, rest, ds, weight, y)
    if box is not None and len(out := np.flatnonzero(box.outside(state.c, state.d))):
        inside = state.c[out], state.d[out], box.take(out), s[out], rest[out], ds[:, out], weight[out], y[out]
        _replace(state, _at_the_box(*inside), out, np.full(len(out), True))
    return state


def _unheld(
    bottom: Floats | float | None,
    top: Floats | float | None,
    s: Floats,
    rest: Floats,
    ds: Floats,
    weight: Floats,
    y: Floats,
) -> _State:
    """y = c (1 - s) + d s, with the free ones of c and d at their best; what is held may be one for each lane."""
    held = (np.zeros((len(s), 1)) if end is None else np.reshape(end, (-1, 1)) for end in (bottom, top))
    offset = sum(end * part for end, part in zip(held, (rest, s), strict=True))
    columns = [weight, weight * s] if bottom is None and top is None else []
    if (bottom is None) != (top is None):
        columns = [weight * (s if top is None else rest)]
    frame = _orthonormal(columns)
    target = weight * (y - offset)
    found = [np.einsum("nd,nd->n", q, target) for q in frame]
    residual = target - sum((a[:, None] * q for a, q in zip(found, frame, strict=True)), np.zeros_like(target))
    if columns[1:]:
        span = _per(found[1], frame[1], columns[1])
        mean = np.einsum("nd,nd->n", frame[0], target - span[:, None] * columns[1])
        c = _per(mean, frame[0], columns[0])
        d = c + span
    else:
        c, d = (
            _per(found[0], frame[0], columns[0]) if end is None else np.broadcast_to(end, len(s)).astype(float)
            for end in (bottom, top)
        )
    return _state(residual, (d - c)[:, None] * ds * weight, frame, c, d)


def _at_the_box(
    c: Floats, d: Floats, box: Box, s: Floats, rest: Floats, ds: Floats, weight: Floats, y: Floats
) -> _State:
    """The best plateaus in the box for lanes whose free ones, c and d, are not: one of those outside is at a side."""
    parts = s, rest, ds, weight, y
    c, d = c.clip(*box), d.clip(*box)
    by_c, by_d = _unheld(c, None, *parts), _unheld(None, d, *parts)
    every = np.arange(len(c))
    for found, of_both in (
        (by_c, _unheld(c, by_c.d.clip(*box), *parts)),
        (by_d, _unheld(by_d.c.clip(*box), d, *parts)),
    ):
        _replace(found, of_both, every, box.outside(found.c, found.d))
    _replace(by_c, by_d, every, by_d.rss < by_c.rss)
    return by_c


def _passing(
    model: LogLogistic,
    s: Floats,
    rest: Floats,
    ds: Floats,
    weight: Floats,
    y: Floats,
    crossing: Crossing,
    box: Box | None,
) -> _State:
    """The curve through the crossing, whose s is the last column of `s`.

    With c held: y = c + (level - c) s / s'. With d held: y = d - (d - level) t, t = (1 - s) / (1 - s'). With both free
    level = offset + share d, and y = base + a k: base = offset / (1 - share) is where the curve is flat, and
    k = 1 / (1 - share) - t. Written with d in place of a, y loses its digits where t is huge, and the sum of squares of
    a curve 1e20 beside the data comes out as 0.
    """
    s_held, rest_held, ds_held = s[:, -1:], rest[:, -1:], ds[..., -1:]
    s_held, rest_held = np.maximum(s_held, _TINY), np.maximum(rest_held, _TINY)
    s, rest, ds = s[:, :-1], rest[:, :-1], ds[..., :-1]
    offset, share = crossing.offset[:, None], crossing.share[:, None]
    if model.bottom is not None:
        level = offset - model.bottom
        v = s / s_held
        residual = weight * (y - model.bottom - level * v)
        slopes = level * (ds / s_held - v * ds_held / s_held) * weight
        c = np.full(len(s), model.bottom)
        return _state(residual, slopes, [], c, c + level[:, 0] / s_held[:, 0])
    t = rest / rest_held
    dt = (t * ds_held - ds) / rest_held
    if model.top is not None:
        drop = model.top * (1 - share) - offset
        residual = weight * (y - model.top + drop * t)
        d = np.full(len(s), model.top)
        return _state(residual, -drop * dt * weight, [], d - drop[:, 0] / rest_held[:, 0], d)
    base, whole = offset / (1 - share), 1 / (1 - share)
    column = weight * (whole - t)
    frame = _orthonormal([column])
    target = weight * (y - base)
    found = np.einsum("nd,nd->n", frame[0], target)
    drop = _per(found, frame[0], column)[:, None]  # d - level
    residual = target - found[:, None] * frame[0]
    slopes = -drop * dt * weight
    if box is not None:
        a, da = _drop_within(box, drop, base, whole, rest_held, ds_held)
        out = np.flatnonzero(a[:, 0] != drop[:, 0])
        drop, residual[out], frame[0][out] = a, target[out] - a[out] * column[out], 0.0
        slopes[:, out] = -a[out] * dt[:, out] * weight[out] + da[:, out] * column[out]
    d = (base + drop * whole)[:, 0]
    return _state(residual, slopes, frame, d - drop[:, 0] / rest_held[:, 0], d)


def _drop_within(
    box: Box, drop: Floats, base: Floats, whole: Floats, rest_held: Floats, ds_held: Floats
) -> tuple[Floats, Floats]:
    """The `drop` (N, 1) nearest to its best that keeps both plateaus in the box, and its derivative (3, N, 1).

    d = base + whole drop, and c = base + h drop / rest', h = whole rest' - 1.
    """
    sides = np.stack(box, axis=1) - base
    h = whole * rest_held - 1
    h = np.where(np.abs(h) < _LEVEL, _LEVEL, h)
    of_d, of_c = sides / whole, sides * rest_held / h
    lowest = np.maximum(of_d.min(axis=1), of_c.min(axis=1))[:, None]
    highest = np.minimum(of_d.max(axis=1), of_c.max(axis=1))[:, None]
    a = np.minimum(np.maximum(drop, lowest), highest)
    moved, by_least, by_most = a != drop, a == of_c[:, :1], a == of_c[:, 1:]
    side = np.where(by_least, sides[:, :1], sides[:, 1:])
    return a, np.where(moved & (by_least | by_most), side / h**2 * ds_held, 0.0)


def _state(residual: Floats, slopes: Floats, frame: list[Floats], c: Floats, d: Floats) -> _State:
    return _State(np.einsum("nd,nd->n", residual, residual), residual, _clear(slopes, frame), c, d)


def _orthonormal(columns: list[Floats]) -> list[Floats]:
    """Gram-Schmidt, row by row; a column that adds nothing becomes zeros."""
    frame: list[Floats] = []
    for column in columns:
        size = np.sqrt(np.einsum("nd,nd->n", column, column))
        for q in frame:
            column = column - np.einsum("nd,nd->n", q, column)[:, None] * q
        norm = np.sqrt(np.einsum("nd,nd->n", column, column))
        adds = norm > 1e-9 * size
        frame.append(column * np.divide(1.0, norm, out=np.zeros_like(norm), where=adds)[:, None])
    return frame


def _per(found: Floats, direction: Floats, column: Floats) -> Floats:
    """The coefficient of `column` from the one of its `direction`; 0 where the column adds nothing."""
    length = np.einsum("nd,nd->n", direction, column)
    return np.asarray(np.divide(found, length, out=np.zeros_like(found), where=length > 0))


def _clear(slopes: Floats, frame: list[Floats]) -> Floats:
    for q in frame:
        slopes = np.asarray(slopes - np.einsum("nd,knd->kn", q, slopes)[..., None] * q)
    return slopes
