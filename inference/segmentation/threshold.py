"""Bright is a cell, a round spot its centre: the baseline that a network must beat, without weights or torch.

The spots are those of Lindeberg's blob detector: minima of the scale-normalised Laplacian of a Gaussian
(10.1023/A:1008045108935), at the one scale that fits a cell.
"""

import math
from functools import partial

import numpy as np
from numpy.typing import NDArray

from spheroidd.protocols.errors import ModelError
from spheroidd.protocols.ports import Prediction
from spheroidd.protocols.results import Precision

NAME = "threshold"
DEFAULT_THRESHOLD = 1.0

_RADIUS_UM = 5.6  # between a dead nucleus (5) and a live body (6.3)
_TRUNCATE = 4.0  # sigmas of the Laplacian's Gaussian that are looked at
_BALL = 0.925  # what the Laplacian at sigma = radius / sqrt(3) answers at the centre of a ball that is 1 brighter
_CONTRAST = 1.0  # sd by which a lone cell rises above its surroundings; the counter takes 0.3 of that for a cell
_STEEPNESS = 8.0  # per sd: from 2 % to 98 % within one sd, so that masks at other samplings have smooth borders


class ThresholdSegmenter:
    """A voxel brighter than `threshold` is a cell, whichever its neighbours are.

    `threshold` is in units of the normalised volume: standard deviations above the mean of the clipped channel. The
    density has a peak where a spot is as wide as a cell; its sum is not a number of cells.
    """

    def __init__(
        self, threshold: float = DEFAULT_THRESHOLD, spacing_um: tuple[float, float, float] = (1.0, 1.0, 1.0)
    ) -> None:
        self._threshold, self._spacing_um = threshold, spacing_um

    @classmethod
    def named(cls, model: str) -> "ThresholdSegmenter":
        """The segmenter that "threshold" or "threshold:1.5" names; ModelError where the number is none."""
        _, colon, text = model.partition(":")
        try:
            threshold = float(text) if colon else DEFAULT_THRESHOLD
        except ValueError:
            threshold = math.nan
        if not math.isfinite(threshold):
            do = f'write "{NAME}", or "{NAME}:1.5" for 1.5 standard deviations above the mean'
            raise ModelError(f"{text!r} is no threshold", where=model, do=do)
        return cls(threshold)

    @property
    def spacing_um(self) -> tuple[float, float, float]:
        """As given."""
        return self._spacing_um

    @property
    def halo(self) -> int:
        """As far as the spots' filter reaches."""
        return max(math.ceil(_TRUNCATE * sigma) + 1 for sigma in self._sigmas())

    @property
    def sha256(self) -> str:
        """A threshold has no weights; this says which one it was."""
        return f"{NAME}-{self._threshold:g}"

    @property
    def precision(self) -> Precision:
        """Single, as its input."""
        return Precision.FP32

    def predict(self, region: NDArray[np.float32]) -> Prediction:
        """Probability 0.5 at the threshold, rising by the logistic function; region (2, z, y, x)."""
        live, dead = (
            (1 / (1 + np.exp(((self._threshold - channel) * _STEEPNESS).clip(-80, 80)))).astype(np.float32)
            for channel in region
        )
        return Prediction(live, dead, *(self._spots(channel) for channel in region))

    def _sigmas(self) -> list[float]:
        """In voxels along each axis."""
        return [_RADIUS_UM / math.sqrt(3) / step for step in self._spacing_um]

    def _spots(self, channel: NDArray[np.float32]) -> NDArray[np.float32]:
        """A density whose peaks are the centres of spots: as high as a lone cell's where one is _CONTRAST brighter."""
        from scipy import ndimage  # half a second to import, and a run's main process only asks for names

        from spheroidd.inference.segmentation.objects import lone_peak

        smooth = partial(ndimage.gaussian_filter, channel, self._sigmas(), mode="nearest", truncate=_TRUNCATE)
        orders = 2 * np.eye(3, dtype=int)
        # Derivatives are by voxels: with sigma in voxels too, each is normalised for its own axis.
        normalised = -sum(
            sigma**2 * smooth(order=list(order)) for sigma, order in zip(self._sigmas(), orders, strict=True)
        )
        height = lone_peak(self._spacing_um) / (_BALL * _CONTRAST)
        spots: NDArray[np.float32] = (normalised * height).clip(0).astype(np.float32)
        return spots


def is_threshold(model: str | None) -> bool:
    """Whether a model's name means a threshold and no network."""
    return model is not None and model.partition(":")[0] == NAME
