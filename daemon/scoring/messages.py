"""What main asks of the inference worker, and what it gets back: data that crosses between processes."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spheroidd.protocols.results import Limits, Normalisation, StackMeasurement, StackProfile
from spheroidd.protocols.stack import StackKey


@dataclass(frozen=True, slots=True)
class ScoreJob:
    """One stack to score. Normalisation PLATE without limits means: only take the histograms to lock them from."""

    key: StackKey
    normalisation: Normalisation
    limits: Mapping[str, Limits] | None
    tolerance: float

    @property
    def histograms_only(self) -> bool:
        """A control well, before its plate's limits are known."""
        return self.normalisation is Normalisation.PLATE and self.limits is None


@dataclass(frozen=True, slots=True)
class Scored:
    """What a job gave: histograms of the filtered data per channel, what the images say of themselves, and the
    measurement unless only those were asked.
    """

    key: StackKey
    histograms: dict[str, NDArray[np.int64]]
    profile: StackProfile
    measurement: StackMeasurement | None
