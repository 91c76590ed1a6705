"""One stack from raw slices to the normalised volume at the model's spacing, while its slices still arrive.

The order is the study's: 3x3x3 median, clip and z-score, resample. Knows no network and no files. `preprocess` does the
same to a whole stack at once; both give the same bits for the same limits, whatever portions the slices came in.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spheroidd.inference.preprocessing.intensity import Histogram, normalise, sparse_channels, stack_limits
from spheroidd.inference.preprocessing.median import median3, median_slice
from spheroidd.inference.preprocessing.resample import (
    PlaneResampler,
    Shape,
    Spacing,
    combine,
    resample,
    resampling_axis,
)
from spheroidd.protocols.errors import ConfigError, StackError
from spheroidd.protocols.pixels import Pixels
from spheroidd.protocols.results import Limits
from spheroidd.protocols.stack import CHANNELS

BACKGROUND = -1.0  # stands for a channel that a stack does not have: about where empty field lies after the z-score
QUANTILES = (0.02, 0.5, 0.98, 0.999)  # of the raw pixels, for quality control
RAW_ROW_STEP = 4  # raw quantiles are of every fourth row: they describe, nothing is computed from them


class StreamingPreprocessor:
    """The `Preprocessor` port: feed slices in z order, take normalised planes of both channels as they become ready.

    With `known_limits` each filtered slice is normalised and resampled in its plane at once, and only that is kept
    (`discard` lets planes go). Without, the filtered slices are kept (512 MB of a screen stack), because the stack's
    own limits are exact only after its last slice; `own_window` makes them `Histogram.own_limits`. With `keep_filtered`
    the filtered slices are kept in both cases, until they are released. One thread at a time.
    """

    def __init__(
        self,
        n_z: int,
        height: int,
        width: int,
        pixel_um: float,
        z_step_um: float,
        channels: tuple[str, ...],
        spacing_um: Spacing,
        *,
        percentiles: tuple[float, float] = (2, 98),
        known_limits: Mapping[str, Limits] | None = None,
        background: float = BACKGROUND,
        own_window: bool = False,
        keep_filtered: bool = False,
    ) -> None:
        check_geometry((n_z, height, width), (z_step_um, pixel_um, pixel_um), spacing_um, channels)
        if not 0 <= percentiles[0] < percentiles[1] <= 100:
            raise ConfigError(f"percentiles are {percentiles}", do="give two that rise, 0 to 100")
        missing = set(channels) - set(known_limits) if known_limits is not None else set()
        if missing:
            raise ConfigError(f"no limits are known for channel {min(missing)}", do="give limits for each channel")
        self._n_z = n_z
        self._z = resampling_axis(n_z, z_step_um, spacing_um[0])
        y = resampling_axis(height, pixel_um, spacing_um[1])
        self._planes = PlaneResampler(y, resampling_axis(width, pixel_um, spacing_um[2]))
        self._percentiles, self._background, self._own_window = percentiles, np.float32(background), own_window
        self._channels = {
            channel: _ChannelFilter(channel, (n_z, height, width)) for channel in CHANNELS if channel in channels
        }
        self._known = None if known_limits is None else {c: known_limits[c] for c in self._channels}
        self._filtered: dict[tuple[str, int], Pixels] = {}
        self._keep_filtered = keep_filtered
        self._slices: dict[tuple[str, int], Pixels] = {}  # filtered, at the stack's own sampling, until released
        self._ready: dict[tuple[str, int], NDArray[np.float32]] = {}  # normalised and resampled in y and x
        self._ready_limits = self._known
        self._scratch = np.empty((height, width), np.float32)

    @property
    def shape(self) -> Shape:
        """The volume's (z, y, x) at the model's spacing."""
        return (len(self._z.starts), *self._planes.shape)

    @property
    def ready_z(self) -> int:
        """How many z-planes of the volume can be had now, from 0."""
        filtered = min(channel.n_filtered for channel in self._channels.values())
        return int(np.searchsorted(self._z.stops, filtered, side="right"))

    @property
    def channels(self) -> tuple[str, ...]:
        """Those that the stack has, in the order of `CHANNELS`."""
        return tuple(self._channels)

    def feed(self, channel: str, z: int, pixels: Pixels) -> None:
        """Take the next slices (n, y, x) of a channel, uint8 or uint16, in z order, starting at z. They are copied."""
        if channel not in self._channels:
            raise StackError(f"a slice of channel {channel} arrived", do=f"this stack has {', '.join(self._channels)}")
        known = self._known
        for index, filtered in self._channels[channel].feed(
            z, pixels, reuse=known is not None and not self._keep_filtered
        ):
            if self._keep_filtered:
                self._slices[channel, index] = filtered
            if known is None:
                self._filtered[channel, index] = filtered
            else:
                self._ready[channel, index] = self._prepare(filtered, known[channel])

    def finish(self) -> None:
        """Every slice was fed; StackError where that is not so."""
        for name, channel in self._channels.items():
            if channel.n_filtered < self._n_z:
                what = f"channel {name} has {channel.n_fed} of {self._n_z} slices"
                raise StackError(what, do="feed them all, or give the stack up as incomplete")

    def limits(self) -> dict[str, Limits]:
        """The stack's own limits per channel it has, of what was filtered so far; exact after `finish`."""
        return stack_limits(self.histograms(), self._percentiles, own_window=self._own_window)

    def sparse(self) -> frozenset[str]:
        """Channels whose own limits were widened, because cells fill little of the field."""
        return sparse_channels(self.histograms(), self._percentiles) if self._own_window else frozenset()

    def filtered(self, channel: str, z: int) -> Pixels:
        """A slice (y, x) after the median, with `keep_filtered`; StackError where it was not kept, or released."""
        if (channel, z) not in self._slices:
            raise StackError(f"slice {z} of channel {channel} is not kept", do="ask for slices before releasing them")
        return self._slices[channel, z]

    def release(self, below_z: int) -> None:
        """Let go the slices at the stack's own sampling below `below_z`."""
        self._drop_below(self._slices, below_z)

    def histograms(self) -> dict[str, Histogram]:
        """The filtered pixels' histogram per channel: what plate limits are pooled from."""
        return {name: channel.filtered for name, channel in self._channels.items()}

    def raw_histograms(self) -> dict[str, Histogram]:
        """The raw pixels' histogram per channel, of every fourth row: what quality control looks at."""
        return {name: channel.raw for name, channel in self._channels.items()}

    def quantiles(self) -> dict[str, dict[str, float]]:
        """Per channel the raw pixels' quantiles "0.02", "0.5", "0.98", "0.999", of every fourth row."""
        return {
            name: {f"{q:g}": channel.raw.percentile(100 * q) for q in QUANTILES}
            for name, channel in self._channels.items()
        }

    def volume(self, z_start: int, z_stop: int, limits: Mapping[str, Limits]) -> NDArray[np.float32]:
        """The normalised planes (2, z, y, x) at the model's spacing, channels in the order of `CHANNELS`.

        A channel that the stack does not have is `background` everywhere. Planes that the next call may share are kept
        as long as the limits stay the same. StackError for planes that are not ready, were discarded, or whose known
        limits were others.
        """
        if not 0 <= z_start < z_stop <= self.ready_z:
            raise StackError(f"planes {z_start} to {z_stop} are not ready", do=f"ask for planes below {self.ready_z}")
        self._use(limits)
        out = np.empty((len(CHANNELS), z_stop - z_start, *self._planes.shape), np.float32)
        if self._known is None:
            self._drop_below(self._ready, int(self._z.starts[z_start]))
        for planes, channel in zip(out, CHANNELS, strict=True):
            if channel not in self._channels:
                planes[:] = self._background
                continue
            for i, plane in enumerate(planes, z_start):
                start, count = int(self._z.starts[i]), int(self._z.counts[i])
                combine([self._plane(channel, z) for z in range(start, start + count)], self._z.weights[i], plane)
        return out

    def discard(self, below_z: int) -> None:
        """Let go what only planes of the volume below `below_z` need."""
        first = int(self._z.starts[below_z]) if below_z < len(self._z.starts) else self._n_z
        self._drop_below(self._ready, first)
        self._drop_below(self._filtered, first)

    def _use(self, limits: Mapping[str, Limits]) -> None:
        missing = set(self._channels) - set(limits)
        if missing:
            raise StackError(f"no limits were given for channel {min(missing)}", do="give limits for each channel")
        chosen = {channel: limits[channel] for channel in self._channels}
        if chosen != self._ready_limits:
            if self._known is not None:
                raise StackError("other limits were asked than were known before", do="ask with the known limits")
            self._ready, self._ready_limits = {}, chosen

    def _plane(self, channel: str, z: int) -> NDArray[np.float32]:
        key = (channel, z)
        if key not in self._ready:
            if key not in self._filtered or self._ready_limits is None:
                raise StackError(f"slice {z} of channel {channel} was discarded", do="ask for planes before discarding")
            self._ready[key] = self._prepare(self._filtered[key], self._ready_limits[channel])
        return self._ready[key]

    def _prepare(self, filtered: Pixels, limits: Limits) -> NDArray[np.float32]:
        return self._planes.resample(normalise(filtered, limits, self._scratch))

    @staticmethod
    def _drop_below(planes: dict[tuple[str, int], NDArray[Any]], first: int) -> None:
        for key in [key for key in planes if key[1] < first]:
            del planes[key]


class _ChannelFilter:
    """One channel's median, one slice behind what was fed, and its two histograms."""

    def __init__(self, name: str, shape: Shape) -> None:
        self._name, self._shape = name, shape
        self._recent: list[Pixels] = []  # copies of the last two slices
        self._out: Pixels | None = None
        self.n_fed = 0
        self.n_filtered = 0
        self.raw, self.filtered = Histogram(), Histogram()

    def feed(self, z: int, pixels: Pixels, reuse: bool) -> Iterable[tuple[int, Pixels]]:
        """Yield each slice that is filtered now, with its z; with `reuse` it is overwritten by the next."""
        n_z, height, width = self._shape
        if z != self.n_fed or pixels.ndim != 3 or pixels.shape[1:] != (height, width) or z + len(pixels) > n_z:
            what = f"channel {self._name}: slices {pixels.shape} arrived at z {z}"
            raise StackError(what, do=f"feed ({height}, {width}) slices in order; next is {self.n_fed} of {n_z}")
        if pixels.dtype not in (np.uint8, np.uint16) or (self._recent and self._recent[0].dtype != pixels.dtype):
            raise StackError(f"channel {self._name}: slices are {pixels.dtype}", do="feed uint8 or uint16, not both")
        for plane in pixels:
            self.raw.add(plane[::RAW_ROW_STEP])
            self._recent = [*self._recent[-2:], plane]
            self.n_fed += 1
            if self.n_fed > 1:
                yield self._filter(self._recent[0], self._recent[-2], plane, reuse)
            if self.n_fed == n_z:
                yield self._filter(self._recent[max(len(self._recent) - 2, 0)], plane, plane, reuse)
        # The caller may use its buffer again; a copy of two slices costs a tenth of filtering one.
        self._recent = [plane.copy() for plane in self._recent[-2:]]

    def _filter(self, below: Pixels, here: Pixels, above: Pixels, reuse: bool) -> tuple[int, Pixels]:
        out = median_slice(below, here, above, self._out if reuse else None)
        self._out = out
        self.filtered.add(out)
        self.n_filtered += 1
        return self.n_filtered - 1, out


def preprocess(
    stack: Pixels,
    channels: tuple[str, ...],
    pixel_um: float,
    z_step_um: float,
    spacing_um: Spacing,
    *,
    percentiles: tuple[float, float] = (2, 98),
    limits: Mapping[str, Limits] | None = None,
    background: float = BACKGROUND,
) -> tuple[NDArray[np.float32], dict[str, Limits]]:
    """A whole raw stack (channel, z, y, x) at once: the volume (2, z, y, x), and the limits used (its own if None)."""
    own_um = (z_step_um, pixel_um, pixel_um)
    check_geometry(stack.shape[1:], own_um, spacing_um, channels)
    used: dict[str, Limits] = {}
    volumes: dict[str, NDArray[np.float32]] = {}
    for channel, raw in zip(channels, stack, strict=True):
        filtered = median3(raw)
        if limits is None:
            histogram = Histogram()
            histogram.add(filtered)
            used[channel] = histogram.limits(*percentiles)
        else:
            used[channel] = limits[channel]
        volumes[channel] = resample(normalise(filtered, used[channel]), own_um, spacing_um)
    absent = np.full_like(next(iter(volumes.values())), background)
    return np.stack([volumes.get(channel, absent) for channel in CHANNELS]), used


def check_geometry(shape: tuple[int, ...], own_um: Spacing, spacing_um: Spacing, channels: tuple[str, ...]) -> None:
    """ConfigError for sizes, voxels or channels that no stack has."""
    if len(shape) != 3 or min(shape) < 1:
        raise ConfigError(f"a stack of {shape} slices, rows and columns", do="each must be 1 or more")
    if not all(np.isfinite(length) and length > 0 for length in (*own_um, *spacing_um)):
        raise ConfigError(f"voxels are {own_um} um, wanted {spacing_um} um", do="give lengths above 0")
    if not channels or len(set(channels)) < len(channels) or not set(channels) <= set(CHANNELS):
        raise ConfigError(f"channels are {channels}", do=f"use each of {CHANNELS} at most once")
