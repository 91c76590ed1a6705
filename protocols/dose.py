"""What is said of a compound's dose response."""

from dataclasses import dataclass
from enum import StrEnum


class CurveStatus(StrEnum):
    """Whether, and how well, an IC50 is known. Only OK and APPROXIMATE come with a number."""

    OK = "ok"
    APPROXIMATE = "approximate"  # inside the doses, but the interval is wider than tenfold
    INACTIVE = "inactive"  # no effect, or one too small to place
    ALL_DEAD = "all_dead"  # dead at every dose: the IC50 lies below them all
    CENSORED_LOW = "censored_low"  # below the lowest dose
    CENSORED_HIGH = "censored_high"  # above the highest dose
    FAILED = "failed"  # too few points, or no fit


@dataclass(frozen=True, slots=True)
class DoseResponseFit:
    """One curve: its status in a word and in a sentence, and its numbers.

    Doses are in micromolar, responses in the unit of the data (percent of the untreated median for V_control).
    `ic50_rel` is the dose halfway between the plateaus (EC50), `ic50_abs` the dose where the response is half of the
    control's; the bounds are 95 % profile-likelihood limits. None wherever a number would say more than is known; a
    bound is None where the profile does not close on that side. `parameters` are those of `model`, for drawing.
    `residual_df` are the degrees of freedom of `residual_sd`.
    """

    name: str
    status: CurveStatus
    reason: str
    model: str  # "LL.3", "LL.4" or "LL.5"
    ic50_rel: float | None
    ic50_rel_lo: float | None
    ic50_rel_hi: float | None
    ic50_abs: float | None
    ic50_abs_lo: float | None
    ic50_abs_hi: float | None
    hill: float | None
    top: float | None
    bottom: float | None
    auc: float | None
    e_max: float | None
    n: int
    p_effect: float | None
    parameters: dict[str, float]
    covariance: tuple[tuple[float, ...], ...] | None = None  # of `parameters`, in their order
    residual_sd: float | None = None
    warnings: tuple[str, ...] = ()  # what a person should know: "hormesis", "heavy outliers", ...
    residual_df: int | None = None
