"""Recorded TIFF stacks: OME-TIFF, ImageJ and plain multi-page files. The only module that knows tifffile.

tifffile opens truncated files as valid, shorter ones; what it would only log is an error here.
"""

import math
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from spheroidd.acquisition.images.image_metadata import Facts
from spheroidd.acquisition.images.layout import FileLayout
from spheroidd.acquisition.images.ome_planes import OmePlanes
from spheroidd.acquisition.images.ome_xml import read_ome
from spheroidd.acquisition.images.tiff_validation import (
    check_chain,
    damaged,
    is_within,
    micromanager_facts,
    tifffile_faults,
)
from spheroidd.acquisition.images.units import dtype_name, length_um, square_pixel_um
from spheroidd.protocols.errors import StackError

_PAGES_ARE_Z = "ZQI"  # what a plain list of pages is called; time (T) is not taken for depth


class TiffFile:
    """An open TIFF whose every plane is known to lie within its file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with tifffile_faults() as faults:
            try:
                self._tiff = tifffile.TiffFile(path)
            except (tifffile.TiffFileError, ValueError, struct.error) as error:
                raise self._damaged(f"not a whole TIFF: {error}") from error
            try:
                self._read_structure(faults)
            except StackError:
                self.close()
                raise
            except Exception as error:  # a damaged file can make tifffile raise anything
                self.close()
                raise self._damaged(f"its structure is damaged: {error}") from error

    def _read_structure(self, faults: list[str]) -> None:
        check_chain(self._tiff, self._path)
        if faults:
            raise self._damaged(f"its structure is damaged: {faults[0]}")
        series = self._tiff.series[0]
        self._axes, self._shape = _stack_axes(self._path, series.axes, series.shape)
        self._series: Any = series
        sizes = dict(zip(self._axes, self._shape, strict=True))
        n_channels, n_z = sizes.get("C", 1), sizes.get("Z", 1)
        self._planes: OmePlanes | None = None
        names, pixel_um, z_step_um = self._described(n_channels, n_z)
        dtype = dtype_name(self._path, series.dtype)
        self.layout = FileLayout(n_channels, n_z, sizes["Y"], sizes["X"], dtype, names, pixel_um, z_step_um)
        self._check_planes(n_channels * n_z)

    def plane(self, channel: int, z: int) -> NDArray[Any]:
        """Read the pixels (y, x) of one plane."""
        at = self._plane_number(channel, z)
        if self._is_one_page:
            shape = (self.layout.height, self.layout.width)
            dtype = np.dtype(self._series.dtype).newbyteorder(self._tiff.byteorder)
            start = self._series.dataoffset + at * math.prod(shape) * dtype.itemsize
            mapped: NDArray[Any] = np.memmap(self._path, dtype, "r", start, shape)
            return mapped
        page = self._series[at]
        handle = page.parent.filehandle
        if not handle.closed:
            return np.asarray(page.asarray())
        handle.open()  # of a set's other files, which tifffile closes
        try:
            return np.asarray(page.asarray())
        finally:
            handle.close()

    def metadata(self, channel: int, z: int) -> Facts:
        """What the file says of one plane: its OME-XML, or Micro-Manager beside the plane."""
        if self._planes is not None:
            return self._planes.facts(channel, z)
        return {} if self._is_one_page else micromanager_facts(self._series[self._plane_number(channel, z)])

    def close(self) -> None:
        """Let the file go; may be called twice."""
        self._tiff.close()

    def _plane_number(self, channel: int, z: int) -> int:
        n_channels, n_z = self.layout.n_channels, self.layout.n_z
        return channel * n_z + z if self._axes.startswith("C") else z * n_channels + channel

    def _check_planes(self, n_planes: int) -> None:
        """Every plane is there, is one image of the promised size, and all its bytes lie within the file."""
        series = self._series
        self._is_one_page = len(series) == 1 < n_planes and series.dataoffset is not None
        if self._is_one_page:
            plane_bytes = self.layout.height * self.layout.width * np.dtype(series.dtype).itemsize
            whole = max(0, self._tiff.filehandle.size - series.dataoffset) // plane_bytes
            if whole < n_planes:
                raise self._damaged(f"{n_planes - whole} of {n_planes} planes lie beyond its end")
            return
        missing = [at for at in range(n_planes) if at >= len(series) or not self._is_whole(series[at])]
        if missing:
            what = f"{len(missing)} of {n_planes} planes are missing or cut off, the first is plane {missing[0] + 1}"
            raise self._damaged(what)

    def _is_whole(self, page: Any) -> bool:
        if page is None:
            return False
        if page.shape != (self.layout.height, self.layout.width):
            what = f"one of its images is {page.shape}, not ({self.layout.height}, {self.layout.width})"
            raise StackError(what, where=str(self._path), do="save one grey image per plane")
        return is_within(page)

    def _described(self, n_channels: int, n_z: int) -> tuple[tuple[str, ...], float | None, float | None]:
        """Channel names, pixel_um and z_step_um, as far as the file says them."""
        if self._tiff.is_ome and self._tiff.ome_metadata:
            return self._ome(self._tiff.ome_metadata, n_channels * n_z)
        if self._tiff.is_imagej:
            return self._imagej(self._tiff.imagej_metadata or {})
        return (), None, None

    def _ome(self, xml: str, n_planes: int) -> tuple[tuple[str, ...], float | None, float | None]:
        ome = read_ome(xml, self._path)
        promised = ome.n_channels * ome.n_z * ome.n_t
        if promised > n_planes:
            raise self._damaged(f"its OME-XML promises {promised} planes, and it holds {n_planes}")
        self._planes = ome.planes
        return ome.channel_names, ome.pixel_um, ome.z_step_um

    def _imagej(self, metadata: dict[str, Any]) -> tuple[tuple[str, ...], float | None, float | None]:
        unit = str(metadata.get("unit", "pixel")).replace("\\u00B5", "µ")
        tags = self._tiff.pages.first.tags
        y_um, x_um = (
            length_um(over / per if per else None, unit)
            for per, over in (tags.valueof(name, default=(0, 1)) for name in ("YResolution", "XResolution"))
        )
        return (), square_pixel_um(self._path, y_um, x_um), length_um(metadata.get("spacing"), unit)

    def _damaged(self, what: str) -> StackError:
        return damaged(self._path, what)


def _stack_axes(path: Path, axes: str, shape: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
    """A series' axes with depth called Z and without those of length 1, ending in YX; StackError for any other."""
    kept = [(axis, n) for axis, n in zip(axes, shape, strict=True) if n > 1 or axis in "YX"]
    named = "".join(axis for axis, _ in kept)
    if "Z" not in named:
        named = re.sub(f"[{_PAGES_ARE_Z}]", "Z", named, count=1)
    if named not in ("YX", "ZYX", "CYX", "ZCYX", "CZYX"):
        what = f"its axes are {axes} {shape}"
        raise StackError(what, where=str(path), do="save one time point as ZYX, ZCYX or CZYX in grey")
    return named, tuple(n for _, n in kept)
