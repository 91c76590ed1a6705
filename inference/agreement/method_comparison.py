"""How well estimates agree with references: r, MAE, R2, Bland-Altman, with intervals that know of patients.

Wells of one patient are not independent, so an interval comes from a bootstrap that draws whole patients (the cluster
bootstrap; Davison and Hinkley 1997, 3.8), percentile limits. With fewer than three patients there is none: two tell
next to nothing of how others differ.
"""

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from spheroidd.protocols.errors import ConfigError

DRAWS, COVERAGE = 1000, 0.95
LEAST_GROUPS = 3
Floats = NDArray[np.float64]
Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class PairedFigures:
    """Estimates beside references, in their own unit; None where a figure is not defined.

    `pearson_r` and `r2` need at least 3 pairs and a reference that varies; `r2` is 1 - SSE/SST of the identity, so it
    falls below 0 for estimates worse than the references' mean. `bias` is the mean of estimate - reference, and the
    limits of agreement are bias -+ 1.96 sd (Bland and Altman 1986). `intervals` are 95 %, by figure's name.
    """

    n: int
    n_groups: int
    mae: float | None
    bias: float | None
    loa_low: float | None
    loa_high: float | None
    pearson_r: float | None
    r2: float | None
    intervals: dict[str, Interval] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure over wells: mean, sd (n - 1), median, and the mean's 95 % interval over patients where there is one."""

    n: int
    n_groups: int
    mean: float | None
    sd: float | None
    median: float | None
    mean_lo: float | None = None
    mean_hi: float | None = None


def paired_figures(
    estimates: Sequence[float], references: Sequence[float], groups: Sequence[Hashable], *, seed: int = 0
) -> PairedFigures:
    """Agreement of finite estimates with finite references; `groups` names each pair's patient."""
    given, truth = _columns(groups, estimates, references)
    figures = {name: figure(given, truth) for name, figure in _FIGURES.items()}
    intervals = clustered_intervals(_FIGURES, (given, truth), groups, seed=seed)
    return PairedFigures(len(given), len(set(groups)), **figures, intervals=intervals)


def spread(values: Sequence[float], groups: Sequence[Hashable], *, seed: int = 0) -> Spread:
    """Mean, sd and median of one figure over wells, and how sure the mean is when patients are drawn anew."""
    (column,) = _columns(groups, values)
    if not len(column):
        return Spread(0, 0, None, None, None)
    sd = float(column.std(ddof=1)) if len(column) > 1 else None
    bounds = clustered_intervals({"mean": lambda v: float(v.mean())}, (column,), groups, seed=seed)
    low, high = bounds.get("mean", (None, None))
    return Spread(len(column), len(set(groups)), float(column.mean()), sd, float(np.median(column)), low, high)


def clustered_intervals(
    figures: dict[str, Callable[..., float | None]],
    columns: tuple[Floats, ...],
    groups: Sequence[Hashable],
    *,
    seed: int = 0,
    draws: int = DRAWS,
    coverage: float = COVERAGE,
) -> dict[str, Interval]:
    """Percentile limits of each figure when whole groups are drawn with replacement; empty for fewer than 3 groups.

    A figure that is undefined in more than a tenth of the draws gets none.
    """
    members = [np.flatnonzero([one == group for one in groups]) for group in dict.fromkeys(groups)]
    if len(members) < LEAST_GROUPS:
        return {}
    rng = np.random.default_rng(seed)
    found: dict[str, list[float]] = {name: [] for name in figures}
    for _ in range(draws):
        rows = np.concatenate([members[n] for n in rng.integers(len(members), size=len(members))])
        for name, figure in figures.items():
            value = figure(*(column[rows] for column in columns))
            if value is not None:
                found[name].append(value)
    tail = 100 * (1 - coverage) / 2
    return {
        name: (float(np.percentile(values, tail)), float(np.percentile(values, 100 - tail)))
        for name, values in found.items()
        if len(values) >= 0.9 * draws
    }


def _columns(groups: Sequence[Hashable], *columns: Sequence[float]) -> tuple[Floats, ...]:
    found = tuple(np.asarray(column, np.float64) for column in columns)
    if any(column.shape != (len(groups),) or not np.isfinite(column).all() for column in found):
        shapes = ", ".join(str(column.shape) for column in found)
        do = "leave out what is not known, and give each pair its patient"
        raise ConfigError(f"figures {shapes} of {len(groups)} wells cannot be paired, or are not finite", do=do)
    return found


def _mae(given: Floats, truth: Floats) -> float | None:
    return float(np.abs(given - truth).mean()) if len(given) else None


def _bias(given: Floats, truth: Floats) -> float | None:
    return float((given - truth).mean()) if len(given) else None


def _limit(given: Floats, truth: Floats, side: int) -> float | None:
    error = given - truth
    return float(error.mean() + side * 1.96 * error.std(ddof=1)) if len(given) > 1 else None


def _pearson(given: Floats, truth: Floats) -> float | None:
    if len(given) < 3 or not np.ptp(given) > 0 or not np.ptp(truth) > 0:
        return None
    a, b = given - given.mean(), truth - truth.mean()
    product = float(np.sqrt((a**2).sum()) * np.sqrt((b**2).sum()))
    return min(1.0, max(-1.0, float((a * b).sum()) / product)) if product > 0 else None


def _r2(given: Floats, truth: Floats) -> float | None:
    total = float(((truth - truth.mean()) ** 2).sum()) if len(truth) else 0.0
    if len(given) < 3 or not total > 0:
        return None
    value = 1 - float(((given - truth) ** 2).sum()) / total
    return value if math.isfinite(value) else None


_FIGURES: dict[str, Callable[..., float | None]] = {
    "mae": _mae,
    "bias": _bias,
    "loa_low": lambda given, truth: _limit(given, truth, -1),
    "loa_high": lambda given, truth: _limit(given, truth, 1),
    "pearson_r": _pearson,
    "r2": _r2,
}
