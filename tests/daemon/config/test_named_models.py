"""The regressor that a configuration names: read from its place, recorded, and refused where it is none."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from spheroidd.daemon.cli.console import app
from spheroidd.daemon.config.model import Config, InferenceConfig, build_config
from spheroidd.daemon.config.named_models import chosen_regressor
from spheroidd.daemon.monitoring.preflight import Verdict, preflight
from spheroidd.inference.viability.regressor import DEFAULT_REGRESSOR, SHAPES, ViabilityRegressor, save
from spheroidd.protocols.errors import ModelError

EMULATOR = {"kind": "emulator", "preset": "unit"}


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A regressor that reads 42 % of every well."""
    weights = {name: np.zeros(shape, np.float32) for name, shape in SHAPES.items()}
    weights["head.bias"][0] = 0.42
    path = tmp_path / "mine.safetensors"
    save(path, weights, 1.5)
    return path


def configured(folder: Path, regressor: str) -> Config:
    tables = {"source": EMULATOR, "data": {"dir": "data"}, "inference": {"regressor": regressor}}
    return build_config(tables, base=folder)


def test_without_a_setting_it_is_the_one_that_ships() -> None:
    assert chosen_regressor(InferenceConfig()).sha256 == ViabilityRegressor.load().sha256


@pytest.mark.parametrize("name", ["mine.safetensors", "mine.json"])
def test_a_path_is_relative_to_the_configuration(tmp_path: Path, mine: Path, name: str) -> None:
    chosen = chosen_regressor(configured(tmp_path, name).inference)
    assert chosen.sha256 == ViabilityRegressor.load(mine).sha256
    found = chosen.predict([1.0] * 9, 1.0, [[2.0] * 9])
    assert found is not None
    assert found[0] == pytest.approx(42)


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (lambda path: path.unlink(), "cannot be read"),
        (lambda path: path.with_suffix(".json").unlink(), "cannot be read"),
        (lambda path: path.write_bytes(b"0"), "its sha256 is"),
        (lambda path: path.with_suffix(".json").write_text(json.dumps({"architecture": "ResidualUNet"})), "another"),
    ],
)
def test_a_bad_file_is_refused_by_its_key_before_a_run_and_by_the_checks(tmp_path, mine, spoil, what) -> None:
    spoil(mine)
    config = configured(tmp_path, "mine.safetensors")
    with pytest.raises(ModelError, match=rf"inference\.regressor.*{what}") as refused:
        chosen_regressor(config.inference)
    assert '"default"' in refused.value.do
    (found,) = (check for check in preflight(config) if check.name == "regressor")
    assert found.verdict is Verdict.FAIL
    assert what in found.what
    file = tmp_path / "run.toml"
    file.write_text('[source]\nkind = "emulator"\n[inference]\nregressor = "mine.safetensors"\n', encoding="utf-8")
    done = CliRunner().invoke(app, ["config", "check", str(file)])
    assert done.exit_code == ModelError.exit_code
    assert "inference.regressor" in done.output


def test_the_checks_pass_a_good_one(tmp_path: Path, mine: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text(f"[source]\nkind = 'emulator'\n[inference]\nregressor = '{mine}'\n", encoding="utf-8")
    assert CliRunner().invoke(app, ["config", "check", str(file)]).exit_code == 0


def test_a_name_that_is_no_file_is_told_from_the_default(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be read"):
        chosen_regressor(configured(tmp_path, "defualt").inference)
    assert DEFAULT_REGRESSOR.is_file()
