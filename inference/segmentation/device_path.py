"""The way of a stack that stays on a torch device from its raw slices to its native masks.

Only pixels go in and only masks, densities and counts of voxels come out: slices cross once (`DevicePreprocessor`), the
tiles of a slab are inferred in batches, and probabilities become masks at the stack's own sampling before they cross
back. Objects are counted on the host, at a micrometre a voxel. On a CPU the numba path is quicker; there this path
serves to prove that both say the same.
"""

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from spheroidd.inference.preprocessing.device_stream import DeviceAxis, DevicePreprocessor, combined
from spheroidd.inference.preprocessing.resample import NativeMasks, NativePlanes, Shape, Spacing
from spheroidd.inference.segmentation.segmenter import UNetSegmenter
from spheroidd.inference.segmentation.streaming import StreamingSegmentation, inside
from spheroidd.inference.segmentation.tiles import Tile
from spheroidd.protocols.ports import Prediction
from spheroidd.protocols.results import Limits

BATCH_VOXELS = 1 << 24  # of input: a gigabyte of the widest features in bfloat16


class DeviceSegmentation(StreamingSegmentation):
    """`StreamingSegmentation` whose tiles are cut, batched and joined on the device; the slabs are the same."""

    def __init__(
        self,
        preprocessor: DevicePreprocessor,
        segmenter: UNetSegmenter,
        *,
        limits: Mapping[str, Limits] | None = None,
        tolerance: float = 0.0,
    ) -> None:
        super().__init__(preprocessor, segmenter, limits=limits, tolerance=tolerance)
        self._source, self._network = preprocessor, segmenter

    def _infer(self, row: Tile, limits: Mapping[str, Limits]) -> Prediction:
        """One row of tiles across the whole field, trimmed to its core; of all tiles that fit into a batch at once."""
        volume = self._source.volume_on_device(row.start, self._stop(row), limits)
        depth, height, width = row.core_stop - row.core_start, *self._source.shape[1:]
        whole = torch.empty((4, depth, height, width), device=volume.device)
        tiles = [(y, x) for y in self._tiles_y for x in self._tiles_x]
        each = (row.stop - row.start) * max((y.stop - y.start) * (x.stop - x.start) for y, x in tiles)
        at_once = max(1, BATCH_VOXELS // each)
        for start in range(0, len(tiles), at_once):
            some = tiles[start : start + at_once]
            regions = torch.stack([_cut(volume, (Tile(0, row.stop - row.start, 0, 0), y, x)) for y, x in some])
            for (y, x), found in zip(some, self._network.predict_many(regions), strict=True):
                core = found[:, inside(row), inside(y), inside(x)]
                whole[:, :, y.core_start : y.core_stop, x.core_start : x.core_stop] = core
        return Prediction(*whole.cpu().numpy())


class DeviceMasks:
    """`MaskResampler` on a device: what crosses back is a byte a voxel of the stack."""

    def __init__(
        self,
        model_shape: Shape,
        model_spacing_um: Spacing,
        shape: Shape,
        spacing_um: Spacing,
        *,
        device: torch.device,
        threshold: float = 0.5,
    ) -> None:
        self._planes = NativePlanes(model_shape, model_spacing_um, shape, spacing_um)
        self._y, self._x = DeviceAxis(self._planes.y, device), DeviceAxis(self._planes.x, device)
        self._threshold, self._device = threshold, device
        self._kept: dict[int, torch.Tensor] = {}  # (live and dead, y, x), by model z

    def feed(self, z_start: int, live: NDArray[np.float32], dead: NDArray[np.float32]) -> Iterator[NativeMasks]:
        """Take the next model planes (z, y, x); iterate over the native planes that can be had with them."""
        self._planes.take(z_start, live, dead)
        both = torch.from_numpy(np.stack([live, dead], axis=1)).to(self._device)
        self._kept |= dict(enumerate(both, z_start))
        return self._ready()

    def finish(self) -> Iterator[NativeMasks]:
        """Iterate over what is left; StackError where model planes are missing."""
        self._planes.end()
        return self._ready()

    def _ready(self) -> Iterator[NativeMasks]:
        for planes in self._planes.ready():
            found = torch.stack([self._native(z) for z in planes]).cpu().numpy()
            yield NativeMasks(planes.start, np.ascontiguousarray(found[:, 0]), np.ascontiguousarray(found[:, 1]))
        first = self._planes.first_needed
        self._kept = {z: plane for z, plane in self._kept.items() if z >= first}

    def _native(self, z: int) -> torch.Tensor:
        """Both masks of one native plane: interpolated along z, x and y, as the numba path does."""
        along_z = self._planes.z
        start, count = int(along_z.starts[z]), int(along_z.counts[z])
        between = combined([self._kept[start + k] for k in range(count)], along_z.weights[z])
        return self._y.along(self._x.along(between, 2), 1) > self._threshold


def _cut(volume: torch.Tensor, tiles: tuple[Tile, Tile, Tile]) -> torch.Tensor:
    """`segmenter.cut_tile` on the device."""
    part = volume[:, *(slice(tile.start, tile.stop) for tile in tiles)]
    for axis, tile in enumerate(tiles, 1):
        missing = tile.stop - tile.start - part.shape[axis]
        if missing > 0:
            edge = part.narrow(axis, part.shape[axis] - 1, 1)
            part = torch.cat([part, *[edge] * missing], axis)
    return part
