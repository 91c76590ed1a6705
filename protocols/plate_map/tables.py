"""The tables of a plate map's file: a list of wells, or a grid for each variable, as records of cells by column."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.plate_map.columns import COLUMNS, MapColumn, read_column
from spheroidd.protocols.plate_map.labels import ColumnRun, column_runs, is_stray_row, row_of
from spheroidd.protocols.tables.sheets import Sheet
from spheroidd.protocols.well import WellId

MAX_COLUMNS = 1000  # a map's own are 12; annotations beside them come by the dozen
_HEADER_WITHIN = 15  # lines of title that may stand above a list's header
_TITLE_ABOVE = 3  # lines above a grid in which its title is looked for


@dataclass(frozen=True, slots=True)
class Record:
    """One well's cells by the names of the columns, its annotations by their titles, and where it stands."""

    where: str
    cells: Mapping[str, str]
    annotations: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class MapTable:
    """A whole map: its columns by name, its wells, and whether its numbers can only have decimal points.

    `further` columns are annotations by their titles; one of them may say again what a column of `columns` says.
    """

    where: str
    columns: Mapping[str, MapColumn]
    records: tuple[Record, ...]
    points: bool
    further: tuple[MapColumn, ...] = ()


def map_tables(path: Path, sheets: Sequence[Sheet], faults: list[ConfigError]) -> MapTable:
    """The map that a file's sheets hold, list or grids; what is wrong with its columns is added to `faults`.

    ConfigError where there is no map, or more than one.
    """
    lists = [(sheet, at) for sheet in sheets if (at := _header_at(sheet)) is not None]
    if len(lists) > 1:
        names = " and ".join(repr(sheet.title) for sheet, _ in lists[:3])
        raise ConfigError(f"sheets {names} each hold a list of wells", where=str(path), do="keep one of them")
    if lists:
        return _list(*lists[0], faults)
    grids = [grid for sheet in sheets for grid in _grids(sheet, faults)]
    if grids or faults:
        return _joined(path, grids, faults)
    first = next((row for sheet in sheets for row in sheet.rows if any(row)), ())
    seen = ", ".join(cell for cell in first if cell)[:100]
    what = "the column 'well' is missing" + (f"; the first line says {seen}" if seen else "")
    do = "give a list with the columns well and role, or a grid for each variable with its row letters and numbers"
    raise ConfigError(what, where=f"{path}, line 1", do=do)


# -- lists --------------------------------------------------------------------------------------------------------


def _header_at(sheet: Sheet) -> int | None:
    """The line of a list's header: the first that names wells."""
    filled = [n for n, row in enumerate(sheet.rows) if any(row)][:_HEADER_WITHIN]
    return next(
        (n for n in filled if {"well"} & _plain(sheet.rows[n]) or {"row", "column"} <= _plain(sheet.rows[n])), None
    )


def _plain(row: Sequence[str]) -> set[str]:
    """The names that a line's cells are for certain; typing slips are told once the header is known."""
    found = set()
    for cell in row[:MAX_COLUMNS]:
        try:
            found.add(read_column(cell).name)
        except ConfigError:
            continue
    return found


def _list(sheet: Sheet, at: int, faults: list[ConfigError]) -> MapTable:
    where = sheet.where(at)
    if len(sheet.rows[at]) > MAX_COLUMNS:
        what = f"{len(sheet.rows[at])} columns stand in it, and a plate map has {MAX_COLUMNS} at most"
        raise ConfigError(what, where=where, do="give a map alone, without other data beside it")
    columns: dict[int, MapColumn] = {}
    for x, title in enumerate(sheet.rows[at]):
        try:
            columns[x] = read_column(title)
        except ConfigError as error:
            faults.append(ConfigError(error.what, where=where, do=error.do))
    by_name = _by_name(sheet.rows[at], columns, where, faults)
    has_well = "well" in by_name or {"row", "column"} <= by_name.keys()
    for name, there in (("well", has_well), ("role", {"role", "compound"} & by_name.keys())):
        if not there:
            faults.append(ConfigError(f"the column {name!r} is missing", where=where, do=f"add {name}"))
    further = {x: one for x, one in columns.items() if x not in by_name.values()}
    records = []
    for n in range(at + 1, len(sheet.rows)):
        row = sheet.rows[n]
        if not any(row):
            continue
        if len(row) > len(sheet.rows[at]):  # empty ones too: a comma in a number shifts all that follows it
            do = "quote cells that hold a comma"
            faults.append(ConfigError("more cells than columns", where=sheet.where(n), do=do))
            continue
        cells = {name: row[x] if x < len(row) else "" for name, x in by_name.items()}
        if "well" not in cells and has_well:
            cells["well"] = cells["row"] + cells["column"]
        extra = {sheet.rows[at][x]: row[x] for x, one in further.items() if one.title and x < len(row)}
        records.append(Record(sheet.where(n), cells, extra))
    own = {name: columns[x] for name, x in by_name.items()}
    return MapTable(where, own, tuple(records), sheet.points(), tuple(further.values()))


def _by_name(
    titles: Sequence[str], columns: Mapping[int, MapColumn], where: str, faults: list[ConfigError]
) -> dict[str, int]:
    """Where each known column stands. Of two that mean the same the one with the exact name is meant."""
    found: dict[str, int] = {}
    for name in dict.fromkeys(one.name for one in columns.values() if one.name):
        places = [x for x, one in columns.items() if one.name == name]
        exact = [x for x in places if titles[x].strip().lower() == name]
        if len(exact or places) > 1:
            twice = " and ".join(repr(titles[x]) for x in (exact or places))
            faults.append(ConfigError(f"a column stands twice: {twice}", where=where, do="keep each column once"))
        found[name] = (exact or places)[0]
    labels = [title for x, title in enumerate(titles) if title and x in columns and not columns[x].name]
    if twice_label := next((label for label, n in Counter(labels).items() if n > 1), None):
        faults.append(ConfigError(f"a column stands twice: {twice_label!r}", where=where, do="keep each column once"))
    return found


# -- grids --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Grid:
    """One variable of the plate: its column, and its cells by well with their places."""

    column: MapColumn
    where: str
    cells: Mapping[WellId, tuple[str, str]]
    points: bool


def _grids(sheet: Sheet, faults: list[ConfigError]) -> list[_Grid]:
    """The grids of a sheet: column numbers in a line, row letters in those below it."""
    found: list[_Grid] = []
    at = 0
    while at < len(sheet.rows):
        runs = [run for run in column_runs(sheet.rows[at]) if _row_at(sheet, at, run) is not None]
        stop = at + 1
        if not runs and is_stray_row(sheet.rows[at]):
            what = f"row {next(filter(None, sheet.rows[at]))} of a plate stands where no column numbers stand above it"
            do = "put the rows of a grid right below its column numbers, A first, without a line between them"
            faults.append(ConfigError(what, where=sheet.where(at), do=do))
        for n, run in enumerate(runs):
            place = _row_at(sheet, at, run)
            if place is None:
                continue
            cells, stop = _grid_cells(sheet, at, run, place)
            title = _title(sheet, at, place, first=n == 0)
            where = sheet.where(at)
            try:
                column = read_column(title)
                if not title:
                    do = "write role, compound, dose_um, patient, ... into the corner, or above the grid"
                    raise ConfigError("a grid does not say which variable it is", do=do)
                found.append(_Grid(column, where, cells, sheet.points()))
            except ConfigError as error:
                faults.append(ConfigError(error.what, where=where, do=error.do))
        at = stop
    return found


def _row_at(sheet: Sheet, at: int, run: ColumnRun) -> int | None:
    """Where the row letters of a run stand: left of it, in the next line."""
    below = sheet.rows[at + 1] if at + 1 < len(sheet.rows) else ()
    place = next((x for x in range(run.at - 1, -1, -1) if x < len(below) and below[x]), None)
    return place if place is not None and row_of(below[place]) is not None else None


def _grid_cells(sheet: Sheet, at: int, run: ColumnRun, place: int) -> tuple[dict[WellId, tuple[str, str]], int]:
    """A grid's cells that are not empty, and the line after it: it ends where no next row letter stands."""
    cells: dict[WellId, tuple[str, str]] = {}
    n, last = at + 1, -1
    while n < len(sheet.rows):
        row = sheet.rows[n]
        letter = row_of(row[place]) if place < len(row) else None
        if letter is None or letter <= last:
            break
        last = letter
        for x, column in enumerate(run.columns, start=run.at):
            if x < len(row) and row[x]:
                well = WellId(letter, column)
                cells[well] = (row[x], f"{sheet.where(n)}, well {well}")
        n += 1
    return cells, n


def _title(sheet: Sheet, at: int, place: int, *, first: bool) -> str:
    """The variable's name: in the corner, else above it, else (of the first grid) what the sheet is called."""
    corner = sheet.rows[at][place] if place < len(sheet.rows[at]) else ""
    if corner and corner != "<>":
        return corner
    for n in range(at - 1, max(at - 1 - _TITLE_ABOVE, -1), -1):
        row = sheet.rows[n]
        if any(row) and (row_of(row[place] if place < len(row) else "") is None):
            words = [cell for cell in row[place : place + 2] if cell] or ([c for c in row if c] if first else [])
            return words[0] if words else ""
    return re.sub(r"(?i)^(sheet|tabelle|feuil|hoja|map|plate ?map)\s*\d*$", "", sheet.title)


def _joined(path: Path, grids: Sequence[_Grid], faults: list[ConfigError]) -> MapTable:
    """The grids as records, a record for each well that any of them names."""
    by_name: dict[str, _Grid] = {}
    for grid in grids:
        name = grid.column.name if grid.column.name in COLUMNS else grid.column.title
        if name in by_name:
            do = f"keep one; the first stands at {by_name[name].where}"
            faults.append(ConfigError(f"the grid {grid.column.title!r} stands twice", where=grid.where, do=do))
        by_name.setdefault(name, grid)
    if not {"role", "compound"} & by_name.keys() and not faults:
        seen = ", ".join(repr(grid.column.title) for grid in grids)
        do = "give a grid of roles or of compounds"
        faults.append(ConfigError(f"none of its grids is role or compound: {seen}", where=str(path), do=do))
    wells = sorted({well for grid in by_name.values() for well in grid.cells})
    records = []
    for well in wells:
        there = {name: grid.cells[well] for name, grid in by_name.items() if well in grid.cells}
        where = next(iter(there.values()))[1]
        known = {name: cell for name, (cell, _) in there.items() if name in COLUMNS}
        extra = {name: cell for name, (cell, _) in there.items() if name not in COLUMNS}
        records.append(Record(where, {**known, "well": str(well)}, extra))
    columns = {name: grid.column for name, grid in by_name.items() if name in COLUMNS}
    return MapTable(str(path), columns, tuple(records), all(grid.points for grid in grids))
