"""What a source and its instrument's process tell each other: plain facts, because they cross a pipe."""

from collections.abc import Mapping
from dataclasses import dataclass

from spheroidd.protocols.errors import SpheroiddError
from spheroidd.protocols.stack import SliceIndex


@dataclass(frozen=True, slots=True)
class PlannedSlice:
    """One image to take: which it is, and the focus stage's position for it."""

    index: SliceIndex
    z_um: float


@dataclass(frozen=True, slots=True)
class StackOrder:
    """To the process: go to this place and take these slices, in this order. Exactly one StackOver answers it.

    `exposure_ms` is by channel; a slice that does not come within `stall_s` is given up.
    """

    name: str
    x_um: float
    y_um: float
    slices: tuple[PlannedSlice, ...]
    exposure_ms: Mapping[str, float]
    stall_s: float


@dataclass(frozen=True, slots=True)
class LookOrder:
    """To the process: one image outside a run; a FrameTaken and a StackOver answer it. None: where the stage stands."""

    name: str
    channel: str
    exposure_ms: float
    xy_um: tuple[float, float] | None
    z_um: float | None


@dataclass(frozen=True, slots=True)
class PutBack:
    """To the process: the stages back to where the first LookOrder found them. StackOver follows."""


@dataclass(frozen=True, slots=True)
class Abort:
    """To the process: end the stack now. StackOver follows."""


@dataclass(frozen=True, slots=True)
class Leave:
    """To the process: make the instrument safe and end."""


@dataclass(frozen=True, slots=True)
class Doing:
    """From the process: it has begun something that must end, or be followed by a message, within `limit_s`."""

    what: str
    limit_s: float


@dataclass(frozen=True, slots=True)
class CoreReady:
    """From the process: the instrument is loaded, and this is what its camera and stages say."""

    width: int
    height: int
    bytes_per_pixel: int
    pixel_um: float  # 0 where the instrument does not know
    versions: str


@dataclass(frozen=True, slots=True)
class CoreRefused:
    """From the process: the instrument cannot be used, and why; the process ends."""

    error: SpheroiddError


@dataclass(frozen=True, slots=True)
class FrameTaken:
    """From the process: frame `number` of the ring is this slice."""

    number: int
    index: SliceIndex
    acquired_s: float
    metadata: Mapping[str, float | str]


@dataclass(frozen=True, slots=True)
class StackOver:
    """From the process: no more frames of the last order will come; `error` says why there are fewer than ordered.

    Where `healthy` is False the process ends, because its acquisition engine cannot be trusted any more.
    """

    error: SpheroiddError | None = None
    healthy: bool = True


Work = StackOrder | LookOrder | PutBack
ToInstrument = Work | Abort | Leave
FromInstrument = Doing | CoreReady | CoreRefused | FrameTaken | StackOver
