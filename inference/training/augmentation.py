"""What is done to a training patch: turned, mirrored, brightened, blurred, made noisy, its channels exchanged.

Knows arrays only: (2, z, y, x) volumes with the cell fractions and densities that belong to them.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch.nn import functional as F

from spheroidd.inference.preprocessing.stream import BACKGROUND
from spheroidd.protocols.errors import ConfigError


class Patch(NamedTuple):
    """A piece of a stack, each (2, z, y, x) float32: the normalised volume, cell fractions, cells per um3; and how
    far each voxel is known (1, z, y, x), 0 to 1.
    """

    volume: NDArray[np.float32]
    cells: NDArray[np.float32]
    density: NDArray[np.float32]
    known: NDArray[np.float32]


MOST_KEPT, KEPT_RADIUS, KEPT_REST = 8, (3.5, 8.0), (0.02, 0.25)  # cells; voxels; of the light of all else


@dataclass(frozen=True, slots=True)
class AugmentSettings:
    """How far each channel is changed, and how often. 0 everywhere, and `turn` false, changes nothing.

    `contrast` and `brightness`: a factor 1 +- and an offset +- in the normalised volume's unit, as other intensities
    and other limits would give. `blur`: the most that a 3x3x3 mean takes part; `noise`: the largest sd; each has its
    own chance. `swap` exchanges the channels together with their truths, so that an output learns to find the cells in
    its own channel whatever dye it shows; `drop` empties a channel and its truth, as a plate imaged in one colour does.
    `scale`: how much larger or smaller a patch's cells are shown at most; by a third of it more along z.
    `overexposed`: how many times more light there is at most, cut off where the patch was brightest: the limits
    of a sparse field, in which all that is dim around a few bright cells comes up. `sparse` leaves a few cells of a
    channel as they are, dims all else, which then counts as background, and takes the limits that are the patch's own.
    """

    turn: bool = True
    contrast: float = 0.15
    brightness: float = 0.1
    blur: float = 0.7
    blur_chance: float = 0.2
    noise: float = 0.15
    noise_chance: float = 0.4
    swap_chance: float = 0.1
    drop_chance: float = 0.02
    scale: float = 0.0
    overexposed: float = 0.0
    overexposed_chance: float = 0.3
    sparse_chance: float = 0.0

    def __post_init__(self) -> None:
        for name in ("contrast", "brightness", "blur", "noise", "scale", "overexposed"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}", where="augmentation", do="give 0 or more")
        for name in (name for name in self.__dataclass_fields__ if name.endswith("_chance")):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)}", where="augmentation", do="give 0 to 1")


def augment(rng: np.random.Generator, patch: Patch, settings: AugmentSettings) -> Patch:
    """A changed copy of the patch; every draw comes from `rng`."""
    if settings.turn:
        turns, mirror_y, mirror_x = int(rng.integers(4)), rng.random() < 0.5, rng.random() < 0.5
        patch = Patch(*(turn(part, turns, mirror_y, mirror_x) for part in patch))
    if rng.random() < settings.swap_chance:
        patch = Patch(*(part[::-1].copy() for part in patch))
    if settings.sparse_chance and rng.random() < settings.sparse_chance:
        patch = sparse(rng, patch)
    volume = patch.volume.copy()
    dropped = disturb(rng, volume, settings)
    if any(dropped):
        there = ~np.array(dropped)[:, np.newaxis, np.newaxis, np.newaxis]
        patch = patch._replace(cells=patch.cells * there, density=patch.density * there)
    return patch._replace(volume=volume)


def disturb(rng: np.random.Generator, volume: NDArray[np.float32], settings: AugmentSettings) -> list[bool]:
    """Change brightness, contrast, noise and sharpness of each channel (2, z, y, x) in place; which were dropped."""
    dropped = []
    for channel in volume:
        if settings.overexposed and rng.random() < settings.overexposed_chance:
            _overexpose(channel, float(np.exp(rng.uniform(0, np.log1p(settings.overexposed)))))
        channel *= rng.uniform(1 - settings.contrast, 1 + settings.contrast)
        channel += rng.uniform(-settings.brightness, settings.brightness)
        if rng.random() < settings.blur_chance:
            blurred = F.avg_pool3d(torch.from_numpy(channel)[None], 3, 1, 1, count_include_pad=False)[0].numpy()
            channel += rng.uniform(0, settings.blur) * (blurred - channel)
        if rng.random() < settings.noise_chance:
            channel += np.float32(rng.uniform(0, settings.noise)) * rng.standard_normal(channel.shape, np.float32)
        dropped.append(bool(rng.random() < settings.drop_chance))
        if dropped[-1]:
            channel[:] = BACKGROUND
    return dropped


def sparse(rng: np.random.Generator, patch: Patch) -> Patch:
    """A copy of the patch in which each channel shows a few of its cells alone, in dim surroundings."""
    volume, cells, density = patch.volume.copy(), patch.cells.copy(), patch.density.copy()
    for light, body, per_um3 in zip(volume, cells, density, strict=True):
        peaks = np.argwhere((per_um3 == ndimage.maximum_filter(per_um3, 5)) & (body >= 0.5))
        if not len(peaks):
            continue
        kept = peaks[rng.permutation(len(peaks))[: rng.integers(1, MOST_KEPT + 1)]]
        radius = rng.uniform(*KEPT_RADIUS)
        grid = np.indices(light.shape, np.float32)
        away = np.sqrt(np.min([sum((axis - at) ** 2 for axis, at in zip(grid, one, strict=True)) for one in kept], 0))
        near = (1 / (1 + np.exp((2 * (away - radius)).clip(-30, 30)))).astype(np.float32)
        rest = float(np.exp(rng.uniform(*np.log(KEPT_REST))))
        light -= light.min()
        light *= rest + (1 - rest) * ndimage.gaussian_filter(near * body, rng.uniform(0.5, 1.5))
        light += rng.uniform(0, 0.05) * light.max() * rng.standard_normal(light.shape, np.float32)
        low, high = np.percentile(light, (2, 98))
        np.clip(light, low, high, out=light)
        light -= light.mean()
        light /= max(float(light.std()), 1e-6)
        body *= near
        per_um3 *= near
    return patch._replace(volume=volume, cells=cells, density=density)


def _overexpose(channel: NDArray[np.float32], times: float) -> None:
    dark, bright = channel.min(), channel.max()
    channel -= dark
    channel *= np.float32(times)
    channel += dark
    np.minimum(channel, bright, out=channel)


def window(rng: np.random.Generator, patch: tuple[int, ...], settings: AugmentSettings) -> tuple[int, ...]:
    """How many voxels (z, y, x) of a stack are shown as a patch, so that what lies in them is larger or smaller."""
    if settings.scale == 0:
        return patch
    most = np.log1p(settings.scale)
    sideways = rng.uniform(-most, most)
    along_z = sideways + rng.uniform(-most, most) / 3
    logarithms = (along_z, sideways, sideways)
    return tuple(max(1, round(n * float(np.exp(-by)))) for n, by in zip(patch, logarithms, strict=True))


def zoomed(part: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """A window (channels, z, y, x) interpolated to a patch's (z, y, x)."""
    if part.shape[1:] == shape:
        return part
    grown: NDArray[np.float32] = F.interpolate(
        torch.from_numpy(part)[None], size=shape, mode="trilinear", align_corners=False
    )[0].numpy()
    return grown


def turn(part: NDArray[np.float32], turns: int, mirror_y: bool, mirror_x: bool) -> NDArray[np.float32]:
    """Turn about z and mirror in the plane; never in z, from whose lower end the light comes."""
    part = np.rot90(part, turns, axes=(2, 3)) if part.shape[2] == part.shape[3] else part
    return np.ascontiguousarray(part[:, :, :: -1 if mirror_y else 1, :: -1 if mirror_x else 1])
