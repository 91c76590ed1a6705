"""Cells of a stated size: a network is shown them as wide as those that it knows; what is told is in true lengths."""

import csv
import json
import os
import random
import shutil
import sqlite3
import time
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile

from spheroidd.acquisition.store import ngff
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.config.model import load_config, open_source
from spheroidd.daemon.report.provenance import plate_facts
from spheroidd.daemon.system.clock import SystemClock
from spheroidd.inference.segmentation.choice import model_digest
from spheroidd.protocols.results import USUAL_CELL_UM, WellResult, WellStatus
from spheroidd.protocols.stack import CHANNELS
from spheroidd.sim_emulator.source import EmulatorSettings, EmulatorSource
from tests import warm_start
from tests.faults.plate_runs import kill, ledger, run, spheroidd, start, write_config

TIMES = 1.5
AUTO = {"cell_diameter_um": "auto"}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A well of the emulator as files that say nothing of their voxels, 0.5 um wide and 1 um deep."""
    folder = tmp_path_factory.mktemp("recorded")
    source = EmulatorSource(EmulatorSettings(preset="unit", seed=3, pace="fast"), None, "p", SystemClock())
    plan = source.plan(next(iter(source.plate_map.imaged())).well)
    stack = {channel: np.empty((plan.n_z, plan.height, plan.width), np.uint16) for channel in CHANNELS}
    for frame in source.frames(plan, frozenset(plan.indices())):
        stack[frame.index.channel][frame.index.z] = frame.pixels
    for channel, pixels in stack.items():
        tifffile.imwrite(folder / f"{channel}.tif", pixels)
    (folder / "map.csv").write_text("well,path_488,path_561,role\nA01,488.tif,561.tif,sample\n", encoding="utf-8")
    return folder


def replayed(recorded: Path, name: str, times: float, *options: str) -> Path:
    done = spheroidd(*replay_of(recorded, name, times, *options))
    assert done.returncode in (0, 1), done.stderr
    return recorded / name


def replay_of(recorded: Path, name: str, times: float, *options: str) -> tuple[str, ...]:
    """The command."""
    voxel = ("--pixel-um", f"{0.5 * times}", "--z-step-um", f"{times}")
    return ("replay", str(recorded / "map.csv"), str(recorded / name), *voxel, *options)


@pytest.fixture(scope="module")
def usual(recorded: Path) -> Path:
    """The well as it is."""
    return replayed(recorded, "usual", 1.0)


@pytest.fixture(scope="module")
def unstated(recorded: Path) -> Path:
    """The same with cells of one and a half times their width, which nobody stated."""
    return replayed(recorded, "unstated", TIMES)


@pytest.fixture(scope="module")
def found(recorded: Path) -> Path:
    """The same where the daemon is to find it."""
    return replayed(recorded, "found", TIMES, "--cell-um", "auto")


def row_of(data: Path) -> WellResult:
    with Catalog.read_only(data) as catalog:
        (row,) = catalog.result_rows()
    return row.result


def places(data: Path) -> np.ndarray:
    """Centroids and volumes of the living objects."""
    with Catalog.read_only(data) as catalog:
        (row,) = catalog.result_rows()
    path = ngff.label_path(data, row.key, "live_features") / "table.csv"
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return np.array([[float(row[name]) for name in ("z_um", "y_um", "x_um", "volume_um3")] for row in rows])


def test_large_cells_of_a_stated_size_are_found_as_usual_ones_are(recorded: Path, usual: Path) -> None:
    large = replayed(recorded, "large", TIMES, "--cell-um", f"{TIMES * USUAL_CELL_UM}")
    known, row = row_of(usual), row_of(large)
    assert known.n_live is not None
    assert known.n_live > 5
    assert (row.n_live, row.n_dead, row.trust_flags) == (known.n_live, known.n_dead, known.trust_flags)
    assert row.live_um3 == pytest.approx(TIMES**3 * known.live_um3, rel=0.01)
    assert row.dead_um3 == pytest.approx(TIMES**3 * known.dead_um3, rel=0.01)
    assert (known.cell_diameter_um, row.cell_diameter_um) == (None, pytest.approx(TIMES * USUAL_CELL_UM))
    seen, expected = places(large), places(usual) * [TIMES, TIMES, TIMES, TIMES**3]
    np.testing.assert_allclose(seen, expected, rtol=0.02, atol=0.05)


def test_a_size_that_is_stated_afterwards_scores_the_plate_anew_and_stands_in_the_trail(
    recorded: Path, usual: Path
) -> None:
    data = Path(shutil.copytree(usual, recorded / "later"))
    assert spheroidd("score", str(data), "--cell-um", "9").returncode in (0, 1)
    with Catalog.read_only(data) as catalog:
        (row,) = catalog.result_rows()
        (entry,) = catalog.query("SELECT new_json FROM audit WHERE action = 're-score started'")
    assert row.result.cell_diameter_um == 9.0
    assert json.loads(str(entry["new_json"]))["cell_diameter_um"] == 9.0


def test_the_width_to_state_is_told_of_a_run(unstated: Path) -> None:
    asked = spheroidd("cell-width", str(unstated), "--json")
    (told,) = json.loads(asked.stdout)
    assert asked.returncode == 1
    assert told["um"] == pytest.approx(TIMES * USUAL_CELL_UM, rel=0.12)
    assert "--cell-um" in spheroidd("cell-width", str(unstated)).stdout


def test_a_width_that_the_daemon_finds_is_the_told_one_then_fits_and_cells_are_counted_nearly_as_usual_ones(
    usual: Path, unstated: Path, found: Path
) -> None:
    (told,) = json.loads(spheroidd("cell-width", str(unstated), "--json").stdout)
    row, known, off = row_of(found), row_of(usual), row_of(unstated)
    assert row.cell_diameter_um == round(told["um"], 1)
    assert row.status is WellStatus.FINAL
    assert row.n_live is not None
    assert abs(row.n_live - known.n_live) < abs(off.n_live - known.n_live)
    again = spheroidd("cell-width", str(found), "--json")
    assert again.returncode == 0
    assert json.loads(again.stdout)[0]["um"] == pytest.approx(TIMES * USUAL_CELL_UM, rel=0.12)


def test_a_daemon_that_is_killed_after_it_found_a_width_ends_with_the_same_row(recorded: Path, found: Path) -> None:
    data, arguments = recorded / "killed", replay_of(recorded, "killed", TIMES, "--cell-um", "auto")
    with (recorded / "killed.log").open("w") as log:
        process = warm_start.start(arguments, stdout=log, stderr=log, start_new_session=os.name == "posix")
        try:
            deadline = time.monotonic() + 120
            while process.poll() is None and time.monotonic() < deadline and not widths_found(data):
                time.sleep(0.005)
        finally:
            kill(process)
    assert process.returncode != 0, "it was over before it could be killed"
    assert widths_found(data) == widths_found(found) == [row_of(found).cell_diameter_um]
    assert row_of(data).status is WellStatus.PROVISIONAL
    assert spheroidd(*arguments).returncode in (0, 1)
    assert widths_found(data) == widths_found(found)
    figures = {"latency_s": None, "plate": ""}
    assert replace(row_of(data), **figures) == replace(row_of(found), **figures)


def test_a_threshold_is_not_asked_and_scores_a_plate_of_a_found_width_once(recorded: Path, found: Path) -> None:
    data = Path(shutil.copytree(found, recorded / "threshold"))
    assert spheroidd("score", str(data), "--model", "threshold").returncode in (0, 1)
    row = row_of(data)
    assert (row.model_sha256, row.cell_diameter_um, row.status) == (model_digest("threshold"), None, WellStatus.FINAL)


def test_a_report_says_whether_a_width_was_found_or_stated(found: Path, usual: Path) -> None:
    for data, expected in (
        (found, f"{row_of(found).cell_diameter_um:g} µm, found by its own rows"),
        (usual, "as usual"),
    ):
        with Catalog.read_only(data) as catalog:
            assert dict(plate_facts(catalog, "map"))["Width of a cell"] == expected


@pytest.mark.slow  # three runs of a plate by the network, one of them killed four times: half a minute
def test_a_plate_of_small_cells_is_counted_nearer_the_truth_however_often_it_is_killed(tmp_path: Path) -> None:
    source = {"cell_um": 0.7 * USUAL_CELL_UM, "seed": 4}
    runs = {
        name: write_config(tmp_path / name, model="default", source=source, **width)
        for name, width in {"usual": {}, "found": AUTO, "killed": AUTO}.items()
    }
    for name in ("usual", "found"):
        assert run(runs[name], timeout_s=600) in (0, 1)
    chance, killed, codes = random.Random(7), tmp_path / "killed/data", []
    for _ in range(4):
        process = start(runs["killed"])
        while process.poll() is None and not widths_found(killed):
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 2))  # five stacks are scored again in two seconds and more
        kill(process)
        codes.append(process.returncode)
    assert codes[0] != 0, "it was over before it could be killed"
    assert run(runs["killed"], timeout_s=600) in (0, 1)
    figures = {name: ledger(config).results for name, config in runs.items()}
    assert figures["killed"] == figures["found"]
    assert widths_found(killed) == widths_found(tmp_path / "found/data")
    with closing(open_source(load_config(runs["found"]), SystemClock())) as emulator:
        assert isinstance(emulator, EmulatorSource)
        truth = {str(one.well): emulator.truth(one.well).well for one in emulator.plate_map.imaged()}
    n_true = sum(well.n_live + well.n_dead for well in truth.values())
    usual, found = (counted(tmp_path / name / "data") for name in ("usual", "found"))
    assert abs(found - n_true) < abs(usual - n_true), (n_true, usual, found)


def counted(data: Path) -> int:
    """Cells of both kinds, of the whole plate."""
    with Catalog.read_only(data) as catalog:
        return sum((row.n_live or 0) + (row.n_dead or 0) for row in catalog.results())


def widths_found(data: Path) -> list[float]:
    """What the audit trail says was found, whatever the daemon does meanwhile."""
    with suppress(sqlite3.OperationalError), closing(sqlite3.connect(data / "catalog.sqlite", timeout=30)) as catalog:
        return [
            json.loads(new)["cell_diameter_um"]
            for (new,) in catalog.execute("SELECT new_json FROM audit WHERE action = 'cell width found'")
        ]
    return []


@pytest.mark.parametrize("width", ["3", "41", "nan", "found"])
def test_a_size_that_no_cell_has_is_refused(recorded: Path, width: str) -> None:
    done = spheroidd("replay", str(recorded / "map.csv"), str(recorded / "never"), "--cell-um", width)
    assert done.returncode == 2
    assert "cell_diameter_um" in done.stderr + done.stdout
