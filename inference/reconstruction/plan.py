"""Everything about a reconstruction that does not depend on the slice: computed once for a colour, used on any device.

The reconstruction is a generalised Wiener filter (Gustafsson, J. Microsc. 198, 2000) with the weights that noise gives:
with O the OTF, f the bands' frequencies and m their modulation, A angles,

    H(k) = Apod / (den + A N / S) * [A O D_0(k) + sum (m/4) (O(k+f) C(k+f) + O(k-f) C*(k-f))]
    den  = A O^2 + sum (m/2)^2 [O(k+f)^2 + O(k-f)^2]

The ratio of noise N to signal S at every |k| is read from the slice itself (`noise_weight.py`). A Wiener constant w
that somebody states takes its place as w^2 (k / kc)^2: it holds at the lens's cutoff kc, and signal falls with the
frequency, the power of images of many kinds as about k^-2 (Field, J. Opt. Soc. Am. A 4, 1987). k = 0 passes with a gain
of exactly 1; H(0) itself is D_0's, so that an image has the mean of its frames although haze, which is not modulated,
is missing in the bands. A band with m = 0 drops out and leaves the widefield image of the same target, so that a dying
pattern fades into widefield without a step.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spheroidd.inference.reconstruction.band_check import Check, taper
from spheroidd.inference.reconstruction.noise_weight import PLACES
from spheroidd.inference.reconstruction.otf import Floats, FrequencyGrid, Otf, ideal_lens
from spheroidd.inference.reconstruction.separation import Complexes, unmixing
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.sim_pattern import AngleEstimate, OrderEstimate, PatternEstimate, SimPattern

UPSAMPLING = 2
EDGE_PX = 16  # in which one edge goes over into the other: wrapped around, the outer 4 pixels would be spoilt
EXPECTED_REACH = 1.9  # of the cutoff, where no pattern is known: stripes at .9 of it
_FALLBACK_WIENER = 0.1
NOISE_BINS = 4000  # beyond the cutoff, looked at for the mean's noise
Frames = NDArray[np.generic]


@dataclass(frozen=True, slots=True)
class Band:
    """One order of one angle: where it belongs, and how it is moved, weighed and checked.

    `shift` is the whole-bin part of its frequency; `ramp_y`, `ramp_x` multiply its plane by the rest, put the phase
    zero at the field's centre, and move the spectrum's zero to the middle, so that a row of it is one run; `spin_y`,
    `spin_x` are the whole bins as waves, moved alike. `otf` (y, x) is O at the bins it is read from, `reach` (y,) how
    far from the middle a row of it is not 0.
    """

    angle: int
    order: int
    frequency_yx: tuple[float, float]
    shift: tuple[int, int]
    ramp_y: NDArray[np.complex64]
    ramp_x: NDArray[np.complex64]
    spin_y: NDArray[np.complex64]
    spin_x: NDArray[np.complex64]
    otf: NDArray[np.float32]
    reach: NDArray[np.int64]
    check: Check
    noise_share: float  # times the mean's noise: what that adds to the check's power


@dataclass(frozen=True, slots=True)
class ReconstructionPlan:
    """How one colour's raw slices (angle, phase, y, x) become images (2y, 2x). Made by `ReconstructionPlan.of`.

    Two output pixels tile one camera pixel, so the field keeps its edges. `base` = A O^2 and `squares` (band, ...) hold
    the parts of den on the half plane of the doubled grid, `apodisation` the target; `reach` (y,) says up to which
    column that is not 0. `place_y` (y,) + `place_x` (x,), rounded down, is where the ratio of noise to signal stands in
    the table of `noise_weight.py`; `stated` says that it is w^2 (k / kc)^2 for every slice.
    """

    pattern: SimPattern
    estimate: PatternEstimate | None
    channel: str
    height: int
    width: int
    grid: FrequencyGrid
    bands: tuple[Band, ...]
    otf: NDArray[np.float32]
    base: NDArray[np.float32]
    squares: NDArray[np.float32]
    apodisation: NDArray[np.float32]
    reach: NDArray[np.int64]
    place_y: NDArray[np.float32]
    place_x: NDArray[np.float32]
    out_ramp_y: NDArray[np.complex64]
    out_ramp_x: NDArray[np.complex64]
    noise_at: NDArray[np.int32]
    taper: NDArray[np.float32]
    wiener: float
    stated: bool
    cutoff_per_um: float
    reach_per_um: float

    @classmethod
    def of(
        cls,
        pattern: SimPattern,
        channel: str,
        shape: tuple[int, int],
        pixel_um: float,
        estimate: PatternEstimate | None,
        wiener: float | None = None,
    ) -> "ReconstructionPlan":
        """For slices of `shape` (y, x). Without an estimate, or with one that is not usable, they become widefield.

        Stated, `wiener` holds for every slice; otherwise noise is weighed against each slice's own signal.
        """
        known = estimate if estimate is not None and estimate.usable else None
        if known is not None and len(known.angles) != pattern.n_angles:
            what = f"the estimate has {len(known.angles)} angles and the pattern {pattern.n_angles}"
            raise ConfigError(what, where=f"channel {channel}", do="estimate the pattern of these frames anew")
        grid = FrequencyGrid(_padded(shape[0]), _padded(shape[1]), pixel_um)
        otf = Otf(pattern.optics_of(channel), pixel_um)
        used = [] if known is None else [(one, order) for one in known.angles for order in one.orders if order.trusted]
        window = np.outer(taper(shape[0], grid.height), taper(shape[1], grid.width))
        bands = tuple(_band(one, order, grid, shape, otf, window) for one, order in used)
        fine = grid.doubled()
        ky, kx = fine.ky, fine.half_kx
        squares = np.array([_square(otf, band, ky, kx) for band in bands], np.float32)
        longest = max((math.hypot(*band.frequency_yx) for band in bands), default=0.0)
        reach = otf.cutoff_per_um + longest if bands else EXPECTED_REACH * otf.cutoff_per_um
        apodisation = ideal_lens(np.hypot(ky, kx) / reach)
        apodisation[grid.height, :] = apodisation[:, grid.width] = 0  # the frequency that two pixels just alternate at
        half = otf.at(grid.ky, grid.half_kx)
        base = pattern.n_angles * otf.at(ky, kx) ** 2
        quarter = -0.25 * pixel_um  # from the centre of a camera pixel to that of its first half
        fallback = _FALLBACK_WIENER if known is None else known.wiener
        return cls(
            pattern,
            known,
            channel,
            *shape,
            grid,
            bands,
            half.astype(np.float32),
            base.astype(np.float32),
            squares.reshape(len(bands), *apodisation.shape),
            apodisation.astype(np.float32),
            _lit(apodisation),
            (PLACES * (ky[:, 0] / reach) ** 2).astype(np.float32),
            (PLACES * (kx[0] / reach) ** 2).astype(np.float32),
            np.exp(2j * np.pi * quarter * ky[:, 0]).astype(np.complex64),
            np.exp(2j * np.pi * quarter * kx[0]).astype(np.complex64),
            _beyond(grid, otf.cutoff_per_um),
            window,
            fallback if wiener is None else wiener,
            wiener is not None,
            otf.cutoff_per_um,
            reach,
        )

    @property
    def out_shape(self) -> tuple[int, int]:
        """Of a reconstructed slice (y, x)."""
        return UPSAMPLING * self.height, UPSAMPLING * self.width

    @property
    def out_pixel_um(self) -> float:
        """Of a reconstructed slice."""
        return self.grid.pixel_um / UPSAMPLING

    def weights(self, present: NDArray[np.bool_]) -> "FrameWeights":
        """What each frame contributes where only those of `present` (angle, phase) arrived."""
        return FrameWeights.of(self, present)


@dataclass(frozen=True, slots=True)
class FrameWeights:
    """`mean` (frame,) and `bands` (band, frame): how the planes are summed up, before frames are evened in brightness.

    `dead` are bands of angles too few of whose frames are there; such an angle is left out altogether, because the mean
    of what is left of it has stripes.
    """

    mean: NDArray[np.float32]
    bands: NDArray[np.complex64]
    dead: tuple[bool, ...]

    @classmethod
    def of(cls, plan: ReconstructionPlan, present: NDArray[np.bool_]) -> "FrameWeights":
        """With no angle that can be used everything is 0."""
        n_angles, n_phases = plan.pattern.n_angles, plan.pattern.n_phases
        mean, usable = np.zeros((n_angles, n_phases)), np.zeros(n_angles, bool)
        bands = np.zeros((len(plan.bands), n_angles, n_phases), complex)
        for angle in range(n_angles):
            there = np.flatnonzero(present[angle])
            solved = _solve(plan, angle, there)
            if solved is None:
                continue
            usable[angle] = True
            mean[angle, there] = solved[0].real
            for b, band in enumerate(plan.bands):
                if band.angle == angle:
                    bands[b, angle, there] = solved[band.order]
        mean /= max(usable.sum(), 1)
        dead = tuple(not usable[band.angle] for band in plan.bands)
        flat = bands.reshape(len(plan.bands), n_angles * n_phases).astype(np.complex64)
        return cls(mean.reshape(-1).astype(np.float32), flat, dead)


def _solve(plan: ReconstructionPlan, angle: int, there: NDArray[np.intp]) -> Complexes | None:
    """The unmixing of one angle's frames that are there."""
    if plan.estimate is None:
        whole = len(there) == plan.pattern.n_phases  # equal steps: their mean has no stripes, whatever the phases are
        return np.full((1, len(there)), 1 / len(there), complex) if whole else None
    found = plan.estimate.angles[angle]
    phases = np.radians(np.array(found.phases_deg))[there]
    offsets = np.radians([order.offset_deg for order in found.orders])
    return unmixing(phases, offsets)


def _band(
    one: AngleEstimate,
    order: OrderEstimate,
    grid: FrequencyGrid,
    shape: tuple[int, int],
    otf: Otf,
    window: NDArray[np.float32],
) -> Band:
    fy, fx = (order.order * part for part in one.frequency_yx)
    shift = round(fy / grid.step_y), round(fx / grid.step_x)
    rest = fy - shift[0] * grid.step_y, fx - shift[1] * grid.step_x
    if max(2 * abs(shift[0]) / grid.height, 2 * abs(shift[1]) / grid.width) >= 1:
        what = f"stripes of {1000 / math.hypot(fy, fx):.0f} nm are finer than two pixels of {grid.pixel_um:g} um"
        raise ConfigError(what, where=f"angle {one.angle}", do="see that pixel_um is that of these frames")
    lengths = (grid.height, grid.width)
    ramps = [
        np.exp(-2j * np.pi * grid.pixel_um * (part * np.arange(n) - whole * (size - 1) / 2)) * (-1.0) ** np.arange(n)
        for part, whole, n, size in zip(rest, (fy, fx), lengths, shape, strict=True)
    ]
    spins = [
        np.exp(2j * np.pi * (bins + n // 2) * np.arange(n) / n).astype(np.complex64)
        for bins, n in zip(shift, lengths, strict=True)
    ]
    moved = otf.at(grid.ky + rest[0], grid.kx + rest[1])
    plain = otf.at(grid.ky, grid.kx)
    check = Check.at(grid, plain, moved, shift, (fy, fx), otf.cutoff_per_um)
    return Band(
        one.angle,
        order.order,
        (fy, fx),
        shift,
        ramps[0].astype(np.complex64),
        ramps[1].astype(np.complex64),
        spins[0],
        spins[1],
        np.fft.fftshift(moved).astype(np.float32),
        _reach(np.fft.fftshift(moved)),
        check,
        check.noise_share * float(window.mean(dtype=np.float64)),
    )


def _reach(otf: Floats) -> NDArray[np.int64]:
    """How far from the middle each row (y,) is not 0."""
    half = otf.shape[1] // 2
    farthest = np.where(otf > 0, np.abs(np.arange(-half, half)), -1).max(axis=1) + 1
    return np.asarray(np.minimum(farthest, half), np.int64)


def _lit(plane: NDArray[np.floating[Any]]) -> NDArray[np.int64]:
    """Up to which column each row (y,) is not 0."""
    lit = plane.astype(np.float32) != 0
    return np.where(lit.any(axis=1), plane.shape[1] - lit[:, ::-1].argmax(axis=1), 0).astype(np.int64)


def _square(otf: Otf, band: Band, ky: Floats, kx: Floats) -> Floats:
    fy, fx = band.frequency_yx
    squares: Floats = otf.at(ky + fy, kx + fx) ** 2 + otf.at(ky - fy, kx - fx) ** 2
    return squares


def _beyond(grid: FrequencyGrid, cutoff: float) -> NDArray[np.int32]:
    """Flat places of the half plane that the lens does not reach, the farthest first where there are many."""
    radius = np.hypot(grid.ky, grid.half_kx).reshape(-1)
    outside = np.flatnonzero(radius > 1.02 * cutoff)
    if len(outside) > NOISE_BINS:
        outside = np.sort(np.random.default_rng(0).choice(outside, NOISE_BINS, replace=False))
    return outside.astype(np.int32)


def _padded(size: int) -> int:
    """An even length of factors up to 7, which transform fastest, with room for the way from edge to edge."""
    length = size + EDGE_PX
    while length % 2 or _without(length, (2, 3, 5, 7)) > 1:
        length += 1
    return length


def _without(number: int, factors: tuple[int, ...]) -> int:
    for factor in factors:
        while number % factor == 0:
            number //= factor
    return number
