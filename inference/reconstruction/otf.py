"""Spatial frequencies of an image, and what the lens and the camera pixel pass of them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.sim_pattern import ChannelOptics, OtfKind

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class FrequencyGrid:
    """The bins of a discrete Fourier transform of `height` x `width` pixels of `pixel_um`."""

    height: int
    width: int
    pixel_um: float

    @property
    def step_y(self) -> float:
        """Between two rows of bins, 1/um."""
        return 1 / (self.height * self.pixel_um)

    @property
    def step_x(self) -> float:
        """Between two columns of bins, 1/um."""
        return 1 / (self.width * self.pixel_um)

    @property
    def ky(self) -> Floats:
        """Frequency (height, 1) of every row in 1/um, in the transform's own order."""
        return np.asarray(np.fft.fftfreq(self.height, self.pixel_um)[:, np.newaxis], np.float64)

    @property
    def kx(self) -> Floats:
        """Frequency (1, width) of every column in 1/um."""
        return np.asarray(np.fft.fftfreq(self.width, self.pixel_um)[np.newaxis], np.float64)

    @property
    def half_kx(self) -> Floats:
        """Frequency (1, width // 2 + 1) of the columns of a real image's transform."""
        return np.asarray(np.fft.rfftfreq(self.width, self.pixel_um)[np.newaxis], np.float64)

    def doubled(self) -> "FrequencyGrid":
        """The same field with half the pixel."""
        return FrequencyGrid(2 * self.height, 2 * self.width, self.pixel_um / 2)


@dataclass(frozen=True, slots=True)
class Otf:
    """What remains of a spatial frequency after the lens and a square camera pixel: 1 at zero, 0 from the cutoff on."""

    optics: ChannelOptics
    pixel_um: float

    def __post_init__(self) -> None:
        if self.optics.cutoff_per_um * self.pixel_um > 1:
            cutoff = f"{self.optics.cutoff_per_um:.2f}/um"
            what = f"pixels of {self.pixel_um:g} um sample less than half of what the lens passes (up to {cutoff})"
            do = "see that pixel_um, na and emission_nm are those of this image"
            raise ConfigError(what, where=f"optics of channel {self.optics.channel}", do=do)

    @property
    def cutoff_per_um(self) -> float:
        """Up to which frequency it is used: the lens's cutoff, or the camera's where that is lower."""
        return min(self.optics.cutoff_per_um, 0.5 / self.pixel_um)

    def at(self, ky: Floats, kx: Floats) -> Floats:
        """Its values at frequencies in 1/um that broadcast against each other."""
        radius = np.hypot(ky, kx)
        camera = np.sinc(ky * self.pixel_um) * np.sinc(kx * self.pixel_um)
        values: Floats = np.where(radius < self.cutoff_per_um, self._lens(radius) * camera, 0.0)
        return values

    def _lens(self, radius: Floats) -> Floats:
        optics = self.optics
        if optics.otf is OtfKind.GAUSSIAN:
            sigma = optics.psf_sigma_um or 0.0
            gaussian: Floats = np.exp(-2 * (np.pi * sigma * radius) ** 2)
            return gaussian
        share = np.minimum(radius / optics.cutoff_per_um, 1.0)
        if optics.otf is OtfKind.TABLE:
            places = np.linspace(0, 1, len(optics.otf_table))
            return np.asarray(np.interp(share, places, np.array(optics.otf_table)), np.float64)
        return ideal_lens(share)


def ideal_lens(share: Any) -> Floats:
    """The OTF of a perfect circular pupil at |k| / cutoff, 0 from 1 on (Goodman, Introduction to Fourier Optics, 6)."""
    inside = np.minimum(share, 1.0)
    values: Floats = 2 / np.pi * (np.arccos(inside) - inside * np.sqrt(1 - inside**2))
    return values
