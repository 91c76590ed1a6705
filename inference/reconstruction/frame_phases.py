"""What phase each frame really has, and how strong the stripes are, once their frequency is known."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from spheroidd.inference.reconstruction.band_check import LEAST_K
from spheroidd.inference.reconstruction.otf import Floats
from spheroidd.inference.reconstruction.tapered import Plane, TaperedSlices, outer_power
from spheroidd.protocols.sim_pattern import FEWEST_PHASES_MEASURED

_ROUNDS = 20
_SHIFTED = 0.3  # as in band_check: the shifted band's share of the noise
_RIM = 0.02  # of the largest O(k) O(k + f)


def step_errors(
    slices: TaperedSlices, angle: int, order: int, frequency_yx: tuple[float, float], nominal_rad: Floats
) -> Floats:
    """By how much each frame's phase of order 1 differs from `nominal_rad` (phase,), mean 0; radians.

    `frequency_yx` is the order's. Each frame correlates with the mean as X_p = c + rho exp(i order phi_p) (Wicker et
    al., Opt. Express 21, 2032, 2013): with three phases c is the mean's own correlation, with more it is fitted.
    """
    wave = slices.wave(frequency_yx)
    guide = fft.ifft2(fft.fft2(slices.guide * wave) * slices.notched)
    frames = slices.frames[:, angle]
    found = np.einsum("spyx,syx->sp", frames, guide.conj(), optimize=True).astype(np.complex128)
    turns = np.exp(1j * order * nominal_rad)
    if len(nominal_rad) < FEWEST_PHASES_MEASURED:
        own = np.einsum("syx,syx->s", fft.ifft2(slices.mean), guide.conj(), optimize=True)
        points = found - own[:, np.newaxis]
        strength = points @ turns.conj()
        return _deviation((strength.conj()[:, np.newaxis] * points).sum(axis=0), turns) / order
    errors = np.zeros(len(nominal_rad))
    for _ in range(_ROUNDS):
        now = turns * np.exp(1j * order * errors)
        columns = np.stack([np.ones_like(now), now], axis=1)
        centre, strength = np.linalg.lstsq(columns, found.T, rcond=None)[0]
        points = found - centre[:, np.newaxis]
        errors = _deviation((strength.conj()[:, np.newaxis] * points).sum(axis=0), turns) / order
    return errors


def _deviation(points: NDArray[np.complex128], turns: NDArray[np.complex128]) -> Floats:
    """The angles of points against those of turns, their common part taken out."""
    relative = points * turns.conj()
    relative = relative * np.exp(-1j * np.angle(relative.sum()))
    deviations: Floats = np.angle(relative)
    deviations -= deviations.mean()
    return deviations


class BandFit(NamedTuple):
    """A band's modulation with its standard error, its phase (radians), and how alike its phases are in all slices."""

    modulation: float
    modulation_sd: float
    phase_rad: float
    coherence: float


def fit_band(slices: TaperedSlices, bands: Plane, frequency_yx: tuple[float, float]) -> BandFit:
    """Regress a band (slice, y, x) on the mean where both are known: C_1(k + f) O(k) = m exp(i psi) C_0(k) O(k + f).

    Weights are those of maximum likelihood; the noise in |C_0|^2 is taken out (it made m .32 for .80 at 10 electrons).
    """
    grid, otf = slices.grid, slices.otf
    fy, fx = frequency_yx
    spectra = fft.fft2(bands * slices.wave(frequency_yx).conj())
    here, there = otf.at(grid.ky, grid.kx), otf.at(grid.ky + fy, grid.kx + fx)
    near = LEAST_K * otf.cutoff_per_um
    far = (np.hypot(grid.ky, grid.kx) > near) & (np.hypot(grid.ky + fy, grid.kx + fx) > near)
    both = here * there * far
    inside = both > _RIM * both.max()
    here, there = here[inside], there[inside]
    weight = 1 / (here**2 + _SHIFTED * there**2)
    mean, moved = slices.mean[:, inside].astype(np.complex128), spectra[:, inside].astype(np.complex128)
    products = (weight * here * there * moved * mean.conj()).sum(axis=1)
    power = np.abs(mean) ** 2 - slices.noise[:, np.newaxis]
    below = max(float((weight * there**2 * power).sum()), 1e-300)
    noise = np.array([outer_power(fft.fft2(band), grid, otf) for band in bands])
    variance = float((noise * ((weight * here * there) ** 2 * np.abs(mean) ** 2).sum(axis=1)).sum()) / 2
    total, apart = products.sum(), np.abs(products).sum()
    coherence = float(abs(total) / apart) if apart > 0 else 0.0
    size = abs(total) if coherence > 0.9 else apart
    return BandFit(float(size) / below, float(np.sqrt(variance)) / below, float(np.angle(total)), coherence)
