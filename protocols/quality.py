"""What is said of the quality of a stack and of a plate."""

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """How far a plate or a stack can be trusted."""

    PASS = "pass"
    WARN = "warn"
    FAIL = "fail"
    UNKNOWN = "unknown"  # what it would take to judge is missing; the reason says what


@dataclass(frozen=True, slots=True)
class QualityFlag:
    """One finding: a stable code, how bad it is, where (well names, empty for the whole plate), what, what to do."""

    code: str  # "edge-effect", "control-cv", "outlier", "out-of-focus", "saturated", "bleached", "drifted", ...
    verdict: Verdict
    wells: tuple[str, ...]
    what: str
    do: str


@dataclass(frozen=True, slots=True)
class PlateQuality:
    """A plate's figures, None where they cannot be had, its flags, and the verdict with its reasons.

    `z_prime` and `ssmd` are the robust ones (median, 1.4826 MAD) of the untreated against the kill controls,
    `control_cv` (percent) and `edge_ratio` (edge/inner median) are of the untreated controls.
    """

    plate: str
    metric: str
    verdict: Verdict
    reasons: tuple[str, ...]
    n_negative: int
    n_positive: int
    negative_median: float | None
    positive_median: float | None
    z_prime: float | None
    ssmd: float | None
    signal_window: float | None
    control_cv: float | None
    edge_ratio: float | None
    flags: tuple[QualityFlag, ...]
