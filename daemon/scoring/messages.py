"""What main asks of the inference worker, and what it gets back: data that crosses between processes."""

from collections.abc import Mapping
from dataclasses import dataclass

from spheroidd.daemon.catalog.scored_from import ScoredFrom
from spheroidd.protocols.evidence import MaskEvidence, StackLight
from spheroidd.protocols.results import Limits, Normalisation, StackMeasurement, StackProfile
from spheroidd.protocols.stack import StackKey


@dataclass(frozen=True, slots=True)
class ScoreJob:
    """One stack to score. Normalisation PLATE without limits means: only measure its light, to find them from."""

    key: StackKey
    normalisation: Normalisation
    limits: Mapping[str, Limits] | None
    tolerance: float

    @property
    def light_only(self) -> bool:
        """A control well, before its plate's limits are known."""
        return self.normalisation is Normalisation.PLATE and self.limits is None


@dataclass(frozen=True, slots=True)
class Scored:
    """What a job gave: the stack's light, what the images say of themselves, and the measurement with what its masks
    look like and what it was made from, unless only those were asked.
    """

    key: StackKey
    light: StackLight
    profile: StackProfile
    measurement: StackMeasurement | None
    masks: MaskEvidence | None = None
    origin: ScoredFrom | None = None
