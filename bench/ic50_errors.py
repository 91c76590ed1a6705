"""Fitted IC50s against true ones: what a screen's figures are made of.

In range is a compound whose true IC50 lies within the doses. One that gets no number counts as a miss; so does a number
for one out of range.
"""

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from spheroidd.daemon.analysis.curves import CurveOfPlate

SMALL_UM, NEAR_UM = 10.0, 3.0  # the study's claim: within 3 uM


@dataclass(frozen=True, slots=True)
class TrueCurve:
    """A compound's drawn action on one patient on one plate; `ic50_um` is the dose of half its greatest effect."""

    compound: str
    ic50_um: float
    hill: float
    floor: float
    mode: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """One curve beside its truth."""

    curve: CurveOfPlate
    true: TrueCurve

    @property
    def in_range(self) -> bool:
        return min(self.curve.doses_um) <= self.true.ic50_um <= max(self.curve.doses_um)

    @property
    def log10_error(self) -> float | None:
        found = self.curve.fit.ic50_rel
        return None if found is None else math.log10(found / self.true.ic50_um)

    @property
    def near_um(self) -> bool:
        found = self.curve.fit.ic50_rel
        return found is not None and abs(found - self.true.ic50_um) <= NEAR_UM

    @property
    def twofold(self) -> bool:
        error = self.log10_error
        return error is not None and abs(error) <= math.log10(2)

    @property
    def covered(self) -> bool | None:
        """Whether the 95 % limits hold the truth; None where there is no number."""
        fit = self.curve.fit
        if fit.ic50_rel is None:
            return None
        return (fit.ic50_rel_lo or 0.0) <= self.true.ic50_um <= (fit.ic50_rel_hi or math.inf)

    def said(self) -> str:
        """A miss in a line."""
        fit, true = self.curve.fit, self.true
        found = "no number" if fit.ic50_rel is None else f"{fit.ic50_rel:.3g} uM"
        name = f"{self.curve.plate} {true.compound} ({true.mode}, hill {true.hill:.2f}, floor {true.floor:.2f})"
        return f"{name}: true {true.ic50_um:.3g} uM, {found}, {fit.status.value}"


def errors(curves: Iterable[CurveOfPlate], known: Mapping[tuple[str, str], TrueCurve]) -> dict[str, Any]:
    """The figures of a screen, by plate and compound, and its misses by name."""
    every = [Comparison(curve, known[curve.plate, curve.compound]) for curve in curves]
    in_range = [one for one in every if one.in_range]
    small = [one for one in in_range if one.true.ic50_um < SMALL_UM]
    numbered = [error for one in in_range if (error := one.log10_error) is not None]
    covered = [one.covered for one in in_range if one.covered is not None]
    return {
        "curves": len(every),
        "in_range": len(in_range),
        "with_a_number": len(numbered),
        "within_twofold": _share([one.twofold for one in in_range]),
        "below_10_um": len(small),
        "below_10_um_within_3_um": _share([one.near_um for one in small]),
        "median_abs_log10_error": _rounded(statistics.median, [abs(error) for error in numbered]),
        "median_log10_error": _rounded(statistics.median, numbered),
        "limits_hold_the_truth": _share([bool(one) for one in covered]),
        "out_of_range_with_a_number": sum(one.log10_error is not None for one in every if not one.in_range),
        "statuses": dict(Counter(one.curve.fit.status.value for one in every)),
        "by_mode": {mode: _of_mode(in_range, mode) for mode in sorted({one.true.mode for one in in_range})},
        "not_within_twofold": [one.said() for one in in_range if not one.twofold],
        "below_10_um_not_within_3_um": [one.said() for one in small if not one.near_um],
    }


def _of_mode(comparisons: Iterable[Comparison], mode: str) -> dict[str, Any]:
    mine = [one for one in comparisons if one.true.mode == mode]
    numbered = [error for one in mine if (error := one.log10_error) is not None]
    return {
        "curves": len(mine),
        "within_twofold": _share([one.twofold for one in mine]),
        "median_log10_error": _rounded(statistics.median, numbered),
    }


def _share(told: list[bool]) -> float | None:
    return round(sum(told) / len(told), 4) if told else None


def _rounded(figure: Any, values: list[float]) -> float | None:
    return round(figure(values), 4) if values else None
