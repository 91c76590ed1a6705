"""The median is right for every input, on every path, at every edge."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from spheroidd.inference.preprocessing.median import (
    JOIN,
    MEDIAN_WIRE,
    PAIR,
    SORT3,
    median3,
    median3_torch,
    median_slice,
    prune,
    run_network,
)
from spheroidd.protocols.errors import StackError

# Shapes around every boundary of the kernel: vectors of 16 or 32 lanes, tiles of 1024 columns, pairs of rows.
SHAPES = [
    (1, 1, 1),
    (2, 1, 3),
    (3, 2, 15),
    (3, 3, 16),
    (2, 5, 33),
    (4, 4, 64),
    (2, 6, 1024),
    (2, 3, 1025),
    (2, 7, 2050),
]
DTYPES = [np.uint8, np.uint16]


def expected(volume):
    return ndimage.median_filter(volume, size=3, mode="nearest")


def words_of_all_inputs(first_word, n_words):
    """Bit k of word w of wire i says what wire i carries for input number 64 w + k."""
    low = [sum(1 << k for k in range(64) if k >> wire & 1) for wire in range(6)]
    numbers = np.arange(first_word, first_word + n_words, dtype=np.uint64)
    ones = np.uint64(0xFFFF_FFFF_FFFF_FFFF)
    words = [np.full(n_words, word, np.uint64) for word in low]
    words += [((numbers >> np.uint64(wire)) & np.uint64(1)) * ones for wire in range(21)]
    return words


def majority_of_27(words):
    """Add the 27 wires with full adders on the bits of five counters, then ask for 14 or more."""
    counters = [np.zeros_like(words[0]) for _ in range(5)]
    for word in words:
        carry = word
        for i, counter in enumerate(counters):
            counters[i], carry = counter ^ carry, counter & carry
    _, two, four, eight, sixteen = counters
    return sixteen | (eight & four & two)


def wrong_inputs(network):
    """How many of the 2^27 binary inputs a network does not give its majority for."""
    wrong, step = 0, 1 << 14
    for first in range(0, 1 << 21, step):
        words = words_of_all_inputs(first, step)
        right = majority_of_27(words)
        run_network(network, words, np.bitwise_and, np.bitwise_or)
        wrong += int(np.bitwise_count(words[MEDIAN_WIRE] ^ right).sum())
    return wrong


def cube_network():
    """The whole median of one cube, nothing shared: wire 9 y + 3 z + x; the median ends on MEDIAN_WIRE."""
    along_z = [[(9 * y + 3 * a + x, 9 * y + 3 * b + x) for a, b in SORT3] for y in range(3) for x in range(3)]
    along_x = [[(9 * y + 3 * z + a, 9 * y + 3 * z + b) for a, b in SORT3] for y in range(3) for z in range(3)]
    pairs = [pair for line in (*along_z, *along_x) for pair in line]
    return prune([*pairs, *PAIR, *JOIN], [MEDIAN_WIRE])


def test_the_network_gives_the_majority_of_all_binary_inputs():
    assert wrong_inputs(cube_network()) == 0


def test_the_proof_would_notice_a_missing_exchange():
    assert wrong_inputs(cube_network()[:-1]) > 0


def test_a_voxel_costs_78_minima_and_maxima():
    cost = {name: sum(e.keep_min + e.keep_max for e in part) for name, part in shared_parts().items()}
    assert cost["z"] + 3 * cost["x"] + cost["pair"] / 2 + cost["join"] == 78


def shared_parts():
    join = prune(JOIN, [MEDIAN_WIRE])
    pair = prune(PAIR, {wire for exchange in join for wire in exchange[:2]} | {MEDIAN_WIRE})
    return {"z": prune(SORT3, range(3)), "x": prune(SORT3, range(3)), "pair": pair, "join": join}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_path_equals_scipy(shape, dtype):
    torch = pytest.importorskip("torch")
    volume = np.random.default_rng(7).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)
    assert np.array_equal(median3(volume), expected(volume))
    assert np.array_equal(median3(volume, threads=2), expected(volume))
    assert np.array_equal(median3_torch(torch.from_numpy(volume), slab=2).numpy(), expected(volume))


@settings(deadline=None, max_examples=60)
@given(
    hnp.arrays(
        st.sampled_from([np.dtype(np.uint8), np.dtype(np.uint16)]),
        st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(1, 40)),
    )
)
def test_wild_volumes_equal_scipy(volume):
    assert np.array_equal(median3(volume), expected(volume))


def test_planes_may_be_read_only_and_strided():
    volume = np.random.default_rng(1).integers(0, 65535, (3, 12, 80), np.uint16)[:, ::2, ::2]
    volume.flags.writeable = False
    out = np.empty((6, 40), np.uint16)
    assert median_slice(volume[0], volume[1], volume[2], out) is out
    assert np.array_equal(out, expected(volume)[1])


@pytest.mark.parametrize("out", [np.zeros((4, 40), np.uint8), np.zeros((4, 80), np.uint16)[:, ::2]])
def test_an_unfit_output_is_refused(out):
    plane = np.zeros((4, 40), np.uint16)
    with pytest.raises(StackError, match="median"):
        median_slice(plane, plane, plane, out)


def test_an_output_that_is_an_input_is_refused():
    plane = np.zeros((4, 40), np.uint16)
    with pytest.raises(StackError, match="own input"):
        median_slice(plane, plane, plane, plane)


def test_signed_pixels_are_refused():
    plane = np.zeros((4, 40), np.int16)
    with pytest.raises(StackError, match="int16"):
        median_slice(plane, plane, plane)
