"""Shards: a few z-planes of one channel in one file. The only module that knows what the bytes of a shard mean.

A shard is one Zarr v3 shard (codec `sharding_indexed`): a header of our own, the compressed tiles, and the index of
(offset, length) pairs with its crc32c at the end. The header, which Zarr readers skip because no index entry points
at it, says which planes are really there and what their crc32c is: a plane of zeros is never taken for a slice.
"""

import math
import multiprocessing
import struct
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import google_crc32c
import numpy as np
from numcodecs import blosc
from numpy.typing import NDArray

from spheroidd.protocols.errors import StorageError
from spheroidd.protocols.pixels import Pixels

SLAB_Z = 8  # planes: small enough to be written at once, large enough to compress and read well in 3-D
TILE = 200  # pixels: a tile of 8 planes is then 640 kB, which stays in a core's cache
MAX_DEPTH = 64
HEADER_BYTES = 4096  # more than any shard's header
_MAGIC = b"sphslab1"
_FIXED = struct.Struct("<8s16sIIQ")  # magic, stack id, z_start, depth, mask of the planes that are there
_SHUFFLES: dict[str, int] = {"noshuffle": blosc.NOSHUFFLE, "shuffle": blosc.SHUFFLE, "bitshuffle": blosc.BITSHUFFLE}

Rows = Callable[[int, int], Pixels]
"""Gives the rows y_start <= y < y_stop of all planes of a shard: (depth, rows, width)."""


def crc32c(pixels: NDArray[Any] | bytes) -> int:
    """The crc32c of an array's bytes in C order."""
    data = np.ascontiguousarray(pixels) if isinstance(pixels, np.ndarray) else pixels
    return int(google_crc32c.value(data))


def rows_of(planes: Pixels) -> Rows:
    """Rows out of an array (depth, y, x)."""
    return lambda start, stop: planes[:, start:stop]


@dataclass(frozen=True, slots=True)
class ShardCodec:
    """How tiles are compressed: always blosc, which every Zarr v3 reader has."""

    cname: Literal["lz4", "zstd"] = "lz4"
    clevel: int = 1
    shuffle: Literal["noshuffle", "shuffle", "bitshuffle"] = "shuffle"

    def encode(self, tile: Pixels) -> bytes:
        """Compress a C-contiguous tile."""
        encoded: bytes = blosc.compress(
            tile, self.cname.encode(), self.clevel, _SHUFFLES[self.shuffle], typesize=tile.itemsize
        )
        return encoded

    def to_zarr(self, dtype: np.dtype[Any]) -> list[dict[str, Any]]:
        """The codec chain of a tile in Zarr v3 metadata."""
        config = {
            "cname": self.cname,
            "clevel": self.clevel,
            "shuffle": self.shuffle,
            "typesize": dtype.itemsize,
            "blocksize": 0,
        }
        return [_LITTLE_ENDIAN, {"name": "blosc", "configuration": config}]


_LITTLE_ENDIAN: dict[str, Any] = {"name": "bytes", "configuration": {"endian": "little"}}
# Measured on images with shot noise, per core: lz4 with byte shuffle 2.8 GB/s at ratio 1.98, with bit shuffle 0.7 to
# 1.0 GB/s at 2.10, zstd 1 with byte shuffle 0.45 to 0.68 GB/s at 2.43. The camera must never wait for a codec.
IMAGE_CODEC = ShardCodec()
LABEL_CODEC = ShardCodec("zstd", 1, "noshuffle")


@dataclass(frozen=True, slots=True)
class ShardGrid:
    """How a shard of (depth, height, width) is cut into equal tiles (depth, tile_y, tile_x); edge tiles are padded.

    Tiles have even sides wherever there are several, so that 2x2 means never straddle two tiles.
    """

    depth: int
    height: int
    width: int
    tile_y: int
    tile_x: int
    dtype: np.dtype[Any]

    @classmethod
    def fit(cls, height: int, width: int, dtype: np.dtype[Any], depth: int = SLAB_Z) -> "ShardGrid":
        """The grid with tiles of about TILE pixels a side."""
        if not 1 <= depth <= MAX_DEPTH:
            raise ValueError(f"a shard holds 1 to {MAX_DEPTH} planes, not {depth}")
        return cls(depth, height, width, _side(height), _side(width), dtype)

    @property
    def n_y(self) -> int:
        """Tiles from top to bottom."""
        return math.ceil(self.height / self.tile_y)

    @property
    def n_x(self) -> int:
        """Tiles from left to right."""
        return math.ceil(self.width / self.tile_x)

    @property
    def tile_shape(self) -> tuple[int, int, int]:
        """(depth, tile_y, tile_x): Zarr's inner chunk."""
        return self.depth, self.tile_y, self.tile_x

    @property
    def shard_shape(self) -> tuple[int, int, int]:
        """(depth, y, x) with the padding of the edge tiles: Zarr's shard."""
        return self.depth, self.n_y * self.tile_y, self.n_x * self.tile_x


def _side(length: int) -> int:
    count = max(1, round(length / TILE))
    return length if count == 1 else 2 * math.ceil(length / (2 * count))


@dataclass(frozen=True, slots=True)
class ShardHeader:
    """Which planes a shard really holds: {z: crc32c}, z_start <= z < z_start + depth, of the stack with this id."""

    stack_id: bytes
    z_start: int
    depth: int
    crcs: Mapping[int, int]

    def pack(self) -> bytes:
        """The header's bytes, its own crc32c included."""
        mask = sum(1 << (z - self.z_start) for z in self.crcs)
        crcs = (self.crcs.get(self.z_start + i, 0) for i in range(self.depth))
        body = _FIXED.pack(_MAGIC, self.stack_id, self.z_start, self.depth, mask)
        body += struct.pack(f"<{self.depth}I", *crcs)
        return body + struct.pack("<I", crc32c(body))

    @classmethod
    def unpack(cls, data: bytes | memoryview, where: str) -> "ShardHeader":
        """Read a header at the start of a shard; StorageError where it is damaged."""
        if len(data) < _FIXED.size:
            raise _damaged(where, "it is too short")
        magic, stack_id, z_start, depth, mask = _FIXED.unpack_from(data)
        size = _FIXED.size + 4 * depth
        if magic != _MAGIC or depth > MAX_DEPTH or len(data) < size + 4:
            raise _damaged(where, "it does not start with a shard header")
        if struct.unpack_from("<I", data, size)[0] != crc32c(bytes(data[:size])):
            raise _damaged(where, "the header's checksum is wrong")
        crcs = struct.unpack_from(f"<{depth}I", data, _FIXED.size)
        return cls(stack_id, z_start, depth, {z_start + i: crcs[i] for i in range(depth) if mask >> i & 1})


def read_header(path: Path) -> ShardHeader | None:
    """The header of a shard's file, without its pixels; None where there is no such file.

    StorageError where it is damaged; OSError where it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return ShardHeader.unpack(file.read(HEADER_BYTES), str(path))
    except FileNotFoundError:
        return None


def encode_shard(grid: ShardGrid, codec: ShardCodec, header: ShardHeader, rows: Rows) -> Iterator[bytes]:
    """The bytes of a shard's file, part by part; `rows` is asked for each row of tiles once, from top to bottom."""
    head = header.pack()
    yield head
    index = np.empty((grid.n_y * grid.n_x, 2), "<u8")
    tile = np.zeros(grid.tile_shape, grid.dtype)
    offset, number = len(head), 0
    for y in range(0, grid.height, grid.tile_y):
        strip = rows(y, min(y + grid.tile_y, grid.height))
        for x in range(0, grid.width, grid.tile_x):
            part = strip[:, :, x : x + grid.tile_x]
            if part.shape != tile.shape:
                tile[:] = 0
            tile[: part.shape[0], : part.shape[1], : part.shape[2]] = part
            encoded = codec.encode(tile)
            index[number] = offset, len(encoded)
            offset, number = offset + len(encoded), number + 1
            yield encoded
    table = index.tobytes()
    yield table + struct.pack("<I", crc32c(table))


def decode_shard(
    path: Path, grid: ShardGrid, z_start: int = 0, z_stop: int | None = None
) -> tuple[ShardHeader, Pixels]:
    """Read planes z_start <= z < z_stop, counted from the shard's first: its header and the pixels (z, y, x).

    StorageError where the file is damaged; OSError where it cannot be read.
    """
    data = memoryview(path.read_bytes())
    header = ShardHeader.unpack(data, str(path))
    index = _read_index(data, grid, path)
    z_stop = grid.depth if z_stop is None else z_stop
    out = np.empty((z_stop - z_start, grid.height, grid.width), grid.dtype)
    tile = np.empty(grid.tile_shape, grid.dtype)
    for number, (offset, length) in enumerate(index):
        y, x = (n * side for n, side in zip(divmod(number, grid.n_x), (grid.tile_y, grid.tile_x), strict=True))
        _decode_tile(data[offset : offset + length], tile, path)
        target = out[:, y : y + grid.tile_y, x : x + grid.tile_x]
        target[:] = tile[z_start:z_stop, : target.shape[1], : target.shape[2]]
    return header, out


def check_planes(header: ShardHeader, planes: Pixels, first: int, path: Path) -> None:
    """StorageError where full-resolution planes, from the shard's plane `first` on, are not those it was written with.

    Planes that the shard does not hold are not looked at.
    """
    for z, plane in enumerate(planes, start=header.z_start + first):
        if header.crcs.get(z) not in (None, crc32c(plane)):
            raise _damaged(str(path), f"slice {z} has other pixels than it was written with")


def _read_index(data: memoryview, grid: ShardGrid, path: Path) -> list[tuple[int, int]]:
    size = grid.n_y * grid.n_x * 16
    if len(data) < size + 4:
        raise _damaged(str(path), "it is too short")
    table = bytes(data[-size - 4 : -4])
    if struct.unpack("<I", data[-4:])[0] != crc32c(table):
        raise _damaged(str(path), "the index's checksum is wrong")
    return [(int(offset), int(length)) for offset, length in np.frombuffer(table, "<u8").reshape(-1, 2)]


def _decode_tile(encoded: memoryview, tile: Pixels, path: Path) -> None:
    # Blosc's own header declares the size: checked first, so that damaged bytes cannot ask for more memory.
    if len(encoded) < 16 or struct.unpack_from("<I", encoded, 4)[0] != tile.nbytes:
        raise _damaged(str(path), "a tile has the wrong size")
    try:
        blosc.decompress(encoded, tile)
    except RuntimeError as error:
        raise _damaged(str(path), "a tile cannot be decompressed") from error


def _damaged(where: str, why: str) -> StorageError:
    return StorageError(f"the shard is damaged: {why}", where=where, do="check the disk and acquire the stack again")


class Halving:
    """The 2x2 means of planes up to `width` wide, in working memory that is asked for once."""

    def __init__(self, width: int, dtype: np.dtype[Any]) -> None:
        self._bits = 8 * dtype.itemsize
        self._even = np.empty(_BAND * (width + width % 2), dtype)
        # Two neighbours in x are one number of twice the size, so that every pass runs over contiguous memory.
        self._sums = np.empty(self._even.size // 2, f"u{2 * dtype.itemsize}")
        self._rest = np.empty_like(self._sums)

    def __call__(self, planes: Pixels, out: Pixels) -> None:
        """Fill `out` (z, ceil(y/2), ceil(x/2)) from `planes` (z, y, x): rounded half up, an odd edge repeated."""
        for plane, half in zip(planes, out, strict=True):
            for start in range(0, len(plane), _BAND):
                band = plane[start : start + _BAND]
                self._halve(band, half[start // 2 : (start + len(band) + 1) // 2])

    def _halve(self, band: Pixels, out: Pixels) -> None:
        if band.shape[0] % 2 or band.shape[1] % 2 or not band.flags.c_contiguous:
            band = self._made_even(band)
        pairs = band.view(self._sums.dtype)
        sums, rest = (memory[: pairs.size].reshape(pairs.shape) for memory in (self._sums, self._rest))
        np.right_shift(pairs, self._bits, out=sums)
        np.bitwise_and(pairs, (1 << self._bits) - 1, out=rest)
        sums += rest
        total = np.add(sums[0::2], sums[1::2], out=rest[: len(rest) // 2])
        total += 2
        total >>= 2
        out[:] = total

    def _made_even(self, band: Pixels) -> Pixels:
        n_y, n_x = band.shape
        shape = n_y + n_y % 2, n_x + n_x % 2
        even = self._even[: shape[0] * shape[1]].reshape(shape)
        even[:n_y, :n_x] = band
        if n_x % 2:
            even[:n_y, n_x] = band[:, -1]
        if n_y % 2:
            even[n_y] = even[n_y - 1]
        return even


# Rows that are halved at a time: fewer cost more calls, more leave the processor's cache. 256 contiguous rows take 0.16
# CPU seconds a stack, 128 rows of a wider buffer 0.37.
_BAND = 256


def halve(planes: Pixels) -> Pixels:
    """The mean of each 2x2 of pixels of (z, y, x); see Halving."""
    n_z, n_y, n_x = planes.shape
    out = np.empty((n_z, (n_y + 1) // 2, (n_x + 1) // 2), planes.dtype)
    Halving(n_x, planes.dtype)(planes, out)
    return out


def halve_mask(planes: Pixels) -> Pixels:
    """The maximum of each 2x2 of pixels of (z, y, x): an object never vanishes from a coarser level."""
    planes = _even(planes)
    rows = np.maximum(planes[:, 0::2], planes[:, 1::2])
    return np.maximum(rows[:, :, 0::2], rows[:, :, 1::2])


def _even(planes: Pixels) -> Pixels:
    odd = [(0, side % 2) for side in planes.shape[1:]]
    return np.pad(planes, ((0, 0), *odd), mode="edge") if any(pad for _, pad in odd) else planes


def merged_rows(rows: Rows, older: Pixels, held: Set[int]) -> Rows:
    """`rows`, with the planes `held` taken from an older shard (depth, y, x)."""

    def merged(start: int, stop: int) -> Pixels:
        strip = rows(start, stop)
        for plane in held:
            strip[plane] = older[plane, start:stop]
        return strip

    return merged


def halving_rows(rows: Rows, halving: Halving, half: Pixels) -> Rows:
    """`rows`, leaving their 2x2 means in `half` while they are still in the processor's cache."""

    def halved(start: int, stop: int) -> Pixels:
        strip = rows(start, stop)
        halving(strip, half[:, start // 2 : (stop + 1) // 2])
        return strip

    return halved


def lock_without_a_name() -> None:
    """Let blosc make its lock now, and as one that has no name: for a process that may be killed.

    By itself it makes a named semaphore, which a killed process leaves behind, and of which Python's resource tracker
    then complains on the parent's stderr. Locks for forked processes have no name; nothing is forked here. On Windows
    no lock has one that outlives its process.
    """
    if "fork" not in multiprocessing.get_all_start_methods():
        return
    theirs = blosc.multiprocessing  # what it takes its lock from, and nothing else; the program's own is left alone
    blosc.multiprocessing = multiprocessing.get_context("fork")
    try:
        blosc.get_mutex()
    finally:
        blosc.multiprocessing = theirs
