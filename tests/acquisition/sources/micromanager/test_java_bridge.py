"""Single images through a Micro-Manager that is open: pycromanager's own client, over a real socket, to its server."""

import gc
import re
import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import numpy as np
import pytest

from spheroidd.acquisition.sources.micromanager.source import MicroManagerSource
from spheroidd.daemon.system.clock import SystemClock
from spheroidd.protocols.errors import InstrumentError
from spheroidd.protocols.snapshot import SnapOrder
from spheroidd.protocols.stack import StackPlan
from spheroidd.protocols.well import WellId
from tests.acquisition.sources.micromanager.faults import painted
from tests.acquisition.sources.micromanager.java_server import JavaCore, micromanager
from tests.acquisition.sources.micromanager.rig import needs_core, plate, settings, until_error

pytestmark = needs_core
B02 = WellId.parse("B02")
OFF = 10_000  # counts above those of a painted image: half of them are negative where a number is signed
FIRST_FRAME_S = 4.0


def attach_untidy(core: Any) -> None:
    """Collections at all moments: the bridge's own locks hold one up for ever that comes while it makes an object."""
    gc.set_threshold(20, 2, 2)


def over_bridge(port: int) -> MicroManagerSource:
    rig = settings(backend="java", port=port, micromanager_dir=None, config=None, first_frame_s=FIRST_FRAME_S)
    return MicroManagerSource(rig, plate(), "rig", SystemClock(), attach=attach_untidy)


@pytest.fixture(scope="module")
def opened() -> Iterator[tuple[MicroManagerSource, JavaCore]]:
    with micromanager() as (core, port), closing(over_bridge(port)) as source:
        yield source, core


def test_an_image_has_its_light_its_place_and_its_unsigned_counts(
    opened: tuple[MicroManagerSource, JavaCore],
) -> None:
    source, core = opened
    core.calls.clear()
    found = source.snap(SnapOrder("561", exposure_ms=7.0, well=B02, z_um=42.0))
    np.testing.assert_array_equal(found.pixels, painted(42.0, "561", 1000.0, 1000.0) + np.uint16(OFF))
    assert found.pixels.dtype == np.uint16
    assert found.pixels.min() > np.iinfo(np.int16).max
    assert (found.exposure_ms, found.x_um, found.y_um, found.z_um) == (7.0, 1000.0, 1000.0, 42.0)
    assert (found.well, found.ceiling_adu) == (B02, 65535)
    assert core.calls == [
        ("setPosition", "Z", 0.0),  # before the stage moves sideways
        ("setXYPosition", "XY", 1000.0, 1000.0),
        ("setPosition", "Z", 42.0),
        ("setConfig", "Channel", "561"),
        ("setExposure", 7.0),
        ("snapImage",),
        ("getImage",),
        ("setExposure", 5.0),
        ("setProperty", "Laser", "Label", "dark"),
    ]
    source.put_back()
    assert (core.x_um, core.y_um, core.z_um) == (0.0, 0.0, 100.0)


def failing() -> None:
    raise RuntimeError("Camera image buffer read failed")


@pytest.mark.parametrize(
    ("method", "instead", "words"),
    [
        ("snapImage", failing, "Camera image buffer read failed"),
        ("getImage", failing, "Camera image buffer read failed"),
        ("getImage", lambda: None, "an image of NoneType arrived where the plan has uint16"),
        ("getImage", lambda: np.zeros(95 * 96, np.uint16), r"an image of uint16 \(9120,\) arrived"),
    ],
    ids=["exposure fails", "image fails", "no image", "an image of another size"],
)
def test_an_image_that_does_not_come_is_told_and_the_light_goes_back(
    opened: tuple[MicroManagerSource, JavaCore], method: str, instead: Any, words: str
) -> None:
    source, core = opened
    core.faults[method] = instead
    with pytest.raises(InstrumentError, match=words):
        source.snap(SnapOrder("488", exposure_ms=7.0))
    assert (core.exposure_ms, core.laser) == (5.0, "dark")
    assert source.snap(SnapOrder("488")).pixels.shape == (96, 96)


def test_a_camera_that_hangs_is_given_up_and_the_next_image_comes(opened: tuple[MicroManagerSource, JavaCore]) -> None:
    source, core = opened
    shut = threading.Event()
    core.faults["snapImage"] = lambda: shut.wait(60) and None
    try:
        with pytest.raises(InstrumentError, match="waiting for an image of where the stage stands"):
            source.snap(SnapOrder("488", exposure_ms=7.0))
    finally:
        shut.set()
    assert source.snap(SnapOrder("488", exposure_ms=3.0)).exposure_ms == 3.0


# -- a stack of single images, by the engine behind the bridge


def stack_of(source: MicroManagerSource) -> StackPlan:
    return next(plan for plan in source.plans() if plan.key.well == B02)


def test_a_stack_of_single_images_comes_in_order_with_its_tags(opened: tuple[MicroManagerSource, JavaCore]) -> None:
    source, core = opened
    plan = stack_of(source)
    core.calls.clear()
    frames = list(source.frames(plan, frozenset(plan.indices())))
    assert [frame.index for frame in frames] == list(plan.indices())
    for frame in frames:
        z_um = 100.0 + frame.index.z
        expected = painted(z_um, frame.index.channel, 1000.0, 1000.0) + np.uint16(OFF)
        np.testing.assert_array_equal(frame.pixels, expected, err_msg=str(frame.index))
        told = frame.metadata
        assert (told["camera"], told["preset"], told["exposure_ms"]) == ("Camera", frame.index.channel, 1.0)
        assert (told["x_um"], told["y_um"], told["z_um"], told["z_planned_um"]) == (1000.0, 1000.0, z_um, z_um)
        assert float(told["instrument_elapsed_s"]) >= 0
    assert [call for call in core.calls if call[0] == "snapImage"] == [("snapImage",)] * 8


@pytest.mark.parametrize(
    ("method", "instead", "words"),
    [
        ("snapImage", failing, "did not come within"),
        ("getImage", lambda: None, "did not come within"),
        ("getImage", lambda: np.zeros(96 * 95, np.uint16), r"an image of uint16 \(96, 95\) arrived"),
    ],
    ids=["the core fails", "no image", "an image of another size"],
)
def test_a_slice_that_does_not_come_ends_the_stack_and_the_rest_is_taken_then(
    opened: tuple[MicroManagerSource, JavaCore], method: str, instead: Any, words: str
) -> None:
    source, core = opened
    plan = stack_of(source)
    frames = source.frames(plan, frozenset(plan.indices()))
    first = next(frames)
    core.faults[method] = instead
    got, error = until_error(frames)
    assert isinstance(error, InstrumentError)
    assert re.search(words, str(error)), error
    left = frozenset(plan.indices()) - got.keys() - {first.index}
    assert left
    assert {frame.index for frame in source.frames(plan, left)} == left


def test_an_image_of_another_place_is_refused(opened: tuple[MicroManagerSource, JavaCore]) -> None:
    source, core = opened
    plan = stack_of(source)
    core.tags = {"Axes": {"channel": "488", "z": 99}}
    try:
        with pytest.raises(InstrumentError, match=r"99.* arrived where .*0 was due"):
            next(source.frames(plan, frozenset(plan.indices())))
    finally:
        core.tags = {}


def test_a_port_on_which_nobody_answers_says_what_to_do() -> None:
    with micromanager() as (_, port):
        pass  # it was closed
    with closing(over_bridge(port)) as source, pytest.raises(InstrumentError, match=r"Run server on port"):
        source.snap(SnapOrder("488"))
