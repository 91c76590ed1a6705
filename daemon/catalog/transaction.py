"""SQLite as the catalog uses it: a transaction in which all is durable or nothing, and errors that say what to do."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from spheroidd.protocols.errors import NoRoomError, RowRefusedError, StorageError


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """One that no other writer can come between; inside another one it is a savepoint. Errors are SQLite's own."""
    begin, commit, undo = _SAVEPOINT if connection.in_transaction else _OUTERMOST
    connection.execute(begin)
    try:
        yield
        connection.execute(commit)
    except BaseException:
        if connection.in_transaction:  # a full disk may have rolled it back already
            for statement in undo:
                connection.execute(statement)
        raise


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
        for prefix, (what, do) in _WORDS.items():
            if name.startswith(prefix):
                raise kind(what, where=str(path), do=do) from error
        if "Could not decode" in str(
            error
        ):  # bytes of a text that are none: nobody but a fault of the disk writes such
            what, do = _WORDS["SQLITE_CORRUPT"]
            raise kind(f"{what}: {error}", where=str(path), do=f"{do}; `spheroidd verify` says more") from error
        raise kind(f"SQLite: {error} {name}".strip(), where=str(path), do="see `spheroidd doctor`") from error


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


_THE_ROW = (sqlite3.IntegrityError, sqlite3.DataError)
_PASSING = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_IOERR", "SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_PERM")
_WORDS = {
    "SQLITE_FULL": ("the disk is full: nothing was acknowledged", "free some space; the run goes on by itself"),
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
