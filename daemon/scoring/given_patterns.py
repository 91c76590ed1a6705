"""Patterns known before a plate is imaged: of a calibration slide, as `spheroidd sim estimate --json` wrote them.

A plate with a given pattern waits for no stack; each slice is compared with it all the same, and is widefield where its
stripes are not there.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.json_text import parse_json
from spheroidd.protocols.sim_pattern import PatternEstimate, SliceModulation
from spheroidd.protocols.stack import StackPlan

SAME_PIXEL = 0.01  # of a calibration's pixel and the plate's: the same camera behind the same lens
_ESTIMATE = "spheroidd sim estimate FILE --json > pattern.json"


def read_given(path: Path, channel: str) -> PatternEstimate:
    """The usable pattern of a colour in a file; of a list that of this channel, the first that is usable.

    ConfigError where it cannot be read, or holds none that may be used.
    """
    try:
        found = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot be read: {error}", where=str(path), do=f"write it: {_ESTIMATE}") from error
    entries = found if isinstance(found, list) else [found]
    estimates = [_estimate(entry, path) for entry in entries]
    named = [one for one in estimates if one.channel == channel] if isinstance(found, list) else estimates
    if not named:
        raise ConfigError(f"it holds no pattern of channel {channel}", where=str(path), do=f"write it: {_ESTIMATE}")
    usable = [one for one in named if one.usable]
    if not usable:
        do = "image the calibration slide again, or leave the pattern to the plate's first stacks"
        raise ConfigError(f"its pattern cannot be trusted: {named[0].verdict}", where=str(path), do=do)
    return replace(usable[0], channel=channel)  # a file of raw frames knows no channel's name


def _estimate(entry: Any, path: Path) -> PatternEstimate:
    if not isinstance(entry, dict):
        raise ConfigError("it is no estimate", where=str(path), do=f"write it: {_ESTIMATE}")
    try:
        return PatternEstimate.from_json(json.dumps(entry.get("estimate", entry)))
    except ConfigError as error:
        raise ConfigError(error.what, where=str(path), do=f"write it: {_ESTIMATE}") from error


def check_given(given: Mapping[str, PatternEstimate], plans: Sequence[StackPlan]) -> None:
    """ConfigError where a given pattern cannot be that of these stacks, or there are no raw frames to use it for."""
    for plan in plans:
        for channel, one in given.items():
            where = f"pattern of {channel}"
            if plan.raw is None:
                do = "leave [sim] out, or take raw frames: [source.raw]"
                raise ConfigError("a pattern is given, and no raw frames are taken", where=where, do=do)
            if abs(one.pixel_um / plan.frame_pixel_um - 1) > SAME_PIXEL:
                what = (
                    f"it was found with pixels of {one.pixel_um:g} um, the plate's frames have {plan.frame_pixel_um:g}"
                )
                raise ConfigError(what, where=where, do="calibrate with the same objective and binning")
            if len(one.angles) != plan.raw.n_angles or len(one.angles[0].phases_deg) != plan.raw.n_phases:
                what = f"it has {len(one.angles)} x {len(one.angles[0].phases_deg)} frames"
                do = f"the plate's slices have {plan.raw.n_angles} x {plan.raw.n_phases}: calibrate with the same"
                raise ConfigError(what, where=where, do=do)


def not_there(given: Mapping[str, PatternEstimate], made: Sequence[SliceModulation]) -> list[str]:
    """The colours whose given pattern is in no slice of a stack."""
    of_channel = {channel: [one for one in made if one.channel == channel] for channel in given}
    return [channel for channel, slices in of_channel.items() if slices and all(one.widefield for one in slices)]
