"""Draws patches from training stacks. Every draw depends on (seed, step, place in the batch) alone."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spheroidd.inference.training.augmentation import AugmentSettings, Patch, augment, window, zoomed
from spheroidd.inference.training.stack import TrainingStack
from spheroidd.protocols.errors import ConfigError


@dataclass(frozen=True, slots=True)
class PatchSampler:
    """Draws batches: each stack as likely as any other, `minority` of the patches around a cell of the rarer kind.

    `patch` is (z, y, x) voxels. The stacks may be mapped from disk: only the patches are read.
    """

    stacks: Sequence[TrainingStack]
    patch: tuple[int, int, int]
    minority: float
    augmentation: AugmentSettings
    seed: int

    def __post_init__(self) -> None:
        if not self.stacks:
            raise ConfigError("there are no stacks to train on", where="training", do="name plates or folders")

    def batch(self, step: int, places: range) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Volumes, cell fractions and densities (cells per um3) of one step, each (places, 2, z, y, x) float32, and how
        far each voxel is known (places, 1, z, y, x).

        `places` are those in the batch: several processes draw one batch together.
        """
        patches = [self._patch(np.random.default_rng([self.seed, step, place])) for place in places]
        volume, cells, density, known = (torch.from_numpy(np.stack(parts)) for parts in zip(*patches, strict=True))
        return volume.contiguous(memory_format=torch.channels_last_3d), cells, density, known

    def _patch(self, rng: np.random.Generator) -> Patch:
        stack = self.stacks[int(rng.integers(len(self.stacks)))]
        variant = stack.variants[int(rng.integers(len(stack.variants)))]
        seen = window(rng, self.patch, self.augmentation)
        region = self.place(rng, stack, seen)
        shape = [part.stop - part.start for part in region]
        shown = tuple(round(n * p / s) for n, p, s in zip(shape, self.patch, seen, strict=True))
        drawn = Patch(
            zoomed(_grow(variant[:, *region].astype(np.float32), seen, "edge"), self.patch),
            zoomed(_grow(stack.fractions(region), seen, "constant"), self.patch),
            _grow(stack.density(region, shown), self.patch, "constant"),
            zoomed(_grow(stack.knowledge(region), seen, "edge"), self.patch),
        )
        return augment(rng, drawn, self.augmentation)

    def place(self, rng: np.random.Generator, stack: TrainingStack, seen: tuple[int, ...]) -> tuple[slice, ...]:
        """Where a patch of `seen` voxels (z, y, x) lies; smaller than asked for where the stack is."""
        rest = [max(0, n - p) for n, p in zip(stack.shape, seen, strict=True)]
        starts = [int(rng.integers(r + 1)) for r in rest]
        live, dead = stack.live_points_um, stack.dead_points_um
        rarer = min((live, dead), key=lambda points: len(points) or math.inf)
        if rng.random() < self.minority and len(rarer):
            centre = rarer[int(rng.integers(len(rarer)))] / stack.spacing_um
            starts = [int(min(max(c - p / 2, 0), r)) for c, p, r in zip(centre, seen, rest, strict=True)]
        return tuple(slice(s, min(s + p, n)) for s, p, n in zip(starts, seen, stack.shape, strict=True))


def _grow(part: NDArray[np.float32], patch: tuple[int, ...], mode: str) -> NDArray[np.float32]:
    """Pad a patch of a stack that is smaller than the patch, at its ends."""
    missing = [(0, 0), *((0, p - n) for p, n in zip(patch, part.shape[1:], strict=True))]
    return np.pad(part, missing, mode=mode) if any(n for _, n in missing) else part  # type: ignore[call-overload]
