"""Boundaries at half height on a device are the numba path's, and nothing but masks crosses back.

Both add the same products, but a logarithm, a power and the sums of an average may differ in their last digits: masks
may differ where an edge's height is 0 to HEIGHT, of the 30 by which it falls from a cell to the ground, nowhere else.
"""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from spheroidd.inference.preprocessing.device_stream import DevicePreprocessor
from spheroidd.inference.preprocessing.stream import StreamingPreprocessor
from spheroidd.inference.segmentation.device_half_height import DeviceHalfHeightMasks, Smoothing
from spheroidd.inference.segmentation.half_height import HalfHeightMasks, edge_by, half_height
from spheroidd.protocols.errors import StackError
from spheroidd.protocols.results import Limits
from spheroidd.protocols.stack import CHANNELS
from tests.inference.segmentation.test_device_path import CPU, cells

HEIGHT = 2e-3
SHARE = 2e-5  # of the voxels that may lie so close to an edge
MODEL_UM = (1.0, 1.0, 1.0)
KNOWN = dict.fromkeys(CHANNELS, Limits(110.0, 700.0, 260.0, 130.0))
STACKS = {"wide": (26, 60, 90, 0.5, 0.7), "narrow": (9, 80, 40, 0.4, 0.5), "coarse": (12, 24, 36, 1.3, 1.6)}


def said(shape: tuple[int, int, int], seed: int) -> NDArray[np.float32]:
    """What a network may say: cells, all that lies between, and both ends (0 and 1)."""
    smooth = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 1.5)
    return np.clip(0.4 + 1.2 * smooth / smooth.std(), 0, 1).astype(np.float32)


def both_ways(
    name: str, channels: tuple[str, ...], known: Any, portion: int = 7
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Masks (channel, z, y, x) of one stack by numba and by torch, in two slabs."""
    n_z, height, width, pixel_um, z_step_um = STACKS[name]
    shape, own_um = (n_z, height, width), (z_step_um, pixel_um, pixel_um)
    raw = cells(*shape, dtype=np.uint8 if name == "narrow" else np.uint16)
    limits = known and {channel: known[channel] for channel in channels}
    words = (*shape, pixel_um, z_step_um, channels, MODEL_UM)
    more: dict[str, Any] = {"known_limits": limits, "own_window": True, "keep_filtered": True}
    found = []
    for source, make in (
        (StreamingPreprocessor(*words, **more), HalfHeightMasks),
        (DevicePreprocessor(*words, **more, device=CPU), DeviceHalfHeightMasks),
    ):
        for z in range(0, n_z, portion):
            for channel, pixels in zip(channels, raw, strict=False):
                source.feed(channel, z, pixels[z : z + portion])
        source.finish()
        maker: Any = make(source, MODEL_UM, shape, own_um, limits)  # type: ignore[arg-type]
        live, dead = said(source.shape, 1), said(source.shape, 2)
        half = source.shape[0] // 2
        parts = [*maker.feed(0, live[:half], dead[:half]), *maker.feed(half, live[half:], dead[half:])]
        parts += maker.finish()
        assert [part.z_start for part in parts] == list(np.cumsum([0, *(len(part.live) for part in parts[:-1])]))
        found.append(np.stack([np.concatenate([getattr(part, kind) for part in parts]) for kind in ("live", "dead")]))
    return found[0], found[1]


@pytest.mark.parametrize("known", [None, KNOWN], ids=["own limits", "known limits"])
@pytest.mark.parametrize("channels", [CHANNELS, CHANNELS[:1], CHANNELS[1:]], ids=["both dyes", "live dye", "dead dye"])
@pytest.mark.parametrize("name", STACKS)
def test_masks_are_the_numba_path_s(name: str, channels: tuple[str, ...], known: Any) -> None:
    expected, found = both_ways(name, channels, known)
    assert 0.01 < expected.mean() < 0.9
    assert np.count_nonzero(found != expected) <= SHARE * expected.size
    for one, other in zip(expected, found, strict=True):
        assert ndimage.label(one)[1] == ndimage.label(other)[1]


sides = st.integers(1, 23)
steps_um = st.sampled_from([0.1, 0.3, 0.5, 0.7, 1.0, 1.9, 2.0, 3.3])


@settings(deadline=None, max_examples=150)
@given(
    shape=st.tuples(sides, sides, sides),
    spacing_um=st.tuples(steps_um, steps_um, steps_um),
    seed=st.integers(0, 99),
    gain=st.sampled_from([0.0, 0.1, 1.0, 9.0]),
    ends=st.sampled_from([0.0, 0.5, 1.0]),
    sparse=st.booleans(),
)
@example(shape=(1, 1, 1), spacing_um=MODEL_UM, seed=0, gain=1.0, ends=1.0, sparse=True)
def test_edges_of_any_field_lie_where_the_numba_path_puts_them(
    shape: tuple[int, int, int],
    spacing_um: tuple[float, float, float],
    seed: int,
    gain: float,
    ends: float,
    sparse: bool,
) -> None:
    rng = np.random.default_rng(seed)
    channel = (gain * rng.normal(size=shape)).clip(-2, 8).astype(np.float32)
    probability = rng.random(shape, np.float32)
    probability[rng.random(shape) < ends] = rng.choice([0, 1])
    expected = half_height(channel, probability, spacing_um, sparse=sparse)
    tensors = (torch.from_numpy(channel), torch.from_numpy(probability))
    found = edge_by(torch, Smoothing(spacing_um, CPU), *tensors, sparse=sparse)
    heights = [edge.slope * image + edge.offset for edge, image in ((expected, channel), (found, tensors[0]))]
    assert np.isfinite(heights[0]).all()
    np.testing.assert_allclose(heights[1].numpy(), heights[0], rtol=1e-4, atol=HEIGHT)


def test_nothing_crosses_back_but_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    crossed, as_it_was = [], torch.Tensor.cpu

    def noted(tensor: torch.Tensor) -> torch.Tensor:
        crossed.append(tensor.dtype)
        return as_it_was(tensor)

    n_z, height, width, pixel_um, z_step_um = STACKS["wide"]
    given_ = (n_z, height, width, pixel_um, z_step_um, CHANNELS, MODEL_UM)
    monkeypatch.setattr(torch.Tensor, "cpu", noted)
    source = DevicePreprocessor(*given_, known_limits=KNOWN, keep_filtered=True, device=CPU)
    for channel, pixels in zip(CHANNELS, cells(n_z, height, width), strict=True):
        source.feed(channel, 0, pixels)
    maker = DeviceHalfHeightMasks(source, MODEL_UM, (n_z, height, width), (z_step_um, pixel_um, pixel_um), KNOWN)
    live = said(source.shape, 1)
    assert any(part.live.any() for part in maker.feed(0, live, live))
    assert set(crossed) == {torch.bool}


def test_slices_that_were_not_kept_and_planes_out_of_order_are_refused() -> None:
    words = (4, 8, 8, 1.0, 1.0, CHANNELS, MODEL_UM)
    source = DevicePreprocessor(*words, known_limits=KNOWN, device=CPU)
    for channel, pixels in zip(CHANNELS, cells(4, 8, 8), strict=True):
        source.feed(channel, 0, pixels)
    maker = DeviceHalfHeightMasks(source, MODEL_UM, (4, 8, 8), MODEL_UM, KNOWN)
    half = np.full(source.shape, 0.5, np.float32)
    with pytest.raises(StackError, match="next is 0"):
        maker.feed(1, half[:2], half[:2])
    with pytest.raises(StackError, match="0 of 4 planes"):
        maker.finish()
    with pytest.raises(StackError, match="slice 0 of channel 488 is not kept"):
        list(maker.feed(0, half, half))
