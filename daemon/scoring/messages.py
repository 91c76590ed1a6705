"""What main asks of a worker, and what it gets back: data that crosses between processes, and between computers."""

from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from spheroidd.acquisition.store.labels import FinishedLabel
from spheroidd.daemon.catalog.rows import StackState
from spheroidd.daemon.catalog.scored_from import ScoredFrom
from spheroidd.protocols.evidence import MaskEvidence, StackLight
from spheroidd.protocols.plate import Treatment
from spheroidd.protocols.results import Boundary, Limits, Normalisation, StackMeasurement, StackProfile
from spheroidd.protocols.sim_pattern import PatternEstimate, SliceModulation
from spheroidd.protocols.stack import Block, SliceIndex, StackKey, StackPlan
from spheroidd.protocols.well import WellId


@dataclass(frozen=True, slots=True)
class ScoreJob:
    """One stack to score. Normalisation PLATE without limits means: only measure its light, to find them from."""

    key: StackKey
    normalisation: Normalisation
    limits: Mapping[str, Limits] | None
    tolerance: float
    patterns: Mapping[str, PatternEstimate | None] | None = None
    """Of raw frames each colour's pattern on this plate; None for the job of finding it in this stack."""
    wells: tuple[tuple[WellId, Treatment], ...] = ()
    """The plate's wells, where an image is to be made of raw frames: the plate that it is put into names them."""
    objects: bool = False
    """Whether each counted object is written down, as a number in a label image and a row of a table."""
    boundary: Boundary = Boundary.NETWORK
    """Of a network's masks; a threshold's are its own."""
    cell_um: float | None = None
    """How wide a cell is, where somebody stated it or it was found; a threshold does not ask."""

    @property
    def light_only(self) -> bool:
        """A control well, before its plate's limits are known."""
        return self.normalisation is Normalisation.PLATE and self.limits is None


@dataclass(frozen=True, slots=True)
class PatternsFound:
    """What a stored stack's raw frames say of each colour's pattern, usable or not."""

    key: StackKey
    patterns: Mapping[str, PatternEstimate]


@dataclass(frozen=True, slots=True)
class Scored:
    """What a job gave: the stack's light, what the images say of themselves, and the measurement with what its masks
    look like and what it was made from, unless only those were asked. The masks themselves wait in `labels` for main to
    put them into their place.
    """

    key: StackKey
    light: StackLight
    profile: StackProfile
    measurement: StackMeasurement | None
    masks: MaskEvidence | None = None
    origin: ScoredFrom | None = None
    labels: tuple[FinishedLabel, ...] = ()
    slices: tuple[SliceModulation, ...] = ()
    """How each slice was made, of raw frames."""


class StackLedger(Protocol):
    """What a worker has to know of the stack that it scores. A catalog is one, and so is a copy of its lines."""

    def plan(self, key: StackKey) -> StackPlan:
        """The stack's promised geometry."""
        ...

    def state(self, key: StackKey) -> StackState:
        """Where the stack is on its way."""
        ...

    def acknowledged(self, key: StackKey) -> dict[SliceIndex, int]:
        """Every acknowledged slice and its crc32c."""
        ...

    def blocks(self, key: StackKey, after: int = 0) -> list[tuple[int, Block]]:
        """The blocks announced since the cursor `after`, oldest first, each with its cursor."""
        ...


@dataclass(frozen=True, slots=True)
class StoredLedger:
    """The ledger of one stored stack, for a worker that cannot see the catalog: nothing of it changes any more."""

    stack: StackPlan
    slices: Mapping[SliceIndex, int]
    announced: tuple[tuple[int, Block], ...]

    def __reduce__(self) -> tuple[Callable[..., "StoredLedger"], tuple[Any, ...]]:
        """Two columns of numbers for each channel: 6,000 names of raw frames would take 5 ms to write and 2 to read."""
        columns: dict[str, tuple[array[int], array[int]]] = {}
        for index, crc in self.slices.items():
            planes, crcs = columns.setdefault(index.channel, (array("I"), array("I")))
            planes.append(self.stack.plane_of(index))
            crcs.append(crc)
        return _unpacked, (self.stack, columns, self.announced)

    @classmethod
    def of(cls, ledger: StackLedger, key: StackKey) -> "StoredLedger":
        """The stack's lines, copied."""
        return cls(ledger.plan(key), ledger.acknowledged(key), tuple(ledger.blocks(key)))

    def plan(self, key: StackKey) -> StackPlan:
        """See StackLedger."""
        return self.stack

    def state(self, key: StackKey) -> StackState:
        """See StackLedger: whoever copied it had all of it."""
        return StackState.STORED

    def acknowledged(self, key: StackKey) -> dict[SliceIndex, int]:
        """See StackLedger."""
        return dict(self.slices)

    def blocks(self, key: StackKey, after: int = 0) -> list[tuple[int, Block]]:
        """See StackLedger."""
        return [(cursor, block) for cursor, block in self.announced if cursor > after]


def _unpacked(
    stack: StackPlan, columns: Mapping[str, "tuple[array[int], array[int]]"], announced: tuple[tuple[int, Block], ...]
) -> StoredLedger:
    """The inverse of `StoredLedger.__reduce__`."""
    slices = {
        stack.index_at(channel, plane): crc
        for channel, (planes, crcs) in columns.items()
        for plane, crc in zip(planes, crcs, strict=True)
    }
    return StoredLedger(stack, slices, announced)
