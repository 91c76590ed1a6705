"""Recordings of one's own, with their truth, as training stacks."""

import hashlib
from pathlib import Path

import numpy as np
import tifffile
import zarr
from numpy.lib import format as npy
from numpy.typing import NDArray
from scipy import ndimage

from spheroidd.daemon.training.config import Recording
from spheroidd.inference.annotations.label_images import whole_numbers
from spheroidd.inference.preprocessing.resample import Spacing
from spheroidd.inference.preprocessing.stream import BACKGROUND
from spheroidd.inference.training.stack import TrainingStack, prepare_stack
from spheroidd.protocols.errors import StackError
from spheroidd.protocols.pixels import Pixels

_HDF5 = (".h5", ".hdf5")
_SCALED_TO = 4095  # of floats: as many levels as a camera of 12 bits has


def recorded_stack(recording: Recording, spacing_um: Spacing, cache: Path) -> TrainingStack:
    """A recording at `spacing_um`, prepared once and then mapped from a folder of `cache`.

    Changed files are prepared anew. StackError names a file that cannot be read or does not fit the others.
    """
    paths = [path for path in (recording.path_488, recording.path_561, recording.live, recording.dead) if path]
    try:
        stamps = [(str(path), *_stamp(_file(path))) for path in paths]
    except OSError as error:
        raise StackError(f"{error.filename}: {error.strerror}", where=recording.name, do="check the path") from error
    digest = hashlib.sha256(repr((recording.model_dump(mode="json"), spacing_um, stamps)).encode()).hexdigest()
    folder = cache / ("x".join(f"{v:g}" for v in spacing_um)) / f"recording-{digest[:16]}"
    if not (folder / "stack.json").exists():
        _prepare(recording, spacing_um).save(folder)
    return TrainingStack.load(folder)


def _prepare(recording: Recording, spacing_um: Spacing) -> TrainingStack:
    own_um = (recording.z_step_um, recording.pixel_um, recording.pixel_um)
    images = [_pixels(path) if path else None for path in (recording.path_488, recording.path_561)]
    truths = [
        whole_numbers(read_volume(path), str(path)) if path else None for path in (recording.live, recording.dead)
    ]
    paths = (recording.path_488, recording.path_561, recording.live, recording.dead)
    shapes = {
        path.name: part.shape for path, part in zip(paths, (*images, *truths), strict=True) if path and part is not None
    }
    if len(set(shapes.values())) != 1 or all(image is None for image in images):
        told = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        what = f"its volumes differ: {told}" if any(image is not None for image in images) else "it has no image"
        raise StackError(what, where=recording.name, do="give at least one image, and all volumes as one (z, y, x)")
    shape = next(iter(shapes.values()))
    stack = np.stack([np.zeros(shape, np.uint16) if image is None else image for image in images])
    masks = [np.zeros(shape, bool) if truth is None else truth != 0 for truth in truths]
    points = [_centres_um(truth, own_um) for truth in truths]
    found = prepare_stack(
        recording.name, stack, (masks[0], masks[1]), (points[0], points[1]), own_um, spacing_um, (None,)
    )
    for channel, image in enumerate(images):
        if image is None:  # as it is when such a stack is segmented
            found.variants[0][channel] = BACKGROUND
    return found


def _stamp(path: Path) -> tuple[int, int]:
    """When it was last changed, and its size; of a folder, as a Zarr is one, those of all its files."""
    files = (path, *path.rglob("*")) if path.is_dir() else (path,)
    found = [one.stat() for one in files]
    return max(one.st_mtime_ns for one in found), sum(one.st_size for one in found)


def read_volume(path: Path) -> NDArray[np.generic]:
    """A (z, y, x) volume from .tif, .npy, .npz (its only array), .zarr, or data set of an .h5; StackError else."""
    try:
        found = np.asarray(_read(path))
    except Exception as error:  # whatever a broken file makes of it: EOFError, zlib.error, BadZipFile, ...
        do = "give .tif, .npy, .npz, .zarr, or FILE.h5/DATASET with h5py installed"
        raise StackError(f"cannot be read: {error}", where=str(path), do=do) from error
    while found.ndim > 3 and found.shape[0] == 1:
        found = found[0]
    if found.ndim != 3:
        raise StackError(f"it is {found.shape}", where=str(path), do="give one volume (z, y, x)")
    return found


def _file(path: Path) -> Path:
    """The file itself: the path of an HDF5 dataset goes on inside its file."""
    return next((part for part in path.parents if part.suffix.lower() in _HDF5), path)


def _read(path: Path) -> object:
    kind = path.suffix.lower()
    if (file := _file(path)) != path:
        import h5py  # type: ignore[import-untyped]  # few have such files

        with h5py.File(file) as opened:
            return opened[path.relative_to(file).as_posix()][...]
    if kind == ".npy":
        return np.array(npy.open_memmap(path, mode="r"))  # np.load would leave an archive of that name open
    if kind == ".npz":
        with path.open("rb") as handle, np.load(handle, allow_pickle=False) as arrays:
            if len(arrays.files) != 1:
                raise ValueError(f"it holds {len(arrays.files)} arrays: {', '.join(arrays.files[:6])}")
            return arrays[arrays.files[0]]
    if kind in (".tif", ".tiff"):
        return tifffile.imread(path)
    if kind == ".zarr" or path.is_dir():
        node = zarr.open(path, mode="r")
        return node["0"][...] if isinstance(node, zarr.Group) else node[...]  # type: ignore[index]
    raise ValueError(f"files ending in {path.suffix!r} are not known")


def _pixels(path: Path) -> Pixels:
    """An image as uint8 or uint16; other numbers are brought to 0 to 4095."""
    found = read_volume(path)
    if found.dtype in (np.uint8, np.uint16):
        return found  # type: ignore[return-value]
    values = found.astype(np.float64)
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all():
        raise StackError("it has NaN or infinite pixels", where=str(path), do="replace them")
    return np.rint((values - low) * (_SCALED_TO / ((high - low) or 1))).astype(np.uint16)


def _centres_um(truth: NDArray[np.generic] | None, own_um: Spacing) -> NDArray[np.float64]:
    """The labels' centres from the outer corner (n, 3); a mask's connected parts, 1 or 255, stand for labels."""
    if truth is None or not truth.any():
        return np.zeros((0, 3))
    labels = truth.astype(np.int64)
    numbers = np.unique(labels)
    if len(numbers[numbers != 0]) == 1:
        labels = ndimage.label(labels)[0]
    numbers = np.unique(labels)
    centres = ndimage.center_of_mass(labels != 0, labels, numbers[numbers != 0])
    centres_um: NDArray[np.float64] = (np.array(centres) + 0.5) * np.array(own_um)
    return centres_um
