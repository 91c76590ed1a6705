"""Boundaries at half height on a torch device: what crosses back is a byte a voxel of the stack.

`half_height`'s own formulas, on tensors. A Gaussian on a coarser grid is the same matrix for every row of an axis, so
averages are products of matrices. Masks differ from the numba path's only where the edge's own height is 0 to a
ten-thousandth: there the last digit of a logarithm or a sum decides.
"""

import math
from collections.abc import Iterator, Mapping
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from spheroidd.inference.preprocessing.device_stream import DeviceAxis, DevicePreprocessor, combined, portion_of
from spheroidd.inference.preprocessing.intensity import normalise_torch
from spheroidd.inference.preprocessing.resample import (
    Axis,
    NativeMasks,
    NativePlanes,
    Shape,
    Spacing,
    resampling_axis,
)
from spheroidd.inference.segmentation.half_height import (
    TRUNCATE,
    Edge,
    Floats,
    coarse_steps,
    edge_by,
    shows_cells,
)
from spheroidd.protocols.results import Limits
from spheroidd.protocols.stack import CHANNELS


class DeviceHalfHeightMasks:
    """`HalfHeightMasks` where the slices are; fed and finished alike, with the same errors."""

    def __init__(
        self,
        preprocessor: DevicePreprocessor,
        model_spacing_um: Spacing,
        shape: Shape,
        spacing_um: Spacing,
        limits: Mapping[str, Limits] | None = None,
    ) -> None:
        self._source, self._known, self._device = preprocessor, limits, preprocessor.device
        self._planes = NativePlanes(preprocessor.shape, model_spacing_um, shape, spacing_um)
        self._y, self._x = (DeviceAxis(axis, self._device) for axis in (self._planes.y, self._planes.x))
        self._smoothing = Smoothing(model_spacing_um, self._device)
        self._portion = portion_of(shape)
        self._limits: Mapping[str, Limits] = {}
        self._kept: dict[int, torch.Tensor] = {}  # (channel, slope and offset, y, x), by model z

    def feed(self, z_start: int, live: Floats, dead: Floats) -> Iterator[NativeMasks]:
        """Take the next slab's probabilities (z, y, x); iterate over the native planes that can be had with them.

        StackError for planes out of order.
        """
        self._planes.take(z_start, live, dead)
        self._limits = self._known or self._source.limits()
        sparse = self._source.sparse() if self._known is None else frozenset()
        volume = self._source.volume_on_device(z_start, z_start + len(live), self._limits)
        edges = torch.empty((len(live), len(CHANNELS), 2, *live.shape[1:]), device=self._device)
        for number, (name, said) in enumerate(zip(CHANNELS, (live, dead), strict=True)):
            probability = torch.from_numpy(np.array(said)).to(self._device)
            if shows_cells(name, self._source.channels, known=self._known is not None):
                edge = edge_by(torch, self._smoothing, volume[number], probability, sparse=name in sparse)
            else:
                edge = Edge(torch.zeros_like(probability), probability - 0.5)
            edges[:, number, 0], edges[:, number, 1] = edge
        self._kept |= dict(enumerate(edges, z_start))
        return self._ready()

    def finish(self) -> Iterator[NativeMasks]:
        """Iterate over what is left; StackError where model planes are missing."""
        self._planes.end()
        return self._ready()

    def _ready(self) -> Iterator[NativeMasks]:
        for planes in self._planes.ready():
            starts = range(planes.start, planes.stop, self._portion)
            found = [self._native(range(start, min(start + self._portion, planes.stop))) for start in starts]
            self._source.release(planes.stop)
            live, dead = (np.ascontiguousarray(mask) for mask in torch.cat(found, 1).cpu().numpy())
            yield NativeMasks(planes.start, live, dead)
        first = self._planes.first_needed
        self._kept = {z: plane.clone() for z, plane in self._kept.items() if z >= first}

    def _native(self, planes: range) -> torch.Tensor:
        """Masks (channel, z, y, x) of some native planes; edges are interpolated along z, x and y, as by numba."""
        z = self._planes.z
        between = [
            combined([self._kept[int(z.starts[i]) + k] for k in range(int(z.counts[i]))], z.weights[i]) for i in planes
        ]
        edges = torch.stack(between, 1)
        masks = torch.zeros(
            (len(CHANNELS), len(planes), *self._planes.shape[1:]), dtype=torch.bool, device=self._device
        )
        for mask, edge, name in zip(masks, edges, CHANNELS, strict=True):
            slope, offset = (self._y.along(self._x.along(part, 2), 1) for part in edge.unbind(1))
            if name in self._source.channels:
                slices = self._source.filtered_on_device(name, planes.start, planes.stop)
                offset += slope.mul_(_smooth(normalise_torch(slices, self._limits[name])))
            torch.gt(offset, 0, out=mask)
        return masks


def _smooth(slices: torch.Tensor) -> torch.Tensor:
    """Slices (n, y, x) smoothed by 1 4 6 4 1 along y and x; the outermost pixel stands for what lies outside."""
    padded = functional.pad(slices[None], (2, 2, 2, 2), mode="replicate")[0]
    return _binomial(_binomial(padded, 1), 2).mul_(1 / 256)


def _binomial(planes: torch.Tensor, axis: int) -> torch.Tensor:
    size = planes.shape[axis] - 4
    far, near, here = (planes.narrow(axis, at, size) for at in (0, 1, 2))
    total = far + planes.narrow(axis, 4, size)
    total += (near + planes.narrow(axis, 3, size)).mul_(4)
    return total.add_(here * 6)


class Smoothing:
    """`half_height._wide` as two matrices an axis: down to the coarse grid, where the Gaussian is, and back."""

    def __init__(self, spacing_um: Spacing, device: torch.device) -> None:
        self._axes = list(zip(spacing_um, coarse_steps(spacing_um), strict=True))
        self._device = device
        self._matrices = cache(self._made)  # of a handful of sizes

    def __call__(self, values: torch.Tensor, *, sigma_um: float) -> torch.Tensor:
        """Values (z, y, x), smoothed."""
        pairs = [self._matrices(axis, n, sigma_um) for axis, n in enumerate(values.shape)]
        for number in range(2):  # all axes down, then all back: what lies between is small
            z, y, x = (pair[number] for pair in pairs)
            values = (z @ values.flatten(1)).view(len(z), *values.shape[1:])
            values = y @ values @ x.T
        return values

    def _made(self, axis: int, n: int, sigma_um: float) -> tuple[torch.Tensor, torch.Tensor]:
        step, every = self._axes[axis]
        padded, coarse_um = n + -n % every, every * step
        down = _matrix(resampling_axis(padded, step, coarse_um), padded)
        down[:, n - 1] += down[:, n:].sum(1)  # the last voxel stands for what was padded
        back = _matrix(resampling_axis(len(down), coarse_um, step), len(down))[:n]
        smooth = _gaussian(len(down), sigma_um / coarse_um) @ down[:, :n]
        first, second = (torch.from_numpy(one.astype(np.float32)).to(self._device) for one in (smooth, back))
        return first, second


def _matrix(axis: Axis, n: int) -> NDArray[np.float64]:
    """A resampling of n voxels as a matrix (outputs, inputs)."""
    matrix = np.zeros((len(axis.starts), n))
    for row, start, count, weights in zip(matrix, *axis, strict=True):
        row[start : start + count] = weights[:count]
    return matrix


def _gaussian(n: int, sigma: float) -> NDArray[np.float64]:
    """`scipy.ndimage.gaussian_filter1d(..., mode="nearest")` along n voxels as a matrix."""
    reach = math.floor(TRUNCATE * sigma + 0.5)
    steps = np.arange(-reach, reach + 1)
    weights = np.exp(-0.5 * (steps / sigma) ** 2)
    weights /= weights.sum()
    matrix = np.zeros((n, n))
    for step, weight in zip(steps, weights, strict=True):
        np.add.at(matrix, (np.arange(n), np.clip(np.arange(n) + step, 0, n - 1)), weight)
    return matrix
