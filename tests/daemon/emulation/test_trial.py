"""A configuration tried with recorded light: what is replaced, where it is kept, and what to do where it cannot be."""

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spheroidd.daemon.config.model import Config, build_config, open_source
from spheroidd.daemon.emulation.emulated_camera import MicroManagerRunSettings
from spheroidd.daemon.emulation.trial import demo_rig, trial_of
from spheroidd.daemon.system.clock import SystemClock
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.stack import SliceIndex
from tests.acquisition.sources.micromanager.rig import needs_core, settings
from tests.daemon.emulation.recorded_plate import GEOMETRY, record, replayed

WELL = 9000.0


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record(tmp_path_factory.mktemp("recorded") / "plate")


def configured(folder: Path, recorded: Path, source: dict[str, Any]) -> Config:
    tables = {"data": {"dir": "plate-data"}, "plate": {"name": "P1", "map": str(recorded)}, "source": source}
    return build_config(tables, base=folder)


def microscope(**changed: Any) -> dict[str, Any]:
    """A microscope's own settings: devices, group and presets that no demo configuration has."""
    made = settings(
        **GEOMETRY,
        config="scope.cfg",
        channel_group="Laser line",
        channels={"488": {"preset": "FITC", "exposure_ms": 5}, "561": {"preset": "Cy3", "exposure_ms": 5}},
        recorded={"laser_mw": ("Laser", "PowerSetpoint")},
        a01_um=(12000.0, 8000.0),
        pitch_um=(WELL, -WELL),
        x_limits_um=(0, 30000),
        y_limits_um=(-20000, 20000),
        first_frame_s=60,
    ).model_dump(mode="json", exclude_none=True)
    return {**made, "micromanager_dir": "/opt/micro-manager", **changed}


@needs_core
@pytest.mark.slow
def test_a_microscopes_own_settings_move_the_demo_stages_under_recorded_light(recorded: Path, tmp_path: Path) -> None:
    trial, told = trial_of(configured(tmp_path, recorded, microscope()), recorded)
    assert "demo adapters, and its properties laser_mw are not kept" in told
    assert trial.data.dir == tmp_path / "plate-data-trial"
    with closing(open_source(trial, SystemClock())) as source:
        source.check()
        plan = list(source.plans())[2]
        (frame,) = source.frames(plan, {SliceIndex("561", 2)})
    assert str(plan.key.well) == "B01"
    assert (frame.metadata["x_um"], frame.metadata["y_um"]) == pytest.approx((12000.0, 8000.0 - WELL), abs=0.1)
    assert frame.metadata["preset"] == "Cy3"
    assert np.array_equal(frame.pixels, replayed(recorded)["B01", SliceIndex("561", 2)])


def test_an_emulated_camera_and_the_emulator_show_the_recording_and_keep_their_settings(
    recorded: Path, tmp_path: Path
) -> None:
    camera = microscope(emulated_camera={"preset": "unit", "tilt_um": [1.0, 2.0]})
    trial, _ = trial_of(configured(tmp_path, recorded, camera), recorded)
    assert isinstance(trial.source, MicroManagerRunSettings)
    assert trial.source.emulated_camera is not None
    assert (trial.source.emulated_camera.recording, trial.source.emulated_camera.tilt_um) == (recorded, (1.0, 2.0))
    assert trial.source.config == tmp_path / "scope.cfg"
    phantom = configured(tmp_path, recorded, {"kind": "emulator", "preset": "unit", "slice_period_s": 0.5})
    trial, _ = trial_of(phantom, recorded, tmp_path / "elsewhere")
    with closing(open_source(trial, SystemClock())) as source:
        assert next(iter(source.plans())).slice_period_s == 0.5
    assert trial.data.dir == tmp_path / "elsewhere"


def test_a_trial_is_never_kept_among_the_plates_own_data(recorded: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="give --data another directory"):
        trial_of(configured(tmp_path, recorded, {"kind": "emulator"}), recorded, tmp_path / "plate-data")


@pytest.mark.parametrize(
    ("source", "command"),
    [
        (
            {"kind": "leica-cam", "folder": "images", "template": "spheroids", "port": 8899, **GEOMETRY},
            r"spheroidd emulate .*images --as leica-cam --port 8899 --map .*map\.csv --recording .*map\.csv",
        ),
        ({"kind": "push"}, r"spheroidd emulate .*plate-data --as push --map .* --recording"),
        (
            {"kind": "matrix-screener", "folder": "tree"},
            r"spheroidd emulate FOLDER --layout matrix-screener --pace real",
        ),
    ],
    ids=lambda value: value["kind"] if isinstance(value, dict) else "",
)
def test_a_source_that_another_program_feeds_says_how_to_play_that_program(
    recorded: Path, tmp_path: Path, source: dict[str, Any], command: str
) -> None:
    with pytest.raises(ConfigError, match=command):
        trial_of(configured(tmp_path, recorded, source), recorded)


def test_the_demo_rig_has_the_cameras_bits_and_steps_through_z_where_the_settings_do() -> None:
    lines = demo_rig(settings(dtype="uint8", z_sequencing=True, width=40, height=30)).splitlines()
    startup = {line.removeprefix("ConfigGroup,System,Startup,") for line in lines if "Startup" in line}
    assert startup >= {
        "Camera,PixelType,8bit",
        "Camera,BitDepth,8",
        "Camera,OnCameraCCDXSize,40",
        "Camera,OnCameraCCDYSize,30",
        "Z,UseSequences,Yes",
    }
