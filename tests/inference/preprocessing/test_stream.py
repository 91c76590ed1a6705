"""Streamed equals offline bit for bit, and both are the study's chain."""

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from spheroidd.inference.preprocessing.stream import StreamingPreprocessor, preprocess
from spheroidd.protocols.errors import ConfigError, StackError
from spheroidd.protocols.results import Limits
from spheroidd.protocols.stack import CHANNELS
from tests.inference.preprocessing.test_resample import matrix
from tests.places import REAL_DATA, needs_real_data

SPACINGS = [(0.5, 0.5, 0.5), (0.1, 0.1, 0.1), (0.5, 0.125, 0.125), (1.3, 0.3, 0.2), (0.65, 0.25, 0.25)]
OWN_UM = (0.5, 0.125, 0.125)


def random_stack(n_z=9, height=21, width=18, n_channels=2, dtype=np.uint16, seed=0):
    top = np.iinfo(dtype).max
    values = np.random.default_rng(seed).gamma(2, top / 20, (n_channels, n_z, height, width))
    return values.clip(0, top).astype(dtype)


def streaming(stack, channels=CHANNELS, spacing_um=(0.5, 0.5, 0.5), **options):
    return StreamingPreprocessor(*stack.shape[1:], 0.125, 0.5, channels, spacing_um, **options)


def feed_all(preprocessor, stack, channels=CHANNELS, portion=4):
    for z in range(0, stack.shape[1], portion):
        for channel, slices in zip(channels, stack, strict=True):
            preprocessor.feed(channel, z, slices[z : z + portion])
    preprocessor.finish()


def plain_chain(raw, spacing_um):
    """The study's chain in scipy and numpy, float64."""
    filtered = ndimage.median_filter(raw, size=3, mode="nearest").astype(np.float64)
    clipped = np.clip(filtered, *np.percentile(filtered, [2, 98]))
    axes = (matrix(*axis) for axis in zip(raw.shape, OWN_UM, spacing_um, strict=True))
    return np.einsum("ai,bj,ck,ijk->abc", *axes, (clipped - clipped.mean()) / clipped.std(), optimize=True)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("spacing_um", SPACINGS, ids=str)
def test_the_chain_is_the_studys(spacing_um, dtype):
    stack = random_stack(dtype=dtype)
    volume, _ = preprocess(stack, CHANNELS, 0.125, 0.5, spacing_um)
    for given_, raw in zip(volume, stack, strict=True):
        assert np.allclose(given_, plain_chain(raw, spacing_um), rtol=1e-4, atol=1e-5)


@needs_real_data
def test_a_real_spheroid_goes_through_the_studys_chain():
    folder = REAL_DATA / "spheroid_2colour"
    raw = tifffile.imread(next(folder.rglob("*488*.tif*")))[:64]
    assert raw.dtype == np.uint16
    preprocessor = StreamingPreprocessor(*raw.shape, 0.125, 0.5, ("488",), (0.5, 0.5, 0.5))
    feed_all(preprocessor, raw[np.newaxis], ("488",), portion=8)
    volume = preprocessor.volume(0, preprocessor.ready_z, preprocessor.limits())
    assert np.allclose(volume[0], plain_chain(raw, (0.5, 0.5, 0.5)), rtol=1e-4, atol=1e-5)


@settings(deadline=None, max_examples=80)
@given(data=st.data())
def test_streamed_equals_offline_bit_for_bit(data):
    n_z, height, width = (data.draw(st.integers(1, n), label=name) for n, name in ((9, "z"), (12, "y"), (40, "x")))
    channels = data.draw(st.sampled_from([CHANNELS, CHANNELS[::-1], CHANNELS[:1], CHANNELS[1:]]), label="channels")
    spacing_um = data.draw(st.sampled_from(SPACINGS), label="spacing")
    dtype = data.draw(st.sampled_from([np.uint8, np.uint16]), label="dtype")
    stack = random_stack(n_z, height, width, len(channels), dtype, data.draw(st.integers(0, 9), label="seed"))
    offline, limits = preprocess(stack, channels, 0.125, 0.5, spacing_um)
    known = limits if data.draw(st.booleans(), label="limits known before") else None
    preprocessor = streaming(stack, channels, spacing_um, known_limits=known)
    fed = dict.fromkeys(channels, 0)
    early = []
    while min(fed.values()) < n_z:
        channel = data.draw(st.sampled_from([c for c in channels if fed[c] < n_z]))
        n = data.draw(st.integers(1, n_z - fed[channel]))
        buffer = stack[channels.index(channel), fed[channel] : fed[channel] + n].copy()
        preprocessor.feed(channel, fed[channel], buffer)
        buffer[:] = 0  # whoever feeds may use its buffer again
        fed[channel] += n
        if preprocessor.ready_z:
            start = data.draw(st.integers(0, preprocessor.ready_z - 1))
            early.append((start, preprocessor.volume(start, preprocessor.ready_z, limits)))
    preprocessor.finish()
    assert preprocessor.limits() == limits
    assert preprocessor.ready_z == preprocessor.shape[0] == offline.shape[1]
    assert np.array_equal(preprocessor.volume(0, preprocessor.ready_z, limits), offline)
    for start, volume in early:
        assert np.array_equal(volume, offline[:, start : start + volume.shape[1]])


def test_volumes_with_a_halo_are_parts_of_the_whole_and_are_kept_while_needed():
    stack = random_stack(n_z=12)
    whole, limits = preprocess(stack, CHANNELS, 0.125, 0.5, (1.0, 0.5, 0.5))
    for known in (None, limits):
        preprocessor = streaming(stack, spacing_um=(1.0, 0.5, 0.5), known_limits=known)
        feed_all(preprocessor, stack)
        for start, stop in ((0, 3), (1, 5), (3, 6), (0, 2)):
            assert np.array_equal(preprocessor.volume(start, stop, limits), whole[:, start:stop])


def test_other_limits_give_another_volume_and_the_first_come_back():
    stack = random_stack()
    preprocessor = streaming(stack)
    feed_all(preprocessor, stack)
    own = preprocessor.limits()
    first = preprocessor.volume(0, 5, own)
    other = {channel: Limits(0, 500, 100, 7) for channel in CHANNELS}
    offline, _ = preprocess(stack, CHANNELS, 0.125, 0.5, (0.5, 0.5, 0.5), limits=other)
    assert np.array_equal(preprocessor.volume(0, 5, other), offline[:, :5])
    assert np.array_equal(preprocessor.volume(0, 5, own), first)


def test_a_plane_is_ready_one_slice_after_its_last_input():
    stack = random_stack(n_z=4)
    preprocessor = streaming(stack)
    ready = []
    for z in range(4):
        preprocessor.feed("488", z, stack[0, z : z + 1])
        ready.append(preprocessor.ready_z)
        preprocessor.feed("561", z, stack[1, z : z + 1])
        ready.append(preprocessor.ready_z)
    assert ready == [0, 0, 0, 1, 1, 2, 2, 4]


@pytest.mark.parametrize("known", [False, True])
def test_discarded_planes_are_gone_and_the_rest_is_not(known):
    stack = random_stack()
    whole, limits = preprocess(stack, CHANNELS, 0.125, 0.5, (0.5, 0.5, 0.5))
    preprocessor = streaming(stack, known_limits=limits if known else None)
    feed_all(preprocessor, stack)
    preprocessor.discard(4)
    assert np.array_equal(preprocessor.volume(4, 9, limits), whole[:, 4:])
    with pytest.raises(StackError, match="discarded"):
        preprocessor.volume(3, 9, limits)
    preprocessor.discard(9)
    with pytest.raises(StackError, match="discarded"):
        preprocessor.volume(8, 9, limits)


@pytest.mark.parametrize("channel", CHANNELS)
def test_an_absent_channel_is_background_in_its_fixed_place(channel):
    stack = random_stack(n_channels=1)
    preprocessor = streaming(stack, (channel,), background=-1.5)
    feed_all(preprocessor, stack, (channel,))
    volume = preprocessor.volume(0, 9, preprocessor.limits())
    assert (volume[1 - CHANNELS.index(channel)] == -1.5).all()
    assert volume[CHANNELS.index(channel)].std() > 0
    assert list(preprocessor.limits()) == [channel]


def test_a_stack_of_few_cells_is_scored_with_a_window_that_holds_them():
    stack = random_stack(height=40, width=40) // 100
    stack[:, 3:7, 10:16, 10:16] = 60_000
    plain, own = streaming(stack), streaming(stack, own_window=True)
    for one in (plain, own):
        feed_all(one, stack)
    for channel in CHANNELS:
        assert plain.limits()[channel].high < 1_000
        assert own.limits()[channel] == own.histograms()[channel].own_limits()
        assert own.limits()[channel].high > 15_000


def test_quantiles_are_of_the_raw_pixels_and_limits_of_the_filtered():
    stack = random_stack(height=16)
    preprocessor = streaming(stack, percentiles=(5, 90))
    feed_all(preprocessor, stack, portion=2)
    for channel, raw in zip(CHANNELS, stack, strict=True):
        filtered = ndimage.median_filter(raw, size=3, mode="nearest")
        assert preprocessor.limits()[channel].low == np.percentile(filtered, 5)
        assert preprocessor.limits()[channel].high == np.percentile(filtered, 90)
        found = preprocessor.quantiles()[channel]
        assert list(found) == ["0.02", "0.5", "0.98", "0.999"]
        assert found["0.5"] == np.percentile(raw[:, ::4], 50)
        assert preprocessor.histograms()[channel].n == raw.size


def test_a_black_stack_becomes_zero_not_nan():
    stack = np.full((2, 3, 8, 8), 100, np.uint16)
    preprocessor = streaming(stack)
    feed_all(preprocessor, stack)
    assert not preprocessor.volume(0, 3, preprocessor.limits()).any()


WRONG_FEEDS = {
    "a gap": ("488", 1, np.zeros((1, 21, 18), np.uint16)),
    "another shape": ("488", 0, np.zeros((1, 18, 21), np.uint16)),
    "a bare plane": ("488", 0, np.zeros((21, 18), np.uint16)),
    "too many": ("488", 0, np.zeros((10, 21, 18), np.uint16)),
    "signed": ("488", 0, np.zeros((1, 21, 18), np.int16)),
    "an unknown channel": ("405", 0, np.zeros((1, 21, 18), np.uint16)),
}


@pytest.mark.parametrize("feed", WRONG_FEEDS.values(), ids=list(WRONG_FEEDS))
def test_a_wrong_slice_is_refused_and_changes_nothing(feed):
    stack = random_stack()
    preprocessor = streaming(stack)
    with pytest.raises(StackError):
        preprocessor.feed(*feed)
    feed_all(preprocessor, stack)
    assert preprocessor.ready_z == 9


def test_a_change_of_dtype_is_refused():
    preprocessor = streaming(random_stack())
    preprocessor.feed("488", 0, np.zeros((1, 21, 18), np.uint16))
    with pytest.raises(StackError, match="uint8"):
        preprocessor.feed("488", 1, np.zeros((1, 21, 18), np.uint8))


def test_missing_slices_unready_planes_and_foreign_limits_are_refused():
    stack = random_stack()
    limits = {channel: Limits(0, 9, 4, 1) for channel in CHANNELS}
    preprocessor = streaming(stack, known_limits=limits)
    preprocessor.feed("488", 0, stack[0])
    with pytest.raises(StackError, match="0 of 9"):
        preprocessor.finish()
    with pytest.raises(StackError, match="not ready"):
        preprocessor.volume(0, 1, limits)
    preprocessor.feed("561", 0, stack[1])
    preprocessor.finish()
    with pytest.raises(StackError, match="known limits"):
        preprocessor.volume(0, 1, preprocessor.limits())
    with pytest.raises(StackError, match="561"):
        preprocessor.volume(0, 1, {"488": limits["488"]})


@pytest.mark.parametrize(
    "options",
    [
        {"channels": ("405",)},
        {"channels": ()},
        {"spacing_um": (0.0, 0.5, 0.5)},
        {"percentiles": (98, 2)},
        {"known_limits": {"488": Limits(0, 9, 4, 1)}},
    ],
    ids=str,
)
def test_impossible_settings_are_refused(options):
    with pytest.raises(ConfigError):
        streaming(random_stack(), **options)
