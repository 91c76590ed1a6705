"""Fourier transforms of one plane, eight rows or columns at a time, as vectors.

scipy's wheels know four floats to a vector, and a slice's time is mostly theirs; these take as many as the processor
has, and keep a strip of eight rows or columns in the nearest cache from its first butterfly to its last. The algorithm
is Stockham's of mixed radix (Van Loan, Computational Frameworks for the Fast Fourier Transform, 1992, 1.7) for lengths
of factors 2, 3, 5 and 7. The butterflies are written as LLVM vectors: numba itself makes no vectors of loops whose
places it cannot tell apart. Inside a strip number n lies at 16 n: eight real parts, then eight imaginary ones.

An inverse transform is the forward one with real and imaginary parts exchanged before and after.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic

from spheroidd.inference.preprocessing.jit import kernel

LANES = 8
WIDE = 2 * LANES
RADICES = (4, 2, 3, 5, 7)
LINE_BYTES = 64  # of a cache line
_VECTOR = ir.VectorType(ir.FloatType(), LANES)
_I32, _I64 = ir.IntType(32), ir.IntType(64)
_FUSED = ("contract",)  # a product and a sum may become one instruction
_EVEN, _ODD = (tuple(range(first, WIDE, 2)) for first in (0, 1))
_WOVEN = tuple(tuple(half * LANES // 2 + i // 2 + LANES * (i % 2) for i in range(LANES)) for half in (0, 1))

_Parts = tuple[Any, Any]  # a vector of real and one of imaginary parts


class _Code:
    """Writes instructions on vectors, and on places counted in floats."""

    def __init__(self, context: Any, builder: Any, signature: Any, args: Any) -> None:
        self._builder, self.args = builder, args
        self.arrays = [
            context.make_array(kind)(context, builder, value).data if isinstance(kind, types.Array) else None
            for kind, value in zip(signature.args, args, strict=True)
        ]

    def place(self, start: Any, step: Any = None, times: int = 1, more: int = 0) -> Any:
        """start + times x step + more."""
        if step is not None:
            start = self._builder.add(start, self._builder.mul(step, ir.Constant(_I64, times)))
        return self._builder.add(start, ir.Constant(_I64, more)) if more else start

    def wide(self, count: Any) -> Any:
        """In floats, of a number of places in a strip."""
        return self._builder.mul(count, ir.Constant(_I64, WIDE))

    def load(self, array: Any, place: Any) -> Any:
        return self._builder.load(self._at(array, place), align=4)

    def store(self, vector: Any, array: Any, place: Any) -> None:
        self._builder.store(vector, self._at(array, place), align=4)

    def everywhere(self, array: Any, place: Any) -> Any:
        """One float in all lanes."""
        none = ir.Constant(_VECTOR, ir.Undefined)
        number = self._builder.load(self._builder.gep(array, [place]))
        return self.lanes(self._builder.insert_element(none, number, ir.Constant(_I32, 0)), none, (0,) * LANES)

    def lanes(self, one: Any, other: Any, which: Sequence[int]) -> Any:
        """Those lanes of the 16 of two vectors."""
        return self._builder.shuffle_vector(one, other, ir.Constant(ir.VectorType(_I32, len(which)), list(which)))

    def add(self, one: Any, other: Any) -> Any:
        return self._builder.fadd(one, other, flags=_FUSED)

    def minus(self, one: Any, other: Any) -> Any:
        return self._builder.fsub(one, other, flags=_FUSED)

    def times(self, number: float, vector: Any) -> Any:
        same = ir.Constant(ir.FloatType(), float(np.float32(number)))
        return self.product(ir.Constant(_VECTOR, [same] * LANES), vector)

    def product(self, one: Any, other: Any) -> Any:
        return self._builder.fmul(one, other, flags=_FUSED)

    def transposed(self, rows: Sequence[Any]) -> list[Any]:
        """Eight vectors, whose lane i and vector j change places."""
        rows = list(rows)
        for size in (1, 2, 4):
            low = [lane if not lane & size else lane - size + LANES for lane in range(LANES)]
            high = [lane + size if not lane & size else lane + LANES for lane in range(LANES)]
            for i in range(LANES):
                if not i & size:
                    one, other = rows[i], rows[i | size]
                    rows[i], rows[i | size] = self.lanes(one, other, low), self.lanes(one, other, high)
        return rows

    def _at(self, array: Any, place: Any) -> Any:
        return self._builder.bitcast(self._builder.gep(array, [place]), _VECTOR.as_pointer())


def _moving(write: Callable[[_Code], None]) -> Any:
    """(source, at, step, target, to, gap) for kernels: floats from `source`, to `target`; places count floats."""

    @intrinsic
    def move(typingctx, source, at, step, target, to, gap):  # type: ignore[no-untyped-def]
        number = types.int64
        return types.void(source, number, number, target, number, number), _written(write)

    return move


def _written(write: Callable[[_Code], None]) -> Callable[[Any, Any, Any, Any], Any]:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        write(_Code(context, builder, signature, args))
        return context.get_dummy_value()

    return codegen


def _butterfly(radix: int) -> Any:
    """Numbers at, at + step ... of a strip become numbers to, to + gap ... of another; places count numbers.

    The twiddle factors, by which all but the first are multiplied, begin at `first`.
    """

    def write(code: _Code) -> None:
        source, target, twiddles = (code.arrays[i] for i in (0, 3, 6))
        (at, step, to, gap), first = (code.wide(code.args[i]) for i in (1, 2, 4, 5)), code.args[7]
        places = [code.place(at, step, j) for j in range(radix)]
        parts = [(code.load(source, place), code.load(source, code.place(place, more=LANES))) for place in places]
        for j, (re, im) in enumerate(_small(code, parts)):
            if j:
                c, s = (code.everywhere(twiddles, code.place(first, more=2 * (j - 1) + i)) for i in (0, 1))
                re, im = (
                    code.minus(code.product(re, c), code.product(im, s)),
                    code.add(code.product(re, s), code.product(im, c)),
                )
            code.store(re, target, code.place(to, gap, j))
            code.store(im, target, code.place(to, gap, j, LANES))

    @intrinsic
    def butterfly(typingctx, source, at, step, target, to, gap, twiddles, first):  # type: ignore[no-untyped-def]
        number = types.int64
        return types.void(source, number, number, target, number, number, twiddles, number), _written(write)

    return butterfly


def _small(code: _Code, parts: list[_Parts]) -> list[_Parts]:
    """The transform of a few numbers: halves for an even length; for an odd one sums and differences of j and -j."""
    radix = len(parts)
    if radix == 1:
        return parts
    if radix % 2 == 0:
        even, odd = _small(code, parts[::2]), _small(code, parts[1::2])
        odd = [_turned(code, part, k, radix) for k, part in enumerate(odd)]
        pairs = list(zip(even, odd, strict=True))
        sums = [(code.add(e[0], o[0]), code.add(e[1], o[1])) for e, o in pairs]
        return sums + [(code.minus(e[0], o[0]), code.minus(e[1], o[1])) for e, o in pairs]
    half = range(1, radix // 2 + 1)
    plus = [tuple(code.add(parts[j][i], parts[-j][i]) for i in (0, 1)) for j in half]
    minus = [tuple(code.minus(parts[j][i], parts[-j][i]) for i in (0, 1)) for j in half]
    first = parts[0]
    for pair in plus:
        first = code.add(first[0], pair[0]), code.add(first[1], pair[1])
    found: list[_Parts] = [first] * radix
    for k in half:
        waves = [2 * math.pi * j * k / radix for j in half]
        (re, im), across = parts[0], [code.times(math.sin(waves[0]), minus[0][i]) for i in (0, 1)]
        for j, wave in enumerate(waves):
            re, im = (code.add(part, code.times(math.cos(wave), plus[j][i])) for i, part in enumerate((re, im)))
            if j:
                across = [code.add(part, code.times(math.sin(wave), minus[j][i])) for i, part in enumerate(across)]
        found[k] = code.add(re, across[1]), code.minus(im, across[0])
        found[radix - k] = code.minus(re, across[1]), code.add(im, across[0])
    return found


def _turned(code: _Code, part: _Parts, k: int, n: int) -> _Parts:
    """part x exp(-2 pi i k / n)."""
    re, im = part
    if k == 0:
        return part
    c, s = math.cos(2 * math.pi * k / n), math.sin(2 * math.pi * k / n)
    if 4 * k == n:
        return im, code.times(-1, re)
    return (
        code.add(code.times(c, re), code.times(s, im)),
        code.minus(code.times(c, im), code.times(s, re)),
    )


def _take(code: _Code) -> None:
    """Eight complex numbers into a strip, exchanged."""
    source, at, target, to = code.arrays[0], code.args[1], code.arrays[3], code.args[4]
    low, high = code.load(source, at), code.load(source, code.place(at, more=LANES))
    code.store(code.lanes(low, high, _ODD), target, to)
    code.store(code.lanes(low, high, _EVEN), target, code.place(to, more=LANES))


def _copy(code: _Code) -> None:
    """A number of a strip to elsewhere, its imaginary parts `gap` behind."""
    source, at, target, (to, gap) = code.arrays[0], code.args[1], code.arrays[3], code.args[4:6]
    code.store(code.load(source, at), target, to)
    code.store(code.load(source, code.place(at, more=LANES)), target, code.place(to, gap))


def _put(code: _Code) -> None:
    """A number of a strip becomes eight complex numbers."""
    source, at, target, to = code.arrays[0], code.args[1], code.arrays[3], code.args[4]
    re, im = code.load(source, at), code.load(source, code.place(at, more=LANES))
    for half, which in enumerate(_WOVEN):
        code.store(code.lanes(re, im, which), target, code.place(to, more=half * LANES))


def _enter(code: _Code) -> None:
    """Eight complex numbers of each of eight rows, `step` apart, become eight numbers of a strip."""
    source, (at, step), target, to = code.arrays[0], code.args[1:3], code.arrays[3], code.args[4]
    rows = []
    for j in range(LANES):
        place = code.place(at, step, j)
        rows.append((code.load(source, place), code.load(source, code.place(place, more=LANES))))
    for part, which in enumerate((_EVEN, _ODD)):
        for i, vector in enumerate(code.transposed([code.lanes(low, high, which) for low, high in rows])):
            code.store(vector, target, code.place(to, more=WIDE * i + LANES * part))


def _turn(code: _Code) -> None:
    """Eight floats of each of eight rows, `step` apart, become eight columns, `gap` apart."""
    source, (at, step), target, (to, gap) = code.arrays[0], code.args[1:3], code.arrays[3], code.args[4:6]
    rows = [code.load(source, code.place(at, step, j)) for j in range(LANES)]
    for i, vector in enumerate(code.transposed(rows)):
        code.store(vector, target, code.place(to, gap, i))


def _enter_two(code: _Code) -> None:
    """Eight numbers of the half spectra A and B, each of eight rows, into a strip as A + i B, exchanged.

    A row's numbers lie in blocks of eight imaginary and eight real parts; rows are `step` apart, those of B behind
    those of A. `gap` is where the strip ends: number k goes to k and, conjugated in A and B, that far from the end.
    """
    source, (at, step), target, (to, end) = code.arrays[0], code.args[1:3], code.arrays[3], code.args[4:6]
    parts = []
    for part in range(4):
        starts = [code.place(at, step, j + LANES * (part // 2)) for j in range(LANES)]
        rows = [code.load(source, code.place(start, more=LANES * (part % 2))) for start in starts]
        parts.append(code.transposed(rows))
    for i, (a_im, a_re, b_im, b_re) in reversed(list(enumerate(zip(*parts, strict=True)))):
        opposite = code.place(end, to, -1, -WIDE * i)
        code.store(code.minus(b_re, a_im), target, opposite)
        code.store(code.add(a_re, b_im), target, code.place(opposite, more=LANES))
        code.store(code.add(a_im, b_re), target, code.place(to, more=WIDE * i))
        code.store(code.minus(a_re, b_im), target, code.place(to, more=WIDE * i + LANES))


take, copy, put, enter, turn, enter_two = (_moving(one) for one in (_take, _copy, _put, _enter, _turn, _enter_two))
two, three, four, five, seven = (_butterfly(radix) for radix in (2, 3, 4, 5, 7))


@kernel
def _along(a, b, radices, twiddles):  # type: ignore[no-untyped-def]
    """Transforms the eight columns of a strip; the result is in the one of both that is returned."""
    s, m, first = 1, a.size // WIDE, 0
    for radix in radices:
        m //= radix
        for p in range(m):
            for q in range(s):
                at, to = q + s * p, q + s * radix * p
                if radix == 4:
                    four(a, at, s * m, b, to, s, twiddles, first)
                elif radix == 2:
                    two(a, at, s * m, b, to, s, twiddles, first)
                elif radix == 3:
                    three(a, at, s * m, b, to, s, twiddles, first)
                elif radix == 5:
                    five(a, at, s * m, b, to, s, twiddles, first)
                else:
                    seven(a, at, s * m, b, to, s, twiddles, first)
            first += 2 * (radix - 1)
        s *= radix
        a, b = b, a
    return a


@kernel
def forward(plane, out, middle, strips, rows, columns):  # type: ignore[no-untyped-def]
    """out = the transform of plane, both (y, 2 x) float32, of real and imaginary parts in turn.

    `middle` (x, 2, y) holds what was transformed along x. `rows`, `columns`: radices and twiddle factors by length.
    Where eight do not go into a length, the last eight overlap those before.
    """
    height, width = plane.shape[0], plane.shape[1] // 2
    given, found, between = plane.reshape(-1), out.reshape(-1), middle.reshape(-1)
    near, far = strips[0, : WIDE * width], strips[1, : WIDE * width]
    for block in range((height + LANES - 1) // LANES):
        y = min(block * LANES, height - LANES)
        for part in range((width + LANES - 1) // LANES):
            x = min(part * LANES, width - LANES)
            enter(given, 2 * (y * width + x), 2 * width, near, WIDE * x, 0)
        done = _along(near, far, rows[0], rows[1])
        for x in range(width):
            copy(done, WIDE * x, 0, between, 2 * x * height + y, height)
    near, far = strips[0, : WIDE * height], strips[1, : WIDE * height]
    for block in range((width + LANES - 1) // LANES):
        x = min(block * LANES, width - LANES)
        for part in range((height + LANES - 1) // LANES):
            y = min(part * LANES, height - LANES)
            turn(between, 2 * x * height + y, 2 * height, near, WIDE * y, WIDE)
            turn(between, (2 * x + 1) * height + y, 2 * height, near, WIDE * y + LANES, WIDE)
        done = _along(near, far, columns[0], columns[1])
        for y in range(height):
            put(done, WIDE * y, 0, found, 2 * (y * width + x), 0)


@kernel
def inverse(spectrum, count, width, image, middle, strips, rows, columns):  # type: ignore[no-untyped-def]
    """image = the real plane (y, x) of the half spectrum (2 Ny, 2 x) float32, whose columns from `count` on are 0.

    Not divided by its number of pixels. `image` may be smaller than 2 Ny x `width`: it is the plane's first corner.
    `middle` (y, x / 8, 2, 8) holds what was transformed along y.
    """
    height, stride, wide = spectrum.shape[0], spectrum.shape[1], 2 * middle.shape[1] * LANES
    given, found, between = spectrum.reshape(-1), image.reshape(-1), middle.reshape(-1)
    out_height, out_width = image.shape
    blocks = (count + LANES - 1) // LANES
    near, far = strips[0, : WIDE * height], strips[1, : WIDE * height]
    for block in range(blocks):
        for y in range(height):
            take(given, y * stride + block * WIDE, 0, near, WIDE * y, 0)
        done = _along(near, far, columns[0], columns[1])
        for y in range(out_height):
            copy(done, WIDE * y, 0, between, y * wide + block * WIDE, LANES)
    near, far = strips[0, : WIDE * width], strips[1, : WIDE * width]
    for block in range((out_height + WIDE - 1) // WIDE):
        y = min(block * WIDE, out_height - WIDE)
        near[:] = 0
        for part in range(blocks - 1, -1, -1):
            enter_two(between, y * wide + part * WIDE, wide, strips[0], part * WIDE * LANES, WIDE * width)
        done = _along(near, far, rows[0], rows[1])
        for part in range((out_width + LANES - 1) // LANES):
            x = min(part * LANES, out_width - LANES)
            turn(done, WIDE * x + LANES, WIDE, found, y * out_width + x, out_width)
            turn(done, WIDE * x, WIDE, found, (y + LANES) * out_width + x, out_width)


@kernel
def part_pair(both, mean, faded):  # type: ignore[no-untyped-def]
    """From the transform of mean + i faded, two real planes, the half planes (y, x / 2 + 1) of each."""
    height, width = both.shape
    half = np.float32(0.5)
    for y in range(height):
        row, opposite, plain, other = both[y], both[(height - y) % height], mean[y], faded[y]
        for x in range(plain.size):
            a, b = row[x], opposite[np.uint64(width - x) if x else np.uint64(0)]
            plain[x] = complex(half * (a.real + b.real), half * (a.imag - b.imag))
            other[x] = complex(half * (a.imag + b.imag), half * (b.real - a.real))
