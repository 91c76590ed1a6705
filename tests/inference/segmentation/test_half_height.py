"""Boundaries at half height: where they lie, what the network keeps a say in, and that no pace changes them."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage

from spheroidd.inference.agreement.overlap_metrics import agreement
from spheroidd.inference.preprocessing.device_stream import DevicePreprocessor
from spheroidd.inference.preprocessing.resample import MaskResampler
from spheroidd.inference.preprocessing.stream import StreamingPreprocessor
from spheroidd.inference.segmentation.device_half_height import DeviceHalfHeightMasks
from spheroidd.inference.segmentation.half_height import SURE, HalfHeightMasks, half_height
from spheroidd.inference.segmentation.streaming import StreamingSegmentation
from spheroidd.inference.segmentation.threshold import ThresholdSegmenter
from spheroidd.protocols.errors import StackError
from spheroidd.protocols.results import Limits
from spheroidd.protocols.stack import CHANNELS

OWN_UM, MODEL_UM = (1.25, 0.4, 0.4), (1.0, 1.0, 1.0)
SHAPE = (40, 100, 100)
LIMITS = dict.fromkeys(CHANNELS, Limits(100.0, 900.0, 200.0, 160.0))
CENTRES = ((20.0, 12.0, 12.0), (28.0, 26.0, 28.0), (18.0, 28.0, 10.0))


def balls(radius_um: float, spacing_um: tuple[float, ...], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """1 inside the balls, 0 outside."""
    axes = np.ix_(*((np.arange(n) + 0.5) * step for n, step in zip(shape, spacing_um, strict=True)))
    far = [np.sqrt(sum((axis - at) ** 2 for axis, at in zip(axes, centre, strict=True))) for centre in CENTRES]
    return (np.minimum.reduce(far) < radius_um).astype(np.float32)


def image(height: float = 700.0) -> NDArray[np.uint16]:
    """Balls of 6 um through a lens, on a ground of 120, with noise."""
    sigma = [1.0 / step for step in OWN_UM]
    light = 120 + height * ndimage.gaussian_filter(balls(6.0, OWN_UM, SHAPE), sigma)
    return (light + np.random.default_rng(1).normal(0, 8, SHAPE)).astype(np.uint16)


def filtered(pixels: NDArray[np.uint16], channels: tuple[str, ...] = CHANNELS, **more: Any) -> StreamingPreprocessor:
    """A preprocessor that has the same slices in every channel."""
    source = StreamingPreprocessor(*SHAPE, 0.4, 1.25, channels, MODEL_UM, keep_filtered=True, **more)
    for channel in channels:
        source.feed(channel, 0, pixels)
    source.finish()
    return source


def masks(maker: Any, slabs: Iterable[tuple[int, NDArray[np.float32], NDArray[np.float32]]]) -> NDArray[np.bool_]:
    """Live and dead (2, z, y, x)."""
    found = [plane for slab in slabs for plane in maker.feed(*slab)]
    found += list(maker.finish())
    return np.stack([np.concatenate([one.live for one in found]), np.concatenate([one.dead for one in found])])


@pytest.mark.parametrize("said_um", [4.2, 5.0, 7.5, 8.5])
def test_the_edge_is_the_image_s_where_the_network_draws_too_narrow_or_too_wide(said_um: float) -> None:
    source = filtered(image())
    said = 0.1 + 0.8 * balls(said_um, MODEL_UM, source.shape)
    true = balls(6.0, OWN_UM, SHAPE) > 0
    live, _ = masks(HalfHeightMasks(source, MODEL_UM, SHAPE, OWN_UM, LIMITS), [(0, said, said)])
    plain, _ = masks(MaskResampler(source.shape, MODEL_UM, SHAPE, OWN_UM), [(0, said, said)])
    assert agreement(live, true).dice > 0.93
    assert agreement(live, true).dice > agreement(plain, true).dice + 0.04


def test_where_the_network_is_sure_that_there_is_nothing_a_bright_body_is_none() -> None:
    source = filtered(image())
    said = np.full(source.shape, 1e-6, np.float32)
    assert not masks(HalfHeightMasks(source, MODEL_UM, SHAPE, OWN_UM, LIMITS), [(0, said, said)]).any()


@pytest.mark.parametrize(("sparse", "share"), [(False, 1.0), (True, 0.0)])
def test_the_dim_is_left_to_the_network_unless_any_cell_would_be_bright(sparse: bool, share: float) -> None:
    body = balls(6.0, MODEL_UM, (50, 40, 40))
    channel = (-0.5 + 0.4 * body).astype(np.float32)
    edge = half_height(channel, 0.02 + 0.9 * body, MODEL_UM, sparse=sparse)
    inside = edge.slope * channel + edge.offset > 0
    assert inside[body > 0].mean() == pytest.approx(share, abs=0.02)


def test_a_channel_that_the_stack_does_not_have_keeps_the_network_s_word() -> None:
    source = filtered(image(), ("488",))
    said = 0.1 + 0.8 * balls(5.0, MODEL_UM, source.shape)
    _, dead = masks(HalfHeightMasks(source, MODEL_UM, SHAPE, OWN_UM, LIMITS), [(0, said, said)])
    _, plain = masks(MaskResampler(source.shape, MODEL_UM, SHAPE, OWN_UM), [(0, said, said)])
    assert agreement(dead, plain).dice > 0.97  # one interpolates logits, the other probabilities


def test_what_memory_held_before_is_no_image_of_a_channel_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    source = filtered(image(), CHANNELS[1:])
    said = 0.1 + 0.8 * balls(5.0, MODEL_UM, source.shape)
    with monkeypatch.context() as patched:
        patched.setattr(np, "empty", lambda shape, dtype: np.full(shape, np.nan, dtype))
        maker = HalfHeightMasks(source, MODEL_UM, SHAPE, OWN_UM, LIMITS)
    live, _ = masks(maker, [(0, said, said)])
    plain, _ = masks(MaskResampler(source.shape, MODEL_UM, SHAPE, OWN_UM), [(0, said, said)])
    assert agreement(live, plain).dice > 0.97


def test_under_limits_of_its_own_a_stack_of_two_dyes_keeps_the_network_s_edges() -> None:
    source = filtered(image())
    said = 0.1 + 0.73 * balls(5.0, MODEL_UM, source.shape)
    found = masks(HalfHeightMasks(source, MODEL_UM, SHAPE, OWN_UM), [(0, said, said)])
    plain = masks(MaskResampler(source.shape, MODEL_UM, SHAPE, OWN_UM), [(0, said, said)])
    assert agreement(found, plain).dice > 0.9999  # but for the last digit of a probability


def growing(portion: int, device: torch.device | None = None) -> NDArray[np.bool_]:
    """Masks of a stack that arrives in portions, through a segmenter, in several slabs."""
    given = (*SHAPE, 0.4, 1.25, CHANNELS, MODEL_UM)
    source: Any = StreamingPreprocessor(*given, known_limits=LIMITS, keep_filtered=True)
    if device is not None:
        source = DevicePreprocessor(*given, known_limits=LIMITS, keep_filtered=True, device=device)
    streaming = StreamingSegmentation(source, ThresholdSegmenter(), limits=LIMITS, slab_z=40, tile_yx=64)
    maker: Any = DeviceHalfHeightMasks if device is not None else HalfHeightMasks
    maker, pixels, found = maker(source, MODEL_UM, SHAPE, OWN_UM, LIMITS), image(), []
    for z in range(0, SHAPE[0], portion):
        for channel in CHANNELS:
            source.feed(channel, z, pixels[z : z + portion])
        for slab in streaming.advance():
            found += list(maker.feed(slab.z_start, slab.prediction.live, slab.prediction.dead))
    source.finish()
    for slab in streaming.finish():
        found += list(maker.feed(slab.z_start, slab.prediction.live, slab.prediction.dead))
    found += list(maker.finish())
    last = (SHAPE[0] - 1,) if device is None else (SHAPE[0] - 1, SHAPE[0])
    with pytest.raises(StackError, match="not kept"):
        (source.filtered if device is None else source.filtered_on_device)("488", *last)
    return np.concatenate([one.live for one in found])


@pytest.mark.parametrize("device", [None, torch.device("cpu")], ids=["processor", "device"])
def test_no_pace_at_which_slices_come_changes_a_mask(device: torch.device | None) -> None:
    whole = growing(SHAPE[0], device)
    assert whole.any()
    for portion in (1, 7):
        np.testing.assert_array_equal(growing(portion, device), whole)


def test_slices_that_stay_on_a_device_give_the_same_masks() -> None:
    assert agreement(growing(8, torch.device("cpu")), growing(8)).dice > 0.9999


def test_planes_out_of_order_are_refused() -> None:
    source = filtered(image())
    maker = HalfHeightMasks(source, MODEL_UM, SHAPE, OWN_UM, LIMITS)
    said = np.full((4, *source.shape[1:]), 0.5, np.float32)
    with pytest.raises(StackError, match="next is 0"):
        maker.feed(4, said, said)
    with pytest.raises(StackError, match="0 of 50 planes"):
        maker.finish()


def test_logits_are_held() -> None:
    ends = np.array([[[0.0, 0.5, 1.0]]], np.float32)
    edge = half_height(np.zeros_like(ends), ends, MODEL_UM)
    np.testing.assert_allclose(edge.offset[0, 0, [0, 2]], [-SURE, SURE], rtol=1e-5)
