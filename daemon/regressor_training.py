"""Trains the viability regressor on emulated plates: `python -m spheroidd.daemon.regressor_training`.

Here because it needs both the emulator's truth and the training, which may not know each other.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain, count
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from spheroidd.daemon.clock import SystemClock
from spheroidd.daemon.emulated_mtt import MTT_CV, MTT_NOISE_PERCENT
from spheroidd.inference.regressor import DEFAULT_REGRESSOR, forward, save
from spheroidd.inference.regressor_training import RegressorRow, Trained, arrays, conformal_quantile, train_regressor
from spheroidd.protocols.plate import WellRole
from spheroidd.sim_emulator.phantom import count_states
from spheroidd.sim_emulator.plate import DrugMode
from spheroidd.sim_emulator.presets import PRESETS, Preset
from spheroidd.sim_emulator.source import EmulatorSettings, EmulatorSource

SHARES = {"unit": 1, "demo": 2, "screen": 2, "whole": 2, "small": 2}  # plates of each field in one round
CONTROLS, LEAST_CONTROLS = 6, 3  # untreated wells of a plate, and the fewest that a variant of it is related to
# How the shipped network errs on emulated wells beside their truth: it finds 0 to 20 % more live volume than there is
# (1 um voxels reach past the cells' edges), and takes a part of the dead nuclei for live cells.
EXCESS, FALSE_DEAD = (-0.05, 0.2), (0.02, 0.4)  # drawn for a plate
WELL_EXCESS_SD, WELL_FALSE_SD = 0.03, 0.05  # and from well to well about that
SLICE_CV = 0.03  # and from slice to slice
VARIANTS = 6  # of each plate to train on: other errors, other controls

PARTS = ("train", "calibrate", "test")
Floats = NDArray[np.float64]
Worlds = dict[str, dict[str, list[RegressorRow]]]


@dataclass(frozen=True, slots=True)
class _Well:
    """What is true of a well: live and dead volume of each slice (um3), and live cells of the whole spheroid."""

    live_um3: Floats
    dead_um3: Floats
    n_live: int


def field(name: str, rng: np.random.Generator) -> Preset:
    """A preset with a spheroid drawn for one plate; "small": spheroids of 70 to 160 um that a field holds whole."""
    if name == "unit":
        return PRESETS[name]
    if name != "small":
        return replace(PRESETS[name], diameter_um=rng.uniform(200, 450))
    diameter_um = rng.uniform(70, 160)
    side_um, pixel_um, z_step_um = diameter_um * rng.uniform(1.2, 1.8), 0.8, 1.5
    n_z, n_side = round(side_um / z_step_um), round(side_um / pixel_um)
    drawn = replace(PRESETS["demo"], diameter_um=diameter_um, field_z_um=-3.0, pixel_um=pixel_um, z_step_um=z_step_um)
    return replace(drawn, n_z=n_z, height=n_side, width=n_side)


def emulated_rows(name: str, seed: int, variants: int = 1) -> Iterator[RegressorRow]:
    """One plate's wells as the daemon would see them: live volumes with a segmentation's errors, MTT with its own.

    Every plate has a seed, and so compounds, of its own; half of the modes of action each in turn. A first variant is
    related to all of its controls, the others to some.
    """
    rng = np.random.default_rng(seed)
    modes = (*DrugMode, *DrugMode)[seed % len(DrugMode) :][: len(DrugMode)]
    settings = EmulatorSettings(
        seed=seed, pace="fast", compounds=3, doses=4, negative_controls=CONTROLS, positive_controls=1, modes=modes
    )
    source = EmulatorSource(settings, None, f"{name}{seed}", SystemClock(), preset=_coarse(field(name, rng)))
    samples: list[_Well] = []
    controls: list[_Well] = []
    for entry in source.plate_map.imaged():
        scene = source.scene(entry.well)
        planes = np.array([(plane.live.sum(), plane.dead.sum()) for plane in scene.planes_truth()], float)
        live_um3, dead_um3 = planes.T * source.preset.pixel_um**2 * source.preset.z_step_um
        well = _Well(live_um3, dead_um3, count_states(scene.phantom.cells.state)[0])
        (controls if entry.treatment.role is WellRole.NEGATIVE_CONTROL else samples).append(well)
    for variant in range(variants):
        n_used = rng.integers(LEAST_CONTROLS, len(controls) + 1) if variant else len(controls)
        used = [controls[number] for number in rng.permutation(len(controls))[:n_used]]
        yield from _variant(used, samples, source.preset.z_step_um, rng)


def _variant(
    controls: list[_Well], samples: list[_Well], step_um: float, rng: np.random.Generator
) -> Iterator[RegressorRow]:
    excess, false_dead = rng.uniform(*EXCESS), rng.uniform(*FALSE_DEAD)
    wells = [*controls, *samples]
    profiles = [_segmented(well, excess, false_dead, rng) for well in wells]
    related = [tuple(profile) for profile in profiles[: len(controls)]]
    reference = float(np.median([well.n_live for well in controls]))
    for well, profile in zip(wells, profiles, strict=True):
        mtt = 100 * well.n_live / reference * (1 + MTT_CV * rng.normal()) + MTT_NOISE_PERCENT * rng.normal()
        yield RegressorRow(tuple(profile), step_um, related, float(mtt))


def _coarse(preset: Preset) -> Preset:
    """The same field in fewer voxels: a volume per slice needs no fine ones."""
    depth_um, height_um, width_um = preset.extent_um
    pixel_um = max(preset.pixel_um, width_um / 100)
    z_step_um = max(preset.z_step_um, depth_um / 64)
    n_z, height, width = round(depth_um / z_step_um), round(height_um / pixel_um), round(width_um / pixel_um)
    return replace(preset, n_z=n_z, height=height, width=width, pixel_um=pixel_um, z_step_um=z_step_um)


def _segmented(well: _Well, excess: float, false_dead: float, rng: np.random.Generator) -> Floats:
    """What a segmentation would measure."""
    found = well.live_um3 * (1 + excess + WELL_EXCESS_SD * rng.normal())
    false = well.dead_um3 * max(0.0, false_dead + WELL_FALSE_SD * rng.normal())
    noise = np.clip(rng.normal(1, SLICE_CV, len(found)), 0, None)
    return np.asarray((found + false) * noise)


def evaluate(rows: list[RegressorRow], weights: dict[str, NDArray[np.float32]], quantile: float) -> dict[str, float]:
    """Pearson r, MAE and R2 (percent points) of the score against MTT, the interval's coverage, and V_control's own."""
    given, truth = arrays(rows)
    mean, sigma = forward(weights, given)
    ratio = given[:, 0].mean(1)
    error = mean - truth
    spread = ((truth - truth.mean()) ** 2).sum()
    figures = {
        "wells": len(truth),
        "pearson_r": np.corrcoef(mean, truth)[0, 1],
        "mae_percent": 100 * np.abs(error).mean(),
        "r2": 1 - (error**2).sum() / spread,
        "coverage_90": (np.abs(error) <= quantile * sigma).mean(),
        "half_width_percent": 100 * quantile * sigma.mean(),
        "v_control_pearson_r": np.corrcoef(ratio, truth)[0, 1],
        "v_control_mae_percent": 100 * np.abs(ratio - truth).mean(),
        "v_control_r2": 1 - ((ratio - truth) ** 2).sum() / spread,
    }
    return {name: round(float(value), 4) for name, value in figures.items()}


def emulate(rounds: int, seed: int) -> Worlds:
    """Rows by part and field: `rounds` to train, half as many to calibrate and to test; no seed serves twice."""
    counts = dict(zip(PARTS, (rounds, max(1, rounds // 2), max(1, rounds // 2)), strict=True))
    plate_seed = count(1000 * seed)
    return {
        part: {
            name: [
                row
                for _ in range(share * n_rounds)
                for row in emulated_rows(name, next(plate_seed), VARIANTS if part == "train" else 1)
            ]
            for name, share in SHARES.items()
        }
        for part, n_rounds in counts.items()
    }


def _quantile(weights: dict[str, NDArray[np.float32]], worlds: dict[str, list[RegressorRow]]) -> float:
    """The mean of the fields' own quantiles: a field counts as much as another, however many plates it has."""
    found = []
    for rows in worlds.values():
        given, truth = arrays(rows)
        mean, sigma = forward(weights, given)
        found.append(conformal_quantile(np.abs(truth - mean) / sigma))
    return float(np.mean(found))


def train_and_save(worlds: Worlds, seed: int, out: Path, command: str) -> dict[str, dict[str, float]]:
    """Train, calibrate and test on separate rows; write weights and card; return the test's figures."""
    train, calibrate, test = (list(chain(*worlds[part].values())) for part in PARTS)
    weights = train_regressor(train, calibrate, seed=seed).weights
    trained = Trained(weights, _quantile(weights, worlds["calibrate"]))
    metrics = {"all": evaluate(test, *trained)}
    metrics |= {name: evaluate(found, *trained) for name, found in worlds["test"].items()}
    save(
        out,
        *trained,
        description="MTT viability (percent of the untreated controls) from slicewise live volumes; trained on "
        "emulated plates with errors of segmentation drawn around those that a network was seen to make, not on "
        "measured MTT",
        command=command,
        seeds={"plates_from": 1000 * seed, "network": seed},
        metrics=metrics,
    )
    return metrics


def main(
    rounds: Annotated[int, typer.Option(help="Rounds of nine plates each to train on.")] = 2,
    seed: Annotated[int, typer.Option(help="Plates take 1000 times this and the numbers after it.")] = 2,
    out: Annotated[Path, typer.Option(help="The .safetensors file to write.")] = DEFAULT_REGRESSOR,
) -> None:
    """Emulate plates, train, calibrate and test the regressor, and write its weights and card."""
    command = f"python -m spheroidd.daemon.regressor_training --rounds {rounds} --seed {seed}"
    for name, figures in train_and_save(emulate(rounds, seed), seed, out, command).items():
        typer.echo(f"{name}: {figures}")


if __name__ == "__main__":
    typer.run(main)
