"""What an image is told to show: its counts, what is saturated, where the focus is."""

import io

import numpy as np
import pytest
from PIL import Image

from spheroidd.daemon.service.snapshots import SATURATED, FocusSweep, histogram, picture, snapshot_message
from spheroidd.daemon.system.clock import SystemClock
from spheroidd.protocols import spheroidd_pb2 as wire
from spheroidd.protocols.errors import ConfigError, RefusedError
from spheroidd.protocols.snapshot import SnapOrder, Snapshot
from spheroidd.sim_emulator.source import EmulatorSettings, EmulatorSource


def plate() -> EmulatorSource:
    settings = EmulatorSettings(preset="unit", pace="fast", compounds=1, doses=1, field_z_um=-12.0, n_z=40)
    return EmulatorSource(settings, None, "P1", SystemClock())


def test_a_saturated_part_is_counted_and_red() -> None:
    pixels = np.full((400, 2000), 300, np.uint16)
    pixels[:100, :200] = 4095
    taken = Snapshot(pixels, "488", None, 1.0, 2.0, 3.0, None, 0.5, 4095, 5.0)
    found = snapshot_message("P1", taken)
    assert found.saturated_share == pytest.approx(20_000 / 800_000)
    assert (found.median_adu, found.well, found.HasField("exposure_ms")) == (300, "", False)
    image = np.asarray(Image.open(io.BytesIO(found.jpeg)))
    assert image.shape == (134, 667, 3)
    assert np.abs(image[10, 10].astype(int) - SATURATED).max() < 20
    assert np.ptp(image[100, 500].astype(int)) == 0


@pytest.mark.parametrize(("brightest", "top"), [(0, 128), (127, 128), (128, 256), (3000, 4096), (4095, 4096)])
def test_a_histogram_holds_every_pixel(brightest: int, top: int) -> None:
    pixels = np.array([[0, brightest], [brightest, brightest]], np.uint16)
    counts, found = histogram(pixels, 4095)
    assert (sum(counts), found) == (4, top)


def test_a_picture_without_contrast_is_no_error() -> None:
    assert picture(np.full((8, 8), 7, np.uint16), 7, 7, 255).startswith(b"\xff\xd8")


def test_the_focus_of_the_emulated_plate_is_where_its_spheroid_begins() -> None:
    source = plate()
    sweep = FocusSweep.of(wire.SweepFocusRequest(well="A01", range_um=24, step_um=1, centre_um=0.0))
    found = sweep.take(source, lambda: False)
    assert found.why == ""
    assert found.focus_um == pytest.approx(2.0, abs=4.0)
    assert [point.z_um for point in found.points] == [float(z) for z in range(-12, 13)]
    assert source.snap(SnapOrder("488")).z_um == 0.0  # the focus stage is where it was


def test_a_sweep_that_sees_no_focus_says_why() -> None:
    found = FocusSweep.of(wire.SweepFocusRequest(range_um=2, step_um=1)).take(plate(), lambda: False)
    assert not found.HasField("focus_um")
    assert "only 3 images" in found.why


def test_a_sweep_ends_where_a_run_wants_the_instrument() -> None:
    with pytest.raises(RefusedError, match="a plate is to be run"):
        FocusSweep.of(wire.SweepFocusRequest()).take(plate(), lambda: True)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"range_um": 1000.0, "step_um": 1.0}, "range_um is 1000"),
        ({"step_um": 0.0}, "step_um 0"),
        ({"target": "top"}, "target is 'top'"),
        ({"well": "Z99"}, "Z99"),
        ({"exposure_ms": -1.0}, "exposure_ms is -1"),
    ],
)
def test_a_sweep_that_is_none_is_refused(given: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        FocusSweep.of(wire.SweepFocusRequest(**given))
