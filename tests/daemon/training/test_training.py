"""The way from a file to weights, as small as it can be."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from rich.console import Console
from typer.testing import CliRunner

from spheroidd.daemon.cli.console import app
from spheroidd.daemon.evaluation.held_out import segment_stack
from spheroidd.daemon.training.config import (
    PRESETS,
    Recording,
    build_training_config,
    load_training_config,
    training_preset,
)
from spheroidd.daemon.training.emulated_plates import FIELDS, TrainingPlate, cached_stacks
from spheroidd.daemon.training.joint_viability import viability_wells
from spheroidd.daemon.training.recordings import recorded_stack
from spheroidd.daemon.training.run import run_training
from spheroidd.inference.segmentation.segmenter import load_segmenter
from spheroidd.inference.training.history import read_csv
from spheroidd.inference.training.stack import content_digest
from spheroidd.inference.viability.regressor import ViabilityRegressor
from spheroidd.protocols.errors import StackError
from spheroidd.protocols.plate import WellRole
from tests import places

EXAMPLES = places.EXAMPLES / "training"

TINY = """
name = "tiny"
out = "out"
device = "cpu"
tensorboard = true

[data]
cache = "{cache}"

[[data.train]]
kind = "unit"
first_seed = 0
plates = 1

[[data.validation]]
kind = "unit"
first_seed = 100
plates = 1

[[data.held_out]]
kind = "unit"
first_seed = 200
plates = 1

[training]
steps = 4
batch = 2
patch = [16, 16, 16]
every = 2

[training.network]
base = 2
levels = 3

[viability]
steps = 2

[[viability.plates]]
kind = "unit"
first_seed = 0
plates = 1
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of small plates: what is rendered and looked at again and again need not be large."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(FIELDS, "unit", replace(FIELDS["unit"], replaced={"n_z": 16, "height": 64, "width": 64}))
        yield tmp_path_factory.mktemp("cache")


def written(folder: Path, cache: Path, **replaced: str) -> Path:
    text = TINY.format(cache=cache.as_posix())
    for old, new in replaced.items():
        text = text.replace(f"{old} = ", f"{old} = {new} #")
    (folder / "tiny.toml").write_text(text)
    return folder / "tiny.toml"


def invoke(*arguments: object) -> tuple[int, str]:
    found = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return found.exit_code, found.output


def test_from_a_file_to_weights_and_on_from_the_same_place(tmp_path: Path, cache: Path) -> None:
    config = written(tmp_path, cache)
    code, output = invoke("train", config)
    assert code == 0, output
    assert "Dice live" in output
    card = json.loads((tmp_path / "out" / "tiny.json").read_text())
    assert card["command"] == "spheroidd train tiny.toml"
    assert set(card["metrics"]) == {"unit stack", "unit plate"}
    assert 0 <= card["metrics"]["unit plate"]["live_dice_mean"] <= 1
    assert card["seeds"] == {
        "training": 0,
        "first_train_unit_plate": 0,
        "first_validation_unit_plate": 100,
        "first_held_out_unit_plate": 200,
    }
    assert card["data_sha256"] == content_digest(list(cached_stacks("unit", 0, (1.0, 1.0, 1.0), cache)))
    (own,) = card["tradeoff"]
    assert own["live_dice"] == card["metrics"]["unit plate"]["live_dice_mean"]
    assert own["cpu_s"] > 0
    assert load_segmenter(tmp_path / "out" / "tiny.safetensors", "cpu").sha256 == card["sha256"]
    assert [row["step"] for row in read_csv(tmp_path / "out" / "log.csv")] == [2, 4]
    assert list((tmp_path / "out" / "tensorboard").glob("events.*"))
    ViabilityRegressor.load(tmp_path / "out" / "regressor.safetensors")

    code, output = invoke("train", config)  # nothing is left to do: the checkpoint is of the last step
    assert code == 0, output
    assert "step 2" not in output
    assert json.loads((tmp_path / "out" / "tiny.json").read_text())["sha256"] == card["sha256"]


def test_stacks_are_rendered_once(cache: Path) -> None:
    first = list(cached_stacks("unit", 0, (1.0, 1.0, 1.0), cache))
    assert len(first) == len(TrainingPlate("unit", 0).wells()) == 6
    for stack in first:
        assert stack.shape == (16, 32, 32)
        assert len(stack.variants) == 3
        live = stack.fractions()[0] > 0.9
        if live.mean() > 0.05:
            bright = stack.variants[0][0]
            assert np.median(bright[live]) > np.median(bright[~live]), "live bodies shine in 488"
    again = list(cached_stacks("unit", 0, (1.0, 1.0, 1.0), cache))
    assert all(np.array_equal(a.cells, b.cells) for a, b in zip(first, again, strict=True))


def test_a_plate_is_the_same_each_time() -> None:
    a, b, other = TrainingPlate("unit", 3), TrainingPlate("unit", 3), TrainingPlate("unit", 4)
    assert a.wells() == b.wells()
    assert a.source.settings == b.source.settings != other.source.settings


def test_no_two_kinds_of_plate_share_what_is_drawn() -> None:
    assert len({field.number for field in FIELDS.values()}) == len(FIELDS)


@pytest.mark.parametrize("kind", ["real", "hostile"])
def test_hard_plates_have_voxels_and_conditions_of_their_own(kind: str) -> None:
    plates = [TrainingPlate(kind, seed) for seed in range(12)]
    voxels = {plate.own_um for plate in plates}
    assert len(voxels) == 12
    assert all(0.5 <= z <= 4 and 0.25 <= y == x <= 1.3 for z, y, x in voxels)
    assert len({plate.source.spec(plate.wells()[0]).conditions for plate in plates}) == 12
    killed = [any(e.treatment.role is WellRole.POSITIVE_CONTROL for e in plate.source.plate_map) for plate in plates]
    assert 0 < sum(killed) < 12


def test_plates_of_any_voxels_have_one_lens_and_killed_wells() -> None:
    plates = [TrainingPlate("any", seed) for seed in range(12)]
    assert len({plate.own_um for plate in plates}) == 12
    assert {plate.source.preset.sigma_xy_um for plate in plates} == {
        FIELDS["any"].drawn(np.random.default_rng()).sigma_xy_um
    }
    for plate in plates:
        assert any(e.treatment.role is WellRole.POSITIVE_CONTROL for e in plate.source.plate_map)


def test_slices_computed_of_raw_frames_show_the_cells_that_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FIELDS, "sim", replace(FIELDS["sim"], replaced={"n_z": 4, "height": 192, "width": 192}))
    plate = TrainingPlate("sim", 0)
    stack, truth = plate.render(plate.wells()[0])
    assert stack.shape == (2, *truth.live.shape) == (2, 4, 192, 192)
    assert stack.dtype == np.uint16
    inside, outside = stack[0][truth.live], stack[0][~truth.live]
    assert np.median(inside) > 2 * np.median(outside)
    frames = replace(FIELDS["sim"], raw=False, replaced={"n_z": 4, "height": 192, "width": 192})
    monkeypatch.setitem(FIELDS, "sim", frames)
    given = TrainingPlate("sim", 0).pixels(plate.wells()[0])
    assert not np.array_equal(given, stack), "another noise"
    assert np.corrcoef(given[0].ravel(), stack[0].ravel())[0, 1] > 0.8


def test_swapped_dyes_are_put_back_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    small = FIELDS["swapped"].__class__(4, "unit", {}, 1, swapped=True)
    monkeypatch.setitem(FIELDS, "swapped", small)
    plate = TrainingPlate("swapped", 0)
    stack, truth = plate.render(plate.wells()[0])
    for pixels, mask in zip(stack, (truth.live, truth.dead), strict=True):
        if mask.mean() > 0.01:
            assert np.median(pixels[mask]) > np.median(pixels[~mask])


def test_a_well_s_reference_comes_with_its_plate_s_controls(cache: Path) -> None:
    config = build_training_config(
        {"data": {"train": [{"kind": "unit", "first_seed": 0, "plates": 1}]}}, base=cache, where="test"
    )
    wells = list(viability_wells(config.data.train, (1.0, 1.0, 1.0), cache))
    assert len(wells) == 6
    for well in wells:
        assert len(well.controls) == 2
    by_control = [well.mtt_percent for well in wells if any(well.stack.name == c.name for c in well.controls)]
    assert np.mean(by_control) == pytest.approx(100, abs=25)
    assert min(well.mtt_percent for well in wells) < 30, "one control is killed"


UNIT = [{"kind": "unit", "first_seed": 0, "plates": 2}]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, "nothing to learn from"),
        ({"data": {"train": [{"kind": "moon", "first_seed": 0, "plates": 1}]}}, "it is 'moon'"),
        (
            {"data": {"train": UNIT, "held_out": [{"kind": "unit", "first_seed": 1, "plates": 1}]}},
            "train and in held_out",
        ),
        ({"data": {"train": UNIT}, "name": "../x"}, "name"),
        ({"data": {"train": UNIT}, "balance": ["dead"]}, "balance has no stacks"),
        ({"data": {"train": UNIT}, "balance": ["alive"]}, "balance"),
        ({"data": {"train": UNIT}, "training": {"stepz": 3}}, "stepz"),
        ({"data": {"train": UNIT}, "training": {"steps": 0}}, "steps is 0"),
        ({"data": {"train": UNIT}, "training": {"loss": {"gamma": -1}}}, "gamma is -1"),
        ({"data": {"train": UNIT}, "training": {"precision": "fp8"}}, "precision"),
        ({"data": {"train": UNIT}, "training": {"network": {"levels": 9}}}, "9 levels"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_a_file_that_cannot_be_meant_is_refused(tmp_path: Path, table: dict[str, Any], message: str) -> None:
    with pytest.raises(Exception, match=message) as caught:
        build_training_config(table, base=tmp_path, where="a.toml")
    assert caught.value.do  # type: ignore[attr-defined]


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_example_can_be_read(path: Path) -> None:
    config = load_training_config(path)
    assert config.out.is_absolute()
    assert config.data.cache.is_absolute()


@pytest.mark.parametrize(
    "arguments", [(), ("x.toml", "--preset", "quick"), ("--preset", "slow"), ("no.toml",)], ids=str
)
def test_a_command_without_a_training_is_refused(arguments: tuple[str, ...]) -> None:
    code, output = invoke("train", *arguments)
    assert code != 0
    assert "To do" in output


def test_the_quick_preset_in_a_tiny_form(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def smaller(table: Mapping[str, Any]) -> dict[str, Any]:
        unit = {
            part: [{"kind": "unit", "first_seed": n, "plates": 1}] for n, part in ((0, "train"), (100, "validation"))
        }
        return {
            **table,
            "data": {"cache": str(cache), **unit},
            "training": {**table["training"], "steps": 2, "every": 2, "patch": [16, 16, 16]},
        }

    assert training_preset("quick", tmp_path).training.network.levels == 3
    monkeypatch.setitem(PRESETS, "quick", smaller(PRESETS["quick"]))
    monkeypatch.chdir(tmp_path)
    code, output = invoke("train", "--preset", "quick", "--out", tmp_path / "elsewhere")
    assert code == 0, output
    assert "Dice live" in output
    assert (tmp_path / "elsewhere" / "quick.safetensors").exists()


def recorded(folder: Path, **replaced: object) -> Recording:
    rng = np.random.default_rng(0)
    labels = np.zeros((12, 24, 24), np.uint16)
    labels[2:7, 4:10, 4:10], labels[4:9, 14:20, 14:20] = 7, 9
    tifffile.imwrite(folder / "raw.tif", (100 + rng.poisson(20, labels.shape) + 900 * (labels > 0)).astype(np.uint16))
    np.save(folder / "raw.npy", tifffile.imread(folder / "raw.tif").astype(np.float32) / 7)
    np.save(folder / "labels.npy", labels)
    np.save(folder / "other.npy", labels[:5])
    given = {"path_561": folder / "raw.tif", "dead": folder / "labels.npy"}
    return Recording(name="mine", pixel_um=0.5, z_step_um=1.0, **{**given, **replaced})  # type: ignore[arg-type]


@pytest.mark.parametrize("image", ["raw.tif", "raw.npy"])
def test_a_recording_of_one_s_own_is_learnt_from(tmp_path: Path, image: str) -> None:
    recording = recorded(tmp_path, path_561=tmp_path / image)
    stack = recorded_stack(recording, (1.0, 1.0, 1.0), tmp_path / "cache")
    assert stack.shape == (12, 12, 12)
    live, dead = stack.fractions()
    assert not live.any()
    assert dead.sum() == pytest.approx(2 * 5 * 3 * 3, rel=0.02)
    assert sorted(map(tuple, stack.dead_points_um)) == [(4.5, 3.5, 3.5), (6.5, 8.5, 8.5)]
    volume = stack.variants[0].astype(float)
    assert volume[1][dead > 0.9].mean() > volume[1][dead == 0].mean() + 1
    first = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.npy")}
    recorded_stack(recording, (1.0, 1.0, 1.0), tmp_path / "cache")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.npy")} == first


@pytest.mark.parametrize(
    "replaced",
    [{"path_561": None}, {"dead": "other.npy"}, {"dead": "missing.npy"}, {"path_561": "raw.doc"}, {"dead": "flat.npy"}],
    ids=str,
)
def test_a_recording_that_does_not_fit_is_refused(tmp_path: Path, replaced: dict[str, str | None]) -> None:
    (tmp_path / "raw.doc").write_text("no image")
    np.save(tmp_path / "flat.npy", np.zeros((4, 4), bool))
    paths = {name: value and tmp_path / value for name, value in replaced.items()}
    with pytest.raises(StackError) as caught:
        recorded_stack(recorded(tmp_path, **paths), (1.0, 1.0, 1.0), tmp_path / "cache")
    assert caught.value.do


def test_the_100_nm_example_trains_and_segments_in_a_tiny_form(tmp_path: Path) -> None:
    example = load_training_config(EXAMPLES / "100nm.toml")
    spacing_um = example.training.network.spacing_um
    assert spacing_um == (0.1, 0.1, 0.1)
    mine = recorded(tmp_path).model_copy(update={"pixel_um": 0.125, "z_step_um": 0.5})
    small = replace(example.training, steps=2, every=2, patch=(16, 24, 24), precision="fp32")
    config = example.model_copy(
        update={
            "out": tmp_path / "out",
            "device": "cpu",
            "data": example.data.model_copy(update={"cache": tmp_path, "train": (), "recordings": (mine,)}),
            "training": small,
        }
    )
    weights = run_training(config, Console(quiet=True), "a test")
    segmenter = load_segmenter(weights, "cpu")
    assert segmenter.spacing_um == spacing_um
    own_um = (mine.z_step_um, mine.pixel_um, mine.pixel_um)
    raw = tifffile.imread(tmp_path / "raw.tif")
    masks, counter = segment_stack(segmenter, np.stack([raw, raw]), own_um, None)
    assert masks["live"].shape == raw.shape
    assert counter.volumes_by_z("488") is not None


@pytest.mark.slow
def test_torchrun_trains_with_two_processes(tmp_path: Path, cache: Path) -> None:
    config = written(tmp_path, cache, tensorboard="false")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--no-python"]
    done = subprocess.run(
        [*command, str(Path(sys.executable).with_name("spheroidd")), "train", str(config)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert [row["step"] for row in read_csv(tmp_path / "out" / "log.csv")] == [2, 4]
    assert (tmp_path / "out" / "tiny.safetensors").exists()
