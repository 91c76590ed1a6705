"""The limits of a plate out of the light of its wells: one rule for plates with and without killed wells.

Untreated wells say how bright living cells are (488) and what is no dead cell (561): background and bleed-through. How
bright dead nuclei are is known only from wells where cells have died, so the upper limit of 561 is the brightest of
all wells, but never less than what untreated wells show without a dead cell. Limits from untreated wells alone clip
dead nuclei and their haze to one value, and a dying well reads as alive; each stack's own limits stretch noise.

The map from counts to the network's input is fixed: where mean and sd lie in the window does not depend on how many
cells are dead on this plate, as those of the pooled data would.
"""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from spheroidd.protocols.evidence import ChannelLight, StackLight
from spheroidd.protocols.plate import WellRole
from spheroidd.protocols.results import Limits
from spheroidd.protocols.stack import DEAD_CHANNEL, LIVE_CHANNEL

# Where the network expects the mean in the window, and how many sd wide the window is: about those of the plates that
# the shipped weights were trained on. Measured on emulated plates with and without haze, seeds 77 and 4321.
LIVE_MEAN, LIVE_WIDTH_SD = 0.27, 3.4
LIVE_ROOM = 1.4  # 488 is cut off so many windows up: wells of small fields differ by that much from each other
DEAD_MEAN, DEAD_WIDTH_SD = 0.20, 4.5
BLEED_FACTOR = 4.0  # without one dead cell the brightest voxels are bleed-through: dead nuclei are brighter than that
MOST_BLEED = 0.3  # of calcein's light; where more comes through, the dyes are exchanged or the cells dead
GAP = 2.2  # a step in brightness wider than this is another stain or a lamp, not more dead cells; 3 costs dead Dice .18
FEW = 2  # so many wells beyond a gap are an accident; more are what the plate looks like
SATURATED = 0.02  # of the pixels: then the 98th percentile is the camera's ceiling
STEP = 0.10  # upper limits of 561 lie on a ladder of this step, so that a plate's limits move rarely and not by order


@dataclass(frozen=True, slots=True)
class WellLight:
    """One stack's light and the role of its well."""

    role: WellRole
    light: StackLight


def plate_limits(wells: Iterable[WellLight]) -> dict[str, Limits]:
    """One set of limits for each channel from all wells measured so far; empty without wells.

    Depends on the wells alone, not on their order. Without an untreated well all wells stand in for it, and then 488,
    too, ends at the brightest well.
    """
    wells = list(wells)
    untreated = [well.light for well in wells if well.role is WellRole.NEGATIVE_CONTROL]
    reference = untreated or [well.light for well in wells]
    limits: dict[str, Limits] = {}
    window = 0.0  # of 488
    if live := _of(LIVE_CHANNEL, reference):
        low, high = statistics.median(one.low for one in live), statistics.median(one.high for one in live)
        if not untreated:
            high = _brightest(low, high, [one.high for one in live if one.saturated_share < SATURATED])
        window = max(0.0, high - low)
        limits[LIVE_CHANNEL] = _window(low, low + LIVE_ROOM * window, LIVE_MEAN / LIVE_ROOM, LIVE_WIDTH_SD * LIVE_ROOM)
    if dead := _of(DEAD_CHANNEL, reference):
        low = statistics.median(one.low for one in dead)
        bleed = statistics.median([light.bleed for light in reference if light.bleed is not None] or [0.0])
        through = low + BLEED_FACTOR * min(max(bleed, 0.0), MOST_BLEED) * window
        floor = max(statistics.median(one.peak for one in dead), through)
        killed = _unsaturated(wells, WellRole.POSITIVE_CONTROL)
        base = max(floor, statistics.median(killed)) if killed else floor
        high = _on_ladder(low, _brightest(low, base, _unsaturated(wells)))
        limits[DEAD_CHANNEL] = _window(low, high, DEAD_MEAN, DEAD_WIDTH_SD)
    return limits


def clipped(quantiles: Mapping[str, Mapping[str, float]], limits: Mapping[str, Limits]) -> dict[str, float]:
    """How far each channel's own 98th percentile lies beyond the upper limit it was scored with: 1 is at the limit.

    Both are counted from the lower limit, so that a camera's offset does not hide it.
    """
    return {
        channel: (quantiles[channel]["0.98"] - used.low) / (used.high - used.low)
        for channel, used in limits.items()
        if used.high > used.low and "0.98" in quantiles.get(channel, {})
    }


def _of(channel: str, lights: Sequence[StackLight]) -> list[ChannelLight]:
    return [light.channels[channel] for light in lights if channel in light.channels]


def _unsaturated(wells: Sequence[WellLight], role: WellRole | None = None) -> list[float]:
    """The upper percentiles of 561 of wells whose camera was not at its ceiling."""
    found = _of(DEAD_CHANNEL, [well.light for well in wells if role is None or well.role is role])
    return [one.high for one in found if one.saturated_share < SATURATED]


def _brightest(low: float, base: float, highs: Sequence[float]) -> float:
    """The largest of `base` and the wells', but for a few wells beyond a gap."""
    level, above = base, sorted(high for high in highs if high > base)
    for number, high in enumerate(above):
        if high - low > GAP * max(level - low, 1.0) and len(above) - number <= FEW:
            break
        level = high
    return level


def _on_ladder(low: float, high: float) -> float:
    """The nearest step of the ladder."""
    width = high - low
    if width <= 0:
        return high
    return low + math.exp(round(math.log(width) / math.log1p(STEP)) * math.log1p(STEP))


def _window(low: float, high: float, mean: float, width_sd: float) -> Limits:
    """Limits with the mean and sd at their fixed places; of an empty window sd is 0, and the map gives 0."""
    width = max(0.0, high - low)
    return Limits(low, low + width, low + mean * width, width / width_sd)
