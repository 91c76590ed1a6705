"""Raw frames in a stated order, and which other orders would fit them: tried only to be named, never to be used."""

from dataclasses import replace
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spheroidd.inference.reconstruction.estimation import SEARCH, estimate_pattern
from spheroidd.protocols.errors import ConfigError, StackError
from spheroidd.protocols.sim_pattern import RAW_AXES, RawAxis, RawOrder, SimPattern

_TRIED_SLICES = 2


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


def fitting_orders(
    frames: NDArray[Any], pattern: SimPattern, channel: str, pixel_um: float, search: tuple[float, float] = SEARCH
) -> list[RawOrder]:
    """The orders other than the stated one in which the pattern of these frames can be trusted."""
    fitting: list[RawOrder] = []
    orders: list[RawOrder] = [(a, b, c) for a, b, c in permutations(RAW_AXES)]
    for order in orders:
        if order == pattern.order or (len(frames) == pattern.n_frames and _same_frames(order, pattern.order, fitting)):
            continue
        other = replace(pattern, order=order)
        try:
            slices = brightest(arranged(frames, other), _TRIED_SLICES)
            if estimate_pattern(slices, other, channel, pixel_um, search).usable:
                fitting.append(other.order)
        except (ConfigError, StackError):
            continue
    return fitting


def _same_frames(order: tuple[RawAxis, ...], stated: RawOrder, seen: list[RawOrder]) -> bool:
    """Whether, with one slice, this order reads the frames as another one does that needs no telling."""
    inner = [axis for axis in order if axis != "z"]
    return any(inner == [axis for axis in other if axis != "z"] for other in (stated, *seen))
