"""Whether a catalog's file and ledger are sound: one pass over the ledger, and words for what is found.

A ledger of a million slices is a second's work and the file's own check another, so both go on at once: SQLite reads
without holding Python.
"""

import sqlite3
from collections.abc import Mapping
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from spheroidd.daemon.catalog.connection import BUSY_S, open_to_read
from spheroidd.daemon.catalog.rows import StackRow, StackState, stack_key
from spheroidd.daemon.catalog.transaction import translated
from spheroidd.protocols.stack import StackKey

HAVE_ALL = (StackState.STORED, StackState.SCORING, StackState.SCORED)
_SLICES = """SELECT plate, well, stack, channel, min(z) AS first, max(z) AS last, count(*) AS n
FROM slices GROUP BY plate, well, stack, channel"""
_BLOCKS = """SELECT plate, well, stack, channel, min(z_start) AS first, max(z_stop) - 1 AS last, 0 AS n
FROM blocks GROUP BY plate, well, stack, channel"""


@dataclass(slots=True)
class _Held:
    """What the tables hold of a stack: of each channel the first and the last z, of camera images and of blocks."""

    slices: dict[str, tuple[int, int]] = field(default_factory=dict)
    blocks: dict[str, tuple[int, int]] = field(default_factory=dict)
    n_slices: int = 0
    is_scored: bool = False


class _Ledger(Protocol):
    """What is asked of a catalog's reader."""

    path: Path

    @property
    def connection(self) -> sqlite3.Connection: ...
    def query(self, sql: str) -> list[dict[str, Any]]: ...
    def snapshot(self) -> AbstractContextManager[None]: ...
    def stacks(self) -> list[StackRow]: ...
    def ledger_problems(self, stack: StackRow) -> list[str]: ...


def problems_of(catalog: _Ledger) -> list[str]:
    """What is wrong with the file and with the ledger's rules, in words; nothing where all is well."""
    from concurrent.futures import ThreadPoolExecutor  # loads logging; a notebook that opens a plate does without

    with ThreadPoolExecutor(1, "integrity") as beside:
        file = beside.submit(_file_problems, catalog)
        ledger = _ledger_problems(catalog)
        return file.result() + ledger


def _file_problems(catalog: _Ledger) -> list[str]:
    own, path = open_to_read(catalog.path.parent, BUSY_S)  # a connection belongs to its thread
    with closing(own), translated(path):
        return [f"sqlite: {row[0]}" for row in own.execute("PRAGMA integrity_check") if row[0] != "ok"]


def _ledger_problems(catalog: _Ledger) -> list[str]:
    with catalog.snapshot():
        held = _held(catalog)
        stacks = {row.key: row for row in catalog.stacks()}
        with translated(catalog.path):
            problems = _strangers(catalog.connection)
        lost = [key for key, one in held.items() if one.slices and key not in stacks]
        problems += ["a row of slices belongs to nothing in stacks" for _ in lost]
        for stack in stacks.values():
            if not _is_sound(stack, held.get(stack.key, _Held())):
                problems += [f"{stack.key}: {problem}" for problem in catalog.ledger_problems(stack)]
    return problems


def _held(catalog: _Ledger) -> Mapping[StackKey, _Held]:
    found: dict[StackKey, _Held] = {}
    for row in catalog.query(_SLICES):
        held = found.setdefault(stack_key(row), _Held())
        held.slices[row["channel"]] = (row["first"], row["last"])
        held.n_slices += row["n"]
    for row in catalog.query(_BLOCKS):
        found.setdefault(stack_key(row), _Held()).blocks[row["channel"]] = (row["first"], row["last"])
    for row in catalog.query("SELECT DISTINCT plate, well, stack FROM results"):
        found.setdefault(stack_key(row), _Held()).is_scored = True
    return found


def _is_sound(stack: StackRow, held: _Held) -> bool:
    """Whether a look at each of the stack's slices can find nothing: no two of them have the same channel and z."""
    plan, missing = stack.plan, stack.plan.n_slices - held.n_slices
    return (
        held.n_slices == stack.n_slices_acked
        and all(one in plan.channels and low >= 0 and high < plan.n_planes for one, (low, high) in held.slices.items())
        and all(one in plan.channels and low >= 0 and high < plan.n_z for one, (low, high) in held.blocks.items())
        and not (missing and (held.is_scored or stack.state in HAVE_ALL))
        and (held.is_scored or stack.state is not StackState.SCORED)
    )


def _strangers(connection: sqlite3.Connection) -> list[str]:
    """Rows that belong to nothing; of slices the pass over them tells."""
    tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    return [
        f"a row of {row[0]} belongs to nothing in {row[2]}"
        for table in tables
        if table != "slices"
        for row in connection.execute(f'PRAGMA foreign_key_check("{table}")')
    ]
