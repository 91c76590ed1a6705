"""A whole screen as rows of one catalog: how long it takes to write, fit, combine, query, export and report.

    python -m bench.screen_rows [PATIENTS]          50 compounds x 8 doses x 3 wells each, on plates of their own

The rows are those of bench.compound_screen's plates, but nothing is imaged: a well's volumes and counts are its true
ones, with 2 % of a segmentation's noise. So the fitted IC50s have a truth too, and it is printed what they are worth.
The between-patient interval is simulated as well: how often it holds the compound's typical IC50.
"""

import contextlib
import itertools
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bench.compound_screen import SEED, ScreenPlate, plates
from bench.ic50_errors import TrueCurve, errors
from bench.segment import peak_mb
from spheroidd.daemon.analysis.curves import curve_points, fit_points
from spheroidd.daemon.catalog.rows import StackState
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.export.writer import export
from spheroidd.daemon.report.writer import write_report
from spheroidd.inference.dose_response.across_patients import PooledIc50, compare, pool, rank
from spheroidd.inference.dose_response.patient_curve import PatientCurve
from spheroidd.inference.dose_response.random_effects import Evidence, pooled
from spheroidd.inference.viability.related_viability import PlateStack, relate
from spheroidd.protocols.events import SliceDurable
from spheroidd.protocols.results import Limits, Normalisation, StackMeasurement
from spheroidd.protocols.stack import SliceIndex
from spheroidd.sim_emulator.plate import WellSpec, compound_named

COMPOUNDS, PATIENTS = 50, 5
FIELD = {"n_z": 1, "height": 8, "width": 8, "diameter_um": 80.0}  # never imaged; two ledger entries a well
QUERY = """
SELECT compound, patient, dose_um, count(*) AS wells, avg(v_control_percent) AS v_control_percent
FROM wells_view WHERE role = 'sample' AND NOT excluded GROUP BY compound, patient, dose_um
"""
MODEL = "simulated"
CELL_UM3 = 900.0
NOISE = 0.02
LIMITS = {channel: Limits(100.0, 1000.0, 300.0, 200.0) for channel in ("488", "561")}
QUANTILES = {channel: {"0.02": 100.0, "0.5": 200.0, "0.98": 900.0, "0.999": 1500.0} for channel in ("488", "561")}


class Stopwatch:
    """Seconds by the name of what took them."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start_s = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start_s, 2)


def measured(spec: WellSpec, rng: np.random.Generator) -> StackMeasurement:
    """What a good segmentation would say of this spheroid, without imaging it."""
    n_cells = 0.65 * spec.sites_per_um3 * math.pi / 6 * spec.diameter_um**3
    n_live = round(n_cells * spec.v_target)
    live_um3 = CELL_UM3 * n_cells * spec.v_target * float(np.exp(NOISE * rng.normal()))
    n_dead = max(round(n_cells) - n_live, 0)
    return StackMeasurement(
        live_um3=live_um3,
        dead_um3=CELL_UM3 / 3 * n_dead,
        n_live=n_live,
        n_dead=n_dead,
        live_um3_by_z=(live_um3,),
        limits=LIMITS,
        normalisation=Normalisation.PLATE,
        model_sha256=MODEL,
        cpu_s=1.0,
        quantiles=QUANTILES,
    )


def write(plate: ScreenPlate, catalog: Catalog, rng: np.random.Generator) -> dict[tuple[str, str], TrueCurve]:
    """Enter a plate as if it had been imaged and scored, every row through the catalog's own door."""
    source, known, stacks = plate.source, {}, []
    catalog.register_plate(source.plate_map, json.dumps({"inference": {}}))
    with catalog.transaction():
        for plan in source.plans():
            key, spec = plan.key, source.spec(plan.key.well)
            catalog.expect(plan)
            for channel in plan.channels:
                for z in range(plan.n_z):
                    catalog.acknowledge(SliceDurable(key, SliceIndex(channel, z), 0, 0.0), 0.0)
            catalog.set_stack_state(key, StackState.STORED)
            measurement = measured(spec, rng)
            catalog.record_measurement(key, measurement, latency_s=3.0)
            stacks.append(PlateStack(key, spec.treatment.role, plan.z_step_um, settled=True, measurement=measurement))
            if spec.ic50_um is not None and spec.treatment.compound is not None:
                compound = compound_named(plate.settings.seed, spec.treatment.compound)
                true = TrueCurve(compound.name, spec.ic50_um, compound.hill, compound.floor, compound.mode.value)
                known[plate.name, compound.name] = true
        for key, related in relate(stacks).items():
            catalog.update_related(key, MODEL, related, reason="related to the plate's controls")
    return known


def across(compounds: list[PooledIc50]) -> dict[str, Any]:
    """What is said across patients, beside the compounds' typical IC50s; patients differ by 0.35, plates by 0.1."""
    told = [(one, compound_named(SEED, one.compound).ic50_um) for one in compounds if one.ic50_um is not None]
    bounded = [(one, true) for one, true in told if one.lo_um is not None and one.hi_um is not None]
    spreads = [one.between_patient_sd for one, _ in told if one.between_patient_sd is not None]
    return {
        "compounds": len(compounds),
        "with_a_number": len(told),
        "interval_holds_the_typical_ic50": round(
            sum((one.lo_um or 0) <= true <= (one.hi_um or math.inf) for one, true in bounded) / max(len(bounded), 1), 3
        ),
        "median_abs_log10_error": round(
            statistics.median(abs(math.log10((one.ic50_um or 0) / true)) for one, true in told), 3
        ),
        "between_patient_sd_median": round(statistics.median(spreads), 3) if spreads else None,
        "between_patient_sd_true": round(math.hypot(0.35, 0.1), 3),
    }


# patients, sd between them, the log10 IC50 above which a curve is censored, simulations
SIMULATED = {
    "3 patients": (3, 0.35, math.inf, 400),
    "6 patients": (6, 0.35, math.inf, 400),
    "6 patients, one in five censored": (6, 0.35, 0.3, 400),
    "6 patients who do not differ": (6, 0.0, math.inf, 400),
}


def coverage(n: int, tau: float, limit: float, runs: int, sd: float = 0.1) -> float:
    """How often the 95 % interval holds the mean, 0, of curves known to `sd` (log10)."""
    rng, held, told = np.random.default_rng(SEED), 0, 0
    for _ in range(runs):
        seen = rng.normal(0, tau, n) + rng.normal(0, sd, n)
        found = pooled([[Evidence(v, sd, sd) if v < limit else Evidence(limit, sd, math.inf)] for v in seen])
        if found.mu is not None:
            told += 1
            low, high = found.low, found.high
            held += (low is None or low <= 0) and (high is None or high >= 0)
    return round(held / told, 3)


def main() -> None:
    patients = int(sys.argv[1]) if len(sys.argv) > 1 else PATIENTS
    screen, rng, watch = plates(COMPOUNDS, patients, FIELD), np.random.default_rng(SEED), Stopwatch()
    with tempfile.TemporaryDirectory(prefix="spheroidd-rows-") as place:
        data = Path(place)
        with watch("write"), Catalog.create_or_open(data) as catalog:
            known = {name: true for plate in screen for name, true in write(plate, catalog, rng).items()}
        with Catalog.read_only(data) as catalog:
            with watch("read"):
                points = curve_points(catalog)
            with watch("fit"):
                curves = fit_points(points)
            told = [
                PatientCurve(c.compound, c.patient or c.plate, c.plate, min(c.doses_um), max(c.doses_um), c.fit)
                for c in curves
            ]
            with watch("combine"):
                ranks = rank(pool(told))
            names = [one.compound for one in (*ranks[:5], *ranks[-5:])]
            with watch("compare_45_pairs"):
                compared = compare(told, itertools.combinations(names, 2))
            with watch("query"):
                rows = catalog.query(QUERY)
        with watch("export_csv_of_all"):
            export(data, data / "export")
        with watch("report_of_one_plate"):
            report = write_report(data, data / "report.html", plate=screen[0].name)
        report_mb = report.files[0].stat().st_size / 1e6
        size_mb = sum(file.stat().st_size for file in data.glob("catalog.sqlite*")) / 1e6
    found: dict[str, Any] = {
        "bench": "screen_rows",
        "patients": patients,
        "plates": len(screen),
        "wells": sum(len(plate.source.plans()) for plate in screen),
        "curves": len(curves),
        "seconds": watch.seconds,
        "report_mb": round(report_mb, 2),
        "catalog_mb": round(size_mb, 1),
        "peak_rss_mb": round(peak_mb()),
        "rows_of_the_query": len(rows),
        "errors": errors(curves, known),
        "across_patients": across([one.pooled for one in ranks]),
        "pairs_that_differ_of_45": sum(one.p_holm is not None and one.p_holm < 0.05 for one in compared),
        "interval_holds_the_mean_of_patients": {name: coverage(*how) for name, how in SIMULATED.items()},
    }
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
