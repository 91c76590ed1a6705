"""Stacks as they should not be: every kind of image that carries no number, or a wrong one, at two strengths.

A kind takes a healthy stack (channel, z, y, x) and gives the spoiled one and the voxel that is stated for it. Noise,
gain and offset are an sCMOS camera's (2.2 counts an electron, 100, 1.6 e of read noise).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from spheroidd.protocols.pixels import Pixels

Floats = NDArray[np.float64]
Spacing = tuple[float, float, float]
GAIN, OFFSET, READ_E = 2.2, 100.0, 1.6


@dataclass(frozen=True, slots=True)
class Given:
    """A healthy stack as floats, its voxel (z, y, x) in um, and the draws for what is put in."""

    stack: Floats
    own_um: Spacing
    rng: np.random.Generator

    @property
    def shape(self) -> tuple[int, int, int]:
        """The (z, y, x) of a channel."""
        return self.stack.shape[1:]  # type: ignore[return-value]


Spoil = Callable[[Given], Floats]


def camera(given: Given, electrons: float = 3.0) -> Floats:
    """Camera noise over a uniform light."""
    light = given.rng.poisson(electrons, given.stack.shape) + given.rng.normal(0, READ_E, given.stack.shape)
    return np.asarray(light * GAIN + OFFSET, np.float64)


def brightness(factor: float, ceiling: float = 65535.0) -> Spoil:
    """More or less light; what passes the ceiling is cut off there."""

    def spoil(given: Given) -> Floats:
        more = (given.stack - OFFSET) * factor
        lit = OFFSET + more if factor >= 1 else camera(given) + more
        return np.minimum(lit, ceiling)

    return spoil


def blurred(sigma_um: float) -> Spoil:
    """Out of focus: twice as wide in depth."""

    def spoil(given: Given) -> Floats:
        z, y, x = given.own_um
        wide = (2 * sigma_um / z, sigma_um / y, sigma_um / x)
        return np.stack([ndimage.gaussian_filter(one, wide) for one in given.stack]) + given.rng.normal(
            0, 4, given.stack.shape
        )

    return spoil


def debris(n: int, largest_um: float, red: bool) -> Spoil:
    """Specks and no cells, in both colours or in the red one alone."""

    def spoil(given: Given) -> Floats:
        out = camera(given)
        for _ in range(n):
            centre = given.rng.uniform(0, 1, 3) * given.shape
            sigma = given.rng.uniform(0.8, largest_um) / np.array(given.own_um)
            low = np.maximum(0, np.floor(centre - 4 * sigma)).astype(int)
            high = np.minimum(given.shape, np.ceil(centre + 4 * sigma) + 1).astype(int)
            box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
            axes = np.ix_(*(np.arange(a, b) for a, b in zip(low, high, strict=True)))
            far = sum(((axis - c) / s) ** 2 for axis, c, s in zip(axes, centre, sigma, strict=True))
            speck = given.rng.uniform(200, 1500) * np.exp(-far / 2)
            for channel in (1,) if red else (0, 1):
                out[channel][box] += speck * given.rng.uniform(0.3, 1)
        return out

    return spoil


def disc(counts: float) -> Spoil:
    """A uniformly bright disc in 488 and nothing else."""

    def spoil(given: Given) -> Floats:
        out = camera(given)
        out[0] += np.where(_radius(given) < 0.43, counts, 0.0)
        return out

    return spoil


def bubble(width: float) -> Spoil:
    """A bright ring in both channels; its width is a part of the field."""

    def spoil(given: Given) -> Floats:
        ring = np.exp(-(((_radius(given) - 0.3) / width) ** 2))
        return camera(given) + np.array([900.0, 300.0])[:, None, None, None] * ring

    return spoil


def _radius(given: Given) -> Floats:
    _, height, width = given.shape
    y, x = np.mgrid[:height, :width]
    return np.asarray(np.hypot((y - height / 2) / height, (x - width / 2) / width), np.float64)


def replaced(channel: int, by: Callable[[Given], Floats]) -> Spoil:
    """One channel replaced."""

    def spoil(given: Given) -> Floats:
        out = given.stack.copy()
        out[channel] = by(given)
        return out

    return spoil


def nothing_but(channel: int, leak: float) -> Callable[[Given], Floats]:
    """Camera noise, and what leaks from the other channel."""
    return lambda given: camera(given)[channel] + leak * np.maximum(given.stack[1 - channel] - OFFSET, 0)


def constant(counts: float) -> Callable[[Given], Floats]:
    """The same count everywhere."""
    return lambda given: np.full(given.shape, counts)


def flat(channel: int, sd: float) -> Callable[[Given], Floats]:
    """The channel's mean, and noise."""
    return lambda given: given.stack[channel].mean() + given.rng.normal(0, sd, given.shape)


def copied(source: int, part: float) -> Callable[[Given], Floats]:
    """The other channel's image, whole or a part of it with noise of its own."""

    def image(given: Given) -> Floats:
        noise = 0.0 if part == 1 else given.rng.normal(0, 5, given.shape)
        return np.asarray(OFFSET + part * (given.stack[source] - OFFSET) + noise, np.float64)

    return image


def repeats(slices: int, channels: tuple[int, ...]) -> Spoil:
    """Slices that hold the bytes of the one before them."""

    def spoil(given: Given) -> Floats:
        out, middle = given.stack.copy(), given.shape[0] // 2
        for channel in channels:
            out[channel, middle + 1 : middle + 1 + slices] = out[channel, middle]
        return out

    return spoil


def shade(left: float) -> Spoil:
    """Half the field gets a part of the light."""

    def spoil(given: Given) -> Floats:
        out, half = given.stack.copy(), given.shape[2] // 2
        out[..., :half] = OFFSET + (out[..., :half] - OFFSET) * left
        return out

    return spoil


def drift(um: float) -> Spoil:
    """The sample moves sideways, evenly from the first slice to the last."""

    def spoil(given: Given) -> Floats:
        n_z, step = given.shape[0], um / given.own_um[2]
        moved = [
            [ndimage.shift(plane, (0, step * z / n_z), order=1, mode="reflect") for z, plane in enumerate(one)]
            for one in given.stack
        ]
        return np.array(moved)

    return spoil


def unchanged(given: Given) -> Floats:
    """The stack as it is: what is wrong is said of it."""
    return given.stack


@dataclass(frozen=True, slots=True)
class Spoiled:
    """One kind at one strength. `voxel` is what the stated (z, y, x) is multiplied by."""

    kind: str
    strength: str
    spoil: Spoil
    voxel: Spacing = (1.0, 1.0, 1.0)

    def of(self, stack: Pixels, own_um: Spacing, seed: int) -> tuple[Pixels, Spacing]:
        """The spoiled stack, uint16, and the voxel stated for it."""
        given = Given(stack.astype(np.float64), own_um, np.random.default_rng(seed))
        pixels = np.clip(np.rint(self.spoil(given)), 0, 65535).astype(np.uint16)
        z, y, x = (own * factor for own, factor in zip(own_um, self.voxel, strict=True))
        return pixels, (z, y, x)


SPOILED: tuple[Spoiled, ...] = (
    Spoiled("camera noise only", "3 e", camera),
    Spoiled("camera noise only", "30 e of light", lambda given: camera(given, 30.0)),
    Spoiled("zeros", "0", lambda given: np.zeros(given.stack.shape)),
    Spoiled("zeros", "the camera's offset", lambda given: np.full(given.stack.shape, OFFSET)),
    Spoiled("saturated", "x 40", brightness(40.0)),
    Spoiled("saturated", "x 8, ends at 4095", brightness(8.0, 4095.0)),
    Spoiled("too dim", "x .02", brightness(0.02)),
    Spoiled("too dim", "x .2", brightness(0.2)),
    Spoiled("out of focus", "4 um", blurred(4.0)),
    Spoiled("out of focus", "2 um", blurred(2.0)),
    Spoiled("debris only", "60 specks", debris(60, 2.2, red=False)),
    Spoiled("debris only", "150 larger ones", debris(150, 3.0, red=False)),
    Spoiled("red debris", "60 specks", debris(60, 2.2, red=True)),
    Spoiled("red debris", "150 larger ones", debris(150, 3.0, red=True)),
    Spoiled("bright disc without cells", "800 counts", disc(800.0)),
    Spoiled("bright disc without cells", "250 counts", disc(250.0)),
    Spoiled("bubble", "a thin rim", bubble(0.04)),
    Spoiled("bubble", "a wide rim", bubble(0.08)),
    Spoiled("calcein absent", "noise", replaced(0, nothing_but(0, 0.0))),
    Spoiled("calcein absent", "1 % of PI comes through", replaced(0, nothing_but(0, 0.01))),
    Spoiled("PI absent", "noise", replaced(1, nothing_but(1, 0.0))),
    Spoiled("PI absent", "8 % of calcein comes through", replaced(1, nothing_but(1, 0.08))),
    Spoiled("a channel constant", "488", replaced(0, constant(500.0))),
    Spoiled("a channel constant", "561", replaced(1, constant(300.0))),
    Spoiled("a channel flat with noise", "488, sd 8", replaced(0, flat(0, 8.0))),
    Spoiled("a channel flat with noise", "561, sd 40", replaced(1, flat(1, 40.0))),
    Spoiled("one channel copied", "488 to 561, whole", replaced(1, copied(0, 1.0))),
    Spoiled("one channel copied", "561 to 488, half, with noise", replaced(0, copied(1, 0.5))),
    Spoiled("dyes exchanged", "488 is 561", lambda given: given.stack[::-1]),
    Spoiled("dyes exchanged", "and half as bright", lambda given: OFFSET + (given.stack[::-1] - OFFSET) * 0.5),
    Spoiled("pixel size x 2", "x 2", unchanged, (1.0, 2.0, 2.0)),
    Spoiled("pixel size x 2", "x 1.7", unchanged, (1.0, 1.7, 1.7)),
    Spoiled("pixel size x .5", "x .5", unchanged, (1.0, 0.5, 0.5)),
    Spoiled("pixel size x .5", "x .6", unchanged, (1.0, 0.6, 0.6)),
    Spoiled("z step x 3", "x 3", unchanged, (3.0, 1.0, 1.0)),
    Spoiled("z step x 3", "x 2", unchanged, (2.0, 1.0, 1.0)),
    Spoiled("a slice repeated", "6 in both channels", repeats(6, (0, 1))),
    Spoiled("a slice repeated", "1 in one channel", repeats(1, (0,))),
    Spoiled("half the field shaded", "x .25", shade(0.25)),
    Spoiled("half the field shaded", "x .5", shade(0.5)),
    Spoiled("drift", "16 um", drift(16.0)),
    Spoiled("drift", "9 um", drift(9.0)),
)
