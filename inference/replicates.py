"""Wells that were treated alike and do not agree. Flags only: no value is changed, no well is left out.

A robust z divides a well's distance from the median of its replicates by their spread. Two or three replicates have no
spread worth the name: the MAD of three points is the smaller of two gaps, so of 50, 51, 60 the last has z = 6.
Therefore spread is pooled: the median difference between two wells treated alike, over this group and those whose level
is nearest to it, until `POOL_FREEDOM` degrees of freedom are together. Nearest in level, because wells around half
effect vary more than killed ones. For normal data the pooled spread is the standard deviation, as 1.4826 MAD is.
"""

import itertools
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

PAIR_TO_SD = 1.0483  # 1 / (0.6745 sqrt(2)): median |difference of two| of normal data to their sd
POOL_FREEDOM = 12
MIN_FREEDOM = 5  # with less the spread itself is a guess, and no well is judged


class Deviant(NamedTuple):
    """One well that lies `z` pooled robust standard deviations from its replicates' median."""

    well: str
    z: float
    value: float
    median: float
    n: int


def deviants(
    groups: Sequence[Mapping[str, float]], smallest_spread: float, threshold: float = 3.5
) -> list[Deviant] | None:
    """The wells of each group (value by well) further than `threshold` from its median; None where none can be judged.

    Of two replicates that differ too much both are given, for nobody can say which is wrong. No spread is taken to be
    below `smallest_spread`: wells that agree to the last digit must not make outliers of those that do not quite.
    """
    groups = [group for group in groups if len(group) > 1]
    found: list[Deviant] = []
    judged = False
    for group in groups:
        spread = _pooled_spread(group, groups)
        if spread is None:
            continue
        judged = True
        found += _far(group, max(spread, smallest_spread), threshold)
    return found if judged else None


def _far(group: Mapping[str, float], spread: float, threshold: float) -> list[Deviant]:
    median = statistics.median(group.values())
    # The distance of two wells from their midpoint is half their difference, which has sd 1/sqrt(2) of a well's.
    scale = spread / 2**0.5 if len(group) == 2 else spread
    if scale <= 0:
        return []
    z_values = {well: (value - median) / scale for well, value in group.items()}
    return [Deviant(w, z, group[w], median, len(group)) for w, z in z_values.items() if abs(z) > threshold]


def _pooled_spread(group: Mapping[str, float], groups: Sequence[Mapping[str, float]]) -> float | None:
    level = statistics.median(group.values())
    others = sorted(groups, key=lambda other: (other is not group, abs(statistics.median(other.values()) - level)))
    pooled: list[Sequence[float]] = []
    freedom = 0
    for other in others:
        if freedom >= POOL_FREEDOM:
            break
        pooled.append(tuple(other.values()))
        freedom += len(other) - 1
    return pair_spread(pooled) if freedom >= MIN_FREEDOM else None


def pair_spread(groups: Iterable[Sequence[float]]) -> float:
    """The standard deviation within groups: the median difference of two values of one group, scaled.

    A group of n weighs by its n - 1 degrees of freedom. 0 where no group has two values.
    """
    pairs = sorted((abs(a - b), 2 / len(group)) for group in groups for a, b in itertools.combinations(group, 2))
    half = sum(weight for _, weight in pairs) / 2
    reached = 0.0
    for difference, weight in pairs:
        reached += weight
        if reached >= half:
            return PAIR_TO_SD * difference
    return 0.0
