"""The emulator's 50-compound screen through the real daemon, and its IC50s against the truth.

    python -m bench.compound_screen                          50 compounds x 8 doses x 3 wells, one patient: 4 plates
    python -m bench.compound_screen --compounds 6            fewer; --patients 3 more, each on plates of their own
    python -m bench.compound_screen --replicates 1           one well a dose, two plates: a third of the time
    python -m bench.compound_screen --field cap              the bottom of large spheroids instead of small ones whole
    python -m bench.compound_screen --fresh                  image and score again; --model NAME with another network

Every plate goes through `run_plate`: emulated slices, durable store, pre-processing, the shipped U-Net, counts, rows.
The catalog stays in bench/out/compound_screen and is the cache: a plate that is done is not imaged again, and one that
was interrupted goes on where it was. Images are removed once their plate is scored (a plate has about 1 GB of them).

The truth is the emulator's drawn IC50: the dose at which the compound's effect on this patient on this plate is half
its greatest, patient's and plate's shifts included. It says nothing of microscopes. In the `whole` field a noise-free
well's live volume, imaged or not, falls to its halfway point within 10 % of that dose in every mode of action.
"""

import argparse
import json
import math
import shutil
import statistics
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from bench import places
from bench.ic50_errors import TrueCurve, errors
from spheroidd.daemon.analysis.curves import CurvePoints, curve_points, fit_points
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.config.model import build_config
from spheroidd.daemon.config.source_registry import build_source
from spheroidd.daemon.launch.run import run_plate
from spheroidd.inference.network.model_card import find_weights, read_card
from spheroidd.protocols.results import WellStatus
from spheroidd.sim_emulator.plate import compound_named
from spheroidd.sim_emulator.source import EmulatorSettings, EmulatorSource

OUT = places.OUT / "compound_screen"
SEED = 20270115  # no network and no setting has seen its patients and compounds
DESIGN: dict[str, Any] = {
    "doses": 8,
    "negative_controls": 28,
    "positive_controls": 8,
    # 0.095 to 300 uM. IC50s are drawn from 1 to 10 uM and shifted by patient and plate, to 0.1 to 80 uM; the untreated
    # wells say where a curve begins, so the doses are better spent on where it ends.
    "top_dose_um": 300.0,
    "dilution": 10**0.5,
    "shuffled": True,
}
COMPOUNDS_A_PLATE = {3: 13, 2: 20, 1: 25}  # by wells a dose: with 36 controls at most 356 of 384 wells
# The cheapest field that shows a whole spheroid: a network's second for a million voxels of 1 um is what a well costs.
FIELDS: dict[str, dict[str, Any]] = {
    "whole": {
        "diameter_um": 80.0,
        "n_z": 64,
        "height": 120,
        "width": 120,
        "pixel_um": 0.8,
        "z_step_um": 1.5,
        "field_z_um": -3.0,
    },
    "cap": {},  # the emulator's preset `demo`: 50 um of a 300 um spheroid
}
METRICS = ("v_control", "v_count")
_SCORED = (WellStatus.PROVISIONAL, WellStatus.FINAL)
REPORT_S = 60.0


@dataclass(frozen=True, slots=True)
class ScreenPlate:
    """One plate of the screen: its name and the emulator's settings."""

    name: str
    settings: EmulatorSettings

    @property
    def source(self) -> EmulatorSource:
        built = build_source(self.settings, None, self.name)
        if not isinstance(built, EmulatorSource):
            raise TypeError("only the emulator knows the truth")
        return built


def plates(
    compounds: int, patients: int, field: Mapping[str, Any], seed: int = SEED, replicates: int = 3
) -> list[ScreenPlate]:
    """The screen's plates: each holds one patient and at most COMPOUNDS_A_PLATE, spread evenly over the plates."""
    n_plates = -(-compounds // COMPOUNDS_A_PLATE[replicates])
    found = []
    for patient in range(1, patients + 1):
        first = 1
        for number in range(n_plates):
            count = compounds // n_plates + (number < compounds % n_plates)
            settings = EmulatorSettings(
                preset="demo",
                pace="fast",
                seed=seed,
                compounds=count,
                first_compound=first,
                first_patient=patient,
                slice_period_s=0.0,
                replicates=replicates,
                **DESIGN,
                **field,
            )
            found.append(ScreenPlate(f"P{patient:02d}-C{first:02d}-C{first + count - 1:02d}", settings))
            first += count
    return found


def run(plate: ScreenPlate, data: Path, model: Path) -> None:
    """Image and score what is left of a plate, and write down what that cost."""
    _check_cache(plate, data, model)
    before, n_wells = _measured(data, plate.name), len(plate.source.plans())
    if before == n_wells:
        return
    tables = {
        "data": {"dir": str(data)},
        "plate": {"name": plate.name},
        "source": {name: value for name, value in _source_table(plate).items() if value is not None},
        "store": {"min_free_gb": 0.5},
        "inference": {"threads": 1, "model": str(model)},
    }
    config = build_config(tables, base=Path.cwd(), where="bench.compound_screen")
    start_s, start_cpu_s, done = time.perf_counter(), _cpu_s(), threading.Event()
    watch = threading.Thread(target=_watch, args=(plate.name, data, n_wells, done), daemon=True)
    watch.start()
    try:
        code = run_plate(config, console=Console(file=StringIO()), live=False)
    finally:
        done.set()
        watch.join()
        left = n_wells - _measured(data, plate.name)
        spent = {
            "wells": n_wells - before - left,
            "wall_s": time.perf_counter() - start_s,
            "cpu_s": _cpu_s() - start_cpu_s,
        }
        with _spent_file(plate, data).open("a") as file:
            file.write(json.dumps(spent) + "\n")
    if code and left:
        sys.exit(f"plate {plate.name} ended with exit code {code}, {left} wells are left; the same command goes on")
    shutil.rmtree(data / f"{plate.name}.ome.zarr")


def _spent_file(plate: ScreenPlate, data: Path) -> Path:
    return data / f"{plate.name}.spent.jsonl"


def _spent(screen: list[ScreenPlate], data: Path) -> dict[str, float]:
    """What the screen cost, interrupted or not."""
    files = (_spent_file(plate, data) for plate in screen)
    told = [json.loads(line) for file in files if file.exists() for line in file.read_text().splitlines()]
    wells = sum(one["wells"] for one in told)
    if not wells:
        return {}
    each = {f"{name}_per_well": round(sum(one[name] for one in told) / wells, 2) for name in ("wall_s", "cpu_s")}
    return {"minutes": round(sum(one["wall_s"] for one in told) / 60, 1), **each}


def _check_cache(plate: ScreenPlate, data: Path, model: Path) -> None:
    """Leave with a message where the catalog's rows are of other wells, another field or another network."""
    if not (data / "catalog.sqlite").exists():
        return
    with Catalog.read_only(data) as catalog:
        if plate.name not in catalog.plates():
            return
        same = json.loads(catalog.plate_config(plate.name))["source"] == _source_table(plate)
        same &= set(catalog.models(plate.name)) <= {read_card(model).sha256}
    if not same:
        sys.exit(f"{data} was made with other settings or another network; add --fresh to image the screen again")


def _source_table(plate: ScreenPlate) -> dict[str, Any]:
    return plate.settings.model_dump(mode="json")


def _cpu_s() -> float:
    """Of this process and its ended children (on Windows without the children)."""
    times = psutil.Process().cpu_times()
    return float(times.user + times.system + times.children_user + times.children_system)


def _measured(data: Path, plate: str) -> int:
    if not (data / "catalog.sqlite").exists():
        return 0
    with Catalog.read_only(data) as catalog:
        if plate not in catalog.plates():
            return 0
        return sum(result.status in _SCORED for result in catalog.results(plate))


def _watch(plate: str, data: Path, n_wells: int, done: threading.Event) -> None:
    """A line a minute on stderr."""
    start_s, before = time.perf_counter(), _measured(data, plate)
    while not done.wait(REPORT_S):
        now = _measured(data, plate)
        pace_s = (time.perf_counter() - start_s) / max(now - before, 1)
        said = f"{plate}: {now} of {n_wells} wells, {pace_s:.1f} s each, {pace_s * (n_wells - now) / 60:.0f} min left"
        print(said, file=sys.stderr, flush=True)


def truths(plate: ScreenPlate, data: Path) -> tuple[dict[str, TrueCurve], dict[str, float]]:
    """What is true of the plate's compounds, and every well's true live volume in the field (um3); kept beside the
    catalog, because a plate's volumes take as long as half a minute."""
    source = plate.source
    file = data / f"{plate.name}.truth.json"
    if not file.exists():
        volumes = {str(plan.key.well): source.well_truth(plan.key.well).live_um3_true for plan in source.plans()}
        file.write_text(json.dumps(volumes))
    found = {}
    for entry in source.plate_map.imaged():
        name = entry.treatment.compound
        if name is not None and name not in found:
            spec, compound = source.spec(entry.well), compound_named(plate.settings.seed, name)
            if spec.ic50_um is not None:
                found[name] = TrueCurve(name, spec.ic50_um, compound.hill, compound.floor, compound.mode.value)
    return found, json.loads(file.read_text())


def judged(screen: list[ScreenPlate], data: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each metric's IC50s against the truth, those of a perfect segmentation of the same wells, and the distance."""
    known, true_um3 = {}, {}
    for plate in screen:
        curves, volumes = truths(plate, data)
        known |= {(plate.name, name): curve for name, curve in curves.items()}
        true_um3 |= {(plate.name, well): volume for well, volume in volumes.items()}
    names = [plate.name for plate in screen]
    with Catalog.read_only(data) as catalog:
        for metric in METRICS:
            yield metric, errors(fit_points(curve_points(catalog, names, metric)), known)
        measured = list(curve_points(catalog, names, "v_control"))
    perfect = [_with_true_volumes(one, true_um3) for one in measured]
    yield "v_control of the true masks", errors(fit_points(perfect), known)
    yield "v_control beside the true masks", beside(measured, perfect)


def beside(measured: list[CurvePoints], perfect: list[CurvePoints]) -> dict[str, Any]:
    """How far the masks move V control and its IC50s from a perfect segmentation of the same wells.

    An IC50's distance from the drawn one is mostly what wells and doses leave open: of a few curves its median says
    little of masks. A perfect segmentation of the same wells has the same wells' noise.
    """
    found, true = _by_well(measured), _by_well(perfect)
    off = [found[well] - true[well] for well in found]
    pairs = zip(fit_points(measured), fit_points(perfect), strict=True)
    apart = [abs(math.log10(a / b)) for one, other in pairs if (a := one.fit.ic50_rel) and (b := other.fit.ic50_rel)]
    return {
        "wells": len(off),
        "mean_abs_error_points": round(statistics.fmean(map(abs, off)), 3),
        "mean_error_points": round(statistics.fmean(off), 3),
        "ic50s": len(apart),
        "median_abs_log10_of_ic50s": round(statistics.median(apart), 4) if apart else None,
    }


def _by_well(points: list[CurvePoints]) -> dict[tuple[str, str], float]:
    wells = ((one.plate, well, v) for one in points for well, v in zip(one.wells, one.responses, strict=True))
    controls = (
        (one.plate, well, v) for one in points for well, v in zip(one.control_wells, one.control_responses, strict=True)
    )
    return {(plate, well): v for plate, well, v in (*wells, *controls)}


def _with_true_volumes(points: CurvePoints, true_um3: dict[tuple[str, str], float]) -> CurvePoints:
    """The same wells as if every voxel had been segmented rightly: percent of the controls' median true volume."""

    def volumes(wells: tuple[str, ...]) -> list[float]:
        return [true_um3[points.plate, well] for well in wells]

    control = statistics.median(volumes(points.control_wells))
    responses, controls = (
        tuple(100 * volume / control for volume in volumes(wells)) for wells in (points.wells, points.control_wells)
    )
    return replace(points, responses=responses, control_responses=controls)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compounds", type=int, default=50)
    parser.add_argument("--patients", type=int, default=1)
    parser.add_argument("--replicates", type=int, choices=COMPOUNDS_A_PLATE, default=3, help="wells a dose")
    parser.add_argument("--field", choices=FIELDS, default="whole")
    parser.add_argument("--model", help="a model's name or path; without it the one that ships")
    parser.add_argument("--fresh", action="store_true", help="image and score again")
    given = parser.parse_args()
    screen = plates(given.compounds, given.patients, FIELDS[given.field], replicates=given.replicates)
    data = OUT / f"{given.field}-{given.compounds}x{given.replicates}"
    if given.fresh and data.exists():
        shutil.rmtree(data)
    model = find_weights(given.model)
    for plate in screen:
        run(plate, data, model)
    found: dict[str, Any] = {
        "bench": "compound_screen",
        "model": read_card(model).name,
        "model_sha256": read_card(model).sha256,
        "field": given.field,
        "seed": SEED,
        "compounds": given.compounds,
        "patients": given.patients,
        "wells_a_dose": given.replicates,
        "plates": len(screen),
        "wells": sum(len(plate.source.plans()) for plate in screen),
        **_spent(screen, data),
    }
    found |= dict(judged(screen, data))
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
