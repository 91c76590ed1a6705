"""Replay of raw frames in files: the stated order decides which frame is which, and what does not fit is refused."""

from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
import tifffile
from pydantic import ValidationError

from spheroidd.acquisition.sources.replay import ReplaySettings, ReplaySource
from spheroidd.protocols.errors import StackError
from spheroidd.protocols.plate import PlateMap, PlateWell, Treatment, WellRole
from spheroidd.protocols.stack import RawIndex
from spheroidd.protocols.well import WellId
from spheroidd.testing.source_contract import FakeClock, SourceContract

RAW = {"phases": 3, "na": 0.5, "emission_nm": {"488": 515.0, "561": 617.0}, "offset_adu": 100.0}
LENGTHS = {"pixel_um": 0.125, "z_step_um": 0.5}
N_Z = 2


def write(path: Path, seed: int, n_frames: int = N_Z * 9, dtype: str = "uint16") -> np.ndarray:
    frames = np.random.default_rng(seed).integers(90, 400, (n_frames, 16, 20)).astype(dtype)
    tifffile.imwrite(path, frames, photometric="minisblack")
    return frames


def source_of(paths, **settings) -> ReplaySource:
    well = PlateWell(WellId(0, 0), Treatment(WellRole.NEGATIVE_CONTROL), MappingProxyType(paths))
    return ReplaySource(ReplaySettings(**LENGTHS, **settings), PlateMap("raw", (well,)), "raw", FakeClock())


class TestRawFiles(SourceContract):
    def make_source(self, folder, clock):
        for n, channel in enumerate(("488", "561")):
            write(folder / f"{channel}.tif", n)
        paths = {channel: folder / f"{channel}.tif" for channel in ("488", "561")}
        well = PlateWell(WellId(0, 0), Treatment(WellRole.NEGATIVE_CONTROL), MappingProxyType(paths))
        settings = ReplaySettings(**LENGTHS, raw=RAW)
        return ReplaySource(settings, PlateMap("plate", (well,)), "plate", clock)


@pytest.mark.parametrize(
    ("order", "number"),
    [(("z", "angle", "phase"), 1 * 9 + 2 * 3 + 1), (("angle", "z", "phase"), 2 * 6 + 1 * 3 + 1)],
)
def test_the_stated_order_says_which_frame_is_which(tmp_path: Path, order, number: int) -> None:
    frames = write(tmp_path / "a.tif", 1)
    source = source_of({"": tmp_path / "a.tif"}, raw={**RAW, "order": order})
    (plan,) = source.plans()
    assert (plan.n_z, plan.height, plan.width, plan.frame_shape) == (N_Z, 32, 40, (16, 20))
    assert plan.channels == ("488",)
    found = {frame.index: frame.pixels for frame in source.frames(plan, set(plan.indices()))}
    assert len(found) == 18
    np.testing.assert_array_equal(found[RawIndex("488", 1, 2, 1)], frames[number])


def test_colours_of_one_file_are_told_apart_by_the_stated_order(tmp_path: Path) -> None:
    frames = np.random.default_rng(3).integers(90, 400, (18, 2, 16, 20)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.ome.tif", frames, metadata={"axes": "ZCYX"})
    source = source_of({"": tmp_path / "a.ome.tif"}, raw=RAW, channel_order=["561", "488"])
    (plan,) = source.plans()
    found = {frame.index: frame.pixels for frame in source.frames(plan, set(plan.indices()))}
    np.testing.assert_array_equal(found[RawIndex("488", 0, 0, 2)], frames[2, 1])


@pytest.mark.parametrize(("n_frames", "dtype", "what"), [(17, "uint16", "17"), (18, "float32", "float32")])
def test_frames_that_make_no_slices_are_refused(tmp_path: Path, n_frames: int, dtype: str, what: str) -> None:
    write(tmp_path / "a.tif", 1, n_frames, dtype)
    source = source_of({"": tmp_path / "a.tif"}, raw=RAW)
    with pytest.raises(StackError, match=what):
        list(source.frames(source.plans()[0], set(source.plans()[0].indices())))


def test_a_file_with_other_colours_than_stated_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.tif", 1)
    source = source_of({"": tmp_path / "a.tif"}, raw=RAW, channel_order=["561", "488"])
    with pytest.raises(StackError, match="1 colours, 2 are stated"):
        list(source.frames(source.plans()[0], set(source.plans()[0].indices())))


def test_a_pattern_that_cannot_be_is_refused_with_the_settings() -> None:
    with pytest.raises(ValidationError, match="three beams need 5"):
        ReplaySettings(raw={**RAW, "beams": "three"})
