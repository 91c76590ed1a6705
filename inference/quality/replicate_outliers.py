"""Wells that were treated alike and do not agree. Flags only: no value is changed, no well is left out.

A robust z divides a well's distance from the median of its replicates by their spread. Two or three replicates have no
spread worth the name: the MAD of three points is the smaller of two gaps, so of 50, 51, 60 the last has z = 6.
Therefore spread is pooled: the median difference between two wells treated alike, over this group and those whose level
is nearest to it, until `POOL_FREEDOM` degrees of freedom are together. Nearest in level, because wells around half
effect vary more than killed ones; within the pool as a part of the level, because seeding and stain act as factors. For
normal data the pooled spread is the standard deviation, as 1.4826 MAD is.

Even so it is an estimate, and z is given as the normal deviate that is as rare as this distance is under Student's t.
On simulated plates without an outlier (120 to 300 wells, 2 to 4 replicates) 1 to 3 of 1000 wells exceed 3.5; the plain
ratio let 4 to 9 through.
"""

import itertools
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

PAIR_TO_SD = 1.0483  # 1 / (0.6745 sqrt(2)): median |difference of two| of normal data to their sd
POOL_FREEDOM = 24
MIN_FREEDOM = 5  # with less the spread itself is a guess, and no well is judged
EFFICIENCY = 0.6  # of a median of differences: so many degrees of freedom it is worth for each that it has
LEVEL_FLOOR = 0.1  # of the highest level: below it wells no longer vary in proportion


class Deviant(NamedTuple):
    """One well that lies `z` robust standard deviations from its replicates' median."""

    well: str
    z: float
    value: float
    median: float
    n: int


class Spread(NamedTuple):
    """A group's standard deviation and how many degrees of freedom it rests on."""

    sd: float
    freedom: int


def deviants(
    groups: Sequence[Mapping[str, float]], smallest_spread: float, threshold: float = 3.5
) -> list[Deviant] | None:
    """The wells of each group (value by well) further than `threshold` from its median; None where none can be judged.

    Of two replicates that differ too much both are given, for nobody can say which is wrong. No spread is taken to be
    below `smallest_spread`: wells that agree to the last digit must not make outliers of those that do not quite.
    """
    groups = [group for group in groups if len(group) > 1]
    levels = [statistics.median(group.values()) for group in groups]
    spreads = [pooled_spread(number, groups, levels) for number in range(len(groups))]
    if not any(spread.freedom >= MIN_FREEDOM for spread in spreads):
        return None
    return [
        one
        for group, spread in zip(groups, spreads, strict=True)
        if spread.freedom >= MIN_FREEDOM
        for one in _far(group, Spread(max(spread.sd, smallest_spread), spread.freedom), threshold)
    ]


def _far(group: Mapping[str, float], spread: Spread, threshold: float) -> list[Deviant]:
    from scipy.special import ndtri, stdtr

    median = statistics.median(group.values())
    # The distance of two wells from their midpoint is half their difference, which has sd 1/sqrt(2) of a well's.
    scale = spread.sd / 2**0.5 if len(group) == 2 else spread.sd
    found = []
    for well, value in group.items():
        if abs(value - median) <= threshold * scale:
            continue  # t is never rarer than normal; also where nothing spreads and nothing deviates
        distance = abs(value - median) / scale if scale > 0 else 1e9
        z = -float(ndtri(max(stdtr(EFFICIENCY * spread.freedom, -distance), 1e-300)))
        if z > threshold:
            found.append(Deviant(well, z if value > median else -z, value, median, len(group)))
    return found


def pooled_spread(number: int, groups: Sequence[Mapping[str, float]], levels: Sequence[float]) -> Spread:
    """The spread of one of the groups, pooled with those nearest in level (their median); see the module."""
    floor = LEVEL_FLOOR * max(abs(level) for level in levels)
    # This group first: a large one needs no other.
    nearest = sorted(range(len(groups)), key=lambda i: (i != number, abs(levels[i] - levels[number])))
    pooled: list[Sequence[float]] = []
    freedom = 0
    for other in nearest:
        if freedom >= POOL_FREEDOM:
            break
        scale = (abs(levels[other]) + floor) or 1.0
        pooled.append([value / scale for value in groups[other].values()])
        freedom += len(groups[other]) - 1
    return Spread(pair_spread(pooled) * (abs(levels[number]) + floor), freedom)


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
