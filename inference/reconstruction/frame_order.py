"""Raw frames in a stated order, and what else would fit them: tried only to be named, never to be used."""

from dataclasses import replace
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spheroidd.inference.reconstruction.estimation import SEARCH, estimate_pattern
from spheroidd.protocols.errors import ConfigError, StackError
from spheroidd.protocols.sim_pattern import (
    MIN_PHASES,
    RAW_AXES,
    Beams,
    PatternEstimate,
    RawAxis,
    RawOrder,
    SimPattern,
)

_TRIED_SLICES, _TRIED_PX = 2, 512
_COARSEST = 0.08  # of the cutoff: stripes for optical sections are seldom coarser


def arranged(frames: NDArray[Any], pattern: SimPattern, where: str = "") -> NDArray[Any]:
    """Frames (frame, y, x) in the pattern's order as slices (z, angle, phase, y, x).

    ConfigError where their number is no whole number of slices.
    """
    n_z, rest = divmod(len(frames), pattern.n_frames)
    if rest or not n_z:
        what = f"{len(frames)} frames are no whole number of slices of {pattern.n_angles} x {pattern.n_phases}"
        raise ConfigError(what, where=where, do="state the numbers of angles and phases, and the channel")
    lengths: dict[RawAxis, int] = {"z": n_z, "angle": pattern.n_angles, "phase": pattern.n_phases}
    split = frames.reshape(*(lengths[axis] for axis in pattern.order), *frames.shape[1:])
    places = [pattern.order.index(axis) for axis in ("z", "angle", "phase")]
    return split.transpose(*places, 3, 4)


def brightest(slices: NDArray[Any], n: int) -> NDArray[Any]:
    """Up to `n` of the slices (z, angle, phase, y, x), in their order: those with the most contrast."""
    if len(slices) <= n:
        return np.ascontiguousarray(slices)
    spread = [float(one[:, :, ::2, ::2].mean(axis=(0, 1)).std()) for one in slices]
    chosen = np.sort(np.argsort(spread)[::-1][:n])
    return np.ascontiguousarray(slices[chosen])


def fitting_patterns(
    frames: NDArray[Any], pattern: SimPattern, channel: str, pixel_um: float, search: tuple[float, float] = SEARCH
) -> list[SimPattern]:
    """Patterns that these frames could be trusted with in place of the stated one, the likeliest kind alone.

    First other orders, then the other number of beams in any order, then stripes coarser than those searched for.
    """
    middle = _middle(frames)

    def fits(other: SimPattern, ring: tuple[float, float]) -> PatternEstimate | None:
        try:
            found = estimate_pattern(brightest(arranged(middle, other), _TRIED_SLICES), other, channel, pixel_um, ring)
        except (ConfigError, StackError):
            return None
        return found if found.usable else None

    orders = _different_orders(pattern, len(frames) == pattern.n_frames)
    for beams in sorted(Beams, key=lambda one: one is not pattern.beams):
        if pattern.n_phases < MIN_PHASES[beams]:
            continue
        others = [replace(pattern, beams=beams, order=order) for order in orders]
        fitting = [other for other in others if other != pattern and fits(other, search)]
        if fitting:
            return fitting
    if pattern.period_of(channel) is None and search[0] > _COARSEST:
        found = fits(pattern, (_COARSEST, search[0]))
        if found is not None:
            period = float(np.mean([one.period_um for one in found.angles]))
            return [replace(pattern, period_um=((channel, period),))]
    return []


def _different_orders(pattern: SimPattern, one_slice: bool) -> list[RawOrder]:
    """The stated order, then the others, z first if it may be; of one slice only those that differ beside z."""
    orders: list[RawOrder] = [pattern.order]
    seen = {_without_z(pattern.order)}
    for order in sorted([(a, b, c) for a, b, c in permutations(RAW_AXES)], key=lambda one: one.index("z")):
        if order != pattern.order and not (one_slice and _without_z(order) in seen):
            orders.append(order)
            seen.add(_without_z(order))
    return orders


def _without_z(order: tuple[RawAxis, ...]) -> tuple[RawAxis, ...]:
    return tuple(axis for axis in order if axis != "z")


def _middle(frames: NDArray[Any]) -> NDArray[Any]:
    """The middle of the frames: enough to tell whether another reading fits, and many are tried."""
    rows, columns = (slice(max(size - _TRIED_PX, 0) // 2, (size + _TRIED_PX) // 2) for size in frames.shape[1:])
    return frames[:, rows, columns]
