"""How sure V count is: the interval that holds the live share of all cells in the field in nine of ten fields.

Who counts every cell makes no error. A network misses cells, takes noise for some, and does either more often to one
kind than to the other: on the logarithm of live over dead its error has a mean, a part that shrinks with the cells
counted as a count's does, and a part that does not, which grows with how foreign the images are to it. The three were
measured on emulated plates as hard as real ones (`python -m bench.count_interval`; docs/network-figures.md), of each
network by its digest. It says nothing of cells beyond the field, nor of what another field would have shown.
"""

import math
from collections.abc import Collection
from typing import NamedTuple

from spheroidd.protocols.phrase import phrase
from spheroidd.protocols.results import StackMeasurement
from spheroidd.protocols.trust import TrustFlag

NOT_MEASURED = phrase("counts-not-measured")
TOO_FOREIGN = phrase("counts-too-foreign")
DOUBTFUL = phrase("counts-doubtful")

_REACH = 1.645  # standard deviations on either side, of nine in ten
_HALF = 0.5  # a cell: what is added to both counts, so that none found is not none there


class CountErrors(NamedTuple):
    """Of ln(live / dead), true less counted: its mean, and the parts of its standard deviation.

    `counting` times the square root of 1 / live + 1 / dead, and `foreign` for each unit of the foreign score, which was
    `most_foreign` at most; `unknown` is the score that is taken where a row has none.
    """

    mean: float
    counting: float
    foreign: float
    most_foreign: float
    unknown: float

    def around(self, n_live: int, n_dead: int, foreign_score: float | None) -> tuple[float, float]:
        """The ends of the interval, 0 to 1, around n_live / (n_live + n_dead)."""
        live, dead = n_live + _HALF, n_dead + _HALF
        score = self.unknown if foreign_score is None else foreign_score
        middle = math.log(live / dead) + self.mean
        sd = math.hypot(self.counting * math.sqrt(1 / live + 1 / dead), self.foreign * score)
        low, high = (1 / (1 + math.exp(-(middle + side * _REACH * sd))) for side in (-1, 1))
        n = n_live + n_dead
        share = n_live / n
        # Less than half a cell is none; and what was counted lies in its own interval.
        low, high = (0.0 if low * n < _HALF else low), (1.0 if (1 - high) * n < _HALF else high)
        return min(low, share), max(high, share)


class CountInterval(NamedTuple):
    """The ends, 0 to 1; or None, and why. All three are None where nothing was counted."""

    low: float | None = None
    high: float | None = None
    reason: str | None = None


MEASURED = {
    "a305e326bdb2826ad83e75f7e863536511f42923e6d54b9fffee13eed1419d13": CountErrors(-0.053, 0.403, 0.332, 5.356, 1.438),
}
"""By the digest of a network's weights."""


_HELD = frozenset(
    (
        TrustFlag.FOREIGN,
        TrustFlag.CELLS_SMALL,
        TrustFlag.CELLS_LARGE,
        TrustFlag.OBJECT_SIZE,
        TrustFlag.OUT_OF_FOCUS,
        TrustFlag.PIXEL_SIZE,
        TrustFlag.DRIFT,
        TrustFlag.V_CONTROL_HIGH,  # no counts in it
    )
)
"""Doubts under which counts were held against a truth: the plates of `CountErrors` have rows with each."""


def count_interval(measured: StackMeasurement, flags: Collection[TrustFlag]) -> CountInterval:
    """The interval of a row's V count, given what its images were judged to be."""
    n_live, n_dead = measured.n_live, measured.n_dead
    if n_live is None or n_dead is None or n_live + n_dead == 0:
        return CountInterval()
    errors = MEASURED.get(measured.model_sha256)
    if errors is None:
        return CountInterval(reason=NOT_MEASURED)
    if (measured.foreign_score or 0.0) > errors.most_foreign:
        return CountInterval(reason=TOO_FOREIGN)
    if not _HELD.issuperset(flags):
        return CountInterval(reason=DOUBTFUL)
    return CountInterval(*errors.around(n_live, n_dead, measured.foreign_score))
