"""How much noise is weighed against a slice's own signal, by |k|: the last part of the Wiener filter's denominator.

A Wiener filter wants the ratio of noise to signal. Noise is that of the mean where no light reaches. Signal is what the
merged bands hold beyond their noise, on average over rings of |k|: with H = sum of what they say and den = what that
weighs, |H|^2 is den^2 S + A N den on average, S the sample's power, N the mean's noise, A the angles. In a ring whose
signal is not seen its standard deviation stands for it, or the signal of the ring before where that is less, and so
noise is damped there. One number a ring invents nothing.
"""

import math

import numpy as np
from numpy.typing import NDArray

from spheroidd.inference.preprocessing.jit import kernel

PLACES = 1024  # of the table, even in |k|^2, up to the target's reach
LOOKED_AT = 8  # every so manieth row of frequencies is enough for the rings
_RINGS = 32
_SEEN = 3.0  # standard deviations


def constant(wiener: float, reach_per_cutoff: float) -> NDArray[np.float32]:
    """The table for w^2 (k / cutoff)^2, whatever the slice holds: images of many kinds have a power of about k^-2."""
    squared = (np.arange(PLACES + 1) + 0.5) / PLACES * reach_per_cutoff**2
    return (wiener**2 * squared).astype(np.float32)


def of_power(sums: NDArray[np.float64], noise: float) -> NDArray[np.float32] | None:
    """The table (PLACES + 1,) of A N / S at the places of |k|^2; `noise` is A N. None where nothing is seen at all.

    `sums` (3, PLACES + 1) are those of |H|^2, den and den^2 by place.
    """
    table = np.empty(PLACES + 1, np.float32)
    return table if _fill(table, sums, noise) else None


@kernel
def _fill(table, sums, noise):  # type: ignore[no-untyped-def]
    """`of_power` into `table`; whether anything is seen."""
    rings = np.zeros((3, _RINGS))
    for i in range(1, table.size):  # the first place holds k = 0
        ring = min(int(_RINGS * math.sqrt((i + 0.5) / PLACES)), _RINGS - 1)
        for part in range(3):
            rings[part, ring] += sums[part, i]
    middles, logs, seen, before = np.empty(_RINGS), np.empty(_RINGS), 0, np.inf
    for ring in range(_RINGS):
        power, weight, squares = rings[0, ring], rings[1, ring], rings[2, ring]
        if squares > 0:
            least = noise / math.sqrt(squares)  # a standard deviation of what noise alone would make of the ring
            signal = max((power - noise * weight) / squares, least)
            if signal < _SEEN * least:
                signal = min(signal, before)
            middles[seen], logs[seen], before = (ring + 0.5) / _RINGS, math.log(signal), signal
            seen += 1
    if seen:
        root = np.sqrt((np.arange(table.size) + 0.5) / PLACES)
        table[:] = noise / np.exp(np.interp(root, middles[:seen], logs[:seen]))
    return seen > 0
