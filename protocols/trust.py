"""How far a result row can be trusted, and the flags that say why: each with one meaning, one weight, one remedy.

A rule that finds a flag stands in inference/quality/row_trust.py; whoever shows one takes its words from here. A flag
of `FAIL` says that the images cannot carry a number: the row keeps its pixels, masks, counts and quantiles and gives no
viability. One of `CHECK` leaves the numbers and asks a person to look.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


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


_AGAIN = "look at the images; image the well again or exclude it"
MEANINGS: dict[TrustFlag, FlagMeaning] = {
    TrustFlag.CAMERA_NOISE: FlagMeaning(Trust.FAIL, "the images hold nothing but camera noise", _AGAIN),
    TrustFlag.NO_CELL: FlagMeaning(Trust.FAIL, "no cell was found, neither living nor dead", _AGAIN),
    TrustFlag.VOLUME_WITHOUT_OBJECTS: FlagMeaning(
        Trust.FAIL, "there is volume in a mask and not one cell in it", "look at the masks on the images"
    ),
    TrustFlag.LIVE_DYE_ABSENT: FlagMeaning(
        Trust.FAIL, "the live dye gives no signal of its own", "check the stain, the laser and the filter of 488 nm"
    ),
    TrustFlag.DEAD_DYE_ABSENT: FlagMeaning(
        Trust.CHECK, "the dead dye gives no signal of its own", "check the stain, the laser and the filter of 561 nm"
    ),
    TrustFlag.CHANNEL_FLAT: FlagMeaning(Trust.FAIL, "a channel is flat or constant: it holds no image", _AGAIN),
    TrustFlag.CHANNELS_IDENTICAL: FlagMeaning(
        Trust.FAIL, "both channels hold the same image", "check the channels of the files or the laser lines"
    ),
    TrustFlag.CHANNELS_EXCHANGED: FlagMeaning(
        Trust.FAIL, "the channels look exchanged: live cells where dead ones should be", "check which file is which dye"
    ),
    TrustFlag.SATURATED: FlagMeaning(
        Trust.CHECK, "many pixels stand at the camera's highest value", "shorten the exposure and image the well again"
    ),
    TrustFlag.TOO_DIM: FlagMeaning(
        Trust.FAIL, "the images are too dim to tell cells from noise", "check stain, laser and exposure"
    ),
    TrustFlag.OUT_OF_FOCUS: FlagMeaning(Trust.CHECK, "the images are out of focus", _AGAIN),
    TrustFlag.DEBRIS_ONLY: FlagMeaning(Trust.FAIL, "what was found is too small to be cells: debris", _AGAIN),
    TrustFlag.OBJECT_SIZE: FlagMeaning(
        Trust.CHECK, "the cells found are larger or smaller than cells are", "check pixel size, z step and masks"
    ),
    TrustFlag.PIXEL_SIZE: FlagMeaning(
        Trust.CHECK, "the pixel size or z step does not fit what is in the images", "check pixel_um and z_step_um"
    ),
    TrustFlag.CONTROLS_WRONG_SIDE: FlagMeaning(
        Trust.CHECK,
        "untreated wells read as dead, or killed ones as alive",
        "check the controls in the plate map and the channels",
    ),
    TrustFlag.V_CONTROL_HIGH: FlagMeaning(
        Trust.CHECK, "more than three times the live volume of the controls", "check the controls and the channels"
    ),
    TrustFlag.REPEATED_SLICE: FlagMeaning(
        Trust.CHECK, "the same image stands in two slices, or in another well", _AGAIN
    ),
    TrustFlag.SHADED: FlagMeaning(Trust.CHECK, "part of the field is shaded", _AGAIN),
    TrustFlag.DRIFT: FlagMeaning(Trust.CHECK, "the sample moved while it was imaged", _AGAIN),
    TrustFlag.CLIPPED: FlagMeaning(
        Trust.CHECK,
        "brighter than the intensity limits it was scored with",
        "compare `spheroidd score --normalisation stack`, or give limits that hold its brightest cells",
    ),
    TrustFlag.WIDEFIELD: FlagMeaning(
        Trust.CHECK,
        "no pattern can be trusted in its raw frames: its images are widefield",
        "`spheroidd sim check` shows each slice; check the pattern and the light",
    ),
}
"""What each flag means, in the order in which they are told."""
_BY_CODE = {flag.value: found for flag, found in MEANINGS.items()}


def meaning(code: str) -> FlagMeaning:
    """What a flag means; of a code that a newer program wrote, that it is unknown."""
    unknown = FlagMeaning(Trust.CHECK, f"flag {code}", "use the newer spheroidd that set it")
    return _BY_CODE.get(str(code), unknown)


def trust_of(flags: Iterable[str]) -> Trust:
    """What the flags of a row come to: its gravest."""
    weights = {meaning(flag).weight for flag in flags}
    return next((weight for weight in (Trust.FAIL, Trust.CHECK) if weight in weights), Trust.OK)


def failed_reason(flags: Iterable[str]) -> str:
    """Why a row has no viability, from those of its flags that are `FAIL`."""
    found = [meaning(flag) for flag in flags]
    return "its images failed: " + "; ".join(one.meaning for one in found if one.weight is Trust.FAIL)


def doubts(flags: Iterable[str] | None) -> tuple[str, ...]:
    """What the flags of weight `CHECK` mean; those of `FAIL` stand in the row's reason."""
    return tuple(one.meaning for one in map(meaning, flags or ()) if one.weight is Trust.CHECK)


def in_order(flags: Iterable[TrustFlag]) -> tuple[TrustFlag, ...]:
    """Each flag once, in the table's order."""
    found = set(flags)
    return tuple(flag for flag in MEANINGS if flag in found)
