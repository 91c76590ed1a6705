"""Recorded stacks, read plane by plane: the only module that knows which channel of a file is which.

TIFF is `tiff_file`, OME-Zarr `zarr_file` (what this program stored `own_zarr_file`), LIF `lif_file`, NDTiff
`ndtiff_file`, folders of planes `plane_file`; NumPy's .npy is here. A file is checked whole before its first plane is
given out, because the readers themselves give zeros or fewer planes for a damaged one.
"""

import re
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self, cast, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from spheroidd.protocols.errors import StackError
from spheroidd.protocols.stack import CHANNELS, DEAD_CHANNEL, LIVE_CHANNEL, Pixels, SliceIndex


@dataclass(frozen=True, slots=True)
class FileLayout:
    """What one file holds, as its metadata say; voxel sizes are None where they do not (0 counts as not said)."""

    n_channels: int
    n_z: int
    height: int
    width: int
    dtype: str
    channel_names: tuple[str, ...] = ()
    pixel_um: float | None = None
    z_step_um: float | None = None


class StackFile(Protocol):
    """One open file. Opening raises StackError where anything in it is missing or cannot be used."""

    layout: FileLayout

    def plane(self, channel: int, z: int) -> NDArray[Any]:
        """Read the pixels (y, x) of one plane."""
        ...

    def metadata(self, channel: int, z: int) -> Mapping[str, float | str]:
        """What the file says of one plane, under the names of `image_facts`; nothing where it says nothing."""
        ...

    def close(self) -> None:
        """Let the file go; may be called twice."""
        ...


@runtime_checkable
class GrowingFile(Protocol):
    """A StackFile that may be opened before it is whole; its layout is known from the first moment."""

    def has(self, channel: int, z: int) -> bool:
        """Whether a plane is whole by now; asks the disk again."""
        ...


@runtime_checkable
class CheckedFile(Protocol):
    """A StackFile that knows each plane's checksum from when it was stored."""

    def crc32c(self, channel: int, z: int) -> int:
        """The crc32c of a plane's bytes in C order."""
        ...


@runtime_checkable
class LedgerFile(Protocol):
    """A StackFile of whose planes a ledger beside it says more than their pixels."""

    def unread(self) -> StackError | None:
        """Why that ledger, which is there, cannot be read; None where it can, or where there is none."""
        ...


class NpyFile:
    """A .npy array, (z, y, x), (channel, z, y, x) or (z, channel, y, x), where the
    channel is the axis of length 1 or 2."""

    def __init__(self, path: Path) -> None:
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise StackError(f"not a whole .npy file: {error}", where=str(path), do="copy the file again") from error
        self._array = _channel_first(path, array)
        n_channels, n_z, height, width = self._array.shape
        self.layout = FileLayout(n_channels, n_z, height, width, dtype_name(path, array.dtype))

    def plane(self, channel: int, z: int) -> NDArray[Any]:
        """Read the pixels (y, x) of one plane."""
        pixels: NDArray[Any] = self._array[channel, z]
        return pixels

    def metadata(self, channel: int, z: int) -> dict[str, float | str]:
        """Nothing: the format has no place for it."""
        return {}

    def close(self) -> None:
        """Let the file go; may be called twice."""
        del self._array
        self._array = np.empty((0, 0, 0, 0))


def _channel_first(path: Path, array: NDArray[Any]) -> NDArray[Any]:
    if array.ndim == 3:
        return array[np.newaxis]
    if array.ndim == 4 and array.shape[0] <= len(CHANNELS):
        return array
    if array.ndim == 4 and array.shape[1] <= len(CHANNELS):
        return np.moveaxis(array, 1, 0)
    raise StackError(f"its shape is {array.shape}", where=str(path), do="save (z, y, x) or (channel, z, y, x)")


def dtype_name(path: Path, dtype: np.dtype[Any]) -> str:
    """Return "uint8" or "uint16" whatever the byte order; StackError for any other."""
    if dtype.name in ("uint8", "uint16"):
        return dtype.name
    raise StackError(
        f"its pixels are {dtype.name}, and only uint8 and uint16 can be read",
        where=str(path),
        do="save it as uint16 (whole numbers from 0 to 65535 keep their values)",
    )


def open_file(path: Path, *, growing: bool = False) -> StackFile:
    """Open a recorded file by its name's ending; StackError says what is missing in it.

    A LIF or an NDTiff data set with several stacks is a folder of them: "plate.lif/TileScan 1/A01",
    "screen_1/position=A01". With `growing` an OME-Zarr is a GrowingFile; all else is opened whole or not at all.
    """
    container, inside = _container(path)
    series, chosen = _inside(inside)
    name = container.name.lower()
    try:
        if name.endswith(_LIF):
            from spheroidd.acquisition.images.lif import LifStack

            return LifStack(container, series, chosen)
        if container.is_dir() and is_ndtiff(entry.name for entry in container.iterdir()):
            from spheroidd.acquisition.images.ndtiff import NDTiffFile

            return NDTiffFile(container, chosen)
        if inside:
            raise StackError("there is no such file", where=str(path), do="check the path in the plate map")
        if name.endswith((".tif", ".tiff", ".btf", ".tf8")):
            from spheroidd.acquisition.images.tiff import TiffFile

            return TiffFile(path)
        if path.is_dir() and not ((path / "zarr.json").exists() or (path / ".zattrs").exists()):
            from spheroidd.acquisition.images.plane_folder import PlaneFolder

            return PlaneFolder(path)
        if name.endswith(".zarr") or path.is_dir():
            from spheroidd.acquisition.images.ome_zarr import ZarrFile
            from spheroidd.acquisition.images.stored_stack import OwnZarrFile, is_own

            if not growing and is_own(path):
                return OwnZarrFile(path)
            return ZarrFile(path, growing=growing)
        if name.endswith(".npy"):
            return NpyFile(path)
    except OSError as error:
        raise StackError(f"cannot be read: {error}", where=str(path), do="check the file and its rights") from error
    do = "use .tif, .ome.zarr, .lif, .xlef, .npy, an NDTiff data set, or a folder of planes"
    raise StackError("not a kind of file that can be replayed", where=str(path), do=do)


def list_stacks(container: Path) -> list[str]:
    """What `open_file` calls the stacks of a LIF or an NDTiff data set; StackError where it cannot be read by now."""
    try:
        if is_container(container.name):
            from spheroidd.acquisition.images.lif import list_series

            return list_series(container)
        from spheroidd.acquisition.images.ndtiff import list_positions

        return list_positions(container)
    except OSError as error:
        raise StackError(f"cannot be read: {error}", where=str(container), do="check its rights") from error


_LIF = (".lif", ".xlef", ".xlif", ".lof")


def is_container(path: str, names: Iterable[str] = ()) -> bool:
    """Whether it may hold several stacks: a LIF by its ending, an NDTiff folder by the names in it."""
    return path.lower().endswith(_LIF) or is_ndtiff(names)


def is_data_set(names: Iterable[str]) -> bool:
    """Whether a folder with these names in it is one thing: an NDTiff data set or a Zarr group."""
    names = set(names)
    return is_ndtiff(names) or not {"zarr.json", ".zattrs"}.isdisjoint(names)


def is_ndtiff(names: Iterable[str]) -> bool:
    """Whether a folder with these names in it is an NDTiff data set, of version 3 or 2."""
    return not {"NDTiff.index", "Full resolution"}.isdisjoint(names)


def _container(path: Path) -> tuple[Path, str]:
    """The file or folder that exists, and what of the path lies inside it."""
    for container in (path, *path.parents):
        if container.exists():
            inside = path.relative_to(container).as_posix()
            if inside != "." and container.is_dir() and not is_ndtiff(entry.name for entry in container.iterdir()):
                break
            return container, "" if inside == "." else inside
    raise StackError("there is no such file", where=str(path), do="check the path in the plate map")


def _inside(inside: str) -> tuple[str, dict[str, int | str]]:
    """The series' name, and the values of axes that are said at its end as "T=0,position=A01"."""
    series, _, last = inside.rpartition("/")
    if "=" not in last:
        return inside, {}
    chosen: dict[str, int | str] = {}
    for part in last.split(","):
        axis, _, value = part.partition("=")
        chosen[axis.strip()] = value.strip()
    return series, chosen


_NAMED = {
    LIVE_CHANNEL: re.compile(r"(?<!\d)488(?!\d)|calcein|\blive\b", re.IGNORECASE),
    DEAD_CHANNEL: re.compile(r"(?<!\d)561(?!\d)|propidium|\bdead\b", re.IGNORECASE),
}


class RecordedStack:
    """One well's recorded stack: one file with all channels, or one file for each.

    `paths` is keyed by channel ("488", "561") or by "" for one file. `assignment` says how its channels were told
    apart. Use it in a `with` statement.
    """

    def __init__(self, paths: Mapping[str, Path], *, growing: bool = False) -> None:
        with ExitStack() as opened:
            self._planes: dict[str, tuple[StackFile, int]] = {}
            self.assignment = "one file for each channel"
            for key, path in paths.items():
                file = open_file(path, growing=growing)
                opened.callback(file.close)
                if key:
                    self._planes[key] = (file, _only_channel(path, file.layout, key))
                else:
                    found, self.assignment = tell_apart(path, file.layout)
                    self._planes |= {channel: (file, at) for channel, at in found.items()}
            self.channels = tuple(channel for channel in CHANNELS if channel in self._planes)
            self._check_alike(paths)
            self._opened = opened.pop_all()
        first = self._planes[self.channels[0]][0].layout
        self.n_z, self.height, self.width, self.dtype = first.n_z, first.height, first.width, first.dtype
        self.pixel_um = self._said("pixel_um")
        self.z_step_um = self._said("z_step_um")

    def _said(self, name: str) -> float | None:
        sizes = (getattr(file.layout, name) for file, _ in self._planes.values())
        return next((cast(float, size) for size in sizes if size is not None), None)

    def _check_alike(self, paths: Mapping[str, Path]) -> None:
        shapes = {
            channel: (file.layout.n_z, file.layout.height, file.layout.width, file.layout.dtype)
            for channel, (file, _) in self._planes.items()
        }
        if len(set(shapes.values())) > 1:
            what = "its channels differ: " + ", ".join(f"{channel} is {shape}" for channel, shape in shapes.items())
            where = ", ".join(str(path) for path in paths.values())
            raise StackError(what, where=where, do="give two recordings of the same stack")

    def plane(self, index: SliceIndex) -> Pixels:
        """Read one plane (y, x), uint8 or uint16, in memory of its own; StackError where its data are damaged."""
        file, channel = self._planes[index.channel]
        try:
            pixels = file.plane(channel, index.z)
        except StackError:
            raise
        except Exception as error:  # decoders raise what they like; none of it may end the plate
            what = f"channel {index.channel} z {index.z} cannot be decoded: {error}"
            raise StackError(what, do="record or copy the file again") from error
        return np.array(pixels, dtype=self.dtype, order="C")

    def metadata(self, index: SliceIndex) -> Mapping[str, float | str]:
        """What the files say of one plane, under the names of `image_facts`; nothing where they say nothing."""
        file, channel = self._planes[index.channel]
        return file.metadata(channel, index.z)

    def unread(self) -> StackError | None:
        """Why nothing is known of its images but their pixels, where the recording has a ledger; None where it is."""
        files = (file for file, _ in self._planes.values())
        return next((why for file in files if isinstance(file, LedgerFile) and (why := file.unread())), None)

    def crc32c(self, index: SliceIndex) -> int | None:
        """The checksum that a plane was stored with; None where the recording has none."""
        file, channel = self._planes[index.channel]
        return file.crc32c(channel, index.z) if isinstance(file, CheckedFile) else None

    def has(self, index: SliceIndex) -> bool:
        """Whether a plane is whole by now; always so for a file that is not growing."""
        file, channel = self._planes[index.channel]
        return file.has(channel, index.z) if isinstance(file, GrowingFile) else True

    def close(self) -> None:
        """Let the files go; may be called twice."""
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _only_channel(path: Path, layout: FileLayout, channel: str) -> int:
    """Which plane of a file that was given for one channel."""
    if layout.n_channels == 1:
        return 0
    named = _named(layout)[channel]
    if len(named) == 1:
        return named[0]
    what = f"it holds {layout.n_channels} channels, and none or several say {channel}"
    raise StackError(what, where=str(path), do="give a file with one channel, or put the file under path")


def tell_apart(path: Path, layout: FileLayout) -> tuple[dict[str, int], str]:
    """Which channel of one file is which, and how that was told: by name, else live first and dead second."""
    named = {channel: at[0] for channel, at in _named(layout).items() if len(at) == 1}
    if len(named) == min(layout.n_channels, len(CHANNELS)) == len(set(named.values())):
        return named, "by the channels' names in the file"
    if layout.n_channels <= len(CHANNELS):
        order = dict(zip(CHANNELS, range(layout.n_channels), strict=False))
        return order, "by their order, live (488) first: the file does not name them"
    what = f"it holds {layout.n_channels} channels, and their names do not say which are 488 and 561"
    raise StackError(what, where=str(path), do="give one file for each channel under path_488 and path_561")


def _named(layout: FileLayout) -> dict[str, list[int]]:
    return {
        channel: [at for at, name in enumerate(layout.channel_names) if pattern.search(name)]
        for channel, pattern in _NAMED.items()
    }


TO_UM = {"": 1.0, "um": 1.0, "µm": 1.0, "μm": 1.0, "micron": 1.0, "microns": 1.0, "micrometer": 1.0, "micrometre": 1.0}
TO_UM |= {"nm": 1e-3, "nanometer": 1e-3, "pm": 1e-6, "å": 1e-4, "angstrom": 1e-4, "inch": 25400.0, "in": 25400.0}
TO_UM |= {"mm": 1e3, "millimeter": 1e3, "cm": 1e4, "centimeter": 1e4, "m": 1e6, "meter": 1e6}


def length_um(size: float | str | None, unit: str | None) -> float | None:
    """A length in micrometres; None where it is missing, 0, not a number, or in a unit that is none ("pixel").

    >>> length_um("125", "nm"), length_um(0.0, "µm"), length_um(1, "pixel"), length_um("0.5", None)
    (0.125, None, None, 0.5)
    """
    try:
        value = float(size or 0.0) * TO_UM[(unit or "").strip().lower()]
    except (ValueError, KeyError):
        return None
    return value if np.isfinite(value) and value > 0 else None


def square_pixel_um(path: Path, y_um: float | None, x_um: float | None) -> float | None:
    """The one pixel size of both axes, None where either is unknown; StackError where they differ by over 1 %."""
    if y_um is None or x_um is None:
        return None
    if abs(y_um - x_um) > 0.01 * x_um:
        what = f"its pixels are {x_um} um wide and {y_um} um high"
        raise StackError(what, where=str(path), do="resample it to square pixels")
    return x_um
