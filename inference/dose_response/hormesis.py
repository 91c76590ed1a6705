"""Hormesis: low doses that stimulate. A monotone curve cannot show it, so a fit must be told.

Brain and Cousens (1989) add a linear rise to the upper plateau: y = c + (d - c + f x) / (1 + exp(b (ln x - ln e))).
Given b and e that is linear in c, d and f: it costs one more column beside the log-logistic fit.
"""

from typing import NamedTuple

import numpy as np
from scipy import optimize, stats

from spheroidd.inference.dose_response.log_logistic import Floats, log_dose

ALPHA = 0.05
PEAK = 0.10  # of the full scale: a hump lower than this is not worth a word
SLOPES = (1.05, 20.0)  # at a slope of 1 or less the rise would never end


class Hump(NamedTuple):
    """How far the response rises above the untreated one, at which dose, and the p-value of the rise."""

    height: float
    dose: float
    p: float


def find_hump(
    doses: Floats,
    weights: Floats,
    means: Floats,
    *,
    rss: float,
    scatter: float,
    df: int,
    full_scale: float,
    bottom: float | None = None,
) -> Hump | None:
    """A significant hump at low doses, or None.

    `doses`, `weights` and `means` are (D,): the mean response at each dose, turned so that it falls with the dose.
    `rss` is what the monotone fit leaves on `df` degrees of freedom, `scatter` the replicates' part of it; `bottom` is
    the lower plateau where the monotone fit held it.
    """
    dosed, unit = doses > 0, float(np.abs(means).max())
    if df < 2 or rss <= 0 or dosed.sum() < 3 or unit == 0:
        return None
    # In units of the largest dose and response, so that squares stay finite in any unit.
    means, rss, scatter, full_scale = means / unit, rss / unit**2, scatter / unit**2, full_scale / unit
    bottom = None if bottom is None else bottom / unit
    x = doses / doses.max()
    u = log_dose(x)
    found = _search(u, x, np.sqrt(weights), means, bottom)
    left = 2 * float(found.cost) + scatter
    p = float(stats.f.sf(max(rss - left, 0) / (left / (df - 1)), 1, df - 1)) if left > 0 else 0.0
    a = _solve(_columns(found.x, u, x, bottom), np.sqrt(weights), means, bottom)
    grid = np.linspace(u[dosed].min(), 0.0, 200)
    rise = _columns(found.x, grid, np.exp(grid), bottom) @ a - a[0] - (a[2] if bottom is None else 0.0)
    top = int(rise.argmax())
    if p > ALPHA or a[1] <= 0 or rise[top] < PEAK * full_scale:
        return None
    return Hump(float(rise[top]) * unit, float(np.exp(grid[top]) * doses.max()), p)


def _columns(shape: Floats, u: Floats, x: Floats, bottom: float | None) -> Floats:
    """Of d - c, f and, where it is free, c: the response over the lower plateau is (d - c) s + f x s."""
    s = 1 / (1 + np.exp((np.exp(shape[0]) * (u - shape[1])).clip(-700, 700)))
    return np.stack([s, x * s] + ([np.ones_like(s)] if bottom is None else []), axis=1)


def _solve(columns: Floats, root: Floats, means: Floats, bottom: float | None) -> Floats:
    return np.asarray(np.linalg.lstsq(columns * root[:, None], (means - (bottom or 0.0)) * root, rcond=None)[0])


def _search(u: Floats, x: Floats, root: Floats, means: Floats, bottom: float | None) -> optimize.OptimizeResult:
    """The best (ln b, ln e) over several starts."""

    def residual(shape: Floats) -> Floats:
        columns = _columns(shape, u, x, bottom)
        return np.asarray((columns @ _solve(columns, root, means, bottom) - (means - (bottom or 0.0))) * root)

    lowest, highest = u[x > 0].min() - 3, 1.0
    bounds = ([np.log(SLOPES[0]), lowest], [np.log(SLOPES[1]), highest])
    starts = [(np.log(b), t) for b in (1.3, 2.5, 5.0) for t in np.linspace(lowest + 0.1, highest - 0.1, 6)]
    starts.sort(key=lambda start: float((residual(np.array(start)) ** 2).sum()))
    close = {"ftol": 1e-6, "xtol": 1e-4, "max_nfev": 60}  # a p-value needs no more
    found = [optimize.least_squares(residual, start, bounds=bounds, **close) for start in starts[:2]]
    return min(found, key=lambda fit: float(fit.cost))
