"""What is said of a compound's dose response."""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from spheroidd.protocols.phrase import phrase


class CurveStatus(StrEnum):
    """Whether, and how well, an IC50 is known. Only OK and APPROXIMATE come with a number."""

    OK = "ok"
    APPROXIMATE = "approximate"
    INACTIVE = "inactive"
    UNPLACED = "unplaced"
    ALL_DEAD = "all_dead"
    CENSORED_LOW = "censored_low"
    CENSORED_HIGH = "censored_high"
    FAILED = "failed"


class StatusWords(NamedTuple):
    """A status in a few words, when it is given, and what stands in place of an IC50 that is not told.

    "<" and ">" bound the IC50 by the lowest or the highest dose; None where there is a number.
    """

    said: str
    when: str
    instead: str | None


ALPHA = 0.05  # of the test against no effect: above it none was shown, which is no proof that there is none
STATUS_WORDS = {
    CurveStatus.OK: StatusWords(
        phrase("curve-ok"),
        "the effect is real (p <= 0.05), spans 30 points, lies inside the doses, known within tenfold",
        None,
    ),
    CurveStatus.APPROXIMATE: StatusWords(
        phrase("curve-approximate"), "the same, but its limits are further apart", None
    ),
    CurveStatus.INACTIVE: StatusWords(
        phrase("curve-inactive"),
        "no effect was shown (p > 0.05), or one too small, doubtful or the other way round",
        phrase("curve-inactive-instead"),
    ),
    CurveStatus.UNPLACED: StatusWords(
        phrase("curve-unplaced"),
        "a real effect, and no dose that could be shown to hold its IC50",
        phrase("curve-unplaced-instead"),
    ),
    CurveStatus.ALL_DEAD: StatusWords(phrase("curve-all-dead"), "at most 20 % of the control left at every dose", "<"),
    CurveStatus.CENSORED_LOW: StatusWords(
        phrase("curve-censored-low"),
        "not shown to lie above the lowest dose, and half of the control not passed later",
        "<",
    ),
    CurveStatus.CENSORED_HIGH: StatusWords(
        phrase("curve-censored-high"), "not shown to lie below the highest dose, where more than half is left", ">"
    ),
    CurveStatus.FAILED: StatusWords(
        phrase("curve-failed"), "too few points, or no fit", phrase("curve-failed-instead")
    ),
}
_SOME_EFFECT = StatusWords(phrase("curve-small"), "", phrase("curve-small-instead"))


@dataclass(frozen=True, slots=True)
class DoseResponseFit:
    """One curve: its status in a word and in a sentence, and its numbers.

    Doses are in `dose_unit`, micromolar for a plate's wells and None where a table does not say; responses in the unit
    of the data (percent of the untreated median for V_control).
    `ic50_rel` is the dose halfway between the plateaus (EC50), `ic50_abs` the dose where the response is half of the
    control's; the bounds are 95 % profile-likelihood limits. None wherever a number would say more than is known; a
    bound is None where the profile does not close on that side. `parameters` are those of `model`, for drawing.
    `residual_df` are the degrees of freedom of `residual_sd`.
    """

    name: str
    status: CurveStatus
    reason: str
    model: str  # "LL.3", "LL.4" or "LL.5"; of counts also "LL.2"
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
    dose_unit: str | None = "uM"

    @property
    def words(self) -> StatusWords:
        """The status in words; "no effect shown" is only said where the test found none."""
        tested = self.p_effect is not None and self.p_effect <= ALPHA
        return _SOME_EFFECT if tested and self.status is CurveStatus.INACTIVE else STATUS_WORDS[self.status]
