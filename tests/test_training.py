"""The way from an emulated plate to weights, once, as small as it can be."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from spheroidd.daemon import training
from spheroidd.daemon.training_plates import TrainingPlate, cached_stacks
from spheroidd.inference.segment import load_segmenter


def test_from_an_emulated_plate_to_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TRAINING", "HELD_OUT"):
        monkeypatch.setattr(training, name, {"unit": range(1)})
    options = ["--steps", "2", "--base", "2", "--levels", "3", "--name", "tiny"]
    monkeypatch.setattr(training, "background_bound", lambda model, stacks: -0.5)  # two steps find no cell
    found = CliRunner().invoke(
        training.app, ["train", "--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache"), *options]
    )
    assert found.exit_code == 0, found.output
    card = json.loads((tmp_path / "out" / "tiny.json").read_text())
    assert set(card["metrics"]) == {"unit stack", "unit plate"}
    assert 0 <= card["metrics"]["unit plate"]["live_dice_mean"] <= 1
    assert load_segmenter(tmp_path / "out" / "tiny.safetensors", "cpu").sha256 == card["sha256"]

    first = list(cached_stacks("unit", 0, (1.0, 1.0, 1.0), tmp_path / "cache"))
    assert len(first) == len(TrainingPlate("unit", 0).wells()) == 6
    for stack in first:
        assert stack.shape == (24, 48, 48)
        assert len(stack.variants) == 3
        live = stack.fractions()[0] > 0.9
        if live.mean() > 0.05:
            bright = stack.variants[0][0]
            assert np.median(bright[live]) > np.median(bright[~live]), "live bodies shine in 488"


def test_a_plate_is_the_same_each_time() -> None:
    a, b, other = TrainingPlate("unit", 3), TrainingPlate("unit", 3), TrainingPlate("unit", 4)
    assert a.wells() == b.wells()
    assert a._source.settings == b._source.settings != other._source.settings
