"""SQLite as the catalog uses it: a transaction in which all is durable or nothing, and errors that say what to do."""

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from spheroidd.protocols.durable import PARTIAL, sync_data
from spheroidd.protocols.errors import GOES_ON, QUOTA_WORDS, NoRoomError, RowRefusedError, StorageError


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """One that no other writer can come between; inside another one it is a savepoint. Errors are SQLite's own."""
    outermost = not connection.in_transaction
    begin, commit, undo = _OUTERMOST if outermost else _SAVEPOINT
    connection.execute(begin)
    if outermost:
        _forget_trail(connection)
    try:
        yield
        connection.execute(commit)
    except BaseException:
        _forget_trail(connection)
        if connection.in_transaction:  # a full disk may have rolled it back already
            for statement in undo:
                connection.execute(statement)
        raise


def _forget_trail(connection: sqlite3.Connection) -> None:
    """Others may append to the audit trail between transactions, and what was taken back is its end no more."""
    if hasattr(connection, "trail_end"):
        connection.trail_end, connection.person = None, None  # type: ignore[attr-defined]


_SAVEPOINT = ("SAVEPOINT part", "RELEASE part", ("ROLLBACK TO part", "RELEASE part"))
_OUTERMOST = ("BEGIN IMMEDIATE", "COMMIT", ("ROLLBACK",))


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Raise StorageError for every error of SQLite inside: NoRoomError where the disk is full, RowRefusedError where
    it is the row, and not the disk.
    """
    try:
        yield
    except sqlite3.Error as error:
        name = getattr(error, "sqlite_errorname", "") or ""
        kind = _kind(error, name)
        if cause := _cause(name, path):
            raise cause from error
        for prefix, (what, do) in _WORDS.items():
            if name.startswith(prefix):
                raise kind(what, where=str(path), do=do) from error
        if "Could not decode" in str(
            error
        ):  # bytes of a text that are none: nobody but a fault of the disk writes such
            what, do = _WORDS["SQLITE_CORRUPT"]
            raise kind(f"{what}: {error}", where=str(path), do=f"{do}; `spheroidd verify` says more") from error
        raise kind(f"SQLite: {error} {name}".strip(), where=str(path), do="see `spheroidd doctor`") from error


def _cause(name: str, path: Path) -> StorageError | None:
    """What the system says of it where SQLite keeps that to itself: a quota, a limit on open files, a right."""
    try:
        if name.startswith(_REFUSED_WRITES):
            _try_to_write(path)
        elif name.startswith("SQLITE_CANTOPEN"):
            with path.open("rb"):
                pass
    except OSError as error:
        if error.errno == errno.EDQUOT:
            return NoRoomError(QUOTA_WORDS[0], where=str(path), do=QUOTA_WORDS[1])
        if error.errno == errno.ENOSPC:
            what, do = _WORDS["SQLITE_FULL"]
            return NoRoomError(what, where=str(path), do=do)
        if error.errno in _SAID:
            what, do = _SAID[error.errno]
            return StorageError(f"the catalog cannot be reached: {what}", where=str(path), do=do)
    return None


def _try_to_write(catalog: Path) -> None:
    """Write a little file beside the catalog, as far as the disk."""
    probe = catalog.with_name(f"{catalog.name}.{os.getpid()}{PARTIAL}")  # a left-over is swept at the next start
    try:
        with probe.open("wb", buffering=0) as file:
            file.write(bytes(4096))
            sync_data(file.fileno())
    finally:
        with suppress(OSError):
            probe.unlink(missing_ok=True)


def may_pass(error: StorageError) -> bool:
    """Whether what SQLite refused may go through later, with nobody touching the catalog itself."""
    name = getattr(error.__cause__, "sqlite_errorname", "") or ""
    return isinstance(error, NoRoomError) or name.startswith(_PASSING)


def _kind(error: sqlite3.Error, name: str) -> type[StorageError]:
    if name.startswith("SQLITE_FULL"):
        return NoRoomError
    if (
        isinstance(error, _THE_ROW)
        or "binding parameter" in str(error)
        or name.startswith(("SQLITE_CONSTRAINT", "SQLITE_MISMATCH", "SQLITE_TOOBIG"))
    ):
        return RowRefusedError
    return StorageError


_REFUSED_WRITES = ("SQLITE_IOERR_WRITE", "SQLITE_IOERR_FSYNC", "SQLITE_IOERR_TRUNCATE", "SQLITE_IOERR_SHM")
_SAID = {
    errno.EMFILE: (
        "too many files are open",
        f"let this account open more of them (ulimit -n); {GOES_ON}",
    ),
    errno.ENFILE: ("too many files are open on this computer", f"close other programs; {GOES_ON}"),
    errno.EACCES: ("the right to it is missing", "give the account that runs this its rights back"),
    errno.EPERM: ("the right to it is missing", "give the account that runs this its rights back"),
    errno.EROFS: ("its disk can only be read", "mount it to be written; see the system's log for why it is not"),
}
_THE_ROW = (sqlite3.IntegrityError, sqlite3.DataError)
_PASSING = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_IOERR", "SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_PERM")
_WORDS = {
    "SQLITE_FULL": ("the disk is full: nothing was acknowledged", f"free some space; {GOES_ON}"),
    "SQLITE_BUSY": ("another process holds the catalog", "close what has it open (a database browser, a backup)"),
    "SQLITE_LOCKED": ("another process holds the catalog", "close what has it open (a database browser, a backup)"),
    "SQLITE_IOERR": ("the disk fails", "check the disk and its cable; see `spheroidd doctor`"),
    "SQLITE_CANTOPEN": ("the catalog cannot be opened", "check the rights of the directory and of the file"),
    "SQLITE_READONLY": ("the catalog cannot be written", "check the rights of the directory and of the file"),
    "SQLITE_PERM": ("the catalog cannot be written", "check the rights of the directory and of the file"),
    "SQLITE_NOTADB": ("the file is no SQLite database", "restore it from a copy, or use another data directory"),
    "SQLITE_CORRUPT": ("the catalog is damaged", "restore it from a copy; the slices in Zarr are not touched"),
    "SQLITE_CONSTRAINT_FOREIGNKEY": ("a row belongs to a plate, well or stack that is unknown", "plan the stack first"),
    "SQLITE_CONSTRAINT": ("the catalog refuses a row that breaks its rules", "report it with this message"),
}
