"""Recorded OME-Zarr images, 0.4 and 0.5: the only reader of other people's Zarr.

A missing chunk reads back as zeros, so every chunk is looked for before a plane is given out. One that is still being
written has a plane once all of the plane's chunks are there: they come by being renamed into place.
"""

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from spheroidd.acquisition.images.layout import FileLayout
from spheroidd.acquisition.images.units import dtype_name, length_um, square_pixel_um
from spheroidd.protocols.errors import StackError


class ZarrFile:
    """The full-resolution array of an OME-Zarr image; one time point. With `growing`, chunks may be missing yet."""

    def __init__(self, path: Path, *, growing: bool = False) -> None:
        self._path = path
        try:
            group = zarr.open_group(path, mode="r")
            said: Any = group.attrs.asdict()
            said = said.get("ome", said)
            image = said["multiscales"][0]
            first = image["datasets"][0]
            array = group[first["path"]]
            axes = [axis["name"].lower() for axis in image["axes"]]
        except (KeyError, IndexError, TypeError, ValueError, zarr.errors.BaseZarrError) as error:
            what = f"not an OME-Zarr image: {type(error).__name__} {error}"
            raise StackError(what, where=str(path), do="give the folder whose metadata hold multiscales") from error
        if not isinstance(array, zarr.Array) or array.ndim != len(axes):
            raise StackError("its array and its axes do not agree", where=str(path), do="write it again")
        sizes = dict(zip(axes, array.shape, strict=True))
        if not {"y", "x"} <= set(axes) <= set("tczyx") or sizes.get("t", 1) != 1:
            what = f"its axes are {sizes}"
            raise StackError(what, where=str(path), do="give an image of one time point with axes out of t, c, z, y, x")
        self._array, self._axes = array, axes
        self._folder = Path(path) / first["path"]
        self._present: set[str] = set()  # files of the array that were seen
        if not growing:
            self._check_chunks()
        units = {axis["name"].lower(): axis.get("unit") for axis in image["axes"]}
        steps = dict(zip(axes, _scale(image, first, len(axes)), strict=True))
        x_um, y_um, z_um = (length_um(steps.get(axis), units.get(axis) or "pixel") for axis in "xyz")
        self.layout = FileLayout(
            sizes.get("c", 1),
            sizes.get("z", 1),
            sizes["y"],
            sizes["x"],
            dtype_name(path, array.dtype),
            tuple(str(channel.get("label", "")) for channel in said.get("omero", {}).get("channels", ())),
            square_pixel_um(path, y_um, x_um),
            z_um,
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
        keys = (self._array.metadata.encode_chunk_key(at) for at in itertools.product(*map(range, counts)))
        missing = [key for key in keys if not (self._folder / key).is_file()]
        if missing:
            what = f"{len(missing)} of {math.prod(counts)} chunks are missing, such as {missing[0]}"
            do = "copy it again; if they were black, write it with write_empty_chunks=True"
            raise StackError(what, where=str(self._path), do=do)


def _scale(image: dict[str, Any], dataset: dict[str, Any], n_axes: int) -> NDArray[np.float64]:
    """The voxel size along each axis: the array's own scale times the image's."""
    scale = np.ones(n_axes)
    for step in (*dataset.get("coordinateTransformations", ()), *image.get("coordinateTransformations", ())):
        if step.get("type") == "scale":
            scale = scale * np.asarray(step["scale"], np.float64)
    return scale
