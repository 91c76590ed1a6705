"""The one way to write a whole file: a reader meets the old one or the new one, and a power cut halves neither.

It stands with the nouns because acquisition, inference and the emulator may import nothing else in common, and because
it needs only the standard library.
"""

import contextlib
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

PARTIAL = ".partial"  # what an interrupted write leaves behind; never read
_REPLACE_ATTEMPTS, _REPLACE_PAUSE_S = 50, 0.02  # a Windows reader that holds the old file lets go within a second
_ON_WINDOWS = os.name == "nt"


def write_atomically(path: Path, data: bytes, *, private: bool = False) -> None:
    """Write a whole file; after return it is durable. An OSError names `path` and leaves the old file as it was.

    A `private` one can be read by its owner alone, from its first byte on (where the system knows owners).
    """
    with replacing(path, private=private) as partial, partial.open("wb") as file:
        file.write(data)


@contextlib.contextmanager
def replacing(path: Path, *, private: bool = False) -> Iterator[Path]:
    """For a writer that needs a name: what it wrote to the one that it is given becomes `path`, durably, at the end.

    An error within leaves the old file as it was and nothing beside it; an OSError names `path`. The name is this
    call's own, so that two threads or programs may write the same file: the last one to end stays.
    """
    partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}{PARTIAL}")
    try:
        os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if private else 0o666))
        yield partial
        sync_file(partial)
        replace_path(partial, path)
        sync_directory(path.parent)
    except OSError as error:
        if error.filename is not None and Path(os.fsdecode(error.filename)) == partial:
            error.filename = str(path)
        raise
    finally:
        with contextlib.suppress(OSError):  # the first error is the one to tell
            partial.unlink(missing_ok=True)


def replace_path(source: Path, target: Path) -> None:
    """Rename over the target, patient with Windows readers that hold it open for a moment."""
    for attempt in range(_REPLACE_ATTEMPTS):
        try:
            source.replace(target)
        except PermissionError:
            if not _ON_WINDOWS or attempt == _REPLACE_ATTEMPTS - 1:
                raise
            time.sleep(_REPLACE_PAUSE_S)
        else:
            return


def sync_file(path: Path) -> None:
    """Make the content of a file that was written before durable."""
    fd = os.open(path, os.O_RDWR)  # Windows flushes only what may be written to
    try:
        sync_data(fd)
    finally:
        os.close(fd)


sync_data = getattr(os, "fdatasync", os.fsync)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable. Windows has no such call; its journal keeps names in order."""
    if _ON_WINDOWS:
        return
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
