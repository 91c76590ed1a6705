"""What may be opened at all: regular files. A pipe would be waited for without end, a device read without end."""

import stat
from pathlib import Path

from spheroidd.protocols.errors import StackError

ZARR_METADATA = ("zarr.json", ".zgroup", ".zattrs", ".zarray", ".zmetadata")
MAX_DESCRIPTION_BYTES = 256 * 2**20  # of XML or JSON that is read whole; a real one of a whole plate has some MB


def check_regular(path: Path) -> int:
    """The size in bytes of a regular file; StackError for a pipe, a device or a socket, OSError where it is not there.

    Links are followed: what they lead to counts.
    """
    found = path.stat()
    if stat.S_ISDIR(found.st_mode):
        raise StackError("it is a directory", where=str(path), do="give the path of a file")
    if not stat.S_ISREG(found.st_mode):
        do = "put a copy of the recording in its place; pipes and devices are not opened"
        raise StackError("it is not a regular file", where=str(path), do=do)
    return found.st_size


def read_description(path: Path) -> bytes:
    """A file of XML or JSON; StackError where it is no regular file, or larger than any description is."""
    n_bytes = check_regular(path)
    if n_bytes > MAX_DESCRIPTION_BYTES:
        what = f"it has {n_bytes / 2**20:.0f} MiB, and a description has at most {MAX_DESCRIPTION_BYTES // 2**20}"
        raise StackError(what, where=str(path), do="check what wrote this file")
    return path.read_bytes()


def check_metadata_files(folder: Path) -> None:
    """StackError where a file that says what a folder holds (Zarr's, of both versions) is no regular file."""
    for name in ZARR_METADATA:
        path = folder / name
        if path.exists() and check_regular(path) > MAX_DESCRIPTION_BYTES:
            what = f"{name} has {path.stat().st_size / 2**20:.0f} MiB, and a description has at most "
            what += f"{MAX_DESCRIPTION_BYTES // 2**20}"
            raise StackError(what, where=str(folder), do="check what wrote this file")
