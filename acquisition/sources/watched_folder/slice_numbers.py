"""Whether slices are numbered as the settings have it: from 0 or from 1 can be seen, and is told, never guessed.

A stack that is counted from the wrong number is stored one place off, and no later run can tell; so nothing of it is
given out before its first slice has come. A stage that goes downwards pays for it: its stacks are read at their end.
"""

from spheroidd.acquisition.sources.watched_folder.stack_arrival import Arrival
from spheroidd.protocols.errors import StackError

NOT_AGAIN = "the images are sound, nothing needs to be imaged again"


def misnumbered(arrival: Arrival, n_z: int, first: int) -> StackError | None:
    """Why the numbers that came are not those of `n_z` slices from `first` on; None where they are, so far."""
    low, top = arrival.low_z, arrival.top_z
    where = f"well {arrival.key.well}"
    if low is None:
        return None
    if low < 0:
        what = f"slice {low + first} arrived, and source.first_z = {first} says that the first is {first}"
        return StackError(what, where=where, do=f"write first_z = {low + first} under [source]; {NOT_AGAIN}")
    if low > 0 and top >= n_z > top - low:
        what = f"slice {top + first} lies beyond n_z = {n_z} and slice {first} never arrived"
        number = f" = {low + first}" if top - low + 1 == n_z else ", the number of the first slice (1, perhaps),"
        return StackError(what, where=where, do=f"write first_z{number} under [source]; {NOT_AGAIN}")
    if top >= n_z:
        what = f"slice {top + first} lies beyond n_z = {n_z} (slices {first} to {n_z + first - 1})"
        return StackError(what, where=where, do=f"write n_z = {top + 1} under [source]; {NOT_AGAIN}")
    return None


def is_first_awaited(arrival: Arrival, first_channel: str | None) -> bool:
    """Whether nothing tells yet where the numbers begin: slices came, and the first of them, or the first channel's, is
    not among them.
    """
    if first_channel is not None and arrival.channels and first_channel not in arrival.channels:
        return True
    return arrival.low_z is not None and arrival.low_z > 0


def first_never_came(arrival: Arrival, n_z: int, first: int) -> StackError:
    """The error of a stack that went quiet before its first slice came; nothing of it was stored."""
    if not arrival.low_z:
        came = ", ".join(sorted(arrival.channels))
        what = (
            f"of the first channel nothing arrived, of {came} slices did, "
            "and nothing says where channels' numbers begin"
        )
        do = "look at the C of its files and at source.channels (C01 is the first where numbers begin at one)"
        return StackError(what, where=f"well {arrival.key.well}", do=do)
    low, top = (arrival.low_z or 0) + first, arrival.top_z + first
    what = f"slice {first} never arrived, slices {low} to {top} of {n_z} did, and nothing says where they begin"
    do = f"write first_z = {low} under [source] if that is the first; else image the well again"
    return StackError(what, where=f"well {arrival.key.well}", do=do)
