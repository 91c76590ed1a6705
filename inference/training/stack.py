"""What a network learns from: one stack at the model's spacing under several limits, and what is true of it."""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spheroidd.inference.preprocessing.resample import Spacing, resample
from spheroidd.inference.preprocessing.stream import StreamingPreprocessor
from spheroidd.inference.quality.coarse_stack import CoarseStack
from spheroidd.inference.segmentation.objects import DENSITY_SIGMA_UM, density_target
from spheroidd.protocols.durable import PARTIAL, replace_path
from spheroidd.protocols.errors import StackError
from spheroidd.protocols.evidence import StackLight
from spheroidd.protocols.json_text import parse_json
from spheroidd.protocols.pixels import Pixels
from spheroidd.protocols.results import Limits
from spheroidd.protocols.stack import CHANNELS, StackKey, StackPlan
from spheroidd.protocols.well import WellId

_WHOLE = 255  # a voxel that lies wholly in a cell, in `TrainingStack.cells`
_ARRAYS = ("cells", "live_points_um", "dead_points_um")
_PLANES = 32  # of a mask, turned into float32 at a time


@dataclass(frozen=True, slots=True)
class TrainingStack:
    """One stack, ready to learn from.

    `variants`: the normalised volume (2, z, y, x) float16, once for each set of limits. `cells` (2, z, y, x) uint8:
    which part of each voxel, in 1/255, is live body and dead nucleus. The points (n, 3) are the centres of live and
    dead cells in micrometres from the outer corner of voxel (0, 0, 0). `known` (z, y, x) uint8: how far,
    in 1/255, anybody could know what a voxel is; None where all of it is known.
    """

    name: str
    spacing_um: Spacing
    variants: tuple[NDArray[np.float16], ...]
    cells: NDArray[np.uint8]
    live_points_um: NDArray[np.float64]
    dead_points_um: NDArray[np.float64]
    known: NDArray[np.uint8] | None = None

    def __post_init__(self) -> None:
        shapes = {self.cells.shape, *(volume.shape for volume in self.variants)}
        if len(shapes) != 1 or self.cells.ndim != 4 or len(self.cells) != len(CHANNELS) or not self.variants:
            raise StackError(f"volumes are {sorted(shapes)}", where=self.name, do="give all as one (2, z, y, x)")
        if self.known is not None and self.known.shape != self.shape:
            raise StackError(f"what is known is {self.known.shape}", where=self.name, do=f"give {self.shape}")

    @property
    def shape(self) -> tuple[int, int, int]:
        """The volume's (z, y, x)."""
        _, z, y, x = self.cells.shape
        return z, y, x

    def fractions(self, region: tuple[slice, ...] = (slice(None),) * 3) -> NDArray[np.float32]:
        """`cells` of a region as float32 from 0 to 1."""
        return self.cells[:, *region].astype(np.float32) / np.float32(_WHOLE)

    def knowledge(self, region: tuple[slice, ...] = (slice(None),) * 3) -> NDArray[np.float32]:
        """`known` of a region (1, z, y, x) as float32 from 0 to 1."""
        if self.known is None:
            shape = tuple(len(range(*part.indices(n))) for part, n in zip(region, self.shape, strict=True))
            return np.ones((1, *shape), np.float32)
        return self.known[region][np.newaxis].astype(np.float32) / np.float32(_WHOLE)

    def density(
        self, region: tuple[slice, ...] = (slice(None),) * 3, shown: tuple[int, ...] | None = None
    ) -> NDArray[np.float32]:
        """Live and dead cells per um3 in a region (2, z, y, x), as `counting.density_target` has it.

        `shown`: the voxels (z, y, x) that the region is shown with; where they are more or fewer than it has, its cells
        lie further apart or closer together, each as wide and of as much mass as ever.
        """
        ranges = [part.indices(n) for part, n in zip(region, self.shape, strict=True)]
        size = tuple(stop - start for start, stop, _ in ranges)
        shape = shown or size
        step_um = np.array(self.spacing_um)
        zoom = np.array(shape) / np.array(size)
        origin_um, size_um = np.array([start for start, _, _ in ranges]) * step_um, np.array(shape) * step_um
        reach_um = 5 * DENSITY_SIGMA_UM + step_um  # more than a cell's density reaches
        parts = []
        for points_um in (self.live_points_um, self.dead_points_um):
            at_um = (points_um - origin_um) * zoom
            near = ((at_um > -reach_um) & (at_um < size_um + reach_um)).all(axis=1)
            parts.append(density_target(at_um[near], shape, self.spacing_um))
        return np.stack(parts)

    def save(self, folder: Path) -> None:
        """Write it as a folder of .npy files; whoever reads them may take what it needs of each."""
        partial = folder.with_name(f"{folder.name}{PARTIAL}")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for number, volume in enumerate(self.variants):
            np.save(partial / f"variant_{number}.npy", volume)
        for name in _ARRAYS:
            np.save(partial / f"{name}.npy", getattr(self, name))
        if self.known is not None:
            np.save(partial / "known.npy", self.known)
        about = {"name": self.name, "spacing_um": self.spacing_um}
        (partial / "stack.json").write_text(json.dumps(about), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        replace_path(partial, folder)

    @classmethod
    def load(cls, folder: Path) -> "TrainingStack":
        """What `save` wrote, its volumes mapped from disk, not read; StackError for anything else."""
        try:
            about = parse_json((folder / "stack.json").read_text(encoding="utf-8"))
            z, y, x = (float(v) for v in about["spacing_um"])
            variants = tuple(_mapped(path) for path in sorted(folder.glob("variant_*.npy")))
            arrays = {name: _mapped(folder / f"{name}.npy") for name in _ARRAYS}
            known = _mapped(folder / "known.npy") if (folder / "known.npy").exists() else None
            return cls(str(about["name"]), (z, y, x), variants, **arrays, known=known)
        except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
            raise StackError(f"cannot be read: {error}", where=str(folder), do="remove it; it is made again") from error


def stacks_digest(stacks: Sequence[TrainingStack]) -> str:
    """A digest of what is learnt from: names, spacings, truths, and a part of the pixels of every stack, in order."""
    digest = hashlib.sha256()
    for stack in stacks:
        digest.update(f"{stack.name} {stack.spacing_um} {stack.shape} {len(stack.variants)}".encode())
        for array in (stack.live_points_um, stack.dead_points_um, stack.cells[:, :: stack.shape[0]]):
            digest.update(np.ascontiguousarray(array).tobytes())
        for volume in stack.variants:
            digest.update(np.ascontiguousarray(volume[:, :: stack.shape[0]]).tobytes())
        if stack.known is not None:
            digest.update(np.ascontiguousarray(stack.known[:: stack.shape[0]]).tobytes())
    return digest.hexdigest()


def content_digest(stacks: Sequence[TrainingStack]) -> str:
    """A digest of every byte that is learnt from, for the card: seconds for gigabytes, so that it is taken once."""
    digest = hashlib.sha256()
    for stack in stacks:
        digest.update(f"{stack.name} {stack.spacing_um}".encode())
        arrays: list[NDArray[Any]] = [stack.live_points_um, stack.dead_points_um, stack.cells, *stack.variants]
        if stack.known is not None:
            arrays.append(stack.known)
        for array in arrays:
            digest.update(f" {array.dtype.str} {array.shape}".encode())
            for part in array:  # a volume mapped from disk is never read whole
                digest.update(np.ascontiguousarray(part).data)
    return digest.hexdigest()


def _mapped(path: Path) -> NDArray[Any]:
    """An array on disk; only the parts that are looked at are read. One without elements cannot be mapped."""
    array: NDArray[Any] = (
        np.load(path, mmap_mode="r", allow_pickle=False) if path.stat().st_size > 256 else np.load(path)
    )
    return array


def prepare_stack(
    name: str,
    stack: Pixels,
    masks: tuple[NDArray[np.bool_], NDArray[np.bool_]],
    points_um: tuple[NDArray[np.float64], NDArray[np.float64]],
    own_um: Spacing,
    spacing_um: Spacing,
    limits: Sequence[Mapping[str, Limits] | None],
    known: NDArray[np.bool_] | None = None,
) -> TrainingStack:
    """A raw stack (2, z, y, x) of voxels `own_um`, with its live and dead masks and centres, brought to `spacing_um`.

    Each of `limits` makes one variant; None stands for the stack's own. `known`: where anybody could tell.
    """
    preprocessor = filter_stack(stack, own_um, spacing_um)
    n_z = preprocessor.shape[0]
    variants = tuple(
        preprocessor.volume(0, n_z, preprocessor.limits() if one is None else one).astype(np.float16) for one in limits
    )
    cells = np.stack([covered(mask, own_um, spacing_um) for mask in masks])
    part = None if known is None else covered(known, own_um, spacing_um)
    return TrainingStack(name, spacing_um, variants, cells, *points_um, known=part)


def filter_stack(stack: Pixels, own_um: Spacing, spacing_um: Spacing) -> StreamingPreprocessor:
    """A finished preprocessor over a raw stack (2, z, y, x): its limits, histograms and volumes can be asked for."""
    _, n_z, height, width = stack.shape
    preprocessor = StreamingPreprocessor(n_z, height, width, own_um[2], own_um[0], CHANNELS, spacing_um)
    for channel, pixels in zip(CHANNELS, stack, strict=True):
        preprocessor.feed(channel, 0, pixels)
    preprocessor.finish()
    return preprocessor


def stack_light(stack: Pixels, own_um: Spacing, filtered: StreamingPreprocessor) -> StackLight:
    """What a raw stack (2, z, y, x) says of its plate's light; `filtered` is it through `filter_stack`."""
    _, n_z, height, width = stack.shape
    plan = StackPlan(StackKey("light", WellId(0, 0)), CHANNELS, n_z, height, width, own_um[2], own_um[0])
    coarse = CoarseStack(plan)
    for channel, pixels in zip(CHANNELS, stack, strict=True):
        coarse.feed(channel, 0, pixels)
    return coarse.light(filtered.histograms(), filtered.raw_histograms())


def covered(mask: NDArray[np.bool_], own_um: Spacing, spacing_um: Spacing) -> NDArray[np.uint8]:
    """The part of each voxel that the mask covers, in 1/255; planes first, because a mask as float32 is large."""
    in_plane = (own_um[0], spacing_um[1], spacing_um[2])
    parts = [resample(mask[z : z + _PLANES].astype(np.float32), own_um, in_plane) for z in range(0, len(mask), _PLANES)]
    part = resample(np.concatenate(parts), in_plane, spacing_um)
    return np.rint(part * _WHOLE).astype(np.uint8)
