"""The labels that stand beside a plate's cells in every table: wells, row letters, runs of column numbers."""

import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.well import MAX_COLUMNS, WellId

_WELL = re.compile(r"[A-Za-z]{1,2}\d{1,2}")
_COLUMN = re.compile(r"0?[1-9]|[1-4][0-9]")
_ROW = re.compile(r"[A-Z]|A[A-F]")


@dataclass(frozen=True, slots=True)
class ColumnRun:
    """Labels of neighbouring columns: the place of the first in its line, and the plate's columns, from 0."""

    at: int
    columns: tuple[int, ...]


def is_well(cell: str) -> bool:
    """Whether a cell names a well of some plate.

    >>> is_well("A1"), is_well("AF48"), is_well("X99"), is_well("T2 x")
    (True, True, False, False)
    """
    if not _WELL.fullmatch(cell):
        return False
    try:
        WellId.parse(cell)
    except ConfigError:
        return False
    return True


def row_of(cell: str) -> int | None:
    """A plate row, from 0, by its letter (MARS adds a colon); None for anything else.

    >>> row_of("A"), row_of("AF:"), row_of("a"), row_of("Avg")
    (0, 31, None, None)
    """
    letter = cell.removesuffix(":")
    return WellId.parse(f"{letter}1").row if _ROW.fullmatch(letter) else None


def column_runs(row: Sequence[str]) -> list[ColumnRun]:
    """Runs of two or more numbers that count up by one, as stand above a picture of a plate; several side by side.

    A number that follows a run at once and leaves some out belongs to it: columns that were not used.

    >>> [run.columns for run in column_runs(["<>", "1", "2", "4", "", "1", "2", "3"])]
    [(0, 1, 3), (0, 1, 2)]
    """
    runs: list[ColumnRun] = []
    numbers = [(at, int(cell)) for at, cell in enumerate(row) if _COLUMN.fullmatch(cell)]
    for _, grouped in itertools.groupby(numbers, key=lambda pair: pair[1] - pair[0]):
        run = list(grouped)
        (at, first), (_, last) = run[0], run[-1]
        columns = tuple(range(first - 1, last))
        before = runs[-1] if runs else None
        if last > MAX_COLUMNS:
            continue
        if before is not None and before.at + len(before.columns) == at and before.columns[-1] < columns[0]:
            runs[-1] = ColumnRun(before.at, before.columns + columns)
        elif len(run) > 1:
            runs.append(ColumnRun(at, columns))
    return runs


def is_stray_row(row: Sequence[str], is_cell: Callable[[str], bool] = bool) -> bool:
    """Whether a line looks like a row of a plate: its letter, and two cells or more right of it.

    >>> is_stray_row(["C", "0.1", "0.2"]), is_stray_row(["C", "0.1"]), is_stray_row(["Row C", "0.1", "0.2"])
    (True, False, False)
    """
    place = next((x for x, cell in enumerate(row) if cell), None)
    return place is not None and row_of(row[place]) is not None and sum(map(is_cell, row[place + 1 :])) > 1
