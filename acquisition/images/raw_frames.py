"""Files of raw structured-illumination frames: TIFF, OME-TIFF, DeltaVision, MRC; frame after frame as they lie there.

Which frame is which angle, phase and z no file says in a way that can be trusted: the person who asks states it.
"""

import math
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import mrc
import numpy as np
import tifffile
from numpy.typing import NDArray

from spheroidd.acquisition.images.file_kind import check_regular
from spheroidd.acquisition.images.metadata.units import length_um, square_pixel_um
from spheroidd.acquisition.images.tiff.ome_set import describe, is_ome
from spheroidd.acquisition.images.tiff.validation import (
    TiffPages,
    check_pixels,
    damaged,
    is_within,
    tifffile_faults,
)
from spheroidd.protocols.errors import StackError

READABLE = ("uint8", "uint16", "float32")
_TIFF, _DELTAVISION = (".tif", ".tiff", ".btf", ".tf8"), (".dv", ".mrc", ".r3d")
READ_NAMES = _TIFF + _DELTAVISION  # the ends, in small letters
_PLACEHOLDER_NM = 999  # what DeltaVision files have for a wavelength that nobody entered


@dataclass(frozen=True, slots=True)
class RawFrames:
    """`frames` (frame, y, x) in the order of the file, and what the file says of them; None where it says nothing.

    `axes` names the file's own axes, slowest first, with their lengths: what the frames were flattened from.
    """

    path: Path
    frames: NDArray[Any]
    axes: tuple[tuple[str, int], ...]
    pixel_um: float | None
    z_step_um: float | None
    emission_nm: float | None

    def __post_init__(self) -> None:
        if self.frames.dtype.name not in READABLE:
            do = f"save it as {', '.join(READABLE)}"
            raise StackError(f"its pixels are {self.frames.dtype}", where=str(self.path), do=do)
        if self.frames.dtype == np.float32 and not np.isfinite(self.frames).all():
            raise StackError("some of its pixels are no numbers", where=str(self.path), do="export the file again")


class RawFile:
    """A file of raw frames that stays open: `frame` reads one at a time. Use it in a `with` statement, or close it.

    `channel` (from 0) chooses one of several colours; without it all axes are frames. StackError where the file is
    damaged, of another kind, or has no such channel; OSError where it cannot be read.
    """

    emission_nm: float | None = None
    dtype: np.dtype[Any]

    def __init__(self, path: Path, channel: int | None = None) -> None:
        check_regular(path)
        name = path.name.lower()
        self.path, self._open = path, ExitStack()
        with ExitStack() as opening:
            opening.push(self._open)
            if name.endswith(_TIFF):
                axes = self._open_tiff()
            elif name.endswith(_DELTAVISION):
                axes = self._open_deltavision(channel)
            else:
                what = "not a kind of file that raw frames are read from"
                do = "export it as TIFF or OME-TIFF, by the microscope's program or Bio-Formats, or as .dv or .mrc"
                raise StackError(what, where=str(path), do=do)
            self.frame_shape = (axes[-2][1], axes[-1][1]) if len(axes) > 1 else (0, 0)
            self._planes, self.axes = _in_order(path, axes, channel)
            if self.dtype == np.int16:  # of a camera's counts, which are none below 0
                self.dtype = np.dtype(np.uint16)
            opening.pop_all()

    @property
    def n_frames(self) -> int:
        """How many frames it holds of the chosen colour."""
        return len(self._planes)

    def frame(self, number: int) -> NDArray[Any]:
        """One frame (y, x), counted from 0 in the order of the file, in memory of its own; StackError as above."""
        pixels = self._plane(int(self._planes[number]))
        if pixels.shape != self.frame_shape:  # a page whose pixels are gone
            raise damaged(self.path, f"frame {number + 1} is {pixels.shape}, not {self.frame_shape}")
        if pixels.dtype == np.int16 and pixels.min() < 0:
            do = "add what keeps all of them above 0, save it as uint16, and state that as the offset"
            raise StackError(f"frame {number + 1} has pixels below 0", where=str(self.path), do=do)
        return np.array(pixels, dtype=self.dtype, order="C")

    def close(self) -> None:
        """Let the file go; may be called twice."""
        self._open.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open_tiff(self) -> tuple[tuple[str, int], ...]:
        path = self.path
        with TiffPages(path) as pages:
            check_pixels(pages.tiff.pages.first, path)
            self.pixel_um, self.z_step_um = _tiff_lengths(pages, path)
        with _whole(path, "its frames cannot be read"):
            tiff = self._open.enter_context(tifffile.TiffFile(path))
            series = tiff.series
            if len(series) != 1 and (tiff.is_ome or not _are_frames(series)):
                do = "save one stack of raw frames a file"
                raise StackError(f"it holds {len(series)} images", where=str(path), do=do)
            frames = [page for one in series for page in one.pages]
            if not all(page is not None and page.parent is tiff and is_within(page) for page in frames):
                raise damaged(path, "the pixels of some frames lie beyond its end, or in another file")
            self.dtype = np.dtype(series[0].dtype).newbyteorder("=")
            if len(series) > 1:  # frames that were written one by one
                self._plane = _pages(frames, path)
                return (("I", len(series)), *zip(series[0].axes, series[0].shape, strict=True))
            self._plane = _planes_of(tiff, series[0], path)
            return tuple(zip(series[0].axes, series[0].shape, strict=True))

    def _open_deltavision(self, channel: int | None) -> tuple[tuple[str, int], ...]:
        try:
            file = self._open.enter_context(mrc.DVFile(self.path))
            header, sizes, dtype = file.hdr, tuple(file.sizes.items()), file.dtype
            planes = file.data.reshape(-1, *file.data.shape[-2:])
        except (ValueError, KeyError, IndexError, TypeError, OverflowError, MemoryError, struct.error) as error:
            what = f"not a whole DeltaVision or MRC file: {error}"
            raise StackError(what, where=str(self.path), do="copy it again, or save it as TIFF") from error
        self.dtype = dtype.newbyteorder("=")
        self.pixel_um = square_pixel_um(self.path, length_um(header.dy, "um"), length_um(header.dx, "um"))
        self.z_step_um = length_um(header.dz, "um")
        wave = (header.wave1, header.wave2, header.wave3, header.wave4, header.wave5)[min(channel or 0, 4)]
        self.emission_nm = float(wave) if 300 <= wave <= 1200 and wave != _PLACEHOLDER_NM else None
        self._plane = lambda number: planes[number]
        return sizes


def open_raw(path: Path, channel: int | None = None) -> RawFrames:
    """Read a file of raw frames into memory; `channel` and errors as of `RawFile`."""
    with RawFile(path, channel) as file:
        try:
            frames = np.empty((file.n_frames, *file.frame_shape), file.dtype)
        except (ValueError, MemoryError) as error:
            raise damaged(path, f"its frames cannot be read: {error}") from error
        for number in range(file.n_frames):
            frames[number] = file.frame(number)
        return RawFrames(path, frames, file.axes, file.pixel_um, file.z_step_um, file.emission_nm)


def _are_frames(series: Any) -> bool:
    """Whether these are grey images of one size and kind: a stack that was written page by page."""
    return bool(series) and all(
        one.axes == "YX" and len(one.pages) == 1 and (one.shape, one.dtype) == (series[0].shape, series[0].dtype)
        for one in series
    )


def _pages(pages: list[Any], path: Path) -> Callable[[int], NDArray[Any]]:
    """What reads a page by its number."""

    def read(number: int) -> NDArray[Any]:
        with _whole(path, f"frame {number + 1} cannot be read"):
            return np.asarray(pages[number].asarray())

    return read


def _planes_of(tiff: Any, series: Any, path: Path) -> Callable[[int], NDArray[Any]]:
    """What reads a plane of a series by its number: from its page, or from where it lies in one piece."""
    *lengths, height, width = series.shape if len(series.shape) > 1 else (1, 1)
    pages = list(series.pages)
    if len(pages) == math.prod(lengths) and all(tuple(page.shape) == (height, width) for page in pages):
        return _pages(pages, path)
    if series.dataoffset is not None:
        dtype = np.dtype(series.dtype).newbyteorder(tiff.byteorder)
        shape = (math.prod(lengths), height, width)
        lying = tiff.filehandle.memmap_array(dtype, shape, offset=series.dataoffset)
        return lambda number: lying[number]
    values = series.asarray().reshape(-1, height, width)
    return lambda number: values[number]


@contextmanager
def _whole(path: Path, what: str) -> Iterator[None]:
    """A damaged file can make tifffile raise anything, or say it in its log; here it is a StackError."""
    with tifffile_faults() as faults:
        try:
            yield
        except (StackError, OSError):
            raise
        except Exception as error:
            raise damaged(path, f"{what}: {type(error).__name__} {error}") from error
    if faults:
        raise damaged(path, f"its structure is damaged: {faults[0]}")


def _tiff_lengths(pages: TiffPages, path: Path) -> tuple[float | None, float | None]:
    text = pages.description
    if is_ome(text):
        whole, own = describe(text, path)
        if whole is None:
            return None, None
        ome = whole.image(path, own.uuid, "", 0)
        return ome.pixel_um, ome.z_step_um
    said = pages.tiff.imagej_metadata
    if not said:
        return None, None
    unit = str(said.get("unit", "")).replace("\\u00B5", "µ")
    sizes = []
    for name in ("YResolution", "XResolution"):
        tag = pages.tiff.pages.first.tags.get(name)
        per_unit = tag.value[0] / tag.value[1] if tag is not None and tag.value[1] else 0.0
        sizes.append(length_um(1 / per_unit, unit) if per_unit > 0 else None)
    return square_pixel_um(path, sizes[0], sizes[1]), length_um(said.get("spacing"), unit)


def _in_order(
    path: Path, axes: tuple[tuple[str, int], ...], channel: int | None
) -> tuple[NDArray[np.intp], tuple[tuple[str, int], ...]]:
    """The numbers of the planes of one channel, and the axes that they were."""
    if [axis for axis, _ in axes[-2:]] != ["Y", "X"] or 0 in [length for _, length in axes]:
        raise StackError(f"its axes are {axes}", where=str(path), do="save grey images, one a frame")
    colours = [n for n, (axis, _) in enumerate(axes) if axis == "C"]
    lengths = [length for _, length in axes[:-2]]
    numbers = np.arange(math.prod(lengths)).reshape(lengths)
    if channel is not None:
        length = axes[colours[0]][1] if colours else 1
        if not 0 <= channel < length:
            raise StackError(f"it has no channel {channel}", where=str(path), do=f"it has {length}, counted from 0")
        if colours:
            numbers = np.take(numbers, channel, axis=colours[0])
            axes = tuple(one for n, one in enumerate(axes) if n != colours[0])
    return numbers.reshape(-1), tuple(one for one in axes if one[1] > 1)
