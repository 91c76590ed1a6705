"""Whether a viability depends on where on the plate a well is, or when it was imaged. Pure functions.

Position is only told from treatment by wells that were treated alike: the edge from untreated controls on both sides of
it, gradients and drift from pairs of wells within each group (untreated controls, replicates of a dose). A B-score is
not provided: it takes a row's or column's median as position alone, which holds on randomised single-dose plates and
would remove the dose response from a plate whose doses run along its rows.
"""

import itertools
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from spheroidd.inference.quality.replicate_outliers import pair_spread
from spheroidd.protocols.well import WellId

PLATE_FORMATS = ((8, 12), (16, 24), (32, 48))  # rows, columns of the 96-, 384- and 1536-well plate
MIN_SIDE = 2  # wells on each side of the edge


class EdgeRatio(NamedTuple):
    """Median of the edge wells over that of the inner ones, how many there are, and whether chance explains it."""

    ratio: float
    n_edge: int
    n_inner: int
    beyond_chance: bool


class Trend(NamedTuple):
    """How much a relative value changes over the whole span of a position (0.2: a fifth more), and its z."""

    change: float
    z: float
    n_wells: int


def plate_format(wells: Iterable[WellId]) -> tuple[int, int]:
    """Rows and columns of the smallest SBS plate that has these wells."""
    wells = tuple(wells)
    rows = max((well.row for well in wells), default=0)
    columns = max((well.column for well in wells), default=0)
    return next(found for found in PLATE_FORMATS if rows < found[0] and columns < found[1])


def is_edge(well: WellId, plate: tuple[int, int]) -> bool:
    """Whether a well lies in the outermost row or column of a plate of so many rows and columns."""
    return well.row in (0, plate[0] - 1) or well.column in (0, plate[1] - 1)


def edge_ratio(relative: Mapping[WellId, float], plate: tuple[int, int]) -> EdgeRatio | None:
    """Compare untreated controls (relative to their median) on the edge with inner ones.

    None with fewer than MIN_SIDE on a side or an inner median that is not above 0. Beyond chance is what a t-test of
    the two medians says at 5 %, its spread that of pairs on the same side: 1.25 is a median's standard error over a
    mean's.
    """
    edge = [value for well, value in relative.items() if is_edge(well, plate)]
    inner = [value for well, value in relative.items() if not is_edge(well, plate)]
    if min(len(edge), len(inner)) < MIN_SIDE:
        return None
    middle, centre = statistics.median(edge), statistics.median(inner)
    if not centre > 0 or not math.isfinite(middle / centre):
        return None
    spread, freedom = pair_spread((edge, inner)), len(edge) + len(inner) - 2
    error = 1.2533 * spread * math.sqrt(1 / len(edge) + 1 / len(inner))
    beyond = abs(middle - centre) > _t_quantile(freedom) * error
    return EdgeRatio(middle / centre, len(edge), len(inner), beyond)


def trend(groups: Sequence[Sequence[tuple[float, float]]]) -> Trend | None:
    """A monotone trend of (position, relative value) within groups of wells that were treated alike.

    The slope is the median over all pairs of a group that differ in position (Theil-Sen), its z Kendall's S summed over
    groups (Hirsch, Slack & Smith, Water Resour. Res. 18:107, 1982). None with fewer than 6 wells in pairs.
    """
    used = [group for group in groups if len({position for position, _ in group}) > 1]
    n_wells = sum(len(group) for group in used)
    if n_wells < 6:
        return None
    slopes: list[float] = []
    score, variance = 0, 0.0
    for group in used:
        for (x, a), (y, b) in itertools.combinations(group, 2):
            if x != y:
                slopes.append((b - a) / (y - x))
                score += ((b > a) - (b < a)) * (1 if y > x else -1)
        variance += _kendall_variance([position for position, _ in group])
    positions = [position for group in used for position, _ in group]
    z = (score - math.copysign(1, score)) / math.sqrt(variance) if score and variance > 0 else 0.0
    return Trend(statistics.median(slopes) * (max(positions) - min(positions)), z, n_wells)


def _kendall_variance(positions: Sequence[float]) -> float:
    """Of Kendall's S where positions may be tied and values are not."""
    n, ties = len(positions), [positions.count(position) for position in set(positions)]
    return (n * (n - 1) * (2 * n + 5) - sum(t * (t - 1) * (2 * t + 5) for t in ties)) / 18


def _t_quantile(freedom: int) -> float:
    """The 97.5 % quantile of Student's t."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 0.975))
