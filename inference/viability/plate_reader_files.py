"""Plate readers' files: SoftMax Pro's text export (SpectraMax) and plain CSV, as blocks of readings.

A SoftMax export is blocks that begin with "Plate:" or "Group:" and end with "~End". A plate block is either a picture
of the plate ("PlateFormat": one row of cells a plate row, wavelengths side by side, readings below each other) or a
column a well ("TimeFormat"). A group block lists wells with their values. All else (notes, standards' fits) is left.
"""

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path

from spheroidd.inference.viability.mtt import ReaderBlock, Unit, number, read_text
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.well import MAX_COLUMNS, MAX_ROWS, WellId

_COLUMNS = {
    "od": Unit.OD,
    "absorbance": Unit.OD,
    "value": Unit.OD,
    "viability": Unit.PERCENT,
    "viability_percent": Unit.PERCENT,
    "mtt_percent": Unit.PERCENT,
}
_WELL = re.compile(r"[A-Za-z]{1,2}\d{1,2}")


def read_reader_file(path: Path) -> tuple[ReaderBlock, ...]:
    """Every block of readings in a plate reader's file; ConfigError where there is none, naming file and line."""
    lines = read_text(path).splitlines()
    first = next((line for line in lines if line.strip()), "")
    is_export = first.startswith("##BLOCKS=") or any(line.startswith(("Plate:", "Group:")) for line in lines)
    blocks = tuple(_spectramax(path, lines) if is_export else _table(path, lines))
    if not any(block.values for block in blocks):
        do = "export the plate from the reader again, or write a CSV with the columns well and od (or viability)"
        raise ConfigError("there is no reading in it", where=str(path), do=do)
    return blocks


def _spectramax(path: Path, lines: list[str]) -> Iterator[ReaderBlock]:
    seen: set[str] = set()
    for number_, start in enumerate(lines):
        if not start.startswith(("Plate:", "Group:")):
            continue
        stop = next((n for n in range(number_ + 1, len(lines)) if lines[n].startswith("~End")), len(lines))
        rows = [line.split("\t") for line in lines[number_ + 1 : stop]]
        where = f"{path}, line {number_ + 1}"
        head = [cell.strip() for cell in start.split("\t")]
        read = _plate_block if start.startswith("Plate:") else _group_block
        for block in read(head, rows, where):
            if block.name in seen:
                raise ConfigError(f"two blocks are called {block.name!r}", where=where, do="rename one in the reader")
            seen.add(block.name)
            yield block


def _plate_block(head: list[str], rows: list[list[str]], where: str) -> Iterator[ReaderBlock]:
    """One block for each wavelength and reading of a plate."""
    name = _cell(head, 1) or "Plate"
    wavelengths = (_cell(head, 15) or "").split() or [""]
    if _cell(head, 3) == "TimeFormat":
        names = [cell.strip() for cell in rows[0]] if rows else []
        wells = {at: WellId.parse(cell) for at, cell in enumerate(names) if _WELL.fullmatch(cell)}
        readings = [row for row in rows[1:] if any(at < len(row) and row[at].strip() for at in wells)]
        for n, row in enumerate(readings, start=1):
            cells = {well: _cell(row, at) for at, well in wells.items()}
            yield _block(f"{name} reading {n}" if len(readings) > 1 else name, cells)
        return
    if _cell(head, 3) != "PlateFormat":
        do = "export the plate in plate or time format"
        raise ConfigError(f"{name} is in a format {_cell(head, 3)!r}", where=where, do=do)
    first, n_columns, first_row, n_rows = (_whole(head, at, where) for at in (16, 17, 19, 20))
    pictures = [row for row in rows[1:] if any(cell.strip() for cell in row[1:])]
    if len(pictures) % n_rows or not pictures:
        what = f"{name} promises {n_rows} rows of cells and has {len(pictures)}"
        raise ConfigError(what, where=where, do="export the plate again: a row is missing")
    n_readings = len(pictures) // n_rows
    for reading in range(n_readings):
        part = pictures[reading * n_rows : (reading + 1) * n_rows]
        for place, wavelength in enumerate(wavelengths):
            offset = 2 + place * (n_columns + 1)  # an empty column stands between two wavelengths
            cells = {
                WellId(first_row - 1 + y, first - 1 + x): _cell(row, offset + x)
                for y, row in enumerate(part)
                for x in range(n_columns)
            }
            words = (
                name,
                wavelength if len(wavelengths) > 1 else "",
                f"reading {reading + 1}" if n_readings > 1 else "",
            )
            yield _block(" ".join(word for word in words if word), cells)


def _group_block(head: list[str], rows: list[list[str]], where: str) -> Iterator[ReaderBlock]:
    """A group's wells and values, as a block of its own; nothing where it lists no wells."""
    titles = [cell.strip().lower() for cell in rows[0]] if rows else []
    if "wells" not in titles or "values" not in titles:
        return
    at_well, at_value = titles.index("wells"), titles.index("values")
    cells: dict[WellId, str] = {}
    for row in rows[1:]:
        if _WELL.fullmatch(_cell(row, at_well)):
            well = WellId.parse(row[at_well])
            if well in cells:
                raise ConfigError(f"well {well} stands twice in a group", where=where, do="export the group again")
            cells[well] = _cell(row, at_value)
    if cells:
        yield _block(_cell(head, 1) or "Group", cells)


def _block(name: str, cells: dict[WellId, str], unit: Unit = Unit.OD) -> ReaderBlock:
    values = {well: value for well, text in cells.items() if (value := number(text)) is not None}
    return ReaderBlock(name, unit, values, {well: text for well, text in cells.items() if well not in values})


def _cell(row: list[str], at: int) -> str:
    return row[at].strip() if at < len(row) else ""


def _whole(head: list[str], at: int, where: str) -> int:
    text = _cell(head, at)
    longest = MAX_COLUMNS if at in (16, 17) else MAX_ROWS
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= longest:
        do = "export the plate from SoftMax Pro again, as text with all its columns"
        raise ConfigError(
            f"field {at + 1} of the plate's line is {text!r}, not a number of rows or columns", where=where, do=do
        )
    return int(text)


def _table(path: Path, lines: list[str]) -> Iterator[ReaderBlock]:
    """A CSV with a column `well` and one for each kind of reading: od, absorbance, value, viability, ..."""
    where = str(path)
    delimiter = max("\t;,", key=(lines[0] if lines else "").count)
    try:
        rows = list(csv.reader(io.StringIO("\n".join(lines)), delimiter=delimiter))
    except csv.Error as error:
        raise ConfigError(f"not a table: {error}", where=where, do="save it as CSV") from error
    titles = [title.strip().lower().replace(" ", "_") for title in rows[0]] if rows else []
    chosen = {title: at for at, title in enumerate(titles) if title in _COLUMNS}
    if "well" not in titles or not chosen or len(set(titles)) < len(titles):
        do = f"give the columns well and one of {', '.join(_COLUMNS)}"
        raise ConfigError(f"its columns are {', '.join(titles[:12]) or 'none'}", where=f"{where}, line 1", do=do)
    cells: dict[WellId, list[str]] = {}
    for line, row in enumerate(rows[1:], start=2):
        if not any(cell.strip() for cell in row):
            continue
        try:
            well = WellId.parse(_cell(row, titles.index("well")))
        except ConfigError as error:
            raise ConfigError(error.what, where=f"{where}, line {line}", do=error.do) from error
        if well in cells:
            raise ConfigError(f"well {well} stands twice", where=f"{where}, line {line}", do="keep one row for it")
        if len(row) > len(titles):
            do = "write decimals with a point, or separate cells by semicolons"
            raise ConfigError("more cells than columns", where=f"{where}, line {line}", do=do)
        cells[well] = row
    for title, at in chosen.items():
        yield _block(title, {well: _cell(row, at) for well, row in cells.items()}, _COLUMNS[title])
