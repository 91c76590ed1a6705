"""What a watched folder is told: where it is, how its files are named, and how long to wait for what."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from spheroidd.acquisition.disk.file_system import FileSystem
from spheroidd.acquisition.images.metadata.voxel_size import VoxelFrom
from spheroidd.acquisition.images.names.files import NameGrammar, NamePattern
from spheroidd.acquisition.images.names.leica import LeicaNames
from spheroidd.acquisition.images.reading_time import BUDGET_S
from spheroidd.acquisition.plates.raw_settings import RawSettings
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.stack import CHANNELS

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
ChannelName = Literal["488", "561"]
ChannelPlace = Literal["488", "561", "-"]


class FolderSettings(BaseModel):
    """What every watched folder needs to know."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: Path
    """The folder in which the microscope's program writes; only ever read."""
    n_z: int | None = Field(default=None, ge=1, le=100_000)
    """Slices of a stack, where no file says it before the stack is whole."""
    pixel_um: Positive | None = None
    """Pixel size; where a file or the plate map says it as well, they must agree."""
    z_step_um: Positive | None = None
    """Distance of two slices; where a file or the plate map says it as well, they must agree."""
    voxel_from: VoxelFrom | None = None
    """Whose word on the voxel's size holds where sources differ or say what can hardly be: file, map or settings."""
    channel_order: tuple[ChannelPlace, ...] | None = Field(default=None, min_length=1)
    """Which channel of a file is which, in the file's order: "488", "561", or "-" for one that is not used."""
    settle_s: Positive = 30.0
    """A stack for which nothing new arrived for so long is over, whole or not."""
    end_after_s: Positive | None = 3600.0
    """The plate is over when nothing at all came for so long. Wells without files get their row then. A file that is
    written to and never whole is told after that time, and waited for 24 times as long."""
    poll_s: Positive = 1.0
    """Seconds from one look at the folder to the next; more where a look takes long."""
    stable_polls: int = Field(default=2, ge=1, le=1000)
    """A file whose size and time were the same for so many looks is opened, unless it was seen to be closed before."""
    read_budget_s: Positive = BUDGET_S
    """A file that takes longer to be read (a large one in proportion) is not used; its well says so."""
    raw: RawSettings | None = None
    """Each stack's files hold raw frames of structured illumination, in the order that this states. n_z is not asked;
    pixel_um is that of the slices, half a frame's."""
    file_system: FileSystem = "auto"
    """"network": believe no events and no folder times; "auto": as the mount is."""

    def grammar(self) -> NameGrammar:
        """How the files are named."""
        raise NotImplementedError

    @property
    def first_number(self) -> int:
        """What a name says for the first slice."""
        return 0

    @property
    def first_channel(self) -> str | None:
        """The channel that comes first, where names number them; None where they call them by words."""
        return None

    @property
    def slice_files(self) -> bool:
        """Whether each slice has a file of its own."""
        raise NotImplementedError

    @property
    def channel_names(self) -> tuple[str, ...] | None:
        """The channels that names tell apart; None where the files say it themselves."""
        raise NotImplementedError

    @property
    def n_stacks(self) -> int:
        """How many stacks a well has."""
        raise NotImplementedError

    @model_validator(mode="after")
    def _can_be_told(self) -> Self:
        try:
            self.grammar()
        except ConfigError as error:
            raise ValueError(f"{error.what}; {error.do}") from error
        if self.raw is not None and self.slice_files:
            what = "raw frames come as a file for each stack, or one for each of its colours"
            raise ValueError(f"{what}; take {{z}} out of the pattern, or leave out raw")
        if self.end_after_s is not None and self.end_after_s < self.settle_s:
            what = f"end_after_s = {self.end_after_s:g} is below settle_s = {self.settle_s:g}"
            raise ValueError(f"{what}; raise the first, or lower the second")
        return self


class WatchSettings(FolderSettings):
    """Watch a folder into which some program writes OME-TIFF, NDTiff, LIF or OME-Zarr."""

    kind: Literal["watch"] = "watch"
    pattern: str = Field(default="**/{well}.*", min_length=1)
    """Names relative to the folder: {well} (or {row} and {column}), {channel}, {z}, {field}, *, **/ and ?."""
    channels: dict[ChannelName, str] = Field(default_factory=dict)
    """What {channel} says for 488 and for 561; without it, just that."""
    fields: tuple[str, ...] = ()
    """What {field} says: a well's stacks, in that order."""
    first_z: int = Field(default=0, ge=0)
    """What {z} says for the first slice."""

    def grammar(self) -> NamePattern:
        """How the files are named."""
        return NamePattern(
            self.pattern, {str(name): said for name, said in self.channels.items()}, self.fields, self.first_z
        )

    @property
    def first_number(self) -> int:
        """What a name says for the first slice."""
        return self.first_z

    @property
    def slice_files(self) -> bool:
        """Whether each slice has a file of its own."""
        return "z" in self.grammar().places

    @property
    def channel_names(self) -> tuple[str, ...] | None:
        """The channels that names tell apart; None where the files say it themselves."""
        if "channel" not in self.grammar().places:
            return None
        return tuple(name for name in CHANNELS if not self.channels or name in self.channels)

    @property
    def n_stacks(self) -> int:
        """How many stacks a well has."""
        return len(self.fields) or 1


class MatrixScreenerSettings(FolderSettings):
    """Watch the tree that Leica's Matrix Screener (LAS AF, LAS X) writes: a file for each plane."""

    kind: Literal["matrix-screener"] = "matrix-screener"
    channels: dict[ChannelName, int] = Field(default={"488": 0, "561": 1}, min_length=1)
    """Which C is which channel."""
    fields: tuple[tuple[int, int], ...] = Field(default=((0, 0),), min_length=1)
    """(X, Y) of the fields to take: a well's stacks, in that order."""
    slide: int = Field(default=0, ge=0)
    job: int | None = Field(default=None, ge=0)
    """Which J to take, where several jobs image the same field."""
    time_point: int = Field(default=0, ge=0)

    def grammar(self) -> LeicaNames:
        """How the files are named."""
        return LeicaNames(
            {str(name): said for name, said in self.channels.items()},
            self.fields,
            self.slide,
            self.job,
            self.time_point,
        )

    @property
    def first_channel(self) -> str:
        """The channel with the lowest number."""
        return min(self.channels, key=lambda channel: self.channels[channel])

    @property
    def slice_files(self) -> bool:
        """Whether each slice has a file of its own."""
        return True

    @property
    def channel_names(self) -> tuple[str, ...]:
        """The channels that names tell apart."""
        return tuple(name for name in CHANNELS if name in self.channels)

    @property
    def n_stacks(self) -> int:
        """How many stacks a well has."""
        return len(self.fields)
