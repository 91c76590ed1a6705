"""Watching a folder: what is whole comes at once and exactly, what is not is named, and no file is touched."""

import itertools
import os
import shutil
import threading
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tifffile
from pydantic import ValidationError

from spheroidd.acquisition.watch_folder import MatrixScreenerSource, WatchSource
from spheroidd.acquisition.watch_settings import MatrixScreenerSettings, WatchSettings
from spheroidd.daemon.clock import SystemClock
from spheroidd.protocols.errors import ConfigError, InstrumentError, StackError
from spheroidd.protocols.plate import PlateMap, PlateWell, Treatment, WellRole
from spheroidd.protocols.stack import SliceIndex
from spheroidd.protocols.well import WellId
from spheroidd.sim_emulator.folder_writer import write_plate
from spheroidd.sim_emulator.presets import PRESETS
from spheroidd.sim_emulator.source import EmulatorSettings, EmulatorSource
from tests.contracts.source_contract import FakeClock, SourceContract, take

DATA = Path(os.environ.get("SPHEROIDD_TEST_DATA", Path(__file__).parents[1] / "../shared/data"))
real_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"the real test data are not at {DATA}")

N_Z, SHAPE = 4, (12, 10)
WELLS = ("A01", "B02")
PIXELS = {
    (well, channel): np.random.default_rng(n).integers(1, 60000, (N_Z, *SHAPE)).astype(np.uint16)
    for n, (well, channel) in enumerate(itertools.product(WELLS, ("488", "561")))
}
LENGTHS = {"pixel_um": 0.5, "z_step_um": 1.0}
FAST = {"poll_s": 0.05, "settle_s": 1.0, "end_after_s": 2.0}


def plate(*wells):
    treatment = Treatment(WellRole.SAMPLE, "C", 1.0)
    return PlateMap("plate", tuple(PlateWell(WellId.parse(well), treatment) for well in wells or WELLS))


def write_slice(folder, well, channel, z, name="{well}/{channel}_z{z:02d}.tif"):
    path = folder / name.format(well=well, channel=channel, z=z)
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, PIXELS[well, channel][z], metadata=None)
    return path


def write_slices(folder, *wells, name="{well}/{channel}_z{z:02d}.tif"):
    for well, z, channel in itertools.product(wells or WELLS, range(N_Z), ("488", "561")):
        write_slice(folder, well, channel, z, name)


def slices_source(folder, clock, *wells, **settings):
    told = {"pattern": "{well}/{channel}_z{z}.tif", "n_z": N_Z, **LENGTHS, **settings}
    return WatchSource(WatchSettings(folder=folder, **told), plate(*wells), "plate", clock)


def write_stack(path, well):
    data = np.stack([PIXELS[well, "488"], PIXELS[well, "561"]])
    channels = {"Name": ["live 488", "dead 561"]}
    said = {"axes": "CZYX", "Channel": channels, "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5, "PhysicalSizeZ": 1.0}
    tifffile.imwrite(path, data, ome=True, metadata=said, photometric="minisblack")


def everything(source):
    """Each stack that came whole: its planes by well, channel and z."""
    got = {}
    for plan in source.plans():
        frames = take(source, plan, set(plan.indices()))
        got |= {(str(plan.key.well), *index): pixels for index, pixels in frames.items()}
    return got


def assert_exact(got, wells=WELLS):
    assert len(got) == len(wells) * N_Z * 2
    for (well, channel, z), pixels in got.items():
        np.testing.assert_array_equal(pixels, PIXELS[well, channel][z])


class TestSliceFiles(SourceContract):
    def make_source(self, folder, clock):
        if not (folder / "A01").exists():
            write_slices(folder)
        return slices_source(folder, clock)


class TestStackFiles(SourceContract):
    def make_source(self, folder, clock):
        for well in WELLS:
            if not (folder / f"{well}.ome.tif").exists():
                write_stack(folder / f"{well}.ome.tif", well)
        return WatchSource(WatchSettings(folder=folder), plate(), "plate", clock)


def emulated(folder, layout):
    small = {"preset": "unit", "n_z": 3, "height": 16, "width": 16, "compounds": 0, "negative_controls": 1}
    source = EmulatorSource(EmulatorSettings(pace="fast", positive_controls=1, **small), None, "plate", FakeClock())
    if not folder.exists():
        write_plate(source, folder, layout)
    return source


class TestMatrixScreener(SourceContract):
    def make_source(self, folder, clock):
        emulator = emulated(folder / "tree", "matrix-screener")
        settings = MatrixScreenerSettings(folder=folder / "tree")
        return MatrixScreenerSource(settings, emulator.plate_map, "plate", clock)


class TestZarrPlate(SourceContract):
    def make_source(self, folder, clock):
        emulator = emulated(folder / "tree", "ome-zarr")
        settings = WatchSettings(folder=folder / "tree", pattern="plate.ome.zarr/{row}/{column}/0")
        return WatchSource(settings, emulator.plate_map, "plate", clock)


@pytest.mark.parametrize(
    ("layout", "source", "settings"),
    [
        ("matrix-screener", MatrixScreenerSource, MatrixScreenerSettings),
        ("ome-tiff", WatchSource, WatchSettings),
    ],
)
def test_an_emulated_plate_comes_as_it_was_written(tmp_path, layout, source, settings):
    emulator = emulated(tmp_path / "tree", layout)
    watch = source(settings(folder=tmp_path / "tree"), emulator.plate_map, "plate", FakeClock())
    with closing(watch):
        for plan, theirs in zip(watch.plans(), emulator.plans(), strict=True):
            assert (plan.pixel_um, plan.z_step_um, plan.n_z) == (theirs.pixel_um, theirs.z_step_um, theirs.n_z)
            got = take(watch, plan, set(plan.indices()))
            for frame in emulator.frames(theirs, set(theirs.indices())):
                np.testing.assert_array_equal(got[frame.index], frame.pixels)
