"""One slice in a file of its own, and folders of such files as recorded stacks."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from spheroidd.acquisition.images.channel_names import tell_apart
from spheroidd.acquisition.images.file_names import ImageName
from spheroidd.acquisition.images.image_metadata import Facts
from spheroidd.acquisition.images.layout import FileLayout
from spheroidd.acquisition.images.leica_names import leica_letters
from spheroidd.acquisition.images.tiff_validation import WholeTiff
from spheroidd.protocols.errors import StackError
from spheroidd.protocols.pixels import Pixels

TIFF_ENDINGS = (".tif", ".tiff")


@dataclass(frozen=True, slots=True)
class SliceRead:
    """A slice of a whole file: its pixels (y, x) per channel, and what the file says of its stack.

    `n_z` is None where the file counts no more than its own planes. `defects` can be lived with. `metadata` is what
    the file says of each channel's plane.
    """

    pixels: Mapping[str, Pixels]
    pixel_um: float | None
    z_step_um: float | None
    n_z: int | None
    defects: tuple[str, ...]
    metadata: Mapping[str, Facts]

    @property
    def channels(self) -> tuple[str, ...]:
        """The channels that the file holds, live first."""
        return tuple(sorted(self.pixels))

    @property
    def geometry(self) -> tuple[int, int, str]:
        """Height, width and dtype."""
        first = next(iter(self.pixels.values()))
        return first.shape[0], first.shape[1], first.dtype.name


def read_slice(path: Path, name: ImageName, channel_order: Sequence[str] | None = None) -> SliceRead:
    """Check the file to its last byte and read it; StackError where it is not whole or not one slice."""
    with WholeTiff(path) as tiff:
        ome = tiff.ome
        if name.channel is not None:
            if tiff.n_pages != 1:
                what = f"it holds {tiff.n_pages} planes, and its name says one channel of one slice"
                raise StackError(what, where=str(path), do="correct source.pattern, or export one plane a file")
            pages = {name.channel: 0}
        else:
            names = ome.channel_names if ome else ()
            layout = FileLayout(tiff.n_pages, 1, tiff.height, tiff.width, tiff.dtype, names)
            pages = tell_apart(path, layout, channel_order).channels
        pixels = {channel: tiff.page(page) for channel, page in pages.items()}
        metadata = {channel: tiff.metadata(page) for channel, page in pages.items()}
        if ome is None:
            return SliceRead(pixels, None, None, None, (), metadata)
        n_z = ome.n_z if ome.n_z > 1 else None
        return SliceRead(pixels, ome.pixel_um, ome.z_step_um, n_z, ome.defects, metadata)


_SLICE = re.compile(r"(?:^|[^a-z])z(?:slice)?[-_=]?(\d+)", re.IGNORECASE)
_NUMBERED = re.compile(r"(?:^|[^a-z])c(?:h|hannel)?[-_=]?(\d+)", re.IGNORECASE)


class PlaneFolder:
    """A folder of planes as one stack: Matrix Screener's field folders, Micro-Manager's image folders
    (img_channel000_..._z000.tif), and others whose names say z and channel the same way.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._files: dict[tuple[int, int], Path] = {}
        self._metadata: dict[tuple[int, int], Facts] = {}
        for file in sorted(path.iterdir()):
            if file.name.lower().endswith(TIFF_ENDINGS) and not file.name.startswith("."):
                self._take(file)
        if not self._files:
            do = "give a folder of .tif planes whose names say Z and C, as image--...--Z00--C00.ome.tif"
            raise StackError("no file in it is a plane of a stack", where=str(path), do=do)
        channels = sorted({channel for channel, _ in self._files})
        z_values = sorted({z for _, z in self._files})
        self._channels, self._z_values = channels, range(z_values[0], z_values[-1] + 1)
        missing = [(c, z) for c in channels for z in self._z_values if (c, z) not in self._files]
        if missing:
            what = f"{len(missing)} of its planes are missing, the first is channel {missing[0][0]} z {missing[0][1]}"
            raise StackError(what, where=str(path), do="copy it again, or record the well again")
        self.layout = self._check()

    def plane(self, channel: int, z: int) -> NDArray[Any]:
        """Read the pixels (y, x) of one plane."""
        with WholeTiff(self._files[self._channels[channel], self._z_values[z]]) as tiff:
            return tiff.page(0)

    def metadata(self, channel: int, z: int) -> Facts:
        """What a plane's own file says of it."""
        return self._metadata[self._channels[channel], self._z_values[z]]

    def close(self) -> None:
        """Nothing stays open."""

    def _take(self, file: Path) -> None:
        said = leica_letters(file.name)
        z_named, c_named = _SLICE.search(file.name), _NUMBERED.search(file.name)
        z = said["Z"] if "Z" in said else int(z_named[1]) if z_named else None
        if z is None:
            return
        channel = said["C"] if "C" in said else int(c_named[1]) if c_named else 0
        if (channel, z) in self._files:
            what = f"{self._files[channel, z].name} and {file.name} are both channel {channel} z {z}"
            raise StackError(what, where=str(self._path), do="give a folder with one stack")
        self._files[channel, z] = file

    def _check(self) -> FileLayout:
        """Every file is whole and like the first; what most of them say of the voxel holds."""
        shapes: Counter[tuple[int, int, str]] = Counter()
        pixel_um = z_step_um = None
        for plane, file in self._files.items():
            with WholeTiff(file) as tiff:
                self._metadata[plane] = tiff.metadata(0)
                shapes[tiff.height, tiff.width, tiff.dtype] += 1
                if tiff.n_pages != 1:
                    do = "give the path of a stack's file itself"
                    raise StackError(f"it holds {tiff.n_pages} planes", where=str(file), do=do)
                if tiff.ome is not None:
                    pixel_um, z_step_um = pixel_um or tiff.ome.pixel_um, z_step_um or tiff.ome.z_step_um
        if len(shapes) > 1:
            raise StackError(f"its planes differ: {sorted(shapes)}", where=str(self._path), do="give planes alike")
        height, width, dtype = next(iter(shapes))
        names = tuple(f"channel {number}" for number in self._channels)
        return FileLayout(len(self._channels), len(self._z_values), height, width, dtype, names, pixel_um, z_step_um)
