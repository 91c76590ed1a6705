"""Which pattern a plate's raw frames are read with: found in its first stored stacks, the same for every stack after.

What it is follows from the catalog alone: the pattern that the configuration gives, or the surest usable estimate of
each colour. Stacks wait until each colour has one that is sure enough, or MAX_ASKED stacks were asked, or no other can
be.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType

from spheroidd.protocols.errors import StackError
from spheroidd.protocols.sim_pattern import PatternEstimate, SliceModulation
from spheroidd.protocols.stack import StackKey

MAX_ASKED = 3
# Peak over median, in the weakest angle, of an estimate for which no other stack is asked. A colour with little light
# in the first well was found .12 degrees off at 49, and within .02 at 2000.
SURE = 300.0
Asked = Mapping[StackKey, Mapping[str, PatternEstimate]]


def plate_patterns(
    asked: Asked,
    channels: Sequence[str],
    none_left: Callable[[], bool],
    given: Mapping[str, PatternEstimate] = MappingProxyType({}),
) -> dict[str, PatternEstimate | None] | None:
    """The pattern of each colour, None for one that goes on in widefield; None as long as that is open.

    One that was `given` needs no stack to be asked.
    """
    found = {channel: given.get(channel) or _surest(asked, channel) for channel in channels}
    known = (one is not None and (channel in given or sureness(one) > SURE) for channel, one in found.items())
    sure = all(known)
    if sure or len(asked) >= MAX_ASKED or none_left():
        return found
    return None


def doubts(found: Mapping[str, PatternEstimate | None] | None, asked: Asked, plate: str) -> Iterator[StackError]:
    """What is to be told where a plate goes on without a colour's pattern: one error for all its colours."""
    lost = [channel for channel, one in (found or {}).items() if one is None]
    if lost:
        why = [f"{c}: {said[c].verdict}" for c in lost for said in list(asked.values())[:1] if c in said]
        what = f"the pattern of {' and '.join(lost)} cannot be trusted, and the plate goes on in widefield"
        do = "check the pattern's order, directions and flip in the plan; `spheroidd sim check` shows each slice"
        yield StackError(f"{what} ({'; '.join(why)})", where=plate, do=do)


def made_without(
    made: Mapping[StackKey, Sequence[SliceModulation]], found: Mapping[str, PatternEstimate | None]
) -> set[StackKey]:
    """Stacks of which a colour was made without a pattern although one is known by now."""
    known = {channel for channel, one in found.items() if one is not None}
    return {
        key
        for key, slices in made.items()
        if known & ({one.channel for one in slices} - {one.channel for one in slices if one.compared})
    }


def _surest(asked: Asked, channel: str) -> PatternEstimate | None:
    usable = [said[channel] for said in asked.values() if channel in said and said[channel].usable]
    return max(usable, key=sureness, default=None)  # of equals the first


def sureness(estimate: PatternEstimate) -> float:
    """The peak over median of the weakest angle, by its best trusted order."""
    return min(
        max((order.peak_to_median for order in one.orders if order.trusted), default=0.0) for one in estimate.angles
    )
