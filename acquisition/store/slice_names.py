"""Slices as a person would name them."""

from collections.abc import Iterable
from itertools import groupby

from spheroidd.protocols.stack import SliceIndex


def name_slices(slices: Iterable[SliceIndex]) -> str:
    """Channel by channel, runs of z in one.

    >>> name_slices([SliceIndex("488", z) for z in (1, 2, 3, 7)] + [SliceIndex("561", 0)])
    '488 z 1-3, 7; 561 z 0'
    """
    told = []
    for channel, of_channel in groupby(sorted(set(slices)), key=lambda index: index.channel):
        runs: list[list[int]] = []
        for index in of_channel:
            if runs and index.z == runs[-1][-1] + 1:
                runs[-1].append(index.z)
            else:
                runs.append([index.z])
        told.append(f"{channel} z " + ", ".join(f"{r[0]}-{r[-1]}" if len(r) > 1 else f"{r[0]}" for r in runs))
    return "; ".join(told)
