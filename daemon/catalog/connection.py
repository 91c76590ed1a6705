"""The catalog's file: where it is, and how it is opened to write and to read."""

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from spheroidd.daemon.catalog import audit_chain as audit
from spheroidd.daemon.catalog import row_digests
from spheroidd.daemon.catalog.schema import check_version, is_current, make_readable, migrate, schema_version
from spheroidd.daemon.catalog.transaction import translated
from spheroidd.protocols.errors import ConfigError, StorageError

CATALOG_NAME = "catalog.sqlite"
BUSY_S = 10.0  # a reader's checkpoint or a backup may hold the file for a moment
BLANK_BYTES = 1 << 16  # a file of zeros no longer than this was begun and never written; a longer one was damaged


class WritingConnection(sqlite3.Connection):
    """One that remembers which tables were written by name (see `statements`), and within a
    transaction, in which nobody else can append, the end of the audit trail and who is at work (see `audit_chain`).
    """

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.tables: dict[str, Any] = {}
        self.trail_end: tuple[int, str] | None = None
        self.person: str | None = None


def open_to_write(data_dir: Path, now: Callable[[], float], busy_s: float) -> tuple[sqlite3.Connection, Path]:
    """A connection to a data directory's catalog, and the file; see `Catalog.create_or_open`."""
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        do = "choose a directory you may write to"
        raise ConfigError(f"cannot make the data directory: {error.strerror}", where=str(data_dir), do=do) from error
    path = data_dir / CATALOG_NAME
    if _is_blank(path):
        for one in (path, *(path.with_name(path.name + end) for end in ("-wal", "-shm"))):
            one.unlink(missing_ok=True)
    with translated(path):
        connection = sqlite3.connect(path, timeout=busy_s, isolation_level=None, factory=WritingConnection)
        try:
            _set_pragmas(connection, path)
            _bring_up_to_date(connection, str(path))
            row_digests.install(connection)
            audit.start_trail(connection, now())
        except BaseException:
            connection.close()
            raise
    return connection, path


def open_to_read(data_dir: Path, busy_s: float) -> tuple[sqlite3.Connection, Path]:
    """A connection that cannot write, and the file; see `CatalogReader.read_only`."""
    path = data_dir / CATALOG_NAME
    if not path.is_file():
        do = "give the directory that `spheroidd run` wrote to ([data] dir in its configuration)"
        raise ConfigError("no plate was ever run here: there is no catalog.sqlite", where=str(data_dir), do=do)
    with translated(path):
        connection = _connect_to_read(path, busy_s)
        try:
            check_version(connection, str(path))
            make_readable(connection, str(path))
        except BaseException:
            connection.close()
            raise
    return connection, path


def _bring_up_to_date(connection: sqlite3.Connection, where: str) -> None:
    """Migrate; then every row has its digest, and a row that was damaged before still is one."""
    if is_current(connection) and row_digests.is_sealed(connection):
        migrate(connection, where)  # only the views may be others
        return
    known = connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (row_digests.TABLE,)).fetchone()
    check_version(connection, where)
    damaged = row_digests.other_rows(connection) if known and row_digests.is_sealed(connection) else []
    migrate(connection, where)
    row_digests.seal(connection, damaged)


def holds_catalog(data_dir: Path) -> bool:
    """Whether a catalog was made here to the end; one that was only begun is completed by the next run."""
    path = data_dir / CATALOG_NAME
    if not path.is_file() or not path.stat().st_size or _is_blank(path):
        return False
    with translated(path):
        connection = _connect_to_read(path, BUSY_S)
        try:
            return schema_version(connection) > 0
        finally:
            connection.close()


def _is_blank(path: Path) -> bool:
    """Whether a power cut left a catalog's file without any of its content."""
    log = path.with_name(path.name + "-wal")
    found = [one for one in (path, log) if one.is_file()]
    sizes = [one.stat().st_size for one in found]
    return any(sizes) and max(sizes) <= BLANK_BYTES and not any(one.read_bytes().strip(b"\0") for one in found)


def _set_pragmas(connection: sqlite3.Connection, path: Path) -> None:
    """Set what durability rests on, and read it back: SQLite ignores what it cannot do without a word."""
    for name, value, expected in (
        ("journal_mode", "WAL", "wal"),
        ("synchronous", "FULL", 2),
        ("foreign_keys", "ON", 1),
    ):
        connection.execute(f"PRAGMA {name} = {value}").fetchone()
        found = connection.execute(f"PRAGMA {name}").fetchone()[0]
        if found != expected:
            do = "put the data directory on a local disk"
            raise StorageError(f"SQLite refuses {name} = {value} (it stays {found})", where=str(path), do=do)


def _connect_to_read(path: Path, busy_s: float) -> sqlite3.Connection:
    """A connection that cannot write. In a directory that cannot be written either, WAL's shared memory cannot be made;
    then, where no writer left a log behind, the file is read as one that never changes.
    """
    uri = path.absolute().as_uri()
    connection = sqlite3.connect(f"{uri}?mode=ro", uri=True, timeout=busy_s, isolation_level=None)
    try:
        connection.execute("PRAGMA user_version").fetchone()
    except sqlite3.OperationalError:
        connection.close()
        log = path.with_name(path.name + "-wal")
        if log.exists() and log.stat().st_size:
            raise
        connection = sqlite3.connect(f"{uri}?immutable=1", uri=True, isolation_level=None)
    return connection
