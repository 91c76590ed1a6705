"""Leica's LIF files and XLEF projects, when they are finished. The only module that knows liffile.

An XLEF names a file for each series (XLIF), and those name the files with the pixels: all of them are looked for, and
their structure is checked, before the first plane is given out.
"""

import math
import struct
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import defusedxml
import liffile
import numpy as np
import tifffile
from defusedxml import ElementTree
from numpy.typing import NDArray

from spheroidd.acquisition.images.file_kind import MAX_DESCRIPTION_BYTES, check_regular, read_description
from spheroidd.acquisition.images.layout import FileLayout
from spheroidd.acquisition.images.metadata.image_metadata import Facts, elapsed, position, text
from spheroidd.acquisition.images.metadata.units import dtype_name, length_um, square_pixel_um
from spheroidd.acquisition.images.metadata.z_axis import step_conflict
from spheroidd.acquisition.images.tiff.validation import WholeTiff
from spheroidd.protocols.errors import StackError

XML_FILES = (".xlef", ".xlcf", ".xlif")
# Its own reader needs a further package, and tifffile would open the set that a file is of.
liffile.liffile.IMREAD[".tif"] = partial(tifffile.imread, is_ome=False, is_mmstack=False, is_ndtiff=False)
MAX_DEPTH = 8  # an experiment holds collections, and those may hold others


def list_series(path: Path) -> list[str]:
    """The paths of a file's series; StackError where it is not whole."""
    _check_described(path)
    try:
        with liffile.LifFile(path) as file:
            return [image.path for image in file.images]
    except Exception as error:  # a damaged file can make it raise anything
        raise StackError(f"not a whole LIF: {error}", where=str(path), do="copy it again") from error


class LifStack:
    """One series; `series` is its path within the file, and may be left out where there is only one.

    `chosen` says which one is meant of an axis that is neither channel nor z (T, λ, ...).
    """

    def __init__(self, path: Path, series: str = "", chosen: dict[str, int | str] | None = None) -> None:
        self._path, self._at = path, _chosen_places(path, chosen or {})
        _check_described(path)
        try:
            self._file: Any = liffile.LifFile(path)
        except Exception as error:  # a damaged file can make it raise anything
            raise self._damaged(f"not a whole LIF: {error}") from error
        try:
            self._image = self._choose(series)
            self.layout = self._read_layout()
            self._check_whole()
            self._times, self._stage = self._image.timestamps, self._where_the_stage_stood()
        except StackError:
            self.close()
            raise
        except Exception as error:
            self.close()
            raise self._damaged(f"its structure is damaged: {type(error).__name__} {error}") from error

    def plane(self, channel: int, z: int) -> NDArray[Any]:
        """Read the pixels (y, x) of one plane."""
        at = {"C": channel, "Z": z, **self._at}
        pixels: NDArray[Any] = self._image.frame(**{axis: n for axis, n in at.items() if axis in self._image.dims})
        return pixels

    def metadata(self, channel: int, z: int) -> Facts:
        """When a plane was taken, and where the stage stood: Leica gives its position no unit."""
        return {**self._stage, **self._taken_at({"C": channel, "Z": z, **self._at})}

    def close(self) -> None:
        """Let the file go; may be called twice."""
        self._file.close()

    def _taken_at(self, at: dict[str, int]) -> Facts:
        """A plane's time, where the series has one for each of its planes."""
        axes = [axis for axis in self._image.dims if axis not in "YX"]
        sizes = tuple(self._image.sizes[axis] for axis in axes)
        if self._times is None or len(self._times) != math.prod(sizes):
            return {}
        number = int(np.ravel_multi_index(tuple(at.get(axis, 0) for axis in axes), sizes)) if axes else 0
        since_s = (self._times[number] - self._times.min()) / np.timedelta64(1, "s")
        return text("instrument_time", self._times[number]) | elapsed(float(since_s))

    def _where_the_stage_stood(self) -> Facts:
        said = self._image.xml_element.find(".//ATLConfocalSettingDefinition[@StagePosX]")
        if said is None:
            return {}
        return position("x", said.get("StagePosX"), None) | position("y", said.get("StagePosY"), None)

    def _choose(self, series: str) -> Any:
        images = list(self._file.images)
        found = [image for image in images if series in (image.path, image.name)] if series else images
        if len(found) == 1:
            return found[0]
        named = ", ".join(image.path for image in images) or "none"
        what = f"{len(found)} of its series are called {series!r}" if series else f"it holds {len(images)} series"
        raise StackError(f"{what}: {named}", where=str(self._path), do=f"write one: {self._path.name}/SERIES")

    def _read_layout(self) -> FileLayout:
        image = self._image
        wrong = [axis for axis, at in self._at.items() if not 0 <= at < image.sizes.get(axis, 0)]
        if wrong:
            what = f"series {image.path} has no {wrong[0]}={self._at[wrong[0]]}: its axes are {image.sizes}"
            raise StackError(what, where=str(self._path), do="count from 0, and name axes that it has")
        sizes = {axis: n for axis, n in image.sizes.items() if axis not in self._at}
        unknown = {axis: n for axis, n in sizes.items() if axis not in "CZYX" and n > 1}
        if unknown or tuple(image.dims[-2:]) != ("Y", "X"):
            what = f"the axes of series {image.path} are {image.sizes}"
            one = ",".join(f"{axis}=0" for axis in unknown) or "a grey series"
            raise StackError(what, where=str(self._path), do=f"name one: {self._path.name}/{image.path}/{one}")
        y_um, x_um, z_um = (_step_um(image.xml_element, axis) for axis in "YXZ")
        dtype = dtype_name(self._path, np.dtype(image.dtype))
        pixel_um = square_pixel_um(self._path, y_um, x_um)
        n_channels, n_z = sizes.get("C", 1), sizes.get("Z", 1)
        conflicts, doubts = _scan_range(image.xml_element, n_z, z_um)
        names = self._names()
        return FileLayout(n_channels, n_z, sizes["Y"], sizes["X"], dtype, names, pixel_um, z_um, conflicts, doubts)

    def _names(self) -> tuple[str, ...]:
        """The channels' dyes, in the order in which their pixels lie in the file; where none is said, the colour in
        which the operator chose to see the channel.
        """
        channels = sorted(self._image.xml_element.iter("ChannelDescription"), key=lambda c: int(c.get("BytesInc", 0)))
        dyes = [
            " ".join(
                said.get("Value") or said.findtext("Value") or ""
                for said in channel.findall("ChannelProperty")
                if (said.findtext("Key") or said.get("Key")) == "DyeName"
            ).strip()
            for channel in channels
        ]
        colours = [channel.get("LUTName", "") for channel in channels]
        return tuple(dyes if any(dyes) or len(set(colours)) < len(colours) else colours)

    def _check_whole(self) -> None:
        """The series' pixels lie within the file."""
        block = self._image.memory_block
        end = getattr(block, "offset", 0) + getattr(block, "size", 0)
        if self._file.type.name == "LIF" and end > self._path.stat().st_size:
            raise self._damaged("the pixels of its series lie beyond its end")
        if getattr(block, "size", self._image.nbytes) < self._image.nbytes:
            raise self._damaged("its series has fewer bytes than its axes promise")
        for frame in getattr(block, "frames", ()):
            self._check_frame(_beside(Path(self._image.parent.dirname), frame.file, self._path), frame.size)

    def _check_frame(self, path: Path, n_bytes: int) -> None:
        """A file with pixels of an XLIF: there, whole, and as large as it was said to be."""
        if path.suffix.lower() in (".tif", ".tiff"):
            with WholeTiff(path) as tiff:
                held = tiff.n_pages * tiff.height * tiff.width * np.dtype(tiff.dtype).itemsize
        elif path.suffix.lower() == ".lof":
            check_regular(path)
            try:
                with liffile.LifFile(path) as file:
                    held = sum(block.size for block in file.memory_blocks.values())
            except Exception as error:  # a damaged file can make it raise anything
                raise self._damaged(f"{path.name} is not whole: {error}") from error
        else:
            raise self._damaged(f"its pixels are in {path.name}, and only .tif and .lof can be checked")
        if held < n_bytes:
            raise self._damaged(f"{path.name} holds {held} bytes of pixels, and {n_bytes} were promised")

    def _damaged(self, what: str) -> StackError:
        return StackError(what, where=str(self._path), do="copy it again, or export the series again")


_DIMENSIONS = {"X": "1", "Y": "2", "Z": "3"}  # Leica's numbers of its axes


def _chosen_places(path: Path, chosen: dict[str, int | str]) -> dict[str, int]:
    try:
        return {axis: int(at) for axis, at in chosen.items()}
    except ValueError:
        named = ",".join(f"{axis}={at}" for axis, at in chosen.items())
        raise StackError(f"{named} names no place", where=str(path), do="write numbers, such as T=0") from None


def _step_um(series: Any, axis: str) -> float | None:
    """The distance of neighbouring positions along an axis, which has a unit of its own; None where it is not said."""
    found = series.find(f".//DimensionDescription[@DimID='{_DIMENSIONS[axis]}']")
    n = int(found.get("NumberOfElements", 1)) if found is not None else 1
    if n < 2:
        return None
    return length_um(abs(float(found.get("Length", 0))) / (n - 1), found.get("Unit") or "m")


def _scan_range(series: Any, n_z: int, z_step_um: float | None) -> tuple[dict[str, str], tuple[str, ...]]:
    """What the scan's own settings say against the series: (conflicts, doubts), each empty where they agree."""
    scan = series.find(".//ATLConfocalSettingDefinition[@Sections]")
    if scan is None or n_z < 2 or z_step_um is None:
        return {}, ()
    sections = int(scan.get("Sections") or 0)
    if sections > 1 and sections != n_z:
        return {}, (f"its scan was set to {sections} slices, and it holds {n_z}",)
    if (scan.get("ValidBeginStack"), scan.get("ValidEndStack")) != ("1", "1"):
        return {}, ()
    set_um = length_um(abs(float(scan.get("End", 0)) - float(scan.get("Begin", 0))) / (n_z - 1), "m")
    conflict = step_conflict(z_step_um, set_um)
    return ({"z_step_um": f"{conflict} (as its scan was set)"} if conflict else {}), ()


def _check_described(path: Path, depth: int = 0) -> None:
    """Look for entities in a description, and in those that it refers to, before they are given to a parser that would
    follow them; StackError where one is missing.
    """
    if depth > MAX_DEPTH:
        raise StackError("it refers to itself", where=str(path), do="do not use this file")
    try:
        n_bytes = check_regular(path)
        with path.open("rb") as file:
            head = file.read(13)
            if path.suffix.lower() == ".lif" and len(head) == 13 and head[:4] == b"\x70\0\0\0":
                (n_letters,) = struct.unpack("<I", head[9:])
                text = file.read(min(2 * n_letters, n_bytes, MAX_DESCRIPTION_BYTES)).decode("utf-16-le", "replace")
                ElementTree.fromstring(text.rstrip("\0"))
            elif path.suffix.lower() in XML_FILES:
                described = ElementTree.fromstring(read_description(path))
                for child in described.iterfind("./Element/Children/Reference[@File]"):
                    _check_described(_beside(path.parent, child.get("File"), path), depth + 1)
    except defusedxml.DefusedXmlException as error:
        raise StackError(f"its description holds {error}", where=str(path), do="do not use this file") from error
    except ElementTree.ParseError as error:
        what = f"not a whole LIF: its description ends early: {error}"
        raise StackError(what, where=str(path), do="copy it again, or export the series again") from error
    except OSError as error:
        raise StackError(f"cannot be read: {error}", where=str(path), do="check the file and its rights") from error


def _beside(folder: Path, name: str | None, told_by: Path) -> Path:
    """A file that another one names, in whatever case; StackError where it is not there."""
    path = folder / unquote(name or "").replace("\\", "/")
    try:
        return Path(liffile.liffile.case_sensitive_path(str(path)))
    except FileNotFoundError as error:
        do = "copy the whole project, or wait until it is exported to its end"
        raise StackError(f"it names {path.name}, which is not there", where=str(told_by), do=do) from error
