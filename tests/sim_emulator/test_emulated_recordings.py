"""Recorded plates: what stands in the files is what the microscope saw, and replay gives it back."""

import csv
import hashlib
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import tifffile
import yaozarrs

from spheroidd.acquisition.sources.replay import ReplaySettings, ReplaySource
from spheroidd.protocols.errors import ConfigError, StorageError
from spheroidd.protocols.plate_map.file import read_plate_map
from spheroidd.protocols.well import WellId
from spheroidd.sim_emulator.folder_writer import Layout, write_plate
from spheroidd.sim_emulator.source import EmulatorSettings, EmulatorSource
from spheroidd.testing.source_contract import FakeClock, take

SETTINGS = EmulatorSettings(
    preset="unit", n_z=5, height=32, width=48, compounds=1, doses=1, negative_controls=1, positive_controls=1
)
LAYOUTS: tuple[Layout, ...] = ("ome-tiff", "matrix-screener", "ome-zarr")


def source() -> EmulatorSource:
    return EmulatorSource(SETTINGS, None, "plate", FakeClock())


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> dict[Layout, Path]:
    folders: dict[Layout, Path] = {layout: tmp_path_factory.mktemp("recorded") / layout for layout in LAYOUTS}
    for layout, folder in folders.items():
        write_plate(source(), folder, layout)
    return folders


def digest(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_same_plate_is_the_same_bytes(layout: Layout, recorded: dict[Layout, Path], tmp_path: Path) -> None:
    write_plate(source(), tmp_path / "again", layout)
    assert digest(tmp_path / "again") == digest(recorded[layout])


@pytest.mark.parametrize("layout", ["ome-tiff", "ome-zarr"])
def test_replay_gives_back_what_the_microscope_saw(layout: Layout, recorded: dict[Layout, Path]) -> None:
    emulator = source()
    plate = read_plate_map(recorded[layout] / "map.csv", "plate")
    assert [(e.well, e.treatment) for e in plate] == [(e.well, e.treatment) for e in emulator.plate_map]
    replay = ReplaySource(ReplaySettings(), plate, "plate", FakeClock())
    replay.check()
    plans = list(replay.plans())
    assert len(plans) == 3
    for plan in plans:
        seen = take(emulator, emulator.plan(plan.key.well), set(plan.indices()))
        back = take(replay, plan, set(plan.indices()))
        assert (plan.pixel_um, plan.z_step_um) == (emulator.preset.pixel_um, emulator.preset.z_step_um)
        assert all(np.array_equal(back[index], seen[index]) for index in plan.indices())


def test_an_ome_tiff_says_what_it_holds(recorded: dict[Layout, Path]) -> None:
    with tifffile.TiffFile(recorded["ome-tiff"] / "A01.ome.tif") as file:
        assert (file.series[0].axes, file.series[0].shape) == ("ZCYX", (5, 2, 32, 48))
        root = ElementTree.fromstring(file.ome_metadata or "")
    pixels = root.find(".//{*}Pixels")
    assert pixels is not None
    assert [float(pixels.attrib[f"PhysicalSize{axis}"]) for axis in "XYZ"] == [0.5, 0.5, 1.0]
    assert [channel.attrib["Name"] for channel in pixels.findall("{*}Channel")] == ["488", "561"]


def test_a_matrix_screener_tree_follows_leicas_grammar(recorded: dict[Layout, Path]) -> None:
    root = recorded["matrix-screener"] / "experiment--plate"
    planes = sorted(root.rglob("*.ome.tif"))
    assert len(planes) == 3 * 10
    emulator = source()
    wells = set()
    for path in planes:
        letters = dict(re.findall(r"--([A-Z])(\d{2,})", path.name))
        well = WellId(int(letters["V"]), int(letters["U"]))
        wells.add(well)
        assert path.parent == root / "slide--S00" / f"chamber--U{letters['U']}--V{letters['V']}" / "field--X00--Y00"
        if well == WellId(0, 0):
            channel = ("488", "561")[int(letters["C"])]
            image = emulator.scene(well).image(channel, int(letters["Z"]))
            assert np.array_equal(tifffile.imread(path), image)
    assert wells == {entry.well for entry in emulator.plate_map}
    assert len(list(root.rglob("metadata/*.ome.xml"))) == 3


def test_an_ome_zarr_plate_is_valid(recorded: dict[Layout, Path]) -> None:
    plate = yaozarrs.validate_zarr_store(str(recorded["ome-zarr"] / "plate.ome.zarr")).attrs["ome"]["plate"]
    wells = {WellId(well["rowIndex"], well["columnIndex"]) for well in plate["wells"]}
    assert wells == {entry.well for entry in source().plate_map}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_truth_lies_beside_it(layout: Layout, recorded: dict[Layout, Path]) -> None:
    folder, emulator = recorded[layout] / "truth", source()
    for entry in emulator.plate_map:
        truth = emulator.truth(entry.well)
        for name, volume in (("live", truth.live), ("dead", truth.dead), ("ids", truth.cell_ids)):
            written = tifffile.imread(folder / f"{entry.well}_{name}.tif")
            assert np.array_equal(written, volume)
        with (folder / f"{entry.well}_cells.csv").open(newline="") as table:
            assert len(list(csv.DictReader(table))) == len(truth.cells)
    with (folder / "wells.csv").open(newline="") as table:
        rows = {row["well"]: row for row in csv.DictReader(table)}
    assert float(rows["A02"]["v_true_whole"]) == emulator.well_truth("A02").v_true_whole
    assert len(rows) == 3


def test_progress_is_told_per_well(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    write_plate(source(), tmp_path, "ome-tiff", lambda well, done, total: told.append((str(well), done, total)))
    assert told == [("A01", 1, 3), ("A02", 2, 3), ("B01", 3, 3)]


def test_a_folder_in_use_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(ConfigError, match="not empty"):
        write_plate(source(), tmp_path, "ome-tiff")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_an_unknown_layout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no layout"):
        write_plate(source(), tmp_path, "jpeg")  # type: ignore[arg-type]


def test_a_disk_that_refuses_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="check the disk"):
        write_plate(source(), tmp_path / "file" / "plate", "ome-tiff")
