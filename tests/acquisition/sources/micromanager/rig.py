"""A rig of Micro-Manager's demo adapters for tests: its settings, its plate, its configuration file."""

from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spheroidd.acquisition.sources.micromanager.settings import MicroManagerSettings
from spheroidd.acquisition.sources.micromanager.source import MicroManagerSource
from spheroidd.daemon.system.clock import SystemClock
from spheroidd.protocols.plate import PlateMap, PlateWell, Treatment, WellRole
from spheroidd.protocols.ports import Clock
from spheroidd.protocols.stack import SliceIndex, StackPlan
from spheroidd.protocols.well import WellId
from tests.acquisition.sources.micromanager.faults import attach_faulty, painted
from tests.places import EXAMPLES

DEMO_CFG = EXAMPLES / "micromanager-demo.cfg"
SEQUENCED = "ConfigGroup,System,Startup,Z,UseSequences,Yes\n"
FAST = "ConfigGroup,System,Startup,Camera,FastImage,1\n"
needs_core = pytest.mark.skipif(
    find_spec("pycromanager") is None or find_spec("mm_test_adapters") is None,
    reason="pycromanager or mm-test-adapters is not installed (both are in the extra `test`)",
)
# Of a module whose tests start cores: loading pycromanager takes longer than most of them.
warm_cores = pytest.mark.usefixtures("warm_cores")


def settings(**changed: Any) -> MicroManagerSettings:
    """A rig with quick exposures and short patience."""
    given: dict[str, Any] = {
        "micromanager_dir": "test-adapters",
        "config": DEMO_CFG,
        "n_z": 4,
        "height": 96,
        "width": 96,
        "pixel_um": 0.5,
        "z_step_um": 1.0,
        "z_start_um": 100.0,
        "channels": {"488": {"preset": "488", "exposure_ms": 1}, "561": {"preset": "561", "exposure_ms": 1}},
        "a01_um": (0.0, 0.0),
        "pitch_um": (1000.0, 1000.0),
        "x_limits_um": (-100, 20000),
        "y_limits_um": (-100, 20000),
        "z_limits_um": (0, 200),
        "retract_z_um": 0.0,
        "min_stall_s": 2.0,  # each test of something that hangs waits as long; a sound camera takes milliseconds
        "first_frame_s": 4.0,
        "move_timeout_s": 5.0,
    }
    return MicroManagerSettings(**(given | changed))


def plate(*wells: str) -> PlateMap:
    """A plate of samples."""
    treatment = Treatment(WellRole.SAMPLE, "C01", 1.0)
    return PlateMap("rig", tuple(PlateWell(WellId.parse(well), treatment) for well in wells or ("A01", "B02")))


def painted_stack(source: MicroManagerSource, plan: StackPlan, rig: MicroManagerSettings) -> dict[SliceIndex, Any]:
    """What the painting camera must give for a stack."""
    x_um, y_um = rig.xy_um(plan.key.well)
    return {index: painted(rig.z_um(index.z), index.channel, x_um, y_um) for index in plan.indices()}


def faulty_source(path: Path, clock: Clock | None = None, **changed: Any) -> MicroManagerSource:
    """A source whose core misbehaves as `tests.acquisition.sources.micromanager.faults.arm` has written into `path`."""
    return MicroManagerSource(
        settings(**changed), plate(), "rig", clock or SystemClock(), attach=partial(attach_faulty, path)
    )


def assert_same(frames: dict[SliceIndex, Any], wanted: dict[SliceIndex, Any]) -> None:
    """The same slices with the same pixels."""
    assert frames.keys() == wanted.keys()
    for index, pixels in wanted.items():
        np.testing.assert_array_equal(frames[index], pixels, err_msg=str(index))


def until_error(frames: Iterator[Any]) -> tuple[dict[SliceIndex, Any], Exception | None]:
    """What came before the error, and the error."""
    got: dict[SliceIndex, Any] = {}
    try:
        for frame in frames:
            got[frame.index] = frame.pixels
    except Exception as error:
        return got, error
    return got, None
