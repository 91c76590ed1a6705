"""Cells of a stated size: a network is shown them as wide as those that it knows; what is told is in true lengths."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import tifffile

from spheroidd.acquisition.store import ngff
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.system.clock import SystemClock
from spheroidd.protocols.results import USUAL_CELL_UM
from spheroidd.protocols.stack import CHANNELS
from spheroidd.sim_emulator.source import EmulatorSettings, EmulatorSource
from tests.faults.plate_runs import spheroidd

TIMES = 0.7


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
    data = recorded / name
    voxel = ("--pixel-um", f"{0.5 * times}", "--z-step-um", f"{times}")
    done = spheroidd("replay", str(recorded / "map.csv"), str(data), *voxel, *options)
    assert done.returncode in (0, 1), done.stderr
    return data


def places(data: Path) -> np.ndarray:
    """Centroids and volumes of the living objects."""
    with Catalog.read_only(data) as catalog:
        (row,) = catalog.result_rows()
    path = ngff.label_path(data, row.key, "live_features") / "table.csv"
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return np.array([[float(row[name]) for name in ("z_um", "y_um", "x_um", "volume_um3")] for row in rows])


def test_small_cells_of_a_stated_size_are_found_as_usual_ones_are(recorded: Path) -> None:
    usual = replayed(recorded, "usual", 1.0)
    small = replayed(recorded, "small", TIMES, "--cell-um", f"{TIMES * USUAL_CELL_UM}")
    rows = []
    for data in (usual, small):
        with Catalog.read_only(data) as catalog:
            rows += [row.result for row in catalog.result_rows()]
    large, row = rows
    assert large.n_live is not None
    assert large.n_live > 5
    assert (row.n_live, row.n_dead, row.trust_flags) == (large.n_live, large.n_dead, large.trust_flags)
    assert row.live_um3 == pytest.approx(TIMES**3 * large.live_um3, rel=0.01)
    assert row.dead_um3 == pytest.approx(TIMES**3 * large.dead_um3, rel=0.01)
    assert (large.cell_diameter_um, row.cell_diameter_um) == (None, pytest.approx(TIMES * USUAL_CELL_UM))
    found, expected = places(small), places(usual) * [TIMES, TIMES, TIMES, TIMES**3]
    np.testing.assert_allclose(found, expected, rtol=0.02, atol=0.05)


def test_a_size_that_is_stated_afterwards_scores_the_plate_anew_and_stands_in_the_trail(recorded: Path) -> None:
    data = replayed(recorded, "later", 1.0)
    assert spheroidd("score", str(data), "--cell-um", "9").returncode in (0, 1)
    with Catalog.read_only(data) as catalog:
        (row,) = catalog.result_rows()
        (entry,) = catalog.query("SELECT new_json FROM audit WHERE action = 're-score started'")
    assert row.result.cell_diameter_um == 9.0
    assert json.loads(str(entry["new_json"]))["cell_diameter_um"] == 9.0


def test_the_width_to_state_is_told_of_a_run_and_then_fits(recorded: Path) -> None:
    data = replayed(recorded, "unstated", TIMES)
    asked = spheroidd("cell-width", str(data), "--json")
    (told,) = json.loads(asked.stdout)
    assert asked.returncode == 1
    assert told["um"] == pytest.approx(TIMES * USUAL_CELL_UM, rel=0.12)
    assert "--cell-um" in spheroidd("cell-width", str(data)).stdout
    spheroidd("score", str(data), "--cell-um", f"{told['um']:.1f}")
    again = spheroidd("cell-width", str(data), "--json")
    assert again.returncode == 0
    assert json.loads(again.stdout)[0]["um"] == pytest.approx(TIMES * USUAL_CELL_UM, rel=0.12)


@pytest.mark.parametrize("width", ["3", "41", "nan"])
def test_a_size_that_no_cell_has_is_refused(recorded: Path, width: str) -> None:
    done = spheroidd("replay", str(recorded / "map.csv"), str(recorded / "never"), "--cell-um", width)
    assert done.returncode == 2
    assert "cell_diameter_um" in done.stderr + done.stdout
