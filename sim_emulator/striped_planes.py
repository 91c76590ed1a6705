"""A slice under a pattern: the lens blurs it, and pixels of twice the size of a reconstructed one gather it."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spheroidd.sim_emulator.raster import F32, compiled
from spheroidd.sim_emulator.stripes import TruePattern


@dataclass(slots=True)
class StripedPlanes:
    """A slice blurred and gathered by the camera: without a pattern, and by angle times e^(2 pi i f.(r - centre))."""

    plain: F32
    striped: NDArray[np.complex64]

    @classmethod
    def of(cls, sharp: F32, taps: F32, pixel_um: float, pattern: TruePattern) -> "StripedPlanes":
        """From a slice (2y, 2x) that is in focus and not yet blurred along y and x; `taps` are the lens's."""
        height, width = sharp.shape
        both = np.convolve(taps, np.full(2, 0.5)).astype(np.float32)  # the blur, and two pixels gathered by one
        half = len(taps) // 2
        striped = np.empty((len(pattern.angles_deg), height // 2, width // 2), np.complex64)
        still = np.ones(height + 2 * half, np.complex64), np.ones(width + 2 * half, np.complex64)
        rough = np.empty((height // 2, width), np.complex64)
        plain = np.empty((height // 2, width // 2), np.complex64)
        _gather_striped(sharp, both, half, *still, rough, plain)
        for angle, plane in enumerate(striped):
            waves = [
                _wave(length, half, pixel_um, frequency)
                for length, frequency in zip((height, width), pattern.frequency_yx(angle), strict=True)
            ]
            _gather_striped(sharp, both, half, *waves, rough, plane)
        return cls(np.ascontiguousarray(plain.real), striped)

    def frame(self, angle: int, phase_deg: float, modulation: float) -> F32:
        """What one frame has in focus (y, x)."""
        turn = modulation * np.exp(1j * math.radians(phase_deg))
        lit: F32 = self.plain + (self.striped[angle] * np.complex64(turn)).real
        return lit


def _wave(length: int, margin: int, pixel_um: float, frequency_per_um: float) -> NDArray[np.complex64]:
    """e^(2 pi i f x) over a row of pixels and `margin` beyond each of its ends; x counts from the row's centre."""
    places = np.arange(-margin, length + margin, dtype=np.float64) - (length - 1) / 2
    return np.asarray(np.exp(2j * np.pi * frequency_per_um * pixel_um * places), np.complex64)


@compiled
def _gather_striped(
    sharp: F32,
    taps: F32,
    half: int,
    along_y: NDArray[np.complex64],
    along_x: NDArray[np.complex64],
    rough: NDArray[np.complex64],
    out: NDArray[np.complex64],
) -> None:
    """Blur sharp x stripes along y, then x, a camera pixel for each two; the sample's edges are repeated."""
    height, width = sharp.shape
    for j in range(out.shape[0]):
        for i in range(width):
            rough[j, i] = 0
        for t in range(len(taps)):
            place = 2 * j + t - half
            row = min(max(place, 0), height - 1)
            weight = taps[t] * along_y[place + half]
            for i in range(width):
                rough[j, i] += weight * sharp[row, i]
    for j in range(out.shape[0]):
        for i in range(out.shape[1]):
            total = np.complex64(0)
            for t in range(len(taps)):
                place = 2 * i + t - half
                column = min(max(place, 0), width - 1)
                total += taps[t] * along_x[place + half] * rough[j, column]
            out[j, i] = total
