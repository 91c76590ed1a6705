"""IC50s of screens like the Cancer Cell Line Encyclopedia's: 8 doses, one value a dose, no untreated well in the table.

`python -m bench.ccle_like [CURVES]` prints JSON. Doses are the encyclopedia's, .0025 to 8 uM in half-decades; the
control is 100. Three curves in five never reach half of the control within the doses (no action, a partial one, or one
that begins too late); of the others hill is .5 to 3 and the lower plateau 0 to 40 %. Noise is normal, its standard
deviation drawn for each curve from a lognormal. Ten published curves of the encyclopedia leave 1 to 15 % of the control
beside their best fits, 11 % the middle one: so the third noise is its own, the others are what better screens have.

Errors are given twice: from the truth, which noise hides, and from the dose at which a plain least-squares curve passes
half of the control, as published IC50s are made. `in_range` are the curves whose true response falls to half of the
control within the doses, `none` those whose true response stays above half at the highest dose, `near` those of them
that come within 10 % of the control of it.
"""

import json
import math
import sys
import warnings
from collections import Counter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from spheroidd.inference.dose_response.fit import Curve, fit_many
from spheroidd.protocols.dose import DoseResponseFit

Floats = NDArray[np.float64]
DOSES_UM = np.array([0.0025, 0.008, 0.025, 0.08, 0.25, 0.8, 2.53, 8.0])
NOISES = (3.0, 7.0, 11.0)
SPREAD = 0.45  # of ln noise between curves: quartiles at 3/4 and 4/3 of the median
TOP_SPREAD = 4.0  # % of the control: a plate's own controls miss 100 by so much
NEAR = 60.0  # % left at the highest dose


class Truth(NamedTuple):
    """Of many curves, all (C,): slope, ln midpoint, plateaus in % of the control."""

    slope: Floats
    midpoint: Floats
    bottom: Floats
    top: Floats

    def response(self, doses: Floats) -> Floats:
        """Without noise, (C, D)."""
        run = self.slope[:, None] * (np.log(doses) - self.midpoint[:, None])
        return self.bottom[:, None] + (self.top - self.bottom)[:, None] / (1 + np.exp(run))

    def absolute(self) -> Floats:
        """ln of the dose where half of the control is left; NaN where that is not within the doses."""
        with np.errstate(invalid="ignore", divide="ignore"):
            found = self.midpoint + np.log((self.top - 50) / (50 - self.bottom)) / self.slope
        inside = (found >= np.log(DOSES_UM[0])) & (found <= np.log(DOSES_UM[-1]))
        return np.where((self.bottom < 50) & inside, found, np.nan)


def drawn(count: int, rng: np.random.Generator) -> Truth:
    low, high = np.log(DOSES_UM[[0, -1]])
    kind = rng.choice(4, count, p=(0.45, 0.25, 0.15, 0.15))  # inside, no action, partial, late
    midpoint = rng.uniform(low + 0.5, high + 0.5, count)
    midpoint = np.where(kind == 3, rng.uniform(high, high + 4, count), midpoint)
    bottom = np.where(kind == 2, rng.uniform(52, 90, count), rng.uniform(0, 40, count))
    top = rng.normal(100, TOP_SPREAD, count)
    return Truth(rng.uniform(0.5, 3, count), midpoint, np.where(kind == 1, top, bottom), top)


def simulated(truth: Truth, noise: float, rng: np.random.Generator) -> list[Curve]:
    clean = truth.response(DOSES_UM)
    sd = noise * np.exp(rng.normal(0, SPREAD, len(clean)))
    responses = clean + rng.normal(0, 1, clean.shape) * sd[:, None]
    return [Curve(str(i), DOSES_UM, row, control=100.0) for i, row in enumerate(responses)]


def plain(curve: Curve) -> float:
    """ln of the dose where half of the control is left, by scipy's `curve_fit`; NaN where it finds none."""
    u, y = np.log(np.asarray(curve.doses_um, float)), np.asarray(curve.responses, float)

    def response(u: Floats, slope: float, c: float, d: float, midpoint: float) -> Floats:
        return np.asarray(c + (d - c) / (1 + np.exp((slope * (u - midpoint)).clip(-700, 700))))

    guess = (1.0, float(y.min()), float(y.max()), float(u[np.abs(y - (y.max() + y.min()) / 2).argmin()]))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a covariance cannot be estimated
            slope, c, d, midpoint = optimize.curve_fit(response, u, y, guess, maxfev=4000)[0]
    except RuntimeError:
        return float("nan")
    odds = (d - 50) / (50 - c) if c != 50 else math.nan
    return float(midpoint + math.log(odds) / slope) if odds > 0 else math.nan


def figures(fits: list[DoseResponseFit], truth: Truth) -> dict[str, Any]:
    absolute, left = truth.absolute(), truth.response(DOSES_UM)[:, -1]
    inside = [(fit, t) for fit, t in zip(fits, absolute, strict=True) if np.isfinite(t)]
    told = [(fit, t) for fit, t in inside if fit.ic50_abs is not None]
    errors = np.array([np.log10(fit.ic50_abs) - t / np.log(10) for fit, t in told if fit.ic50_abs is not None])
    held = [
        (fit.ic50_abs_lo or 0.0) <= np.exp(t) <= (np.inf if fit.ic50_abs_hi is None else fit.ic50_abs_hi)
        for fit, t in told
    ]
    none = [(fit, end) for fit, end in zip(fits, left, strict=True) if end > 50]
    wrong = [end for fit, end in none if fit.ic50_abs is not None]
    reached = [fit for fit, end in zip(fits, left, strict=True) if end <= 50]
    seen = [fit for fit in fits if fit.e_max is not None and fit.e_max < 50]
    return {
        "in_range": len(inside),
        "told": len(told),
        "share_told": round(len(told) / len(inside), 3),
        "median_abs_log10_error": round(float(np.median(np.abs(errors))), 4),
        "beyond_twofold": round(float(np.mean(np.abs(errors) > np.log10(2))), 4),
        "limits_hold_the_truth": round(float(np.mean(held)), 3),
        "none": {"curves": len(none), "told": len(wrong), "near": sum(bool(end < NEAR) for end in wrong)},
        "above_the_highest_dose_below_half": sum(fit.status.value == "censored_high" for fit in seen),
        "inactive_below_half": sum(fit.status.value == "inactive" for fit in seen),
        "inactive_below_half_with_effect": sum(
            fit.status.value == "inactive" and (fit.p_effect or 1.0) <= 0.05 for fit in seen
        ),
        "no_effect_over_p_001": sum("no effect" in fit.reason and (fit.p_effect or 0) < 1e-3 for fit in fits),
        "lowest_plateau": round(float(min(fit.bottom for fit in fits if fit.bottom is not None))),
        "statuses": Counter(fit.status.value for fit in fits),
        "statuses_where_half_is_passed": Counter(fit.status.value for fit in reached),
    }


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    found = {}
    for noise in NOISES:
        rng = np.random.default_rng(int(10 * noise))
        truth = drawn(count, rng)
        curves = simulated(truth, noise, rng)
        fits = fit_many(curves)
        beside = [
            abs(math.log10(fit.ic50_abs) - plain(curve) / math.log(10))
            for fit, curve in zip(fits, curves, strict=True)
            if fit.ic50_abs is not None
        ]
        found[f"noise {noise:g} %"] = figures(fits, truth) | {
            "median_abs_log10_from_a_plain_fit": round(float(np.nanmedian(beside)), 4)
        }
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
