"""Raw slices made ready for finding their pattern: evened in brightness, faded at the edges, transformed once."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from spheroidd.inference.reconstruction.band_check import LEAST_K, taper
from spheroidd.inference.reconstruction.otf import Floats, FrequencyGrid, Otf
from spheroidd.protocols.errors import StackError
from spheroidd.protocols.sim_pattern import SimPattern

LARGEST_PX = 1024  # of each side: more of the middle of a field does not make a pattern surer
BEYOND = 1.02  # of the cutoff: from there on there is nothing but noise
Plane = NDArray[np.complex64]


@dataclass(frozen=True, slots=True)
class TaperedSlices:
    """`frames` (slice, angle, phase, y, x) float32, and of each slice's mean: transform, and noise power in one bin.

    `guide` (slice, y, x) is the mean filtered for correlation, O notch C_0, in real space. `y_um`, `x_um` count from
    the centre of the whole field; `interior` (y, x) is 0 where it was faded, else 1.
    """

    pattern: SimPattern
    grid: FrequencyGrid
    otf: Otf
    frames: NDArray[np.float32]
    mean: Plane
    noise: Floats
    guide: Plane
    notched: NDArray[np.float32]  # O notch (y, x)
    y_um: Floats
    x_um: Floats
    interior: NDArray[np.float32]
    electrons: float | None
    brightness: Floats  # (angle, phase): each frame's light over the median of its angle's

    @classmethod
    def of(cls, slices: NDArray[Any], pattern: SimPattern, channel: str, pixel_um: float) -> "TaperedSlices":
        """From raw slices (slice, angle, phase, y, x); StackError where one is empty or of another shape."""
        wanted = (pattern.n_angles, pattern.n_phases)
        if slices.ndim != 5 or slices.shape[1:3] != wanted or min(slices.shape) == 0:
            what = f"raw slices are {slices.shape}"
            raise StackError(what, where=channel, do=f"give (slice, angle, phase, y, x) with {wanted} angles, phases")
        optics_otf = Otf(pattern.optics_of(channel), pixel_um)
        rows, columns = (_middle(size) for size in slices.shape[3:])
        part = slices[:, :, :, rows, columns].astype(np.float32) - np.float32(pattern.offset_adu)
        light = part.mean(axis=(3, 4), dtype=np.float64)
        if not (np.isfinite(part).all() and (light.mean(axis=(1, 2)) > 0).all()):
            dark = int(np.argmin(light.mean(axis=(1, 2))))
            do = "choose slices with signal, and see that the camera's offset is right"
            raise StackError(f"slice {dark} of those given has no light above the offset", where=channel, do=do)
        level = light.mean(axis=(1, 2), keepdims=True)
        factors = np.where(light > 0, level / np.maximum(light, 1e-12 * level), 1.0)
        part = part * factors[..., np.newaxis, np.newaxis].astype(np.float32)
        height, width = part.shape[3:]
        window = np.outer(taper(height, height), taper(width, width))
        part = (part - level[..., np.newaxis, np.newaxis].astype(np.float32)) * window
        grid = FrequencyGrid(height, width, pixel_um)
        mean = fft.fft2(part.mean(axis=(1, 2)))
        notched = (optics_otf.at(grid.ky, grid.kx) * notch(grid, optics_otf)).astype(np.float32)
        noise = np.array([outer_power(plane, grid, optics_otf) for plane in mean])
        n_frames = pattern.n_angles * pattern.n_phases
        variance = noise * n_frames / float((window.astype(np.float64) ** 2).sum())
        lit = variance > 0
        electrons = float(np.median(level.ravel()[lit] ** 2 / variance[lit])) if lit.any() else None
        return cls(
            pattern,
            grid,
            optics_otf,
            part,
            mean,
            noise,
            fft.ifft2(mean * notched),
            notched,
            _from_centre(slices.shape[3], rows) * pixel_um,
            _from_centre(slices.shape[4], columns) * pixel_um,
            np.outer(_inside(height), _inside(width)),
            electrons,
            np.median(light / np.median(light, axis=2, keepdims=True), axis=0),
        )

    @property
    def n_slices(self) -> int:
        """How many slices."""
        return len(self.frames)

    def wave(self, frequency_yx: tuple[float, float]) -> Plane:
        """exp(2 pi i f (r - centre)), (y, x)."""
        fy, fx = frequency_yx
        along_y, along_x = np.exp(2j * np.pi * fy * self.y_um), np.exp(2j * np.pi * fx * self.x_um)
        return np.outer(along_y, along_x).astype(np.complex64)


def notch(grid: FrequencyGrid, otf: Otf) -> Floats:
    """0 at zero frequency, 1 from about .15 of the cutoff on: haze and uneven light are left out."""
    radius = np.hypot(grid.ky, grid.kx)
    filled: Floats = 1 - np.exp(-0.5 * (radius / (0.75 * LEAST_K * otf.cutoff_per_um)) ** 2)
    return filled


def outer_power(plane: Plane, grid: FrequencyGrid, otf: Otf) -> float:
    """The mean power of the bins that no light reaches; 0 where there are hardly any."""
    outside = np.hypot(grid.ky, grid.kx) > BEYOND * otf.optics.cutoff_per_um
    if outside.sum() < 30:
        return 0.0
    return float(np.mean(np.abs(plane[outside].astype(np.complex128)) ** 2))


def _middle(size: int) -> slice:
    start = max(size - LARGEST_PX, 0) // 2
    return slice(start, start + min(size, LARGEST_PX))


def _inside(size: int) -> NDArray[np.float32]:
    return (taper(size, size) > 0.9).astype(np.float32)


def _from_centre(size: int, part: slice) -> Floats:
    return np.arange(part.start, part.stop) - (size - 1) / 2
