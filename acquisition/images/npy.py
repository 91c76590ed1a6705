"""NumPy's .npy as a file of images."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from spheroidd.acquisition.images.layout import FileLayout
from spheroidd.acquisition.images.metadata.units import dtype_name
from spheroidd.protocols.errors import StackError
from spheroidd.protocols.stack import CHANNELS


class NpyFile:
    """A .npy array, (z, y, x), (channel, z, y, x) or (z, channel, y, x), where the
    channel is the axis of length 1 or 2."""

    def __init__(self, path: Path) -> None:
        try:
            array = open_memmap(path, mode="r")  # unlike np.load it takes no archive that is called .npy
        except OSError:
            raise
        except Exception as error:  # a damaged header can make it raise anything
            raise StackError(f"not a whole .npy file: {error}", where=str(path), do="copy the file again") from error
        self._array = _channel_first(path, array)
        n_channels, n_z, height, width = self._array.shape
        if 0 in self._array.shape:
            raise StackError(f"its shape is {array.shape}", where=str(path), do="save an array that holds pixels")
        self.layout = FileLayout(n_channels, n_z, height, width, dtype_name(path, array.dtype))

    def plane(self, channel: int, z: int) -> NDArray[Any]:
        """Read the pixels (y, x) of one plane."""
        pixels: NDArray[Any] = self._array[channel, z]
        return pixels

    def metadata(self, channel: int, z: int) -> dict[str, float | str]:
        """Nothing: the format has no place for it."""
        return {}

    def close(self) -> None:
        """Let the file go; may be called twice."""
        del self._array
        self._array = np.empty((0, 0, 0, 0))


def _channel_first(path: Path, array: NDArray[Any]) -> NDArray[Any]:
    if array.ndim == 3:
        return array[np.newaxis]
    if array.ndim == 4 and array.shape[0] <= len(CHANNELS):
        return array
    if array.ndim == 4 and array.shape[1] <= len(CHANNELS):
        return np.moveaxis(array, 1, 0)
    raise StackError(f"its shape is {array.shape}", where=str(path), do="save (z, y, x) or (channel, z, y, x)")
