"""Whether focus is judged rightly wherever the cells lie: `python -m bench.focus` prints JSON.

Wells of clear emulated plates in fields of all kinds, as they are and blurred: how many are called out of focus by
their detail, and by the sharpness that was taken before. The limit of detail was chosen by such wells, so what it is
worth on others `bench.trust healthy` says.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from statistics import median
from typing import Any

import numpy as np

from bench.spoiled import Given, blurred, unchanged
from spheroidd.daemon.training.emulated_plates import TrainingPlate
from spheroidd.inference.preprocessing.intensity import Histogram
from spheroidd.inference.preprocessing.resample import Spacing
from spheroidd.inference.quality.image_profile import StackInspector
from spheroidd.inference.quality.trust.evidence import LIMITS, Seen
from spheroidd.inference.quality.trust.of_images import is_blurred
from spheroidd.protocols.pixels import Pixels
from spheroidd.protocols.stack import CHANNELS, StackKey, StackPlan
from spheroidd.protocols.well import WellId

PLATES = {"any": range(7100, 7110), "demo": [7100], "unit": [7100, 7101], "whole": [7100], "dying": [7100]}
WELLS = 6  # of each plate
WAYS = {"as it is": unchanged, **{f"blur of {um:g} um": blurred(um) for um in (1.0, 2.0, 4.0)}}


def seen_in(stack: Pixels, own_um: Spacing) -> Seen:
    """What a stack's slices say of themselves."""
    n_z, height, width = stack.shape[1:]
    plan = StackPlan(StackKey("focus", WellId(0, 0)), CHANNELS, n_z, height, width, own_um[2], own_um[0])
    inspector, raw = StackInspector(plan), {channel: Histogram() for channel in CHANNELS}
    for channel, slices in zip(CHANNELS, stack, strict=True):
        inspector.feed(channel, 0, slices)
        raw[channel].add(slices)
    return Seen.of(plan, light=None, profile=inspector.profile(raw))


def by_sharpness(seen: Seen) -> Seen:
    """The same without detail, as an older version saw it."""
    if seen.profile is None:
        return seen
    channels = {name: replace(one, detail=None) for name, one in seen.profile.channels.items()}
    return replace(seen, profile=replace(seen.profile, channels=channels))


def told(found: Sequence[Seen]) -> dict[str, Any]:
    """A row of the table."""
    details = [one.detail for seen in found if seen.profile for one in seen.profile.channels.values()]
    return {
        "wells": len(found),
        "out of focus": sum(is_blurred(seen, LIMITS) for seen in found),
        "by sharpness": sum(is_blurred(by_sharpness(seen), LIMITS) for seen in found),
        "median detail": round(median(one for one in details if one is not None), 3),
    }


def main() -> None:
    found: dict[str, list[Seen]] = {way: [] for way in WAYS}
    for kind, seed in ((kind, seed) for kind, seeds in PLATES.items() for seed in seeds):
        print(kind, seed, file=sys.stderr)
        plate = TrainingPlate(kind, seed)
        for well in plate.wells()[:WELLS]:
            stack = plate.pixels(well)
            for way, spoil in WAYS.items():
                given = Given(stack.astype(np.float64), plate.own_um, np.random.default_rng(seed))
                spoiled = np.clip(np.rint(spoil(given)), 0, 65535).astype(np.uint16)
                found[way].append(seen_in(spoiled, plate.own_um))
    print(json.dumps({"bench": "focus", **{way: told(some) for way, some in found.items()}}, indent=1))


if __name__ == "__main__":
    main()
