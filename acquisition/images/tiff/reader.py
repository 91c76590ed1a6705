"""Recorded TIFF stacks: OME-TIFF, Micro-Manager's, ImageJ's and plain multi-page files.

A file is taken by itself: of a set, the stack that the named file holds planes of. tifffile would open the whole set
and give its first image, and opens truncated files as valid, shorter ones; what it would only log is an error here.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spheroidd.acquisition.images.layout import FileLayout, StackFile
from spheroidd.acquisition.images.metadata.calibration import Calibration, gdal_calibration, imagej_calibration
from spheroidd.acquisition.images.metadata.image_metadata import Facts
from spheroidd.acquisition.images.metadata.units import agree, dtype_name, length_um, square_pixel_um
from spheroidd.acquisition.images.tiff.micromanager import micromanager_metadata, read_index, summary_lengths
from spheroidd.acquisition.images.tiff.ome_set import describe, is_ome
from spheroidd.acquisition.images.tiff.placed import Described, PlacedTiff, of_ome
from spheroidd.acquisition.images.tiff.validation import (
    TiffPages,
    check_pixels,
    damaged,
    is_within,
    micromanager_facts,
    tifffile_faults,
)
from spheroidd.protocols.errors import StackError

_PAGES_ARE_Z = "ZQI"  # what a plain list of pages is called; time (T) is not taken for depth
_WORDS = re.compile(r"[^\s_/:;,]+")
_REDUCED = 1  # NewSubfileType of a smaller copy


def open_tiff(path: Path, series: str = "", chosen: Mapping[str, int | str] | None = None) -> StackFile:
    """Open the stack that a file holds. `series` names one of several images of an OME-TIFF, `chosen` a time point (T).

    StackError where there are several and none is named, where a plane is missing, or where it is no such file.
    """
    time_point = _time_point(path, chosen or {})
    pages = TiffPages(path)
    try:
        with tifffile_faults():
            return _described(pages, series, time_point)
    except (StackError, OSError):
        pages.close()
        raise
    except Exception as error:  # a damaged file can make tifffile raise anything
        pages.close()
        raise damaged(path, f"its structure is damaged: {type(error).__name__} {error}") from error


def _time_point(path: Path, chosen: Mapping[str, int | str]) -> int | None:
    try:
        if not set(chosen) <= {"T"}:
            raise ValueError
        return int(chosen["T"]) if "T" in chosen else None
    except ValueError:
        named = ",".join(f"{axis}={value}" for axis, value in chosen.items())
        raise StackError(f"{named} is no part of a TIFF", where=str(path), do="write T=0, or nothing") from None


def _described(pages: TiffPages, series: str, time_point: int | None) -> StackFile:
    text, path = pages.description, pages.path
    metadata = micromanager_metadata(pages.tiff)
    if is_ome(text):
        whole, own = describe(text, path)
        if whole is not None:
            ome = whole.image(path, own.uuid, series, time_point or 0)
            if ome.n_t > 1 and time_point is None:
                what = f"it holds {ome.n_t} time points"
                raise StackError(what, where=str(path), do=f"save one, or name one: {path.name}/T=0")
            if (time_point or 0) >= ome.n_t:
                raise StackError(f"it holds {ome.n_t} time points", where=str(path), do="name one of them")
            stack = PlacedTiff(pages, _agreeing(of_ome(ome, path, pages.n_pages), metadata))
            if ome.pixel_type not in ("", stack.layout.dtype):
                what = f"its pixels are {stack.layout.dtype} in the TIFF and {ome.pixel_type} in its OME-XML"
                raise StackError(what, where=str(path), do="save it as uint16")
            return stack
        if not metadata:
            what = f"its description is in {own.metadata_file}, which is not beside it"
            raise StackError(what, where=str(path), do="copy the whole set of files into one folder")
    if series:
        raise StackError(f"it holds no image called {series!r}", where=str(path), do=f"write {path.name} alone")
    if metadata:
        said = read_index(pages.tiff, metadata, path, time_point)
        lengths = said.channel_names, said.pixel_um, said.z_step_um
        tiff = pages.tiff

        def facts(channel: int, z: int) -> Facts:
            return micromanager_facts(tiff.pages.get(said.places[channel, z].ifd, aspage=True))

        return PlacedTiff(pages, Described(said.n_channels, said.n_z, *lengths, said.places, facts, {}))
    if time_point is not None:
        raise StackError("it does not say what its time points are", where=str(path), do="save one time point")
    return SeriesTiff(pages)


def _agreeing(said: Described, metadata: dict[str, Any]) -> Described:
    """What the OME-XML says, with where Micro-Manager's own summary says otherwise."""
    conflicts = {}
    for name, ours, theirs in zip(
        ("pixel_um", "z_step_um"), (said.pixel_um, said.z_step_um), summary_lengths(metadata), strict=True
    ):
        if ours is not None and theirs is not None and not agree(ours, theirs):
            conflicts[name] = f"its OME-XML says {ours:g} um and Micro-Manager's summary {theirs:g} um"
    pixel_um, z_step_um = summary_lengths(metadata)
    return Described(
        said.n_channels,
        said.n_z,
        said.channel_names,
        said.pixel_um or pixel_um,
        said.z_step_um or z_step_um,
        said.places,
        said.facts,
        conflicts,
        said.doubts,
    )


class SeriesTiff:
    """An ImageJ or plain TIFF whose every plane is known to lie within its file: one list of pages, or one block."""

    def __init__(self, pages: TiffPages) -> None:
        self._path, self._pages, self._tiff = pages.path, pages, pages.tiff
        with tifffile_faults() as faults:
            series = self._only_series()
        if faults:
            raise damaged(self._path, f"its structure is damaged: {faults[0]}")
        self._axes, self._shape = _stack_axes(self._path, series.axes, series.shape)
        self._series: Any = series
        sizes = dict(zip(self._axes, self._shape, strict=True))
        n_channels, n_z = sizes.get("C", 1), sizes.get("Z", 1)
        dtype = dtype_name(self._path, series.dtype)
        said = self._tiff.imagej_metadata or {} if self._tiff.is_imagej else {}
        pixel_um, z_step_um = self._imagej_lengths(said) if said else (None, None)
        self._calibration: Calibration | None = imagej_calibration(said, self._path)
        gdal_calibration(self._tiff.pages.first, self._path)
        dtype, names = "uint16" if self._calibration else dtype, _imagej_channels(said, self._axes, n_channels)
        self.layout = FileLayout(n_channels, n_z, sizes["Y"], sizes["X"], dtype, names, pixel_um, z_step_um)
        self._check_planes(n_channels * n_z)

    def plane(self, channel: int, z: int) -> NDArray[Any]:
        """Read the pixels (y, x) of one plane."""
        pixels = self._raw(self._plane_number(channel, z))
        return self._calibration.applied(pixels) if self._calibration else pixels

    def metadata(self, channel: int, z: int) -> Facts:
        """What the file says of one plane: Micro-Manager beside the plane."""
        return {} if self._is_one_page else micromanager_facts(self._series[self._plane_number(channel, z)])

    def close(self) -> None:
        """Let the file go; may be called twice."""
        self._pages.close()

    def _only_series(self) -> Any:
        """The images of full size; smaller copies of them do not count."""
        series = list(self._tiff.series)
        full = [one for one in series if not one.keyframe.subfiletype & _REDUCED] or series[:1]
        if len(full) != 1:
            shapes = ", ".join(f"{one.axes} {one.shape}" for one in full[:5])
            what = f"it holds {len(full)} series of images: {shapes}"
            raise StackError(what, where=str(self._path), do="save the one that is meant into a file of its own")
        return full[0]

    def _raw(self, at: int) -> NDArray[Any]:
        if not self._is_one_page:
            return np.asarray(self._series[at].asarray())
        shape = (self.layout.height, self.layout.width)
        dtype = np.dtype(self._series.dtype).newbyteorder(self._tiff.byteorder)
        start = self._series.dataoffset + at * math.prod(shape) * dtype.itemsize
        mapped: NDArray[Any] = np.memmap(self._path, dtype, "r", start, shape)
        return mapped

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
                raise damaged(self._path, f"{n_planes - whole} of {n_planes} planes lie beyond its end")
            check_pixels(series.keyframe, self._path, one_block=True)
            return
        missing = [at for at in range(n_planes) if at >= len(series) or not self._is_whole(series[at])]
        if missing:
            what = f"{len(missing)} of {n_planes} planes are missing or cut off, the first is plane {missing[0] + 1}"
            raise damaged(self._path, what)

    def _is_whole(self, page: Any) -> bool:
        if page is None:
            return False
        if page.shape != (self.layout.height, self.layout.width):
            what = f"one of its images is {page.shape}, not ({self.layout.height}, {self.layout.width})"
            raise StackError(what, where=str(self._path), do="save one grey image per plane")
        if not is_within(page):
            return False
        check_pixels(page, self._path)
        return True

    def _imagej_lengths(self, said: dict[str, Any]) -> tuple[float | None, float | None]:
        """Pixel size and z-step, each in its own unit: ImageJ writes yunit and zunit only where they are not `unit`."""
        unit = _imagej_unit(said, "unit", "pixel")
        tags = self._tiff.pages.first.tags
        y_um, x_um = (
            length_um(over / per if per else None, own)
            for (per, over), own in (
                (tags.valueof("YResolution", default=(0, 1)), _imagej_unit(said, "yunit", unit)),
                (tags.valueof("XResolution", default=(0, 1)), _imagej_unit(said, "xunit", unit)),
            )
        )
        z_um = length_um(said.get("spacing"), _imagej_unit(said, "zunit", unit))
        return square_pixel_um(self._path, y_um, x_um), z_um


def _imagej_channels(said: dict[str, Any], axes: str, n_channels: int) -> tuple[str, ...]:
    """The channels' names out of ImageJ's labels of single planes, such as "c:1/2 z:3/9 - GFP": where all of a
    channel's planes have one in common that another channel's have not.
    """
    labels = said.get("Labels")
    if not isinstance(labels, list) or n_channels < 2 or len(labels) % n_channels:
        return ()
    each, by_turns = len(labels) // n_channels, not axes.startswith("C")
    places = [slice(c, None, n_channels) if by_turns else slice(c * each, c * each + each) for c in range(n_channels)]
    by_channel = [labels[place] for place in places]
    words = [set.intersection(*(set(_WORDS.findall(str(label))) for label in of)) for of in by_channel]
    return tuple(" ".join(sorted(own - set.union(*(words[:c] + words[c + 1 :])))) for c, own in enumerate(words))


def _imagej_unit(said: dict[str, Any], name: str, otherwise: str) -> str:
    return str(said.get(name, otherwise)).replace("\\u00B5", "µ").replace("\\u00b5", "µ")


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
