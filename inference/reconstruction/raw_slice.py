"""What every device does alike with one raw slice: look at it, weigh its frames, and say how it was reconstructed."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spheroidd.inference.preprocessing.jit import kernel
from spheroidd.inference.reconstruction.band_check import BandState
from spheroidd.inference.reconstruction.noise_weight import constant, of_power
from spheroidd.inference.reconstruction.plan import FrameWeights, ReconstructionPlan
from spheroidd.protocols.errors import StackError
from spheroidd.protocols.sim_pattern import SliceModulation

_BRIGHTEST = 576.0  # electrons a pixel and frame: frames with less noise than that were smoothed or resampled
MOST_EVENING = 2.0  # of one frame's brightness against the others of its slice

Raw = NDArray[Any]  # (angle, phase, y, x), uint8, uint16 or float32


@dataclass(frozen=True, slots=True)
class ReconstructedSlice:
    """An image (2y, 2x) float32 in the frames' own units above their offset, and how it came about."""

    image: NDArray[np.float32]
    modulation: SliceModulation


def refuse_empty(plan: ReconstructionPlan, weights: FrameWeights, z: int) -> None:
    """StackError where no angle has enough frames."""
    if not weights.mean.any():
        do = "take the slice again; an angle needs at least three frames of different phases"
        raise StackError(f"z {z}: too few raw frames arrived", where=plan.channel, do=do)


def by_band(plan: ReconstructionPlan, name: str) -> NDArray[np.complex64]:
    """One of the bands' factors along an axis, "ramp_y" for instance, as an array (band, y or x)."""
    length = plan.grid.height if name.endswith("y") else plan.grid.width
    return np.array([getattr(band, name) for band in plan.bands], np.complex64).reshape(len(plan.bands), length)


def checked(
    plan: ReconstructionPlan, frames: Raw, present: NDArray[np.bool_] | None, z: int
) -> tuple[Raw, NDArray[np.bool_]]:
    """The frames in one piece and which are there; StackError where they are not what the plan is for."""
    pattern = plan.pattern
    wanted = (pattern.n_angles, pattern.n_phases, plan.height, plan.width)
    if frames.shape != wanted or frames.dtype.name not in ("uint8", "uint16", "float32"):
        what = f"z {z}: raw frames are {frames.dtype} {frames.shape}"
        do = f"give uint8, uint16 or float32 (angle, phase, y, x) of {wanted}"
        raise StackError(what, where=plan.channel, do=do)
    if present is None:
        present = np.ones(wanted[:2], bool)
    elif present.shape != wanted[:2]:
        raise StackError(f"z {z}: `present` is {present.shape}", where=plan.channel, do=f"give {wanted[:2]}")
    return np.ascontiguousarray(frames), present


def even_out(
    plan: ReconstructionPlan, sums: NDArray[np.float64], present: NDArray[np.bool_], weights: FrameWeights
) -> NDArray[np.float32]:
    """One factor a frame that gives all frames of a slice one mean: bleaching and lamps that flicker.

    1 where a frame is not there or has no light above the camera's offset; 2 at most, either way.
    """
    means = sums / (plan.height * plan.width) - plan.pattern.offset_adu
    factors = np.ones(len(means), np.float32)
    _fill_evening(factors, means, present.reshape(-1), weights.mean)
    return factors


@kernel
def _fill_evening(factors, means, present, weights):  # type: ignore[no-untyped-def]
    common, counted = 0.0, 0
    for f in range(len(means)):
        if present[f] and weights[f] != 0:
            common += means[f]
            counted += 1
    for f in range(len(means)):
        if present[f] and common > 0 and means[f] > 0:
            factors[f] = min(max(common / counted / means[f], 1 / MOST_EVENING), MOST_EVENING)


def weighed_noise(
    plan: ReconstructionPlan, sums: NDArray[np.float64], noise: float, light: float
) -> NDArray[np.float32]:
    """The table of `noise_weight.py` for a slice.

    `sums` are those of `noise_weight.of_power`, `noise` is the mean's power in one bin, `light` the mean's sum over the
    field. Where neither can be read, or a Wiener constant was stated, the table is that of the constant.
    """
    pixels = plan.grid.height * plan.grid.width
    frames = plan.pattern.n_angles * plan.pattern.n_phases
    noise = plan.pattern.n_angles * max(noise, light**2 / (pixels * frames * _BRIGHTEST))
    found = None if plan.stated or not noise > 0 else of_power(sums, noise)
    return constant(plan.wiener, plan.reach_per_um / plan.cutoff_per_um) if found is None else found


def strengths(states: list[BandState]) -> NDArray[np.float64]:
    """(m / 2)^2 of every band, 0 where it is dead."""
    return np.array([(state.modulation / 2) ** 2 for state in states], np.float64)


def modulation_of(
    plan: ReconstructionPlan, states: list[BandState], z: int, present: NDArray[np.bool_]
) -> SliceModulation:
    """The states by angle and order, as they are kept with the slice."""
    found = dict(zip(((band.angle, band.order) for band in plan.bands), states, strict=True))
    dead = BandState.dead()
    orders = range(1, plan.pattern.beams.orders + 1)
    table = [[found.get((angle, order), dead) for order in orders] for angle in range(plan.pattern.n_angles)]
    return SliceModulation(
        plan.channel,
        z,
        tuple(tuple(one.modulation for one in row) for row in table),
        tuple(tuple(one.contrast for one in row) for row in table),
        tuple(tuple(one.alive for one in row) for row in table),
        () if present.all() else tuple((int(a), int(p)) for a, p in np.argwhere(~present)),
    )
