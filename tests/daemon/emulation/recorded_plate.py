"""A tiny recorded plate for tests, and what `replay` gives of it: what every emulated instrument must show."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from spheroidd.acquisition.sources.replay import ReplaySettings, ReplaySource
from spheroidd.daemon.config.source_registry import build_source
from spheroidd.protocols.plate_map.file import read_plate_map
from spheroidd.protocols.ports import Clock
from spheroidd.protocols.stack import SliceIndex
from spheroidd.sim_emulator.folder_writer import Layout, write_plate
from spheroidd.sim_emulator.source import EmulatorSettings, EmulatorSource
from spheroidd.testing.source_contract import FakeClock, take

N_Z, SIDE = 4, 24
GEOMETRY = {"n_z": N_Z, "height": SIDE, "width": SIDE + 8, "pixel_um": 0.5, "z_step_um": 1.0}
DESIGN = {"preset": "unit", "compounds": 1, "doses": 1, "negative_controls": 1, "positive_controls": 1}
Pictures = dict[tuple[str, SliceIndex], np.ndarray[Any, Any]]


def phantom() -> EmulatorSource:
    """The plate that was recorded: A01 untreated, A02 killed, B01 a sample."""
    settings = EmulatorSettings.model_validate({**DESIGN, **GEOMETRY, "pace": "fast"})
    return EmulatorSource(settings, None, "recorded", FakeClock())


def record(folder: Path, layout: Layout = "ome-tiff") -> Path:
    """Its files with their truth; the plate map."""
    write_plate(phantom(), folder, layout)
    return folder / "map.csv"


def replayed(plate_map: Path, **settings: Any) -> Pictures:
    """Every slice as `replay` gives it."""
    source = ReplaySource(ReplaySettings(**settings), read_plate_map(plate_map), "recorded", FakeClock())
    return pictures(source)


def pictures(source: Any) -> Pictures:
    """Every slice that a source gives, by well."""
    return {
        (str(plan.key.well), index): pixels
        for plan in source.plans()
        for index, pixels in take(source, plan, set(plan.indices())).items()
    }


def emulator(
    recording: Path, clock: Clock | None = None, plate_map: Path | None = None, **given: Any
) -> EmulatorSource:
    """The emulator as a run builds it, over that recording."""
    settings = EmulatorSettings.model_validate({"preset": "unit", "pace": "fast", "recording": recording, **given})
    known = read_plate_map(plate_map) if plate_map is not None else None
    built = build_source(settings, known, "plate", clock or FakeClock())
    assert isinstance(built, EmulatorSource)
    _OPEN.append(built)
    return built


_OPEN: list[EmulatorSource] = []


def close_all() -> None:
    """Let the files of every emulator go that a test has built."""
    while _OPEN:
        _OPEN.pop().close()


def assert_equal(found: Mapping[Any, Any], wanted: Mapping[Any, Any]) -> None:
    """The same slices with the same pixels, bit by bit."""
    assert found.keys() == wanted.keys()
    for key, pixels in wanted.items():
        np.testing.assert_array_equal(found[key], pixels, err_msg=str(key))
