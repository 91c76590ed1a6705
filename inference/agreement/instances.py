"""How well objects agree with the true ones, one by one. Knows label volumes only; no network, no units."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spheroidd.protocols.errors import ConfigError

IOU = 0.5  # beyond half no object can match two others, so that nothing has to be assigned


@dataclass(frozen=True, slots=True)
class InstanceAgreement:
    """How many objects were found, how many there are, and how many of either are one and the same."""

    found: int
    true: int
    matched: int

    @property
    def f1(self) -> float:
        """2 matched / (found + true); 1 where nothing was to be found, and nothing was."""
        both = self.found + self.true
        return 2 * self.matched / both if both else 1.0


def instance_agreement(found: NDArray[np.integer[Any]], true: NDArray[np.integer[Any]]) -> InstanceAgreement:
    """Compare two label volumes of one shape, 0 the background: two objects match where their IoU is above `IOU`.

    ConfigError for other shapes, and for what is no label volume.
    """
    if found.shape != true.shape or found.dtype.kind not in "iu" or true.dtype.kind not in "iu":
        what = f"labels {found.dtype} {found.shape} and {true.dtype} {true.shape} cannot be compared"
        raise ConfigError(what, do="give both as whole numbers at one sampling")
    (_, ours, our_sizes), (_, theirs, their_sizes) = (
        np.unique(part[part != 0], return_inverse=True, return_counts=True) for part in (found, true)
    )
    shared = (found != 0) & (true != 0)
    pairs = np.stack([ours[shared[found != 0]], theirs[shared[true != 0]]])
    (at, of), both = np.unique(pairs, axis=1, return_counts=True)
    iou = both / (our_sizes[at] + their_sizes[of] - both)
    return InstanceAgreement(len(our_sizes), len(their_sizes), int(np.count_nonzero(iou > IOU)))
