"""What one acquisition consists of: the plan promised in advance, the frames that arrive, the blocks on disk."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, Self, cast

from spheroidd.protocols.errors import ConfigError, StackError
from spheroidd.protocols.sim_pattern import SimPattern
from spheroidd.protocols.well import WellId

LIVE_CHANNEL, DEAD_CHANNEL = "488", "561"  # Calcein-AM in the body of live cells, propidium iodide in dead nuclei
CHANNELS = (LIVE_CHANNEL, DEAD_CHANNEL)
END_OF_TIME_S = 253_402_300_800.0  # the year 10,000, of which no calendar here knows
LARGEST = 1e300  # of a number in a frame's metadata: beyond it sums and squares are infinite
SMALLEST_UM, LARGEST_UM = 1e-3, 1e4  # of a voxel: no light microscope has others, and volumes and sizes stay numbers
PIXEL_BYTES = {"uint8": 1, "uint16": 2}
UPSAMPLING = 2  # pixels of a reconstructed slice along y, and along x, for each pixel of its raw frames
MAX_RAW_FRAMES = 64  # of one slice: they lie in one file

if TYPE_CHECKING:
    from spheroidd.protocols.pixels import Pixels


class SliceIndex(NamedTuple):
    """One camera image of a stack: its channel name and its zero-based z."""

    channel: str
    z: int

    def __str__(self) -> str:
        return f"channel {self.channel} z {self.z}"


class RawIndex(SliceIndex):
    """One raw frame of a slice: also which of the pattern's angles it has and which of their phases, from 0.

    It equals no SliceIndex, and counts as one wherever slices are counted: in the ledger, the ring, the store.
    """

    __slots__ = ()

    def __new__(cls, channel: str, z: int, angle: int, phase: int) -> Self:
        """Name a frame by its slice and its place in the pattern."""
        return tuple.__new__(cls, (channel, z, angle, phase))

    @property
    def angle(self) -> int:
        """Which direction of the stripes."""
        return cast(int, tuple.__getitem__(self, 2))

    @property
    def phase(self) -> int:
        """Which step of the stripes along it."""
        return cast(int, tuple.__getitem__(self, 3))

    def __str__(self) -> str:
        return f"channel {self.channel} z {self.z} angle {self.angle} phase {self.phase}"

    def __repr__(self) -> str:
        return f"RawIndex(channel={self.channel!r}, z={self.z}, angle={self.angle}, phase={self.phase})"


@dataclass(frozen=True, slots=True, order=True)
class StackKey:
    """Names one stack of one well: `stack` counts a well's stacks from 0."""

    plate: str
    well: WellId
    stack: int = 0

    def __str__(self) -> str:
        return f"{self.plate}/{self.well}/{self.stack}"

    def __hash__(self) -> int:
        """In one step: all that is kept of a plate is found by it, and its wells' own would be asked for each time."""
        return hash((self.plate, self.well.row, self.well.column, self.stack))

    @classmethod
    def parse(cls, text: str) -> Self:
        """The inverse of `str`; ValueError, or ConfigError for a well that is none."""
        plate, well, stack = text.rsplit("/", 2)
        return cls(plate, WellId.parse(well), int(stack))


@dataclass(frozen=True, slots=True)
class StackPlan:
    """The geometry of a stack, promised before its first frame: channels, slices, shape (y, x), voxel size, dtype.

    With `raw` the instrument delivers the raw frames of structured illumination, `raw.n_frames` for each slice. Height,
    width and pixel_um are those of the slices made from them: a raw frame has half as many pixels, twice as large.
    """

    key: StackKey
    channels: tuple[str, ...]
    n_z: int
    height: int
    width: int
    pixel_um: float
    z_step_um: float
    dtype: str = "uint16"
    slice_period_s: float | None = None  # the time one z-step takes in all its channels, where the instrument says so
    raw: SimPattern | None = None

    def __post_init__(self) -> None:
        where = str(self.key)
        if not self.channels or len(set(self.channels)) < len(self.channels) or not set(self.channels) <= set(CHANNELS):
            raise ConfigError(
                f"channels are {self.channels}"[:200], where=where, do=f"use each of {CHANNELS} at most once"
            )
        for name in ("n_z", "height", "width"):
            if getattr(self, name) < 1:
                raise ConfigError(
                    f"{name} is {getattr(self, name)}", where=where, do=f"a stack needs {name} of 1 or more"
                )
        for name in ("pixel_um", "z_step_um"):
            if not SMALLEST_UM <= getattr(self, name) <= LARGEST_UM:  # NaN neither
                do = f"give it in micrometres, {SMALLEST_UM} to {LARGEST_UM:g}"
                raise ConfigError(f"{name} is {getattr(self, name)}", where=where, do=do)
        if self.slice_period_s is not None and not 0 <= self.slice_period_s < LARGEST:
            what = f"slice_period_s is {self.slice_period_s}"
            raise ConfigError(what, where=where, do="give it in seconds, or leave it out")
        if self.dtype not in PIXEL_BYTES:
            raise ConfigError(f"dtype is {self.dtype}", where=where, do="only uint8 and uint16 cameras are supported")
        if self.raw is not None:
            self._check_raw(self.raw, where)

    def _check_raw(self, raw: SimPattern, where: str) -> None:
        if self.height % UPSAMPLING or self.width % UPSAMPLING:
            what = f"a reconstructed slice of {self.height} x {self.width} pixels has no raw frame"
            raise ConfigError(what, where=where, do="height and width are twice the camera's: both even")
        if raw.n_frames > MAX_RAW_FRAMES:
            what = f"a slice has {raw.n_frames} raw frames"
            raise ConfigError(what, where=where, do=f"{MAX_RAW_FRAMES} at most can be kept")

    @property
    def frames_per_slice(self) -> int:
        """Camera images of one slice and channel."""
        return 1 if self.raw is None else self.raw.n_frames

    @property
    def n_planes(self) -> int:
        """Camera images of one channel, counted slice by slice, angle by angle, phase by phase."""
        return self.n_z * self.frames_per_slice

    @property
    def frame_shape(self) -> tuple[int, int]:
        """A camera image's (y, x)."""
        step = 1 if self.raw is None else UPSAMPLING
        return self.height // step, self.width // step

    @property
    def frame_pixel_um(self) -> float:
        """A camera image's pixel."""
        return self.pixel_um if self.raw is None else self.pixel_um * UPSAMPLING

    @property
    def n_slices(self) -> int:
        """Camera images in the whole stack, all channels together."""
        return self.n_planes * len(self.channels)

    @property
    def n_bytes(self) -> int:
        """Size of the stack as it comes from the camera, uncompressed."""
        return self.n_slices * math.prod(self.frame_shape) * PIXEL_BYTES[self.dtype]

    @property
    def voxel_um3(self) -> float:
        """Volume of one voxel in cubic micrometres."""
        return self.pixel_um**2 * self.z_step_um

    def indices(self) -> Iterator[SliceIndex]:
        """Every camera image, z by z, all channels of a z together: the order in which the instrument takes them."""
        each = range(self.frames_per_slice)
        return (
            self.index_at(channel, z * len(each) + n)
            for z in range(self.n_z)
            for channel in self.channels
            for n in each
        )

    def plane_of(self, index: SliceIndex) -> int:
        """The number of a camera image within its channel, as `n_planes` counts."""
        if self.raw is None or not isinstance(index, RawIndex):
            return index.z
        return (index.z * self.raw.n_angles + index.angle) * self.raw.n_phases + index.phase

    def index_at(self, channel: str, plane: int) -> SliceIndex:
        """The inverse of `plane_of`."""
        if self.raw is None:
            return SliceIndex(channel, plane)
        z, n = divmod(plane, self.raw.n_frames)
        return RawIndex(channel, z, *divmod(n, self.raw.n_phases))

    def promises(self, index: SliceIndex) -> bool:
        """Whether a camera image of that name is one of this stack's."""
        if index.channel not in self.channels or not 0 <= index.z < self.n_z:
            return False
        if self.raw is None or not isinstance(index, RawIndex):
            return self.raw is None and not isinstance(index, RawIndex)
        return 0 <= index.angle < self.raw.n_angles and 0 <= index.phase < self.raw.n_phases


@dataclass(frozen=True, slots=True)
class Frame:
    """One camera image: pixels (y, x), read-only, with the instrument's time (seconds since 1970) and its metadata."""

    key: StackKey
    index: SliceIndex
    pixels: "Pixels"
    acquired_s: float
    metadata: Mapping[str, float | str] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        self.pixels.flags.writeable = False
        if not 0 <= self.acquired_s < END_OF_TIME_S:  # NaN neither
            raise self._unusable(f"acquired_s is {self.acquired_s}", "give it in seconds since 1970, or leave it out")
        for name, value in self.metadata.items():
            usable = isinstance(value, str) or -LARGEST <= value <= LARGEST  # NaN is not
            if not usable or not isinstance(name, str):
                raise self._unusable(f"metadata {name!r} is {value!r}", "give a text or a finite number or nothing")

    def _unusable(self, what: str, do: str) -> StackError:
        return StackError(f"channel {self.index.channel} z {self.index.z}: {what}", where=str(self.key), do=do)

    def check(self, plan: StackPlan) -> None:
        """Raise StackError where this frame is not one that the plan promised."""
        index, shape = self.index, plan.frame_shape
        if self.key != plan.key or not plan.promises(index):
            what = f"a frame {self.key} {index} arrived, which is not in the plan"
            raise StackError(what, where=str(plan.key), do="make the instrument's plan and the configuration agree")
        if self.pixels.shape != shape or self.pixels.dtype.name != plan.dtype:
            what = f"{index} is {self.pixels.dtype} {self.pixels.shape}"
            raise StackError(
                what, where=str(plan.key), do=f"the plan says {plan.dtype} {shape}: check binning and region"
            )


@dataclass(frozen=True, slots=True)
class Block:
    """A reference without pixels: slices z_start <= z < z_stop of one channel are whole and on disk."""

    key: StackKey
    channel: str
    z_start: int
    z_stop: int
