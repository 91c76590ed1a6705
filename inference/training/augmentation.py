"""What is done to a training patch: turned, mirrored, brightened, blurred, made noisy, its channels exchanged.

Knows arrays only: (2, z, y, x) volumes with the cell fractions and densities that belong to them.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
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


@dataclass(frozen=True, slots=True)
class AugmentSettings:
    """How far each channel is changed, and how often. 0 everywhere, and `turn` false, changes nothing.

    `contrast` and `brightness`: a factor 1 +- and an offset +- in the normalised volume's unit, as other intensities
    and other limits would give. `blur`: the most that a 3x3x3 mean takes part; `noise`: the largest sd; each has its
    own chance. `swap` exchanges the channels together with their truths, so that an output learns to find the cells in
    its own channel whatever dye it shows; `drop` empties a channel, as a plate imaged in one colour does.
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

    def __post_init__(self) -> None:
        for name in ("contrast", "brightness", "blur", "noise"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}", where="augmentation", do="give 0 or more")
        for name in ("blur_chance", "noise_chance", "swap_chance", "drop_chance"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)}", where="augmentation", do="give 0 to 1")


def augment(rng: np.random.Generator, patch: Patch, settings: AugmentSettings) -> Patch:
    """A changed copy of the patch; every draw comes from `rng`."""
    if settings.turn:
        turns, mirror_y, mirror_x = int(rng.integers(4)), rng.random() < 0.5, rng.random() < 0.5
        patch = Patch(*(turn(part, turns, mirror_y, mirror_x) for part in patch))
    if rng.random() < settings.swap_chance:
        patch = Patch(*(part[::-1].copy() for part in patch))
    return patch._replace(volume=disturb(rng, patch.volume.copy(), settings))


def disturb(rng: np.random.Generator, volume: NDArray[np.float32], settings: AugmentSettings) -> NDArray[np.float32]:
    """Change brightness, contrast, noise and sharpness of each channel (2, z, y, x) in place; rarely, drop one."""
    for channel in volume:
        channel *= rng.uniform(1 - settings.contrast, 1 + settings.contrast)
        channel += rng.uniform(-settings.brightness, settings.brightness)
        if rng.random() < settings.blur_chance:
            blurred = F.avg_pool3d(torch.from_numpy(channel)[None], 3, 1, 1, count_include_pad=False)[0].numpy()
            channel += rng.uniform(0, settings.blur) * (blurred - channel)
        if rng.random() < settings.noise_chance:
            channel += np.float32(rng.uniform(0, settings.noise)) * rng.standard_normal(channel.shape, np.float32)
        if rng.random() < settings.drop_chance:
            channel[:] = BACKGROUND
    return volume


def turn(part: NDArray[np.float32], turns: int, mirror_y: bool, mirror_x: bool) -> NDArray[np.float32]:
    """Turn about z and mirror in the plane; never in z, from whose lower end the light comes."""
    part = np.rot90(part, turns, axes=(2, 3)) if part.shape[2] == part.shape[3] else part
    return np.ascontiguousarray(part[:, :, :: -1 if mirror_y else 1, :: -1 if mirror_x else 1])
