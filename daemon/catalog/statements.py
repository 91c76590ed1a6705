"""A row given by column name is written by sqlite-utils, inside the caller's transaction. Values are SQLite's own.

sqlite-utils takes a while to import, which a reader of the catalog need not wait for, nor the first slice of a plate
that is taken up: it is loaded by the first row that it writes.
"""

import sqlite3
import sys
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlite_utils.db import Database, Table

Values = Mapping[str, object]
_importing = threading.Lock()


def insert(connection: sqlite3.Connection, table: str, row: Values) -> int:
    """Add a row; gives its number, where the table has numbers."""
    return int(_table(connection, table).insert(dict(row)).last_rowid or 0)


def upsert(connection: sqlite3.Connection, table: str, rows: Sequence[Values], key: Sequence[str]) -> None:
    """Add each row, or give the row with the same key these values; columns that are not named stay as they are.

    All rows name the same columns.
    """
    _table(connection, table).upsert_all([dict(row) for row in rows], pk=tuple(key))


def put(connection: sqlite3.Connection, table: str, row: Values, key: Sequence[str]) -> None:
    """As `upsert` of one row, for tables to which a run writes many times a second: sqlite-utils asks the file what
    columns a table has for each row, which takes longer than to write it.
    """
    connection.execute(_put_text(table, tuple(row), tuple(key)), tuple(row.values()))


def change(connection: sqlite3.Connection, table: str, key: Values, values: Values) -> None:
    """Give the row with these values of its primary key other values."""
    text = _change_text(table, tuple(key), tuple(values))
    changed = connection.execute(text, (*values.values(), *key.values())).rowcount
    if changed != 1:
        raise sqlite3.IntegrityError(f"{table} has {changed} rows with the key {tuple(key.values())}")


@cache
def _put_text(table: str, names: tuple[str, ...], key: tuple[str, ...]) -> str:
    columns, slots = ", ".join(f'"{name}"' for name in names), ", ".join("?" for _ in names)
    to = ", ".join(f'"{name}" = excluded."{name}"' for name in names if name not in key)
    place = ", ".join(f'"{name}"' for name in key)
    return f'INSERT INTO "{table}" ({columns}) VALUES ({slots}) ON CONFLICT ({place}) DO UPDATE SET {to}'


@cache
def _change_text(table: str, key: tuple[str, ...], names: tuple[str, ...]) -> str:
    to = ", ".join(f'"{name}" = ?' for name in names)
    where = " AND ".join(f'"{name}" = ?' for name in key)
    return f'UPDATE "{table}" SET {to} WHERE {where}'


def _table(connection: sqlite3.Connection, name: str) -> "Table":
    known = getattr(connection, "tables", {})  # to make one asks the file for all its tables, for every row
    if name not in known:
        database = database_class()
        known[name] = database(connection, execute_plugins=False).table(name)
    table: Table = known[name]
    return table


@cache
def database_class() -> "type[Database]":
    """sqlite-utils', without pandas: it imports that where it is installed, for column types that no row here has.

    Half a second of every process that writes, and pyarrow with it, which starts a thread.
    """
    with _importing:
        hidden = "pandas" not in sys.modules
        if hidden:
            sys.modules["pandas"] = None  # type: ignore[assignment]  # Python's own way to say that there is none
        try:
            from sqlite_utils import Database

            return Database
        finally:
            if hidden:
                del sys.modules["pandas"]
