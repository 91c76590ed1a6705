"""NDTiff data sets, as Micro-Manager and pycromanager write them, versions 2 and 3, when they are finished.

A plane is believed when the index names it and its bytes lie within its file; the index is written after the pixels.
It does not say how many planes there will be: whoever opens a data set must know that it is finished.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from spheroidd.acquisition.images.file_kind import check_regular, read_description
from spheroidd.acquisition.images.layout import FileLayout
from spheroidd.acquisition.images.metadata.image_metadata import Facts, of_micromanager
from spheroidd.acquisition.images.metadata.units import length_um
from spheroidd.acquisition.images.metadata.z_axis import measured_step_um
from spheroidd.protocols.errors import StackError
from spheroidd.protocols.json_text import parse_json

_DTYPES = {0: "uint8", 1: "uint16", 3: "uint16", 4: "uint16", 5: "uint16", 6: "uint16"}
_OURS = {"z", "channel"}
MAX_SLICES, MAX_NAMED = 100_000, 5
MAX_AXES_BYTES, MAX_METADATA_BYTES = 65_536, 2**24  # of one plane; a real one's have 30 and 5,000
Axes = dict[str, int | str]


class Entry(NamedTuple):
    """What the index says of one plane: where its pixels and its metadata lie in which file."""

    axes: Axes
    file: str
    offset: int
    width: int
    height: int
    kind: int
    compression: int
    metadata_offset: int
    metadata_bytes: int


def _entries(index: Path) -> Iterator[Entry]:
    """Every entry of an index; StackError where it ends in the middle of one.

    An entry is: length and text of the axes (JSON), length and text of the file's name, and eight numbers.
    """
    data, at = read_description(index), 0
    try:
        while at < len(data):
            (n_axes,) = struct.unpack_from("<I", data, at)
            if n_axes > MAX_AXES_BYTES:
                raise ValueError(f"axes of {n_axes} bytes")
            axes = parse_json(data[at + 4 : at + 4 + n_axes])
            at += 4 + n_axes
            (n_name,) = struct.unpack_from("<I", data, at)
            name = data[at + 4 : at + 4 + n_name].decode()
            at += 4 + n_name
            numbers = struct.unpack_from("<IiiiiIii", data, at)
            at += 32
            if not isinstance(axes, dict) or Path(name).name != name or min(numbers) < 0:
                raise ValueError(f"entry for {axes} in {name!r}")
            yield Entry(axes, name, *numbers[:7])
    except (struct.error, ValueError) as error:
        what = f"its index is damaged or not finished: {error}"
        raise StackError(what, where=str(index), do="copy it again, or record the well again") from error


def index_path(folder: Path) -> Path | None:
    """The data set's index; version 2 keeps it in a folder. None where it is no data set."""
    places = (folder / "NDTiff.index", folder / "Full resolution" / "NDTiff.index")
    return next((place for place in places if place.is_file()), None)


def list_positions(folder: Path) -> list[str]:
    """A data set's positions as "position=NAME", in the order of their coming; none where it has no such axis."""
    index = index_path(folder)
    entries = _entries(index) if index else ()
    return list(dict.fromkeys(f"position={entry.axes['position']}" for entry in entries if "position" in entry.axes))


def list_files(folder: Path) -> list[str]:
    """The names of the files that a data set's pixels are in."""
    index = index_path(folder)
    return sorted({entry.file for entry in (_entries(index) if index else ())})


class NDTiffFile:
    """One stack of a data set; `chosen` names the position, time or other axis of which it is one value."""

    def __init__(self, path: Path, chosen: Axes | None = None) -> None:
        index = index_path(path)
        if index is None:
            raise StackError("it holds no NDTiff.index", where=str(path), do="give the data set's folder")
        self._path, self._index, self._chosen = path, index, chosen or {}
        self._planes: dict[tuple[str, int], Entry] = {}
        self._channels: list[str] = []
        self._sizes: dict[str, int] = {}
        self._read_index()
        z_values = {z for _, z in self._planes}
        if max(z_values) - min(z_values) > MAX_SLICES:
            what = f"its slices are numbered from {min(z_values)} to {max(z_values)}"
            raise StackError(what, where=str(path), do="record the well again")
        self._z_values = range(min(z_values), max(z_values) + 1)
        self._check_whole()
        first = next(iter(self._planes.values()))
        said = map(self._tags, self._planes.values())
        pixels_um = [length_um(tags.get("PixelSizeUm", tags.get("PixelSize_um")), "um") for tags in said]
        different = [um for um in dict.fromkeys(pixels_um) if um is not None]
        self.layout = FileLayout(
            len(self._channels),
            len(self._z_values),
            first.height,
            first.width,
            _DTYPES[first.kind],
            tuple(self._channels),
            pixels_um[0],
            self._z_step_um(),
            {"pixel_um": f"its planes say {different[0]:g} um and {different[1]:g} um"} if len(different) > 1 else {},
        )

    def plane(self, channel: int, z: int) -> NDArray[Any]:
        """Read the pixels (y, x) of one plane."""
        entry = self._planes[self._channels[channel], self._z_values[z]]
        with (self._index.parent / entry.file).open("rb") as file:
            dtype = np.dtype(_DTYPES[entry.kind]).newbyteorder("<" if file.read(2) == b"II" else ">")
            file.seek(entry.offset)
            return np.fromfile(file, dtype, entry.height * entry.width).reshape(entry.height, entry.width)

    def metadata(self, channel: int, z: int) -> Facts:
        """What was recorded beside one plane."""
        return of_micromanager(self._tags(self._planes[self._channels[channel], self._z_values[z]]))

    def close(self) -> None:
        """Nothing stays open."""

    def _read_index(self) -> None:
        for entry in _entries(self._index):
            axes = entry.axes
            if all(str(axes.get(name)) == str(value) for name, value in self._chosen.items()):
                self._add(entry, {name: value for name, value in axes.items() if name not in self._chosen})
        if not self._planes:
            chosen = ", ".join(f"{name}={value}" for name, value in self._chosen.items())
            what = f"its index names no plane {chosen and f'with {chosen}'}".rstrip()
            raise StackError(what, where=str(self._path), do="correct the path, or record the well again")

    def _add(self, entry: Entry, axes: Axes) -> None:
        others = {name: value for name, value in axes.items() if name not in _OURS}
        channel = str(axes.get("channel", ""))
        try:
            z = int(axes.get("z", 0))
        except (ValueError, TypeError, OverflowError):
            what = f"its index has a plane at z {axes.get('z')!r}"
            raise StackError(what, where=str(self._path), do="record slices that are numbered") from None
        if entry.kind not in _DTYPES or entry.compression:
            raise StackError("its planes are colour or packed images", where=str(self._path), do="record grey images")
        if (channel, z) in self._planes:
            named = ", ".join(f"{name}={value}" for name, value in others.items()) or "the same axes"
            what = f"it holds several planes for channel {channel!r} z {z}, as {named}"
            do = f"name one: {self._path.name}/{named.replace(', ', ',')}" if others else "record the well again"
            raise StackError(what, where=str(self._path), do=do)
        self._planes[channel, z] = entry
        if channel not in self._channels:
            self._channels.append(channel)

    def _is_within(self, entry: Entry) -> bool:
        if entry.file not in self._sizes:
            try:
                self._sizes[entry.file] = check_regular(self._index.parent / entry.file)
            except OSError:
                self._sizes[entry.file] = 0
        n_bytes = self._sizes[entry.file]
        return entry.offset + entry.width * entry.height * np.dtype(_DTYPES[entry.kind]).itemsize <= n_bytes

    def _check_whole(self) -> None:
        wanted = [(channel, z) for channel in self._channels for z in self._z_values]
        missing = [key for key in wanted if key not in self._planes or not self._is_within(self._planes[key])]
        sizes = {(e.height, e.width, _DTYPES[e.kind]) for e in self._planes.values()}
        if len(sizes) > 1:
            raise StackError(f"its planes differ: {sorted(sizes)}", where=str(self._path), do="record planes alike")
        if missing:
            named = ", ".join(f"channel {channel!r} slice {z}" for channel, z in missing[:MAX_NAMED])
            more = ", ..." if len(missing) > MAX_NAMED else ""
            what = f"{len(missing)} of {len(wanted)} planes are missing or cut off: {named}{more}"
            raise StackError(what, where=str(self._path), do="copy it again, or record the well again")

    def _tags(self, entry: Entry) -> dict[str, Any]:
        """What was recorded beside a plane; nothing where it cannot be read, as in a file that is cut off."""
        with (self._index.parent / entry.file).open("rb") as file:
            file.seek(entry.metadata_offset)
            try:
                said = parse_json(file.read(min(entry.metadata_bytes, MAX_METADATA_BYTES)))
            except ValueError:
                return {}
        return said if isinstance(said, dict) else {}

    def _z_step_um(self) -> float | None:
        """The distance of the slices, from where the focus was sent for each; StackError where they stand unevenly."""
        steps = []
        for channel in self._channels:
            facts = {z: of_micromanager(self._tags(self._planes[channel, z])) for z in self._z_values}
            steps.append(measured_step_um(facts, None, f"{self._path}, channel {channel!r}"))
        return next((step for step in steps if step is not None), None)
