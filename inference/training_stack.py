"""What a network learns from: one stack at the model's spacing under several limits, and what is true of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from spheroidd.inference.counting import density_target
from spheroidd.inference.preprocess import StreamingPreprocessor
from spheroidd.inference.resample import Spacing, resample
from spheroidd.protocols.errors import StackError
from spheroidd.protocols.results import Limits
from spheroidd.protocols.stack import CHANNELS, Pixels

_WHOLE = 255  # a voxel that lies wholly in a cell, in `TrainingStack.cells`
_PLANES = 32  # of a mask, turned into float32 at a time


@dataclass(frozen=True, slots=True)
class TrainingStack:
    """One stack, ready to learn from.

    `variants`: the normalised volume (2, z, y, x) float16, once for each set of limits. `cells` (2, z, y, x) uint8:
    which part of each voxel, in 1/255, is live body and dead nucleus. The points (n, 3) are the centres of live and
    dead cells in micrometres from the outer corner of voxel (0, 0, 0).
    """

    name: str
    spacing_um: Spacing
    variants: tuple[NDArray[np.float16], ...]
    cells: NDArray[np.uint8]
    live_points_um: NDArray[np.float64]
    dead_points_um: NDArray[np.float64]

    def __post_init__(self) -> None:
        shapes = {self.cells.shape, *(volume.shape for volume in self.variants)}
        if len(shapes) != 1 or self.cells.ndim != 4 or len(self.cells) != len(CHANNELS) or not self.variants:
            raise StackError(f"volumes are {sorted(shapes)}", where=self.name, do="give all as one (2, z, y, x)")

    @property
    def shape(self) -> tuple[int, int, int]:
        """The volume's (z, y, x)."""
        _, z, y, x = self.cells.shape
        return z, y, x

    def fractions(self, region: tuple[slice, ...] = (slice(None),) * 3) -> NDArray[np.float32]:
        """`cells` of a region as float32 from 0 to 1."""
        return self.cells[:, *region].astype(np.float32) / np.float32(_WHOLE)

    def density(self) -> NDArray[np.float32]:
        """Live and dead cells per um3 (2, z, y, x), as `counting.density_target` has it."""
        points = (self.live_points_um, self.dead_points_um)
        return np.stack([density_target(part, self.shape, self.spacing_um) for part in points])

    def save(self, path: Path) -> None:
        """Write it as a compressed .npz."""
        named: dict[str, Any] = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "variants"}
        named |= {f"variant_{number}": volume for number, volume in enumerate(self.variants)}
        partial = path.with_suffix(".partial.npz")
        np.savez_compressed(partial, **named)
        partial.replace(path)

    @classmethod
    def load(cls, path: Path) -> "TrainingStack":
        """Read what `save` wrote; StackError for anything else."""
        try:
            with path.open("rb") as handle, np.load(handle, allow_pickle=False) as file:
                found = {name: file[name] for name in file.files}
        except (OSError, ValueError, BadZipFile) as error:
            raise StackError(f"cannot be read: {error}", where=str(path), do="remove it; it is made again") from error
        variants = tuple(found.pop(name) for name in sorted(found) if name.startswith("variant_"))
        z, y, x = (float(v) for v in found.pop("spacing_um"))
        return cls(**{**found, "name": str(found["name"]), "spacing_um": (z, y, x), "variants": variants})


def prepare_stack(
    name: str,
    stack: Pixels,
    masks: tuple[NDArray[np.bool_], NDArray[np.bool_]],
    points_um: tuple[NDArray[np.float64], NDArray[np.float64]],
    own_um: Spacing,
    spacing_um: Spacing,
    limits: Sequence[Mapping[str, Limits] | None],
) -> TrainingStack:
    """A raw stack (2, z, y, x) of voxels `own_um`, with its live and dead masks and centres, brought to `spacing_um`.

    Each of `limits` makes one variant; None stands for the stack's own.
    """
    preprocessor = filter_stack(stack, own_um, spacing_um)
    n_z = preprocessor.shape[0]
    variants = tuple(
        preprocessor.volume(0, n_z, preprocessor.limits() if one is None else one).astype(np.float16) for one in limits
    )
    cells = np.stack([_fractions(mask, own_um, spacing_um) for mask in masks])
    return TrainingStack(name, spacing_um, variants, cells, *points_um)


def filter_stack(stack: Pixels, own_um: Spacing, spacing_um: Spacing) -> StreamingPreprocessor:
    """A finished preprocessor over a raw stack (2, z, y, x): its limits, histograms and volumes can be asked for."""
    _, n_z, height, width = stack.shape
    preprocessor = StreamingPreprocessor(n_z, height, width, own_um[2], own_um[0], CHANNELS, spacing_um)
    for channel, pixels in zip(CHANNELS, stack, strict=True):
        preprocessor.feed(channel, 0, pixels)
    preprocessor.finish()
    return preprocessor


def _fractions(mask: NDArray[np.bool_], own_um: Spacing, spacing_um: Spacing) -> NDArray[np.uint8]:
    """The part of each voxel that the mask covers, in 1/255; planes first, because a mask as float32 is large."""
    in_plane = (own_um[0], spacing_um[1], spacing_um[2])
    parts = [resample(mask[z : z + _PLANES].astype(np.float32), own_um, in_plane) for z in range(0, len(mask), _PLANES)]
    part = resample(np.concatenate(parts), in_plane, spacing_um)
    return np.rint(part * _WHOLE).astype(np.uint8)
