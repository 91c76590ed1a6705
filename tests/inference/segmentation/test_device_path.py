"""The device path on the CPU says what the numba path says: bit for bit in integers and limits, closely elsewhere."""

from typing import Any

import numpy as np
import pytest
import torch

from spheroidd.inference.preprocessing.device_stream import DevicePreprocessor
from spheroidd.inference.preprocessing.resample import MaskResampler
from spheroidd.inference.preprocessing.stream import StreamingPreprocessor
from spheroidd.inference.segmentation.device_path import DeviceMasks, DeviceSegmentation
from spheroidd.inference.segmentation.precision import CPU_WHOLE_WAY
from spheroidd.inference.segmentation.segmenter import load_segmenter
from spheroidd.inference.segmentation.streaming import StreamingSegmentation
from spheroidd.protocols.errors import ConfigError, StackError
from spheroidd.protocols.results import Limits
from spheroidd.protocols.stack import CHANNELS

CPU = torch.device("cpu")
SPACING = (1.0, 1.0, 1.0)
SHAPES = {"wide": (13, 34, 50, 0.5, 0.7), "narrow": (9, 40, 20, 0.4, 0.5), "coarse": (6, 24, 36, 1.3, 1.6)}
KNOWN = dict.fromkeys(CHANNELS, Limits(110.0, 700.0, 260.0, 130.0))
DICE = 0.999


def cells(n_z: int, height: int, width: int, seed: int = 0, dtype: Any = np.uint16) -> np.ndarray:
    """(channel, z, y, x): bright balls over noise."""
    rng = np.random.default_rng(seed)
    z, y, x = np.ogrid[:n_z, :height, :width]
    out = rng.normal(130, 12, (2, n_z, height, width))
    for _ in range(14):
        at = rng.uniform(0, (n_z, height, width))
        ball = (z - at[0]) ** 2 + (y - at[1]) ** 2 + (x - at[2]) ** 2 < rng.uniform(9, 60)
        out[rng.integers(2)] += ball * rng.uniform(80, 600)
    return out.clip(0, np.iinfo(dtype).max).astype(dtype)


def pair(shape: tuple[Any, ...], channels: tuple[str, ...], known: Any = None) -> tuple[Any, Any]:
    n_z, height, width, pixel_um, z_step_um = shape
    given = (n_z, height, width, pixel_um, z_step_um, channels, SPACING)
    return (
        StreamingPreprocessor(*given, known_limits=known),
        DevicePreprocessor(*given, known_limits=known, device=CPU),
    )


@pytest.mark.parametrize("portion", [1, 4, 100])
@pytest.mark.parametrize("known", [None, KNOWN], ids=["own limits", "known limits"])
@pytest.mark.parametrize("name", SHAPES)
def test_both_paths_make_the_same_limits_and_the_same_volume(name: str, known: Any, portion: int) -> None:
    n_z, height, width, *_ = SHAPES[name]
    dtype = np.uint8 if name == "narrow" else np.uint16
    channels = CHANNELS[:1] if name == "coarse" else CHANNELS
    usual, device = pair(SHAPES[name], channels, known and {c: known[c] for c in channels})
    stack = cells(n_z, height, width, dtype=dtype)
    for z in range(0, n_z, portion):
        for channel, pixels in zip(channels, stack, strict=False):
            for one in (usual, device):
                one.feed(channel, z, pixels[z : z + portion])
        assert usual.ready_z == device.ready_z
    usual.finish()
    device.finish()
    assert usual.shape == device.shape
    assert usual.histograms() == device.histograms()
    assert usual.raw_histograms() == device.raw_histograms()
    assert usual.limits() == device.limits()
    assert usual.quantiles() == device.quantiles()
    limits = known or usual.limits()
    expected, found = (one.volume(0, usual.shape[0], limits) for one in (usual, device))
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)


def test_planes_that_were_let_go_are_asked_for_in_vain() -> None:
    _, device = pair(SHAPES["wide"], CHANNELS)
    stack = cells(13, 34, 50)
    with pytest.raises(StackError, match="next is 0"):
        device.feed("488", 1, stack[0])
    for channel, pixels in zip(CHANNELS, stack, strict=True):
        device.feed(channel, 0, pixels)
    device.discard(device.shape[0])
    with pytest.raises(StackError, match="discarded"):
        device.volume(0, 2, device.limits())
    with pytest.raises(ConfigError, match="known for channel 488"):
        pair(SHAPES["wide"], CHANNELS, {})


def test_masks_back_at_the_stack_s_sampling_are_the_same_voxels() -> None:
    model_shape, shape = (9, 11, 13), (20, 31, 27)
    given = (model_shape, SPACING, shape, (0.45, 11 / 31, 13 / 27))
    rng = np.random.default_rng(1)
    live, dead = rng.random((2, *model_shape), np.float32)
    found = []
    for resampler in (MaskResampler(*given), DeviceMasks(*given, device=CPU)):
        parts = [*resampler.feed(0, live[:4], dead[:4]), *resampler.feed(4, live[4:], dead[4:]), *resampler.finish()]
        assert [part.z_start for part in parts] == list(np.cumsum([0, *(len(part.live) for part in parts[:-1])]))
        found.append([np.concatenate([part.live for part in parts]), np.concatenate([part.dead for part in parts])])
    for expected, got in zip(*found, strict=True):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_masks_of_both_paths_are_the_same_cells(precision: str) -> None:
    shape = (40, 72, 168, 0.8, 1.0)
    stack = cells(*shape[:3])
    usual, device = pair(shape, CHANNELS, KNOWN)
    for one in (usual, device):
        for channel, pixels in zip(CHANNELS, stack, strict=True):
            one.feed(channel, 0, pixels)
        one.finish()
    plain, whole = load_segmenter(None, "cpu", None, precision), load_segmenter(None, CPU_WHOLE_WAY, None, precision)
    assert (plain.keeps_stacks_on_device, whole.keeps_stacks_on_device) == (False, True)
    (expected,) = StreamingSegmentation(usual, plain, limits=KNOWN).finish()
    (found,) = DeviceSegmentation(device, whole, limits=KNOWN).finish()
    assert (found.z_start, found.z_stop) == (expected.z_start, expected.z_stop) == (0, 40)
    least = DICE if precision == "fp32" else 0.99
    for a, b in zip(expected.prediction[:2], found.prediction[:2], strict=True):
        both = 2 * np.count_nonzero((a > 0.5) & (b > 0.5))
        assert both >= least * (np.count_nonzero(a > 0.5) + np.count_nonzero(b > 0.5))
    if precision == "fp32":
        for a, b in zip(expected.prediction, found.prediction, strict=True):
            np.testing.assert_allclose(b, a, atol=1e-4 * max(1.0, float(a.max())))
    assert float(expected.prediction.live.max()) > 0.5, "there is something to compare"
