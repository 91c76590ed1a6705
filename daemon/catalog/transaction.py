"""A transaction of SQLite: all writes inside become durable together, or none does."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager


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
