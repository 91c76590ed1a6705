"""What threads and processes tell `main`: facts, as data, over bounded channels. Only `main` writes them down."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from spheroidd.protocols.errors import SpheroiddError
from spheroidd.protocols.faults import FaultCode
from spheroidd.protocols.focus import FocusFound
from spheroidd.protocols.results import StackMeasurement
from spheroidd.protocols.stack import Block, SliceIndex, StackKey, StackPlan


@dataclass(frozen=True, slots=True)
class StackOpened:
    """A stack's place on disk exists and is durable; `found` holds the crc32c of every slice that was already there."""

    plan: StackPlan
    found: Mapping[SliceIndex, int] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class SliceDurable:
    """A slice's bytes are fsynced. It counts as acknowledged once its ledger row is committed, not before."""

    key: StackKey
    index: SliceIndex
    crc32c: int
    acquired_s: float
    metadata: Mapping[str, float | str] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class BlockStored:
    """A block can be read from Zarr."""

    block: Block


@dataclass(frozen=True, slots=True)
class StackSealed:
    """No more frames will come for this stack; everything it has is in Zarr and durable."""

    key: StackKey


@dataclass(frozen=True, slots=True)
class SourceFinished:
    """The instrument has nothing more to give for this run."""


@dataclass(frozen=True, slots=True)
class StackScored:
    """The inference worker measured a stack."""

    key: StackKey
    measurement: StackMeasurement


@dataclass(frozen=True, slots=True)
class StackRejected:
    """One stack came to nothing, and why; the plate goes on."""

    key: StackKey
    error: SpheroiddError


@dataclass(frozen=True, slots=True)
class FaultRaised:
    """Something a person must know of. The same `code` and `key` later with `cleared` ends it."""

    code: FaultCode
    error: SpheroiddError
    key: StackKey | None = None
    cleared: bool = False


Event = (
    StackOpened
    | SliceDurable
    | BlockStored
    | StackSealed
    | SourceFinished
    | StackScored
    | StackRejected
    | FaultRaised
    | FocusFound
)


@dataclass(frozen=True, slots=True)
class StackPlanned:
    """The source is about to take this stack and waits for a decision."""

    plan: StackPlan


@dataclass(frozen=True, slots=True)
class StackHeld:
    """The stack is paused: its shutter is closed, and what was taken is on its way to the disk."""

    key: StackKey


@dataclass(frozen=True, slots=True)
class SlicesCameTwice:
    """Slices of a stack came again within one acquisition, and were left as they are: how many, and the first."""

    key: StackKey
    count: int
    first: SliceIndex


@dataclass(frozen=True, slots=True)
class ThreadDied:
    """A thread met an error that no one foresaw; the run must end, loudly."""

    name: str
    error: BaseException
