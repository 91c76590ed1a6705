"""What a stack's raw slices say of themselves while they stream past: brightness, sharpness, drift, clipping.

Measures only; what is too much stands in `stack_quality`, which sees the other stacks of the plate. Nothing of it needs
every pixel: every eighth row or so for brightness and texture, about 100 x 100 points a micrometre apart for drift, and
both only every micrometre of depth.

- Brightness: each slice's mean. The camera's floor is the stack's 0.1 percentile.
- Sharpness: the part of the autocorrelation along rows that is lost between lag L and 2 L (L about 0.4 um). It is
  Vollath's F4 (J. Microsc. 147:279, 1987) over the autocorrelation at lag L, so it depends neither on brightness nor on
  noise, which differs from pixel to pixel; blur keeps neighbours alike and lowers it. Median of the quarter of slices
  with most structure. It does depend on what else lies in the field: a small spheroid before an empty ground keeps
  neighbours alike at any lag.
- Detail: of what pixels differ by more at a distance of 6 um, within which a cell ends, than at lag L, the part that
  they differ by at 2 L already (squares: a variogram, in which noise is the same at any distance and cancels). The same
  in a field full of cells and in one with a small spheroid; a slope across the field adds next to nothing. Pixels of
  more than 1.5 um are too coarse for it.
- Drift: the peak of the band-passed cross-correlation of slices next to each other, summed over channels.
- Clipping: how many pixels stand at the highest value, where that value is the type's largest or holds a pile.
- Hot pixels: those brighter than their neighbours in every slice.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spheroidd.protocols.pixels import Pixels
from spheroidd.protocols.results import ChannelProfile, StackProfile
from spheroidd.protocols.stack import StackPlan

if TYPE_CHECKING:
    from spheroidd.inference.preprocessing.intensity import (
        Histogram,  # with numba, which a reader of profiles does not need
    )

Floats = NDArray[np.float32]

ROWS = 96  # about so many rows of a slice are looked at
LAG_UM = 0.4
CELL_UM = 6.0  # what is alike beyond is no detail of a cell
FINE = 4  # lags that a cell is wide, at least: pixels of more than 1.5 um show none of its details
DEPTH_STEP_UM = 1.0  # texture and drift are measured at this distance in depth, or every slice
DRIFT_POINTS = 112  # along each side, in the middle of the field
POINT_UM = 2.5  # no further apart, or cells slip through
SEARCH_UM = 12.0  # a jump further than a cell is seen as no match at all
BAND_UM = (3.0, 12.0)  # what is registered: cells, not noise and not the spheroid's outline
FAINT = 0.01  # of the highest correlation of two slices: below that there is only haze to register
FEW, LONG_UM = 0.3, 2.0  # of that: where so little is seen, a long move is one cell taken for another
MIN_MATCH = 0.4  # correlation below which two slices say nothing about a move
PILE = 10  # the highest value holds so many times what the values below it hold


class StackInspector:
    """Feed it the slices that pre-processing gets, in z order; `profile` after the last. One thread at a time."""

    def __init__(self, plan: StackPlan) -> None:
        self._stride = max(1, round(DEPTH_STEP_UM / plan.z_step_um))
        self._texture = {channel: _Texture(plan) for channel in plan.channels}
        self._moves = _Moves(plan, self._stride)

    def feed(self, channel: str, z: int, pixels: Pixels) -> None:
        """Take the next slices (n, y, x) of a channel, in z order, starting at z. Nothing of them is kept."""
        for at, plane in enumerate(pixels, z):
            looked_at = at % self._stride == 0
            self._texture[channel].add(plane, looked_at)
            if looked_at:
                self._moves.add(channel, at // self._stride, plane)

    def profile(self, raw: "Mapping[str, Histogram]") -> StackProfile:
        """What was seen; `raw` holds each channel's histogram of raw pixels."""
        channels = {name: texture.profile(raw[name]) for name, texture in self._texture.items()}
        return StackProfile(channels, *self._moves.furthest())


def sharpness_lag(plan: StackPlan) -> int:
    """The lag of sharpness, in pixels."""
    return max(1, min(round(LAG_UM / plan.pixel_um), (plan.width - 1) // 2))


class _Texture:
    """Brightness of every slice, structure of those looked at, and the darkest each pixel ever was."""

    def __init__(self, plan: StackPlan) -> None:
        self._row_step = max(1, min(8, plan.height // ROWS))
        self._lag = sharpness_lag(plan)
        self._across = round(CELL_UM / plan.pixel_um)
        self._means: list[float] = []
        self._near: list[float] = []  # autocovariance at the lag
        self._far: list[float] = []  # and at twice the lag
        self._noise: list[float] = []  # how large either is of noise alone
        self._lost: list[tuple[float, float]] = []  # what more is unlike at twice the lag, and across a cell
        self._darkest: Pixels | None = None

    def add(self, plane: Pixels, looked_at: bool) -> None:
        rows = plane[:: self._row_step]
        mean = float(rows.mean(dtype=np.float32))
        self._means.append(mean)
        if not looked_at:
            return
        self._darkest = rows.copy() if self._darkest is None else np.minimum(self._darkest, rows, out=self._darkest)
        if rows.shape[1] <= 2 * self._lag:
            return
        even = rows.astype(np.float32)
        even -= np.float32(mean)
        lag, n = self._lag, rows.size
        self._near.append(float(np.einsum("yx,yx->", even[:, :-lag], even[:, lag:])) / n)
        self._far.append(float(np.einsum("yx,yx->", even[:, : -2 * lag], even[:, 2 * lag :])) / n)
        self._noise.append(float(np.einsum("yx,yx->", even, even)) / n**1.5)
        if rows.shape[1] > self._across >= FINE * lag:
            near, far, across = (_unlike(even, step) for step in (lag, 2 * lag, self._across))
            self._lost.append((far - near, across - near))

    def profile(self, raw: "Histogram") -> ChannelProfile:
        near, far, noise = (np.array(values) for values in (self._near, self._far, self._noise))
        best = np.argsort(near)[-max(1, len(near) // 4) :] if len(near) else np.empty(0, np.int64)
        best = best[near[best] > 5 * noise[best]]
        contrast = float(np.sqrt(np.median(near[best]))) if len(best) else 0.0
        sharpness = float(np.median(1 - far[best] / near[best])) if len(best) else None
        means = tuple(round(mean, 3) for mean in self._means)
        return ChannelProfile(
            means,
            raw.percentile(0.1),
            contrast,
            sharpness,
            saturated_share(raw),
            _hot_share(self._darkest),
            self._detail() if len(best) else None,
        )

    def _detail(self) -> float | None:
        """Of the quarter of slices with most structure as fine as a cell."""
        by_two, across = np.array(self._lost).reshape(-1, 2).T
        best = np.argsort(across)[-max(1, len(across) // 4) :] if len(across) else np.empty(0, np.int64)
        best = best[across[best] > 0]
        return float(np.median(by_two[best] / across[best])) if len(best) else None


def _unlike(rows: Floats, step: int) -> float:
    """Half the mean square of what pixels so far apart along rows (y, x) differ by: a slope across a small field adds
    next to nothing at short steps, which the autocovariance over a field's inside would not say.
    """
    apart = rows[:, step:] - rows[:, :-step]
    return float(np.einsum("yx,yx->", apart, apart)) / (2 * apart.size)


def saturated_share(raw: "Histogram") -> float:
    """The part of pixels at the camera's ceiling: at the type's largest value, or at a highest value that piles up.

    Cameras of 12 or 14 bits end far below the type's largest; a sum or gain map after the camera moves the end. Pixels
    within 1 % below the pile count with it. 0 where the highest value is just the brightest pixel.
    """
    top = int(np.flatnonzero(raw.counts)[-1]) if raw.n else 0
    if top in (255, 65535) and raw.counts[top] > 1:
        piled = True
    else:
        below = raw.counts[max(0, top - max(8, top // 50)) : top]
        piled = top > 0 and raw.counts[top] >= PILE and raw.counts[top] > PILE * (below.mean() if below.size else 0)
    return float(raw.counts[int(np.ceil(0.99 * top)) :].sum() / raw.n) if piled else 0.0


def _hot_share(darkest: Pixels | None) -> float:
    """The part of pixels that stand out from both neighbours in the darkest look of all slices."""
    if darkest is None or darkest.shape[1] < 3:
        return 0.0
    values = darkest.astype(np.float32)
    above = values[:, 1:-1] - np.maximum(values[:, :-2], values[:, 2:])
    noise = max(1.0, 1.4826 * float(np.median(np.abs(np.diff(values)))))
    return float((above > 20 * noise).mean())


class _Moves:
    """Sideways moves from one slice looked at to the next."""

    def __init__(self, plan: StackPlan, stride: int) -> None:
        self._stride = stride
        across = -(-min(plan.height, plan.width) // DRIFT_POINTS)
        self._step = max(1, min(across, int(POINT_UM / plan.pixel_um)))
        self._point_um = self._step * plan.pixel_um
        height, width = (min(DRIFT_POINTS, side // self._step) for side in (plan.height, plan.width))
        self._shape = (height, width)
        self._corner = (plan.height - height * self._step) // 2, (plan.width - width * self._step) // 2
        self._reach = max(1, min(round(SEARCH_UM / self._point_um), (min(self._shape) - 1) // 2))
        self._usable = min(self._shape) >= 16
        from scipy import fft  # a run's main process reads profiles and makes none

        self._fft = fft
        if self._usable:
            self._window = (np.hanning(height)[:, None] * np.hanning(width)[None]).astype(np.float32)
            square = fft.fftfreq(height, self._point_um)[:, None] ** 2 + fft.rfftfreq(width, self._point_um)[None] ** 2
            low, high = BAND_UM
            self._band = (np.exp(-square * low**2 / 2) * (1 - np.exp(-square * high**2 / 2))).astype(np.float32)
        self._before: dict[str, NDArray[np.complex64]] = {}
        self._match: dict[int, list[tuple[float, Floats]]] = {}  # by the later slice: weight and correlation

    def add(self, channel: str, number: int, plane: Pixels) -> None:
        if not self._usable:
            return
        spectrum = self._fft.rfft2(self._points(plane)) * self._band
        before = self._before.get(channel)
        self._before[channel] = spectrum
        if before is None:
            return
        energy = float(np.sqrt(np.vdot(before, before).real * np.vdot(spectrum, spectrum).real))
        if energy > 0:
            correlation = self._fft.irfft2(before.conj() * spectrum, s=self._shape, overwrite_x=True)
            self._match.setdefault(number, []).append((energy, self._middle(correlation)))

    def _points(self, plane: Pixels) -> Floats:
        """A grid of means of 2 x 2 pixels with the slice's own mean taken off, faded out to its borders."""
        step, (height, width), (y0, x0) = self._step, self._shape, self._corner
        half = step // 2
        cut = plane[y0 : y0 + height * step, x0 : x0 + width * step]
        grid = cut[::step, ::step].astype(np.float32)
        if half:
            for y, x in ((half, 0), (0, half), (half, half)):
                grid += cut[y::step, x::step]
            grid *= np.float32(0.25)
        grid -= grid.mean()
        grid *= self._window
        return grid

    def _middle(self, correlation: Floats) -> Floats:
        """The part for moves of up to the reach, no move in its centre."""
        rows = np.arange(-self._reach, self._reach + 1)
        return correlation[np.ix_(rows, rows)]

    def furthest(self) -> tuple[float | None, float | None, int | None]:
        """Largest distance from the start, longest move, and the slice after it."""
        seen = {number: sum(weight for weight, _ in found) for number, found in sorted(self._match.items())}
        most = max(seen.values(), default=0.0)
        moves = {
            number: move
            for number in seen
            if seen[number] > FAINT * most
            and (move := self._move(self._match[number]))
            and (seen[number] > FEW * most or np.hypot(*move) * self._point_um < LONG_UM)
        }
        if not moves:
            return None, None, None
        steps = np.array(list(moves.values())) * self._point_um
        lengths = np.hypot(*steps.T)
        longest = int(lengths.argmax())
        drift = float(np.hypot(*np.cumsum(steps, axis=0).T).max())
        return drift, float(lengths[longest]), list(moves)[longest] * self._stride

    def _move(self, found: list[tuple[float, Floats]]) -> tuple[float, float] | None:
        """Where the channels' correlations together are largest, in points; None where nothing matches."""
        total = np.sum([correlation / np.float32(weight) for weight, correlation in found], axis=0)
        total *= self._shape[0] * self._shape[1] / len(found) / 2  # now 1 for equal slices
        y, x = np.unravel_index(int(total.argmax()), total.shape)
        if total[y, x] < MIN_MATCH:
            return None
        return self._vertex(total[:, x], int(y)), self._vertex(total[y], int(x))

    def _vertex(self, line: NDArray[np.floating[Any]], at: int) -> float:
        """The place of the largest value between points, from a parabola through it and its neighbours."""
        place = float(at - self._reach)
        if 0 < at < len(line) - 1:
            left, here, right = (float(value) for value in line[at - 1 : at + 2])
            bend = left - 2 * here + right
            place += 0.5 * (left - right) / bend if bend < 0 else 0.0
        return place
