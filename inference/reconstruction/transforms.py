"""The transforms of one plan's planes, with their working memory: for one thread.

They are torch's, which on x86 are those of Intel's library and take more floats at once than scipy's wheels do.
"""

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from spheroidd.inference.preprocessing.jit import kernel

Plane = NDArray[np.complex64]
_LINE_BYTES = 64  # of a cache line
_ROWS = 160  # transformed at a time, and cut out while they are in the cache


def aligned(shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """Zeros whose first number begins a cache line: the same plane is transformed to the same bits wherever it lies."""
    count = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.zeros(count + _LINE_BYTES, np.uint8)
    start = -memory.ctypes.data % _LINE_BYTES
    numbers: NDArray[Any] = memory[start : start + count].view(dtype)
    return numbers.reshape(shape)


class PlaneTransforms:
    """Of complex planes (`height`, `width`), and back from half spectra of twice as many frequencies along each axis.

    `out_shape` (y, x) is the part of the doubled plane that is asked for; `columns` are those of its half spectrum that
    may hold anything.
    """

    def __init__(self, height: int, width: int, out_shape: tuple[int, int], columns: int) -> None:
        self._out_shape, self._length = out_shape, 2 * width
        self.spectrum: Plane = aligned((2 * height, width + 1), np.complex64)
        """What `inverse` transforms: the half spectrum (2 height, width + 1)."""
        self._filled = torch.from_numpy(self.spectrum)[:, :columns]

    def forward(self, planes: Plane) -> Plane:
        """The transforms of planes (..., height, width); all at once: torch copies what it is told where to put."""
        transformed: Plane = torch.fft.fft2(torch.from_numpy(planes)).numpy()
        return transformed

    def inverse(self) -> NDArray[np.float32]:
        """The real plane `out_shape` of `spectrum`, not divided by its number of pixels."""
        between = torch.fft.ifft(self._filled, dim=0, norm="forward")
        height, width = self._out_shape
        image = np.empty(self._out_shape, np.float32)
        for row in range(0, height, _ROWS):
            rows = torch.fft.irfft(between[row : min(row + _ROWS, height)], n=self._length, dim=1, norm="forward")
            image[row : row + _ROWS] = rows.numpy()[:, :width]
        return image


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
