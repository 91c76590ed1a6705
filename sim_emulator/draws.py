"""Random numbers that have names: the same seed and name give the same number on every machine.

Only uniform bits are taken from a generator (numpy's Philox, counter-based); normals come from them by the inverse of
the distribution function. A number depends on its own name alone: adding one leaves all others as they were.
"""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Draws:
    """A source of named numbers for one thing: a plate, a well, a compound.

    >>> Draws.of(0, "plate", "A01").uniform("hue", 1, 2) == Draws.of(0, "plate", "A01").uniform("hue", 1, 2)
    True
    """

    scope: str

    @classmethod
    def of(cls, *parts: object) -> "Draws":
        """The numbers that belong to these parts, such as (seed, plate, well)."""
        return cls("\x1f".join(str(part) for part in parts))

    def key(self, name: str) -> int:
        """128 bits that depend on the scope and the name alone."""
        text = f"{self.scope}\x1e{name}".encode()
        return int.from_bytes(hashlib.blake2b(text, digest_size=16).digest(), "little")

    def uniform(self, name: str, low: float = 0.0, high: float = 1.0) -> float:
        """One number, uniform in (low, high)."""
        unit = ((self.key(name) >> 75) + 0.5) * 2.0**-53
        return low + (high - low) * unit

    def normal(self, name: str, mean: float = 0.0, sd: float = 1.0) -> float:
        """One number, normal."""
        return mean + sd * float(_inverse_normal()(self.uniform(name)))

    def log_uniform(self, name: str, low: float, high: float) -> float:
        """One number whose logarithm is uniform."""
        return math.exp(self.uniform(name, math.log(low), math.log(high)))

    def uniforms(self, name: str, *shape: int) -> Floats:
        """An array, uniform in (0, 1)."""
        generator = np.random.Generator(np.random.Philox(key=self.key(name)))
        return np.clip(generator.random(shape), 2.0**-54, 1 - 2.0**-53)

    def normals(self, name: str, *shape: int) -> Floats:
        """An array, standard normal."""
        values: Floats = _inverse_normal()(self.uniforms(name, *shape))
        return values


@cache
def _inverse_normal() -> Callable[..., Any]:
    """The inverse of the normal distribution: a tenth of a second to import, which settings are read without."""
    from scipy.special import ndtri

    return cast(Callable[..., Any], ndtri)
