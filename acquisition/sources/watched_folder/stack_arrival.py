"""What has come of one stack: its files in the order of their coming, those that are not whole, and the last news."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from spheroidd.acquisition.images.metadata.image_metadata import Facts
from spheroidd.acquisition.images.names.files import ImageName
from spheroidd.acquisition.images.plane_folder import SliceRead
from spheroidd.acquisition.images.raw_stack import RawFilesStack
from spheroidd.acquisition.images.recorded_stack import RecordedStack
from spheroidd.protocols.errors import StackError
from spheroidd.protocols.stack import StackKey

MAX_TOLD = 3  # damaged files named in one message


@dataclass(frozen=True, slots=True)
class ArrivedFile:
    """A file that has come to rest, what its name says, and its size and time then."""

    path: str
    name: ImageName
    signature: tuple[int, int] | None = None


@dataclass(slots=True)
class Arrival:
    """One stack's files. `fresh` are those that no one has opened since they came to rest or changed.

    `sample` is the first slice that was read; `opened` a stack file while it is being read.
    """

    key: StackKey
    news_s: float
    fresh: deque[ArrivedFile] = field(default_factory=deque)
    looked_at: list[ArrivedFile] = field(default_factory=list)
    refused: dict[str, tuple[ArrivedFile, StackError]] = field(default_factory=dict)
    defects: dict[str, None] = field(default_factory=dict)
    facts: dict[str, dict[int, Facts]] = field(default_factory=dict)  # by channel and slice, of those that were read
    sample: SliceRead | None = None
    said_n_z: int | None = None
    top_z: int = -1
    low_z: int | None = None
    unusable: StackError | None = None  # why nothing of it is to be read
    channels: set[str] = field(default_factory=set)
    told: set[str] = field(default_factory=set)  # doubts that a person knows of
    opened: RecordedStack | RawFilesStack | None = None
    paths: dict[str, str] = field(default_factory=dict)  # of stack files, by channel or ""

    def add(self, file: ArrivedFile, now_s: float) -> None:
        """A file of this stack is ready to be opened."""
        self.news_s = now_s
        self.refused.pop(file.path, None)
        self.fresh.append(file)
        if file.name.z is not None:
            self.number(file.name.z)
        if file.name.channel:
            self.channels.add(file.name.channel)

    def number(self, z: int) -> None:
        """A slice of this stack came, or one that is numbered before its first."""
        self.top_z = max(self.top_z, z)
        self.low_z = z if self.low_z is None else min(self.low_z, z)

    def take_fresh(self) -> Iterator[ArrivedFile]:
        """Each file that was not looked at yet, once."""
        while self.fresh:
            file = self.fresh.popleft()
            self.looked_at.append(file)
            yield file

    def look_again(self) -> None:
        """Whoever comes next sees every file again, and tries once more what was refused."""
        self.fresh.extendleft(reversed(self.looked_at))
        self.looked_at = []

    def refuse(self, file: ArrivedFile, error: StackError) -> None:
        """A file is not whole, or not of this stack."""
        self.refused[file.path] = (file, error)

    def note(self, defects: tuple[str, ...]) -> None:
        """What is wrong in a file and can be lived with."""
        self.defects |= dict.fromkeys(defects)

    def close(self) -> None:
        """Let a stack file go."""
        if self.opened is not None:
            self.opened.close()
            self.opened = None

    def complaint(self, root: Path) -> StackError | None:
        """The refused files in one error; None where there are none."""
        if not self.refused:
            return None
        told = [str(error) for _, error in list(self.refused.values())[:MAX_TOLD]]
        more = len(self.refused) - len(told)
        what = f"{len(self.refused)} of its files are not used: " + " | ".join(told)
        what += f" | and {more} more" if more else ""
        return StackError(what, where=f"{self.key} in {root}", do="the files were left as they are")
