"""How far a result row can be trusted, and the flags that say why: each with one meaning, one weight, one remedy.

A rule that finds a flag stands in inference/quality/trust; whoever shows one takes its words from here. A flag
of `FAIL` says that the images cannot carry a number: the row keeps its pixels, masks, counts and quantiles and gives no
viability. One of `CHECK` leaves the numbers and asks a person to look.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from spheroidd.protocols.phrase import all_of, phrase


class Trust(StrEnum):
    """How far the numbers of a row can be believed; None where a row was written before rows were judged."""

    OK = "ok"
    CHECK = "check"  # somebody should look before the numbers are used
    FAIL = "fail"  # there are no numbers to use


class TrustFlag(StrEnum):
    """What is wrong with a row, or looks so. The text is stable: it stands in catalogs and exports."""

    CAMERA_NOISE = "camera-noise"
    NO_CELL = "no-cell"
    VOLUME_WITHOUT_OBJECTS = "volume-without-objects"
    LIVE_DYE_ABSENT = "live-dye-absent"
    DEAD_DYE_ABSENT = "dead-dye-absent"
    CHANNEL_FLAT = "channel-flat"
    CHANNELS_IDENTICAL = "channels-identical"
    CHANNELS_EXCHANGED = "channels-exchanged"
    SATURATED = "saturated"
    TOO_DIM = "too-dim"
    OUT_OF_FOCUS = "out-of-focus"
    DEBRIS_ONLY = "debris-only"
    OBJECT_SIZE = "object-size"
    PIXEL_SIZE = "pixel-size"
    CONTROLS_WRONG_SIDE = "controls-wrong-side"
    V_CONTROL_HIGH = "v-control-high"
    REPEATED_SLICE = "repeated-slice"
    SHADED = "shaded"
    DRIFT = "drift"
    CLIPPED = "clipped"
    FOREIGN = "foreign-images"
    CELLS_SMALL = "cells-look-small"
    CELLS_LARGE = "cells-look-large"
    WIDEFIELD = "sim-widefield"


@dataclass(frozen=True, slots=True)
class FlagMeaning:
    """What a flag does to its row, what it means, and what to do about it."""

    weight: Trust
    meaning: str
    do: str

    @property
    def sentence(self) -> str:
        """Meaning and remedy."""
        return f"{self.meaning}; {self.do}"


def _flag(weight: Trust, flag: TrustFlag, do: str = "do-again") -> FlagMeaning:
    return FlagMeaning(weight, phrase(f"flag-{flag.value}"), phrase(do))


MEANINGS: dict[TrustFlag, FlagMeaning] = {
    TrustFlag.CAMERA_NOISE: _flag(Trust.FAIL, TrustFlag.CAMERA_NOISE),
    TrustFlag.NO_CELL: _flag(Trust.FAIL, TrustFlag.NO_CELL),
    TrustFlag.VOLUME_WITHOUT_OBJECTS: _flag(Trust.FAIL, TrustFlag.VOLUME_WITHOUT_OBJECTS, "do-volume-without-objects"),
    TrustFlag.LIVE_DYE_ABSENT: _flag(Trust.FAIL, TrustFlag.LIVE_DYE_ABSENT, "do-live-dye-absent"),
    TrustFlag.DEAD_DYE_ABSENT: _flag(Trust.CHECK, TrustFlag.DEAD_DYE_ABSENT, "do-dead-dye-absent"),
    TrustFlag.CHANNEL_FLAT: _flag(Trust.FAIL, TrustFlag.CHANNEL_FLAT),
    TrustFlag.CHANNELS_IDENTICAL: _flag(Trust.FAIL, TrustFlag.CHANNELS_IDENTICAL, "do-channels-identical"),
    TrustFlag.CHANNELS_EXCHANGED: _flag(Trust.FAIL, TrustFlag.CHANNELS_EXCHANGED, "do-channels-exchanged"),
    TrustFlag.SATURATED: _flag(Trust.CHECK, TrustFlag.SATURATED, "do-saturated"),
    TrustFlag.TOO_DIM: _flag(Trust.FAIL, TrustFlag.TOO_DIM, "do-too-dim"),
    TrustFlag.OUT_OF_FOCUS: _flag(Trust.CHECK, TrustFlag.OUT_OF_FOCUS),
    TrustFlag.DEBRIS_ONLY: _flag(Trust.FAIL, TrustFlag.DEBRIS_ONLY),
    TrustFlag.OBJECT_SIZE: _flag(Trust.CHECK, TrustFlag.OBJECT_SIZE, "do-object-size"),
    TrustFlag.PIXEL_SIZE: _flag(Trust.CHECK, TrustFlag.PIXEL_SIZE, "do-pixel-size"),
    TrustFlag.CONTROLS_WRONG_SIDE: _flag(Trust.CHECK, TrustFlag.CONTROLS_WRONG_SIDE, "do-controls-wrong-side"),
    TrustFlag.V_CONTROL_HIGH: _flag(Trust.CHECK, TrustFlag.V_CONTROL_HIGH, "do-v-control-high"),
    TrustFlag.REPEATED_SLICE: _flag(Trust.CHECK, TrustFlag.REPEATED_SLICE),
    TrustFlag.SHADED: _flag(Trust.CHECK, TrustFlag.SHADED),
    TrustFlag.DRIFT: _flag(Trust.CHECK, TrustFlag.DRIFT),
    TrustFlag.CLIPPED: _flag(Trust.CHECK, TrustFlag.CLIPPED, "do-clipped"),
    TrustFlag.FOREIGN: _flag(Trust.CHECK, TrustFlag.FOREIGN, "do-foreign-images"),
    TrustFlag.CELLS_SMALL: _flag(Trust.CHECK, TrustFlag.CELLS_SMALL, "do-cell-width"),
    TrustFlag.CELLS_LARGE: _flag(Trust.CHECK, TrustFlag.CELLS_LARGE, "do-cell-width"),
    TrustFlag.WIDEFIELD: _flag(Trust.CHECK, TrustFlag.WIDEFIELD, "do-sim-widefield"),
}
"""What each flag means, in the order in which they are told."""
_BY_CODE = {flag.value: found for flag, found in MEANINGS.items()}


def meaning(code: str) -> FlagMeaning:
    """What a flag means; of a code that a newer program wrote, that it is unknown."""
    unknown = FlagMeaning(Trust.CHECK, phrase("flag-unknown", flag=str(code)), phrase("do-newer"))
    return _BY_CODE.get(str(code), unknown)


def trust_of(flags: Iterable[str]) -> Trust:
    """What the flags of a row come to: its gravest."""
    weights = {meaning(flag).weight for flag in flags}
    return next((weight for weight in (Trust.FAIL, Trust.CHECK) if weight in weights), Trust.OK)


def failed_reason(flags: Iterable[str]) -> str:
    """Why a row has no viability, from those of its flags that are `FAIL`."""
    found = [meaning(flag) for flag in flags]
    return phrase("images-failed", why=all_of(one.meaning for one in found if one.weight is Trust.FAIL))


def doubts(flags: Iterable[str] | None) -> tuple[str, ...]:
    """What the flags of weight `CHECK` mean; those of `FAIL` stand in the row's reason."""
    return tuple(one.meaning for one in map(meaning, flags or ()) if one.weight is Trust.CHECK)


def in_order(flags: Iterable[TrustFlag]) -> tuple[TrustFlag, ...]:
    """Each flag once, in the table's order."""
    found = set(flags)
    return tuple(flag for flag in MEANINGS if flag in found)
