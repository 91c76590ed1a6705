"""Which reader opens which file: one row a format, chosen by the name's ending and by what lies in a folder."""

from collections.abc import Iterable
from pathlib import Path

from spheroidd.acquisition.images.file_kind import check_metadata_files, check_regular
from spheroidd.acquisition.images.layout import StackFile
from spheroidd.acquisition.images.npy import NpyFile
from spheroidd.protocols.errors import StackError


def open_file(path: Path, *, growing: bool = False) -> StackFile:
    """Open a recorded file by its name's ending; StackError says what is missing in it.

    A LIF or an NDTiff data set with several stacks is a folder of them: "plate.lif/TileScan 1/A01",
    "screen_1/position=A01". With `growing` an OME-Zarr is a GrowingFile; all else is opened whole or not at all.
    """
    container, inside = _container(path)
    series, chosen = _inside(inside)
    name = container.name.lower()
    try:
        if not container.is_dir():
            check_regular(container)
        if name.endswith(_LIF):
            from spheroidd.acquisition.images.lif import LifStack

            return LifStack(container, series, chosen)
        if container.is_dir() and is_ndtiff(entry.name for entry in container.iterdir()):
            from spheroidd.acquisition.images.ndtiff import NDTiffFile

            return NDTiffFile(container, chosen)
        if name.endswith((".tif", ".tiff", ".btf", ".tf8")):
            if (container.parent / "NDTiff.index").is_file():
                return _part_of_ndtiff(container, chosen)
            from spheroidd.acquisition.images.tiff.reader import open_tiff

            return open_tiff(container, series, chosen)
        if inside:
            raise StackError("there is no such file", where=str(path), do="check the path in the plate map")
        if path.is_dir() and not ((path / "zarr.json").exists() or (path / ".zattrs").exists()):
            from spheroidd.acquisition.images.plane_folder import PlaneFolder

            return PlaneFolder(path)
        if name.endswith(".zarr") or path.is_dir():
            from spheroidd.acquisition.images.ome.zarr import ZarrFile
            from spheroidd.acquisition.images.stored_stack import OwnZarrFile, is_own

            check_metadata_files(path)
            if not growing and is_own(path):
                return OwnZarrFile(path)
            return ZarrFile(path, growing=growing)
        if name.endswith(".npy"):
            return NpyFile(path)
    except StackError:
        raise
    except OSError as error:
        raise StackError(f"cannot be read: {error}", where=str(path), do="check the file and its rights") from error
    except Exception as error:  # whatever a damaged or hostile file makes a reader raise, it fails this stack alone
        what = f"cannot be read: {type(error).__name__} {error}"[:MAX_LETTERS]
        raise StackError(what, where=str(path), do="copy it again, or record the well again") from error
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
    except StackError:
        raise
    except OSError as error:
        raise StackError(f"cannot be read: {error}", where=str(container), do="check its rights") from error
    except Exception as error:  # as in `open_file`
        what = f"cannot be read: {type(error).__name__} {error}"[:MAX_LETTERS]
        raise StackError(what, where=str(container), do="copy it again") from error


MAX_LETTERS = 500  # of an error's text: some quote the whole file


def _part_of_ndtiff(path: Path, chosen: dict[str, int | str]) -> StackFile:
    """The stack of an NDTiff data set that was named by the file with its pixels."""
    from spheroidd.acquisition.images.ndtiff import NDTiffFile, list_files

    files = list_files(path.parent)
    if files == [path.name]:
        return NDTiffFile(path.parent, chosen)
    what = f"it is one of {len(files)} files of an NDTiff data set" if path.name in files else "it is not in its index"
    raise StackError(what, where=str(path), do=f"write the data set's folder into the plate map: {path.parent.name}")


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
