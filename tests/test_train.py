"""Training on stacks made up here: bright balls in noise."""

import csv
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from spheroidd.inference.model_card import ModelCard, UNetSettings
from spheroidd.inference.segment import UNetSegmenter
from spheroidd.inference.train import (
    PatchSampler,
    Progress,
    TrainSettings,
    background_bound,
    disturb,
    learning_rate,
    train,
    validate,
)
from spheroidd.inference.training_stack import TrainingStack, prepare_stack
from spheroidd.protocols.errors import ConfigError, StackError
from spheroidd.protocols.results import Limits

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


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.mark.parametrize(
    ("step", "expected"), [(0, 0.5), (1, 1.0), (2, 1.0), (12, 0.5), (22, 0.0)], ids=lambda v: str(v)
)
def test_the_learning_rate_rises_and_follows_the_cosine_to_zero(step: int, expected: float) -> None:
    settings = dataclasses.replace(TINY, steps=22, warmup=2, learning_rate=1.0)
    assert learning_rate(settings, step) == pytest.approx(expected, abs=1e-12)


def test_a_run_taken_up_from_its_checkpoint_ends_with_the_same_bits(tmp_path: Path) -> None:
    class CutOffError(Exception):
        pass

    def cut_off(progress: Progress) -> None:
        raise CutOffError

    stacks, held_out = [balls(0), balls(1)], [balls(2)]
    straight = train(stacks, held_out, TINY, tmp_path / "straight")
    with pytest.raises(CutOffError):
        train(stacks, held_out, TINY, tmp_path / "cut", report=cut_off)
    torch.rand(5)  # whatever else drew random numbers meanwhile
    assert same(straight, train(stacks, held_out, TINY, tmp_path / "cut"))
    with (tmp_path / "cut" / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["3", "6"]
    assert all(float(row["loss"]) > 0 and 0 <= float(row["live_dice"]) <= 1 for row in rows)


def test_a_checkpoint_of_other_settings_is_refused(tmp_path: Path) -> None:
    train([balls()], [], TINY, tmp_path)
    with pytest.raises(ConfigError, match="other settings"):
        train([balls()], [], dataclasses.replace(TINY, steps=12), tmp_path)


def test_another_seed_gives_another_network(tmp_path: Path) -> None:
    a = train([balls()], [], TINY, tmp_path / "a")
    b = train([balls()], [], dataclasses.replace(TINY, seed=1), tmp_path / "b")
    assert not same(a, b)


def test_it_learns_to_find_bright_balls(tmp_path: Path) -> None:
    settings = dataclasses.replace(TINY, steps=60, every=60, patch=(16, 16, 16), ema_decay=0.9)
    model = train([balls(seed) for seed in range(4)], [], settings, tmp_path)
    for live, dead in validate(model, [balls(9)]).values():
        assert min(live, dead) > 0.8
    bound = background_bound(model, [balls(9)])
    assert bound == 0.5, "the balls vary by more than it, and more is never skipped"
    segmenter = UNetSegmenter(model, ModelCard("b", settings.network, 0, "", background=bound), "cpu")
    assert not segmenter.predict(np.full((2, 8, 8, 8), -0.6, np.float32)).live.any()
    assert segmenter.predict(balls(9).variants[0].astype(np.float32)).live.max() > 0.5


def test_a_patch_and_its_truth_are_turned_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spheroidd.inference.train.disturb", lambda rng, volume: volume)
    stack = balls()
    truth = (stack.cells / 255).astype(np.float16)
    sampler = PatchSampler([dataclasses.replace(stack, variants=(truth,))], TINY)
    seen = set()
    for step in range(12):
        volume, cells, density = sampler.batch(step)
        assert volume.shape == cells.shape == density.shape == (2, 2, 8, 16, 16)
        assert torch.equal(volume, cells)
        assert cells.any()
        assert float(density[cells > 0].mean()) > 3 * float(density[cells == 0].mean()), "density lies in the cells"
        seen.add(volume.numpy().tobytes())
        assert torch.equal(volume, sampler.batch(step)[0]), "a step's batch is always the same"
    assert len(seen) == 12


def test_a_stack_smaller_than_the_patch_is_filled_up() -> None:
    settings = dataclasses.replace(TINY, patch=(24, 32, 32))
    volume, cells, _ = PatchSampler([balls()], settings).batch(0)
    assert volume.shape == (2, 2, 24, 32, 32)
    assert not cells[:, :, 16:].any()


def test_disturbing_keeps_a_volume_a_volume() -> None:
    for seed in range(30):
        volume = balls().variants[0].astype(np.float32)
        found = disturb(np.random.default_rng(seed), volume.copy())
        assert found.shape == volume.shape
        assert found.dtype == np.float32
        assert np.isfinite(found).all()
        assert np.abs(found - volume).max() > 0


def test_a_training_stack_comes_back_from_its_file(tmp_path: Path) -> None:
    stack = balls()
    stack.save(tmp_path / "s.npz")
    back = TrainingStack.load(tmp_path / "s.npz")
    assert (back.name, back.spacing_um, len(back.variants)) == (stack.name, stack.spacing_um, 2)
    for name in ("cells", "live_points_um", "dead_points_um"):
        assert np.array_equal(getattr(back, name), getattr(stack, name))
    assert all(np.array_equal(a, b) for a, b in zip(back.variants, stack.variants, strict=True))


def test_a_damaged_training_stack_is_refused(tmp_path: Path) -> None:
    balls().save(tmp_path / "s.npz")
    data = (tmp_path / "s.npz").read_bytes()
    (tmp_path / "s.npz").write_bytes(data[: len(data) // 2])
    with pytest.raises(StackError, match=r"s\.npz"):
        TrainingStack.load(tmp_path / "s.npz")


def raw() -> tuple[NDArray[np.uint16], NDArray[np.bool_]]:
    rng = np.random.default_rng(0)
    mask = np.zeros((12, 24, 24), bool)
    mask[2:7, 4:10, 8:14] = True
    return (100 + rng.poisson(20, (2, 12, 24, 24)) + 900 * mask).astype(np.uint16), mask


def test_a_raw_stack_is_brought_to_the_model_s_spacing_with_its_truth() -> None:
    stack, mask = raw()
    centre = np.array([[4.5, 3.5, 5.5]])
    off = {channel: Limits(100.0, 2000.0, 200.0, 300.0) for channel in ("488", "561")}
    found = prepare_stack("x", stack, (mask, ~mask), (centre, centre), (1.0, 0.5, 0.5), (2.0, 1.0, 1.0), (None, off))
    assert found.shape == (6, 12, 12)
    assert found.cells[0].sum() / 255 * 8 == pytest.approx(mask.sum(), rel=0.01), "no cell volume is lost"
    assert found.cells[0, 1, 2:5, 4:7].tolist() == [[510 // 2] * 3] * 3
    assert found.cells[0, 3, 2, 4] == round(255 / 2), "the last slice of the cell fills half a voxel"
    bright = found.variants[1][0] > 0.8
    assert bright[1:3, 2:5, 4:7].all()
    assert bright.sum() <= 3 * 3 * 4
    assert found.variants[0].std() > found.variants[1].std(), "each limits give their own variant"
    peak = np.unravel_index(found.density()[0].argmax(), found.shape)
    assert tuple((p + 0.5) * s for p, s in zip(peak, found.spacing_um, strict=True)) == pytest.approx(
        centre[0], abs=1.0
    )


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"learning_rate": 0.0}, {"patch": (7, 16, 16)}], ids=str)
def test_settings_that_cannot_train_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="training"):
        dataclasses.replace(TINY, **wrong)


def test_no_stacks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no stacks"):
        train([], [], TINY, tmp_path)
