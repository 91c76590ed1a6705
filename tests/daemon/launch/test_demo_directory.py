"""The demonstration's directory: nothing but an earlier demonstration is ever deleted, and that only when asked."""

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from spheroidd.daemon.catalog.reader import CatalogReader
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.cli import console as cli
from spheroidd.daemon.config.source_registry import build_source
from spheroidd.daemon.launch import demo as launched
from spheroidd.daemon.launch.demo_directory import clear, holds_demonstration, mark
from spheroidd.daemon.system.lock import acquire_lock
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.plate import PlateMap, PlateWell, Treatment, WellRole
from spheroidd.protocols.well import WellId

WELLS = (PlateWell(WellId(0, 0), Treatment(WellRole.NEGATIVE_CONTROL)),)


@pytest.fixture
def demo(tmp_path: Path) -> Path:
    """A demonstration that ran: its catalog, its plate, its files."""
    data = tmp_path / "demo-data"
    mark(data)
    register(data, "demo")
    (data / "demo.ome.zarr" / "A").mkdir(parents=True)
    (data / "report.html").write_text("report")
    for state in ("scrub.state.json", "verify.state.json"):  # of the images, read again in idle time and when asked for
        (data / state).write_text("{}")
    (data / "logs").mkdir()
    return data


def register(data: Path, plate: str) -> None:
    with Catalog.create_or_open(data) as catalog:
        catalog.register_plate(PlateMap(plate, WELLS), "{}")


def command(data: Path, *options: str) -> Result:
    return CliRunner().invoke(cli.app, ["demo", str(data), *options])


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Where a demonstration was started; the run itself, of minutes, is left out."""
    started: list[Path] = []
    monkeypatch.setattr(launched, "run_demo", lambda data, **_: started.append(data) or 0)
    return started


def test_a_new_directory_is_marked(tmp_path: Path) -> None:
    assert not holds_demonstration(tmp_path / "new")
    mark(tmp_path / "new")
    mark(tmp_path / "new")
    assert holds_demonstration(tmp_path / "new")


def test_an_earlier_demonstration_is_deleted_with_force_only(demo: Path, runs: list[Path]) -> None:
    asked = command(demo)
    assert asked.exit_code == ConfigError.exit_code
    assert "add --force to replace it, or --keep" in asked.stderr
    assert not runs
    assert (demo / "report.html").exists()
    assert command(demo, "--keep").exit_code == 0
    assert (demo / "report.html").exists()
    assert command(demo, "--force").exit_code == 0
    assert {path.name for path in demo.iterdir()} <= {"daemon.lock"}
    assert runs == [demo, demo]


@pytest.mark.parametrize("options", [(), ("--force",), ("--keep",)], ids=str)
def test_a_catalog_that_no_demonstration_made_is_never_touched(
    tmp_path: Path, runs: list[Path], options: tuple[str, ...]
) -> None:
    register(tmp_path, "demo")
    (tmp_path / "demo.ome.zarr").mkdir()
    before = (tmp_path / "catalog.sqlite").read_bytes()
    refused = command(tmp_path, *options)
    assert refused.exit_code == ConfigError.exit_code
    assert "its catalog is not a demonstration's alone (plates: demo)" in refused.stderr
    assert (tmp_path / "catalog.sqlite").read_bytes() == before
    assert (tmp_path / "demo.ome.zarr").is_dir()
    assert not runs


def test_a_plate_that_was_run_in_a_demonstrations_directory_saves_it(demo: Path) -> None:
    register(demo, "P1")
    with pytest.raises(ConfigError, match=r"plates: P1"):
        clear(demo)
    assert (demo / "report.html").exists()


@pytest.mark.parametrize("name", ["notes.txt", "P1.ome.zarr/"])
def test_what_a_demonstration_does_not_write_is_named_and_kept(demo: Path, name: str) -> None:
    (demo / name).mkdir() if name.endswith("/") else (demo / name).touch()
    with pytest.raises(ConfigError, match=f"it holds {name.rstrip('/')} beside a demonstration"):
        clear(demo)
    assert (demo / "catalog.sqlite").exists()


def test_a_directory_without_a_catalog_is_refused(tmp_path: Path, runs: list[Path]) -> None:
    (tmp_path / "thesis.tex").touch()
    assert "something else than a demonstration is there" in command(tmp_path, "--force").stderr
    assert (tmp_path / "thesis.tex").exists()
    assert not runs


def test_a_demonstration_under_way_is_not_deleted(demo: Path) -> None:
    with acquire_lock(demo), pytest.raises(ConfigError, match="another spheroidd"):
        clear(demo)
    with CatalogReader.read_only(demo) as catalog:
        assert catalog.plates() == ["demo"]


def test_a_demonstration_that_there_is_not_deletes_nothing(demo: Path, runs: list[Path]) -> None:
    refused = command(demo, "--force", "--preset", "whole")
    assert refused.exit_code == ConfigError.exit_code
    assert "choose demo or sim" in refused.stderr
    assert (demo / "report.html").exists()
    assert not runs


@pytest.mark.parametrize("preset", list(launched.PRESETS))
def test_every_demonstration_is_a_plate_with_enough_controls(tmp_path: Path, preset: str) -> None:
    config = launched.demo_config(tmp_path / "new", 0, preset)
    source = build_source(config.source, None, "demo")
    roles = [entry.treatment.role for entry in source.plate_map]
    assert min(roles.count(role) for role in (WellRole.NEGATIVE_CONTROL, WellRole.POSITIVE_CONTROL)) == 6
    assert (source.plans()[0].raw is not None) == (preset == "sim")
