"""How much noise is weighed against a slice's own signal, by |k|: the last part of the Wiener filter's denominator.

A Wiener filter wants the ratio of noise to signal. Noise is that of the mean where no light reaches. Signal is what the
merged bands hold beyond their noise, on average over rings of |k|: with H = sum of what they say and den = what that
weighs, |H|^2 is den^2 S + A N den on average, S the sample's power, N the mean's noise, A the angles. In a ring whose
signal is not seen its standard deviation stands for it, or the signal of the ring before where that is less, and so
noise is damped there. One number a ring invents nothing.
"""

import numpy as np
from numpy.typing import NDArray

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
    root = np.sqrt((np.arange(PLACES + 1) + 0.5) / PLACES)
    ring = np.minimum((root * _RINGS).astype(np.int64), _RINGS - 1)[1:]  # the first place holds k = 0
    power, weight, squares = (np.bincount(ring, part[1:], _RINGS) for part in sums)
    seen = squares > 0
    if not seen.any():
        return None
    least = noise / np.sqrt(squares[seen])  # a standard deviation of what noise alone would make of the ring
    signal = np.maximum((power[seen] - noise * weight[seen]) / squares[seen], least)
    for i in range(1, len(signal)):
        if signal[i] < _SEEN * least[i]:
            signal[i] = min(signal[i], signal[i - 1])
    middles = (np.flatnonzero(seen) + 0.5) / _RINGS
    return (noise / np.exp(np.interp(root, middles, np.log(signal)))).astype(np.float32)
