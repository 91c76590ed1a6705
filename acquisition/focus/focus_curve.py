"""The focus measure of images, and where a curve of it over z has its focus.

The measure is the normalised variance of a median-filtered plane: its variance over its squared mean, the squared
coefficient of variation. Sun, Duthaler and Nelson (Microsc. Res. Tech. 65:139, 2004) compared 18 measures and found the
variance over the mean the best; divided by the mean twice it does not depend on light and exposure. On 22 wells of the
emulator it had the least spread about a well's bottom, of the two normalised variances, Brenner's gradient and
Tenenbaum's, plain and divided by the mean (each on the same median-filtered planes).

In a spheroid the sharpest plane is no place: it lies where cells happen to be bright, 10 to 18 um (sd) from plate to
plate. Where the measure begins to rise it is the bottom, to about a micrometre. So `target` "bottom" is where the
logarithm of the measure rises most steeply; "peak" is the sharpest plane, for what is thin.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from spheroidd.protocols.errors import StackError
from spheroidd.protocols.pixels import Pixels

Target = Literal["bottom", "peak"]
MIDDLE = 1024  # pixels a side that are looked at: more say the same and take longer
FLOOR = 0.01  # of the curve's top: differences below that are noise
LOW_END = 0.2  # of the curve's top: what lies below the bottom must not reach it
MAX_SATURATED = 0.02
MIN_POINTS = 5


@dataclass(frozen=True, slots=True)
class PlaneSeen:
    """What one image says: its focus measure, how far its brightest parts stand out in counts, and what is clipped."""

    z_um: float
    measure: float
    signal_adu: float
    saturated_share: float


def look_at(z_um: float, pixels: Pixels) -> PlaneSeen:
    """Measure an image (y, x) that was taken at `z_um`."""
    height, width = pixels.shape
    top, left = max(0, (height - MIDDLE) // 2), max(0, (width - MIDDLE) // 2)
    middle = pixels[top : top + MIDDLE, left : left + MIDDLE]
    smooth = _median(middle)
    low, high = np.percentile(smooth, [50, 99.9])
    clipped = float((middle == np.iinfo(pixels.dtype).max).mean())
    return PlaneSeen(z_um, focus_measure(smooth), float(high - low), clipped)


def focus_measure(plane: NDArray[np.float32]) -> float:
    """The normalised variance of a plane (y, x); 0 for one without light."""
    mean = float(plane.mean(dtype=np.float64))
    return float(plane.var(dtype=np.float64)) / mean**2 if mean > 0 else 0.0


def _median(plane: Pixels) -> NDArray[np.float32]:
    """The 3x3 median of a plane, without its outermost pixels: single hot pixels and shot noise are no sharpness."""
    height, width = plane.shape
    if height < 3 or width < 3:
        return plane.astype(np.float32)
    shifted = [plane[y : height - 2 + y, x : width - 2 + x] for y in range(3) for x in range(3)]
    middle: NDArray[np.float32] = np.partition(np.stack(shifted), 4, axis=0)[4].astype(np.float32)
    return middle


@dataclass(frozen=True, slots=True)
class FocusCurve:
    """Planes that were looked at, by rising z."""

    planes: tuple[PlaneSeen, ...]

    @classmethod
    def of(cls, planes: Sequence[PlaneSeen]) -> "FocusCurve":
        """A curve of planes in any order; of two at one z the later counts."""
        return cls(tuple(sorted({plane.z_um: plane for plane in planes}.values(), key=lambda plane: plane.z_um)))

    def points(self) -> tuple[tuple[float, float], ...]:
        """(z, measure) of every plane."""
        return tuple((plane.z_um, plane.measure) for plane in self.planes)

    def check(self, *, min_signal_adu: float, min_contrast: float) -> None:
        """Raise StackError where no focus can be in it: too dark, too bright, flat, or too few images."""
        if len(self.planes) < MIN_POINTS:
            what = f"only {len(self.planes)} images fit into the range"
            raise _lost(what, "widen source.autofocus.range_um or source.z_limits_um, or take smaller steps")
        brightest = max(self.planes, key=lambda plane: plane.signal_adu)
        if brightest.signal_adu < min_signal_adu:
            what = f"it is too dark: nothing stands out by more than {brightest.signal_adu:.0f} counts"
            raise _lost(what, "check lamp and shutter, raise the exposure, or look whether the well is empty")
        if (clipped := max(plane.saturated_share for plane in self.planes)) > MAX_SATURATED:
            what = f"it is too bright: {100 * clipped:.0f} % of the pixels are saturated"
            raise _lost(what, "lower the channel's exposure")
        measures = [plane.measure for plane in self.planes]
        if max(measures) < min_contrast * max(min(measures), 1e-12):
            ratio = max(measures) / max(min(measures), 1e-12)
            what = f"the curve is flat: the sharpest plane has {ratio:.1f} times the measure of the dullest"
            raise _lost(what, "widen source.autofocus.range_um, or look whether the well is empty")

    def bracket(self, target: Target) -> tuple[float, float]:
        """The z between which a coarse curve has its focus; StackError at the range's edge.

        Of a slope the lowest summit that is half as high as the highest is meant: where cells are few, the measure
        falls and rises again between them.
        """
        z_um, heights = self._heights(target)
        at = int(heights.argmax())
        if target == "bottom":
            at = int((heights >= heights.max() / 2).argmax())
            while at + 1 < len(heights) and heights[at + 1] > heights[at]:
                at += 1
        self._check_inside(at, target)
        return float(z_um[at - 1]), float(z_um[at + 1])

    def focus_um(self, target: Target) -> float:
        """The vertex of the parabola through a fine curve's highest point and its neighbours; errors as `bracket`."""
        z_um, heights = self._heights(target)
        at = int(heights.argmax())
        self._check_inside(at, target)
        return vertex_um(z_um[at - 1 : at + 2], heights[at - 1 : at + 2])

    def _check_inside(self, at: int, target: Target) -> None:
        """StackError where the summit number `at` is no summit, because the range ends there."""
        last = len(self._heights(target)[1]) - 1
        edge = None
        if at == 0 or (target == "bottom" and not self._begins_below()):
            edge = "lower edge of the range {:g} to {:g} um, or below"
        elif at == last:
            edge = "upper edge of the range {:g} to {:g} um, or above"
        if edge is not None:
            do = "focus a well by hand and write source.autofocus.expected_um, or widen range_um"
            where = edge.format(round(self.planes[0].z_um, 1), round(self.planes[-1].z_um, 1))
            raise _lost(f"the focus lies at the {where}", do)

    def _heights(self, target: Target) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """What has its maximum at the focus: the measure itself, or its logarithm's slope between two planes."""
        z_um = np.array([plane.z_um for plane in self.planes])
        measures = np.array([plane.measure for plane in self.planes])
        if target == "peak":
            return z_um, measures
        logarithm = np.log(measures + FLOOR * measures.max())
        return (z_um[1:] + z_um[:-1]) / 2, np.diff(logarithm) / np.diff(z_um)

    def _begins_below(self) -> bool:
        """Whether the lowest plane shows next to nothing: else the range begins within the sample."""
        return self.planes[0].measure < LOW_END * max(plane.measure for plane in self.planes)


def vertex_um(z_um: NDArray[np.float64], heights: NDArray[np.float64]) -> float:
    """The vertex of the parabola through three points of which the middle one is the highest; within their span."""
    left, right = z_um[0] - z_um[1], z_um[2] - z_um[1]
    down, up = heights[0] - heights[1], heights[2] - heights[1]
    bend = (up / right - down / left) / (right - left)
    if not bend < 0 or not math.isfinite(bend):
        return float(z_um[1])
    slope = down / left - bend * left
    return float(np.clip(z_um[1] - slope / (2 * bend), z_um[0], z_um[2]))


def _lost(what: str, do: str) -> StackError:
    return StackError(f"no focus was found: {what}", do=do)
