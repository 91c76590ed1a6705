"""Volumes from one voxel size to another, and masks back. Knows no intensities.

Coordinates are physical and voxels are boxes: voxel i of an axis covers [i * spacing, (i + 1) * spacing), so two
samplings of one stack share their first edge. An axis that shrinks is averaged over the exact overlap of the boxes; an
axis that grows is interpolated linearly between box centres. Every output depends on its own inputs alone, in a fixed
order of operations, so slices may come in any portions and the result has the same bits.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from spheroidd.inference.preprocessing.jit import kernel
from spheroidd.protocols.errors import ConfigError, StackError

Spacing = tuple[float, float, float]
Shape = tuple[int, int, int]
_DIGITS = 9  # of a ratio of spacings: 0.3 / 0.1 must be 3, not 2.9999999999999996
MASK_PLANES = 8  # native planes handed out at once: 10 MB for the two masks of a screen stack


class Axis(NamedTuple):
    """out[i] = sum of weights[i, k] * in[starts[i] + k] over k < counts[i]; starts and stops never fall."""

    starts: NDArray[np.int64]
    counts: NDArray[np.int64]
    weights: NDArray[np.float32]

    @property
    def stops(self) -> NDArray[np.int64]:
        """How many inputs, from the first, each output needs."""
        return self.starts + self.counts


def resampled_size(n: int, spacing_um: float, wanted_um: float) -> int:
    """Voxels of an axis at the wanted spacing: the nearest number, at least 1.

    >>> resampled_size(800, 0.125, 0.5), resampled_size(200, 0.5, 0.1)
    (200, 1000)
    """
    return max(1, round(round(n * spacing_um / wanted_um, _DIGITS)))


def resampling_axis(n: int, spacing_um: float, wanted_um: float) -> Axis:
    """Area averaging where voxels get larger, linear interpolation where they get smaller."""
    n_out, ratio = resampled_size(n, spacing_um, wanted_um), wanted_um / spacing_um
    return _averaging(n, n_out, ratio) if ratio > 1 else interpolating_axis(n, n_out, ratio)


def _averaging(n: int, n_out: int, ratio: float) -> Axis:
    edges = np.minimum(np.round(np.arange(n_out + 1) * ratio, _DIGITS), n)
    starts = np.floor(edges[:-1]).astype(np.int64)
    counts = np.ceil(edges[1:]).astype(np.int64) - starts
    boxes = starts[:, np.newaxis] + np.arange(counts.max())
    overlap = np.minimum(boxes + 1, edges[1:, np.newaxis]) - np.maximum(boxes, edges[:-1, np.newaxis])
    overlap = overlap.clip(0)
    return Axis(starts, counts, (overlap / overlap.sum(1, keepdims=True)).astype(np.float32))


def interpolating_axis(n: int, n_out: int, ratio: float) -> Axis:
    """Sample n voxels at the centres of n_out boxes of `ratio` voxels; the outermost voxels are repeated."""
    centres = np.round((np.arange(n_out) + 0.5) * ratio - 0.5, _DIGITS).clip(0, n - 1)
    starts = np.floor(centres).astype(np.int64)
    part = centres - starts
    counts = np.where(part > 0, 2, 1).astype(np.int64)
    return Axis(starts, counts, np.stack([1 - part, part], 1).astype(np.float32))


class PlaneResampler:
    """Resamples the planes of one stack in y and x; one instance serves one thread."""

    def __init__(self, y: Axis, x: Axis) -> None:
        self._y, self._x = y, x
        self.shape = (len(y.starts), len(x.starts))

    def resample(self, plane: NDArray[np.float32]) -> NDArray[np.float32]:
        """A plane (y, x) at the new spacing."""
        out = np.empty(self.shape, np.float32)
        _resample_plane(_read_only(plane), self._y, self._x, out)
        return out


def combine(planes: list[NDArray[np.float32]], weights: NDArray[np.float32], out: NDArray[np.float32]) -> None:
    """Write the weighted sum of planes of equal shape into `out`, adding in their order."""
    np.multiply(planes[0], weights[0], out=out)
    for plane, weight in zip(planes[1:], weights[1:], strict=False):
        out += plane * weight


def resample(volume: NDArray[np.float32], spacing_um: Spacing, wanted_um: Spacing) -> NDArray[np.float32]:
    """A whole volume (z, y, x) at the wanted spacing: first y, then x, then z."""
    z, y, x = (resampling_axis(*axis) for axis in zip(volume.shape, spacing_um, wanted_um, strict=True))
    planes = PlaneResampler(y, x)
    flat = [planes.resample(plane) for plane in volume]
    out = np.empty((len(z.starts), *planes.shape), np.float32)
    for i, (start, count) in enumerate(zip(z.starts, z.counts, strict=True)):
        combine(flat[start : start + count], z.weights[i], out[i])
    return out


class NativeMasks(NamedTuple):
    """Whole planes from z_start on, at the stack's own sampling; both bool (z, y, x)."""

    z_start: int
    live: NDArray[np.bool_]
    dead: NDArray[np.bool_]


class MakesMasks(Protocol):
    """Turns a stack's probabilities into masks at its own sampling, slab by slab."""

    def feed(self, z_start: int, live: NDArray[np.float32], dead: NDArray[np.float32]) -> Iterator[NativeMasks]:
        """Take the next model planes (z, y, x); iterate over the native planes that can be had with them.

        StackError for planes out of order.
        """
        ...

    def finish(self) -> Iterator[NativeMasks]:
        """Iterate over what is left; StackError where model planes are missing."""
        ...


class NativePlanes:
    """Planes at a model's spacing taken in z order, and the planes at the stack's own sampling that can be had of them.

    `z`, `y` and `x` say of which model planes, rows and columns each native one is interpolated. ConfigError for sizes
    and spacings that are not above 0.
    """

    def __init__(self, model_shape: Shape, model_spacing_um: Spacing, shape: Shape, spacing_um: Spacing) -> None:
        if min(*model_shape, *shape) < 1 or min(*model_spacing_um, *spacing_um) <= 0:
            raise ConfigError(f"masks cannot go from {model_shape} to {shape}", do="give sizes and spacings above 0")
        axes = zip(model_shape, shape, model_spacing_um, spacing_um, strict=True)
        self.z, self.y, self.x = (interpolating_axis(n, n_out, own / model) for n, n_out, model, own in axes)
        self.model_shape, self.shape = model_shape, shape
        self._taken = self._given = 0

    def take(self, z_start: int, live: NDArray[np.float32], dead: NDArray[np.float32]) -> None:
        """Count the next model planes (z, y, x); StackError for planes out of order, of another size or too many."""
        n_z, height, width = self.model_shape
        if z_start != self._taken or live.shape != dead.shape or live.shape[1:] != (height, width):
            what = f"probabilities {live.shape} and {dead.shape} arrived for plane {z_start}"
            raise StackError(what, do=f"feed planes of ({height}, {width}) in order, next is {self._taken}")
        if z_start + len(live) > n_z:
            raise StackError(
                f"planes to {z_start + len(live)} arrived for a volume of {n_z}", do="feed each plane once"
            )
        self._taken += len(live)

    def end(self) -> None:
        """StackError where model planes are missing."""
        if self._taken < self.model_shape[0]:
            what = f"only {self._taken} of {self.model_shape[0]} planes were segmented"
            raise StackError(what, do="feed every plane before finishing")

    def ready(self) -> Iterator[range]:
        """The native planes that can be had now and were not before, a few at a time; `first_needed` follows them."""
        stop = int(np.searchsorted(self.z.stops, self._taken, side="right"))
        for start in range(self._given, stop, MASK_PLANES):
            self._given = min(start + MASK_PLANES, stop)
            yield range(start, self._given)

    @property
    def first_needed(self) -> int:
        """The first model plane that native planes still to come are made of."""
        return int(self.z.starts[self._given]) if self._given < len(self.z.starts) else self.model_shape[0]


class MaskResampler:
    """Probabilities at the model's spacing, in z order, to masks at the stack's own: interpolated, then thresholded.

    A voxel is True where the probability, interpolated linearly at its centre, is above `threshold`.
    """

    def __init__(
        self,
        model_shape: Shape,
        model_spacing_um: Spacing,
        shape: Shape,
        spacing_um: Spacing,
        threshold: float = 0.5,
    ) -> None:
        self._planes = NativePlanes(model_shape, model_spacing_um, shape, spacing_um)
        self._threshold = np.float32(threshold)
        self._kept: dict[int, tuple[NDArray[np.float32], NDArray[np.float32]]] = {}  # the last planes, by model z

    def feed(self, z_start: int, live: NDArray[np.float32], dead: NDArray[np.float32]) -> Iterator[NativeMasks]:
        """Take the next model planes (z, y, x); iterate over the native planes that can be had with them."""
        self._planes.take(z_start, live, dead)
        self._kept |= {z_start + i: pair for i, pair in enumerate(zip(live, dead, strict=True))}
        return self._ready()

    def finish(self) -> Iterator[NativeMasks]:
        """Iterate over what is left; StackError where model planes are missing."""
        self._planes.end()
        return self._ready()

    def _ready(self) -> Iterator[NativeMasks]:
        for planes in self._planes.ready():
            live, dead = (np.zeros((len(planes), *self._planes.shape[1:]), np.bool_) for _ in range(2))
            for i, z in enumerate(planes):
                self._fill(z, live[i], dead[i])
            self._forget(is_last=False)
            yield NativeMasks(planes.start, live, dead)
        self._forget(is_last=True)

    def _fill(self, z: int, *masks: NDArray[np.bool_]) -> None:
        of = self._planes
        start, count = of.z.starts[z], of.z.counts[z]
        for kind, mask in enumerate(masks):
            planes = [self._kept[start + k][kind] for k in range(count)]
            if max(float(plane.max()) for plane in planes) <= self._threshold:
                continue
            between = planes[0]
            if count > 1:
                between = np.empty(of.model_shape[1:], np.float32)
                combine(planes, of.z.weights[z], between)
            _mask_plane(_read_only(between), of.y, of.x, self._threshold, mask)

    def _forget(self, is_last: bool) -> None:
        """Keep no plane that only past output needed, and a copy of the rest: it is a small part of a slab."""
        first = self._planes.first_needed
        kept = {z: pair for z, pair in self._kept.items() if z >= first}
        self._kept = {z: (live.copy(), dead.copy()) for z, (live, dead) in kept.items()} if is_last else kept


def _read_only(plane: NDArray[Any]) -> NDArray[Any]:
    """A contiguous read-only view, whatever the plane was, so that a kernel is compiled once for each dtype."""
    view = np.ascontiguousarray(plane)[:]
    view.flags.writeable = False
    return view


@kernel
def _resample_row(row, axis, out):  # type: ignore[no-untyped-def]
    starts, counts, weights = axis
    for i in range(out.size):
        start = starts[i]
        value = row[start] * weights[i, 0]
        for k in range(1, counts[i]):
            value += row[start + k] * weights[i, k]
        out[i] = value


@kernel
def _resample_plane(plane, y, x, out):  # type: ignore[no-untyped-def]
    starts, counts, weights = y
    total = np.empty(plane.shape[1], np.float32)
    for i in range(out.shape[0]):
        row, weight = plane[starts[i]], weights[i, 0]
        for j in range(total.size):
            total[j] = row[j] * weight
        for k in range(1, counts[i]):
            row, weight = plane[starts[i] + k], weights[i, k]
            for j in range(total.size):
                total[j] += row[j] * weight
        _resample_row(total, x, out[i])


@kernel
def _mask_plane(plane, y, x, threshold, mask):  # type: ignore[no-untyped-def]
    """Fill a mask of False; rows between two rows that nowhere pass the threshold stay so."""
    starts, counts, weights = y
    width = mask.shape[1]
    rows = np.empty((2, width), np.float32)  # rows of the plane, resampled along x: row r stands in r % 2
    holds = np.array([-1, -1])
    is_low = np.empty(plane.shape[0], np.bool_)
    for r in range(plane.shape[0]):
        is_low[r] = plane[r].max() <= threshold
    for i in range(mask.shape[0]):
        start, stop = starts[i], starts[i] + counts[i]
        if is_low[start] and is_low[stop - 1]:
            continue
        for r in range(start, stop):
            if holds[r % 2] != r:
                _resample_row(plane[r], x, rows[r % 2])
                holds[r % 2] = r
        near, far = rows[start % 2], rows[(stop - 1) % 2]
        a, b = weights[i, 0], weights[i, 1]
        out = mask[i]
        for j in range(width):
            out[j] = near[j] * a + far[j] * b > threshold
