"""Where the stripes are: the correlation of a band with the mean over all shifts, in units of its own noise.

A band C_1 holds the sample's spectrum once more, moved by the pattern's frequency f: the correlation
sum C_1(k + f') C_0*(k) has a peak at f' = f. Divided by what noise makes of it at every f' it is exponentially
distributed where there is nothing, and a peak can be told from the largest of many chances; without that division the
inner edge of the search ring wins in two of three cases.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft, optimize, special

from spheroidd.inference.reconstruction.otf import Floats
from spheroidd.inference.reconstruction.tapered import Plane, TaperedSlices

_BLOCKS = 24  # the product is averaged to about so many blocks a side once the peak's bin is known
_SAME_LENGTH = 0.03
_AWAY_BINS = 6
OWN_LOBES = 0.15  # of the frequency: so far around it a few bright things alone make lobes; no other pattern is there
_LN2 = math.log(2)


@dataclass(frozen=True, slots=True)
class Peak:
    """A peak at `frequency_yx` (1/um, of the band itself). `ratio`: peak over median of the ring, as of one slice.

    Sums over several slices are less spread; `ratio` is what one slice would have to show to be as unlikely by chance.
    `second_yx` and `second_ratio` are the largest peak elsewhere of the same length, where the stripes of another angle
    would be. `leak` is the ratio at the negative frequency: what is left there of the conjugate band by phases that are
    not those of the frames; 10 and more by chance in one of 1,000 cases.
    """

    frequency_yx: tuple[float, float]
    ratio: float
    second_yx: tuple[float, float]
    second_ratio: float
    at_edge: bool
    leak: float


@dataclass(frozen=True, slots=True)
class Correlation:
    """One band's correlation with the mean: `products` (slice, y, x) in real space, `chance` (y, x) summed over slices.

    `chance` is exponential with mean 1 for one slice, Gamma distributed for more; `scale` (slice,) turns |sum|^2 into
    it together with `noise` (slice, y, x).
    """

    slices: TaperedSlices
    products: Plane
    chance: Floats
    noise: Floats
    scale: Floats
    ring: NDArray[np.bool_]

    @classmethod
    def of(cls, slices: TaperedSlices, bands: Plane, reach: tuple[float, float]) -> "Correlation":
        """Of real-space bands (slice, y, x); `reach` is the ring that is searched, as shares of the cutoff."""
        spectra = fft.fft2(without_leak(slices, bands))
        products = fft.ifft2(spectra * slices.notched) * slices.guide.conj()
        power = np.abs(fft.fft2(products)).astype(np.float64) ** 2
        guide_power = np.abs(fft.fft2(slices.guide)).astype(np.float64) ** 2
        passed = fft.ifft2(slices.notched.astype(np.float64) ** 2)
        noise = np.maximum(fft.fft2(passed * fft.ifft2(guide_power).conj()).real, 0)
        grid, cutoff = slices.grid, slices.otf.cutoff_per_um
        radius = np.hypot(grid.ky, grid.kx)
        ring = (radius >= reach[0] * cutoff) & (radius <= reach[1] * cutoff)
        ring &= (np.abs(grid.ky) < 0.5 / grid.pixel_um) & (np.abs(grid.kx) < 0.5 / grid.pixel_um)
        floor = 1e-9 * noise.max(axis=(1, 2), keepdims=True)
        share = power / np.maximum(noise, floor)
        scale = np.maximum(np.median(share[:, ring], axis=1), 1e-300) / _LN2
        return cls(slices, products, (share / scale[:, None, None]).sum(axis=0), noise, scale, ring)

    def best(self) -> Peak:
        """The highest peak of the ring, its frequency refined between the bins."""
        grid = self.slices.grid
        inside = np.where(self.ring, self.chance, 0)
        row, column = np.unravel_index(int(np.argmax(inside)), inside.shape)
        start = float(grid.ky[row, 0]), float(grid.kx[0, column])
        found = self.refine(start)
        away = np.hypot((grid.ky - start[0]) / grid.step_y, (grid.kx - start[1]) / grid.step_x) > _AWAY_BINS
        away &= np.hypot(grid.ky - start[0], grid.kx - start[1]) > OWN_LOBES * math.hypot(*start)
        alike = np.abs(np.hypot(grid.ky, grid.kx) / math.hypot(*found) - 1) < _SAME_LENGTH
        other = np.where(away & alike, inside, 0)
        row2, column2 = np.unravel_index(int(np.argmax(other)), other.shape)
        second = float(grid.ky[row2, 0]), float(grid.kx[0, column2])
        rim = self.ring & ~_eroded(self.ring)
        at_edge = bool(rim[row, column])
        second_ratio = self._as_ratio(float(other[row2, column2]))
        leak = self.ratio_at((-found[0], -found[1]))
        return Peak(found, self.ratio_at(found), second, second_ratio, at_edge, leak)

    def ratio_at(self, frequency_yx: tuple[float, float]) -> float:
        """The peak over the median at any frequency, as of one slice."""
        sums = self._sums(self.products, self.slices.y_um, self.slices.x_um, frequency_yx)
        grid = self.slices.grid
        row, column = round(frequency_yx[0] / grid.step_y), round(frequency_yx[1] / grid.step_x)
        noise = np.maximum(self.noise[:, row, column], 1e-9 * self.noise.max(axis=(1, 2)))
        return self._as_ratio(float((np.abs(sums) ** 2 / noise / self.scale).sum()))

    def refine(self, start: tuple[float, float]) -> tuple[float, float]:
        """The frequency near `start` where the slices' correlations, summed up in power, are largest.

        Only the field's interior counts: where it was faded, the filters turn the phase, one way on the left and the
        other on the right, as a lower frequency would (.06 % of it in 128 pixels).
        """
        slices, grid = self.slices, self.slices.grid
        block = max(1, min(grid.height, grid.width) // _BLOCKS)
        moved = self.products * slices.wave(start).conj() * slices.interior
        rows, columns = grid.height // block, grid.width // block
        cut = moved[:, : rows * block, : columns * block]
        blocks = cut.reshape(-1, rows, block, columns, block).mean(axis=(2, 4))
        y = slices.y_um[: rows * block].reshape(rows, block).mean(axis=1)
        x = slices.x_um[: columns * block].reshape(columns, block).mean(axis=1)
        row, column = round(start[0] / grid.step_y), round(start[1] / grid.step_x)
        weight = 1 / (np.maximum(self.noise[:, row, column], 1e-300) * self.scale)

        def loss(bins: Floats) -> float:
            rest = float(bins[0]) * grid.step_y, float(bins[1]) * grid.step_x
            return -float((np.abs(self._sums(blocks, y, x, rest)) ** 2 * weight).sum())

        steps = np.linspace(-1, 1, 9)
        coarse = min(((loss(np.array([a, b])), a, b) for a in steps for b in steps), key=lambda one: one[0])
        options = {"xatol": 1e-5, "fatol": 1e-9 * abs(coarse[0]), "maxiter": 200}
        best = optimize.minimize(loss, np.array(coarse[1:]), method="Nelder-Mead", options=options).x
        return start[0] + float(best[0]) * grid.step_y, start[1] + float(best[1]) * grid.step_x

    @staticmethod
    def _sums(products: Plane, y_um: Floats, x_um: Floats, frequency_yx: tuple[float, float]) -> NDArray[np.complex128]:
        """The discrete-time Fourier transform of every slice's product at one frequency."""
        along_y = np.exp(-2j * np.pi * frequency_yx[0] * y_um)
        along_x = np.exp(-2j * np.pi * frequency_yx[1] * x_um)
        sums: NDArray[np.complex128] = np.einsum("syx,x->sy", products, along_x) @ along_y
        return sums

    def _as_ratio(self, chance: float) -> float:
        """-ln of the probability that a sum of as many slices is so large, over ln 2: peak/median of one slice."""
        n = self.slices.n_slices
        if n == 1:
            return chance / _LN2
        if chance < 600:
            return -math.log(max(float(special.gammaincc(n, chance)), 1e-300)) / _LN2
        return (chance - (n - 1) * math.log(chance) + math.lgamma(n)) / _LN2


def without_leak(slices: TaperedSlices, bands: Plane) -> Plane:
    """The bands less what of the mean leaked into them through uneven light and wrong phases, by least squares."""
    guide = fft.ifft2(slices.mean)
    own = (np.abs(guide) ** 2).sum(axis=(1, 2), keepdims=True)
    share = (bands * guide.conj()).sum(axis=(1, 2), keepdims=True) / np.maximum(own, 1e-30)
    cleaned: Plane = (bands - share * guide).astype(np.complex64)
    return cleaned


def _eroded(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The mask without the bins that have a neighbour outside it."""
    inner = mask.copy()
    for axis in (0, 1):
        for step in (-1, 1):
            inner &= np.roll(mask, step, axis)
    return inner
