"""Trains the viability regressor on emulated plates: `python -m spheroidd.daemon.regressor_training`.

Here because it needs both the emulator's truth and the training, which may not know each other.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, count
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from spheroidd.daemon.clock import SystemClock
from spheroidd.daemon.emulated_mtt import MTT_CV, MTT_NOISE_PERCENT
from spheroidd.inference.regressor import DEFAULT_REGRESSOR, forward, save
from spheroidd.inference.regressor_training import RegressorRow, arrays, train_regressor
from spheroidd.protocols.plate import WellRole
from spheroidd.sim_emulator.phantom import count_states
from spheroidd.sim_emulator.plate import DrugMode
from spheroidd.sim_emulator.presets import PRESETS, Preset
from spheroidd.sim_emulator.source import EmulatorSettings, EmulatorSource

SHARES = {"unit": 2, "demo": 3, "screen": 3, "whole": 1}  # plates of each field in one round
MISSED, FALSE = (0.02, 0.08), (0.02, 0.08)  # the segmentation's loss of recall and precision from well to well
SLICE_CV = 0.03  # and from slice to slice

PARTS = ("train", "calibrate", "test")
Floats = NDArray[np.float64]
Worlds = dict[str, dict[str, list[RegressorRow]]]


def emulated_rows(name: str, seed: int) -> Iterator[RegressorRow]:
    """One plate's wells as the daemon would see them: live volumes with a segmentation's errors, MTT with its own.

    Every plate has a seed, and so compounds, of its own; half of the modes of action each in turn.
    """
    modes = (*DrugMode, *DrugMode)[seed % len(DrugMode) :][: len(DrugMode)]
    settings = EmulatorSettings(
        seed=seed, pace="fast", compounds=3, doses=4, negative_controls=4, positive_controls=1, modes=modes
    )
    source = EmulatorSource(settings, None, f"{name}{seed}", SystemClock(), preset=_coarse(PRESETS[name]))
    rng = np.random.default_rng(seed)
    step_um = source.preset.z_step_um
    profiles: list[Floats] = []
    n_live: list[int] = []
    is_control: list[bool] = []
    for entry in source.plate_map.imaged():
        scene = source.scene(entry.well)
        planes = [(plane.live.sum(), plane.dead.sum()) for plane in scene.planes_truth()]
        live_um3, dead_um3 = np.array(planes, float).T * source.preset.pixel_um**2 * step_um
        profiles.append(_segmented(live_um3, dead_um3, rng))
        n_live.append(count_states(scene.phantom.cells.state)[0])
        is_control.append(entry.treatment.role is WellRole.NEGATIVE_CONTROL)
    controls = [tuple(p) for p, control in zip(profiles, is_control, strict=True) if control]
    reference = np.median([n for n, control in zip(n_live, is_control, strict=True) if control])
    for profile, n in zip(profiles, n_live, strict=True):
        mtt = 100 * n / reference * (1 + MTT_CV * rng.normal()) + MTT_NOISE_PERCENT * rng.normal()
        yield RegressorRow(tuple(profile), step_um, controls, float(mtt))


def _coarse(preset: Preset) -> Preset:
    """The same field in fewer voxels: a volume per slice needs no fine ones."""
    depth_um, height_um, width_um = preset.extent_um
    pixel_um = max(preset.pixel_um, width_um / 100)
    z_step_um = max(preset.z_step_um, depth_um / 64)
    n_z, height, width = round(depth_um / z_step_um), round(height_um / pixel_um), round(width_um / pixel_um)
    return replace(preset, n_z=n_z, height=height, width=width, pixel_um=pixel_um, z_step_um=z_step_um)


def _segmented(live_um3: Floats, dead_um3: Floats, rng: np.random.Generator) -> Floats:
    """What a segmentation would measure: it misses more the deeper it looks, and takes some dead cells for live."""
    missed = rng.uniform(*MISSED) * np.linspace(0.5, 1.5, len(live_um3))
    found = live_um3 * (1 - missed)
    false = rng.uniform(*FALSE) * (0.5 * found + dead_um3)
    noise = np.clip(rng.normal(1, SLICE_CV, len(live_um3)), 0, None)
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
            name: [row for _ in range(share * n_rounds) for row in emulated_rows(name, next(plate_seed))]
            for name, share in SHARES.items()
        }
        for part, n_rounds in counts.items()
    }


def train_and_save(worlds: Worlds, seed: int, out: Path, command: str) -> dict[str, dict[str, float]]:
    """Train, calibrate and test on separate rows; write weights and card; return the test's figures."""
    train, calibrate, test = (list(chain(*worlds[part].values())) for part in PARTS)
    trained = train_regressor(train, calibrate, seed=seed)
    metrics = {"all": evaluate(test, *trained)}
    metrics |= {name: evaluate(found, *trained) for name, found in worlds["test"].items()}
    save(
        out,
        *trained,
        description="MTT viability (percent of the untreated controls) from slicewise live volumes; trained on "
        "emulated plates with a simulated segmentation error of 2 to 8 %, not on measured MTT",
        command=command,
        seeds={"plates_from": 1000 * seed, "network": seed},
        metrics=metrics,
    )
    return metrics


def main(
    rounds: Annotated[int, typer.Option(help="Rounds of nine plates each to train on.")] = 5,
    seed: Annotated[int, typer.Option(help="Plates take 1000 times this and the numbers after it.")] = 1,
    out: Annotated[Path, typer.Option(help="The .safetensors file to write.")] = DEFAULT_REGRESSOR,
) -> None:
    """Emulate plates, train, calibrate and test the regressor, and write its weights and card."""
    command = f"python -m spheroidd.daemon.regressor_training --rounds {rounds} --seed {seed}"
    for name, figures in train_and_save(emulate(rounds, seed), seed, out, command).items():
        typer.echo(f"{name}: {figures}")


if __name__ == "__main__":
    typer.run(main)
