"""What an open file of images says and gives: the nouns that every reader shares."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable

from numpy.typing import NDArray

from spheroidd.protocols.errors import StackError


@dataclass(frozen=True, slots=True)
class FileLayout:
    """What one file holds, as its metadata say; voxel sizes are None where they do not (0 counts as not said).

    `conflicts` has, by the name of a length, what the file says of it twice and differently; `doubts` is what a person
    should know of the file though it can be read. `own_channels` are those whose pixels lie in the file that was
    opened, where others lie in other files of its set.
    """

    n_channels: int
    n_z: int
    height: int
    width: int
    dtype: str
    channel_names: tuple[str, ...] = ()
    pixel_um: float | None = None
    z_step_um: float | None = None
    conflicts: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    doubts: tuple[str, ...] = ()
    own_channels: tuple[int, ...] | None = None


class StackFile(Protocol):
    """One open file. Opening raises StackError where anything in it is missing or cannot be used."""

    layout: FileLayout

    def plane(self, channel: int, z: int) -> NDArray[Any]:
        """Read the pixels (y, x) of one plane."""
        ...

    def metadata(self, channel: int, z: int) -> Mapping[str, float | str]:
        """What the file says of one plane, under the names of `image_facts`; nothing where it says nothing."""
        ...

    def close(self) -> None:
        """Let the file go; may be called twice."""
        ...


@runtime_checkable
class GrowingFile(Protocol):
    """A StackFile that may be opened before it is whole; its layout is known from the first moment."""

    def has(self, channel: int, z: int) -> bool:
        """Whether a plane is whole by now; asks the disk again."""
        ...


@runtime_checkable
class CheckedFile(Protocol):
    """A StackFile that knows each plane's checksum from when it was stored."""

    def crc32c(self, channel: int, z: int) -> int:
        """The crc32c of a plane's bytes in C order."""
        ...


@runtime_checkable
class LedgerFile(Protocol):
    """A StackFile of whose planes a ledger beside it says more than their pixels."""

    def unread(self) -> StackError | None:
        """Why that ledger, which is there, cannot be read; None where it can, or where there is none."""
        ...
