"""One recorded plate through every emulated instrument, in processes as a lab has them; and each fault by its name.

Slow: `pytest -m slow tests/daemon/emulation`.
"""

import sqlite3
from contextlib import closing
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import tifffile

from bench import recordings as ways
from spheroidd.acquisition.sources.leica.source import LeicaCamSource
from spheroidd.daemon.emulation.emulated_camera import MicroManagerRun, MicroManagerRunSettings
from spheroidd.daemon.emulation.trial import demo_rig
from spheroidd.daemon.system.clock import SystemClock
from spheroidd.protocols.errors import StackError
from spheroidd.protocols.plate import PlateMap, PlateWell, Treatment, WellRole
from spheroidd.protocols.plate_map.file import read_plate_map, write_plate_map
from spheroidd.protocols.stack import SliceIndex
from spheroidd.protocols.well import WellId
from spheroidd.sim_emulator.leica.faults import LeicaFault
from spheroidd.sim_emulator.leica.server import LeicaServer, LeicaServerSettings
from spheroidd.testing.source_contract import take
from tests.acquisition.sources.leica.rig import leica_settings
from tests.acquisition.sources.micromanager.rig import needs_core, settings
from tests.daemon.emulation.recorded_plate import (
    GEOMETRY,
    assert_equal,
    close_all,
    emulator,
    pictures,
    record,
    replayed,
)
from tests.places import REAL_DATA, needs_real_data

SPHEROID = REAL_DATA / "spheroid_2colour"
A01 = WellId(0, 0)


# -- LAS X, quick ----------------------------------------------------------------------------------------------------


def test_a_fake_las_x_scans_a_recording_and_what_goes_wrong_is_named(tmp_path: Path) -> None:
    recorded = record(tmp_path / "plate")
    (images := tmp_path / "images").mkdir()
    faults = [LeicaFault.parse(text) for text in ("missing:A01:1", "missing:A01:1", "bright:A02:2:both")]
    told = LeicaServerSettings(port=0, pace="fast", faults=tuple(faults))
    server = LeicaServer(told, emulator(recorded), images)
    server.start()
    wanted = replayed(recorded)
    try:
        given = leica_settings(server.address[1], images, **GEOMETRY, retries=0)
        plate_map = read_plate_map(recorded)
        with closing(LeicaCamSource(given, plate_map, "recorded", SystemClock())) as source:
            plans = {str(plan.key.well): plan for plan in source.plans()}
            assert set(take(source, plans["B01"], set(plans["B01"].indices()))) == set(plans["B01"].indices())
            with pytest.raises(StackError, match=r"A01/0: .*488 z 1"):
                take(source, plans["A01"], set(plans["A01"].indices()))
            bright = take(source, plans["A02"], set(plans["A02"].indices()))
            again = take(source, plans["B01"], set(plans["B01"].indices()))
    finally:
        server.close()
        close_all()
    assert_equal({("B01", i): p for i, p in again.items()}, {k: p for k, p in wanted.items() if k[0] == "B01"})
    differ = {i.z for i, p in bright.items() if not np.array_equal(p, wanted["A02", i])}
    assert differ == {2}


# -- whole runs ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A recorded plate, and the data of its replay."""
    folder = tmp_path_factory.mktemp("ways")
    recording = ways.record(folder / "recording")
    return recording, ways.by_replay(folder / "replay", recording, recording)


@pytest.mark.slow
@needs_core
@pytest.mark.parametrize("way", ways.WAYS)
def test_rows_and_pixels_are_those_of_replay(way: str, reference: tuple[Path, Path], tmp_path: Path) -> None:
    recording, replay = reference
    data = ways.WAYS[way](tmp_path / way, recording, recording)
    assert ways.pixels(data) == ways.pixels(replay)
    assert ways.rows(data) == ways.rows(replay)
    assert len(ways.rows(data)) == 4


@pytest.mark.slow
@pytest.mark.parametrize("way", ["replay", "emulator"])
def test_a_replayed_and_an_imaged_recording_are_judged_by_its_truth(
    way: str, reference: tuple[Path, Path], tmp_path: Path
) -> None:
    recording, data = reference
    if way == "emulator":
        data = ways.by_emulator(tmp_path, recording, recording)
    assert "masks against truth" in ways.spheroidd("evaluate", data, "--no-surface")


FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "A01": ({"kind": "drop", "z": 7}, "incomplete: 47 of 48 slices arrived, the first missing is channel 488 z 7"),
    "A02": ({"kind": "duplicate", "z": 5}, "final"),
    "A04": ({"kind": "short", "z": 9}, "incomplete: 18 of 48 slices arrived, the first missing is channel 488 z 9"),
    "B01": ({"kind": "cut", "z": 3}, "failed: channel 488 z 3 is uint16 (48, 96); the plan says uint16 (96, 96)"),
    "B02": ({"kind": "fail", "z": 3}, "failed: the emulator was set to fail at channel 488 z 3"),
    "B03": ({"kind": "dark", "channel": "both"}, "final camera-noise"),
    "B04": ({"kind": "defocus", "channel": "both"}, "final out-of-focus"),
    "B05": ({"kind": "bright", "exposure": 30.0}, "final clipped"),
    "A05": ({"kind": "lost", "z": 3, "times": 1}, "final"),
}


@pytest.mark.slow
def test_each_fault_of_a_recorded_plate_is_told_by_name(tmp_path: Path) -> None:
    ways.spheroidd("emulate", tmp_path / "rec", "--preset", "unit", "--name", "recorded", "--wells", ",".join(FAULTS))
    recording = tmp_path / "rec" / "map.csv"
    tables = "".join(f"\n[[source.faults]]\n{ways.toml({'well': w, **fault})}" for w, (fault, _) in FAULTS.items())
    source = f"kind = 'emulator'\npreset = 'unit'\npace = 'fast'\nrecording = '{recording}'{tables}"
    ways.spheroidd("run", ways.configuration(tmp_path / "run", recording, source), "--plain", check=1)
    rows = ways.rows(tmp_path / "run" / "data")
    for well, (_, words) in FAULTS.items():
        row = rows[well]
        status, reason, flags = row["status"], row.get("reason") or "", row.get("trust_flags") or []
        told = [f"{status}: {reason}", status, *(f"{status} {flag}" for flag in flags)]
        assert any(one.startswith(words) if ":" in words else one == words for one in told), (well, told)
    with closing(sqlite3.connect(tmp_path / "run" / "data" / "catalog.sqlite")) as catalog:
        raised = catalog.execute("SELECT code, what FROM faults").fetchall()
    assert ("instrument", "the emulator was set to fail at channel 488 z 3") in raised
    log = (tmp_path / "run" / "data" / "logs" / "spheroidd.jsonl").read_text(encoding="utf-8")
    (twice,) = (line for line in log.splitlines() if '"slices-came-twice"' in line)
    assert '"well": "A02"' in twice


@pytest.mark.slow
def test_a_program_whose_connection_breaks_pushes_the_rest_and_a_lost_slice_is_named(
    reference: tuple[Path, Path], tmp_path: Path
) -> None:
    recording, replay = reference
    faults = ("--pace", "fast", "--fault", "lost:A01:5", "--fault", "drop:B01:7")
    data = ways.by_push(tmp_path, recording, recording, *faults)
    rows, wanted = ways.rows(data), ways.rows(replay)
    assert {well for well, row in rows.items() if row["status"] == "final"} >= {"A02", "A04"}
    assert "channel 488 z 7" in rows["B01"]["reason"]
    assert rows["A02"]["n_live"] == wanted["A02"]["n_live"]


# -- a real spheroid -------------------------------------------------------------------------------------------------


def spheroid_map(folder: Path) -> Path:
    """The real spheroid's two files as a recording of one well; its voxel size is ours to say: nobody knows it."""
    paths = MappingProxyType({"488": SPHEROID / "B01_488.tif", "561": SPHEROID / "B01_405.tif"})
    write_plate_map(folder / "map.csv", [PlateWell(A01, Treatment(WellRole.SAMPLE), paths, 1.0, 1.0)])
    return folder / "map.csv"


def real_planes() -> dict[SliceIndex, Any]:
    """Its planes as they stand in its files."""
    files = {"488": "B01_488.tif", "561": "B01_405.tif"}
    return {
        SliceIndex(channel, z): plane
        for channel, name in files.items()
        for z, plane in enumerate(tifffile.imread(SPHEROID / name))
    }


REAL = {"n_z": 129, "height": 124, "width": 128, "pixel_um": 1.0, "z_step_um": 1.0}
ONE = PlateMap(
    "real", (PlateWell(A01, Treatment(WellRole.SAMPLE)), PlateWell(WellId(0, 1), Treatment(WellRole.SAMPLE)))
)


@pytest.mark.slow
@needs_core
@needs_real_data
def test_a_real_spheroid_through_micromanagers_demo_core(tmp_path: Path) -> None:
    rig = settings(**REAL, config=tmp_path / "rig.cfg", z_start_um=50.0, first_frame_s=60, ring_mb=16)
    (tmp_path / "rig.cfg").write_text(demo_rig(rig), encoding="utf-8")
    camera = {"recording": spheroid_map(tmp_path), "preset": "unit"}
    told = MicroManagerRunSettings.model_validate(rig.model_dump() | {"emulated_camera": camera})
    with closing(MicroManagerRun(told, ONE, "real", SystemClock())) as source:
        source.check()
        here, beside = source.plans()
        assert_equal(take(source, here, set(here.indices())), real_planes())
        (frame,) = source.frames(beside, {SliceIndex("488", 60)})
    assert frame.pixels.std() < 0.2 * real_planes()[SliceIndex("488", 60)].std()  # a well that was not recorded


@pytest.mark.slow
@needs_real_data
def test_a_real_spheroid_through_a_fake_las_x(tmp_path: Path) -> None:
    (images := tmp_path / "images").mkdir()
    server = LeicaServer(LeicaServerSettings(port=0, pace="fast"), emulator(spheroid_map(tmp_path)), images)
    server.start()
    try:
        given = leica_settings(server.address[1], images, **REAL)
        one = PlateMap("plate", ONE.wells[:1])
        with closing(LeicaCamSource(given, one, "plate", SystemClock())) as source:
            (plan,) = source.plans()
            assert_equal(take(source, plan, set(plan.indices())), real_planes())
    finally:
        server.close()
        close_all()


@needs_real_data
def test_a_real_spheroid_through_the_emulator(tmp_path: Path) -> None:
    found = pictures(emulator(spheroid_map(tmp_path)))
    close_all()
    assert_equal({index: pixels for (_, index), pixels in found.items()}, real_planes())
