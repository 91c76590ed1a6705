"""A cell's boundary at half its height: where its light falls to the middle between the cell and the ground around it.

A blurred edge of a body lies at half height, whatever the lens, the dye and the haze; a network knows the edges that it
learned from. The network says where cells are, and so which light is a cell's and which is ground; the image says where
the edge lies. Both are weighed: to the logit of the network's probability a term is added that is 0 at half height.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from spheroidd.inference.preprocessing.intensity import normalise
from spheroidd.inference.preprocessing.jit import kernel
from spheroidd.inference.preprocessing.resample import (
    NativeMasks,
    NativePlanes,
    Shape,
    Spacing,
    combine,
    resample,
)
from spheroidd.protocols.pixels import Pixels
from spheroidd.protocols.results import Limits
from spheroidd.protocols.stack import CHANNELS

Floats = NDArray[np.float32]

STEEPNESS = 30.0  # of the term, in units of the logit from the ground to the cell's height
CONTRAST = 1.75  # sd of the normalised channel: cells that stand out less are left to the network more and more
CELL_UM, GROUND_UM = 2.0, 5.0  # sigmas within which a cell's height and its ground are averaged
BRIGHT = 0.6  # power with which brighter parts of a cell count for more: its rim is part ground
ROUNDS = 2  # the second finds heights with the boundaries of the first
SURE = 6.0  # logit at which the network's word is held
TRUNCATE = 3.0  # sigmas after which a Gaussian is 0
_COARSE_UM = 2.0  # averages that wide lose nothing on a coarser grid


class KeepsSlices(Protocol):
    """A preprocessor that keeps its filtered slices at the stack's own sampling until they are released."""

    @property
    def shape(self) -> Shape:
        """The volume's (z, y, x) at the model's spacing."""
        ...

    @property
    def channels(self) -> tuple[str, ...]:
        """Those that the stack has."""
        ...

    def limits(self) -> dict[str, Limits]:
        """The stack's own limits."""
        ...

    def sparse(self) -> frozenset[str]:
        """Channels whose own limits were widened, because cells fill little of the field."""
        ...

    def volume(self, z_start: int, z_stop: int, limits: Mapping[str, Limits]) -> Floats:
        """The normalised planes (2, z, y, x) at the model's spacing."""
        ...

    def filtered(self, channel: str, z: int) -> Pixels:
        """A slice (y, x) after the median."""
        ...

    def release(self, below_z: int) -> None:
        """Let go the slices below."""
        ...


class Edge(NamedTuple):
    """Inside is where `slope` times the normalised channel plus `offset` is above 0; both float32 (z, y, x)."""

    slope: Any
    offset: Any


def half_height(channel: Floats, probability: Floats, spacing_um: Spacing, *, sparse: bool = False) -> Edge:
    """The boundary in one normalised channel (z, y, x), given the network's probability of it.

    In a `sparse` field, where the limits are such that any cell is bright, nothing that stands out by less than
    `CONTRAST` counts as one. Elsewhere the network decides about the dim.
    """
    return edge_by(np, partial(_wide, spacing_um=spacing_um), channel, probability, sparse=sparse)


def edge_by(arrays: Any, wide: Callable[..., Any], channel: Any, probability: Any, *, sparse: bool) -> Edge:
    """`half_height` by numpy or torch (`arrays`), whose arrays the others are; `wide(values, sigma_um=...)` smooths."""
    said = _logit(arrays, probability)
    inside, edge = probability, Edge(arrays.zeros_like(channel), said)
    for number in range(ROUNDS):
        if number:
            inside = 1 / (1 + arrays.exp(-arrays.clip(edge.slope * channel + edge.offset, -30, 30)))
        ground = _average(wide, channel, 1 - inside, GROUND_UM)
        weight = inside * arrays.clip(channel - ground, 0.01, None) ** BRIGHT
        height = _average(wide, channel, weight, CELL_UM) - ground
        if sparse:
            slope = STEEPNESS / arrays.clip(height, CONTRAST, None)
            edge = Edge(slope, said - slope * ground - STEEPNESS / 2)
        else:
            trust = STEEPNESS * arrays.clip(height / CONTRAST, 0, 1) ** 2
            slope = trust / arrays.clip(height, 0.01, None)
            edge = Edge(slope, said - slope * ground - trust / 2)
    nobody = said <= -SURE  # there the network is sure, and rows of it need not be looked at
    edge.slope[nobody], edge.offset[nobody] = 0, -SURE
    return edge


def _logit(arrays: Any, probability: Any) -> Any:
    """log(p / (1 - p)), held within `SURE`."""
    least = float(np.float32(1 / (1 + np.exp(SURE))))
    held = arrays.clip(probability, least, 1 - least)
    return arrays.clip(arrays.log(held / (1 - held)), -SURE, SURE)


def _average(wide: Callable[..., Any], channel: Any, weight: Any, sigma_um: float) -> Any:
    """The weighted mean of the channel around each voxel."""
    total, norm = (wide(values, sigma_um=sigma_um) for values in (channel * weight, weight))
    return total / (norm + 1e-3)


def coarse_steps(spacing_um: Spacing) -> tuple[int, int, int]:
    """How many voxels along (z, y, x) one of the grid has on which averages are taken."""
    z, y, x = (max(1, int(_COARSE_UM / step)) for step in spacing_um)
    return z, y, x


def _wide(values: Floats, *, spacing_um: Spacing, sigma_um: float) -> Floats:
    """Smoothed by a Gaussian, on a grid as coarse as it may be; the nearest voxel stands for what lies outside."""
    from scipy import ndimage  # half a second to import, and a run's main process only asks for names

    every = coarse_steps(spacing_um)
    pad = [(0, -n % by) for n, by in zip(values.shape, every, strict=True)]
    coarse_um: Any = tuple(by * step for by, step in zip(every, spacing_um, strict=True))
    padded = np.pad(values, pad, mode="edge").astype(np.float32, copy=False)
    coarse = resample(padded, spacing_um, coarse_um)
    smooth = ndimage.gaussian_filter(coarse, [sigma_um / step for step in coarse_um], truncate=TRUNCATE, mode="nearest")
    z, y, x = values.shape
    return resample(smooth, coarse_um, spacing_um)[:z, :y, :x]


def shows_cells(name: str, channels: tuple[str, ...], *, known: bool) -> bool:
    """Whether contrast in a channel means cells, so that its image has a say in where they end.

    Without limits that were `known` a stack's own stretch whatever a channel holds. Where hardly a cell took one of two
    dyes that is the other's bleed-through, which the network tells from cells and a height does not.
    """
    return name in channels and (known or len(channels) == 1)


class _Kept(NamedTuple):
    """One channel's edge in one plane at the model's spacing, and the rows in which there may be anything."""

    slope: Floats
    offset: Floats
    looked_at: NDArray[np.bool_]


class HalfHeightMasks:
    """`MaskResampler` with boundaries at half height, found in the slices at the stack's own sampling.

    Feed it slab by slab, as they are segmented: heights are averaged within a slab. `limits` None: the stack's own.
    """

    def __init__(
        self,
        preprocessor: KeepsSlices,
        model_spacing_um: Spacing,
        shape: Shape,
        spacing_um: Spacing,
        limits: Mapping[str, Limits] | None = None,
    ) -> None:
        self._source, self._model_um, self._known = preprocessor, model_spacing_um, limits
        self._planes = NativePlanes(preprocessor.shape, model_spacing_um, shape, spacing_um)
        self._limits: Mapping[str, Limits] = {}
        self._kept: dict[int, list[_Kept]] = {}
        self._image = np.zeros(shape[1:], np.float32)  # stays so for a channel that the stack does not have

    def feed(self, z_start: int, live: Floats, dead: Floats) -> Iterator[NativeMasks]:
        """Take the next slab's probabilities (z, y, x); iterate over the native planes that can be had with them.

        StackError for planes out of order.
        """
        self._planes.take(z_start, live, dead)
        z_stop = z_start + len(live)
        self._limits = self._known or self._source.limits()
        sparse = self._source.sparse() if self._known is None else frozenset()
        volume = self._source.volume(z_start, z_stop, self._limits)
        for name, channel, probability in zip(CHANNELS, volume, (live, dead), strict=True):
            if shows_cells(name, self._source.channels, known=self._known is not None):
                edge = half_height(channel, probability, self._model_um, sparse=name in sparse)
                looked_at = np.any((edge.offset > -SURE) | (edge.slope > 0), axis=2)
            else:
                edge = Edge(np.zeros_like(channel), probability - np.float32(0.5))
                looked_at = np.any(edge.offset > 0, axis=2)
            for at, z in enumerate(range(z_start, z_stop)):
                self._kept.setdefault(z, []).append(_Kept(edge.slope[at], edge.offset[at], looked_at[at]))
        return self._ready()

    def finish(self) -> Iterator[NativeMasks]:
        """Iterate over what is left; StackError where model planes are missing."""
        self._planes.end()
        return self._ready()

    def _ready(self) -> Iterator[NativeMasks]:
        for planes in self._planes.ready():
            live, dead = (np.zeros((len(planes), *self._planes.shape[1:]), np.bool_) for _ in range(2))
            for i, z in enumerate(planes):
                for number, (name, mask) in enumerate(zip(CHANNELS, (live[i], dead[i]), strict=True)):
                    self._fill(z, number, name, mask)
            self._source.release(planes.stop)
            yield NativeMasks(planes.start, live, dead)
        first = self._planes.first_needed
        self._kept = {z: [_copy(one) for one in plane] for z, plane in self._kept.items() if z >= first}

    def _fill(self, z: int, number: int, name: str, mask: NDArray[np.bool_]) -> None:
        along_z = self._planes.z
        start, count = int(along_z.starts[z]), int(along_z.counts[z])
        planes = [self._kept[start + k][number] for k in range(count)]
        looked_at = np.logical_or.reduce([plane.looked_at for plane in planes])
        if not looked_at.any():
            return
        if name in self._source.channels:
            normalise(self._source.filtered(name, z), self._limits[name], self._image)
        slope, offset = planes[0].slope, planes[0].offset
        if count > 1:
            slope, offset = np.empty_like(slope), np.empty_like(offset)
            combine([plane.slope for plane in planes], along_z.weights[z], slope)
            combine([plane.offset for plane in planes], along_z.weights[z], offset)
        slope, offset = np.ascontiguousarray(slope), np.ascontiguousarray(offset)
        _edge_plane(self._image, slope, offset, looked_at, self._planes.y, self._planes.x, mask)


def _copy(kept: _Kept) -> _Kept:
    """A plane that does not hold its whole slab."""
    return _Kept(kept.slope.copy(), kept.offset.copy(), kept.looked_at.copy())


@kernel
def _along_row(row, axis, out):  # type: ignore[no-untyped-def]
    starts, counts, weights = axis
    for i in range(out.size):
        start = starts[i]
        value = row[start] * weights[i, 0]
        for k in range(1, counts[i]):
            value += row[start + k] * weights[i, k]
        out[i] = value


@kernel
def _edge_plane(image, slope, offset, looked_at, y, x, mask):  # type: ignore[no-untyped-def]
    """Fill a mask of False where slope * image + offset is above 0; the image is smoothed by 1 4 6 4 1 on the way."""
    starts, counts, weights = y
    height, width = mask.shape
    slopes = np.empty((2, width), np.float32)  # rows of the plane, resampled along x: row r stands in r % 2
    offsets = np.empty((2, width), np.float32)
    holds = np.array([-1, -1])
    line = np.empty(width + 4, np.float32)
    four, six, part = np.float32(4), np.float32(6), np.float32(1 / 256)
    for i in range(height):
        start, stop = starts[i], starts[i] + counts[i]
        if not (looked_at[start] or looked_at[stop - 1]):
            continue
        for r in range(start, stop):
            if holds[r % 2] != r:
                _along_row(slope[r], x, slopes[r % 2])
                _along_row(offset[r], x, offsets[r % 2])
                holds[r % 2] = r
        near, far = start % 2, (stop - 1) % 2
        a, b = weights[i, 0], weights[i, 1]
        up2, up1 = image[max(i - 2, 0)], image[max(i - 1, 0)]
        here = image[i]
        down1, down2 = image[min(i + 1, height - 1)], image[min(i + 2, height - 1)]
        for j in range(width):
            line[j + 2] = up2[j] + down2[j] + four * (up1[j] + down1[j]) + six * here[j]
        line[0] = line[1] = line[2]
        line[width + 2] = line[width + 3] = line[width + 1]
        near_slope, far_slope, near_offset, far_offset = slopes[near], slopes[far], offsets[near], offsets[far]
        out = mask[i]
        for j in range(width):
            smooth = (line[j] + line[j + 4] + four * (line[j + 1] + line[j + 3]) + six * line[j + 2]) * part
            steep = near_slope[j] * a + far_slope[j] * b
            out[j] = steep * smooth + (near_offset[j] * a + far_offset[j] * b) > 0
