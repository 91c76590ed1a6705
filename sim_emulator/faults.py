"""What an emulated instrument does wrong, as data: the same for a phantom and for a recording.

    [[source.faults]]
    kind = "drop"
    well = "B03"
    channel = "561"
    z = 17

Without `well` or `z` a fault meets every one.
"""

import threading
from collections.abc import Iterable, MutableSequence, Sequence
from pathlib import Path
from typing import Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.stack import RawIndex, SliceIndex
from spheroidd.protocols.well import WellId
from spheroidd.sim_emulator.look import Look

FaultKind = Literal["drop", "duplicate", "stall", "cut", "short", "fail", "lost", "bright", "dark", "defocus"]
FAULT_KINDS: tuple[str, ...] = get_args(FaultKind)
PICTURE_FAULTS = ("bright", "dark", "defocus")
_EXPOSURE = {"bright": 4.0, "dark": 0.0}
_BLUR_UM = 4.0


class Fault(BaseModel):
    """Something the instrument does wrong when it comes to one slice.

    drop: the slice is not delivered. duplicate: it comes twice. stall: it comes `seconds` late. cut: only half of it
    comes; of a file, its first half. short: the stack ends before it, without a word. fail: the stack is lost
    (StackError). lost: the connection is (InstrumentError). bright, dark: `exposure` times the light, 4 and 0 where
    nothing is said. defocus: blurred by `blur_um` (standard deviation). A fault happens `times` times in an
    instrument's life.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: FaultKind
    well: str | None = None
    z: int | None = Field(default=None, ge=0)
    channel: Literal["488", "561", "both"] = "488"
    angle: int | None = Field(default=None, ge=0)
    """Of raw frames only those of this angle, and of this phase; without them all of a slice."""
    phase: int | None = Field(default=None, ge=0)
    seconds: float = Field(default=5.0, ge=0, allow_inf_nan=False)
    exposure: float | None = Field(default=None, ge=0, le=1000)
    blur_um: float = Field(default=_BLUR_UM, gt=0, le=100)
    times: int = Field(default=1_000_000, ge=1)

    @field_validator("well")
    @classmethod
    def _is_a_well(cls, text: str | None) -> str | None:
        try:
            return None if text is None else str(WellId.parse(text))
        except ConfigError as error:
            raise ValueError(str(error)) from error

    @model_validator(mode="after")
    def _has_light(self) -> Self:
        if self.exposure is not None and self.kind not in _EXPOSURE:
            raise ValueError(f"exposure is for {' and '.join(_EXPOSURE)}; leave it out of {self.kind!r}")
        return self

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "drop:A01:3", "stall:A01:3:561" or "lost:A01:3"; ConfigError for anything else.

        >>> Fault.parse("bright:a1:3:both").well
        'A01'
        """
        kind, *rest = text.split(":")
        try:
            if len(rest) not in (2, 3):
                raise ConfigError(f"it has {len(rest)} parts after the kind")
            return cls.model_validate({"kind": kind, **dict(zip(("well", "z", "channel"), rest, strict=False))})
        except (ValidationError, ConfigError) as error:
            what = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error.what
            do = f"write KIND:WELL:Z or KIND:WELL:Z:CHANNEL with one of {', '.join(FAULT_KINDS)}"
            raise ConfigError(f"--fault is {text!r}: {what}", do=do) from error

    def meets(self, well: WellId, index: SliceIndex) -> bool:
        """Whether it is meant for this slice."""
        here = self.well in (None, str(well)) and self.z in (None, index.z)
        if isinstance(index, RawIndex):
            here = here and self.angle in (None, index.angle) and self.phase in (None, index.phase)
        return here and self.channel in ("both", index.channel)


class FaultReel:
    """The faults of one instrument's life; counts in `happened` how often each was met. Any thread may ask."""

    def __init__(self, faults: Iterable[Fault], happened: MutableSequence[int] | None = None) -> None:
        self._faults = tuple(faults)
        self._happened = [0] * len(self._faults) if happened is None else happened
        self._lock = threading.Lock()

    def due(self, well: WellId, index: SliceIndex) -> list[Fault]:
        """What goes wrong at this slice now, in the settings' order."""
        due = []
        with self._lock:
            for n, fault in enumerate(self._faults):
                if fault.meets(well, index) and self._happened[n] < fault.times:
                    self._happened[n] += 1
                    due.append(fault)
        return due


def look_of(faults: Sequence[Fault]) -> Look:
    """What these faults do to the picture, all together."""
    exposure, blur_um = 1.0, 0.0
    for fault in faults:
        if fault.kind in _EXPOSURE:
            exposure *= _EXPOSURE[fault.kind] if fault.exposure is None else fault.exposure
        elif fault.kind == "defocus":
            blur_um = max(blur_um, fault.blur_um)
    return Look(exposure, blur_um)


def halve(path: Path) -> None:
    """Leave the first half of a file, as a program does that was cut off: what `cut` does to files."""
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)
