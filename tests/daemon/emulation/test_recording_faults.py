"""A recording is played and something goes wrong, once of every kind: what a person then sees, by its name."""

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spheroidd.acquisition.sources.watched_folder.settings import MatrixScreenerSettings, WatchSettings
from spheroidd.acquisition.sources.watched_folder.source import MatrixScreenerSource, WatchSource
from spheroidd.daemon.catalog.reader import CatalogReader
from spheroidd.protocols.errors import StackError
from spheroidd.protocols.events import FaultRaised
from spheroidd.protocols.plate_map.file import read_plate_map
from spheroidd.sim_emulator.folder_writer import Layout, write_plate
from spheroidd.sim_emulator.source import EmulatorSettings, EmulatorSource
from spheroidd.testing.source_contract import FakeClock, take
from tests.daemon.emulation.recorded_plate import close_all, emulator, record, replayed
from tests.faults.plate_runs import spheroidd

# -- a whole run -----------------------------------------------------------------------------------------------------

DESIGN = {"preset": "unit", "compounds": 1, "doses": 6, "negative_controls": 1, "positive_controls": 1}
SETTINGS = EmulatorSettings.model_validate({**DESIGN, "n_z": 16, "height": 64, "width": 64, "pace": "fast"})
FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "A01": ({"kind": "stall", "z": 3, "seconds": 4.0}, "final"),
    "A02": ({"kind": "drop", "z": 7}, "incomplete: 31 of 32 slices arrived, the first missing is channel 488 z 7"),
    "B01": ({"kind": "duplicate", "z": 5}, "final"),
    "B02": ({"kind": "cut", "z": 3}, "failed: channel 488 z 3 is uint16 (32, 64); the plan says uint16 (64, 64)"),
    "B03": ({"kind": "dark", "channel": "both"}, "camera-noise"),
    "B04": ({"kind": "bright", "exposure": 30.0, "channel": "both"}, "saturated"),
    "B05": ({"kind": "defocus", "channel": "both", "blur_um": 8.0}, "out-of-focus"),
    "B06": ({"kind": "lost", "z": 3, "times": 1}, "final"),
}


def test_every_fault_of_a_recording_is_told_by_name(tmp_path: Path) -> None:
    write_plate(EmulatorSource(SETTINGS, None, "recorded", FakeClock()), tmp_path / "recording", "ome-tiff")
    faults = "".join(
        "\n[[source.faults]]\n" + "\n".join(f"{key} = {json.dumps(value)}" for key, value in said.items())
        for said in ({"well": well, **fault} for well, (fault, _) in FAULTS.items())
    )
    (tmp_path / "plate.toml").write_text(
        "[data]\ndir = 'data'\n[plate]\nname = 'recorded'\n[store]\nmin_free_gb = 0.0\n"
        "[inference]\nmodel = 'threshold'\nnormalisation = 'stack'\nthreads = 1\n"
        "[alarms]\nstall_s = 1.0\n[service]\nenabled = false\n"
        f"[source]\nkind = 'emulator'\npreset = 'unit'\npace = 'fast'\nrecording = 'recording'{faults}\n",
        encoding="utf-8",
    )
    done = spheroidd("run", str(tmp_path / "plate.toml"), "--plain")
    assert done.returncode == 1, done.stderr
    with CatalogReader.read_only(tmp_path / "data") as catalog:
        rows = {str(row.well): row for row in catalog.results("recorded")}
        raised = {fault["code"]: fault for fault in catalog.query("SELECT * FROM faults", {})}
    for well, (_, words) in FAULTS.items():
        row = rows[well]
        told = [str(row.status), f"{row.status}: {row.reason}", *(row.trust_flags or ())]
        assert any(one.startswith(words) for one in told), (well, told)
    assert raised["stalled"]["cleared_s"] > raised["stalled"]["raised_s"]
    assert raised["instrument"]["what"] == "the emulator was set to fail at channel 488 z 3"
    log = (tmp_path / "data" / "logs" / "spheroidd.jsonl").read_text(encoding="utf-8").splitlines()
    (twice,) = [line for line in map(json.loads, log) if line["event"] == "slices-came-twice"]
    assert (twice["well"], twice["channel"], twice["z"]) == ("B01", "488", 5)


# -- files that were cut off, in a watched folder --------------------------------------------------------------------


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record(tmp_path_factory.mktemp("recorded") / "plate")


@pytest.mark.parametrize(
    ("layout", "message", "quarantined"),
    [
        ("matrix-screener", r"7 of 8 slices arrived .*missing are 561 z 2.*Z02--C01\.ome\.tif", True),
        ("ome-tiff", r"0 of 8 slices arrived .*A02\.ome\.tif", True),
        ("ome-zarr", r"A.02.0: channel 561 z 2 cannot be decoded: .*; record or copy the file again", False),
    ],
)
def test_a_file_of_a_recording_that_was_cut_off_is_named_and_the_other_wells_go_on(
    recorded: Path, tmp_path: Path, layout: Layout, message: str, quarantined: bool
) -> None:
    cut = [{"kind": "cut", "well": "A02", "z": 2, "channel": "561"}]
    write_plate(emulator(recorded, faults=cut), tmp_path / "tree", layout)
    close_all()
    plate_map, told = read_plate_map(recorded), list[FaultRaised]()
    if layout == "matrix-screener":
        source: WatchSource = MatrixScreenerSource(
            MatrixScreenerSettings(folder=tmp_path / "tree"), plate_map, "recorded", FakeClock()
        )
    else:
        pattern = "plate.ome.zarr/{row}/{column}/0" if layout == "ome-zarr" else "{well}.ome.tif"
        source = WatchSource(
            WatchSettings(folder=tmp_path / "tree", pattern=pattern), plate_map, "recorded", FakeClock()
        )
    source.set_event_sink(told.append)
    wanted, got = replayed(recorded), {}
    with closing(source):
        for plan in source.plans():
            well = str(plan.key.well)
            if well == "A02":
                with pytest.raises(StackError, match=message):
                    take(source, plan, set(plan.indices()))
            else:
                got |= {(well, index): pixels for index, pixels in take(source, plan, set(plan.indices())).items()}
    left_alone = [str(one.key) for one in told if one.code == "quarantine" and not one.cleared]
    assert left_alone == ["map/A02/0"] * quarantined
    assert got.keys() == {key for key in wanted if key[0] != "A02"}
    for key, pixels in got.items():
        np.testing.assert_array_equal(pixels, wanted[key])
