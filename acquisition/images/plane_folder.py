"""One slice in a file of its own, and folders of such files as recorded stacks."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from spheroidd.acquisition.images.layout import FileLayout
from spheroidd.acquisition.images.metadata.channel_names import tell_apart
from spheroidd.acquisition.images.metadata.image_metadata import Facts
from spheroidd.acquisition.images.metadata.units import agree
from spheroidd.acquisition.images.names.files import ImageName
from spheroidd.acquisition.images.names.planes import PlaneNameError, PlaneNames, read_plane_names
from spheroidd.acquisition.images.ome.description import OmeImage
from spheroidd.acquisition.images.tiff.validation import WholeTiff
from spheroidd.protocols.errors import StackError
from spheroidd.protocols.pixels import Pixels

TIFF_ENDINGS = (".tif", ".tiff")
MAX_NAMED = 5  # planes in one message


@dataclass(frozen=True, slots=True)
class SliceRead:
    """A slice of a whole file: its pixels (y, x) per channel, and what the file says of its stack.

    `n_z` is None where the file counts no more than its own planes. `defects` can be lived with. `metadata` is what
    the file says of each channel's plane, `doubt` what a person should know of how channels were distinguished.
    """

    pixels: Mapping[str, Pixels]
    pixel_um: float | None
    z_step_um: float | None
    n_z: int | None
    defects: tuple[str, ...]
    metadata: Mapping[str, Facts]
    doubt: str = ""

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
        ome, doubt = tiff.ome, ""
        if name.channel is not None:
            if tiff.n_pages != 1:
                what = f"it holds {tiff.n_pages} planes, and its name says one channel of one slice"
                raise StackError(what, where=str(path), do="correct source.pattern, or export one plane a file")
            pages = {name.channel: 0}
        else:
            names = ome.channel_names if ome else ()
            layout = FileLayout(tiff.n_pages, 1, tiff.height, tiff.width, tiff.dtype, names)
            found = tell_apart(path, layout, channel_order)
            pages, doubt = found.channels, found.doubt
        pixels = {channel: tiff.page(page) for channel, page in pages.items()}
        metadata = {channel: tiff.metadata(page) for channel, page in pages.items()}
        if ome is None:
            return SliceRead(pixels, None, None, None, (), metadata, doubt)
        n_z = ome.n_z if ome.n_z > 1 else None
        return SliceRead(pixels, ome.pixel_um, ome.z_step_um, n_z, ome.defects, metadata, doubt)


class PlaneFolder:
    """A folder of planes as one stack: Matrix Screener's field folders, Micro-Manager's image folders
    (img_channel000_..._z000.tif), and others whose names say z and channel the same way.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._metadata: dict[tuple[int, int], Facts] = {}
        names = [entry.name for entry in sorted(path.iterdir())]
        try:
            said = read_plane_names([n for n in names if n.lower().endswith(TIFF_ENDINGS) and not n.startswith(".")])
        except PlaneNameError as error:
            raise StackError(str(error), where=str(path), do="give a folder with one stack") from error
        self._files = {plane: path / name for plane, name in said.files.items()}
        if not self._files:
            do = "give a folder of .tif planes whose names say Z and C, as image--...--Z00--C00.ome.tif"
            raise StackError("no file in it is a plane of a stack", where=str(path), do=do)
        channels = sorted({channel for channel, _ in self._files})
        z_values = sorted({z for _, z in self._files})
        self._channels, self._z_values = channels, range(z_values[0], z_values[-1] + 1)
        n_missing = len(channels) * len(self._z_values) - len(self._files)
        if n_missing:
            wanted = ((c, z) for c in channels for z in self._z_values if (c, z) not in self._files)
            named = ", ".join(f"channel {c} z {z}" for c, z in islice(wanted, MAX_NAMED))
            what = f"{n_missing} of its planes are missing: {named}{', ...' if n_missing > MAX_NAMED else ''}"
            raise StackError(what, where=str(path), do="copy it again, or record the well again")
        self.layout = self._check(said)

    def plane(self, channel: int, z: int) -> NDArray[Any]:
        """Read the pixels (y, x) of one plane."""
        with WholeTiff(self._files[self._channels[channel], self._z_values[z]]) as tiff:
            return tiff.page(0)

    def metadata(self, channel: int, z: int) -> Facts:
        """What a plane's own file says of it."""
        return self._metadata[self._channels[channel], self._z_values[z]]

    def close(self) -> None:
        """Nothing stays open."""

    def _check(self, said: PlaneNames) -> FileLayout:
        """Every file is whole, like the first, and says nothing of the stack that the others do not."""
        shapes: Counter[tuple[int, int, str]] = Counter()
        lengths: dict[str, dict[float, None]] = {"pixel_um": {}, "z_step_um": {}}
        for plane, file in self._files.items():
            with WholeTiff(file) as tiff:
                self._metadata[plane] = tiff.metadata(0)
                shapes[tiff.height, tiff.width, tiff.dtype] += 1
                if tiff.n_pages != 1:
                    do = "give the path of a stack's file itself"
                    raise StackError(f"it holds {tiff.n_pages} planes", where=str(file), do=do)
                self._check_counted(tiff.ome, file)
                for name, of in lengths.items():
                    um = getattr(tiff.ome, name, None)
                    of |= {} if um is None else {um: None}
        if len(shapes) > 1:
            raise StackError(f"its planes differ: {sorted(shapes)}", where=str(self._path), do="give planes alike")
        height, width, dtype = next(iter(shapes))
        pixel_um, z_step_um = (next(iter(of), None) for of in lengths.values())
        conflicts = {
            name: "its planes say " + " and ".join(f"{um:g} um" for um in list(of)[:MAX_NAMED])
            for name, of in lengths.items()
            if of and not agree(min(of), max(of))
        }
        n_channels, n_z, names = len(self._channels), len(self._z_values), tuple(said.words[c] for c in self._channels)
        return FileLayout(n_channels, n_z, height, width, dtype, names, pixel_um, z_step_um, conflicts, said.doubts)

    def _check_counted(self, ome: OmeImage | None, file: Path) -> None:
        """A plane's own OME-XML may count the slices of its stack."""
        if ome is not None and ome.n_z > 1 and ome.n_z != len(self._z_values):
            what = f"its OME-XML counts {ome.n_z} slices, and the folder holds {len(self._z_values)}"
            raise StackError(what, where=str(file), do="copy the folder again, or record the well again")
