"""`StreamingPreprocessor` on a torch device: slices cross once, and everything until the network's input stays there.

The same list of compare-exchanges makes the median, the same counts the histogram, the same affine the normalisation,
and resampling adds the same products in the same order: the median, both histograms and so the limits are those of the
numba path bit for bit, and the volume is, too, but for a fused multiply-add here or there (some float32 roundings).

On CUDA a block is copied into pinned memory and crosses in a stream of its own, while the block before it is filtered.
"""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from spheroidd.inference.preprocessing.intensity import (
    N_BINS,
    Histogram,
    normalise_torch,
    sparse_channels,
    stack_limits,
)
from spheroidd.inference.preprocessing.median import median3_torch
from spheroidd.inference.preprocessing.resample import Axis, Shape, Spacing, resampling_axis
from spheroidd.inference.preprocessing.stream import BACKGROUND, QUANTILES, RAW_ROW_STEP, check_geometry
from spheroidd.protocols.errors import ConfigError, StackError
from spheroidd.protocols.pixels import Pixels
from spheroidd.protocols.results import Limits
from spheroidd.protocols.stack import CHANNELS

_MEDIAN_BYTES = 16 << 20  # of slices in one call of the median, which needs some forty times as much


class DevicePreprocessor:
    """The `Preprocessor` port on a device; see `StreamingPreprocessor`, whose settings and errors are the same.

    `volume_on_device` gives the planes as a tensor where they are. One thread at a time.
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
        device: torch.device,
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
        self.device = device
        self._portion = portion_of((n_z, height, width))
        self._n_z, self._percentiles, self._background = n_z, percentiles, background
        self._own_window, self._keep_filtered = own_window, keep_filtered
        self._z = resampling_axis(n_z, z_step_um, spacing_um[0])
        self._y = DeviceAxis(resampling_axis(height, pixel_um, spacing_um[1]), device)
        self._x = DeviceAxis(resampling_axis(width, pixel_um, spacing_um[2]), device)
        self._channels = {c: _DeviceChannel(c, (n_z, height, width), device) for c in CHANNELS if c in channels}
        self._known = None if known_limits is None else {c: known_limits[c] for c in self._channels}
        self._filtered: dict[str, dict[int, torch.Tensor]] = {channel: {} for channel in self._channels}
        self._ready: dict[str, dict[int, torch.Tensor]] = {channel: {} for channel in self._channels}
        self._slices: dict[str, dict[int, torch.Tensor]] = {channel: {} for channel in self._channels}  # until released
        self._ready_limits = self._known

    @property
    def shape(self) -> Shape:
        """The volume's (z, y, x) at the model's spacing."""
        return (len(self._z.starts), self._y.size, self._x.size)

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
        for start, filtered in self._channels[channel].feed(z, pixels):
            # A copy: what was filtered lies within a larger tensor, which would stay as long as it does.
            kept = dict(enumerate(filtered.clone(), start)) if self._keep_filtered or self._known is None else {}
            if self._keep_filtered:
                self._slices[channel] |= kept
            if self._known is None:
                self._filtered[channel] |= kept
            else:
                self._ready[channel] |= dict(enumerate(self._prepare(filtered, self._known[channel]), start))

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
        """As of `StreamingPreprocessor`."""
        return sparse_channels(self.histograms(), self._percentiles) if self._own_window else frozenset()

    def filtered_on_device(self, channel: str, z_start: int, z_stop: int) -> torch.Tensor:
        """Slices (z, y, x) after the median; StackError where `keep_filtered` was not asked or they were released."""
        kept = self._slices[channel]
        if missing := [z for z in range(z_start, z_stop) if z not in kept]:
            raise StackError(
                f"slice {missing[0]} of channel {channel} is not kept", do="ask for slices before releasing them"
            )
        return _stacked([kept[z] for z in range(z_start, z_stop)])

    def release(self, below_z: int) -> None:
        """Let go the slices at the stack's own sampling below `below_z`."""
        for kept in self._slices.values():
            _drop_below(kept, below_z)

    def histograms(self) -> dict[str, Histogram]:
        """The filtered pixels' histogram per channel."""
        return {name: _histogram(channel.filtered) for name, channel in self._channels.items()}

    def raw_histograms(self) -> dict[str, Histogram]:
        """The raw pixels' histogram per channel, of every fourth row."""
        return {name: _histogram(channel.raw) for name, channel in self._channels.items()}

    def quantiles(self) -> dict[str, dict[str, float]]:
        """Per channel the raw pixels' quantiles "0.02", "0.5", "0.98", "0.999", of every fourth row."""
        raw = self.raw_histograms()
        return {name: {f"{q:g}": found.percentile(100 * q) for q in QUANTILES} for name, found in raw.items()}

    def volume(self, z_start: int, z_stop: int, limits: Mapping[str, Limits]) -> NDArray[np.float32]:
        """The normalised planes (2, z, y, x) in the host's memory."""
        found: NDArray[np.float32] = self.volume_on_device(z_start, z_stop, limits).cpu().numpy()
        return found

    def volume_on_device(self, z_start: int, z_stop: int, limits: Mapping[str, Limits]) -> torch.Tensor:
        """The normalised planes (2, z, y, x), float32, at the model's spacing, channels in the order of `CHANNELS`."""
        if not 0 <= z_start < z_stop <= self.ready_z:
            raise StackError(f"planes {z_start} to {z_stop} are not ready", do=f"ask for planes below {self.ready_z}")
        self._use(limits)
        out = torch.empty((len(CHANNELS), z_stop - z_start, self._y.size, self._x.size), device=self.device)
        first = int(self._z.starts[z_start])
        for planes, channel in zip(out, CHANNELS, strict=True):
            if channel not in self._channels:
                planes.fill_(self._background)
                continue
            if self._known is None:
                _drop_below(self._ready[channel], first)
                self._normalise_to(channel, first, int(self._z.stops[z_stop - 1]))
            kept = self._ready[channel]
            for i, plane in enumerate(planes, z_start):
                start, count = int(self._z.starts[i]), int(self._z.counts[i])
                if start not in kept:
                    what = f"slice {start} of channel {channel} was discarded"
                    raise StackError(what, do="ask for planes before discarding")
                plane.copy_(combined([kept[z] for z in range(start, start + count)], self._z.weights[i]))
        return out

    def discard(self, below_z: int) -> None:
        """Let go what only planes of the volume below `below_z` need."""
        first = int(self._z.starts[below_z]) if below_z < len(self._z.starts) else self._n_z
        for planes in (*self._ready.values(), *self._filtered.values()):
            _drop_below(planes, first)

    def _normalise_to(self, channel: str, first: int, stop: int) -> None:
        """Make slices `first` to `stop` of a channel ready, where they are not."""
        kept, filtered, limits = self._ready[channel], self._filtered[channel], self._ready_limits
        missing = [z for z in range(first, stop) if z not in kept]
        for start in range(0, len(missing), self._portion):
            part = missing[start : start + self._portion]
            if any(z not in filtered for z in part) or limits is None:
                what = f"slice {part[0]} of channel {channel} was discarded"
                raise StackError(what, do="ask for planes before discarding")
            prepared = self._prepare(_stacked([filtered[z] for z in part]), limits[channel])
            kept |= dict(zip(part, prepared, strict=True))

    def _prepare(self, filtered: torch.Tensor, limits: Limits) -> torch.Tensor:
        """Slices (n, y, x), normalised and resampled in y and x."""
        return self._x.along(self._y.along(normalise_torch(filtered, limits), 1), 2)

    def _use(self, limits: Mapping[str, Limits]) -> None:
        missing = set(self._channels) - set(limits)
        if missing:
            raise StackError(f"no limits were given for channel {min(missing)}", do="give limits for each channel")
        chosen = {channel: limits[channel] for channel in self._channels}
        if chosen != self._ready_limits:
            if self._known is not None:
                raise StackError("other limits were asked than were known before", do="ask with the known limits")
            self._ready, self._ready_limits = {channel: {} for channel in self._channels}, chosen


class DeviceAxis:
    """One axis' resampling: the k-th input of each output and its weight, added in the order of the numba path."""

    def __init__(self, axis: Axis, device: torch.device) -> None:
        self.size, last = len(axis.starts), int(axis.stops.max()) - 1
        width = int(axis.counts.max())
        steps = [np.minimum(axis.starts + k, last) for k in range(width)]
        weights = np.where(np.arange(width) < axis.counts[:, np.newaxis], axis.weights[:, :width], np.float32(0))
        self._inputs = [torch.from_numpy(step.copy()).to(device) for step in steps]
        self._weights = [torch.from_numpy(weights[:, k].copy()).to(device) for k in range(width)]

    def along(self, planes: torch.Tensor, axis: int) -> torch.Tensor:
        """Tensors (..., n, ...) resampled along one of their axes."""
        shape = [1] * planes.ndim
        shape[axis] = self.size
        total: torch.Tensor | None = None
        for inputs, weights in zip(self._inputs, self._weights, strict=True):
            part = planes.index_select(axis, inputs) * weights.view(shape)
            total = part if total is None else total.add_(part)
        assert total is not None
        return total


class _DeviceChannel:
    """One channel's slices on the device: the last two, the median one slice behind, and both histograms."""

    def __init__(self, name: str, shape: Shape, device: torch.device) -> None:
        self._name, self._shape, self._device = name, shape, device
        self._portion = portion_of(shape)
        self._recent: torch.Tensor | None = None  # the last two slices
        self._copies = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self._pinned: list[tuple[torch.Tensor, torch.cuda.Event]] = []
        self.n_fed = 0
        self.n_filtered = 0
        self.raw = torch.zeros(N_BINS, dtype=torch.int64, device=device)
        self.filtered = torch.zeros(N_BINS, dtype=torch.int64, device=device)

    def feed(self, z: int, pixels: Pixels) -> list[tuple[int, torch.Tensor]]:
        """The slices that are filtered now, in portions, each with its first z."""
        n_z, height, width = self._shape
        if z != self.n_fed or pixels.ndim != 3 or pixels.shape[1:] != (height, width) or z + len(pixels) > n_z:
            what = f"channel {self._name}: slices {pixels.shape} arrived at z {z}"
            raise StackError(what, do=f"feed ({height}, {width}) slices in order; next is {self.n_fed} of {n_z}")
        kind = {np.dtype(np.uint8): torch.uint8, np.dtype(np.uint16): torch.uint16}.get(pixels.dtype)
        if kind is None or (self._recent is not None and self._recent.dtype != kind):
            raise StackError(f"channel {self._name}: slices are {pixels.dtype}", do="feed uint8 or uint16, not both")
        if not len(pixels):
            return []
        new = self._across(pixels)
        self.raw += _counts(new[:, ::RAW_ROW_STEP])
        known = new if self._recent is None else torch.cat([self._recent.view(_bits(kind)), new.view(_bits(kind))])
        known = known.view(kind)
        self.n_fed += len(pixels)
        first = self.n_fed - len(known)  # the z of `known[0]`
        stop = self.n_fed if self.n_fed == n_z else self.n_fed - 1
        found = []
        for start in range(self.n_filtered, stop, self._portion):
            end = min(start + self._portion, stop)
            below, above = max(start - 1, first), min(end + 1, self.n_fed)
            median = median3_torch(known[below - first : above - first], self._portion + 2)
            part = median[start - below : end - below]
            self.filtered += _counts(part)
            found.append((start, part))
        self.n_filtered = max(stop, self.n_filtered)
        self._recent = known[-2:].clone()
        return found

    def _across(self, pixels: Pixels) -> torch.Tensor:
        """The slices on the device. On CUDA from pinned memory, in a stream of their own."""
        given = torch.from_numpy(np.ascontiguousarray(pixels) if pixels.flags.writeable else pixels.copy())
        if self._copies is None:
            return given.clone()
        pinned = torch.empty(given.shape, dtype=given.dtype, pin_memory=True).copy_(given)
        self._pinned = [(held, event) for held, event in self._pinned if not event.query()]  # type: ignore[no-untyped-call]
        with torch.cuda.stream(self._copies):
            new = pinned.to(self._device, non_blocking=True)
            crossed = torch.cuda.Event()  # type: ignore[no-untyped-call]
            crossed.record(self._copies)
        self._pinned.append((pinned, crossed))  # its memory is not used again before it has crossed
        at_work = torch.cuda.current_stream(self._device)
        at_work.wait_event(crossed)
        new.record_stream(at_work)
        return new


def portion_of(shape: Shape) -> int:
    """How many slices are worked on at once."""
    return max(1, min(8, _MEDIAN_BYTES // (2 * shape[1] * shape[2])))


def _bits(kind: torch.dtype) -> torch.dtype:
    """What torch can join and copy everywhere in place of uint16."""
    return torch.int16 if kind is torch.uint16 else kind


def _stacked(slices: list[torch.Tensor]) -> torch.Tensor:
    kind = slices[0].dtype
    return torch.stack([one.view(_bits(kind)) for one in slices]).view(kind)


def _counts(pixels: torch.Tensor) -> torch.Tensor:
    """How often each value 0 to 65535 occurs."""
    values = pixels.contiguous().view(-1)
    if values.dtype is torch.uint16:
        values = values.view(torch.int16).to(torch.int32) & 0xFFFF
    return torch.bincount(values.to(torch.int64) if values.device.type == "cpu" else values, minlength=N_BINS)


def _histogram(counts: torch.Tensor) -> Histogram:
    return Histogram(counts.cpu().numpy())


def combined(planes: list[torch.Tensor], weights: NDArray[np.float32]) -> torch.Tensor:
    """The weighted sum of planes, added in their order."""
    total = planes[0] * float(weights[0])
    for plane, weight in zip(planes[1:], weights[1:], strict=False):
        total += plane * float(weight)
    return total


def _drop_below(planes: dict[int, torch.Tensor], first: int) -> None:
    for z in [z for z in planes if z < first]:
        del planes[z]
