"""Images that survive a power cut and give way to arriving slices. All other files: `spheroidd.protocols.durable`."""

import contextlib
import errno
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from spheroidd.acquisition.disk.disk_priority import RightOfWay
from spheroidd.protocols.durable import PARTIAL, replace_path, sync_data, sync_directory, sync_file
from spheroidd.protocols.errors import GOES_ON, QUOTA_WORDS, NoRoomError, StorageError

UNCACHED_BYTES = 1 << 16  # what is smaller is read again too soon to be worth it
PIECE_BYTES = 1 << 19  # what is given to the disk at a time where slices go first: a few milliseconds of its time
_RWF_DONTCACHE = 0x80  # Linux 6.14: the pages that a write took are free again as soon as they are on disk


@contextlib.contextmanager
def storage_errors(where: Path | str) -> Iterator[None]:
    """Turn an OSError into a StorageError that says what to do."""
    try:
        yield
    except OSError as error:
        place = str(error.filename or where)
        if error.errno == errno.EDQUOT:
            raise NoRoomError(QUOTA_WORDS[0], where=place, do=QUOTA_WORDS[1]) from error
        if error.errno in (errno.ENOSPC, errno.EFBIG):
            do = f"free some space; {GOES_ON}"
            raise NoRoomError("the disk is full", where=place, do=do) from error
        if isinstance(error, PermissionError) or error.errno == errno.EROFS:
            what, do = "no right to write", "give the account that runs this write access"
        elif error.errno in (errno.EMFILE, errno.ENFILE):
            what, do = "too many files are open", "close other programs, or let this account open more (ulimit -n)"
        elif isinstance(error, NotADirectoryError | FileExistsError | IsADirectoryError):
            what, do = "a file stands where a folder has to be, or a folder where a file has to", "move it elsewhere"
        else:
            what, do = f"the disk reports: {error.strerror or error}", "check the disk and its cable or network"
        raise StorageError(what, where=place, do=do) from error


def sync_tree(top: Path) -> None:
    """Make everything in a folder and below durable: first all content, then, cheap by now, all names."""
    paths = sorted(top.rglob("*"))
    for path in paths:
        if not path.is_dir():
            sync_file(path)
    for folder in (*(path for path in paths if path.is_dir()), top):
        sync_directory(folder)


def write_durably(
    path: Path, parts: Iterable[bytes], *, sync: bool = True, right_of_way: RightOfWay | None = None
) -> None:
    """Write a whole file: readers see the old one or the new one, and after return the new one is durable.

    With `sync=False` it is atomic for readers only, until `sync_file`. An OSError leaves the old file as it was.
    With a `right_of_way` it is written in pieces that give way to slices, or in a hurry past the system's cache, whose
    new pages would cost more than all else.
    """
    way = right_of_way or RightOfWay()
    partial = path.with_name(f"{path.name}.{threading.get_native_id()}{PARTIAL}")  # two threads may be at one file
    try:
        with partial.open("wb", buffering=0) as file:
            for piece in _pieces(parts):
                with way.turn() as gives_way:
                    for part in piece:
                        write_all(file.fileno(), part, cached=right_of_way is None or gives_way)
                    if gives_way:
                        sync_data(file.fileno())
            if not gives_way:
                _sync_or_begin(file.fileno(), sync=sync)
        with way.turn():
            replace_path(partial, path)
            if sync:
                sync_directory(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):  # the first error is the one to tell; recovery removes leftovers too
            partial.unlink(missing_ok=True)
        raise


def _sync_or_begin(fd: int, *, sync: bool) -> None:
    if sync:
        sync_data(fd)
    elif hasattr(os, "posix_fadvise"):  # has Linux begin to write now, so that sync_file need not wait
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)


def _pieces(parts: Iterable[bytes]) -> Iterator[list[bytes]]:
    """The parts, as many together as make a piece; at least one piece, the last of any size."""
    piece: list[bytes] = []
    n_bytes = 0
    for part in parts:
        piece.append(part)
        n_bytes += len(part)
        if n_bytes >= PIECE_BYTES:
            yield piece
            piece, n_bytes = [], 0
    yield piece


def write_all(fd: int, data: bytes, *, cached: bool = True) -> None:
    """os.write until all is written: a nearly full disk takes a part first and refuses the rest.

    What is not `cached` does not stay in the system's memory, where the system can do that.
    """
    view = memoryview(data)
    while view:
        view = view[write_some(fd, view, cached=cached or len(data) < UNCACHED_BYTES) :]


def write_some(fd: int, view: memoryview, *, cached: bool) -> int:
    """os.write, past the system's cache where that is asked for and possible."""
    if not cached and hasattr(os, "RWF_DSYNC"):  # Linux, where pwritev takes flags
        try:  # new pages cost more than all else where a virtual machine has returned its free memory: 0.3 GB/s
            return os.pwritev(fd, [view], -1, _RWF_DONTCACHE)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                raise
    return os.write(fd, view)


def make_directories(top: Path, folders: Sequence[Path]) -> None:
    """Create folders below `top` and make every name on the way durable."""
    created: dict[Path, None] = {}
    for folder in folders:
        missing = folder
        while missing != top and missing not in created and not missing.is_dir():
            created[missing] = None
            missing = missing.parent
        folder.mkdir(parents=True, exist_ok=True)
    for parent in dict.fromkeys([*(folder.parent for folder in created), *created]):
        sync_directory(parent)


def remove_partials(folder: Path) -> None:
    """Remove what interrupted writes left in a folder and below."""
    for path in folder.rglob("*" + PARTIAL):
        path.unlink(missing_ok=True)
