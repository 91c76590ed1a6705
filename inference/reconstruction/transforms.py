"""The transforms of one plan's planes, with their working memory: for one thread. `butterflies.py` holds the loops."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spheroidd.inference.reconstruction import butterflies
from spheroidd.inference.reconstruction.butterflies import LANES, LINE_BYTES, RADICES, WIDE

Plane = NDArray[np.complex64]


def aligned(shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """Zeros whose first number begins a cache line: a vector that lies across two costs twice."""
    count = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.zeros(count + LINE_BYTES, np.uint8)
    start = -memory.ctypes.data % LINE_BYTES
    numbers: NDArray[Any] = memory[start : start + count].view(dtype)
    return numbers.reshape(shape)


class PlaneTransforms:
    """Of complex planes (`height`, `width`), and back from half spectra of twice as many frequencies along each axis.

    Lengths are of factors up to 7 and at least 16. `out_shape` (y, x), at least 16 too, is the part of the doubled
    plane that is asked for; `columns` are those of its half spectrum that may hold anything.
    """

    def __init__(self, height: int, width: int, out_shape: tuple[int, int], columns: int) -> None:
        self._width, self._out_shape, self._columns = width, out_shape, columns
        self._rows, self._down = _tables(width), _tables(height)
        self._fine_rows, self._fine_down = _tables(2 * width), _tables(2 * height)
        self._strips = aligned((2, WIDE * (2 * max(height, width) + LANES)), np.float32)
        self._middle = aligned((width, 2, height), np.float32)
        blocks = -(-(width + 1) // LANES)
        self._fine_middle = aligned((out_shape[0], blocks, 2, LANES), np.float32)
        self.spectrum: Plane = aligned((2 * height, blocks * LANES), np.complex64)
        """What `inverse` transforms: the half spectrum (2 height, width + 1), and some columns that are 0."""

    def forward(self, plane: Plane, out: Plane) -> None:
        """out = the transform of plane; both may be the same."""
        planes = plane.view(np.float32), out.view(np.float32)
        butterflies.forward(*planes, self._middle, self._strips, self._rows, self._down)

    def inverse(self) -> NDArray[np.float32]:
        """The real plane `out_shape` of `spectrum`, not divided by its number of pixels."""
        image = np.empty(self._out_shape, np.float32)
        butterflies.inverse(
            self.spectrum.view(np.float32),
            self._columns,
            2 * self._width,
            image,
            self._fine_middle,
            self._strips,
            self._fine_rows,
            self._fine_down,
        )
        return image


def _tables(length: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The radices of a length, and exp(-2 pi i p j / n) of every step, as `butterflies` reads them."""
    radices, left = [], length
    for radix in RADICES:
        while left % radix == 0:
            radices.append(radix)
            left //= radix
    if left > 1:
        raise ValueError(f"a length of {length} has other factors than 2, 3, 5 and 7")
    factors, left = [], length
    for radix in radices:
        left //= radix
        turns = np.outer(np.arange(left), np.arange(1, radix)) / (radix * left)
        factors.append(np.exp(-2j * np.pi * turns).ravel().view(np.float64))
    return np.array(radices, np.int64), np.concatenate(factors).astype(np.float32)
