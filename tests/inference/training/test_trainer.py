"""Training on stacks made up here: bright balls in noise."""

import csv
import dataclasses
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import distributed

from spheroidd.inference.network.build import build_network
from spheroidd.inference.network.model_card import ModelCard
from spheroidd.inference.segmentation.segmenter import UNetSegmenter
from spheroidd.inference.training.augmentation import AugmentSettings, Patch, augment
from spheroidd.inference.training.history import Progress, read_csv, tensorboard_writer, write_csv
from spheroidd.inference.training.patches import PatchSampler
from spheroidd.inference.training.stack import TrainingStack, content_digest, prepare_stack
from spheroidd.inference.training.trainer import background_bound, check_possible, learning_rate, train, validate
from spheroidd.protocols.errors import ConfigError, ModelError, StackError, StorageError
from spheroidd.protocols.ports import Prediction
from spheroidd.protocols.results import Limits, Precision
from tests.inference.training.rig import TINY, balls
from tests.places import ROOT, WARM_PYTHON_VARIABLE


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


def test_a_checkpoint_of_other_stacks_is_refused(tmp_path: Path) -> None:
    train([balls()], [], TINY, tmp_path)
    with pytest.raises(ConfigError, match="other data"):
        train([balls(1)], [], TINY, tmp_path)


def test_a_checkpoint_that_began_with_other_weights_is_refused(tmp_path: Path) -> None:
    first, other = (train([balls()], [], dataclasses.replace(TINY, seed=seed), tmp_path / str(seed)) for seed in (1, 2))
    done = train([balls()], [], TINY, tmp_path / "on", start_from=first)
    assert same(done, train([balls()], [], TINY, tmp_path / "on", start_from=first)), "the same weights go on"
    for start_from in (other, None):
        with pytest.raises(ConfigError, match="other weights to start from"):
            train([balls()], [], TINY, tmp_path / "on", start_from=start_from)


def test_the_card_s_hash_of_the_data_sees_every_voxel(tmp_path: Path) -> None:
    stack = balls()
    stack.save(tmp_path)
    kept = content_digest([stack])
    assert content_digest([TrainingStack.load(tmp_path)]) == kept, "wherever the arrays lie"
    for number in range(len(stack.variants)):
        variants = [volume.copy() for volume in stack.variants]
        variants[number][1, 5, 7, 11] += np.float16(0.5)
        assert content_digest([dataclasses.replace(stack, variants=tuple(variants))]) != kept
    assert content_digest([stack, stack]) != kept


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    train([balls()], [], TINY, tmp_path)
    _halve(tmp_path / "checkpoint.pt")
    with pytest.raises(ConfigError, match="not a checkpoint"):
        train([balls()], [], TINY, tmp_path)


def test_another_seed_gives_another_network(tmp_path: Path) -> None:
    a = train([balls()], [], TINY, tmp_path / "a")
    b = train([balls()], [], dataclasses.replace(TINY, seed=1), tmp_path / "b")
    assert not same(a, b)


def test_it_learns_to_find_bright_balls(tmp_path: Path) -> None:
    settings = dataclasses.replace(TINY, steps=60, every=60, patch=(16, 16, 16), ema_decay=0.9)
    model = train([balls(seed) for seed in range(4)], [], settings, tmp_path)
    for precision in Precision:
        for live, dead in validate(model, [balls(9)], precision).values():
            assert min(live, dead) > 0.8, precision
    bound = background_bound(model, [balls(9)], precision="fp32")
    assert bound == 0.5, "the balls vary by more than it, and more is never skipped"
    segmenter = UNetSegmenter(model, ModelCard("b", settings.network, 0, "", background=bound), "cpu", "fp32")
    assert not segmenter.predict(np.full((2, 8, 8, 8), -0.6, np.float32)).live.any()
    assert segmenter.predict(balls(9).variants[0].astype(np.float32)).live.max() > 0.5


def test_of_a_large_stack_the_middle_tells_how_flat_a_cell_can_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def predict(self: UNetSegmenter, region: NDArray[np.float32]) -> Prediction:
        asked.append(region)
        return Prediction(*(np.ones(region.shape[1:], np.float32) for _ in range(4)))

    monkeypatch.setattr(UNetSegmenter, "predict", predict)
    monkeypatch.setattr("spheroidd.inference.training.trainer._LONGEST_MIDDLE", 16)
    stack = balls(shape=(12, 24, 16))
    background_bound(build_network(TINY.network), [stack])
    assert [region.shape for region in asked] == [(2, 12, 16, 16)] * 2
    assert np.array_equal(asked[0], stack.variants[0][:, :, 4:20].astype(np.float32))


STILL = AugmentSettings(contrast=0, brightness=0, blur_chance=0, noise_chance=0, swap_chance=0.5, drop_chance=0)


def sampler(stack: TrainingStack, patch: tuple[int, int, int], augmentation: AugmentSettings) -> PatchSampler:
    return PatchSampler([stack], patch, 0.3, augmentation, seed=0)


def test_a_patch_and_its_truth_are_turned_and_exchanged_alike() -> None:
    stack = balls()
    truth = (stack.cells / 255).astype(np.float16)
    drawn = sampler(dataclasses.replace(stack, variants=(truth,)), (8, 16, 16), STILL)
    seen = set()
    for step in range(12):
        volume, cells, density, _ = drawn.batch(step, range(2))
        assert volume.shape == cells.shape == density.shape == (2, 2, 8, 16, 16)
        assert torch.equal(volume, cells)
        assert cells.any()
        assert float(density[cells > 0].mean()) > 3 * float(density[cells == 0].mean()), "density lies in the cells"
        seen.add(volume.numpy().tobytes())
        assert torch.equal(volume, drawn.batch(step, range(2))[0]), "a step's batch is always the same"
        assert torch.equal(volume[1:], drawn.batch(step, range(1, 2))[0]), "whoever draws which part of it"
    assert len(seen) == 12


def test_a_stack_smaller_than_the_patch_is_filled_up() -> None:
    volume, cells, _, _ = sampler(balls(), (24, 32, 32), STILL).batch(0, range(2))
    assert volume.shape == (2, 2, 24, 32, 32)
    assert not cells[:, :, 16:].any()


def test_a_region_s_density_is_that_part_of_the_whole() -> None:
    stack = balls()
    region = (slice(3, 14), slice(0, 9), slice(11, 24))
    assert np.allclose(stack.density(region), stack.density()[:, *region], atol=1e-9)


def patch(seed: int = 0) -> Patch:
    stack = balls(seed)
    return Patch(stack.variants[0].astype(np.float32), stack.fractions(), stack.density(), stack.knowledge())


NOTHING = AugmentSettings(False, 0, 0, 0, 0, 0, 0, 0, 0)


@pytest.mark.parametrize(
    "change",
    [
        {"contrast": 0.5},
        {"brightness": 0.5},
        {"blur": 1.0, "blur_chance": 1.0},
        {"noise": 0.5, "noise_chance": 1.0},
        {"overexposed": 4.0, "overexposed_chance": 1.0},
    ],
    ids=str,
)
def test_each_disturbance_changes_the_volume_and_never_the_truth(change: dict[str, float]) -> None:
    given = patch()
    before = given.volume.copy()
    assert np.array_equal(augment(np.random.default_rng(0), given, NOTHING).volume, before)
    found = augment(np.random.default_rng(0), given, dataclasses.replace(NOTHING, **change))
    assert np.array_equal(given.volume, before), "the patch itself is left as it was"
    assert found.volume.dtype == np.float32
    assert np.isfinite(found.volume).all()
    assert not np.array_equal(found.volume, before)
    assert np.array_equal(found.cells, given.cells)


def test_of_a_channel_that_is_dropped_nothing_is_true() -> None:
    given, seen = patch(), set()
    for seed in range(8):
        found = augment(np.random.default_rng(seed), given, dataclasses.replace(NOTHING, drop_chance=0.5))
        dropped = tuple(bool((channel == -1).all()) for channel in found.volume)
        seen.add(dropped)
        for before, now in ((given.cells, found.cells), (given.density, found.density)):
            for gone, old, new in zip(dropped, before, now, strict=True):
                assert np.array_equal(new, np.zeros_like(old) if gone else old)
    assert {(False, True), (True, False)} <= seen


def test_a_sparse_patch_keeps_a_few_cells_and_what_it_dims_is_background() -> None:
    stack = balls(shape=(32, 48, 48))
    given = Patch(stack.variants[0].astype(np.float32), stack.fractions(), stack.density(), stack.knowledge())
    fewer = 0
    for seed in range(6):
        found = augment(np.random.default_rng(seed), given, dataclasses.replace(NOTHING, sparse_chance=1.0))
        assert (found.cells <= given.cells).all()
        for light, cells, before in zip(found.volume, found.cells, given.cells, strict=True):
            gone = (before == 1) & (cells < 0.1)
            fewer += bool(gone.any())
            assert light[cells > 0.9].mean() > light[before == 0].mean() + 1
            assert not gone.any() or light[cells > 0.9].mean() >= light[gone].mean()
            assert (light.mean(), light.std()) == pytest.approx((0, 1), abs=1e-3)
    assert fewer


def test_a_patch_shows_larger_and_smaller_cells_with_their_truth_and_as_many_of_them() -> None:
    stack = balls(shape=(32, 48, 48))
    truth = (stack.cells / 255).astype(np.float16)
    scaled = dataclasses.replace(NOTHING, scale=0.6)
    drawn = sampler(dataclasses.replace(stack, variants=(truth,)), (16, 24, 24), scaled)
    cell_voxels, cells_there = [], []
    for step in range(12):
        volume, cells, density, _ = drawn.batch(step, range(2))
        assert volume.shape == cells.shape == density.shape == (2, 2, 16, 24, 24)
        assert torch.allclose(volume, cells, atol=1e-3), "the truth is zoomed as its image"
        assert float(density[cells > 0.5].mean()) > 3 * float(density[cells < 0.5].mean()), "density lies in the cells"
        cell_voxels.append(float(cells.sum()))
        cells_there.append(float(density.sum()))
    in_one = np.array(cell_voxels) / np.array(cells_there)
    assert in_one.max() > 1.5 * in_one.min(), "a cell has more voxels in one patch than in another"


def test_channels_are_exchanged_with_their_truth() -> None:
    given = patch()
    found = augment(np.random.default_rng(0), given, dataclasses.replace(NOTHING, swap_chance=1.0))
    for new, old in zip(found, given, strict=True):
        assert np.array_equal(new, old[::-1])


@pytest.mark.parametrize("wrong", [{"noise": -1.0}, {"swap_chance": 1.5}, {"blur_chance": float("nan")}], ids=str)
def test_augmentations_that_cannot_be_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="augmentation"):
        AugmentSettings(**wrong)


def test_a_training_stack_comes_back_from_its_folder(tmp_path: Path) -> None:
    stack = balls()
    stack.save(tmp_path / "s")
    stack.save(tmp_path / "s")  # over an older one
    back = TrainingStack.load(tmp_path / "s")
    assert (back.name, back.spacing_um, len(back.variants)) == (stack.name, stack.spacing_um, 2)
    for name in ("cells", "live_points_um", "dead_points_um"):
        assert np.array_equal(getattr(back, name), getattr(stack, name))
    assert all(np.array_equal(a, b) for a, b in zip(back.variants, stack.variants, strict=True))
    assert isinstance(back.variants[0], np.memmap), "a volume is not read before it is looked at"


def _halve(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


@pytest.mark.parametrize("damage", [_halve, Path.unlink], ids=["halved", "missing"])
@pytest.mark.parametrize("name", ["cells.npy", "variant_0.npy", "stack.json", "live_points_um.npy"])
def test_a_damaged_training_stack_is_refused(tmp_path: Path, name: str, damage: Callable[[Path], None]) -> None:
    if (name, damage) == ("variant_0.npy", Path.unlink):
        pytest.skip("one variant less is still a training stack")
    balls().save(tmp_path / "s")
    damage(tmp_path / "s" / name)
    with pytest.raises(StackError, match="remove it") as caught:
        TrainingStack.load(tmp_path / "s")
    assert str(tmp_path) in str(caught.value)


def test_the_log_can_be_read_and_goes_on_after_an_interruption(tmp_path: Path) -> None:
    for step in (3, 6, 6, 9):  # the sixth was trained twice
        write_csv(tmp_path / "log.csv", Progress(step, 0.5, 1e-3, 2.0, {"a": (0.5, 0.25), "b": (1.0, 0.75)}))
    rows = read_csv(tmp_path / "log.csv")
    assert [row["step"] for row in rows] == [3, 6, 9]
    assert (rows[0]["live_dice"], rows[0]["dead_dice"]) == (0.75, 0.5)
    (tmp_path / "log.csv").write_text("step,loss\nthree,1\n")
    with pytest.raises(ConfigError, match="cannot be read as a log"):
        read_csv(tmp_path / "log.csv")


def test_tensorboard_gets_events(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX", reason="the extra `train` is not installed")
    with tensorboard_writer(tmp_path) as write:
        write(Progress(3, 0.5, 1e-3, 2.0, {}))
    (events,) = tmp_path.glob("events.out.tfevents.*")
    content = events.read_bytes()
    assert b"loss" in content
    assert b"live_dice" not in content, "NaN is no event"


def test_a_loss_that_is_no_number_ends_the_training(tmp_path: Path) -> None:
    stack = balls()
    broken = dataclasses.replace(stack, variants=(np.full_like(stack.variants[0], np.nan),))
    with pytest.raises(ModelError, match="the loss is nan at step 0"):
        train([broken], [], TINY, tmp_path)


@pytest.mark.parametrize(
    "switch",
    [{"residual": False}, {"deep_supervision": False}, {"density": False}, {"architecture": "SlicewiseUNet"}],
    ids=str,
)
def test_every_kind_of_network_learns(tmp_path: Path, switch: dict[str, object]) -> None:
    network = dataclasses.replace(TINY.network, **switch)
    settings = dataclasses.replace(TINY, network=network, steps=36, every=4)
    losses: list[float] = []
    train([balls(0), balls(1)], [], settings, tmp_path, report=lambda progress: losses.append(progress.loss))
    assert losses[-1] < 0.85 * losses[0]


def test_a_training_can_start_from_weights(tmp_path: Path) -> None:
    first = train([balls()], [], TINY, tmp_path / "first")
    settings = dataclasses.replace(TINY, steps=1, learning_rate=1e-12, warmup=0, every=1, ema_decay=0)
    second = train([balls()], [], settings, tmp_path / "second", start_from=first)
    for (name, a), b in zip(first.named_parameters(), second.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6), name


def test_weights_of_another_shape_are_no_start(tmp_path: Path) -> None:
    other = train([balls()], [], TINY, tmp_path / "first")
    for change, word in (({"levels": 3}, "weights to start from"), ({"base": 5}, "cannot be widened")):
        settings = dataclasses.replace(TINY, network=dataclasses.replace(TINY.network, **change))
        with pytest.raises(ConfigError, match=word):
            train([balls()], [], settings, tmp_path / "second", start_from=other)


def test_a_training_goes_on_wider(tmp_path: Path) -> None:
    first = train([balls()], [], TINY, tmp_path / "first")
    wider = dataclasses.replace(TINY.network, base=2 * TINY.network.base)
    settings = dataclasses.replace(TINY, network=wider, steps=1, learning_rate=1e-12, warmup=0, every=1, ema_decay=0)
    second = train([balls()], [], settings, tmp_path / "second", start_from=first)
    assert second.settings == wider
    for (name, narrow), wide in zip(first.named_parameters(), second.parameters(), strict=True):
        copies = wide.shape[0] // narrow.shape[0]
        shared = wide.unflatten(1, (-1, narrow.shape[1])).sum(dim=1) if narrow.ndim > 1 else wide
        assert torch.allclose(shared, narrow.tile(copies, *[1] * (narrow.ndim - 1)), atol=1e-6), name


def test_fp16_on_a_cpu_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="fp16"):
        train([balls()], [], dataclasses.replace(TINY, precision="fp16"), tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [("ema_decay", 1.0), ("ema_decay", -0.1), ("minority", 1.1), ("warmup", -1), ("steps", 0), ("learning_rate", 0.0)],
)
def test_a_setting_that_trains_nothing_is_refused(key: str, value: float) -> None:
    with pytest.raises(ConfigError, match=key):
        dataclasses.replace(TINY, **{key: value})  # type: ignore[arg-type]


def test_a_folder_that_cannot_be_made_is_told_before_anything_is_rendered(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be made"):
        check_possible(TINY, tmp_path / "file" / "out", 1, "cpu")


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_trains_where_there_is_a_gpu(tmp_path: Path, precision: str) -> None:
    if not torch.cuda.is_available():
        pytest.skip("torch sees no GPU")
    settings = dataclasses.replace(TINY, precision=precision)
    assert train([balls()], [], settings, tmp_path, device="cuda") is not None


def test_bf16_on_a_cpu_is_judged_in_single(tmp_path: Path) -> None:
    reported: list[Progress] = []
    train([balls()], [], dataclasses.replace(TINY, precision="bf16"), tmp_path, report=reported.append)
    assert all(np.isfinite(progress.loss) for progress in reported)


SECOND = """
import os
from pathlib import Path
import torch
from torch import distributed
from tests.inference.training.rig import TINY, balls
from spheroidd.inference.training.trainer import train

torch.set_num_threads(1)
distributed.init_process_group("gloo")
out = Path(os.environ["OUT"])
model = train([balls(0), balls(1)], [balls(2)], TINY, out)
torch.save(dict(model.named_parameters()), out / "second.pt")
distributed.destroy_process_group()
"""


def test_two_processes_train_one_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    environment = {**os.environ, **shared, "RANK": "1", "PYTHONPATH": str(ROOT), "OUT": str(tmp_path)}
    command = [os.environ.get(WARM_PYTHON_VARIABLE, sys.executable), "-c", SECOND]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as other:
        for name, value in {**shared, "RANK": "0"}.items():
            monkeypatch.setenv(name, value)
        distributed.init_process_group("gloo", timeout=timedelta(seconds=100))
        try:
            first = dict(train([balls(0), balls(1)], [balls(2)], TINY, tmp_path).named_parameters())
        finally:
            distributed.destroy_process_group()
        _, errors = other.communicate(timeout=100)
    assert (tmp_path / "second.pt").exists(), errors[-2000:]
    second = torch.load(tmp_path / "second.pt")
    alone = train([balls(0), balls(1)], [balls(2)], TINY, tmp_path / "alone")
    for name, value in alone.named_parameters():
        assert torch.equal(first[name], second[name]), name
        # Each process normalises its own half of the batch, so the two ways are alike, not equal.
        assert torch.allclose(first[name], value, atol=0.1), name
    assert [row["step"] for row in read_csv(tmp_path / "log.csv")] == [3, 6], "one of them writes"


def test_a_batch_that_processes_cannot_share_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spheroidd.inference.training.trainer._is_distributed", lambda: True)
    monkeypatch.setattr("torch.distributed.get_rank", lambda: 0)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 3)
    with pytest.raises(ConfigError, match="multiple"):
        train([balls()], [], TINY, tmp_path)


def raw() -> tuple[NDArray[np.uint16], NDArray[np.bool_]]:
    rng = np.random.default_rng(0)
    mask = np.zeros((12, 24, 24), bool)
    mask[2:7, 4:10, 8:14] = True
    return (100 + rng.poisson(20, (2, 12, 24, 24)) + 900 * mask).astype(np.uint16), mask


def test_what_nobody_could_tell_goes_with_the_stack_to_disk_and_into_the_patches(tmp_path: Path) -> None:
    stack, mask = raw()
    centre, known = np.array([[4.5, 3.5, 5.5]]), np.arange(12)[:, None, None] * np.ones((12, 24, 24)) < 6
    prepare_stack("x", stack, (mask, ~mask), (centre, centre), (1.0, 0.5, 0.5), (2.0, 1.0, 1.0), (None,), known).save(
        tmp_path / "x"
    )
    found = TrainingStack.load(tmp_path / "x")
    assert found.knowledge()[0, :, 0, 0].tolist() == [1, 1, 1, 0, 0, 0]
    assert balls().knowledge((slice(0, 4),) * 3).shape == (1, 4, 4, 4)
    part = PatchSampler([found], (8, 16, 16), 0.0, STILL, 0).batch(0, range(1))[3]
    assert part.shape == (1, 1, 8, 16, 16)
    assert part[0, 0, :, 0, 0].tolist() == [1, 1, 1, 0, 0, 0, 0, 0], "beyond the stack it is as at its end"
    with pytest.raises(StackError, match="known"):
        dataclasses.replace(found, known=found.known[1:] if found.known is not None else None)


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
