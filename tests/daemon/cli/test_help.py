"""What a person meets first: help in panels, and commands that know which plate is meant."""

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.cli.app import PANELS
from spheroidd.daemon.cli.console import app
from spheroidd.daemon.system.last_data import last_data, remember_data

COMMANDS = [name for names in PANELS.values() for name in names]


def spheroidd(*arguments: object, columns: int = 80) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": str(columns)})


def test_every_command_stands_in_one_panel() -> None:
    assert sorted(COMMANDS) == sorted(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


@pytest.mark.parametrize("columns", [80, 160])
@pytest.mark.parametrize("words", [(), ("-h",), ("--help",)], ids=str)
def test_help_shows_the_panels_in_their_order(words: tuple[str, ...], columns: int) -> None:
    lines = spheroidd(*words, columns=columns).output.splitlines()
    assert [line[:-1] for line in lines if line[:-1] in PANELS] == list(PANELS)
    names = [line.split()[0] for line in lines if line.startswith("  ") and line.split()[0] in COMMANDS]
    assert names == COMMANDS
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("words", [("run", "-h"), ("token", "-h"), ("token", "list", "-h"), ("plan", "check", "-h")])
def test_every_command_has_a_short_h(words: tuple[str, ...]) -> None:
    done = spheroidd(*words)
    assert done.exit_code == 0
    assert done.output.startswith("Usage: ")


def test_the_shell_can_complete_commands() -> None:
    words = {"_SPHEROIDD_COMPLETE": "complete_bash", "COMP_WORDS": "spheroidd foc", "COMP_CWORD": "1"}
    done = CliRunner().invoke(app, [], env=words, prog_name="spheroidd")
    assert done.output.split() == ["focus-map"]


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory without data, and a state of its own; the path of the last run's data."""
    data, here = tmp_path / "last", tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("SPHEROIDD_STATE", str(tmp_path / "state"))
    monkeypatch.delenv("SPHEROIDD_DATA", raising=False)
    with Catalog.create_or_open(data):
        pass
    return data


def test_without_a_directory_the_last_runs_is_meant_and_said(elsewhere: Path) -> None:
    remember_data(elsewhere)
    done = spheroidd("status")
    assert done.exit_code == 0
    assert str(elsewhere) in done.stderr
    assert str(elsewhere) not in spheroidd("status", elsewhere).stderr


def test_what_is_here_comes_before_what_was_last(elsewhere: Path) -> None:
    remember_data(elsewhere)
    with Catalog.create_or_open(Path("spheroidd-data")):
        pass
    assert str(elsewhere) not in spheroidd("status").output


def test_the_environment_comes_before_both(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remember_data(elsewhere)
    monkeypatch.setenv("SPHEROIDD_DATA", str(elsewhere.parent / "nowhere"))
    done = spheroidd("status")
    assert "nowhere" in done.output
    assert str(elsewhere) not in done.output


@pytest.mark.parametrize("gone", ["never run", "removed"])
def test_a_directory_that_is_not_there_is_not_meant(elsewhere: Path, gone: str) -> None:
    if gone == "removed":
        remember_data(elsewhere.parent / "removed")
    assert last_data() is None
    assert "spheroidd-data" in spheroidd("status").output


def test_a_state_that_cannot_be_written_keeps_nobody_from_running(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (elsewhere.parent / "file").touch()
    monkeypatch.setenv("SPHEROIDD_STATE", str(elsewhere.parent / "file"))
    remember_data(elsewhere)
    assert last_data() is None


@pytest.mark.parametrize("words", [("status", "--data", "DATA"), ("status", "DATA")], ids=" ".join)
def test_data_is_an_argument_and_its_old_option_is_understood(elsewhere: Path, words: tuple[str, ...]) -> None:
    done = spheroidd(*(str(elsewhere) if word == "DATA" else word for word in words))
    assert (done.exit_code, done.stderr) == (0, "")
