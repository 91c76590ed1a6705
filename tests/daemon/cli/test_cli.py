"""The command line: what it prints, where, and the exit code it ends with."""

import csv
import json
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from spheroidd.acquisition.store.labels import LabelWriter
from spheroidd.daemon.catalog.reader import CatalogReader
from spheroidd.daemon.catalog.writer import Catalog, StackState
from spheroidd.daemon.cli import console as cli
from spheroidd.daemon.config.model import Config, ScoringConfig
from spheroidd.protocols.errors import ConfigError, InstrumentError, ModelError, StackError, StorageError
from spheroidd.protocols.events import SliceDurable
from spheroidd.protocols.plate import PlateMap, PlateWell, Treatment, WellRole
from spheroidd.protocols.plate_map.file import read_plate_map
from spheroidd.protocols.results import Normalisation, StackMeasurement
from spheroidd.protocols.stack import StackKey, StackPlan
from spheroidd.protocols.well import WellId

KEY = StackKey("P1", WellId(0, 0))
PLAN = StackPlan(KEY, ("488",), 3, 16, 16, 0.1, 0.5)
MODEL = "ab" * 32
Calls = list[tuple[tuple[object, ...], dict[str, object]]]
HEAVY = {
    "numpy",
    "torch",
    "monai",
    "numba",
    "scipy",
    "zarr",
    "skimage",
    "pycromanager",
    "tifffile",
    "pydantic",
    "sqlite_utils",
}


def spheroidd(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """One scored well and one that waits."""
    wells = (
        PlateWell(KEY.well, Treatment(WellRole.NEGATIVE_CONTROL)),
        PlateWell(WellId(0, 1), Treatment(WellRole.SAMPLE, "drug", 1.5)),
    )
    with Catalog.create_or_open(tmp_path) as catalog:
        catalog.register_plate(PlateMap("P1", wells), "{}")
        catalog.expect(PLAN)
        for index in PLAN.indices():
            catalog.acknowledge(SliceDurable(KEY, index, 1, 0.0), 1.0)
        catalog.set_stack_state(KEY, StackState.STORED)
        measurement = StackMeasurement(10.0, None, 3, None, (10.0,), {}, Normalisation.STACK, MODEL, 1.0, {})
        catalog.record_measurement(KEY, measurement, 2.0)
    return tmp_path


def in_a_new_process(code: str, *arguments: object) -> str:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


_MODULES = """
import sys
from spheroidd.daemon import cli
try:
    cli.main()
except SystemExit:
    pass
print("\\nMODULES", *{name.partition(".")[0] for name in sys.modules})
"""


@pytest.mark.parametrize(
    "arguments", [["--help"], ["status"], ["status", "--json"], ["results"], ["results", "--json"]], ids=" ".join
)
def test_nothing_heavy_is_imported_to_print_a_table(data: Path, arguments: list[str]) -> None:
    where = [] if arguments == ["--help"] else [data]
    output = in_a_new_process(_MODULES, *arguments, *where)
    loaded = set(output.partition("MODULES ")[2].split())
    assert "spheroidd" in loaded
    assert loaded & HEAVY == set()


@pytest.mark.parametrize(
    ("error", "code"),
    [(ConfigError, 2), (InstrumentError, 3), (StackError, 1), (StorageError, 4), (ModelError, 2)],
)
def test_a_failure_is_two_lines_on_stderr_and_its_exit_code(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: type[ConfigError], code: int
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error("it is broken", where="here", do="mend it")

    monkeypatch.setattr(CatalogReader, "read_only", fail)
    result = spheroidd("results", tmp_path, "--json")
    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr == "spheroidd: here: it is broken\n  To do: mend it.\n"


def test_ctrl_c_says_what_was_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(CatalogReader, "read_only", interrupt)
    result = spheroidd("status", tmp_path)
    assert result.exit_code == 130
    assert "is kept" in result.stderr


@pytest.mark.parametrize("command", ["status", "results"])
def test_a_directory_without_a_run_is_named(tmp_path: Path, command: str) -> None:
    result = spheroidd(command, tmp_path)
    assert result.exit_code == 2
    assert str(tmp_path) in result.stderr
    assert "To do: give the directory" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_help_names_every_command() -> None:
    text = spheroidd("--help").stdout
    for command in (
        "demo",
        "run",
        "status",
        "results",
        "replay",
        "emulate",
        "score",
        "evaluate",
        "config",
        "doctor",
    ):
        assert f"\n  {command} " in text


def test_the_version() -> None:
    assert spheroidd("--version").stdout.startswith("spheroidd 0.")


def test_status_ends_with_its_verdict(data: Path) -> None:
    result = spheroidd("status", data)
    assert result.exit_code == 3
    assert "1 queued  1 provisional" in result.stdout
    assert json.loads(spheroidd("status", data, "--json").stdout)["wells"] == {"provisional": 1, "queued": 1}


def test_results_in_every_form(data: Path) -> None:
    first, second = json.loads(spheroidd("results", data, "--json").stdout)
    assert (first["well"], first["live_um3"], first["latency_s"]) == ("A01", 10.0, 2.0)
    assert (second["well"], second["status"], second["live_um3"]) == ("A02", "queued", None)
    assert spheroidd("results", data, "--csv", data / "rows.csv").exit_code == 0
    with (data / "rows.csv").open(newline="", encoding="utf-8") as file:
        assert [row["well"] for row in csv.DictReader(file)] == ["A01", "A02"]
    table = spheroidd("results", data).stdout
    assert "untreated" in table
    assert "not imaged yet" in table


def test_results_of_one_model_or_plate(data: Path) -> None:
    assert json.loads(spheroidd("results", data, "--json", "--model", MODEL[:6]).stdout)[0]["n_live"] == 3
    refused = spheroidd("results", data, "--model", "ff")
    assert refused.exit_code == 2
    assert MODEL[:12] in refused.stderr
    refused = spheroidd("results", data, "--plate", "P9")
    assert refused.exit_code == 2
    assert "the plates are: P1" in refused.stderr


# Configuration


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    path = tmp_path / "run.toml"
    path.write_text('[source]\nkind = "emulator"\npreset = "unit"\n', encoding="utf-8")
    return path


def test_config_show_and_check(config_file: Path) -> None:
    shown = spheroidd("config", "show", config_file)
    again = config_file.with_name("again.toml")
    again.write_text(shown.stdout, encoding="utf-8")
    assert spheroidd("config", "show", again).stdout == shown.stdout
    assert json.loads(spheroidd("config", "show", config_file, "--json").stdout)["source"]["preset"] == "unit"
    checked = spheroidd("config", "check", config_file)
    assert checked.exit_code == 0
    assert "source emulator" in checked.stdout


def test_config_check_names_the_line(config_file: Path) -> None:
    config_file.write_text('[source]\nkind = "emulator"\npreset = "unt"\n', encoding="utf-8")
    result = spheroidd("config", "check", config_file)
    assert result.exit_code == 2
    assert f"{config_file}, line 3: source.preset: it is 'unt'" in result.stderr
    assert "'unit'" in result.stderr


def test_config_schema_is_json() -> None:
    assert "source" in json.loads(spheroidd("config", "schema").stdout)["properties"]


def test_doctor_ends_with_1_where_a_check_fails(config_file: Path) -> None:
    config_file.write_text('[source]\nkind = "emulator"\n[inference]\nmodel = "none.safetensors"\n', encoding="utf-8")
    result = spheroidd("doctor", config_file, "--json")
    assert result.exit_code == 1
    failed = [check["name"] for check in json.loads(result.stdout) if check["verdict"] == "fail"]
    assert failed == ["model"]
    assert "A run cannot start" in spheroidd("doctor", config_file).stdout


# What the other commands hand on


def stand_in(monkeypatch: pytest.MonkeyPatch, module: str, name: str, code: int) -> Calls:
    """Put a recorder in place of what a command calls; it returns `code`."""
    calls: Calls = []

    def record(*arguments: object, **options: object) -> int:
        calls.append((arguments, options))
        return code

    replacement = types.ModuleType(module)
    setattr(replacement, name, record)
    monkeypatch.setitem(sys.modules, module, replacement)
    return calls


def test_run_hands_the_configuration_on(monkeypatch: pytest.MonkeyPatch, config_file: Path) -> None:
    calls = stand_in(monkeypatch, "spheroidd.daemon.launch.run", "run_plate", 1)
    assert spheroidd("run", config_file, "--plain").exit_code == 1
    [((config,), options)] = calls
    assert isinstance(config, Config)
    assert config.source_kind == "emulator"
    assert options["live"] is False


def test_replay_is_a_run_of_recordings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls = stand_in(monkeypatch, "spheroidd.daemon.launch.run", "run_plate", 0)
    options = ("--pixel-um", 0.5, "--z-step-um", 2, "--pace", "real", "--normalisation", "plate", "--threads", 1)
    options += ("--precision", "fp32")
    assert spheroidd("replay", tmp_path / "map.csv", tmp_path / "out", *options).exit_code == 0
    [((config,), _)] = calls
    assert isinstance(config, Config)
    assert config.data.dir == tmp_path / "out"
    assert config.plate.map == tmp_path / "map.csv"
    inference = config.inference
    assert (inference.normalisation, inference.threads, inference.precision) == (Normalisation.PLATE, 1, "fp32")
    source = config.source.model_dump()
    assert (source["kind"], source["pace"], source["pixel_um"], source["z_step_um"]) == ("replay", "real", 0.5, 2.0)


def test_replay_refuses_an_option_that_cannot_be(tmp_path: Path) -> None:
    result = spheroidd("replay", tmp_path / "map.csv", tmp_path / "out", "--pace", "slow")
    assert result.exit_code == 2
    assert "source.pace: it is 'slow'" in result.stderr


@pytest.mark.parametrize("command", [("replay", "map.csv", "out"), ("score", "out")])
def test_a_width_in_other_words_is_told_what_it_may_be(command: tuple[str, ...]) -> None:
    result = spheroidd(*command, "--cell-um", "Auto")
    assert result.exit_code == 2
    assert "cell_diameter_um: it is 'Auto'" in result.stderr
    assert "write a number, or 'auto'" in " ".join(result.stderr.split())


def test_score_hands_its_options_on(monkeypatch: pytest.MonkeyPatch, data: Path) -> None:
    calls = stand_in(monkeypatch, "spheroidd.daemon.launch.run", "score_plate", 0)
    options = ("--normalisation", "plate", "--precision", "bf16", "--cell-um", "9.5")
    assert spheroidd("score", data, *options).exit_code == 0
    [((found,), handed)] = calls
    del handed["console"]
    assert found == data
    assert handed == {
        "model": None,
        "normalisation": "plate",
        "device": "auto",
        "threads": None,
        "precision": "bf16",
        "cell_um": "9.5",
        "scoring": ScoringConfig(),
        "missing": False,
        "objects": None,
    }


def test_score_hands_on_where_and_what_to_score(monkeypatch: pytest.MonkeyPatch, data: Path) -> None:
    calls = stand_in(monkeypatch, "spheroidd.daemon.launch.run", "score_plate", 0)
    given = ("--missing", "--engine", "ray", "--ray-address", "head:6379", "--ray-workers", "8")
    assert spheroidd("score", data, *given).exit_code == 0
    [(_, options)] = calls
    assert options["missing"] is True
    assert options["scoring"] == ScoringConfig(engine="ray", ray_address="head:6379", ray_workers=8)
    refused = spheroidd("score", data, "--engine", "dask")
    assert (refused.exit_code, "engine" in refused.stderr) == (2, True)


@pytest.mark.parametrize("options", [("--precision", "half"), ()], ids=["option", "environment"])
def test_score_refuses_a_precision_that_there_is_none_of(
    options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, data: Path
) -> None:
    monkeypatch.setenv("SPHEROIDD_PRECISION", "double")
    result = spheroidd("score", data, *options)
    assert result.exit_code == ConfigError.exit_code
    assert f"there is no precision '{options[1] if options else 'double'}'" in result.stderr
    assert "write auto, fp32, bf16" in result.stderr


@pytest.mark.parametrize(
    "options",
    [("--normalisation", "nonsense"), ("--threads", "0"), ("--device", "gpu")],
    ids=lambda options: options[0],
)
def test_score_refuses_what_no_setting_holds(options: tuple[str, str], data: Path) -> None:
    result = spheroidd("score", data, *options)
    assert result.exit_code == ConfigError.exit_code
    assert f"inference.{options[0][2:]}" in result.stderr


# Recording and evaluating, through the real parts


def test_emulate_writes_a_plate_that_replay_can_read(tmp_path: Path) -> None:
    out = tmp_path / "recording"
    result = spheroidd("emulate", out, "--preset", "unit", "--wells", "a1")
    assert result.exit_code == 0, result.stderr
    recorded = read_plate_map(out / "map.csv").imaged()
    assert [str(entry.well) for entry in recorded] == ["A01"]
    assert all(path.is_file() for entry in recorded for path in entry.paths.values())
    assert "1 wells in" in result.stdout
    refused = spheroidd("emulate", out, "--preset", "unit", "--wells", "H12")
    assert refused.exit_code == 2
    assert "no well H12" in refused.stderr


@pytest.fixture
def masked(data: Path) -> Path:
    """The scored well's live mask: half of it."""
    mask = np.zeros((3, 16, 16), bool)
    mask[:, :8] = True
    with LabelWriter(data, KEY, PLAN, "live") as writer:
        writer.append(0, mask)
        writer.commit()
    np.save(data / "truth.npy", np.ones((3, 16, 16), bool))
    return data


def test_evaluate_prints_the_agreement(masked: Path) -> None:
    result = spheroidd("evaluate", masked, "--well", "A1", "--truth", masked / "truth.npy", "--json")
    found = json.loads(result.stdout)
    assert {name: found[name] for name in ("well", "iou", "precision", "recall")} == {
        "well": "A01",
        "iou": 0.5,
        "precision": 1.0,
        "recall": 0.5,
    }
    assert found["dice"] == pytest.approx(2 / 3)
    plain = spheroidd("evaluate", masked, "--well", "A1", "--truth", masked / "truth.npy").stdout
    assert "dice       0.6667" in plain


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--well", "B07"], 2, "no stack P1/B07/0 was planned"),
        (["--well", "X"], 2, "'X' is not a well"),
        (["--well", "A01", "--label", "core"], 2, "write one of live, dead"),
        (["--well", "A01", "--label", "dead"], 4, ""),
        (["--well", "A01", "--plate", "P2"], 2, "P2/A01/0"),
    ],
)
def test_evaluate_refuses_what_is_not_there(masked: Path, options: list[str], code: int, words: str) -> None:
    result = spheroidd("evaluate", masked, "--truth", masked / "truth.npy", *options)
    assert result.exit_code == code, result.output
    assert words in result.stderr


def test_evaluate_refuses_a_truth_of_another_shape(masked: Path) -> None:
    np.save(masked / "truth.npy", np.ones((2, 16, 16), bool))
    result = spheroidd("evaluate", masked, "--well", "A01", "--truth", masked / "truth.npy")
    assert result.exit_code == 2
    assert "the truth is (2, 16, 16), the stack is (3, 16, 16)" in result.stderr
