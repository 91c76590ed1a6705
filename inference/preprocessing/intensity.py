"""Intensity limits from histograms, and the one affine map that applies them. Knows no geometry.

A stack's limits are its 2nd and 98th percentiles (a higher one where it holds few cells), then the mean and standard
deviation of what was clipped to them. For integer pixels a histogram holds all of that exactly, so it is fed slice by
slice, pooled over wells, and kept.
"""

import math
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from spheroidd.inference.preprocessing.jit import kernel
from spheroidd.protocols.errors import StackError, StorageError
from spheroidd.protocols.pixels import Pixels
from spheroidd.protocols.results import Limits

if TYPE_CHECKING:
    import torch

N_BINS = 1 << 16
SPARSE = 3.0  # fields full of cells have a 99.8th percentile of 1.2 to 2.9 windows, those with a few cells 4 and more
_FORMAT = b"SPHI1"  # leads the serialised bytes; a second layout gets another number


class Histogram:
    """How often each value 0 to 65535 occurs: `counts` is int64 (65536,).

    >>> histogram = Histogram()
    >>> histogram.add(np.array([[1, 2], [3, 4]], np.uint16))
    >>> histogram.n, histogram.percentile(50)
    (4, 2.5)
    """

    __slots__ = ("counts",)

    def __init__(self, counts: NDArray[np.integer[Any]] | None = None) -> None:
        if counts is None:
            self.counts: NDArray[np.int64] = np.zeros(N_BINS, np.int64)
        elif counts.shape == (N_BINS,) and counts.min() >= 0:
            self.counts = counts.astype(np.int64)
        else:
            raise StackError(f"a histogram of shape {counts.shape} arrived", do=f"give {N_BINS} counts of 0 or more")

    def add(self, pixels: Pixels) -> None:
        """Count pixels, uint8 or uint16, of any shape. Releases the GIL."""
        if pixels.dtype not in (np.uint8, np.uint16):
            raise StackError(f"pixels are {pixels.dtype}", do="give uint8 or uint16")
        _count(_read_only(pixels), self.counts)

    def merge(self, other: Self) -> None:
        """Count all that another histogram has counted."""
        self.counts += other.counts

    @property
    def n(self) -> int:
        """Pixels counted."""
        return int(self.counts.sum())

    def percentile(self, percent: float) -> float:
        """What `numpy.percentile(data, percent)` (linear) gives for the counted data, to the last bit."""
        if not 0 <= percent <= 100:
            raise StackError(f"a percentile of {percent} was asked", do="ask for 0 to 100")
        cumulative = np.cumsum(self.counts)
        if not cumulative[-1]:
            raise StackError("limits were asked of a channel without pixels", do="feed at least one slice first")
        at = (int(cumulative[-1]) - 1) * (percent / 100)
        part = at - math.floor(at)
        ranks = (math.floor(at), math.ceil(at))
        low, high = (float(value) for value in np.searchsorted(cumulative, ranks, side="right"))
        # numpy's own interpolation, which turns round at the middle so that it is monotone
        return high - (high - low) * (1 - part) if part >= 0.5 else low + (high - low) * part

    def limits(self, low: float = 2, high: float = 98) -> Limits:
        """The percentiles `low` and `high`, and mean and sd of the data clipped to them (float64).

        Of constant data low equals high and sd is 0: `normalise` then gives 0 everywhere.
        """
        return self._clipped_to(self.percentile(low), self.percentile(high))

    def own_limits(self, low: float = 2, high: float = 98) -> Limits:
        """`limits` of a stack by itself: where cells fill too little of it for `high` to be one's brightness, higher.

        The window then is a third of what the 99.8th percentile needs. In a field of which 2 % is stained the 98th
        percentile is the rim of a cell: everything dim around the cells would be as bright as they are.
        """
        low_value, high_value = self.percentile(low), self.percentile(high)
        return self._clipped_to(low_value, max(high_value, low_value + (self.percentile(99.8) - low_value) / SPARSE))

    def _clipped_to(self, low_value: float, high_value: float) -> Limits:
        values = np.flatnonzero(self.counts)
        counts, clipped, n = self.counts[values], np.clip(values, low_value, high_value), self.n
        mean = math.fsum(counts * clipped) / n
        return Limits(low_value, high_value, mean, math.sqrt(math.fsum(counts * (clipped - mean) ** 2) / n))

    def to_bytes(self) -> bytes:
        """The occupied bins, compressed: some kilobytes for a stack."""
        values = np.flatnonzero(self.counts)
        steps = np.diff(values, prepend=0).astype("<u2")  # small numbers compress well
        return _FORMAT + zlib.compress(steps.tobytes() + self.counts[values].astype("<i8").tobytes(), 6)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """What `to_bytes` wrote; StorageError for anything else."""
        largest = N_BINS * 10 + 1  # one more than a full histogram takes: whatever inflates to that is not one
        inflate = zlib.decompressobj()
        try:
            raw = inflate.decompress(data.removeprefix(_FORMAT), largest)
        except zlib.error as error:
            raise StorageError(f"a stored histogram is damaged: {error}", do="score its well again") from error
        n_values, rest = divmod(len(raw), 10)
        values = np.cumsum(np.frombuffer(raw, "<u2", n_values), dtype=np.int64)
        if not data.startswith(_FORMAT) or rest or not inflate.eof or (n_values and values[-1] >= N_BINS):
            raise StorageError("a stored histogram is damaged", do="score its well again")
        histogram = cls()
        histogram.counts[values] = np.frombuffer(raw, "<i8", n_values, 2 * n_values)
        return histogram

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Histogram) and np.array_equal(self.counts, other.counts)

    __hash__ = None  # type: ignore[assignment]


def stack_limits(
    histograms: Mapping[str, Histogram], percentiles: tuple[float, float] = (2, 98), *, own_window: bool = False
) -> dict[str, Limits]:
    """Each channel's limits by itself: `Histogram.limits`, or `Histogram.own_limits`."""
    return {
        name: found.own_limits(*percentiles) if own_window else found.limits(*percentiles)
        for name, found in histograms.items()
    }


def sparse_channels(histograms: Mapping[str, Histogram], percentiles: tuple[float, float] = (2, 98)) -> frozenset[str]:
    """Channels whose `Histogram.own_limits` are wider than the percentiles alone: cells fill little of the field."""
    top = percentiles[1]
    return frozenset(
        name for name, found in histograms.items() if found.own_limits(*percentiles).high > found.percentile(top)
    )


def moved(old: Limits, new: Limits) -> float:
    """How far low, high, mean or sd moved at most, as a part of the new window high - low; to compare with a tolerance.

    0 only where the limits are equal; infinite where they differ and the new window is empty.
    """
    pairs = ((old.low, new.low), (old.high, new.high), (old.mean, new.mean), (old.sd, new.sd))
    furthest = max(abs(a - b) for a, b in pairs)
    if furthest == 0:
        return 0.0
    return furthest / (new.high - new.low) if new.high > new.low else math.inf


class Affine(NamedTuple):
    """Limits as the kernels want them: clip((v - centre) * scale + shift, low, high) in float32.

    The centre, the mean rounded to an integer, is subtracted exactly, so that a dim structure on a bright background
    does not lose digits.
    """

    centre: int
    scale: np.float32
    shift: np.float32
    low: np.float32
    high: np.float32

    @classmethod
    def of(cls, limits: Limits) -> Self:
        """The map for these limits; 0 for every pixel where sd is 0."""
        if not limits.sd > 0:
            return cls(0, np.float32(0), np.float32(0), np.float32(0), np.float32(0))
        centre = round(limits.mean)
        parts = (1.0, centre - limits.mean, limits.low - limits.mean, limits.high - limits.mean)
        return cls(centre, *(np.float32(part / limits.sd) for part in parts))


def normalise(pixels: Pixels, limits: Limits, out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """Clip to the limits, subtract their mean, divide by their sd; float32 of the same shape, never NaN.

    `out` takes the result where it is given; it must be C-contiguous.
    """
    if out is None:
        out = np.empty(pixels.shape, np.float32)
    if out.shape != pixels.shape or not out.flags.c_contiguous:
        raise StackError(f"pixels {pixels.shape} do not fit an output {out.shape}", do="give a contiguous equal one")
    _normalise(_read_only(pixels), Affine.of(limits), out.reshape(-1))
    return out


def normalise_torch(pixels: "torch.Tensor", limits: Limits) -> "torch.Tensor":
    """`normalise` on the tensor's own device, bit for bit; the pixels are uint8, uint16 or a signed integer."""
    import torch

    affine = Affine.of(limits)
    scaled = (pixels.to(torch.int32) - affine.centre).to(torch.float32) * float(affine.scale) + float(affine.shift)
    return scaled.clamp_(float(affine.low), float(affine.high))


def _read_only(pixels: Pixels) -> Pixels:
    """One flat read-only row, whatever the pixels were, so that a kernel is compiled once for each dtype."""
    flat = np.ascontiguousarray(pixels).reshape(-1)[:]
    flat.flags.writeable = False
    return flat


@kernel
def _normalise(pixels, affine, out):  # type: ignore[no-untyped-def]
    centre = np.int32(affine[0])
    for i in range(out.size):
        value = np.float32(np.int32(pixels[i]) - centre) * affine[1] + affine[2]
        out[i] = min(max(value, affine[3]), affine[4])


@kernel
def _count(pixels, counts):  # type: ignore[no-untyped-def]
    # Neighbours are often equal, and a counter that was just written is slow to read: two tables take turns.
    other = np.zeros(counts.size, np.int64)
    for i in range(0, pixels.size - 1, 2):
        counts[pixels[i]] += 1
        other[pixels[i + 1]] += 1
    if pixels.size % 2:
        counts[pixels[-1]] += 1
    for i in range(counts.size):
        counts[i] += other[i]
