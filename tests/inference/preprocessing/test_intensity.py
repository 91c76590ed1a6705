"""Limits are numpy's, pooling is adding, and nothing becomes NaN."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from spheroidd.inference.preprocessing.intensity import Histogram, moved, normalise, normalise_torch
from spheroidd.protocols.errors import StackError, StorageError
from spheroidd.protocols.results import Limits

PIXELS = hnp.arrays(
    st.sampled_from([np.dtype(np.uint8), np.dtype(np.uint16)]), hnp.array_shapes(min_dims=1, max_dims=3, max_side=12)
)
PERCENT = st.floats(0, 100)


def histogram_of(*parts):
    histogram = Histogram()
    for part in parts:
        histogram.add(part)
    return histogram


@settings(deadline=None, max_examples=200)
@given(PIXELS, PERCENT)
def test_percentiles_are_numpys_to_the_last_bit(pixels, percent):
    assert histogram_of(pixels).percentile(percent) == float(np.percentile(pixels, percent))


@settings(deadline=None, max_examples=100)
@given(PIXELS)
def test_mean_and_sd_are_those_of_the_clipped_data(pixels):
    limits = histogram_of(pixels).limits()
    clipped = np.clip(pixels.astype(np.float64), *np.percentile(pixels, [2, 98]))
    assert limits.mean == pytest.approx(clipped.mean(), rel=1e-12, abs=1e-9)
    assert limits.sd == pytest.approx(clipped.std(), rel=1e-9, abs=1e-9)


def field(filled: float) -> Histogram:
    """Cells of 200 to 1000 counts on a dim ground, where 104 counts are dark; `filled` of all is cells."""
    rng = np.random.default_rng(0)
    n = round(filled * 100_000)
    cells, ground = rng.uniform(200, 1000, n), rng.normal(104, 2, 100_000 - n)
    return histogram_of(np.concatenate([cells, ground]).astype(np.uint16))


@pytest.mark.parametrize("filled", [0.5, 0.2, 0.05])
def test_a_stack_full_of_cells_has_the_limits_of_its_percentiles(filled):
    assert field(filled).own_limits() == field(filled).limits()


@pytest.mark.parametrize("filled", [0.02, 0.015, 0.01])
def test_the_window_of_a_sparse_stack_ends_among_its_cells_and_not_in_the_ground(filled):
    sparse = field(filled)
    own, top = sparse.own_limits(), sparse.percentile(99.8)
    assert own.low == sparse.limits().low
    assert sparse.limits().high < 250
    assert own.high == pytest.approx(own.low + (top - own.low) / 3)
    assert 0 < own.mean - own.low < 0.1 * (own.high - own.low)


def test_a_field_that_is_the_same_everywhere_has_an_empty_window():
    own = histogram_of(np.full(1000, 7, np.uint16)).own_limits()
    assert (own.low, own.high, own.mean, own.sd) == (7, 7, 7, 0)


@settings(deadline=None, max_examples=50)
@given(PIXELS, st.data())
def test_portions_do_not_matter(pixels, data):
    flat = pixels.reshape(-1)
    cut = data.draw(st.integers(0, flat.size))
    merged = histogram_of(flat[:cut])
    merged.merge(histogram_of(flat[cut:]))
    assert merged == histogram_of(flat[:cut], flat[cut:]) == histogram_of(pixels)
    assert merged.n == pixels.size


@settings(deadline=None, max_examples=50)
@given(PIXELS)
def test_bytes_come_back(pixels):
    histogram = histogram_of(pixels)
    assert Histogram.from_bytes(histogram.to_bytes()) == histogram


def test_a_full_histogram_is_small_and_an_empty_one_comes_back():
    full = Histogram(np.arange(1, 65537))
    assert Histogram.from_bytes(full.to_bytes()) == full
    assert len(full.to_bytes()) < 200_000
    assert Histogram.from_bytes(Histogram().to_bytes()) == Histogram()


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=60), st.booleans())
def test_damaged_bytes_are_refused(data, with_header):
    with pytest.raises(StorageError, match="damaged"):
        Histogram.from_bytes(b"SPHI1" + data if with_header else data)


def test_a_cut_histogram_is_refused():
    whole = histogram_of(np.arange(1000, dtype=np.uint16)).to_bytes()
    with pytest.raises(StorageError, match="damaged"):
        Histogram.from_bytes(whole[:-3])


def test_limits_of_nothing_are_refused():
    with pytest.raises(StackError, match="without pixels"):
        Histogram().limits()


@settings(deadline=None, max_examples=100)
@given(PIXELS)
def test_normalising_is_clip_and_z_score(pixels):
    torch = pytest.importorskip("torch")
    limits = histogram_of(pixels).limits()
    out = normalise(pixels, limits)
    assert out.dtype == np.float32
    assert np.isfinite(out).all()
    if limits.sd > 0:
        reference = (np.clip(pixels.astype(np.float64), limits.low, limits.high) - limits.mean) / limits.sd
        assert np.allclose(out, reference, rtol=2e-6, atol=2e-6)
    assert np.array_equal(normalise_torch(torch.from_numpy(pixels), limits).numpy(), out)


def test_a_dim_structure_on_a_bright_background_keeps_its_digits():
    pixels = np.array([60000, 60001, 60002, 60003], np.uint16)
    limits = Limits(60000, 60003, 60001.37, 0.9)
    reference = (pixels - 60001.37) / 0.9
    assert np.allclose(normalise(pixels, limits), reference, rtol=3e-7, atol=0)


def test_a_constant_image_becomes_zero():
    pixels = np.full((4, 5), 700, np.uint16)
    limits = histogram_of(pixels).limits()
    assert limits == Limits(700, 700, 700, 0)
    assert not normalise(pixels + np.arange(5, dtype=np.uint16), limits).any()


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (Limits(100, 300, 200, 50), Limits(100, 300, 200, 50), 0.0),
        (Limits(100, 320, 200, 50), Limits(100, 300, 200, 50), 0.1),
        (Limits(60, 300, 200, 50), Limits(100, 300, 200, 50), 0.2),
        (Limits(100, 300, 210, 50), Limits(100, 300, 200, 50), 0.05),
        (Limits(7, 7, 7, 0), Limits(7, 7, 7, 0), 0.0),
        (Limits(7, 8, 7, 0), Limits(7, 7, 7, 0), math.inf),
    ],
)
def test_moved_is_relative_to_the_new_window(old, new, expected):
    assert moved(old, new) == pytest.approx(expected)
