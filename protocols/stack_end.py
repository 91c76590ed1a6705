"""How a stack ended that has no viability, as a value; the words for people stand beside it and decide nothing."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from spheroidd.protocols.errors import SpheroiddError
from spheroidd.protocols.results import WellStatus
from spheroidd.protocols.stack import StackKey


class StackEnd(StrEnum):
    """Why a stack ended without all its slices, or cannot be used."""

    SKIPPED = "skipped"  # a person left the well out
    ABORTED = "aborted"  # a person ended the plate
    STOPPED = "stopped"  # the daemon was stopped in the middle of it; the next run goes on
    SHORT = "short"  # the instrument gave fewer slices than it promised
    FAILED = "failed"  # it cannot be used, whole or not

    @property
    def status(self) -> WellStatus:
        """The word for it in the results."""
        return WellStatus.INCOMPLETE if self is StackEnd.SHORT else WellStatus(self.value)


@dataclass(frozen=True, slots=True)
class Ending:
    """How a stack ended, what happened, and what to do about it."""

    how: StackEnd
    what: str
    do: str = ""

    @classmethod
    def of(cls, error: SpheroiddError, key: StackKey) -> Self:
        """The end of a stack that failed; `where` is kept unless it only names the stack.

        >>> from spheroidd.protocols.errors import StackError
        >>> from spheroidd.protocols.well import WellId
        >>> Ending.of(StackError("it is black", where="P1/A01/0", do="open the shutter"), StackKey("P1", WellId(0, 0)))
        Ending(how=<StackEnd.FAILED: 'failed'>, what='it is black', do='open the shutter')
        """
        elsewhere = error.where not in ("", str(key))
        return cls(StackEnd.FAILED, f"{error.where}: {error.what}" if elsewhere else error.what, error.do)
