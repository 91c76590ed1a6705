"""Files of raw structured-illumination frames: TIFF, OME-TIFF, DeltaVision, MRC; frame after frame as they lie there.

Which frame is which angle, phase and z no file says in a way that can be trusted: the person who asks states it.
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mrc
import numpy as np
import tifffile
from numpy.typing import NDArray

from spheroidd.acquisition.images.file_kind import check_regular
from spheroidd.acquisition.images.ome_set import describe, is_ome
from spheroidd.acquisition.images.tiff_validation import (
    TiffPages,
    check_pixels,
    damaged,
    is_within,
    tifffile_faults,
)
from spheroidd.acquisition.images.units import length_um, square_pixel_um
from spheroidd.protocols.errors import StackError

READABLE = ("uint8", "uint16", "float32")
_TIFF, _DELTAVISION = (".tif", ".tiff", ".btf", ".tf8"), (".dv", ".mrc", ".r3d")
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


def open_raw(path: Path, channel: int | None = None) -> RawFrames:
    """Read a file of raw frames. `channel` (from 0) chooses one of several colours; without it all axes are frames.

    StackError where the file is damaged, of another kind, or has no such channel; OSError where it cannot be read.
    """
    check_regular(path)
    name = path.name.lower()
    if name.endswith(_TIFF):
        return _open_tiff(path, channel)
    if name.endswith(_DELTAVISION):
        return _open_deltavision(path, channel)
    raise StackError("not a kind of file that raw frames are read from", where=str(path), do="use .tif, .dv or .mrc")


def _open_tiff(path: Path, channel: int | None) -> RawFrames:
    with TiffPages(path) as pages:
        check_pixels(pages.tiff.pages.first, path)
        pixel_um, z_step_um = _tiff_lengths(pages, path)
    with tifffile_faults() as faults, tifffile.TiffFile(path) as tiff:
        try:
            series = tiff.series
            if len(series) != 1:
                do = "save one stack of raw frames a file"
                raise StackError(f"it holds {len(series)} images", where=str(path), do=do)
            if not all(page is not None and page.parent is tiff and is_within(page) for page in series[0].pages):
                raise damaged(path, "the pixels of some frames lie beyond its end, or in another file")
            values, axes = series[0].asarray(), tuple(zip(series[0].axes, series[0].shape, strict=True))
        except (StackError, OSError):
            raise
        except Exception as error:  # a damaged file can make tifffile raise anything
            raise damaged(path, f"its frames cannot be read: {type(error).__name__} {error}") from error
    if faults:
        raise damaged(path, f"its structure is damaged: {faults[0]}")
    return RawFrames(path, *_flattened(path, values, axes, channel), pixel_um, z_step_um, None)


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


def _open_deltavision(path: Path, channel: int | None) -> RawFrames:
    try:
        with mrc.DVFile(path) as file:
            header, named = file.hdr, file.sizes
            values = np.array(file.data, dtype=file.dtype.newbyteorder("="))
    except (ValueError, KeyError, IndexError, TypeError, OverflowError, MemoryError, struct.error) as error:
        what = f"not a whole DeltaVision or MRC file: {error}"
        raise StackError(what, where=str(path), do="copy it again, or save it as TIFF") from error
    axes = tuple(named.items())
    frames, flat_axes = _flattened(path, values, axes, channel)
    pixel_um = square_pixel_um(path, length_um(header.dy, "um"), length_um(header.dx, "um"))
    wave = (header.wave1, header.wave2, header.wave3, header.wave4, header.wave5)[min(channel or 0, 4)]
    emission = float(wave) if 300 <= wave <= 1200 and wave != _PLACEHOLDER_NM else None
    return RawFrames(path, frames, flat_axes, pixel_um, length_um(header.dz, "um"), emission)


def _flattened(
    path: Path, values: NDArray[Any], axes: tuple[tuple[str, int], ...], channel: int | None
) -> tuple[NDArray[Any], tuple[tuple[str, int], ...]]:
    """The frames (frame, y, x) of one channel and the axes that they were."""
    if [axis for axis, _ in axes[-2:]] != ["Y", "X"] or 0 in values.shape:
        raise StackError(f"its axes are {axes}", where=str(path), do="save grey images, one a frame")
    colours = [n for n, (axis, _) in enumerate(axes) if axis == "C"]
    if channel is not None:
        length = axes[colours[0]][1] if colours else 1
        if not 0 <= channel < length:
            raise StackError(f"it has no channel {channel}", where=str(path), do=f"it has {length}, counted from 0")
        if colours:
            values = np.take(values, channel, axis=colours[0])
            axes = tuple(one for n, one in enumerate(axes) if n != colours[0])
    frames = np.ascontiguousarray(values.reshape(-1, *values.shape[-2:]))
    return frames, tuple(one for one in axes if one[1] > 1)
