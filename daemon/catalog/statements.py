"""The three statements that write a row given by column name, inside the caller's transaction. Values are SQLite's own.

A library for it takes a second to import with all that it offers, which every start of a run would wait for.
"""

import sqlite3
from collections.abc import Mapping, Sequence

Values = Mapping[str, object]


def insert(connection: sqlite3.Connection, table: str, row: Values) -> int:
    """Add a row; gives its number, where the table has numbers."""
    return connection.execute(_insertion(table, row), dict(row)).lastrowid or 0


def upsert(connection: sqlite3.Connection, table: str, row: Values, key: Sequence[str]) -> None:
    """Add a row, or give the row with the same key these values; columns that are not named stay as they are."""
    others = ", ".join(f'"{name}" = excluded."{name}"' for name in row if name not in key)
    places = ", ".join(f'"{name}"' for name in key)
    connection.execute(f"{_insertion(table, row)} ON CONFLICT ({places}) DO UPDATE SET {others}", dict(row))


def update(connection: sqlite3.Connection, table: str, key: Values, values: Values) -> None:
    """Give the row with this key other values."""
    setting = ", ".join(f'"{name}" = :new_{name}' for name in values)
    where = " AND ".join(f'"{name}" = :{name}' for name in key)
    given = {**key, **{f"new_{name}": value for name, value in values.items()}}
    connection.execute(f'UPDATE "{table}" SET {setting} WHERE {where}', given)


def _insertion(table: str, row: Values) -> str:
    names, slots = ", ".join(f'"{name}"' for name in row), ", ".join(f":{name}" for name in row)
    return f'INSERT INTO "{table}" ({names}) VALUES ({slots})'
