"""How well a plate's untreated and killed controls part: robust Z', SSMD, signal window, CV. Pure functions.

Robust means median in place of mean and 1.4826 MAD in place of the standard deviation: one bad control of eight hardly
moves them. The CV is the classical one (sd / mean), because it shall move.

- Z' = 1 - 3 (s_u + s_k) / (m_u - m_k): Zhang, Chung & Oldenburg, J. Biomol. Screen. 4:67 (1999).
- SSMD = (m_u - m_k) / sqrt(s_u^2 + s_k^2): Zhang, Genomics 89:552 (2007).
- signal window = (m_u - 3 s_u - (m_k + 3 s_k)) / s_u: Sittampalam et al., J. Biomol. Screen. 2:159 (1997).

u is untreated, k is killed; more viability is more signal. A plate whose untreated controls do not lie above the killed
ones has no such figure, rather than one with a turned sign.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

MIN_CONTROLS = 3  # of each kind: two values have a distance and no spread
MAD_TO_SD = 1.4826  # of normal data
LARGEST = 1e9  # no viability, in percent or as a fraction, is as large; keeps squares within floats


@dataclass(frozen=True, slots=True)
class ControlFigures:
    """What the controls of one group of wells say, in the metric's own unit; None where it cannot be had.

    `control_cv` is in percent, the rest of the ratios are plain numbers.
    """

    n_negative: int
    n_positive: int
    negative_median: float | None
    positive_median: float | None
    z_prime: float | None
    ssmd: float | None
    signal_window: float | None
    control_cv: float | None

    @property
    def separated(self) -> bool | None:
        """Whether untreated lie above killed controls; None where one of the medians is missing."""
        if self.negative_median is None or self.positive_median is None:
            return None
        return self.negative_median > self.positive_median


def control_figures(negative: Sequence[float], positive: Sequence[float]) -> ControlFigures:
    """The figures of untreated (`negative`) against killed (`positive`) controls, finite numbers each.

    Medians need one value, a spread needs MIN_CONTROLS. Where neither kind spreads at all Z' is 1, and SSMD and signal
    window, which divide by a spread, are None.
    """
    n_median, p_median = (statistics.median(values) if values else None for values in (negative, positive))
    enough = len(negative) >= MIN_CONTROLS and len(positive) >= MIN_CONTROLS
    z_prime = ssmd = window = None
    if enough and n_median is not None and p_median is not None and n_median > p_median:
        n_sd, p_sd, distance = robust_sd(negative), robust_sd(positive), n_median - p_median
        z_prime = _ratio(distance - 3 * (n_sd + p_sd), distance)
        ssmd = _ratio(distance, math.hypot(n_sd, p_sd))
        window = _ratio(distance - 3 * (n_sd + p_sd), n_sd)
    cv = coefficient_of_variation(negative)
    return ControlFigures(len(negative), len(positive), n_median, p_median, z_prime, ssmd, window, cv)


def robust_sd(values: Sequence[float]) -> float:
    """1.4826 times the median distance from the median; 0 for a single value."""
    centre = statistics.median(values)
    return MAD_TO_SD * statistics.median(abs(value - centre) for value in values)


def coefficient_of_variation(values: Sequence[float]) -> float | None:
    """100 sd / mean, percent; None for fewer than MIN_CONTROLS values or where their mean is not above 0."""
    if len(values) < MIN_CONTROLS:
        return None
    mean = math.fsum(values) / len(values)
    sd = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
    return _ratio(100 * sd, mean) if mean > 0 else None


def known(value: float | None) -> float | None:
    """The value, or None for what is not a number that a viability can have."""
    return None if value is None or not math.isfinite(value) or abs(value) > LARGEST else float(value)


def _ratio(numerator: float, denominator: float) -> float | None:
    """None where the division has no finite answer."""
    if denominator == 0:
        return None
    ratio = numerator / denominator
    return ratio if math.isfinite(ratio) else None
