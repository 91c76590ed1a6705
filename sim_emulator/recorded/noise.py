"""What a recording says of the camera that took it: the level of its dark places, their noise, and its gain.

Nothing but the pixels is asked, because few files say more. Noise is measured with the Laplacian mask of Immerkaer
(Comput. Vis. Image Underst. 64:300, 1996), which does not see structure that is wider than three pixels.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spheroidd.protocols.pixels import Pixels
from spheroidd.sim_emulator.draws import Draws, Floats
from spheroidd.sim_emulator.look import Look

BLOCK = 8  # pixels along each side: small enough to lie beside a spheroid, large enough for a variance
DARK_SHARE = 0.1  # of all blocks: the darkest are taken for background
BRIGHT_SHARE = 0.2  # the brightest say how noise grows with light
SMOOTH_SHARE = 0.4  # a quantile of those, a little below their median: some have texture as fine as pixels


@dataclass(frozen=True, slots=True)
class RecordedNoise:
    """One channel's background in counts, the standard deviation of its noise, and counts of variance per count of
    light above it; 0 where noise does not grow with light, as in images that were denoised.
    """

    level: float
    sd: float
    gain: float

    @classmethod
    def of(cls, planes: Iterable[Pixels]) -> "RecordedNoise":
        """Measured in some planes (y, x) of a channel."""
        found = [_blocks(plane) for plane in planes]
        means, variances = np.concatenate([m for m, _ in found]), np.concatenate([v for _, v in found])
        order = np.argsort(means, kind="stable")
        dark = order[: max(1, round(DARK_SHARE * len(order)))]
        level, dark_variance = float(np.median(means[dark])), float(np.median(variances[dark]))
        bright = order[-max(1, round(BRIGHT_SHARE * len(order))) :]
        signal = means[bright] - level
        slopes = (variances[bright] - dark_variance)[signal > 0] / signal[signal > 0]
        gain = float(np.quantile(slopes, SMOOTH_SHARE)) if len(slopes) else 0.0
        return cls(level, float(np.sqrt(dark_variance)), max(0.0, gain))

    def background(self, height: int, width: int, dtype: str, draws: Draws, name: str) -> Pixels:
        """What the camera sees where nothing is (y, x); the same name gives the same noise."""
        return _counts(self.level + self.sd * draws.normals(name, height, width), dtype)

    def retaken(self, plane: Pixels, look: Look, pixel_um: float, draws: Draws, name: str) -> Pixels:
        """The plane (y, x) as it would have come with that look.

        Light is what lies above the background. Noise that the new image would have, and that is not left of the
        recorded one, is added; noise that a longer exposure multiplies cannot be taken away again.
        """
        if look.plain:
            return plane
        recorded = (plane - np.float32(self.level)).astype(np.float32)
        light = look.of_light(recorded, pixel_um)
        kept = 0.0 if look.blur_um > 0 else look.exposure**2
        shot = np.maximum(light, 0) * self.gain * (1 if look.blur_um > 0 or not look.exposure else 1 - look.exposure)
        missing = np.maximum(shot, 0) + max(0.0, 1 - kept) * self.sd**2
        noise = np.sqrt(missing) * draws.normals(name, *plane.shape)
        return _counts(self.level + light + noise, plane.dtype.name)


def _counts(values: Floats | NDArray[Any], dtype: str) -> Pixels:
    """Rounded, and at the ends of the type as a camera is."""
    return np.clip(np.floor(values + 0.5), 0, np.iinfo(dtype).max).astype(dtype)


def _blocks(plane: Pixels) -> tuple[Floats, Floats]:
    """Mean and noise variance of each block of a plane; a plane smaller than a block is one."""
    values = plane.astype(np.float64)
    if min(values.shape) < 3:
        return np.array([values.mean()]), np.array([values.var()])
    rows = values[2:] - 2 * values[1:-1] + values[:-2]
    mask = rows[:, 2:] - 2 * rows[:, 1:-1] + rows[:, :-2]
    return _block_means(values[1:-1, 1:-1]), _block_means(mask**2) / 36


def _block_means(values: Floats) -> Floats:
    height, width = values.shape
    if height < BLOCK or width < BLOCK:
        return np.array([values.mean()])
    cut = values[: height - height % BLOCK, : width - width % BLOCK]
    means: Floats = cut.reshape(height // BLOCK, BLOCK, width // BLOCK, BLOCK).mean((1, 3)).ravel()
    return means
