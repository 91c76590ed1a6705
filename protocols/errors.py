"""The error tree, sorted by who must act.

SpheroiddError
├── ConfigError      the person who starts it: refused before any thread starts (exit 2)
│   └── TryLaterError    nobody: the same command may succeed later (exit 75)
├── InstrumentError  the person at the microscope: retried, then the plate pauses (exit 3)
├── StackError       nobody now: this well's row says failed or incomplete, and why; the plate goes on (exit 1)
├── StorageError     the person at the disk: no slice is taken until it takes data again (exit 4)
│   ├── NoRoomError      it is full: waited for, and the run goes on by itself
│   └── RowRefusedError  nobody at the disk can help: a value that the catalog does not hold; its stack fails
├── ModelError       the person who chose the model: refused at the start, never in the middle of a plate (exit 2)
└── DaemonError      whoever looks after the program: a part of it broke, and it ends so that this is seen (exit 4)

Every message says what happened, where, and what to do.
"""

from typing import ClassVar, Self


class SpheroiddError(Exception):
    """A failure told to a person: what happened, where it happened, and what to do about it.

    >>> str(ConfigError("row 7: dose_um is '1O'", where="map.csv", do="write a number"))
    "map.csv: row 7: dose_um is '1O'; write a number"
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, where: str = "", do: str = "") -> None:
        self.what, self.where, self.do = what, where, do
        super().__init__(what, where, do)

    def __str__(self) -> str:
        head = f"{self.where}: {self.what}" if self.where else self.what
        return f"{head}; {self.do}" if self.do else head

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.what, self.where, self.do))


def _rebuild(kind: type[SpheroiddError], what: str, where: str, do: str) -> SpheroiddError:
    return kind(what, where=where, do=do)


class ConfigError(SpheroiddError):
    """A setting, plate map or argument that cannot be right."""

    exit_code = 2


class TryLaterError(ConfigError):
    """Nothing is wrong with what was asked: another daemon holds the directory, or a cluster is not up yet."""

    exit_code = 75  # EX_TEMPFAIL of sysexits.h


class InstrumentError(SpheroiddError):
    """The microscope, its software or its files did not do what the plan promised."""

    exit_code = 3


class StackError(SpheroiddError):
    """One stack cannot be used; the rest of the plate can."""

    exit_code = 1


class StorageError(SpheroiddError):
    """The disk refused, filled up, or gave back other bytes than it was given."""

    exit_code = 4

    def of_the_end(self) -> Self:
        """The same where it ended the daemon, which goes on by itself no more.

        >>> print(NoRoomError("the disk is full", where="/data", do=f"free some space; {GOES_ON}").of_the_end())
        /data: the disk is full, so the daemon ended; free some space; then start it again: it goes on where it stopped
        """
        if self.what.endswith(_ENDED):
            return self
        do = "; ".join(part for part in (self.do.removesuffix(GOES_ON).rstrip("; "), _AGAIN) if part)
        return type(self)(self.what + _ENDED, where=self.where, do=do)


class NoRoomError(StorageError):
    """The disk is full. The one failure of a disk that a person mends while the run waits."""


GOES_ON = "the run goes on by itself"
_ENDED, _AGAIN = ", so the daemon ended", "then start it again: it goes on where it stopped"
QUOTA_WORDS = (
    "the quota of the disk is used up",
    f"free some of what this account keeps there, or have its quota raised; {GOES_ON}",
)


class RowRefusedError(StorageError):
    """A value that the catalog cannot hold, or a row that breaks its rules: to write it again would not help."""


class ModelError(SpheroiddError):
    """Weights that are missing, altered, or do not fit the code that would run them."""

    exit_code = 2


class DaemonError(SpheroiddError):
    """A part of the daemon broke for a reason that nobody foresaw: it ends, and is to be started again."""

    exit_code = 4


class RefusedError(SpheroiddError):
    """Something that was asked of the daemon and is not done: it does not fit the state of things."""


class BusyError(RefusedError):
    """Refused for now: as much as the daemon does at a time is under way."""


class MissingError(RefusedError):
    """What was asked for does not exist."""


class LateError(RefusedError):
    """The caller's deadline passed first."""
