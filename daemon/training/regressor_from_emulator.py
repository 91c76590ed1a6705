"""Trains the viability regressor on emulated plates: `python -m spheroidd.daemon.training.regressor_from_emulator`.

Here because it needs both the emulator's truth and the training, which may not know each other.
"""

from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from spheroidd.daemon.training.regressor_fields import FIELDS, VARIANTS, emulated_rows
from spheroidd.inference.training.regressor_training import Trained, arrays, conformal_quantile, fit
from spheroidd.inference.viability.regressor import DEFAULT_REGRESSOR, features, forward, save

PARTS = {"train": 1.0, "calibrate": 0.25, "test": 0.25}  # plates beside those to train on
STEPS, LEARNING_RATE = 4000, 5e-3

Weights = Mapping[str, NDArray[np.float32]]


class Wells(NamedTuple):
    """Inputs (n, 3, BINS) and what the assay said of them (n,), fractions of 1."""

    given: NDArray[np.float32]
    truth: NDArray[np.float32]


World = dict[str, Wells]  # by kind of field


def emulate(plates: int, seed: int, console: Console | None = None) -> dict[str, World]:
    """The wells of each part: `plates` to train on, a quarter of that each to calibrate and test; no seed serves twice.

    On all processors; the numbers are the same on any machine.
    """
    plate_seed = 10_000 * seed
    worlds = {}
    with ProcessPoolExecutor() as processes:
        for part, share in PARTS.items():
            seeds = range(plate_seed, plate_seed + max(1, round(share * plates)))
            plate_seed = seeds.stop
            emulated = processes.map(partial(_plate, variants=VARIANTS if part == "train" else 1), seeds)
            told = track(emulated, f"plates to {part}", len(seeds), console=console, disable=console is None)
            found: list[World] = list(told)
            worlds[part] = {
                kind: _together([world[kind] for world in found if kind in world])
                for kind in FIELDS
                if any(kind in world for world in found)
            }
    return worlds


def _plate(seed: int, variants: int) -> World:
    """Without the fields that show no live cell of a control, as one may that looks past the spheroid."""
    seen = {
        kind: [row for row in rows if features(*row[:3]) is not None]
        for kind, rows in emulated_rows(seed, variants).items()
    }
    return {kind: Wells(*arrays(rows)) for kind, rows in seen.items() if rows}


def _together(wells: list[Wells]) -> Wells:
    return Wells(*(np.concatenate(parts) for parts in zip(*wells, strict=True)))


def evaluate(wells: Wells, trained: Trained) -> dict[str, float]:
    """Pearson r, MAE and R2 (percent points) of the score against MTT, the interval's coverage, and V_control's own."""
    given, truth = wells
    mean, sigma = forward(trained.weights, given)
    ratio = given[:, 0].mean(1)
    error = mean - truth
    spread = ((truth - truth.mean()) ** 2).sum()
    figures = {
        "wells": len(truth),
        "pearson_r": np.corrcoef(mean, truth)[0, 1],
        "mae_percent": 100 * np.abs(error).mean(),
        "r2": 1 - (error**2).sum() / spread,
        "coverage_90": (np.abs(error) <= trained.quantile * sigma).mean(),
        "half_width_percent": 100 * trained.quantile * sigma.mean(),
        "v_control_pearson_r": np.corrcoef(ratio, truth)[0, 1],
        "v_control_mae_percent": 100 * np.abs(ratio - truth).mean(),
        "v_control_r2": 1 - ((ratio - truth) ** 2).sum() / spread,
    }
    return {name: round(float(value), 4) for name, value in figures.items()}


def _quantile(weights: Weights, world: World) -> float:
    """The mean of the fields' own quantiles: a field counts as much as another, however many plates show it."""
    found = []
    for given, truth in world.values():
        mean, sigma = forward(weights, given)
        found.append(conformal_quantile(np.abs(truth - mean) / sigma))
    return float(np.mean(found))


def train_and_save(worlds: Mapping[str, World], seed: int, out: Path, command: str) -> dict[str, dict[str, float]]:
    """Train, calibrate and test on separate plates; write weights and card; return the test's figures."""
    weights = fit(*_together([*worlds["train"].values()]), steps=STEPS, learning_rate=LEARNING_RATE, seed=seed)
    trained = Trained(weights, _quantile(weights, worlds["calibrate"]))
    test = worlds["test"]
    metrics = {
        kind: evaluate(wells, trained) for kind, wells in chain([("all", _together([*test.values()]))], test.items())
    }
    save(
        out,
        *trained,
        description="MTT viability (percent of the untreated controls) from slicewise live volumes; trained on "
        "emulated plates with errors of segmentation drawn around those that a network was seen to make, not on "
        "measured MTT",
        command=command,
        seeds={"plates_from": 10_000 * seed, "network": seed},
        metrics=metrics,
    )
    return metrics


def main(
    plates: Annotated[
        int, typer.Option(min=4, help="Plates to train on; half as many more to calibrate and test.")
    ] = 100,
    seed: Annotated[int, typer.Option(help="Plates take 10000 times this and the numbers after it.")] = 2,
    out: Annotated[Path, typer.Option(help="The .safetensors file to write.")] = DEFAULT_REGRESSOR,
) -> None:
    """Emulate plates, train, calibrate and test the regressor, and write its weights and card."""
    command = f"python -m spheroidd.daemon.training.regressor_from_emulator --plates {plates} --seed {seed}"
    out.parent.mkdir(parents=True, exist_ok=True)  # before the work, not after it
    worlds = emulate(plates, seed, Console(stderr=True))
    for name, figures in train_and_save(worlds, seed, out, command).items():
        typer.echo(f"{name}: {figures}")
    typer.echo(f"written: {out}")


if __name__ == "__main__":
    typer.run(main)
