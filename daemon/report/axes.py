"""Axes of the figures: from a value to a place on the sheet, with ticks at numbers that people expect."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Axis:
    """Values from `low` to `high` lie between the places `start` and `stop`; `log` axes take values above 0."""

    low: float
    high: float
    start: float
    stop: float
    ticks: tuple[tuple[float, str], ...]
    log: bool = False

    def at(self, value: float) -> float:
        """Where a value lies; outside the axis where the value is."""
        low, high = (math.log10(self.low), math.log10(self.high)) if self.log else (self.low, self.high)
        place = math.log10(value) if self.log else value
        return self.start + (place - low) / (high - low) * (self.stop - self.start)


def linear_axis(low: float, high: float, start: float, stop: float, n_ticks: int = 5) -> Axis:
    """An axis whose ends are ticks: multiples of 1, 2, 2.5 or 5 times a power of ten, about `n_ticks` of them."""
    if not high > low:
        high = low + 1.0
    high = max(high, low + 1e-6 * max(abs(low), abs(high)))  # nearer values have no labels that tell them apart
    step = _nice_step((high - low) / n_ticks)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    places = max(0, -math.floor(math.log10(step) + 1e-9) + (1 if _is_quarter(step) else 0))
    plain = step < 1e6
    ticks = tuple((n * step, f"{n * step:.{places}f}" if plain else f"{n * step:.3g}") for n in range(first, last + 1))
    return Axis(first * step, last * step, start, stop, ticks)


def _nice_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next(m * power for m in (1.0, 2.0, 2.5, 5.0, 10.0) if m * power >= rough * (1 - 1e-9))


def _is_quarter(step: float) -> bool:
    return f"{step:.0e}" != f"{step:e}" and f"{step:e}".startswith("2.5")


def log_axis(low: float, high: float, start: float, stop: float) -> Axis:
    """An axis of doses above 0 with at most seven ticks: powers of ten, 3, 2 and 5 of each where those are too few."""
    ends = (low / 1.25, high * 1.25)
    powers = range(math.floor(math.log10(ends[0])), math.ceil(math.log10(ends[1])) + 1)
    inside: list[float] = []
    for digits in ((1,), (1, 3), (1, 2, 5)):
        if len(inside) < 3:
            values = (digit * 10.0**power for power in powers for digit in digits)
            inside = [value for value in values if ends[0] <= value <= ends[1]]
    inside = inside or [low]  # one dose alone, between two such numbers
    every = -(-len(inside) // 7)
    return Axis(*ends, start, stop, tuple((value, _power(value)) for value in inside[::every]), log=True)


def _power(value: float) -> str:
    return f"{value:.3g}" if 1e-4 <= value < 1e5 else f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e")
