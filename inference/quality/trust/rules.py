"""What makes a row doubtful: all rules over what was measured of its stack alone, and of the other stacks of its plate.

A rule yields flags of `protocols.trust`, whose table says what each means. Most rules need no other stack, so that the
first well of a plate is judged as the last one is. Where nothing is known of a stack, because an older version scored
it, its rules find nothing.
"""

from collections.abc import Callable, Sequence

from spheroidd.inference.quality.trust.beside_plate import PlateLevels, RowFigures, beside_plate
from spheroidd.inference.quality.trust.evidence import LIMITS, Flags, RowEvidence, TrustLimits
from spheroidd.inference.quality.trust.of_cells import cell_sizes, debris, live_light, nothing_found
from spheroidd.inference.quality.trust.of_images import (
    channels_alike,
    clipped,
    dead_dye,
    foreign,
    moved,
    out_of_focus,
    repeated,
    saturated,
    shaded,
    structure,
    without_pattern,
)
from spheroidd.protocols.stack import StackKey
from spheroidd.protocols.trust import TrustFlag

Rule = Callable[[RowEvidence, TrustLimits], Flags]

RULES: tuple[Rule, ...] = (
    *(clipped, structure, saturated, channels_alike, dead_dye, moved, shaded, repeated, out_of_focus),
    without_pattern,
    foreign,
    *(nothing_found, live_light, debris, cell_sizes),
)


def flags_of(rows: Sequence[RowEvidence], limits: TrustLimits = LIMITS) -> dict[StackKey, frozenset[TrustFlag]]:
    """The flags of every scored row of a plate by one model: its own, and those that show beside the others."""
    own = {row.key: own_flags(row, limits) for row in rows}
    figures = {row.key: RowFigures.of(row, limits) for row in rows if not row.excluded}
    sound = [one for key, one in figures.items() if not own[key]]
    levels = PlateLevels.of(sound, list(figures.values()), limits)
    beside = {key: beside_plate(one, own[key], levels, limits) for key, one in figures.items()}
    return {key: flags.union(beside.get(key, ())) for key, flags in own.items()}


def own_flags(row: RowEvidence, limits: TrustLimits = LIMITS) -> frozenset[TrustFlag]:
    """The flags of one row by itself."""
    found = {flag for rule in RULES for flag in rule(row, limits)}
    if TrustFlag.PIXEL_SIZE in found:  # what is sharp is judged by micrometres, too
        found.discard(TrustFlag.OUT_OF_FOCUS)
    return frozenset(found)
