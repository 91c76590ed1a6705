"""A watched folder in which raw frames come: a file for each colour, or one for the stack, in the stated order."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from pydantic import ValidationError

from spheroidd.acquisition.sources.watched_folder.settings import WatchSettings
from spheroidd.acquisition.sources.watched_folder.source import WatchSource
from spheroidd.protocols.plate import PlateMap, PlateWell, Treatment, WellRole
from spheroidd.protocols.sim_pattern import OtfKind
from spheroidd.protocols.stack import RawIndex
from spheroidd.protocols.well import WellId
from spheroidd.testing.source_contract import FakeClock, SourceContract, take

RAW = {"phases": 3, "order": ("angle", "z", "phase"), "na": 0.5, "emission_nm": {"488": 515.0, "561": 617.0}}
TOLD = {"pattern": "{well}_{channel}.tif", "pixel_um": 0.125, "z_step_um": 0.5, "raw": RAW}
PLATE = PlateMap("plate", (PlateWell(WellId(0, 0), Treatment(WellRole.SAMPLE, "C", 1.0)),))
N_Z = 2


def write(folder: Path) -> dict[str, np.ndarray]:
    frames = {c: np.random.default_rng(int(c)).integers(90, 400, (N_Z * 9, 8, 10)).astype("u2") for c in ("488", "561")}
    for channel, pixels in frames.items():
        tifffile.imwrite(folder / f"A01_{channel}.tif", pixels, photometric="minisblack", metadata=None)
    return frames


class TestRawFiles(SourceContract):
    def make_source(self, folder, clock):
        if not (folder / "A01_488.tif").exists():
            write(folder)
        return WatchSource(WatchSettings(folder=folder, **TOLD), PLATE, "plate", clock)


def test_frames_come_under_their_names(tmp_path: Path) -> None:
    frames = write(tmp_path)
    source = WatchSource(WatchSettings(folder=tmp_path, **TOLD), PLATE, "plate", FakeClock())
    (plan,) = source.plans()
    assert (plan.n_z, plan.height, plan.frame_shape, plan.raw.n_frames) == (N_Z, 16, (8, 10), 9)
    found = take(source, plan, set(plan.indices()))
    assert len(found) == 2 * 9 * N_Z
    for channel, pixels in frames.items():
        np.testing.assert_array_equal(found[RawIndex(channel, 1, 2, 0)], pixels[(2 * N_Z + 1) * 3])
    source.close()


def test_an_otf_is_stated_for_each_colour_in_one_way(tmp_path: Path) -> None:
    table = {"488": (1.0, 0.5, 0.0)}
    stated = WatchSettings(folder=tmp_path, **TOLD | {"raw": RAW | {"psf_sigma_um": {"561": 0.25}, "otf_table": table}})
    assert stated.raw is not None
    optics = [stated.raw.pattern().optics_of(channel) for channel in ("488", "561")]
    assert [one.otf for one in optics] == [OtfKind.TABLE, OtfKind.GAUSSIAN]
    assert (optics[0].otf_table, optics[1].psf_sigma_um) == ((1.0, 0.5, 0.0), 0.25)
    with pytest.raises(ValidationError, match="otf is table and psf_sigma_um is"):
        WatchSettings(folder=tmp_path, **TOLD | {"raw": RAW | {"psf_sigma_um": {"488": 0.25}, "otf_table": table}})


def test_a_file_for_each_slice_holds_no_raw_frames(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="a file for each stack"):
        WatchSettings(folder=tmp_path, **{**TOLD, "pattern": "{well}_{channel}_{z}.tif"})
