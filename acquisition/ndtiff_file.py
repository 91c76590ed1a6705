"""NDTiff data sets, as Micro-Manager and pycromanager write them, versions 2 and 3, finished or growing.

A plane is believed when the index names it and its bytes lie within its file; the index is written after the pixels.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tifffile.tifffile import read_ndtiff_index

from spheroidd.acquisition.stack_file import FileLayout, length_um
from spheroidd.protocols.errors import StackError

_DTYPES = {0: "uint8", 1: "uint16", 3: "uint16", 4: "uint16", 5: "uint16", 6: "uint16"}
_OURS = {"z", "channel"}
Axes = dict[str, int | str]


def index_path(folder: Path) -> Path | None:
    """The data set's index; version 2 keeps it in a folder. None where it is no data set."""
    places = (folder / "NDTiff.index", folder / "Full resolution" / "NDTiff.index")
    return next((place for place in places if place.is_file()), None)


def list_positions(folder: Path) -> list[str]:
    """A data set's positions as "position=NAME", in the order of their coming; none where it has no such axis."""
    index = index_path(folder)
    entries = read_ndtiff_index(index) if index else ()
    return list(dict.fromkeys(f"position={entry[0]['position']}" for entry in entries if "position" in entry[0]))


class NDTiffFile:
    """One stack of a data set; `chosen` names the position, time or other axis of which it is one value.

    With `n_z` it may be opened while it grows: its slices are those from 0. Use `has` then.
    """

    def __init__(self, path: Path, chosen: Axes | None = None, *, n_z: int | None = None) -> None:
        self._path, self._chosen = path, chosen or {}
        index = index_path(path)
        if index is None:
            raise StackError("it holds no NDTiff.index", where=str(path), do="give the data set's folder")
        self._index, self._growing, self._read_bytes = index, n_z is not None, -1
        self._planes: dict[tuple[str, int], tuple[Any, ...]] = {}
        self._channels: list[str] = []
        self._look()
        if not self._planes:
            raise StackError(f"its index names no plane {self._told()}", where=str(path), do="record the well again")
        first = next(iter(self._planes.values()))
        _, _, width, height, kind, _, _, _, _ = first[1:]
        self._z_values = list(range(n_z)) if n_z else sorted({z for _, z in self._planes})
        metadata = self._metadata(first)
        size = metadata.get("PixelSizeUm", metadata.get("PixelSize_um"))
        self.layout = FileLayout(
            len(self._channels),
            len(self._z_values),
            height,
            width,
            _DTYPES[kind],
            tuple(self._channels),
            length_um(size, "um"),
            self._z_step_um(),
        )
        if not self._growing:
            self._check_whole()

    def has(self, channel: int, z: int) -> bool:
        """Whether a plane is in the index by now, and its bytes in the file."""
        key = (self._channels[channel], self._z_values[z])
        if key not in self._planes:
            self._look()
        return key in self._planes and self._is_within(self._planes[key])

    def plane(self, channel: int, z: int) -> NDArray[Any]:
        """Read the pixels (y, x) of one plane."""
        entry = self._planes[self._channels[channel], self._z_values[z]]
        _, name, offset, width, height, kind, *_ = entry
        with (self._index.parent / name).open("rb") as file:
            dtype = np.dtype(_DTYPES[kind]).newbyteorder("<" if file.read(2) == b"II" else ">")
            file.seek(offset)
            return np.fromfile(file, dtype, height * width).reshape(height, width)

    def close(self) -> None:
        """Nothing stays open."""

    def _look(self) -> None:
        """Read the index where it has grown; an entry that is half written is left for the next time."""
        n_bytes = self._index.stat().st_size
        if n_bytes == self._read_bytes:
            return
        self._read_bytes = n_bytes
        self._planes.clear()
        for entry in read_ndtiff_index(self._index):
            axes = entry[0]
            if all(str(axes.get(name)) == str(value) for name, value in self._chosen.items()):
                self._add(entry, {name: v for name, v in axes.items() if name not in self._chosen})

    def _add(self, entry: tuple[Any, ...], axes: Axes) -> None:
        others = {name: value for name, value in axes.items() if name not in _OURS}
        channel, z = str(axes.get("channel", "")), int(axes.get("z", 0))
        if entry[5] not in _DTYPES or entry[6]:
            raise StackError("its planes are colour or packed images", where=str(self._path), do="record grey images")
        if (channel, z) in self._planes:
            named = ", ".join(f"{name}={value}" for name, value in others.items()) or "the same axes"
            what = f"it holds several planes for channel {channel!r} z {z}, as {named}"
            do = f"name one: {self._path.name}/{named.replace(', ', ',')}" if others else "record the well again"
            raise StackError(what, where=str(self._path), do=do)
        self._planes[channel, z] = entry
        if channel not in self._channels:
            self._channels.append(channel)

    def _is_within(self, entry: tuple[Any, ...]) -> bool:
        _, name, offset, width, height, kind, *_ = entry
        try:
            n_bytes = (self._index.parent / name).stat().st_size
        except OSError:
            return False
        return bool(offset + width * height * np.dtype(_DTYPES[kind]).itemsize <= n_bytes)

    def _check_whole(self) -> None:
        wanted = [(channel, z) for channel in self._channels for z in self._z_values]
        missing = [key for key in wanted if key not in self._planes or not self._is_within(self._planes[key])]
        sizes = {(e[3], e[4], _DTYPES[e[5]]) for e in self._planes.values()}
        if len(sizes) > 1:
            raise StackError(f"its planes differ: {sorted(sizes)}", where=str(self._path), do="record planes alike")
        if missing:
            what = f"{len(missing)} of {len(wanted)} planes are missing or cut off, the first is channel "
            what += f"{missing[0][0]!r} z {missing[0][1]}"
            raise StackError(what, where=str(self._path), do="copy it again, or record the well again")

    def _metadata(self, entry: tuple[Any, ...]) -> dict[str, Any]:
        with (self._index.parent / entry[1]).open("rb") as file:
            file.seek(entry[7])
            try:
                said = json.loads(file.read(entry[8]))
            except ValueError:  # of a file that is cut off; its planes will be found missing
                return {}
        return said if isinstance(said, dict) else {}

    def _z_step_um(self) -> float | None:
        """The distance of two slices that stand side by side, from where the focus was sent."""
        by_z = {z: entry for (_, z), entry in self._planes.items()}
        pair = next(((z, z + 1) for z in sorted(by_z) if z + 1 in by_z), None)
        if pair is None:
            return None
        at = [self._metadata(by_z[z]).get("ZPosition_um_Intended") for z in pair]
        if not all(isinstance(z_um, int | float) for z_um in at):
            return None
        return length_um(abs(at[1] - at[0]), "um")  # type: ignore[operator]  # they are numbers

    def _told(self) -> str:
        return "with " + ", ".join(f"{n}={v}" for n, v in self._chosen.items()) if self._chosen else "yet"
