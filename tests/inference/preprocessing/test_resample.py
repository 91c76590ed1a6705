"""Resampling keeps places and means; masks come back to the stack's own sampling, in any portions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spheroidd.inference.preprocessing.resample import MaskResampler, resample, resampled_size, resampling_axis
from spheroidd.protocols.errors import ConfigError, StackError

SPACINGS = st.sampled_from([0.1, 0.125, 0.2, 0.25, 0.3, 0.5, 0.65, 1.0, 1.3])
SIZES = st.integers(1, 14)


def matrix(n, own_um, wanted_um):
    """One axis, straight from the definition: overlaps of boxes, or the two nearest centres."""
    n_out = max(1, round(round(n * own_um / wanted_um, 9)))
    weights = np.zeros((n_out, n))
    for i in range(n_out):
        low, high = i * wanted_um / own_um, (i + 1) * wanted_um / own_um
        if wanted_um > own_um:
            weights[i] = [max(0.0, min(j + 1, high) - max(j, low)) for j in range(n)]
            weights[i] /= weights[i].sum()
        else:
            centre = min(max((low + high) / 2 - 0.5, 0), n - 1)
            weights[i] = [max(0.0, 1 - abs(centre - j)) for j in range(n)]
    return weights


def resampled_shape(shape, spacing_um, wanted_um):
    return tuple(resampled_size(*axis) for axis in zip(shape, spacing_um, wanted_um, strict=True))


@settings(deadline=None, max_examples=150)
@given(st.tuples(SIZES, SIZES, SIZES), st.tuples(*[SPACINGS] * 3), st.tuples(*[SPACINGS] * 3), st.integers(0, 99))
def test_resampling_is_the_product_of_three_matrices(shape, own_um, wanted_um, seed):
    volume = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    z, y, x = (matrix(*axis) for axis in zip(shape, own_um, wanted_um, strict=True))
    out = resample(volume, own_um, wanted_um)
    assert out.shape == resampled_shape(shape, own_um, wanted_um)
    assert np.allclose(out, np.einsum("ai,bj,ck,ijk->abc", z, y, x, volume, optimize=True), rtol=1e-5, atol=1e-5)


def test_equal_spacing_changes_no_bit():
    volume = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)
    assert np.array_equal(resample(volume, (0.5, 0.3, 0.3), (0.5, 0.3, 0.3)), volume)


def test_an_integer_factor_is_the_mean_of_boxes():
    volume = np.random.default_rng(0).normal(size=(4, 8, 12)).astype(np.float32)
    boxes = volume.reshape(4, 2, 4, 3, 4).mean((2, 4))
    assert np.allclose(resample(volume, (0.5, 0.125, 0.125), (0.5, 0.5, 0.5)), boxes, atol=1e-6)


def test_a_ratio_that_floats_cannot_hold_is_still_an_integer_factor():
    assert (resampling_axis(30, 0.1, 0.3).counts == 3).all()


@pytest.mark.parametrize(("own_um", "wanted_um", "voxels_off"), [(0.5, 0.1, 0), (0.1, 0.5, 0), (0.125, 0.2, 0.1)])
def test_a_ramp_stays_where_it_is_in_micrometres(own_um, wanted_um, voxels_off):
    # A value equal to its own place: resampling must give each new voxel the place of its centre. Boxes that are cut
    # by a broken ratio are flat inside, which moves a ramp by a little.
    centres = (np.arange(40) + 0.5) * own_um
    volume = np.broadcast_to(centres[:, None, None], (40, 2, 2)).astype(np.float32)
    out = resample(volume, (own_um, 1, 1), (wanted_um, 1, 1))[:, 0, 0]
    expected = (np.arange(len(out)) + 0.5) * wanted_um
    inner = (expected > own_um) & (expected < 39 * own_um)
    assert np.abs(out - expected)[inner].max() <= voxels_off * own_um + 1e-5


def masks_of(resampler, live, dead, cuts):
    """Feed in portions that end at the cuts; the native masks, put together."""
    out = []
    for start, stop in zip([0, *cuts], [*cuts, len(live)], strict=True):
        out += resampler.feed(start, live[start:stop], dead[start:stop])
    out += resampler.finish()
    assert [part.z_start for part in out] == list(np.cumsum([0, *(len(part.live) for part in out)])[:-1])
    return np.concatenate([part.live for part in out]), np.concatenate([part.dead for part in out])


def sampled(probability, shape, own_um, model_um):
    """Probability at the native voxels' centres, in float64."""
    axes = []
    for n, n_out, own, model in zip(probability.shape, shape, own_um, model_um, strict=True):
        centre = np.clip((np.arange(n_out) + 0.5) * own / model - 0.5, 0, n - 1)
        axes.append(np.clip(1 - abs(centre[:, None] - np.arange(n)), 0, None))
    return np.einsum("ai,bj,ck,ijk->abc", *axes, probability.astype(np.float64), optimize=True)


@settings(deadline=None, max_examples=120)
@given(
    st.tuples(st.integers(1, 20), SIZES, SIZES),
    st.tuples(*[SPACINGS] * 3),
    st.tuples(*[SPACINGS] * 3),
    st.lists(st.integers(0, 40), max_size=4),
    st.floats(0.1, 0.9),
    st.integers(0, 99),
)
def test_masks_are_the_interpolated_probability_above_the_threshold(shape, own_um, model_um, cuts, threshold, seed):
    model_shape = resampled_shape(shape, own_um, model_um)
    rng = np.random.default_rng(seed)
    live, dead = (rng.beta(0.4, 0.4 + seed / 10, model_shape).astype(np.float32) for _ in range(2))
    cuts = sorted(min(cut, model_shape[0]) for cut in cuts)
    resampler = MaskResampler(model_shape, model_um, shape, own_um, threshold)
    for mask, probability in zip(masks_of(resampler, live, dead, cuts), (live, dead), strict=True):
        expected = sampled(probability, shape, own_um, model_um)
        clear = abs(expected - threshold) > 1e-5  # what float32 can decide
        assert mask.shape == tuple(shape)
        assert np.array_equal(mask[clear], expected[clear] > threshold)
    again = masks_of(MaskResampler(model_shape, model_um, shape, own_um, threshold), live, dead, [])
    other = masks_of(MaskResampler(model_shape, model_um, shape, own_um, threshold), live, dead, cuts)
    assert all(np.array_equal(a, b) for a, b in zip(again, other, strict=True))


def test_planes_come_as_soon_as_they_can_be_had():
    resampler = MaskResampler((4, 2, 2), (1.0, 1.0, 1.0), (8, 2, 2), (0.5, 1.0, 1.0))
    plane = np.ones((1, 2, 2), np.float32)
    had = [sum(len(part.live) for part in resampler.feed(z, plane, plane)) for z in range(4)]
    assert had == [1, 2, 2, 3]
    assert list(resampler.finish()) == []


def test_the_last_planes_may_be_overwritten_by_their_owner():
    plane = np.ones((2, 2, 2), np.float32)
    resampler = MaskResampler((4, 2, 2), (1.0, 1.0, 1.0), (8, 2, 2), (0.5, 1.0, 1.0))
    list(resampler.feed(0, plane, plane))
    plane[:] = 0
    first = next(iter(resampler.feed(2, plane, plane)))
    assert first.z_start == 3
    assert first.live[0].all()
    assert not first.live[-1].any()


@pytest.mark.parametrize("z_start", [1, -1])
def test_planes_out_of_order_are_refused(z_start):
    resampler = MaskResampler((2, 2, 2), (1, 1, 1), (2, 2, 2), (1, 1, 1))
    plane = np.ones((1, 2, 2), np.float32)
    with pytest.raises(StackError, match="in order"):
        resampler.feed(z_start, plane, plane)


def test_missing_or_surplus_planes_are_refused():
    resampler = MaskResampler((2, 2, 2), (1, 1, 1), (2, 2, 2), (1, 1, 1))
    plane = np.ones((1, 2, 2), np.float32)
    list(resampler.feed(0, plane, plane))
    with pytest.raises(StackError, match="1 of 2"):
        resampler.finish()
    with pytest.raises(StackError, match="volume of 2"):
        resampler.feed(1, np.ones((2, 2, 2), np.float32), np.ones((2, 2, 2), np.float32))


def test_impossible_geometry_is_refused():
    with pytest.raises(ConfigError):
        MaskResampler((2, 2, 2), (1, 0, 1), (2, 2, 2), (1, 1, 1))
