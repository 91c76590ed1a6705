"""Dose response against the truth, against R drc's numbers, and against bindcurve and a plain scipy fit, in one run.

`python -m bench.dose_response` prints JSON. Simulated curves have 8 doses over four decades in 3 replicates and 8
untreated wells; hill .8 to 2.5, lower plateau 0 to 30 %, noise of 2.5, 5 and 8 % of the control. `told` counts the
curves that get a number, `all` every curve whose true IC50 lies within the doses, whatever its status: its interval is
then open where the profile does not close. R drc itself is not run: its printed numbers are read from
`../shared/data/dose_response` (`SPHEROIDD_TEST_DATA`), where that folder is there.
"""

import csv
import json
import resource
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from bench.places import REAL_DATA
from spheroidd.inference.dose_response.batch_fit import CurveBatch
from spheroidd.inference.dose_response.fit import Curve, fit_many, standard_errors
from spheroidd.inference.dose_response.log_logistic import LogLogistic
from spheroidd.inference.dose_response.observations import Observations
from spheroidd.inference.dose_response.profile_likelihood import midpoint_limits
from spheroidd.inference.dose_response.quantal import fit_quantal
from spheroidd.protocols.dose import DoseResponseFit

Floats = NDArray[np.float64]
DATA = REAL_DATA / "dose_response"
DOSES_UM = np.geomspace(0.01, 100, 8)
LOW, HIGH = np.log(DOSES_UM[[0, -1]])
UNTREATED, REPLICATES = 8, 3
NOISES = (2.5, 5.0, 8.0)


class Truth(NamedTuple):
    """Of many curves, all (C,): ln of the relative and the absolute IC50 (NaN where there is none), slope, plateau."""

    relative: Floats
    absolute: Floats
    slope: Floats
    bottom: Floats


def drawn(midpoints: Floats, rng: np.random.Generator) -> Truth:
    slope, bottom = rng.uniform(0.8, 2.5, len(midpoints)), rng.uniform(0, 30, len(midpoints))
    return Truth(midpoints, midpoints + np.log(50 / (50 - bottom)) / slope, slope, bottom)


def curves(truth: Truth, noise: float, rng: np.random.Generator) -> list[Curve]:
    doses = np.concatenate((np.zeros(UNTREATED), np.repeat(DOSES_UM, REPLICATES)))
    with np.errstate(divide="ignore"):
        run = truth.slope[:, None] * (np.log(doses) - truth.relative[:, None])
    clean = truth.bottom[:, None] + (100 - truth.bottom[:, None]) / (1 + np.exp(run))
    responses = clean + rng.normal(0, noise, clean.shape)
    return [Curve(str(i), doses, row, control=100.0) for i, row in enumerate(responses)]


def speed() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    data = curves(drawn(rng.uniform(LOW + 1, HIGH - 1, 1200), rng), 5.0, rng)
    start, cpu = time.perf_counter(), time.process_time()
    fits = fit_many(data)
    figures = {"curves": len(fits), "wall_s": time.perf_counter() - start, "cpu_s": time.process_time() - cpu}
    return figures | {"peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def covered(fits: Sequence[DoseResponseFit], kind: str, truth: Floats) -> dict[str, float]:
    told = [(fit, t) for fit, t in zip(fits, truth, strict=True) if getattr(fit, f"ic50_{kind}") is not None]
    hits = [np.log(getattr(fit, f"ic50_{kind}_lo")) <= t <= np.log(getattr(fit, f"ic50_{kind}_hi")) for fit, t in told]
    errors = [abs(np.log10(getattr(fit, f"ic50_{kind}")) - t / np.log(10)) for fit, t in told]
    return {"told": len(told), "covered": float(np.mean(hits)), "median_abs_log10_error": float(np.median(errors))}


def covered_all(data: list[Curve], truth: Floats) -> float:
    """Coverage of the relative IC50's interval for every curve, told or not."""
    model = LogLogistic()
    hits: list[bool] = []
    for i in range(0, len(data), 128):
        batch = CurveBatch.fitted(model, [Observations.of(curve) for curve in data[i : i + 128]], robust=False)
        every = np.arange(len(batch.observations))
        limits = midpoint_limits(model, batch.points, batch.best, batch.threshold(0.95), every)
        low, high = np.nan_to_num(limits.low, nan=-np.inf), np.nan_to_num(limits.high, nan=np.inf)
        hits += list((low <= truth[i : i + 128]) & (truth[i : i + 128] <= high))
    return float(np.mean(hits))


def coverage(count: int) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for noise in NOISES:
        rng = np.random.default_rng(int(10 * noise))
        truth = drawn(rng.uniform(LOW, HIGH, count), rng)
        data = curves(truth, noise, rng)
        fits = fit_many(data)
        inside = np.where((truth.absolute >= LOW) & (truth.absolute <= HIGH), truth.absolute, np.nan)
        keep = [i for i, t in enumerate(inside) if np.isfinite(t)]
        figures[f"noise {noise} %"] = {
            "in_range": count,
            "status": Counter(fit.status.value for fit in fits),
            "relative": covered(fits, "rel", truth.relative) | {"covered_all": covered_all(data, truth.relative)},
            "absolute": covered([fits[i] for i in keep], "abs", inside[keep]),
        }
    return figures


def false_answers(count: int) -> dict[str, Any]:
    """Curves that must not get an IC50: how many do."""
    rng = np.random.default_rng(7)
    far = {
        "flat": np.full(count, 60.0),
        "all dead": np.full(count, -60.0),
        "above the doses": HIGH + np.log(rng.uniform(3, 100, count)),
        "below the doses": LOW - np.log(rng.uniform(3, 100, count)),
    }
    figures = {}
    for name, midpoints in far.items():
        truth = drawn(midpoints, rng)
        fits = [fit for noise in NOISES for fit in fit_many(curves(truth, noise, rng)[:: len(NOISES)])]
        told = sum(fit.ic50_rel is not None or fit.ic50_abs is not None for fit in fits)
        figures[name] = {"curves": len(fits), "told": told, "status": Counter(fit.status.value for fit in fits)}
    return figures


def by_scipy(curve: Curve) -> float:
    """ln of the IC50 by `curve_fit` with a usual first guess: what a lab's notebook does."""
    x, y = np.asarray(curve.doses_um, float), np.asarray(curve.responses, float)

    def response(x: Floats, slope: float, c: float, d: float, midpoint: float) -> Floats:
        with np.errstate(divide="ignore", over="ignore"):
            return np.asarray(c + (d - c) / (1 + np.exp(slope * (np.log(x) - midpoint))))

    dosed = x > 0
    halfway = np.abs(y[dosed] - (y.max() + y.min()) / 2).argmin()
    guess = (1.0, float(y.min()), float(y.max()), float(np.log(x[dosed][halfway])))
    try:
        return float(optimize.curve_fit(response, x, y, guess)[0][3])
    except RuntimeError:
        return float("nan")


def by_bindcurve(data: list[Curve], *, untreated_as_um: float | None) -> Floats:
    """ln of the IC50s; it refuses dose 0, so untreated wells are left out or given a tiny dose."""
    import bindcurve
    import pandas as pd

    columns = ("compound_id", "concentration", "response")
    rows = [
        (curve.name, dose or untreated_as_um, response)
        for curve in data
        for dose, response in zip(np.asarray(curve.doses_um), np.asarray(curve.responses), strict=True)
        if dose or untreated_as_um
    ]
    found = bindcurve.fit(bindcurve.DoseResponseData(pd.DataFrame(rows, columns=columns)), "ic50", errors="collect")
    by_name = {fit.compound_id: fit.values.get("IC50", np.nan) for fit in found.fits}
    return np.log(np.array([by_name[curve.name] for curve in data], float))


def peers(count: int) -> dict[str, Any]:
    """Median |log10 error| of the relative IC50: of all in-range curves, and of those to which we give a number."""
    figures: dict[str, Any] = {}
    for noise in NOISES:
        rng = np.random.default_rng(int(100 * noise))
        truth = drawn(rng.uniform(LOW, HIGH, count), rng)
        data = curves(truth, noise, rng)
        fits: list[DoseResponseFit] = []
        tools: dict[str, Callable[[], Floats]] = {
            "spheroidd": lambda data=data, fits=fits: ours(data, fits),
            "scipy curve_fit": lambda data=data: np.array([by_scipy(curve) for curve in data]),
            "bindcurve": lambda data=data: by_bindcurve(data, untreated_as_um=None),
            "bindcurve, dose 0 as 1e-8": lambda data=data: by_bindcurve(data, untreated_as_um=1e-8),
        }
        figures[f"noise {noise} %"] = rows = {}
        for name, tool in tools.items():
            start = time.perf_counter()
            estimates = tool()
            seconds = time.perf_counter() - start
            errors = np.abs(estimates - truth.relative) / np.log(10)
            told = np.array([fit.ic50_rel is not None for fit in fits])
            rows[name] = {
                "all": float(np.nanmedian(np.where(np.isfinite(errors), errors, np.inf))),
                "told": float(np.median(errors[told & np.isfinite(errors)])),
                "told_without_answer": int((~np.isfinite(estimates[told])).sum()),
                "ms_a_curve": 1000 * seconds / count,
            }
    return figures


def ours(data: list[Curve], fits: list[DoseResponseFit]) -> Floats:
    fits += fit_many(data)
    return np.log([fit.parameters["e"] for fit in fits])


def table(name: str, dose: str, response: str, by: str = "") -> list[Curve]:
    with (DATA / f"{name}.csv").open() as file:
        rows = list(csv.DictReader(file))
    keys = dict.fromkeys(row.get(by, "(Intercept)") for row in rows)
    picked = {key: [row for row in rows if row.get(by, "(Intercept)") == key] for key in keys}
    return [
        Curve(key, [float(r[dose]) for r in mine], [float(r[response]) for r in mine]) for key, mine in picked.items()
    ]


def oracle() -> dict[str, Any] | str:
    """The largest relative differences from what R drc prints: of the coefficients and of their standard errors."""
    if not DATA.is_dir():
        return f"skipped: {DATA} is not there"
    ryegrass, lettuce = table("ryegrass", "conc", "rootl"), table("lettuce", "conc", "weight")
    finney = [table("finney71", "dose", name)[0] for name in ("affected", "total")]
    fits = {
        **{f"ryegrass_LL{n}": fit_many(ryegrass, model=f"LL.{n}") for n in (3, 4, 5)},
        "S.alba_LL4": fit_many(table("S.alba", "Dose", "DryMatter", "Herbicide"), pooled_variance=True),
        "lettuce_LL3": fit_many(lettuce, model="LL.3"),
        "finney71": [fit_quantal(finney[0].doses_um, finney[0].responses, finney[1].responses, name="(Intercept)")],
    }
    known = json.loads((DATA / "drc_reference.json").read_text())
    figures = {}
    for name, found in fits.items():
        by_name = {fit.name: fit for fit in found}
        off: dict[str, float] = {"coefficients": 0.0, "standard_errors": 0.0}
        for key, value in known[name]["coef"].items():
            parameter, _, curve = key.partition(":")
            fit = by_name[curve]
            errors = standard_errors(fit)[parameter] / known[name]["se"][key] - 1
            off["coefficients"] = max(off["coefficients"], abs(fit.parameters[parameter] / value - 1))
            off["standard_errors"] = max(off["standard_errors"], abs(errors))
        figures[name] = off
    return figures


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 3000
    warnings.simplefilter("ignore")  # bindcurve's, about the curves that nobody can fit
    figures = {
        "oracle, largest relative difference": oracle(),
        "speed": speed(),
        "false answers": false_answers(max(count // 4, 1)),
        "peers, median |log10 error| of the relative IC50": peers(max(count // 5, 1)),
        "coverage of the 95 % limits": coverage(count),
    }
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
