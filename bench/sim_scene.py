"""A small scene seen through structured illumination, with its truth: for tests and measurements of reconstruction.

The sample (cells, beads, or pairs of points) lies on a grid of half the camera's pixel, a margin larger than the field,
so that nothing is periodic across the edges. Each pattern multiplies it, the lens and the pixel are applied in Fourier
space, and a camera counts Poisson electrons with read noise, gain and offset. Two sample pixels tile a camera pixel.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from spheroidd.inference.reconstruction.otf import FrequencyGrid, Otf, ideal_lens
from spheroidd.protocols.sim_pattern import Beams, ChannelOptics, OtfKind, SimPattern

Floats = NDArray[np.float64]
GAIN_ADU, READ_E, OFFSET_ADU = 2.17, 1.6, 100.0
MARGIN_PX = 16  # camera pixels around the field
GREEN = ChannelOptics("488", 515.0, 0.5, OtfKind.GAUSSIAN, 0.22)
RED = ChannelOptics("561", 617.0, 0.5, OtfKind.GAUSSIAN, 0.22 * 1.15)


@dataclass(frozen=True)
class Stripes:
    """The pattern that is really there: frequency of order 1 in 1/um, phases in degrees at the field's centre."""

    frequency_per_um: float = 1.75
    angles_deg: tuple[float, ...] = (14.3, 74.1, -45.6)
    modulation: tuple[float, ...] = (0.8,)  # by order
    phase0_deg: tuple[float, ...] = (31.0, -77.0, 140.0)
    step_errors_deg: tuple[tuple[float, ...], ...] = ()
    brightness: tuple[tuple[float, ...], ...] = ()  # (angle, phase): 1 where nothing flickers
    step_sign: int = 1

    def phases_deg(self, n_phases: int) -> Floats:
        """(angle, phase), degrees."""
        steps = self.step_sign * 360 / n_phases * np.arange(n_phases)
        phases = np.array(self.phase0_deg)[:, np.newaxis] + steps
        return phases + np.array(self.step_errors_deg) if self.step_errors_deg else phases


@dataclass(frozen=True)
class Scene:
    """How the raw frames are made; `frames` renders them, `target` is what a perfect reconstruction would show."""

    size: int = 128
    pixel_um: float = 0.25
    n_phases: int = 5
    electrons: float = 100.0
    haze: float = 0.3
    optics: ChannelOptics = GREEN
    stripes: Stripes = field(default_factory=Stripes)
    beads: bool = True
    bead_um: float = 0.2355  # full width at half maximum
    seed: int = 0

    @property
    def pattern(self) -> SimPattern:
        """The pattern as a person states it: numbers and optics, nothing of what is to be found."""
        beams = Beams.TWO if len(self.stripes.modulation) == 1 else Beams.THREE
        return SimPattern(
            len(self.stripes.angles_deg), self.n_phases, beams=beams, offset_adu=OFFSET_ADU, optics=(self.optics,)
        )

    @property
    def fine(self) -> FrequencyGrid:
        """The sample's grid, margin included."""
        side = 2 * (self.size + 2 * MARGIN_PX)
        return FrequencyGrid(side, side, self.pixel_um / 2)

    def sample(self) -> Floats:
        """Fluorescence on the fine grid, mean 1 over the field, without haze."""
        sample = cells(self.fine.height, self.pixel_um / 2, self.seed)
        if self.beads:
            sigma_px = self.bead_um / 2.355 / (self.pixel_um / 2)
            sample += 40 * points(self.fine.height, self.size // 2, self.seed + 1, sigma_px)
        inside = slice(2 * MARGIN_PX, -2 * MARGIN_PX)
        return sample / sample[inside, inside].mean()

    def expected(self, sample: Floats) -> Floats:
        """Electrons (angle, phase, y, x) without noise."""
        fine, stripes = self.fine, self.stripes
        ky, kx = fine.ky, fine.kx
        pass_ = self._pass()
        shift = 2j * np.pi * self.pixel_um / 4
        pass_ = pass_ * np.exp(shift * (ky + kx))  # to the centres of the camera's pixels
        middle = (fine.height - 1) / 2
        along = (np.arange(fine.height) - middle) * self.pixel_um / 2
        inside = slice(2 * MARGIN_PX, -2 * MARGIN_PX, 2)

        def seen(light: NDArray[Any]) -> NDArray[Any]:
            return np.asarray(fft.ifft2(fft.fft2(light) * pass_, overwrite_x=True))[inside, inside]

        plain = seen(sample).real
        lit = self.electrons / (1 + self.haze)
        phases = np.radians(stripes.phases_deg(self.n_phases))
        frames = np.empty((len(stripes.angles_deg), self.n_phases, self.size, self.size))
        for a, angle in enumerate(np.radians(stripes.angles_deg)):
            frames[a] = plain
            fy, fx = stripes.frequency_per_um * np.sin(angle), stripes.frequency_per_um * np.cos(angle)
            for order, modulation in enumerate(stripes.modulation, start=1):
                turn = order * 2 * np.pi * (fy * along[:, np.newaxis] + fx * along)
                band = modulation * seen(sample * np.exp(1j * turn))
                frames[a] += (band * np.exp(1j * order * phases[a])[:, np.newaxis, np.newaxis]).real
            if stripes.brightness:
                frames[a] *= np.array(stripes.brightness[a])[:, np.newaxis, np.newaxis]
        return np.maximum(lit * (frames + self.haze), 0)

    def frames(self, sample: Floats | None = None) -> NDArray[np.uint16]:
        """Raw frames (angle, phase, y, x) as a camera gives them."""
        return expose(self.expected(self.sample() if sample is None else sample), self.seed)

    def target(self, sample: Floats, reach_per_um: float) -> Floats:
        """The sample (2y, 2x) in counts above the offset as seen by an ideal OTF that reaches so far."""
        fine = self.fine
        wanted = ideal_lens(np.hypot(fine.ky, fine.kx) / reach_per_um)
        seen = fft.ifft2(fft.fft2(sample) * wanted).real
        inside = slice(2 * MARGIN_PX, -2 * MARGIN_PX)
        return GAIN_ADU * self.electrons / (1 + self.haze) * (seen[inside, inside] + self.haze)

    def _pass(self) -> Floats:
        """The lens and the pixel, beyond the cutoff too where the lens is a Gaussian."""
        fine = self.fine
        if self.optics.otf is OtfKind.GAUSSIAN:
            lens = np.exp(-2 * (np.pi * (self.optics.psf_sigma_um or 0) * np.hypot(fine.ky, fine.kx)) ** 2)
            pixel = np.sinc(fine.ky * self.pixel_um) * np.sinc(fine.kx * self.pixel_um)
            return np.asarray(lens * pixel)
        return Otf(self.optics, self.pixel_um).at(fine.ky, fine.kx)

    def dead(self) -> "Scene":
        """The same without any pattern."""
        return replace(self, stripes=replace(self.stripes, modulation=(0.0,) * len(self.stripes.modulation)))


def expose(expected_e: Floats, seed: int) -> NDArray[np.uint16]:
    """Counts of expected electrons."""
    rng = np.random.default_rng(seed + 1000)
    electrons = rng.poisson(expected_e) + rng.normal(0, READ_E, expected_e.shape)
    return np.clip(np.rint(GAIN_ADU * electrons + OFFSET_ADU), 0, 65535).astype(np.uint16)


def cells(side: int, pixel_um: float, seed: int) -> Floats:
    """Round cells of 3 to 7 um with a darker nucleus and a grain, on nothing; (side, side)."""
    rng = np.random.default_rng(seed)
    yy, xx = np.mgrid[:side, :side] * pixel_um
    extent = side * pixel_um
    image = np.zeros((side, side))
    for _ in range(max(3, int(extent**2 / 120))):
        y, x = rng.uniform(0, extent, 2)
        radius = rng.uniform(3, 7)
        reach = int((radius + 1) / pixel_um) + 1
        rows = slice(max(int(y / pixel_um) - reach, 0), int(y / pixel_um) + reach)
        columns = slice(max(int(x / pixel_um) - reach, 0), int(x / pixel_um) + reach)
        away = np.hypot(yy[rows, columns] - y, xx[rows, columns] - x)
        body = 1 / (1 + np.exp((away - radius) / 0.15)) - 0.3 / (1 + np.exp((away - radius / 2) / 0.15))
        image[rows, columns] += rng.uniform(0.3, 1.0) * body
    grain = ndimage.gaussian_filter(rng.normal(size=image.shape), 1.2)
    return np.asarray(image * np.clip(1 + 0.5 * grain / grain.std(), 0.1, None))


def points(side: int, count: int, seed: int, sigma_px: float) -> Floats:
    """Small round beads at random places."""
    rng = np.random.default_rng(seed)
    image = np.zeros((side, side))
    places = rng.integers(0, side, (count, 2))
    image[places[:, 0], places[:, 1]] = rng.uniform(0.3, 1.0, count)
    return np.asarray(ndimage.gaussian_filter(image, sigma_px))


def point_pairs(
    side: int, pixel_um: float, apart_um: float, directions_deg: Sequence[float], pitch_um: float
) -> Floats:
    """Pairs of points at a distance, in rows of one direction after another, on a fine grid (sub-pixel by spectrum)."""
    extent = side * pixel_um
    grid = FrequencyGrid(side, side, pixel_um)
    ky, kx = grid.ky, grid.kx
    spectrum = np.zeros((side, side), complex)
    centres = np.arange(pitch_um, extent - pitch_um / 2, pitch_um)
    for row, y in enumerate(centres):
        turn = math.radians(directions_deg[row % len(directions_deg)])
        for x in centres:
            for side_ in (-0.5, 0.5):
                dy, dx = side_ * apart_um * math.sin(turn), side_ * apart_um * math.cos(turn)
                spectrum += np.exp(-2j * np.pi * ky * (y + dy)) * np.exp(-2j * np.pi * kx * (x + dx))
    return np.asarray(np.maximum(fft.ifft2(spectrum * np.exp(-2 * (np.pi * 0.04 * np.hypot(ky, kx)) ** 2)).real, 0))
