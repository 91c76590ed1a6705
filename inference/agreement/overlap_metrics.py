"""How well a mask agrees with the truth, voxel by voxel. Knows masks and files of masks; no network, no units."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import tifffile
import zarr
from numpy.lib import format as npy
from numpy.typing import NDArray

from spheroidd.inference.annotations.label_images import whole_numbers
from spheroidd.protocols.errors import ConfigError

MAX_BYTES = 1 << 31  # of a truth: 16 times the mask of a screen stack; a small file can say that it holds anything


@dataclass(frozen=True, slots=True)
class Agreement:
    """Overlap of a mask with its truth, each 0 to 1.

    Where both are empty all four are 1: nothing was to be found, and nothing was. Where only the truth is empty,
    recall is 1 and the rest 0; where only the mask is, precision is 1 and the rest 0.
    """

    dice: float
    iou: float
    precision: float
    recall: float


def agreement(mask: NDArray[np.bool_], truth: NDArray[np.bool_]) -> Agreement:
    """Compare two bool volumes of one shape; ConfigError for others."""
    if mask.shape != truth.shape or mask.dtype != bool or truth.dtype != bool:
        what = f"a mask {mask.dtype} {mask.shape} and a truth {truth.dtype} {truth.shape} cannot be compared"
        raise ConfigError(what, do="give the truth as bool at the stack's own sampling")
    both, n_mask, n_truth = (int(np.count_nonzero(part)) for part in (mask & truth, mask, truth))
    return Agreement(
        dice=_ratio(2 * both, n_mask + n_truth),
        iou=_ratio(both, n_mask + n_truth - both),
        precision=_ratio(both, n_mask),
        recall=_ratio(both, n_truth),
    )


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 1.0


def read_truth(path: Path) -> NDArray[np.bool_]:
    """Read a (z, y, x) truth from .npy, .npz (its only array, or the one called "live"), .tif or .zarr; not 0 is true.

    A Zarr group is read at its finest level ("0"). Axes of length 1 in front are dropped. ConfigError names what is
    wrong with the file: NaN, or a probability, is neither true nor false.
    """
    try:
        found = _read(path)
    except Exception as error:  # whatever a broken file makes of it: EOFError, zlib.error, BadZipFile, ...
        what = f"cannot be read as a truth: {error}"
        raise ConfigError(what, where=str(path), do="give a .npy, .npz, .tif or .zarr of (z, y, x)") from error
    while found.ndim > 3 and found.shape[0] == 1:
        found = found[0]
    if found.ndim != 3:
        raise ConfigError(f"the truth is {found.shape}", where=str(path), do="give one volume (z, y, x)")
    truth: NDArray[np.bool_] = np.not_equal(whole_numbers(found, str(path)), 0)
    return truth


def _read(path: Path) -> NDArray[np.generic]:
    """The array of a file, whose size is looked at before it is given memory."""
    if path.suffix == ".npy":
        mapped = npy.open_memmap(path, mode="r")  # refuses an archive, and a size that the file does not have
        _check_size(mapped.nbytes)
        return np.array(mapped)
    if path.suffix == ".npz":
        with path.open("rb") as handle, np.load(handle, allow_pickle=False) as file:
            name = "live" if len(file.files) != 1 else file.files[0]
            if name in file.files:
                with file.zip.open(f"{name}.npy" if f"{name}.npy" in file.zip.namelist() else name) as member:
                    _check_size(_declared_bytes(member))
            return np.asarray(file[name])
    if path.suffix in (".tif", ".tiff"):
        with tifffile.TiffFile(path) as tiff:
            _check_size(sum(series.nbytes for series in tiff.series[:1]))
            return np.asarray(tiff.asarray())
    if path.suffix == ".zarr" or path.is_dir():
        node = zarr.open(path, mode="r")
        array = node["0"] if isinstance(node, zarr.Group) else node
        if not isinstance(array, zarr.Array):
            raise ValueError("it holds no array")
        _check_size(array.nbytes)
        _check_size(math.prod(array.chunks) * array.dtype.itemsize)
        return np.asarray(array[...])
    raise ValueError(f"files ending in {path.suffix!r} are not known")


def _declared_bytes(file: IO[bytes]) -> int:
    """What the header of an .npy file says that follows."""
    version = npy.read_magic(file)
    read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[version]
    shape, _, dtype = read(file)
    return math.prod(shape) * dtype.itemsize


def _check_size(n_bytes: int) -> None:
    if n_bytes > MAX_BYTES:
        raise ValueError(f"it says that it holds {n_bytes} bytes, and a volume has {MAX_BYTES} at most")
