"""Makes the catalog of an older program out of one of today: what later schema steps brought is taken away."""

import sqlite3
from pathlib import Path

from spheroidd.daemon.catalog import schema


def make_older(folder: Path, steps: int) -> None:
    """Take a catalog that no one has open back to its first `steps` schema steps; rows of older tables stay."""
    connection = sqlite3.connect(folder / "catalog.sqlite", isolation_level=None)
    wanted = sqlite3.connect(":memory:", isolation_level=None)
    for script in schema.MIGRATIONS[:steps]:
        for statement in schema._statements(script):
            wanted.execute(statement)
    old = _definitions(wanted)
    for kind in ("view", "trigger", "index", "table"):
        for name in [name for (of, name) in _definitions(connection) if of == kind]:
            if kind != "table" or (kind, name) not in old:  # the triggers too, which keep history from being changed
                connection.execute(f"DROP {kind} IF EXISTS {name}")
    for name in [name for (kind, name) in old if kind == "table"]:
        for column in _columns(connection, name) - _columns(wanted, name):
            connection.execute(f"ALTER TABLE {name} DROP COLUMN {column}")
            if name == "results":
                for entry in ("old_json", "new_json"):
                    connection.execute(f"UPDATE result_changes SET {entry} = json_remove({entry}, '$.{column}')")
    for kind in ("index", "trigger", "view"):
        for statement in [sql for (of, _), sql in old.items() if of == kind]:
            connection.execute(statement)
    if ("table", "audit") not in old:
        connection.execute("DELETE FROM sqlite_sequence WHERE name = 'audit'")
    connection.execute(f"PRAGMA user_version = {steps}")
    connection.close()
    wanted.close()


def _definitions(connection: sqlite3.Connection) -> dict[tuple[str, str], str]:
    rows = connection.execute("SELECT type, name, sql FROM sqlite_master WHERE sql NOT NULL").fetchall()
    return {(kind, name): sql for kind, name, sql in rows if not name.startswith("sqlite_")}


def _columns(connection: sqlite3.Connection, table: str) -> set[str]:
    return {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}
