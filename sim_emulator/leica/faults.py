"""What the fake LAS X does wrong, as data."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.well import WellId
from spheroidd.sim_emulator.faults import PICTURE_FAULTS, Fault, look_of
from spheroidd.sim_emulator.look import PLAIN, Look

SliceFault = Literal["missing", "late", "cut", "duplicate", "halt", "end", "hang-up", "bright", "dark", "defocus"]
CommandFault = Literal["refuse", "mute", "hang-up"]


class LeicaFault(BaseModel):
    """Something that goes wrong at one slice of a well, or at a command.

    At a slice: missing, its file is not written. late, it is written `seconds` after the scan's end. cut, only half of
    it is written. duplicate, it is written and told of twice. halt, the scan stands still without a word. end, the
    scan ends there, as if it were over. hang-up, the connection is closed; the scan goes on. bright, dark, defocus: the
    picture is, as `faults.Fault` has it; its file is written.
    At a command: refuse, an error is the answer. mute, there is no answer. hang-up, the connection is closed.
    It happens `times` times in a server's life.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: SliceFault | CommandFault
    well: str | None = None
    z: int = Field(default=0, ge=0)
    channel: Literal["488", "561", "both"] = "488"
    command: str | None = None
    seconds: float = Field(default=0.5, ge=0)
    times: int = Field(default=1, ge=1)

    @field_validator("well")
    @classmethod
    def _is_a_well(cls, text: str | None) -> str | None:
        try:
            return text and str(WellId.parse(text))
        except ConfigError as error:
            raise ValueError(str(error)) from error

    @property
    def look(self) -> Look:
        """What it does to the picture."""
        kind = next((kind for kind in PICTURE_FAULTS if kind == self.kind), None)
        return PLAIN if kind is None else look_of([Fault.model_validate({"kind": kind})])

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "missing:A01:3", "late:A01:3:561" or "mute:startscan"; ConfigError for anything else.

        >>> LeicaFault.parse("missing:a1:3").well
        'A01'
        """
        kind, *rest = text.split(":")
        keys = ("command",) if len(rest) == 1 else ("well", "z", "channel")
        try:
            return cls.model_validate({"kind": kind, **dict(zip(keys, rest, strict=False))})
        except ValidationError as error:
            do = 'write KIND:WELL:Z such as "missing:A01:3", or KIND:COMMAND such as "mute:startscan"'
            raise ConfigError(f"--fault is {text!r}: {error.errors()[0]['msg']}", do=do) from error
