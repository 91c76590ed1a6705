"""Plate and image quality: what looking costs, and how often it cries wolf. `python -m bench.quality` prints JSON.

`images_cpu_s`: the processor time of looking at a `screen` stack's images while they stream (one thread, median of 5).
`healthy_stacks`: emulated stacks without a fault, and those that are flagged all the same. `healthy_wells`: simulated
plates on which nothing is wrong (well noise 5 points, seeding 12 %), and the wells per 1,000 that are called outliers.
`z_prime_of_few`: how often a plate whose true robust Z' is 0.28 shows 0.5 or more, by the number of controls of a kind.
"""

import json
import statistics
import time
from typing import Any

import numpy as np

from spheroidd.daemon.config.source_registry import build_source
from spheroidd.inference.preprocessing.intensity import Histogram
from spheroidd.inference.quality.control_statistics import control_figures
from spheroidd.inference.quality.image_profile import StackInspector
from spheroidd.inference.quality.plate_series import WellValue
from spheroidd.inference.quality.plate_verdict import judge_plate
from spheroidd.inference.quality.stack_quality import StackEvidence, judge_stacks
from spheroidd.protocols.plate import Treatment, WellRole
from spheroidd.protocols.ports import StackSource
from spheroidd.protocols.results import StackProfile
from spheroidd.protocols.stack import CHANNELS, StackKey, StackPlan
from spheroidd.protocols.well import WellId
from spheroidd.sim_emulator.plate import PlateDesign
from spheroidd.sim_emulator.source import EmulatorSettings

SLAB_Z = 8
PLATES = 200
DRAWS = 3000
OUTLIERS = ("outlier", "bad-control", "replicates-differ")
NEGATIVE, POSITIVE = WellRole.NEGATIVE_CONTROL, WellRole.POSITIVE_CONTROL


def images_cpu_s() -> float:
    """Processor seconds for the 400 slices of a `screen` stack."""
    plan = StackPlan(StackKey("quality", WellId(0, 0)), CHANNELS, 200, 800, 800, 0.125, 0.5)
    slab = np.random.default_rng(0).integers(90, 1000, (SLAB_Z, 800, 800)).astype(np.uint16)
    counts = Histogram()
    counts.add(slab)

    def look() -> float:
        start = time.process_time()
        inspector = StackInspector(plan)
        for z in range(0, plan.n_z, SLAB_Z):
            for channel in CHANNELS:
                inspector.feed(channel, z, slab)
        inspector.profile(dict.fromkeys(CHANNELS, counts))
        return time.process_time() - start

    look()  # compiles
    return round(statistics.median(look() for _ in range(5)), 3)


def healthy_stacks(preset: str, seed: int) -> dict[str, Any]:
    """Look at every stack of a plate of the emulator."""
    settings = EmulatorSettings(
        preset=preset, seed=seed, pace="fast", compounds=4, doses=6, negative_controls=8, positive_controls=6
    )
    source = build_source(settings, None, "healthy")
    found = [StackEvidence(plan.key, _profile(source, plan), plan.n_z * plan.z_step_um) for plan in source.plans()]
    flags = judge_stacks(found)
    wells = {well for flag in flags for well in flag.wells}
    codes = sorted({flag.code for flag in flags})
    return {"preset": preset, "seed": seed, "stacks": len(found), "flagged": len(wells), "codes": codes}


def _profile(source: StackSource, plan: StackPlan) -> StackProfile:
    stack = {channel: np.empty((plan.n_z, plan.height, plan.width), plan.dtype) for channel in plan.channels}
    for frame in source.frames(plan, frozenset(plan.indices())):
        stack[frame.index.channel][frame.index.z] = frame.pixels
    inspector = StackInspector(plan)
    counts = {channel: Histogram() for channel in plan.channels}
    for z in range(0, plan.n_z, SLAB_Z):
        for channel, pixels in stack.items():
            inspector.feed(channel, z, pixels[z : z + SLAB_Z])
            counts[channel].add(pixels[z : z + SLAB_Z])
    return inspector.profile(counts)


def healthy_wells(replicates: int) -> dict[str, Any]:
    """Plates of 5 compounds, 8 doses and 8 controls of each kind."""
    random = np.random.default_rng(0)
    wells = flagged = 0
    for _ in range(PLATES):
        plate = _healthy_plate(random, replicates)
        wells += len(plate)
        flags = judge_plate("p", "v_control", plate).flags
        flagged += len({well for flag in flags if flag.code in OUTLIERS for well in flag.wells})
    return {"replicates": replicates, "wells": wells, "flagged_per_1000": round(1000 * flagged / wells, 2)}


def _healthy_plate(random: np.random.Generator, replicates: int) -> list[WellValue]:
    alive = [(Treatment(NEGATIVE, None, 0.0), 1.0)] * 8 + [(Treatment(POSITIVE), 0.03)] * 8
    for compound in range(5):
        ic50, hill, floor = 10 ** random.uniform(-0.5, 1.2), random.uniform(0.8, 2.5), random.uniform(0, 0.3)
        for dose in PlateDesign(doses=8).dose_series_um():
            left = floor + (1 - floor) / (1 + (dose / ic50) ** hill)
            alive += [(Treatment(WellRole.SAMPLE, f"C{compound}", dose), left)] * replicates
    values = []
    for order, (treatment, left) in enumerate(alive):
        noisy = (left + 4 * left * (1 - left) * 0.05 * random.normal()) * np.exp(0.12 * random.normal())
        values.append(WellValue(WellId(order // 24, order % 24), treatment, 100 * noisy, order))
    return values


def z_prime_of_few(n: int) -> float:
    """The share of plates that seem to pass."""
    random = np.random.default_rng(n)
    draws = (
        control_figures(list(100 + 22 * random.normal(size=n)), list(4 + random.normal(size=n))).z_prime
        for _ in range(DRAWS)
    )
    return round(sum(z is not None and z >= 0.5 for z in draws) / DRAWS, 3)


def main() -> None:
    found = {
        "bench": "quality",
        "images_cpu_s": images_cpu_s(),
        "healthy_stacks": [healthy_stacks(preset, seed) for preset, seed in (("demo", 11), ("unit", 12), ("unit", 13))],
        "healthy_wells": [healthy_wells(replicates) for replicates in (2, 3)],
        "z_prime_of_few": {n: z_prime_of_few(n) for n in (3, 4, 6, 8, 12)},
    }
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
