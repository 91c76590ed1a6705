"""A normal random-effects model on log10 IC50 in which a curve may know its IC50 from one side only.

Each curve's profile log-likelihood is rebuilt from its estimate and its 95 % profile limits as two half parabolas: one
for values below the estimate, one for values above, flat where the profile does not close. A censored curve ("above the
highest dose") is one half parabola and a flat side, so it says what it knows and nothing more. Patient i has
theta_i ~ N(mu, tau^2), and contributes the integral over theta_i of the product of its curves' likelihoods. That
integral has a closed form, so nothing is sampled or laid on a grid.

- tau maximises the likelihood with mu integrated out; for two-sided, symmetric curves that is REML.
- mu maximises the likelihood at that tau.
- Its interval is the profile likelihood's (tau free), cut where k log(1 + t^2 / (k - 1)) is reached, t being Student's
  97.5 % point for k - 1 degrees of freedom and k the number of patients. For curves without error that is exactly
  Student's interval of a mean; with few patients it is, as it must be, much wider than chi squared's.

Meta-analysis libraries offer estimates with standard errors only; a censored curve would have to be left out there,
and leaving the most resistant patients out makes a compound look better than it is.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special, stats

from spheroidd.protocols.errors import ConfigError

_Z = float(stats.norm.ppf(0.975))
_TAUS = np.geomspace(3e-3, 4.0, 49)  # log10 units: from less than a curve can tell to ten thousandfold
_MU_STEPS = 97
_NEAR, _FAR = 3.0, 12.0  # log10 units around the evidence within which mu, and the ends of its interval, are looked for
Array = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class Evidence:
    """A log-likelihood of one number: 0 at `at`, a half parabola of width `sd_below` for smaller values and one of
    width `sd_above` for larger ones. An infinite width is a flat side: nothing is known there.
    """

    at: float
    sd_below: float
    sd_above: float

    def __post_init__(self) -> None:
        widths = (self.sd_below, self.sd_above)
        if not math.isfinite(self.at) or not all(width > 0 for width in widths):
            what = f"evidence at {self.at} with widths {widths}"
            raise ConfigError(what, do="give a finite place, and widths above 0 (infinite for a flat side)")

    @property
    def is_empty(self) -> bool:
        """Flat on both sides: nothing is known."""
        return math.isinf(self.sd_below) and math.isinf(self.sd_above)

    def minus(self, other: "Evidence") -> "Evidence":
        """The evidence of a difference of two numbers known apart: it can be small for either's sake."""
        below = math.hypot(self.sd_below, other.sd_above)
        return Evidence(self.at - other.at, below, math.hypot(self.sd_above, other.sd_below))

    def widened(self, sd: float) -> "Evidence":
        """The same with an error of `sd` added that the curve does not know of, such as its plate's."""
        return Evidence(self.at, math.hypot(self.sd_below, sd), math.hypot(self.sd_above, sd))


@dataclass(frozen=True, slots=True)
class RandomEffects:
    """What several patients say together, in the unit of the evidence (log10).

    `tau` is the sd between patients. A bound is None where the likelihood does not close on that side. `p_zero` tests
    mu = 0 the same way; `new_low` and `new_high` bound 95 % of further patients. One patient, who says nothing of
    others, gives `mu` alone. Several, of whom fewer than two have a value closed on both sides, give nothing: the
    spread between them, and with it the mean, could be anything.
    """

    mu: float | None
    low: float | None
    high: float | None
    tau: float | None
    new_low: float | None
    new_high: float | None
    p_zero: float | None
    n_patients: int


def pooled(patients: Sequence[Sequence[Evidence]]) -> RandomEffects:
    """Combine patients, each with the evidence of their curves; empty evidence is no evidence and is not counted."""
    told = [kept for curves in patients if (kept := [curve for curve in curves if not curve.is_empty])]
    k = len(told)
    if not told or not all(_closed([curve for curves in told for curve in curves])):
        return RandomEffects(None, None, None, None, None, None, None, k)
    if k == 1:
        return RandomEffects(combined(told[0]).at, None, None, None, None, None, None, 1)
    if sum(all(_closed(curves)) for curves in told) < 2:
        return RandomEffects(None, None, None, None, None, None, None, k)
    model = _Model.of(told)
    tau = _restricted_tau(model)
    if tau > _TAUS[-2]:  # more than a thousandfold, and still rising: the patients have no mean
        return RandomEffects(None, None, None, None, None, None, None, k)
    mu = _argmax(lambda mu: model.log_likelihood(mu, np.array(tau)), model.near)
    top = float(model.profile(np.array([mu, _argmax(model.profile, model.near)])).max())
    t = float(stats.t.ppf(0.975, k - 1))
    drop = k * math.log1p(t**2 / (k - 1)) / 2
    low, high = (_root(lambda at: float(model.profile(np.array([at]))[0]) - top + drop, mu, end) for end in model.far)
    tau = tau if tau > 2 * _TAUS[0] else 0.0
    deviance = max(2 * (top - float(model.profile(np.zeros(1))[0])), 0.0)
    t_zero = math.sqrt((k - 1) * math.expm1(min(deviance / k, 700.0)))
    new_low = None if low is None else mu - math.hypot(t * tau, mu - low)
    new_high = None if high is None else mu + math.hypot(t * tau, high - mu)
    return RandomEffects(mu, low, high, tau, new_low, new_high, float(2 * stats.t.sf(t_zero, k - 1)), k)


def combined(curves: Sequence[Evidence]) -> Evidence:
    """Several curves of one number as one: the sum's maximum (the middle of a flat one), and its 95 % limits.

    The sum's slope falls steadily, in straight pieces, so both are found exactly. ConfigError without any curve.
    """
    if not curves:
        raise ConfigError("there is no curve to combine", do="give at least one")
    if len(curves) == 1:
        return curves[0]
    left, right = _closed(curves)
    places = [curve.at for curve in curves]
    if not (left or right):
        return Evidence(float(np.mean(places)), math.inf, math.inf)
    flat_from = max(places) if left else min(places)
    at = _maximum(curves) if left and right else flat_from
    top = _log_likelihood(curves, at)
    reach = 40 * max(width for c in curves for width in (c.sd_below, c.sd_above) if math.isfinite(width))

    def above(place: float) -> float:
        return _log_likelihood(curves, place) - top + _Z**2 / 2

    end_below, end_above = min(places) - reach, max(places) + reach
    low = float(optimize.brentq(above, end_below, at)) if left else -math.inf
    high = float(optimize.brentq(above, at, end_above)) if right else math.inf
    return Evidence(at, (at - low) / _Z, (high - at) / _Z)


def _closed(curves: Sequence[Evidence]) -> tuple[bool, bool]:
    """Whether some curve speaks against very small values, and some against very large ones."""
    return any(math.isfinite(c.sd_below) for c in curves), any(math.isfinite(c.sd_above) for c in curves)


def _maximum(curves: Sequence[Evidence]) -> float:
    places = sorted(curve.at for curve in curves)
    if math.isclose(places[0], places[-1]):
        return places[0]
    slopes = [_slope(curves, place) for place in places]
    flat = [place for place, slope in zip(places, slopes, strict=True) if slope == 0]
    if flat:
        return (flat[0] + flat[-1]) / 2
    return float(optimize.brentq(lambda place: _slope(curves, place), places[0], places[-1]))


def _slope(curves: Sequence[Evidence], place: float) -> float:
    return sum((c.at - place) / (c.sd_below if place < c.at else c.sd_above) ** 2 for c in curves if place != c.at)


def _log_likelihood(curves: Sequence[Evidence], place: float) -> float:
    return -sum(((c.at - place) / (c.sd_below if place < c.at else c.sd_above)) ** 2 for c in curves) / 2


@dataclass(frozen=True, slots=True)
class _Model:
    """Every patient's curves as stretches between the curves' places, on each of which the sum of the curves is one
    parabola -(weight/2) (theta - centre)^2 - offset; arrays (patient, stretch), padded with stretches of no length.
    """

    start: Array
    stop: Array
    weight: Array
    centre: Array
    offset: Array
    near: tuple[float, float]
    far: tuple[float, float]

    @classmethod
    def of(cls, patients: Sequence[Sequence[Evidence]]) -> "_Model":
        places = [curve.at for curves in patients for curve in curves]
        parts = [_stretches(curves) for curves in patients]
        width = max(part.shape[1] for part in parts)
        fill = np.array([[math.inf], [math.inf], [0.0], [0.0], [0.0]])
        padded = np.stack([np.hstack([part, np.repeat(fill, width - part.shape[1], 1)]) for part in parts], 1)
        near, far = ((min(places) - reach, max(places) + reach) for reach in (_NEAR, _FAR))
        start, stop, weight, centre, offset = padded
        return cls(start, stop, weight, centre, offset, near, far)

    def log_likelihood(self, mu: Array, tau: Array) -> Array:
        """Summed over patients, each integrated over theta ~ N(mu, tau^2); mu and tau (above 0) broadcast."""
        mu, tau = np.asarray(mu)[..., None, None], np.asarray(tau)[..., None, None]
        shrink = 1 + self.weight * tau**2
        sd = tau / np.sqrt(shrink)
        mean = (self.centre * self.weight * tau**2 + mu) / shrink
        peak = -self.offset - self.weight * (mu - self.centre) ** 2 / (2 * shrink) - np.log(shrink) / 2
        part = _log_normal_between((self.start - mean) / sd, (self.stop - mean) / sd)
        return np.asarray(np.logaddexp.reduce(peak + part, axis=-1).sum(-1))

    def profile(self, mu: Array) -> Array:
        """The log-likelihood at each mu (n,) with the tau that suits it best, found between lattice points by a
        parabola."""
        surface = self.log_likelihood(mu[:, None], _TAUS)
        best = np.clip(surface.argmax(1), 1, len(_TAUS) - 2)
        left, here, right = (surface[np.arange(len(mu)), best + step] for step in (-1, 0, 1))
        bend = left - 2 * here + right
        top = here - np.divide((right - left) ** 2, 8 * bend, out=np.zeros_like(here), where=bend < -1e-12)
        return np.asarray(np.where((here >= left) & (here >= right), top, surface.max(1)))


def _stretches(curves: Sequence[Evidence]) -> Array:
    """Rows start, stop, weight, centre, offset (5, stretches) of one patient."""
    edges = np.array([-math.inf, *sorted(curve.at for curve in curves), math.inf])
    at, below, above = (np.array([getattr(c, name) for c in curves]) for name in ("at", "sd_below", "sd_above"))
    # On a stretch that ends at or before a curve's place, that curve shows its lower side.
    precision = np.where(edges[1:, None] <= at, 1 / below**2, 1 / above**2)
    weight = precision.sum(1)
    centre = np.divide((precision * at).sum(1), weight, out=np.zeros_like(weight), where=weight > 0)
    offset = (precision * (at - centre[:, None]) ** 2).sum(1) / 2
    return np.stack([edges[:-1], edges[1:], weight, centre, offset])


def _log_normal_between(low: Array, high: Array) -> Array:
    """Log of the standard normal's mass between low and high, exact in both tails; -inf where there is none."""
    flip = low > 0
    low, high = np.where(flip, -high, low), np.where(flip, -low, high)
    upper = special.log_ndtr(high)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = -np.expm1(np.minimum(special.log_ndtr(low) - upper, 0.0))
        return np.asarray(np.where(share > 0, upper + np.log(share), -math.inf))


def _restricted_tau(model: _Model) -> float:
    """The tau of the greatest likelihood with mu integrated out: REML, for curves that know both sides."""

    def integrated(tau: float) -> float:
        span = model.near[0] - 5 * tau, model.near[1] + 5 * tau
        for _ in range(2):  # once to find where the likelihood lies, once to integrate it there
            mu = np.linspace(*span, _MU_STEPS)
            found = model.log_likelihood(mu, np.array(tau))
            best, step = int(found.argmax()), mu[1] - mu[0]
            inside = mu[found > found[best] - 30]
            span = float(inside[0] - step), float(inside[-1] + step)
        return float(np.logaddexp.reduce(found)) + math.log(step)

    coarse = _TAUS[::4]
    best = int(np.argmax([integrated(tau) for tau in coarse]))
    low, high = coarse[max(best - 1, 0)], coarse[min(best + 1, len(coarse) - 1)]
    found = optimize.minimize_scalar(
        lambda log_tau: -integrated(math.exp(log_tau)), bounds=(math.log(low), math.log(high)), method="bounded"
    )
    return math.exp(found.x)


def _argmax(value: Callable[[Array], Array], span: tuple[float, float]) -> float:
    """Where a function of one maximum has it."""
    lattice = np.linspace(*span, _MU_STEPS)
    best = int(np.argmax(value(lattice)))
    bounds = (lattice[max(best - 1, 0)], lattice[min(best + 1, _MU_STEPS - 1)])
    found = optimize.minimize_scalar(
        lambda x: -float(value(np.array([x]))[0]), bounds=bounds, method="bounded", options={"xatol": 1e-7}
    )
    return float(found.x)


def _root(function: Callable[[float], float], inside: float, end: float) -> float | None:
    """Where a function that is above 0 at `inside` passes 0 on the way to `end`; None where it does not."""
    if function(end) >= 0:
        return None
    return float(optimize.brentq(function, inside, end, xtol=1e-7))
