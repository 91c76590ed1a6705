"""Voxels that a network's masks share with the truth: counts that add up over wells, and what is read from them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spheroidd.inference.segmentation.segmenter import UNetSegmenter
from spheroidd.inference.training.stack import TrainingStack
from spheroidd.protocols.results import Normalisation

NORMALISATIONS = (Normalisation.STACK, Normalisation.PLATE)
"""What the first variants of a training stack are; one of a recording has the first only."""


@dataclass(frozen=True, slots=True)
class Overlap:
    """Voxels of a mask and of its truth, and those of both; the sum over wells weighs each well by its cells.

    An empty mask of an empty truth has found all there was: every figure is 1, as in `evaluate.Agreement`.
    """

    both: int = 0
    mask: int = 0
    truth: int = 0

    @classmethod
    def of(cls, mask: NDArray[np.bool_], truth: NDArray[np.bool_]) -> "Overlap":
        """Count two bool volumes of one shape."""
        return cls(*(int(np.count_nonzero(part)) for part in (mask & truth, mask, truth)))

    def __add__(self, other: "Overlap") -> "Overlap":
        return Overlap(self.both + other.both, self.mask + other.mask, self.truth + other.truth)

    @property
    def dice(self) -> float:
        """Twice the shared over the sum of both."""
        return _ratio(2 * self.both, self.mask + self.truth)

    @property
    def precision(self) -> float:
        """The part of the mask that is true."""
        return _ratio(self.both, self.mask)

    @property
    def recall(self) -> float:
        """The part of the truth that was found."""
        return _ratio(self.both, self.truth)


def stack_overlaps(segmenter: UNetSegmenter, stack: TrainingStack, variant: int = 0) -> tuple[Overlap, Overlap]:
    """Live and dead at the model's spacing, where anybody could know: probability 0.5 against half a voxel."""
    prediction = segmenter.predict(stack.variants[variant].astype(np.float32))
    live, dead = stack.fractions() >= 0.5
    known = stack.knowledge()[0] >= 0.5
    return Overlap.of((prediction.live >= 0.5) & known, live & known), Overlap.of(
        (prediction.dead >= 0.5) & known, dead & known
    )


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 1.0
