"""Is a band's pattern alive in a slice? Where its correlation with the mean is summed, and what the sums decide.

Where both bands overlap, C_1(k + f) O(k) = m C_0(k) O(k + f) but for noise. The sum of their products over the overlap
gives the modulation m and the phase. The same sum at other vectors of the same length, a ring, holds no pattern: their
median says how large noise, haze and structure make it, whatever the camera or an earlier program did to the frames.
Without a pattern R / null is exponentially distributed with mean 1, so `ALIVE` makes a false alarm of e^-21.

The mean enters twice: as it is, and tapered to 0 towards the field's edges. Products are summed with the tapered one,
so that the frame in which one edge goes over into the other does not count.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.fft import next_fast_len

from spheroidd.inference.preprocessing.jit import kernel
from spheroidd.inference.reconstruction.otf import Floats, FrequencyGrid
from spheroidd.protocols.sim_pattern import ALIVE

LEAST_K = 0.08  # of the cutoff: nearer to a band's zero, haze and uneven light outweigh the sample
RING_GAP_DEG = 20.0  # around the pattern's own direction and its opposite
_RING, _RING_ROWS = 40, 40  # vectors of the null; every so manieth row of bins is summed up for them
_RING_KEPT = 36  # the strongest of them, a camera's rows perhaps, do not count
_SHIFTED = 0.3  # weight of O(k + f)^2 beside O(k)^2 in the noise: about m^2 / 2
_RIM = 0.35  # of the largest O(k) O(k + f): below it is little but noise
_FEWEST_BINS = 40
_BOX_STEP = 3  # along each axis: of the filtered mean every so manieth pixel is looked at
_TAPER_PX = 16
# Expected mean of the weakest _RING_KEPT of _RING exponential numbers (order statistics: Renyi, 1953).
_NULL_MEAN = float(np.cumsum(1 / (_RING - np.arange(_RING)))[:_RING_KEPT].mean())


class Overlap(NamedTuple):
    """Bins where the mean and a band overlap: where to read both, and with which weights.

    `mean_at` are flat places in the half plane (y, x // 2 + 1) of the mean's transform, to be conjugated where
    `mirrored`; `band_at` flat places in the full plane of the band's, which has zero in the middle. `product` weighs
    the sum of products, `power` what m is divided by. Equal for every slice.
    """

    mean_at: NDArray[np.int32]
    mirrored: NDArray[np.bool_]
    band_at: NDArray[np.int32]
    product: NDArray[np.float32]
    power: NDArray[np.float32]

    @classmethod
    def at(
        cls,
        grid: FrequencyGrid,
        otf0: Floats,
        otf1: Floats,
        shift: tuple[int, int],
        cutoff: float,
        every: int = 1,
    ) -> "Overlap":
        """Of the mean (OTF `otf0`, full plane) and a band (`otf1`, moved by a fraction of a bin) `shift` bins away."""
        moved = np.roll(otf1, (-shift[0], -shift[1]), axis=(0, 1))  # O(k + f) at the bin of k
        ky, kx = grid.ky, grid.kx
        far_y, far_x = ky + shift[0] * grid.step_y, kx + shift[1] * grid.step_x
        both = otf0 * moved
        far = np.hypot(far_y, far_x)
        both[(np.hypot(ky, kx) < LEAST_K * cutoff) | (far < LEAST_K * cutoff) | (far >= cutoff)] = 0
        rows, columns = np.nonzero(both > _RIM * both.max())
        if every > 1 and len(rows) > every * _FEWEST_BINS:
            rows, columns = rows[rows % every == 0], columns[rows % every == 0]
        here, there = otf0[rows, columns], moved[rows, columns]
        weight = 1 / (here**2 + _SHIFTED * there**2)
        mirrored = columns > grid.width // 2
        half = grid.width // 2 + 1
        own = rows * half + columns
        opposite = -rows % grid.height * half + -columns % grid.width
        band_rows = (rows + shift[0] + grid.height // 2) % grid.height
        band_at = band_rows * grid.width + (columns + shift[1] + grid.width // 2) % grid.width
        return cls(
            np.where(mirrored, opposite, own).astype(np.int32),
            mirrored,
            band_at.astype(np.int32),
            (weight * here * there).astype(np.float32),
            (weight * there**2).astype(np.float32),
        )


@dataclass(frozen=True, slots=True)
class BandState:
    """What is decided of one band in one slice."""

    modulation: float
    contrast: float
    alive: bool
    turn: complex  # the factor that puts the band's phase right

    @classmethod
    def dead(cls) -> "BandState":
        """No frames to tell, or no pattern."""
        return cls(0.0, 0.0, False, 1 + 0j)

    @classmethod
    def decide(cls, sums: Floats, noise_power: float) -> "BandState":
        """From the sums (overlap, 4) of a `Check`, its own first, the ring's behind: see `overlap_sums`.

        `noise_power` is what noise adds to the own power (it would make m too low: .32 for .80 at 10 electrons).
        """
        ratio = float(_ratio_to_null(sums))
        real, imaginary, under, _ = sums[0].tolist()
        power = under - noise_power
        if not (ratio > ALIVE and power > 0):
            return cls(0.0, math.sqrt(ratio), False, 1 + 0j)
        modulation = min(math.hypot(real, imaginary) / power, 1.0)
        phase, sd = math.atan2(imaginary, real), math.sqrt(1 / (2 * ratio))
        turn = complex(math.cos(phase), -math.sin(phase)) if abs(phase) > 3 * sd else 1 + 0j
        return cls(modulation, math.sqrt(ratio), True, turn)


@kernel
def _ratio_to_null(sums):  # type: ignore[no-untyped-def]
    """The first overlap's strength over that of the others without a pattern, each in units of its noise."""
    strengths = np.zeros(len(sums))
    for n in range(len(sums)):
        real, imaginary, spread = sums[n, 0], sums[n, 1], sums[n, 3]
        if spread > 0:
            strengths[n] = (real * real + imaginary * imaginary) / spread
    null = np.sort(strengths[1:])[:_RING_KEPT].mean() / _NULL_MEAN
    return strengths[0] / null if null > 0 else 0.0


def ring_shifts(grid: FrequencyGrid, frequency_yx: tuple[float, float]) -> list[tuple[int, int]]:
    """Whole-bin shifts of the same length, away from the pattern's direction and its opposite."""
    length, own = math.hypot(*frequency_yx), math.degrees(math.atan2(*frequency_yx))
    sweep = np.linspace(RING_GAP_DEG, 180 - RING_GAP_DEG, _RING // 2)
    turns = np.radians(np.concatenate([own + sweep, own + 180 + sweep]))
    ys, xs = np.rint(length * np.sin(turns) / grid.step_y), np.rint(length * np.cos(turns) / grid.step_x)
    return [(int(y), int(x)) for y, x in zip(ys, xs, strict=True)]


class Check(NamedTuple):
    """A band's own overlap and those of the ring behind it: number i from `starts[i]` to `starts[i + 1]`.

    `box_at` are the own bins' flat places in a `box` (y, x), which is a third as large as what they cover: they lie in
    it on top of each other. Transformed back it holds every third pixel along each axis, at the flat places `light_at`
    of the mean plane.
    """

    overlaps: Overlap
    starts: NDArray[np.int64]
    box: tuple[int, int]
    box_at: NDArray[np.int32]
    light_at: NDArray[np.int32]

    @classmethod
    def at(
        cls,
        grid: FrequencyGrid,
        otf0: Floats,
        otf1: Floats,
        shift: tuple[int, int],
        frequency_yx: tuple[float, float],
        cutoff: float,
    ) -> "Check":
        """As `Overlap.at`; of the ring's overlaps only some rows."""
        own = Overlap.at(grid, otf0, otf1, shift, cutoff)
        ring = [Overlap.at(grid, otf0, otf1, at, cutoff, _RING_ROWS) for at in ring_shifts(grid, frequency_yx)]
        parts = [own, *ring]
        starts = np.concatenate([[0], np.cumsum([len(part.mean_at) for part in parts])])
        whole = Overlap(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))
        return cls(whole, starts, *_box(grid, own, shift))

    @property
    def noise_share(self) -> float:
        """The sum of the own overlap's power weights: times the mean's noise, what that adds to the power."""
        return float(self.overlaps.power[: self.starts[1]].sum(dtype=np.float64))


def _box(
    grid: FrequencyGrid, own: Overlap, shift: tuple[int, int]
) -> tuple[tuple[int, int], NDArray[np.int32], NDArray[np.int32]]:
    """A box of fast lengths for the own bins, a third as large as they reach along each axis; their places in it; and
    the field's pixels at the box's.

    Bins that are added up modulo a length give every so manieth pixel of the whole, exactly.
    """
    at, sides = [], []
    for place, size, moved in zip(np.divmod(own.band_at, grid.width), (grid.height, grid.width), shift, strict=True):
        signed = (place - moved) % size
        covered = int(signed.max() - signed.min()) + 1
        sides.append(int(next_fast_len(-(-covered // _BOX_STEP))))
        at.append((signed - signed.min()) % sides[-1])
    pixels = [(np.arange(side) * size) // side for side, size in zip(sides, (grid.height, grid.width), strict=True)]
    light_at = np.add.outer(pixels[0] * grid.width, pixels[1]).ravel()
    return (sides[0], sides[1]), (at[0] * sides[1] + at[1]).astype(np.int32), light_at.astype(np.int32)


def unevenness(filtered: NDArray[Any], light: NDArray[Any]) -> float:
    """By how much photon noise adds to the own sum more than to the ring's, at least 1.

    Noise is strongest where the sample is bright, and there the filtered mean (y, x), which the noise is multiplied
    with, is strongest too; the ring's, of single rows of bins, is spread over the field. `light` is the mean at the
    same pixels.
    """
    bright, level, power = light_under(np.ascontiguousarray(filtered).reshape(-1), np.ascontiguousarray(light))
    return max(bright * len(light) / (level * power), 1.0) if level * power > 0 else 1.0


@kernel
def light_under(filtered, light):  # type: ignore[no-untyped-def]
    """The sums of |filtered|^2 light, of light above 0, and of |filtered|^2, in double precision."""
    bright, level, power = 0.0, 0.0, 0.0
    for i in range(filtered.size):
        value = filtered[i]
        squared, shot = value.real * value.real + value.imag * value.imag, max(light[i], np.float32(0))
        bright += squared * shot
        level += shot
        power += squared
    return bright, level, power


@kernel
def overlap_sums(  # type: ignore[no-untyped-def]
    mean, tapered, band, mean_at, mirrored, band_at, product, power, starts, box_at, sums, box,
):  # fmt: skip
    """sums (overlap, 4) of the flat transforms, in double precision: product (two parts), power, spread.

    The power is that of the own overlap alone, 0 for the ring's: nobody asks for those. The own product x tapered mean
    is added into the flat `box` at `box_at`, too.
    """
    box[:] = 0
    for n in range(sums.shape[0]):
        real, imaginary, under, spread = 0.0, 0.0, 0.0, 0.0
        for i in range(np.uint64(starts[n]), np.uint64(starts[n + 1])):
            t, b, q = tapered[mean_at[i]], band[band_at[i]], product[i]
            t_real, t_imaginary = q * t.real, q * (-t.imag if mirrored[i] else t.imag)
            real += b.real * t_real + b.imag * t_imaginary
            imaginary += b.imag * t_real - b.real * t_imaginary
            spread += t_real * t_real + t_imaginary * t_imaginary
            if n == 0:
                m = mean[mean_at[i]]
                under += power[i] * (m.real * t.real + m.imag * t.imag)
                box[box_at[i]] += complex(t_real, t_imaginary)
        sums[n, 0], sums[n, 1], sums[n, 2], sums[n, 3] = real, imaginary, under, spread


Spectrum = NDArray[np.complex64]


def sums_of(mean: Spectrum, tapered: Spectrum, band: Spectrum, light: NDArray[np.float32], check: Check) -> Floats:
    """`overlap_sums` (overlap, 4) of transforms (the mean's half plane, also tapered, and the band's full one).

    The own spread is that of photon noise, by the mean itself, the flat plane `light`.
    """
    sums = np.empty((len(check.starts) - 1, 4))
    box = np.empty(check.box, np.complex64)
    flat = mean.reshape(-1), tapered.reshape(-1), band.reshape(-1)
    overlap_sums(*flat, *check.overlaps, check.starts, check.box_at, sums, box.reshape(-1))
    sums[0, 3] *= unevenness(fft.ifft2(box, overwrite_x=True), light[check.light_at])
    return sums


def taper(size: int, padded: int) -> NDArray[np.float32]:
    """From 0 at the field's edges to 1 along a half cosine, 0 behind them; (padded,)."""
    reach = max(min(_TAPER_PX, size // 8), 1)
    rise = (1 - np.cos(np.pi * (np.arange(reach) + 0.5) / reach)) / 2
    window = np.zeros(padded, np.float32)
    window[:size] = 1
    window[:reach], window[size - reach : size] = rise, rise[::-1]
    return window
