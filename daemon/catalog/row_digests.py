"""A digest for every row of the catalog, kept in the transaction that writes the row: what changed since shows.

SQLite's own check looks at a file's structure; a number that became another number passes it. So each writing
connection has triggers of its own (TEMP: they are no part of the file, and SQL tools of other people never meet them)
that keep the digest of a row beside it: eight bytes of BLAKE2b over the row's values by name, NULL left out, so that
a column that a later program adds changes none. Tables that grow with every slice have one digest a stack, the XOR of
their rows' digests, so that it costs one small row however long the ledger is.

Not among them are `audit` and `result_changes`, whose hashes are the audit trail's own. A row that somebody changes
with the triggers' help is not told from the daemon's: that is what the audit trail is for.
"""

import hashlib
import json
import sqlite3
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from spheroidd.daemon.catalog.transaction import transaction

TABLE = "row_digests"
_CHAINED = {"audit", "result_changes"}
_BY_STACK = {"slices": ("plate", "well", "stack"), "blocks": ("plate", "well", "stack")}
_FOLLOWING = {"stacks": {"n_acked"}}  # columns that say what other tables' rows do, and have digests there
_SEALED = ("", "sealed")  # the row that says that every row has its digest
_SCHEMA = "sqlite_master"
FUNCTION = "spheroidd_row_digest"


@dataclass(frozen=True, slots=True)
class OtherRow:
    """A row, or a stack's rows of a table, that is not as it was written; `place` are its key's values as JSON."""

    table: str
    place: str
    what: str

    @property
    def key(self) -> tuple[str | int, ...]:
        """The values of its key columns."""
        return tuple(json.loads(self.place))


def install(connection: sqlite3.Connection) -> None:
    """Give a connection that may write the triggers that keep the digests."""
    tables = _tables(connection)
    orders = {table: _order(columns) for table, (columns, _) in tables.items()}

    def row_digest(table: str, *values: object) -> int:
        return _digest(table, orders[table], values)

    connection.create_function(FUNCTION, -1, row_digest, deterministic=True)
    connection.execute("PRAGMA temp_store = MEMORY")
    for table, (columns, key) in tables.items():
        for statement in _triggers(table, columns, key):
            connection.execute(statement)


def digest(table: str, names: Collection[str], values: Collection[object]) -> int:
    """The digest of a row, as SQLite's signed 64-bit integer."""
    return _digest(table, _order(names), tuple(values))


def _order(names: Collection[str]) -> tuple[tuple[str, int], ...]:
    """The columns by name, each with its place among them: the same for each row of a table."""
    return tuple(sorted((name, place) for place, name in enumerate(names)))


def _digest(table: str, order: tuple[tuple[str, int], ...], values: Sequence[object]) -> int:
    if len(values) != len(order):
        raise ValueError(f"{table} has {len(order)} columns, and a row of {len(values)} values is none of it")
    known = [(name, value) for name, place in order if (value := values[place]) is not None]
    text = repr((table, known)).encode("utf-8", "backslashreplace")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little", signed=True)


def seal(connection: sqlite3.Connection, keep: Collection[OtherRow] = ()) -> None:
    """Make every digest anew, but for those of rows that were found to be others before: they stay so."""
    kept = {(row.table, row.place) for row in keep}
    with transaction(connection):
        told = _told(connection)
        connection.execute(f"DELETE FROM {TABLE}")
        rows = dict(_found(connection))
        rows |= {place: told[place] for place in kept & told.keys()}
        rows = {place: row for place, row in rows.items() if place not in kept or place in told}
        values = [(*place, *row) for place, row in rows.items()]
        connection.executemany(f"INSERT INTO {TABLE} VALUES (?, ?, ?, ?)", [*values, (*_SEALED, 0, 0)])


def is_sealed(connection: sqlite3.Connection) -> bool:
    """Whether every row has a digest: not in a catalog that only an older program has written to."""
    return connection.execute(f'SELECT 1 FROM {TABLE} WHERE "of" = ? AND "key" = ?', _SEALED).fetchone() is not None


def other_rows(connection: sqlite3.Connection, tables: Collection[str] | None = None) -> list[OtherRow]:
    """The rows that are not as they were written, of some tables or of all; sqlite3.Error where they cannot be read.

    Call it where the catalog does not change meanwhile, in a snapshot or a transaction.
    """
    told = {place: row for place, row in _told(connection).items() if tables is None or place[0] in tables}
    found = dict(_found(connection, tables))
    return [
        OtherRow(table, key, _what(told.get((table, key)), found.get((table, key))))
        for table, key in sorted(told.keys() | found.keys())
        if told.get((table, key)) != found.get((table, key))
    ]


def _what(told: tuple[int, int] | None, found: tuple[int, int] | None) -> str:
    if told is None:
        return "a row that the daemon did not write"
    if found is None:
        return "the row is missing"
    if told[0] != found[0]:
        return f"{found[0]} rows where {told[0]} were written"
    return "other values than were written"


def _found(
    connection: sqlite3.Connection, tables: Collection[str] | None = None
) -> Iterator[tuple[tuple[str, str], tuple[int, int]]]:
    """The digests that the rows have now, by table and key: how many rows, and their digests' XOR."""
    for table, (columns, key) in _tables(connection).items():
        if tables is not None and table not in tables:
            continue
        groups: dict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
        names, place = _quoted(columns), f"json_array({_quoted(key)})"
        for *values, at in _plain(connection).execute(f'SELECT {names}, {place} FROM main."{table}"'):
            n, value = groups[at]
            groups[at] = n + 1, value ^ digest(table, columns, values)
        yield from (((table, place), row) for place, row in groups.items())
    if tables is None:
        for name, sql in _schema(connection).items():
            yield (_SCHEMA, json.dumps([name])), (1, digest(_SCHEMA, ("name", "sql"), (name, sql)))


def _told(connection: sqlite3.Connection) -> dict[tuple[str, str], tuple[int, int]]:
    """The digests as they were kept."""
    rows = _plain(connection).execute(f"SELECT * FROM {TABLE}")
    return {(of, key): (n, value) for of, key, n, value in rows if (of, key) != _SEALED}


def _plain(connection: sqlite3.Connection) -> sqlite3.Cursor:
    """A cursor that gives rows as tuples."""
    cursor = connection.cursor()
    cursor.row_factory = None
    return cursor


def _quoted(names: Collection[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def _schema(connection: sqlite3.Connection) -> Mapping[str, str]:
    """The text of every table, trigger and index; views are made anew by whoever finds another."""
    return dict(
        _plain(connection).execute("SELECT name, sql FROM main.sqlite_master WHERE type <> 'view' AND sql NOT NULL")
    )


def _tables(connection: sqlite3.Connection) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    """Every table whose rows have digests: its columns, and those by which a digest is kept."""
    found = {}
    cursor = _plain(connection)
    named = cursor.execute("SELECT name FROM main.sqlite_master WHERE type = 'table' ORDER BY name").fetchall()
    for (table,) in named:
        if table.startswith("sqlite_") or table == TABLE or table in _CHAINED:
            continue
        info = cursor.execute("SELECT name, pk FROM pragma_table_info(?, 'main')", (table,)).fetchall()
        primary = tuple(name for name, place in sorted(info, key=lambda row: row[1]) if place)
        columns = tuple(name for name, _ in info if name not in _FOLLOWING.get(table, ()))
        found[table] = columns, _BY_STACK.get(table, primary)
    return found


def _triggers(table: str, columns: tuple[str, ...], key: tuple[str, ...]) -> Iterator[str]:
    def of(row: str) -> tuple[str, str]:
        place = f"""json_array({", ".join(f'{row}."{name}"' for name in key)})"""
        return place, f"""{FUNCTION}('{table}', {", ".join(f'{row}."{name}"' for name in columns)})"""

    (old_key, old), (new_key, new) = of("OLD"), of("NEW")
    moved = None
    if table in _BY_STACK:
        add = _ADD.format(table=table, key=new_key, digest=new)
        take = _TAKE.format(table=table, key=old_key, digest=old)
    else:  # REPLACE fires no trigger for the row that goes, which has the same key
        add = _PUT.format(table=table, key=new_key, digest=new)
        take = f"""DELETE FROM {TABLE} WHERE "of" = '{table}' AND "key" = {old_key};"""
        moved = f"""DELETE FROM {TABLE} WHERE {old_key} <> {new_key} AND "of" = '{table}' AND "key" = {old_key};"""
    for act, body in (("INSERT", add), ("DELETE", take), ("UPDATE", (moved or take) + add)):
        name = f"row_digest_{table}_{act.lower()}"
        yield f'CREATE TEMP TRIGGER IF NOT EXISTS {name} AFTER {act} ON main."{table}" BEGIN {body} END'


_PUT = f"""
INSERT INTO {TABLE} ("of", "key", n, digest) VALUES ('{{table}}', {{key}}, 1, {{digest}})
  ON CONFLICT DO UPDATE SET n = 1, digest = excluded.digest;
"""
_ADD = f"""
INSERT INTO {TABLE} ("of", "key", n, digest) VALUES ('{{table}}', {{key}}, 1, {{digest}})
  ON CONFLICT DO UPDATE SET n = n + 1, digest = ~(digest & excluded.digest) & (digest | excluded.digest);
"""
_TAKE = f"""
UPDATE {TABLE} SET n = n - 1,
  digest = ~(digest & {{digest}}) & (digest | {{digest}}) WHERE "of" = '{{table}}' AND "key" = {{key}};
DELETE FROM {TABLE} WHERE "of" = '{{table}}' AND "key" = {{key}} AND n = 0;
"""
