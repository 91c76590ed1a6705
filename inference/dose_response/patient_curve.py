"""One fitted curve of one patient, and what it knows of its IC50: a number with limits, one side of it, or nothing.

The only module that reads a fit's status for more than its name. A censored curve is evidence, and how much of it
stands here.
"""

import math
from dataclasses import dataclass
from typing import Literal

from spheroidd.inference.dose_response import log_logistic
from spheroidd.inference.dose_response.random_effects import Evidence
from spheroidd.inference.dose_response.status_rules import SPAN
from spheroidd.protocols.dose import ALPHA, CurveStatus, DoseResponseFit
from spheroidd.protocols.errors import ConfigError

Which = Literal["rel", "abs"]  # halfway between the plateaus, or half of the control
_Z = 1.959964
_SD_MIN = 0.003  # 0.7 %: no dose is pipetted better, whatever a fit may say
EDGE_SD = 0.1  # how sharply (log10) a censored curve ends: what a curve inside its doses is commonly known to
_SIDED = (CurveStatus.CENSORED_LOW, CurveStatus.CENSORED_HIGH)


@dataclass(frozen=True, slots=True)
class PatientCurve:
    """One fitted curve, whose it is, and the doses it was fitted on (without 0)."""

    compound: str
    patient: str
    plate: str
    dose_min_um: float
    dose_max_um: float
    fit: DoseResponseFit

    def __post_init__(self) -> None:
        if not 0 < self.dose_min_um <= self.dose_max_um < math.inf:
            what = f"doses reach from {self.dose_min_um} to {self.dose_max_um} uM"
            where = f"{self.compound}, {self.patient}, plate {self.plate}"
            raise ConfigError(what, where=where, do="give the lowest and the highest dose above 0")


def evidence_of(curve: PatientCurve, which: Which = "rel") -> Evidence | None:
    """What a curve knows of its log10 IC50 in micromolar; None where that is nothing.

    - A number: its estimate and its profile limits.
    - Censored: the estimate that the fit draws, or the outermost dose where that lies beyond, known from inside only.
    - All dead: below the lowest dose. Inactive: above the highest, which for the relative IC50 is a convention.
    - Nothing: failed, or an effect without a place, or one that is there and gives no IC50.
    """
    fit = curve.fit
    if fit.status in (CurveStatus.FAILED, CurveStatus.UNPLACED):
        return None
    if fit.status is CurveStatus.INACTIVE and _has_effect(fit):
        return None
    value, lo, hi = (getattr(fit, f"ic50_{which}{end}") for end in ("", "_lo", "_hi"))
    if value is not None:
        found = Evidence(math.log10(value), _sd(lo, value), _sd(value, hi))
        return None if found.is_empty else found
    lowest, highest = math.log10(curve.dose_min_um), math.log10(curve.dose_max_um)
    if fit.status is CurveStatus.ALL_DEAD:
        return Evidence(lowest, math.inf, EDGE_SD)
    drawn = None if fit.status is CurveStatus.INACTIVE else _drawn(fit, which)
    outermost = lowest if fit.status is CurveStatus.CENSORED_LOW else highest
    at = outermost if drawn is None else min(max(drawn, lowest), highest)
    inside = lowest < at < highest
    sd = max(_delta_sd(fit), EDGE_SD) if inside else EDGE_SD
    low = fit.status is CurveStatus.CENSORED_LOW if inside and fit.status in _SIDED else at - lowest < highest - at
    return Evidence(at, math.inf, sd) if low else Evidence(at, sd, math.inf)


def _sd(lo: float | None, hi: float | None) -> float:
    """The sd whose 97.5 % point spans lo to hi; infinite where a limit is open."""
    if lo is None or hi is None or not 0 < lo <= hi < math.inf:
        return math.inf
    return max(math.log10(hi / lo) / _Z, _SD_MIN)


def _has_effect(fit: DoseResponseFit) -> bool:
    """There is an effect, and yet it is "inactive": a doubtful one lies on no side of any dose."""
    if fit.p_effect is None or fit.top is None or fit.e_max is None:
        return False
    return fit.p_effect <= ALPHA and fit.e_max <= (1 - SPAN) * fit.top


def _drawn(fit: DoseResponseFit, which: Which) -> float | None:
    """Log10 of the IC50 of the fitted curve, told or not; None where the curve never gets there."""
    if not fit.parameters:
        return None
    half = log_logistic.log_dose_at(fit.parameters, fit.parameters["d"] / 2)
    log_um = log_logistic.log_midpoint(fit.parameters) if which == "rel" else half
    return None if log_um is None else log_um / math.log(10)


def _delta_sd(fit: DoseResponseFit) -> float:
    """The sd of log10 e by the delta method; 0 where it is not known."""
    if fit.covariance is None or "e" not in fit.parameters:
        return 0.0
    at = list(fit.parameters).index("e")
    variance = fit.covariance[at][at]
    return math.sqrt(max(variance, 0.0)) / (fit.parameters["e"] * math.log(10))
