import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from spheroidd.acquisition.store.shard import (
    ShardCodec,
    ShardGrid,
    ShardHeader,
    crc32c,
    decode_shard,
    encode_shard,
    halve,
    halve_mask,
    rows_of,
)
from spheroidd.protocols.errors import StorageError

planes = hnp.arrays(
    st.sampled_from([np.dtype("uint8"), np.dtype("uint16")]),
    st.tuples(st.integers(1, 3), st.integers(1, 7), st.integers(1, 7)),
)


def quads(array):
    even = np.pad(array, [(0, 0), *[(0, side % 2) for side in array.shape[1:]]], mode="edge").astype(int)
    z, y, x = even.shape
    return even.reshape(z, y // 2, 2, x // 2, 2)


@settings(deadline=None)
@given(planes)
def test_halving_is_the_rounded_mean_of_four(array):
    half = halve(array)
    assert half.dtype == array.dtype
    np.testing.assert_array_equal(half, (quads(array).sum((2, 4)) + 2) // 4)


@settings(deadline=None)
@given(planes)
def test_halved_mask_is_the_maximum_of_four(array):
    np.testing.assert_array_equal(halve_mask(array), quads(array).max((2, 4)))


def test_halving_works_band_by_band():
    array = np.random.default_rng(0).integers(0, 65536, (2, 301, 259)).astype(np.uint16)
    np.testing.assert_array_equal(halve(array), (quads(array).sum((2, 4)) + 2) // 4)


@settings(deadline=None)
@given(height=st.integers(1, 5000), width=st.integers(1, 5000))
def test_tiles_cover_every_plane_evenly(height, width):
    grid = ShardGrid.fit(height, width, np.dtype("uint16"))
    _, y, x = grid.shard_shape
    assert (y % grid.tile_y, x % grid.tile_x) == (0, 0)
    assert height <= y < height + grid.tile_y
    assert width <= x < width + grid.tile_x
    assert max(grid.tile_y, grid.tile_x) <= 300
    assert grid.n_y == 1 or grid.tile_y % 2 == 0


@settings(deadline=None)
@given(
    z_start=st.integers(0, 10**6),
    crcs=st.dictionaries(st.integers(0, 7), st.integers(0, 2**32 - 1), max_size=8),
    stack_id=st.binary(min_size=16, max_size=16),
)
def test_header_round_trips(z_start, crcs, stack_id):
    header = ShardHeader(stack_id, z_start, 8, {z_start + z: crc for z, crc in crcs.items()})
    assert ShardHeader.unpack(header.pack() + b"tiles", "here") == header


@pytest.fixture
def shard(tmp_path):
    grid = ShardGrid.fit(50, 60, np.dtype("uint16"), depth=3)
    pixels = np.random.default_rng(0).integers(0, 999, (3, 50, 60)).astype(np.uint16)
    header = ShardHeader(bytes(16), 6, 3, {6 + z: crc32c(plane) for z, plane in enumerate(pixels)})
    path = tmp_path / "shard"
    path.write_bytes(b"".join(encode_shard(grid, ShardCodec(), header, rows_of(pixels))))
    return path, grid, header, pixels


def test_shard_round_trips(shard):
    path, grid, header, pixels = shard
    found, read = decode_shard(path, grid)
    assert found == header
    np.testing.assert_array_equal(read, pixels)
    np.testing.assert_array_equal(decode_shard(path, grid, 1, 2)[1], pixels[1:2])


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_cut_or_altered_shard_never_reads_as_another_one(shard_bytes, data):
    """Whatever happens to the file: the same pixels, or StorageError, or pixels that the header's checksums refuse."""
    content, grid, header, pixels, path = shard_bytes
    damaged = bytearray(content)
    if data.draw(st.booleans()):
        damaged = damaged[: data.draw(st.integers(0, len(content) - 1))]
    else:
        damaged[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(damaged)
    try:
        found, read = decode_shard(path, grid)
    except StorageError:
        return
    assert found == header
    crcs = {z: crc32c(read[z - 6]) for z in header.crcs}
    assert (crcs == dict(header.crcs)) == np.array_equal(read, pixels)


@pytest.fixture(scope="module")
def shard_bytes(tmp_path_factory):
    grid = ShardGrid.fit(20, 30, np.dtype("uint16"), depth=3)
    pixels = np.random.default_rng(0).integers(0, 999, (3, 20, 30)).astype(np.uint16)
    header = ShardHeader(bytes(16), 6, 3, {6 + z: crc32c(plane) for z, plane in enumerate(pixels)})
    content = b"".join(encode_shard(grid, ShardCodec(), header, rows_of(pixels)))
    return content, grid, header, pixels, tmp_path_factory.mktemp("shard") / "shard"


@pytest.mark.skipif(os.name == "nt", reason="on Windows no lock outlives its process")
@pytest.mark.parametrize(("call", "named"), [("shard.lock_without_a_name()", False), ("pass", True)])
def test_a_killed_process_leaves_no_lock_behind_where_it_asked_for_one_without_a_name(call: str, named: bool) -> None:
    script = f"""
import multiprocessing
from multiprocessing import resource_tracker
import numpy as np
from spheroidd.acquisition.store import shard
multiprocessing.set_start_method("spawn")
{call}
shard.ShardCodec().encode(np.zeros((8, 8), np.uint16))
print(resource_tracker._resource_tracker._pid is not None, multiprocessing.get_start_method())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split() == [str(named), "spawn"]
