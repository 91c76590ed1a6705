"""What people do to files, folders and keys: refused with what, where and what to do, and no number is wrong."""

import dataclasses
import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
import zarr
from typer.testing import CliRunner, Result

from spheroidd.daemon.cli.app import INTERRUPTED
from spheroidd.daemon.cli.console import app
from spheroidd.daemon.evaluation.figures import check_folder
from spheroidd.daemon.training.config import Recording, build_training_config
from spheroidd.daemon.training.emulated_plates import FIELDS, TrainingPlate, cached_stacks
from spheroidd.daemon.training.model_store import model_rows
from spheroidd.daemon.training.recordings import recorded_stack
from spheroidd.daemon.training.run import chosen_device
from spheroidd.inference.agreement.overlap_metrics import read_truth
from spheroidd.inference.network.bioimageio import export_package, import_package
from spheroidd.inference.network.build import build_network
from spheroidd.inference.network.model_card import ModelCard, read_card
from spheroidd.inference.network.weights import load_model, save_model
from spheroidd.inference.training import crossval
from spheroidd.inference.training.checkpoint import Origin, save_checkpoint
from spheroidd.inference.training.crossval import Case, cross_validate
from spheroidd.inference.training.output_bias import balance
from spheroidd.inference.training.search import tune
from spheroidd.inference.training.stack import TrainingStack
from spheroidd.inference.training.trainer import CHECKPOINT_NAME, train
from spheroidd.inference.viability.mtt import Blank, ReaderBlock, Unit, relate_to_controls
from spheroidd.protocols.errors import ConfigError, ModelError, SpheroiddError, StackError, StorageError
from spheroidd.protocols.plate import PlateMap, PlateWell, Treatment, WellRole
from spheroidd.protocols.well import WellId
from tests.inference.training.rig import TINY, balls

CUBES = ((3, 8, 8), (8, 20, 20), (5, 24, 8))
UM = (1.0, 1.0, 1.0)


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def recording(tmp_path: Path) -> Recording:
    """Three bright cubes and their mask."""
    image, mask = np.full((12, 32, 32), 100, np.uint16), np.zeros((12, 32, 32), np.uint8)
    for z, y, x in CUBES:
        part = np.s_[z - 2 : z + 2, y - 3 : y + 3, x - 3 : x + 3]
        image[part], mask[part] = 900, 1
    np.save(tmp_path / "image.npy", image)
    np.save(tmp_path / "mask.npy", mask)
    return Recording(
        name="cubes", path_488=tmp_path / "image.npy", live=tmp_path / "mask.npy", pixel_um=1.0, z_step_um=1.0
    )


@pytest.mark.parametrize("value", [1, 255])
def test_a_mask_s_parts_are_cells_whatever_its_value(recording: Recording, tmp_path: Path, value: int) -> None:
    np.save(tmp_path / "mask.npy", value * np.load(tmp_path / "mask.npy"))
    found = recorded_stack(recording, UM, tmp_path / "cache")
    assert np.allclose(sorted(map(tuple, found.live_points_um)), sorted(CUBES))


@pytest.mark.parametrize("value", [np.nan, -1.0, 0.3])
def test_a_truth_is_whole_numbers(recording: Recording, tmp_path: Path, value: float) -> None:
    mask = np.load(tmp_path / "mask.npy").astype(np.float32)
    mask[0, 0, 0] = value
    np.save(tmp_path / "mask.npy", mask)
    with pytest.raises(ConfigError, match=r"mask\.npy: its numbers"):
        recorded_stack(recording, UM, tmp_path / "cache")
    with pytest.raises(ConfigError, match=r"mask\.npy: its numbers"):
        read_truth(tmp_path / "mask.npy")


def _zlib_tiff() -> bytes:
    out = io.BytesIO()
    tifffile.imwrite(out, np.arange(9216, dtype=np.uint16).reshape(9, 32, 32), compression="zlib")
    return out.getvalue()


def _npz() -> bytes:
    out = io.BytesIO()
    np.savez_compressed(out, a=np.arange(9216, dtype=np.uint16).reshape(9, 32, 32))
    return out.getvalue()


BROKEN = {
    "empty.npy": b"",
    "empty.npz": b"PK\x03\x04",
    "spoilt.tif": _zlib_tiff()[:400] + b"\xff" * 60 + _zlib_tiff()[460:],
    "spoilt.npz": _npz()[:200] + b"\xff" * 60 + _npz()[260:],
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_named(recording: Recording, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(BROKEN[name])
    with pytest.raises(StackError, match=name):
        recorded_stack(recording.model_copy(update={"path_488": tmp_path / name}), UM, tmp_path / "cache")
    with pytest.raises(ConfigError, match=name):
        read_truth(tmp_path / name)


def test_a_mask_of_another_size_is_named(recording: Recording, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "m.ome.tif", np.zeros((10, 32, 32), np.uint8), ome=True, metadata={"axes": "ZYX"})
    with pytest.raises(StackError, match=r"image.npy \(12, 32, 32\), m.ome.tif \(10, 32, 32\)"):
        recorded_stack(recording.model_copy(update={"live": tmp_path / "m.ome.tif"}), UM, tmp_path / "cache")


def test_a_zarr_whose_chunks_change_is_prepared_anew(recording: Recording, tmp_path: Path) -> None:
    array = zarr.create_array(tmp_path / "m.zarr", data=np.load(tmp_path / "mask.npy"))
    told = recording.model_copy(update={"live": tmp_path / "m.zarr"})
    assert recorded_stack(told, UM, tmp_path / "cache").cells.any()
    array[:] = 0
    for path in (tmp_path / "m.zarr").rglob("*"):
        os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 10**9))
    assert not recorded_stack(told, UM, tmp_path / "cache").cells.any()


def test_a_stack_that_was_removed_from_the_cache_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = dataclasses.replace(FIELDS["unit"], replaced={"n_z": 16, "height": 64, "width": 64})
    monkeypatch.setitem(FIELDS, "unit", small)
    names = [stack.name for stack in cached_stacks("unit", 0, UM, tmp_path)]
    damaged = next(tmp_path.rglob(f"{names[1]}/cells.npy"))
    damaged.write_bytes(b"")
    with pytest.raises(StackError, match="it is made again"):
        list(cached_stacks("unit", 0, UM, tmp_path))
    (damaged.parent / "stack.json").unlink()
    again = [stack.name for stack in cached_stacks("unit", 0, UM, tmp_path)]
    assert names == again == sorted(map(TrainingPlate("unit", 0).stack_name, TrainingPlate("unit", 0).wells()))


def plates(kind: str, seed: int) -> list[dict[str, Any]]:
    return [{"kind": kind, "first_seed": seed, "plates": 2}]


ONE = {"name": "a", "path_488": "a.tif", "patient": "P1", "pixel_um": 1.0, "z_step_um": 1.0}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"data": {"train": plates("unit", 5), "held_out": plates("demo", 6)}}, "plates of seed 6"),
        ({"data": {"train": plates("unit", 5), "validation": plates("demo", 4)}}, "in train and in validation"),
        (
            {
                "data": {"train": plates("unit", 5), "held_out": plates("unit", 9)},
                "viability": {"plates": plates("unit", 9)},
            },
            "in train and in held_out",
        ),
        ({"data": {"recordings": [ONE, {**ONE, "path_488": "b.tif"}]}}, "two recordings are called 'a'"),
        ({"data": {"recordings": [ONE], "validation_recordings": [{**ONE, "path_488": "b.tif"}]}}, "are called 'a'"),
        (
            {"data": {"recordings": [ONE], "validation_recordings": [{**ONE, "name": "b", "patient": "P2"}]}},
            "a.tif is path_488 of 'a', which is learnt from, and of 'b'",
        ),
        (
            {"data": {"recordings": [ONE], "validation_recordings": [{**ONE, "name": "b", "path_488": "b.tif"}]}},
            "P1 is patient of",
        ),
        ({"data": {"train": plates("unit", 5)}, "training": {"network": {"levels": 9}}}, "c.toml: a U-Net of"),
        ({"data": {"train": plates("unit", 5)}, "training": {"network": {"max_features": 0}}}, "at most 0 features"),
        ({"data": {"train": plates("unit", 5)}, "training": {"loss": {"gamma": -1.0}}}, "c.toml, loss: gamma is -1"),
    ],
)
def test_what_would_leak_or_cannot_be_is_refused(tmp_path: Path, table: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_training_config(table, base=tmp_path, where="c.toml")


@pytest.mark.parametrize("device", ["gpu", "cuda:x", ""])
def test_a_device_that_is_none_is_refused(device: str) -> None:
    with pytest.raises(ConfigError, match="device is"):
        chosen_device(device)


def test_an_output_of_which_nothing_is_true_is_not_balanced() -> None:
    torch.manual_seed(0)
    model, stack = build_network(TINY.network).eval(), balls(0)
    cells = stack.cells.copy()
    cells[1] = 0
    with torch.no_grad():
        for bias in model.logit_biases:
            bias += 0.5
    assert balance(model, [dataclasses.replace(stack, cells=cells)], ("dead",)) == (0.0, 0.0)


def test_folds_and_trials_that_began_with_other_weights_are_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = dataclasses.replace(TINY, steps=1, every=1)
    starts = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        starts.append(build_network(settings.network))
    cases = [Case(balls(seed), f"P{seed}") for seed in range(2)]
    monkeypatch.setattr(crossval, "judge", lambda segmenter, case, number: [])
    cross_validate(cases, settings, tmp_path / "folds", n_folds=2, start_from=starts[0])
    cross_validate(cases, settings, tmp_path / "folds", n_folds=2, start_from=starts[0])
    with pytest.raises(ConfigError, match="began with other weights"):
        cross_validate(cases, settings, tmp_path / "folds", n_folds=2, start_from=starts[1])
    tune([balls(0)], [balls(1)], settings, tmp_path / "trials", trials=1, start_from=starts[0])
    with pytest.raises(ConfigError, match="began with other weights"):
        tune([balls(0)], [balls(1)], settings, tmp_path / "trials", trials=1)


def test_a_file_that_holds_no_trials_is_named(tmp_path: Path) -> None:
    (tmp_path / "study.db").write_bytes(b"no database " * 100)
    with pytest.raises(ConfigError, match=r"study\.db: it is no file of trials"):
        tune([balls(0)], [balls(1)], TINY, tmp_path, trials=1)


def test_a_checkpoint_that_cannot_be_written_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / CHECKPOINT_NAME).mkdir()
    with pytest.raises(StorageError, match="the checkpoint after step 1 cannot be written"):
        save_checkpoint(tmp_path / CHECKPOINT_NAME, Origin(TINY, "data"), {}, 1)


def test_a_checkpoint_of_another_version_is_refused(tmp_path: Path) -> None:
    settings = dataclasses.replace(TINY, steps=1, every=1)
    train([balls(0)], [], settings, tmp_path)
    found = torch.load(tmp_path / CHECKPOINT_NAME, weights_only=True)
    found["model"] = {f"new.{name}": value for name, value in found["model"].items()}
    torch.save(found, tmp_path / CHECKPOINT_NAME)
    with pytest.raises(ConfigError, match="another version wrote it"):
        train([balls(0)], [], settings, tmp_path)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    save_model(build_network(TINY.network), tmp_path, ModelCard("tiny", TINY.network, 4, ""))
    return tmp_path / "tiny.safetensors"


def test_weights_that_cannot_be_written_say_where(model: Path) -> None:
    network, card = load_model(model)
    model.with_suffix(".md").unlink()
    model.with_suffix(".md").mkdir()
    with pytest.raises(StorageError, match=r"tiny\.md: the weights tiny cannot be written"):
        save_model(network, model.parent, card)


EDITS: list[dict[str, Any]] = [
    {"halo": "x"},
    {"halo": -3},
    {"halo": None},
    {"background": "0.5"},
    {"metrics": []},
    {"seeds": []},
    {"sha256": 5},
    {"normalisation": "stack"},
    {"tradeoff": 5},
    {"tradeoff": [3]},
    {"probe": []},
    {"description": None},
    {"settings": {"base": 8.5}},
    {"settings": {"levels": 9}},
    {"settings": {"max_features": 0}},
    {"settings": {"spacing_um": [float("nan"), 1, 1]}},
]


@pytest.mark.parametrize("edit", EDITS, ids=str)
def test_a_card_edited_by_hand_is_refused_by_its_name(model: Path, edit: dict[str, Any]) -> None:
    card = json.loads(model.with_suffix(".json").read_text())
    settings = {**card["settings"], **edit.get("settings", {})}
    model.with_suffix(".json").write_text(json.dumps({**card, **edit, "settings": settings}))
    with pytest.raises(ModelError, match=r"tiny.json: .*; use the card that belongs"):
        read_card(model)


def test_a_card_of_more_than_fits_in_memory_is_refused(model: Path) -> None:
    card = json.loads(model.with_suffix(".json").read_text())
    card["settings"] |= {"base": 10**7, "max_features": 10**7}
    model.with_suffix(".json").write_text(json.dumps(card))
    with pytest.raises(ModelError, match="use weights that were made with this version"):
        load_model(model)


def test_a_dice_that_is_no_number_is_no_dice(model: Path) -> None:
    card = json.loads(model.with_suffix(".json").read_text())
    card["metrics"] = {"demo plate": {"live_dice_mean": "high"}}
    model.with_suffix(".json").write_text(json.dumps(card))
    (row,) = model_rows((model.parent,))
    assert row["live_dice"] is None


def test_a_folder_of_models_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        model_rows((tmp_path / "typo",))


def test_a_package_with_spoilt_data_is_refused(model: Path, tmp_path: Path) -> None:
    export_package(model, tmp_path / "p.zip")
    with zipfile.ZipFile(tmp_path / "p.zip") as archive:
        start = archive.infolist()[0].header_offset + 60
    data = bytearray((tmp_path / "p.zip").read_bytes())
    data[start + 60 : start + 140] = b"\xff" * 80
    (tmp_path / "p.zip").write_bytes(data)
    with pytest.raises(ModelError, match="not a whole zip"):
        import_package(tmp_path / "p.zip", tmp_path / "in")


def test_figures_that_could_not_be_written_are_refused_beforehand(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "figures"):
        with pytest.raises(ConfigError, match="give --figures a folder"):
            check_folder(folder)
    check_folder(tmp_path / "new" / "figures")


@pytest.mark.parametrize(("control", "fits"), [(0.98, False), (98.0, True)])
def test_fractions_are_not_taken_for_percent(control: float, fits: bool) -> None:
    roles = {WellId(0, 0): WellRole.NEGATIVE_CONTROL, WellId(0, 1): WellRole.SAMPLE}
    plate = PlateMap("P", tuple(PlateWell(well, Treatment(role)) for well, role in roles.items()))
    block = ReaderBlock("viability", Unit.PERCENT, {WellId(0, 0): control, WellId(0, 1): control / 2}, {})
    if fits:
        assert relate_to_controls(block, plate, Blank()).references[1].viability_percent == control / 2
    else:
        with pytest.raises(ConfigError, match="give percent, not fractions"):
            relate_to_controls(block, plate, Blank(), where="mtt.csv")


def interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("command", "at", "kept"),
    [
        (("train",), "training.run.run_training", "the last checkpoint"),
        (("crossval",), "training.study.run_crossval", "Finished folds"),
        (("tune",), "training.study.run_tune", "Finished trials"),
    ],
)
def test_ctrl_c_says_what_is_kept_and_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], at: str, kept: str
) -> None:
    config = tmp_path / "c.toml"
    config.write_text('out = "here"\n[data]\ntrain = [{kind = "unit", first_seed = 1, plates = 1}]\n')
    monkeypatch.setattr(f"spheroidd.daemon.{at}", interrupt)
    result = invoke(*command, config)
    assert result.exit_code == INTERRUPTED
    assert kept in result.output
    assert str(tmp_path / "here") in result.output


def test_a_disk_that_refuses_is_told_and_not_traced(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    np.save(tmp_path / "a.npy", np.zeros((12, 32, 32), np.uint16))
    (tmp_path / "c.toml").write_text(
        '[data]\n[[data.recordings]]\nname = "a"\npath_488 = "a.npy"\npixel_um = 1.0\nz_step_um = 1.0\n'
    )
    result = invoke("train", tmp_path / "c.toml", "--out", tmp_path / "out")
    assert result.exit_code == StorageError.exit_code
    assert str(tmp_path / "out") in result.output
    assert "To do" in result.output


SPOIL: list[Callable[[Path], object]] = [
    lambda path: path.write_bytes(path.read_bytes()[:-50]),
    lambda path: path.write_bytes(b""),
    lambda path: path.with_suffix(".json").unlink(),
]


@pytest.mark.parametrize("spoil", SPOIL)
def test_weights_that_are_not_whole_are_refused(model: Path, spoil: Callable[[Path], object]) -> None:
    spoil(model)
    with pytest.raises(SpheroiddError) as told:
        load_model(model)
    assert told.value.where
    assert told.value.do


def test_an_empty_part_of_a_cached_stack_is_named(tmp_path: Path) -> None:
    balls(0).save(tmp_path / "s")
    (tmp_path / "s" / "cells.npy").write_bytes(b"")
    with pytest.raises(StackError, match="remove it"):
        TrainingStack.load(tmp_path / "s")
