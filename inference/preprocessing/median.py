"""The exact 3x3x3 median, from one list of compare-exchanges. Nothing else here knows how a median is found.

A median of 27 needs no full sort. Sort the three values along z at every pixel (shared by the nine medians that use
them), then along x (shared by three); rows y and y+1, which two medians share, are merged first (PAIR), and each joins
its third row last (JOIN). Values that can no longer be the median are dropped on the way: 78 minima and maxima a voxel.
PAIR and JOIN came from a beam search over the 0-1 states of the sorted cube; by the 0-1 principle (Knuth, TAOCP 3,
5.3.4) the whole list is right for all values once it is right for all 2^27 binary inputs, which a test checks.

The same list makes the CPU kernel (numba, explicit vectors of 32 bytes) and the torch kernel (any device).
At the edges of the volume the nearest voxel is repeated, as in scipy's `mode="nearest"`.
"""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from spheroidd.inference.preprocessing.jit import kernel
from spheroidd.protocols.errors import StackError
from spheroidd.protocols.pixels import Pixels

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
Pairs = tuple[tuple[int, int], ...]  # (a, b): the smaller value goes to wire a, the larger to wire b

# The wires of one median: 0-8 the nine values of row y (z rank, x rank), 9-17 those of row y+1, 18-26 the third row.
SORT3: Pairs = ((0, 1), (1, 2), (0, 1))
PAIR: Pairs = (
    (0, 9),
    (1, 10),
    (2, 11),
    (3, 12),
    (4, 13),
    (5, 14),
    (6, 15),
    (7, 16),
    (8, 17),
    (10, 12),
    (1, 3),
    (8, 16),
    (11, 15),
    (2, 6),
    (5, 7),
    (8, 14),
    (3, 9),
    (7, 13),
    (6, 12),
    (5, 11),
    (4, 10),
    (5, 10),
    (2, 9),
    (7, 12),
    (8, 15),
    (13, 15),
    (2, 4),
    (8, 11),
    (8, 12),
    (7, 10),
    (6, 9),
    (5, 9),
    (8, 10),
    (7, 9),
)
JOIN: Pairs = (
    (13, 20),
    (5, 24),
    (12, 24),
    (8, 19),
    (4, 13),
    (10, 22),
    (19, 25),
    (9, 21),
    (7, 10),
    (21, 23),
    (12, 21),
    (6, 12),
    (10, 26),
    (10, 18),
    (11, 21),
    (13, 18),
    (12, 13),
    (11, 18),
    (13, 19),
    (11, 13),
    (13, 19),
)
MEDIAN_WIRE = 13


class Exchange(NamedTuple):
    """One compare-exchange of wires low and high; an output that nothing reads later is not computed."""

    low: int
    high: int
    keep_min: bool
    keep_max: bool


def prune(pairs: Sequence[tuple[int, int]], wanted: Iterable[int]) -> tuple[Exchange, ...]:
    """Keep of a list of compare-exchanges only the minima and maxima on which the wanted wires depend."""
    live, kept = set(wanted), []
    for low, high in reversed(pairs):
        if low in live or high in live:
            kept.append(Exchange(low, high, low in live, high in live))
            live |= {low, high}
    return tuple(reversed(kept))


def run_network(
    network: Iterable[Exchange], wires: list[T], minimum: Callable[[T, T], T], maximum: Callable[[T, T], T]
) -> None:
    """Run the exchanges on the wires, in place, whatever they hold: arrays, tensors, or values of code being made."""
    for low, high, keep_min, keep_max in network:
        a, b = wires[low], wires[high]
        if keep_min:
            wires[low] = minimum(a, b)
        if keep_max:
            wires[high] = maximum(a, b)


SORT3_NETWORK = prune(SORT3, range(3))
JOIN_NETWORK = prune(JOIN, [MEDIAN_WIRE])
PAIR_NETWORK = prune(PAIR, {wire for exchange in JOIN_NETWORK for wire in exchange[:2]} | {MEDIAN_WIRE})


# --- CPU: numba -------------------------------------------------------------------------------------------------------

_VECTOR_BYTES = 32  # AVX2; LLVM splits it in two where vectors are shorter
_TILE = 1024  # columns; long rows suit the prefetcher more than short ones suit the L1 cache (+40 % over 256)
_RANK = _TILE + _VECTOR_BYTES  # one rank of a tile's row, and room for a last vector that is not full
_LINE = _RANK + 3 * _VECTOR_BYTES  # the same before it is sorted along x: with its neighbours on both sides
_ROW = 9 * _RANK


class _Vectors:
    """Emits loads, stores, minima and maxima of 32-byte vectors into the function that numba is building."""

    def __init__(self, context: Any, builder: Any, item: Any) -> None:
        self.context, self.builder = context, builder
        self.scalar = context.get_data_type(item)
        self.bytes = item.bitwidth // 8
        self.vector = ir.VectorType(self.scalar, _VECTOR_BYTES // self.bytes)
        binary = ir.FunctionType(self.vector, [self.vector, self.vector])
        suffix = f"v{self.vector.count}i{item.bitwidth}"
        self._min = cgutils.get_or_insert_function(builder.module, binary, f"llvm.umin.{suffix}")  # type: ignore[no-untyped-call]
        self._max = cgutils.get_or_insert_function(builder.module, binary, f"llvm.umax.{suffix}")  # type: ignore[no-untyped-call]

    def _pointer(self, array_type: Any, array: Any, index: Any) -> Any:
        data = self.context.make_array(array_type)(self.context, self.builder, array).data
        return self.builder.bitcast(self.builder.gep(data, [index]), self.vector.as_pointer())

    def offset(self, index: Any, add: int) -> Any:
        return self.builder.add(index, ir.Constant(index.type, add))

    def load(self, array_type: Any, array: Any, index: Any) -> Any:
        return self.builder.load(self._pointer(array_type, array, index), align=self.bytes)

    def store(self, value: Any, array_type: Any, array: Any, index: Any) -> None:
        self.builder.store(value, self._pointer(array_type, array, index), align=self.bytes)

    def minimum(self, a: Any, b: Any) -> Any:
        return self.builder.call(self._min, [a, b])

    def maximum(self, a: Any, b: Any) -> Any:
        return self.builder.call(self._max, [a, b])


@intrinsic
def _sort_along_z(typing, below, here, above, pixel, lines, column):  # type: ignore[no-untyped-def]
    """lines[rank][column...] = the sorted values of three planes from a flat pixel index on, one vector wide."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        *planes, pixel_, lines_, column_ = values
        code = _Vectors(context, builder, below.dtype)
        wires = [code.load(kind, plane, pixel_) for kind, plane in zip(signature.args[:3], planes, strict=True)]
        run_network(SORT3_NETWORK, wires, code.minimum, code.maximum)
        for rank, wire in enumerate(wires):
            code.store(wire, lines, lines_, code.offset(column_, rank * _LINE))
        return context.get_dummy_value()

    return types.void(below, here, above, pixel, lines, column), generate


@intrinsic
def _sort_along_x(typing, lines, column, ranks, start):  # type: ignore[no-untyped-def]
    """ranks[start + nine ranks] = each line sorted with its neighbours, one vector wide."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        lines_, column_, ranks_, start_ = values
        code = _Vectors(context, builder, lines.dtype)
        for z in range(3):
            wires = [code.load(lines, lines_, code.offset(column_, z * _LINE + x)) for x in range(3)]
            run_network(SORT3_NETWORK, wires, code.minimum, code.maximum)
            for x, wire in enumerate(wires):
                code.store(wire, ranks, ranks_, code.offset(start_, (3 * z + x) * _RANK))
        return context.get_dummy_value()

    return types.void(lines, column, ranks, start), generate


@intrinsic
def _merge_rows(typing, ranks, rows, column, out, first, second):  # type: ignore[no-untyped-def]
    """out[first...] and out[second...] = the medians of two rows, given where the ranks of the four rows start."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        ranks_, rows_, column_, out_, *targets = values
        code = _Vectors(context, builder, ranks.dtype)
        starts = cgutils.unpack_tuple(builder, rows_)  # type: ignore[no-untyped-call]
        before, row, after, last = (builder.add(start, column_) for start in starts)

        def load(start: Any) -> list[Any]:
            return [code.load(ranks, ranks_, code.offset(start, rank * _RANK)) for rank in range(9)]

        pair = [*load(row), *load(after)]
        run_network(PAIR_NETWORK, pair, code.minimum, code.maximum)
        for third, target in zip((before, last), targets, strict=True):
            wires = [*pair, *load(third)]
            run_network(JOIN_NETWORK, wires, code.minimum, code.maximum)
            code.store(wires[MEDIAN_WIRE], out, out_, target)
        return context.get_dummy_value()

    return types.void(ranks, rows, column, out, first, second), generate


@kernel
def _clamped(index, stop):  # type: ignore[no-untyped-def]
    return min(max(index, 0), stop - 1)


@kernel
def _sort_row(below, here, above, row, x0, x1, width, lines, ranks, start):  # type: ignore[no-untyped-def]
    """Fill one row's nine ranks for the columns x0 to x1; past the image's sides the nearest pixel is repeated."""
    lanes = _VECTOR_BYTES // lines.itemsize
    first = lanes + 1 - x0  # where column 0 of the image would stand in `lines`
    for x in range(max(x0 - 1, 0), min(x1 + 1, width), lanes):
        inside = min(x, width - lanes)  # the last vector overlaps the one before
        _sort_along_z(below, here, above, row * width + inside, lines, first + inside)  # type: ignore[call-arg]
    for rank in range(3):
        line = lines[rank * _LINE : (rank + 1) * _LINE]
        if x0 == 0:
            line[first - 1] = line[first]
        if x1 == width:
            line[first + width] = line[first + width - 1]
    for column in range(0, x1 - x0, lanes):
        _sort_along_x(lines, lanes + column, ranks, start + column)  # type: ignore[call-arg]


@kernel
def _median_plane(below, here, above, out, height, width):  # type: ignore[no-untyped-def]
    """One plane's medians, all arrays flat; tiles of columns keep the sorted rows (80 KB) in the L2 cache."""
    lanes = _VECTOR_BYTES // here.itemsize
    lines = np.empty(3 * _LINE, here.dtype)
    ranks = np.empty(4 * _ROW, here.dtype)
    ends = np.empty(2 * lanes, here.dtype)
    n_tiles = (width + _TILE - 1) // _TILE
    tile = (width + n_tiles * lanes - 1) // (n_tiles * lanes) * lanes
    for x0 in range(0, width, tile):
        x1 = min(x0 + tile, width)
        _sort_row(below, here, above, 0, x0, x1, width, lines, ranks, 0)
        for y in range(0, height, 2):
            for row in range(y + 1, min(y + 3, height)):
                _sort_row(below, here, above, row, x0, x1, width, lines, ranks, row % 4 * _ROW)
            rows = (
                _clamped(y - 1, height) % 4 * _ROW,
                y % 4 * _ROW,
                _clamped(y + 1, height) % 4 * _ROW,
                _clamped(y + 2, height) % 4 * _ROW,
            )
            for column in range(0, x1 - x0, lanes):
                pixel = y * width + x0 + column
                if x0 + column + lanes <= x1 and y + 1 < height:
                    _merge_rows(ranks, rows, column, out, pixel, pixel + width)  # type: ignore[call-arg]
                else:
                    _merge_rows(ranks, rows, column, ends, 0, lanes)  # type: ignore[call-arg]
                    for lane in range(min(lanes, x1 - x0 - column)):  # type: ignore[unreachable]
                        out[pixel + lane] = ends[lane]
                        if y + 1 < height:
                            out[pixel + width + lane] = ends[lanes + lane]


def median_slice(below: Pixels, here: Pixels, above: Pixels, out: Pixels | None = None) -> Pixels:
    """The medians (y, x) of plane `here` and its neighbours, uint8 or uint16 like them; at a stack's end repeat `here`.

    `out` takes the result where it is given: C-contiguous, and none of the three planes. Releases the GIL.
    """
    if out is None:
        out = np.empty(here.shape, here.dtype)
    if here.dtype not in (np.uint8, np.uint16) or here.ndim != 2:
        raise StackError(f"a median was asked of {here.dtype} {here.shape}", do="give planes of uint8 or uint16")
    if not out.flags.c_contiguous or any(np.may_share_memory(out, plane) for plane in (below, here, above)):
        raise StackError("a median cannot be written over its own input", do="give a C-contiguous plane of its own")
    if any(plane.shape != here.shape or plane.dtype != here.dtype for plane in (below, above, out)):
        raise StackError("the planes of a median differ in shape or dtype", do="give planes of one stack")
    height, width = here.shape
    if width < _VECTOR_BYTES:  # narrower than a vector: repeat the last column, whose medians are thrown away
        wide = [np.pad(plane, ((0, 0), (0, _VECTOR_BYTES)), mode="edge") for plane in (below, here, above)]
        out[:] = median_slice(*wide)[:, :width]
        return out
    _median_plane(_flat(below), _flat(here), _flat(above), out.reshape(-1), height, width)
    return out


def _flat(plane: Pixels) -> Pixels:
    """One read-only contiguous row, whatever the plane was, so that the kernel is compiled once for each dtype."""
    flat = np.ascontiguousarray(plane).reshape(-1)[:]
    flat.flags.writeable = False
    return flat


def median3(volume: Pixels, threads: int = 1) -> Pixels:
    """The 3x3x3 medians of a volume (z, y, x): `median_slice` over all its planes, bit for bit."""
    out = np.empty(volume.shape, volume.dtype)
    last = len(volume) - 1

    def filter_plane(z: int) -> None:
        median_slice(volume[max(z - 1, 0)], volume[z], volume[min(z + 1, last)], out[z])

    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(filter_plane, range(len(volume))):
            pass
    return out


# --- Any device: torch ------------------------------------------------------------------------------------------------


def median3_torch(volume: "torch.Tensor", slab: int = 16) -> "torch.Tensor":
    """The medians of a volume (z, y, x; uint8, uint16 or signed) on its own device: `median3` bit for bit.

    Works on `slab` planes at a time, which takes about 40 times their size in memory.
    """
    import torch

    last = len(volume) - 1
    out = torch.empty_like(volume)
    for start in range(0, len(volume), slab):
        planes = torch.arange(start - 1, min(start + slab, last + 1) + 1, device=volume.device).clamp_(0, last)
        unsigned = volume.dtype is torch.uint16  # torch has no minimum of uint16: shift it to the signed range
        chosen = volume.view(torch.int16)[planes] ^ -32768 if unsigned else volume[planes]
        median = _median_slab(chosen)
        out[start : start + slab] = (median ^ -32768).view(torch.uint16) if unsigned else median
    return out


def _median_slab(planes: "torch.Tensor") -> "torch.Tensor":
    """The medians of all but the first and last plane, from the same lists as the numba kernel."""
    import torch

    def clamped(start: int, stop: int, size: int) -> torch.Tensor:
        return torch.arange(start, stop, device=planes.device).clamp_(0, size - 1)

    _, height, width = planes.shape
    even = height + height % 2
    lines = [planes[:-2], planes[1:-1], planes[2:]]
    run_network(SORT3_NETWORK, lines, torch.minimum, torch.maximum)
    ranks: list[torch.Tensor] = []
    for line in lines:
        padded = line[:, clamped(-1, even + 1, height)][:, :, clamped(-1, width + 1, width)]
        wires = [padded[..., x : x + width] for x in range(3)]
        run_network(SORT3_NETWORK, wires, torch.minimum, torch.maximum)
        ranks += wires
    before, row, after, beyond = ([rank[:, y : y + even : 2] for rank in ranks] for y in range(4))
    pair = [*row, *after]
    run_network(PAIR_NETWORK, pair, torch.minimum, torch.maximum)
    out = torch.empty((len(planes) - 2, even, width), dtype=planes.dtype, device=planes.device)
    for y, third in enumerate((before, beyond)):
        wires = [*pair, *third]
        run_network(JOIN_NETWORK, wires, torch.minimum, torch.maximum)
        out[:, y::2] = wires[MEDIAN_WIRE]
    return out[:, :height]
