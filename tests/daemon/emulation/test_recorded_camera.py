"""A recording behind Micro-Manager's real core: its pixels where the stages really stand, its faults told by name."""

import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from spheroidd.daemon.emulation.camera_over_plate import Pose, RecordingView
from spheroidd.daemon.emulation.emulated_camera import MicroManagerRun, MicroManagerRunSettings
from spheroidd.daemon.emulation.open_recording import open_recording
from spheroidd.daemon.system.clock import SystemClock
from spheroidd.protocols.errors import ConfigError, InstrumentError
from spheroidd.protocols.plate_map.file import read_plate_map
from spheroidd.protocols.stack import SliceIndex
from spheroidd.protocols.well import WellId
from spheroidd.testing.source_contract import take
from tests.acquisition.sources.micromanager.rig import (
    DEMO_CFG,
    SEQUENCED,
    needs_core,
    plate,
    settings,
    until_error,
    warm_cores,
)
from tests.daemon.emulation.recorded_plate import GEOMETRY, N_Z, SIDE, assert_equal, pictures, record, replayed

pytestmark = warm_cores
A01, A02 = WellId(0, 0), WellId(0, 1)
EXPOSED = {name: {"preset": name, "exposure_ms": 5} for name in ("488", "561")}  # as the recording's files say


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record(tmp_path_factory.mktemp("recorded") / "plate")


def rig(folder: Path, recording: Path, *, sequenced: bool = False, **camera: Any) -> MicroManagerRunSettings:
    """A rig whose camera is as large as the recording."""
    lines = DEMO_CFG.read_text(encoding="utf-8") + SEQUENCED * sequenced
    lines = lines.replace("XSize,96", f"XSize,{SIDE + 8}").replace("YSize,96", f"YSize,{SIDE}")
    (folder / "rig.cfg").write_text(lines, encoding="utf-8")
    given = {**GEOMETRY, "config": folder / "rig.cfg", "channels": EXPOSED, "z_sequencing": sequenced}
    made = settings(**given, first_frame_s=60).model_dump()
    return MicroManagerRunSettings.model_validate(
        {**made, "emulated_camera": {"recording": recording, "preset": "unit", **camera}}
    )


@needs_core
@pytest.mark.slow
@pytest.mark.parametrize("sequenced", [False, True], ids=["slice by slice", "z by hardware"])
def test_a_recorded_plate_through_the_real_core_is_replay_pixel_by_pixel(
    recorded: Path, tmp_path: Path, sequenced: bool
) -> None:
    told = rig(tmp_path, recorded, sequenced=sequenced)
    with closing(MicroManagerRun(told, read_plate_map(recorded), "recorded", SystemClock())) as source:
        source.check()
        assert_equal(pictures(source), replayed(recorded))


@needs_core
def test_what_the_camera_does_wrong_is_told_by_name(recorded: Path, tmp_path: Path) -> None:
    faults = [
        {"kind": "drop", "well": "A01", "z": 1, "times": 1},
        {"kind": "cut", "well": "A02", "z": 2, "channel": "561", "times": 1},
        {"kind": "lost", "well": "B01", "z": 3, "times": 1},
    ]
    told = rig(tmp_path, recorded, faults=faults)
    expected = {
        "A01": r"channel 488 z 1 did not come within .*6 of 8 slices are missing: 488 z 1-3",
        "A02": r"channel 561 z 2: an image of uint16 \(12, 32\) arrived where the plan has uint16 \(24, 32\)",
        "B01": r"the instrument's process died \(exit code 70\) while waiting for channel 488 z 3",
    }
    wanted = replayed(recorded)
    with closing(MicroManagerRun(told, read_plate_map(recorded), "recorded", SystemClock())) as source:
        for plan in source.plans():
            well = str(plan.key.well)
            got, error = until_error(source.frames(plan, set(plan.indices())))
            assert isinstance(error, InstrumentError)
            assert re.search(expected[well], str(error))
            got |= take(source, plan, set(plan.indices()) - set(got))  # the fault is over, the rest comes
            assert_equal({(well, i): p for i, p in got.items()}, {k: p for k, p in wanted.items() if k[0] == well})


@needs_core
@pytest.mark.slow
def test_bad_pictures_come_as_the_camera_took_them(recorded: Path, tmp_path: Path) -> None:
    kinds = ("bright", "dark", "defocus", "duplicate")
    faults = [{"kind": kind, "well": "A01", "z": z} for z, kind in enumerate(kinds)]
    with closing(MicroManagerRun(rig(tmp_path, recorded, faults=faults), plate("A01"), "p", SystemClock())) as source:
        found = pictures(source)
    sound = replayed(recorded)

    def at(channel: str, z: int) -> tuple[Any, Any]:
        key = "A01", SliceIndex(channel, z)
        return found[key].astype(float), sound[key].astype(float)

    for z in range(N_Z):
        assert np.array_equal(*at("561", z))
    (bright, was), (dark, light), (soft, sharp) = at("488", 0), at("488", 1), at("488", 2)
    assert bright.mean() > 1.5 * was.mean()
    assert dark.std() < 0.5 * light.std()
    assert np.abs(np.diff(soft)).mean() < np.abs(np.diff(sharp)).mean()
    assert np.array_equal(at("488", 3)[0], at("561", 2)[0])  # the picture before it, again


@pytest.fixture
def view(recorded: Path, tmp_path: Path) -> Iterator[RecordingView]:
    told = rig(tmp_path, recorded, recorded_exposure_ms={"561": 10.0})
    assert told.emulated_camera is not None
    with closing(open_recording(recorded)) as recording:
        yield RecordingView(told, recording, told.emulated_camera)


def test_wells_come_from_stage_positions_slices_from_z_and_channels_from_the_preset(
    view: RecordingView, recorded: Path
) -> None:
    wanted = replayed(recorded)
    assert np.array_equal(view.image(Pose(1000.0, 0.0, 102.0, "488", 5.0)), wanted["A02", SliceIndex("488", 2)])
    assert np.array_equal(view.image(Pose(0.0, 1000.0, 103.3, "561", 10.0)), wanted["B01", SliceIndex("561", 3)])
    assert view.slice_at(Pose(1000.0, 0.0, 102.0, "488", 5.0)) == (A02, SliceIndex("488", 2))


def test_exposure_is_a_factor_of_the_recorded_one(view: RecordingView, recorded: Path) -> None:
    full = replayed(recorded)["A01", SliceIndex("561", 1)].astype(float)
    half = view.image(Pose(0.0, 0.0, 101.0, "561", 5.0)).astype(float)  # recorded with 10 ms, as the settings say
    assert half.std() == pytest.approx(full.std() / 2, rel=0.25)


@pytest.mark.parametrize(
    "pose",
    [
        Pose(500.0, 0.0, 101.0, "488", 5.0),
        Pose(3000.0, 0.0, 101.0, "488", 5.0),
        Pose(-9000.0, 0.0, 101.0, "488", 5.0),
        Pose(0.0, 0.0, 50.0, "488", 5.0),
        Pose(0.0, 0.0, 150.0, "488", 5.0),
        Pose(0.0, 0.0, 101.0, None, 5.0),
    ],
    ids=["between wells", "a well it lacks", "beside the plate", "below", "above", "no light"],
)
def test_elsewhere_the_camera_sees_background(view: RecordingView, recorded: Path, pose: Pose) -> None:
    image = view.image(pose)
    sound = replayed(recorded)["A01", SliceIndex("488", 1)]
    assert image.shape == sound.shape
    assert 1 < image.std() < 0.5 * sound.std()


def test_a_stage_a_little_beside_the_well_shows_it_shifted(view: RecordingView, recorded: Path) -> None:
    sound = replayed(recorded)["A01", SliceIndex("488", 1)]
    assert np.array_equal(view.image(Pose(2.0, -1.5, 101.0, "488", 5.0))[3:, :-4], sound[:-3, 4:])


def test_a_camera_of_fewer_bits_and_a_recording_that_is_none_are_refused_before_the_core_starts(
    recorded: Path, tmp_path: Path
) -> None:
    told = rig(tmp_path, recorded).model_copy(update={"dtype": "uint8"})
    with pytest.raises(ConfigError, match=r'source\.dtype: the recording .* holds uint16.*write dtype = "uint16"'):
        MicroManagerRun(told, plate("A01"), "p", SystemClock()).check()
    with pytest.raises(ConfigError, match=r"nowhere\.csv"):
        MicroManagerRun(rig(tmp_path, tmp_path / "nowhere.csv"), plate("A01"), "p", SystemClock()).check()


def test_a_camera_has_no_stacks_to_end(recorded: Path, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="write 'drop'"):
        rig(tmp_path, recorded, faults=[{"kind": "short", "well": "A01", "z": 1}])
