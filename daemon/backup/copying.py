"""One file from one disk to another: read once, its digest taken on the way, durable under its name or not there."""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from spheroidd.acquisition.disk.durable_file import storage_errors, write_all
from spheroidd.daemon.backup.index import Held
from spheroidd.protocols.durable import replace_path, replacing
from spheroidd.protocols.errors import StorageError

PIECE_BYTES = 1 << 20


class SourceUnreadableError(StorageError):
    """A file that is to be copied cannot be read; `gone` where it only went away meanwhile."""

    def __init__(self, error: OSError, source: Path) -> None:
        do = "check this disk; copy what can be read to another one"
        super().__init__(f"cannot be read: {error.strerror or error}", where=str(source), do=do)
        self.gone = isinstance(error, FileNotFoundError)


Fill = Callable[[Path, Path], None]
"""Writes the content of the first path to the second."""


def digest_of(path: Path) -> str:
    """The digest of a file's bytes, in hex. OSError where it cannot be read."""
    digest = _new()
    with path.open("rb", buffering=0) as file:
        while piece := file.read(PIECE_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def copy_file(
    source: Path, target: Path, *, fill: Fill | None = None, aside: Callable[[str], None] | None = None
) -> Held:
    """Copy a file; `aside` is told the new content's digest when the old `target` is about to be replaced.

    SourceUnreadableError where the source went away or its disk fails, StorageError where the target's does.
    """
    with _reading(source):
        before = source.stat()
    with storage_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as partial:
            digest = _copy(source, partial) if fill is None else _filled(source, partial, fill)
            size = partial.stat().st_size
            os.utime(partial, ns=(before.st_mtime_ns, before.st_mtime_ns))
            if aside is not None:
                aside(digest)
    return Held(size, before.st_mtime_ns, digest)


def put_aside(path: Path, replaced: Path, digest: str) -> None:
    """Keep content that a moment of the past still has; nothing where it is kept already."""
    keeper = replaced / digest
    if path.is_file() and not keeper.exists():
        with storage_errors(keeper):
            replaced.mkdir(exist_ok=True)
            replace_path(path, keeper)
    elif path.is_file():
        path.unlink()


def checked_copy(source: Path, target: Path, held: Held) -> bool:
    """Copy a file whose digest is known; False, and nothing at `target`, where it has other content by now."""
    try:
        made = copy_file(source, target)
    except SourceUnreadableError:
        return False
    if made.digest != held.digest:
        target.unlink()
        return False
    os.utime(target, ns=(held.mtime_ns, held.mtime_ns))
    return True


def _copy(source: Path, partial: Path) -> str:
    digest = _new()
    with _reading(source):
        file = source.open("rb", buffering=0)
    with file, partial.open("wb", buffering=0) as copy:
        while True:
            with _reading(source):
                piece = file.read(PIECE_BYTES)
            if not piece:
                return digest.hexdigest()
            digest.update(piece)
            write_all(copy.fileno(), piece)


@contextmanager
def _reading(source: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SourceUnreadableError(error, source) from error


def _filled(source: Path, partial: Path, fill: Fill) -> str:
    with _reading(source):
        fill(source, partial)
    return digest_of(partial)


def _new() -> "hashlib.blake2b":
    return hashlib.blake2b(digest_size=32)
