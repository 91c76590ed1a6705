"""Stacks of bright balls in noise, a network as small as can be, and a training's file over made-up plates."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from spheroidd.daemon.training import study
from spheroidd.inference.network.model_card import UNetSettings
from spheroidd.inference.training.settings import TrainSettings
from spheroidd.inference.training.stack import TrainingStack

TINY = TrainSettings(
    network=UNetSettings(base=4, levels=2, density_level=0),
    steps=6,
    batch=2,
    patch=(8, 16, 16),
    learning_rate=1e-2,
    warmup=2,
    ema_decay=0.5,
    every=3,
)


def balls(seed: int = 0, shape: tuple[int, int, int] = (16, 24, 24)) -> TrainingStack:
    """Live balls in the first channel, dead ones in the second."""
    rng = np.random.default_rng(seed)
    grid = np.indices(shape) + 0.5
    cells, points = np.zeros((2, *shape), np.uint8), []
    for kind in range(2):
        points.append(rng.uniform(3, np.array(shape) - 3, (4, 3)))
        for centre in points[-1]:
            inside = sum((axis - at) ** 2 for axis, at in zip(grid, centre, strict=True)) < 3.0**2
            cells[kind][inside] = 255
    volume = (rng.normal(-0.6, 0.1, cells.shape) + 2.5 * (cells > 0)).astype(np.float16)
    return TrainingStack(f"balls-{seed}", (1.0, 1.0, 1.0), (volume, volume * np.float16(1.1)), cells, *points)


CONFIG = """
out = "out"
device = "cpu"

[data]
cache = "cache"
train = [{kind = "unit", first_seed = 3, plates = 2}, {kind = "demo", first_seed = 3, plates = 1}]
held_out = [{kind = "unit", first_seed = 77, plates = 3}]

[training]
steps = 2
batch = 2
patch = [8, 16, 16]
every = 2

[training.network]
base = 2
levels = 2
density_level = 0
"""


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Plates of two balls' stacks in place of the emulator's; which ones were asked for."""
    asked: list[tuple[str, int]] = []

    def plate(kind: str, seed: int, spacing_um: object, cache: Path) -> list[TrainingStack]:
        asked.append((kind, seed))
        return [dataclasses.replace(balls(10 * seed + n), name=f"{kind}-{seed}-{n}") for n in range(2)]

    monkeypatch.setattr(study, "cached_stacks", plate)
    return asked
