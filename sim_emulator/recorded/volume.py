"""The port through which a recording's pixels come: whoever reads files gives them as a `RecordedVolume`."""

from collections.abc import Callable, Mapping
from typing import Protocol

from spheroidd.protocols.pixels import Pixels
from spheroidd.protocols.stack import SliceIndex


class RecordedVolume(Protocol):
    """One well's recorded stack, open. StackError where pixels of it cannot be had."""

    @property
    def channels(self) -> tuple[str, ...]:
        """The channels it holds."""
        ...

    @property
    def shape(self) -> tuple[int, int, int]:
        """(z, y, x) of each channel."""
        ...

    @property
    def dtype(self) -> str:
        """uint8 or uint16."""
        ...

    @property
    def voxel_um(self) -> tuple[float, float]:
        """z-step and pixel."""
        ...

    def plane(self, index: SliceIndex) -> Pixels:
        """Read the pixels (y, x) of one slice."""
        ...

    def metadata(self, index: SliceIndex) -> Mapping[str, float | str]:
        """What is known of how a slice was taken, such as `exposure_ms`."""
        ...

    def close(self) -> None:
        """Let the files go; may be called twice."""
        ...


OpenVolume = Callable[[], RecordedVolume]
"""Opens one well's stack; StackError where it cannot be read."""
