"""Recorded OME-Zarr images, 0.4 and 0.5: the only reader of other people's Zarr.

A missing chunk reads back as zeros, so every chunk is looked for before a plane is given out. One that is still being
written has a plane once all of the plane's chunks are there: they come by being renamed into place.
"""

import itertools
import math
from pathlib import Path
from typing import Any

import numcodecs.errors
import numpy as np
import zarr
from numpy.typing import NDArray

from spheroidd.acquisition.images.codecs import CodecError
from spheroidd.acquisition.images.file_kind import check_metadata_files
from spheroidd.acquisition.images.layout import FileLayout
from spheroidd.acquisition.images.metadata.calibration import linear
from spheroidd.acquisition.images.metadata.units import dtype_name, length_um, square_pixel_um
from spheroidd.protocols.errors import StackError

MAX_CHUNKS = 1_000_000  # of one stack; each is looked for
MAX_SHAPE = 1_000_000  # along any axis
MAX_CHUNK_BYTES = 2**31  # unpacked; one is held in memory


class ZarrFile:
    """The full-resolution array of an OME-Zarr image; one time point. With `growing`, chunks may be missing yet."""

    def __init__(self, path: Path, *, growing: bool = False) -> None:
        self._path = path
        try:
            said, image, dataset, array = self._find()
            axes = [axis["name"].lower() for axis in image["axes"]]
            steps = dict(zip(axes, _scale(image, dataset, len(axes)), strict=True))
            units = {axis["name"].lower(): axis.get("unit") for axis in image["axes"]}
            names = tuple(str(channel.get("label", "")) for channel in said.get("omero", {}).get("channels", ()))
        except StackError:
            raise
        except numcodecs.errors.UnknownCodecError as error:
            what = f"its chunks are packed with {error.codec_id}, which is not installed"
            do = "install the codec's package, or write it again with blosc, zstd or gzip"
            raise CodecError(what, where=str(path), do=do) from error
        except Exception as error:  # damaged metadata can make it raise anything
            what = f"not an OME-Zarr image: {type(error).__name__} {error}"
            raise StackError(what, where=str(path), do="give the folder whose metadata hold multiscales") from error
        _check_array(path, array, axes)
        sizes = dict(zip(axes, array.shape, strict=True))
        self._array, self._axes = array, axes
        self._folder = path / dataset["path"]
        self._present: set[str] = set()  # files of the array that were seen
        if not growing:
            self._check_chunks()
        x_um, y_um, z_um = (length_um(steps.get(axis), units.get(axis) or "pixel") for axis in "xyz")
        dtype, pixel_um = dtype_name(path, array.dtype), square_pixel_um(path, y_um, x_um)
        n_channels, n_z = sizes.get("c", 1), sizes.get("z", 1)
        self.layout = FileLayout(n_channels, n_z, sizes["y"], sizes["x"], dtype, names, pixel_um, z_um)

    def _find(self) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any], Any]:
        """What the folder says of itself, its one image, that image's full resolution, and the array of it."""
        group = zarr.open_group(self._path, mode="r")
        said: Any = group.attrs.asdict()
        said = said.get("ome", said)
        self._check_single(said)
        image = said["multiscales"][0]
        for level in image["datasets"]:
            check_metadata_files(self._path / level["path"])
        levels: list[tuple[Any, Any]] = [(level, group[level["path"]]) for level in image["datasets"]]
        dataset, array = max(levels, key=lambda level: math.prod(level[1].shape))  # not every program writes it first
        return said, image, dataset, array

    def _check_single(self, said: dict[str, Any]) -> None:
        """Raise StackError where the folder holds several images, and none is named."""
        images = said.get("multiscales", ())
        wells = [str(well["path"]) for well in said.get("plate", {}).get("wells", ())]
        fields = [str(image["path"]) for image in said.get("well", {}).get("images", ())]
        layout = [entry.name for entry in sorted(self._path.iterdir()) if entry.name.isdecimal()]
        if len(images) > 1:
            names = ", ".join(str(image.get("name", at)) for at, image in enumerate(images))
            what, do = f"it holds {len(images)} images: {names}", "write each into a folder of its own"
            raise StackError(what, where=str(self._path), do=do)
        inside = wells or fields or ([] if images or "bioformats2raw.layout" not in said else layout)
        if not images and inside:
            what = f"it holds several images: {', '.join(inside[:20])}"
            raise StackError(
                what, where=str(self._path), do=f"name one in the plate map: {self._path.name}/{inside[0]}"
            )

    def plane(self, channel: int, z: int) -> NDArray[Any]:
        """Read the pixels (y, x) of one plane."""
        at = {"c": channel, "z": z, "t": 0}
        pixels = np.asarray(self._array[tuple(at.get(axis, slice(None)) for axis in self._axes)])
        return pixels if self._axes.index("y") < self._axes.index("x") else pixels.T

    def metadata(self, channel: int, z: int) -> dict[str, float | str]:
        """Nothing: OME-Zarr has no place for what is known of a single plane."""
        return {}

    def has(self, channel: int, z: int) -> bool:
        """Whether every file of a plane is there by now."""
        at = {"c": channel, "z": z, "t": 0}
        stored = self._array.shards or self._array.chunks
        ranges = [
            [at[axis] // size] if axis in at else range(count)
            for axis, size, count in zip(self._axes, stored, self._counts(), strict=True)
        ]
        keys = {self._array.metadata.encode_chunk_key(chunk) for chunk in itertools.product(*ranges)}
        self._present |= {key for key in keys - self._present if (self._folder / key).is_file()}
        return keys <= self._present

    def close(self) -> None:
        """Nothing stays open."""

    def _counts(self) -> list[int]:
        stored = self._array.shards or self._array.chunks
        return [math.ceil(n / size) for n, size in zip(self._array.shape, stored, strict=True)]

    def _check_chunks(self) -> None:
        """Every file of the array is there: a writer that leaves out black chunks cannot be told from a damaged one."""
        counts = self._counts()
        if math.prod(counts) > MAX_CHUNKS:
            what = f"its array is {self._array.shape} in {math.prod(counts)} chunks"
            raise StackError(what, where=str(self._path), do="write it again with larger chunks, or shards")
        keys = (self._array.metadata.encode_chunk_key(at) for at in itertools.product(*map(range, counts)))
        missing = [key for key in keys if not (self._folder / key).is_file()]
        if missing:
            what = f"{len(missing)} of {math.prod(counts)} chunks are missing, such as {missing[0]}"
            do = "copy it again; if they were black, write it with write_empty_chunks=True"
            raise StackError(what, where=str(self._path), do=do)


def _check_array(path: Path, array: Any, axes: list[str]) -> None:
    """Raise StackError where an array is none of one stack, is larger than can be, or has its pixels scaled."""
    if not isinstance(array, zarr.Array) or array.ndim != len(axes) or len(set(axes)) != len(axes):
        raise StackError("its array and its axes do not agree", where=str(path), do="write it again")
    sizes = dict(zip(axes, array.shape, strict=True))
    if not {"y", "x"} <= set(axes) <= set("tczyx") or sizes.get("t", 1) != 1:
        what = f"its axes are {sizes}"
        raise StackError(what, where=str(path), do="give an image of one time point with axes out of t, c, z, y, x")
    chunk_bytes = math.prod(array.chunks) * array.dtype.itemsize
    if max(array.shape) > MAX_SHAPE or min(array.shape) < 1 or chunk_bytes > MAX_CHUNK_BYTES:
        what = f"its array is {array.shape} in chunks of {array.chunks}"
        raise StackError(what, where=str(path), do="write it again, with smaller chunks")
    slope, offset = (
        array.attrs.get("scale_factor", 1),
        array.attrs.get("add_offset", 0),
    )  # as NetCDF's convention has it
    if linear(slope, offset, path) is not None:
        what = f"its pixel values are scaled: value = {offset} + {slope} x pixel"
        raise StackError(what, where=str(path), do="write it with the scale applied")


def _scale(image: dict[str, Any], dataset: dict[str, Any], n_axes: int) -> NDArray[np.float64]:
    """The voxel size along each axis: the array's own scale times the image's; ValueError for too few or many."""
    scale = np.ones(n_axes)
    for step in (*dataset.get("coordinateTransformations", ()), *image.get("coordinateTransformations", ())):
        if step.get("type") == "scale":
            factors = np.asarray(step["scale"], np.float64)
            if factors.shape != (n_axes,):
                raise ValueError(f"a scale of {factors.size} numbers for {n_axes} axes")
            scale = scale * factors
    return scale
