"""The transforms of one slice's planes, and memory for them. They are torch's: on x86 a third quicker than scipy's."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from spheroidd.inference.preprocessing.jit import kernel

Plane = NDArray[np.complex64]
_LINE_BYTES = 64  # of a cache line


def aligned(*kinds: tuple[Sequence[int], Any]) -> list[NDArray[Any]]:
    """Zeros of each (shape, dtype), whose first number begins a cache line.

    So the same plane is transformed to the same bits wherever it lies. They are one piece of memory: from 4 MB on numpy
    asks the system for large pages, and a slice's planes are thousands of small ones, to be looked up again and again.
    """
    sizes = [math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in kinds]
    starts = np.cumsum([0, *(size + -size % _LINE_BYTES for size in sizes)])
    memory = np.zeros(int(starts[-1]) + _LINE_BYTES, np.uint8)
    memory = memory[-memory.ctypes.data % _LINE_BYTES :]
    return [
        memory[start : start + size].view(dtype).reshape(shape)
        for start, size, (shape, dtype) in zip(starts, sizes, kinds, strict=False)
    ]


def forward(planes: Plane) -> Plane:
    """The transforms of planes (..., y, x); all at once: torch copies what it is told where to put."""
    transformed: Plane = torch.fft.fft2(torch.from_numpy(planes)).numpy()
    return transformed


def inverse(spectrum: Plane, out_shape: tuple[int, int]) -> NDArray[np.float32]:
    """The first corner `out_shape` of the real plane (y, 2 (x - 1)) of a half spectrum (y, x), not divided by its size.

    Its rows are the left parts of whole ones: nothing is copied on the way.
    """
    height, width = out_shape
    between = torch.fft.ifft(torch.from_numpy(spectrum), dim=0, norm="forward")
    rows = torch.fft.irfft(between[:height], n=2 * (spectrum.shape[1] - 1), dim=1, norm="forward")
    image: NDArray[np.float32] = rows.numpy()[:, :width]
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
