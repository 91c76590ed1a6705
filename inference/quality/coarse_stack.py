"""A stack at about a micrometre a point, both channels and both masks side by side: what one channel cannot say.

Fed like the inspector, slice by slice. What is kept are means of squares of pixels, every micrometre of depth: a few
megabytes, whatever the camera.
"""

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from spheroidd.inference.quality.depth_seen import depth_seen_um
from spheroidd.inference.quality.image_profile import saturated_share
from spheroidd.protocols.evidence import ChannelLight, MaskEvidence, MaskShape, StackLight
from spheroidd.protocols.pixels import Pixels
from spheroidd.protocols.stack import CHANNELS, DEAD_CHANNEL, LIVE_CHANNEL, StackPlan

if TYPE_CHECKING:
    from spheroidd.inference.preprocessing.intensity import Histogram

POINT_UM = 1.0
MOST_POINTS = 128  # along each side: a wide field gets wider points
SOME_ROWS = 32  # of a slice, for the camera's noise and to know it again
MEDIAN_STEP = 0.954  # median difference of two normal values of sd 1
BLEED_TOP = 99.5  # percentile of 488 up to which bodies shine; beyond it is what shines in every channel
BLEED_SHARE = 0.35  # of that: from there on it is a body, not haze
BLEED_NOISE = 8.0  # sd of a point: less than that is no signal
SHADE_MARGIN = 0.15  # of the field: an edge of shade is looked for in what lies between
SHADE_POINTS = 2  # what is compared on either side of the edge
SHADE_PARTS = 3  # an edge is seen in each of so many parts of its length

Floats = NDArray[np.float32]


class CoarseStack:
    """Feed it the slices that pre-processing gets, in z order, and the masks. One thread at a time."""

    def __init__(self, plan: StackPlan) -> None:
        self._plan = plan
        self._stride = max(1, round(POINT_UM / plan.z_step_um))
        widest = -(-max(plan.height, plan.width) // MOST_POINTS)
        self._block = min(max(1, round(POINT_UM / plan.pixel_um), widest), plan.height, plan.width)
        self._planes: dict[str, list[Floats]] = {channel: [] for channel in plan.channels}
        self._noise: dict[str, list[float]] = {channel: [] for channel in plan.channels}
        self._masks: dict[str, dict[int, NDArray[np.bool_]]] = {channel: {} for channel in plan.channels}
        self._edges = {channel: _Edges() for channel in plan.channels}
        self._fingerprints: set[bytes] = set()
        self._repeated = 0

    def feed(self, channel: str, z: int, pixels: Pixels) -> None:
        """Take the next slices (n, y, x) of a channel, in z order, starting at z. Nothing of them is kept."""
        for at, plane in enumerate(pixels, z):
            rows = plane[:: max(1, plane.shape[0] // SOME_ROWS)]
            self._repeated += self._is_repeated(rows)
            if at % self._stride == 0:
                self._planes[channel].append(self._points(plane))
                if rows.shape[1] > 1:
                    steps = np.abs(np.diff(rows.astype(np.float32), axis=1))
                    self._noise[channel].append(float(np.median(steps)) / MEDIAN_STEP)

    def _is_repeated(self, rows: Pixels) -> bool:
        """Whether another slice held the same pixels: a camera's noise never repeats."""
        fingerprint = hashlib.blake2b(np.ascontiguousarray(rows).tobytes(), digest_size=8).digest()
        again = fingerprint in self._fingerprints
        self._fingerprints.add(fingerprint)
        return again

    def feed_masks(self, z: int, live: NDArray[np.bool_] | None, dead: NDArray[np.bool_] | None) -> None:
        """Take the next masks (n, y, x) at the stack's own sampling, in z order, starting at z."""
        for channel, mask in ((LIVE_CHANNEL, live), (DEAD_CHANNEL, dead)):
            if mask is None or channel not in self._masks:
                continue
            self._edges[channel].add(mask)
            for at, plane in enumerate(mask, z):
                if at % self._stride == 0:
                    self._masks[channel][at // self._stride] = self._points(plane) >= 0.5

    def _points(self, plane: Pixels | NDArray[np.bool_]) -> Floats:
        block = self._block
        height, width = (side // block * block for side in plane.shape)
        tiles = plane[:height, :width].reshape(height // block, block, width // block, block)
        means: Floats = tiles.mean((1, 3), dtype=np.float32)
        return means

    def light(self, filtered: "Mapping[str, Histogram]", raw: "Mapping[str, Histogram]") -> StackLight:
        """The stack's light, from its channels' histograms, filtered and raw, and from its points."""
        channels = {
            name: ChannelLight(
                low=found.percentile(2),
                high=found.percentile(98),
                peak=found.percentile(99.8),
                saturated_share=saturated_share(raw[name]),
                noise=float(np.median(self._noise[name])) if self._noise[name] else 0.0,
            )
            for name, found in filtered.items()
        }
        points = {channel: np.stack(planes) for channel, planes in self._planes.items() if planes}
        if not set(CHANNELS) <= points.keys():
            return StackLight(channels, None, None, _shade(points), self._repeated)
        noise = channels[LIVE_CHANNEL].noise / self._block
        return StackLight(channels, _bleed(points, noise), _correlation(points), _shade(points), self._repeated)

    def depth_seen_um(self, raw: "Mapping[str, Histogram]") -> float | None:
        """How deep cells can be told apart (see `depth_seen`), once every slice was fed."""
        planes = {name: np.stack(found) for name, found in self._planes.items() if found}
        if not planes or len({found.shape for found in planes.values()}) > 1:
            return None
        across_um = self._block * self._plan.pixel_um
        step_um = self._stride * self._plan.z_step_um, across_um, across_um
        return depth_seen_um(planes, step_um, {name: raw[name].percentile(0.1) for name in planes})

    def masks(self) -> MaskEvidence:
        """What the masks look like beside the pixels, once all were fed."""
        plan = self._plan
        points = {channel: np.stack(planes) for channel, planes in self._planes.items() if planes}
        masks = {
            channel: np.stack([planes[at] for at in sorted(planes)])
            for channel, planes in self._masks.items()
            if len(planes) == len(self._planes[channel]) > 0
        }
        empty = ~np.any(list(masks.values()), axis=0) if masks else None
        ground = {name: _mean(values, empty) for name, values in points.items()} if empty is not None else {}
        shapes = {
            name: MaskShape(
                chord_z_um=self._edges[name].chord(0, plan.z_step_um),
                chord_x_um=self._edges[name].chord(2, plan.pixel_um),
                inside={channel: _mean(values, mask) for channel, values in points.items()},
            )
            for name, mask in masks.items()
        }
        return MaskEvidence(shapes, ground)


class _Edges:
    """How often a mask begins or ends along z and along x: from that, how long it is on the average."""

    def __init__(self) -> None:
        self._last: NDArray[np.bool_] | None = None
        self._voxels, self._steps = 0, {0: 0, 2: 0}

    def add(self, mask: NDArray[np.bool_]) -> None:
        whole = mask if self._last is None else np.concatenate([self._last[None], mask])
        self._steps[0] += int(np.count_nonzero(whole[1:] != whole[:-1]))
        self._steps[2] += int(np.count_nonzero(mask[:, :, 1:] != mask[:, :, :-1]))
        self._voxels += int(np.count_nonzero(mask))
        self._last = mask[-1].copy() if len(mask) else self._last

    def chord(self, axis: int, step_um: float) -> float | None:
        """The mean length of a line of this axis inside the mask; None where it has no edge."""
        steps = self._steps[axis]
        return 2 * self._voxels * step_um / steps if steps and self._voxels else None


def _mean(values: Floats, where: NDArray[np.bool_] | None) -> float | None:
    return float(values[where].mean()) if where is not None and where.any() else None


def _bleed(points: Mapping[str, Floats], noise: float) -> float | None:
    """The median of 561 over 488, each above its 2nd percentile, where 488 is bright; see `StackLight`."""
    live, dead = points[LIVE_CHANNEL], points[DEAD_CHANNEL]
    ground, top = np.percentile(live, (2, BLEED_TOP))
    if top - ground <= BLEED_NOISE * max(noise, 0.1):
        return None
    bright = (live >= ground + BLEED_SHARE * (top - ground)) & (live <= top)
    return float(np.median((dead[bright] - np.percentile(dead, 2)) / (live[bright] - ground)))


def _correlation(points: Mapping[str, Floats]) -> float | None:
    """Pearson's r of the channels' points; None where one is the same everywhere."""
    live, dead = (points[channel].ravel().astype(np.float64) for channel in (LIVE_CHANNEL, DEAD_CHANNEL))
    if live.std() == 0 or dead.std() == 0:
        return None
    return float(np.corrcoef(live, dead)[0, 1])


def _shade(points: Mapping[str, Floats]) -> float | None:
    """How sudden all channels together change along a straight line through the field: the ratio of brightness, 0 to 1.

    A lamp or a bubble shades both colours at the same place and all along an edge; cells do not. What changes as much
    beside the edge, as brightness does towards a spheroid's rim, is allowed for.
    """
    steepest = 0.0
    for axis in (1, 2):
        lines = [
            np.log(np.maximum(part.mean((0, 3 - axis), dtype=np.float64), 0.5))
            for values in points.values()
            for part in np.array_split(values - np.percentile(values, 0.5), SHADE_PARTS, 3 - axis)
            if part.size
        ]
        n = min((len(line) for line in lines), default=0)
        margin = max(2 * SHADE_POINTS, round(SHADE_MARGIN * n))
        if 2 * margin <= n:
            steps = np.stack([_steps(line[:n], margin) for line in lines])
            alike = np.all(steps > 0, axis=0) | np.all(steps < 0, axis=0)
            steepest = max(steepest, float(np.abs(steps[:, alike]).min(0).max(initial=0.0)))
    return float(np.exp(-steepest)) if points else None


def _steps(line: NDArray[np.float64], margin: int) -> NDArray[np.float64]:
    """The step of a line of logarithms at each point but those of the margins, less the mean step on either side."""
    means = np.lib.stride_tricks.sliding_window_view(line, SHADE_POINTS).mean(1)
    cuts = np.arange(margin, len(line) - margin + 1)
    two_before, before, behind, two_behind = (means[cuts + at * SHADE_POINTS] for at in (-2, -1, 0, 1))
    found: NDArray[np.float64] = (behind - before) - ((two_behind - behind) + (before - two_before)) / 2
    return found
