"""The ports: what a source, a store, a preprocessor and a segmenter owe to whoever holds them.

A new one is one file, one row in a table, and one contract-test class that inherits one of `spheroidd.testing`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from spheroidd.protocols.events import FaultRaised
from spheroidd.protocols.focus import FocusFound
from spheroidd.protocols.pixels import Pixels
from spheroidd.protocols.plate import PlateMap
from spheroidd.protocols.results import Limits, Precision
from spheroidd.protocols.snapshot import SnapOrder, Snapshot
from spheroidd.protocols.stack import Block, Frame, SliceIndex, StackKey, StackPlan


class Clock(Protocol):
    """Time as an argument, so that a test can run an hour in a second."""

    def now(self) -> float:
        """Seconds since 1970, for what is written down: a person or NTP may set it at any moment."""
        ...

    def elapsed(self) -> float:
        """Seconds since some moment, for what waits: nobody sets it."""
        ...

    def sleep(self, seconds: float) -> None:
        """Return after that long; at once where the clock runs as fast as possible."""
        ...


class StackSource(Protocol):
    """An instrument, or what stands in for one. Built as `Source(settings, plate_map, plate_name, clock)`."""

    @property
    def plate_map(self) -> PlateMap:
        """The plate it images: the map it was given, or its own design where it was given none."""
        ...

    def check(self) -> None:
        """Raise InstrumentError or ConfigError where a run could not start now."""
        ...

    def plans(self) -> Iterable[StackPlan]:
        """The stacks it will deliver, in order.

        A source that knows them all, and takes them in whatever order it is asked, gives a Sequence: disk and time can
        be reckoned before the first, and wells be re-ordered. One whose instrument decides yields each when it learns
        of it.
        """
        ...

    def frames(self, plan: StackPlan, wanted: Set[SliceIndex]) -> Iterator[Frame]:
        """Acquire one stack: more than `wanted` (the store knows what it has) or just that; less only with an error.

        Any order; a frame's pixels stay valid and unchanged for good. Raises InstrumentError (the instrument needs a
        person) or StackError (this stack is lost, the next may work). Closing the iterator aborts the acquisition.
        """
        ...

    def close(self) -> None:
        """Let the instrument go; may be called twice."""
        ...


@runtime_checkable
class Interruptible(Protocol):
    """A source that may wait long for its instrument, and can be told to give up waiting."""

    def set_interrupt(self, interrupted: Callable[[], bool]) -> None:
        """Ask `interrupted` often while waiting; once it says so, `frames` and `plans` end without an error."""
        ...


@runtime_checkable
class FaultTelling(Protocol):
    """A source that meets what fails no stack and a person must know of, such as files that are not the plate's, or
    that finds each stack's focus.
    """

    def set_event_sink(self, tell: Callable[[FaultRaised | FocusFound], None]) -> None:
        """Call `tell` from the thread that pulls plans and frames; it may block."""
        ...


@runtime_checkable
class FocusRecalling(Protocol):
    """A source that looks for the focus, and goes on with what earlier runs of the plate found."""

    def restore_focus_map(self, found: Iterable[FocusFound]) -> None:
        """Take over the plate's focus map, before the first stack."""
        ...


@runtime_checkable
class ImagesWellsTheirWay(Protocol):
    """A source that follows what the plate map says of how single wells are imaged; others refuse such a map."""

    imaging_columns: ClassVar[frozenset[str]]
    """Which of `well_imaging.IMAGING_COLUMNS` it follows, or has no need to."""


@runtime_checkable
class ChecksItsMap(Protocol):
    """A source whose settings say, before anything is opened, which wells of a plate map it cannot image."""

    @classmethod
    def check_map(cls, settings: Any, plate_map: PlateMap) -> None:
        """ConfigError with the wells that cannot be imaged as the map says; `settings` are the source's own."""
        ...


@runtime_checkable
class Snapping(Protocol):
    """A source whose instrument takes a single image when it is asked to, outside a run.

    A source without it has an instrument that decides itself what it images.
    """

    @property
    def view_limits_um(self) -> tuple[float, float]:
        """Between which focus positions it takes images."""
        ...

    def snap(self, order: SnapOrder) -> Snapshot:
        """Take one image, in bounded time; the camera's settings are afterwards as they were before.

        ConfigError for what it may not or cannot do, InstrumentError where it did not do it.
        """
        ...

    def put_back(self) -> None:
        """Send the stages back to where they stood before the first `snap`, unless somebody else has moved them since.

        InstrumentError or ConfigError where they do not go.
        """
        ...


class StackStore(Protocol):
    """Where slices become durable. One thread appends; any process may read what was announced."""

    def open(self, plan: StackPlan) -> Mapping[SliceIndex, int]:
        """Create the stack, or take up one that was interrupted: the crc32c of every slice that is durable in it."""
        ...

    def append(self, frame: Frame) -> None:
        """Take a frame; its SliceDurable follows on the event channel once its bytes are fsynced.

        A slice that the stack already holds is left as it is. StorageError where it cannot be stored: nothing was
        acknowledged, and the same frame may be given again.
        """
        ...

    def seal(self, key: StackKey) -> None:
        """Write out what is buffered, the pyramid and the end mark; StackSealed follows. May be called again."""
        ...

    def read(self, block: Block) -> Pixels:
        """The pixels (z, y, x) of a block that was announced; of raw frames (z * angle * phase, y, x)."""
        ...

    def close(self) -> None:
        """Finish what was appended; may be called twice."""
        ...


class Preprocessor(Protocol):
    """Raw slices in, normalised volume at the model's spacing out; one stack's life long."""

    def feed(self, channel: str, z: int, pixels: Pixels) -> None:
        """Take the next slices (n, y, x) of a channel, in z order, starting at z."""
        ...

    def finish(self) -> None:
        """Every slice was fed."""
        ...

    def limits(self) -> dict[str, Limits]:
        """The stack's own limits per channel, of what was fed so far; exact after `finish`."""
        ...

    @property
    def shape(self) -> tuple[int, int, int]:
        """The volume's (z, y, x) at the model's spacing."""
        ...

    @property
    def ready_z(self) -> int:
        """How many z-planes of the volume can be had now, from 0."""
        ...

    def volume(self, z_start: int, z_stop: int, limits: Mapping[str, Limits]) -> NDArray[np.float32]:
        """The normalised planes (channel, z, y, x) at the model's spacing; z_stop <= ready_z."""
        ...

    def discard(self, below_z: int) -> None:
        """Let go what only planes of the volume below `below_z` need."""
        ...


class Prediction(NamedTuple):
    """What a segmenter says of a region, each (z, y, x) float32: probabilities 0 to 1, density in cells per um3."""

    live: NDArray[np.float32]
    dead: NDArray[np.float32]
    live_density: NDArray[np.float32]
    dead_density: NDArray[np.float32]


class Segmenter(Protocol):
    """A normalised region in, probabilities and densities out: the 3-D U-Net, a 2-D baseline, a threshold."""

    @property
    def spacing_um(self) -> tuple[float, float, float]:
        """The voxel size (z, y, x) it wants."""
        ...

    @property
    def halo(self) -> int:
        """How many voxels of context it wants on each side."""
        ...

    @property
    def sha256(self) -> str:
        """The digest that names its weights in every result row."""
        ...

    @property
    def precision(self) -> Precision:
        """What it computes in, which stands in every result row."""
        ...

    def predict(self, region: NDArray[np.float32]) -> Prediction:
        """Segment a region (channel, z, y, x) whole, its halo included."""
        ...
