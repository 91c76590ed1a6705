"""Any table of doses and responses, as spreadsheets, plate readers and R write them, to curves.

The only module that guesses: the encoding (UTF-8, UTF-16 with its mark, else Windows-1252), the delimiter (comma,
semicolon, tab or bar, the one that splits the header into most columns) and the decimal sign (a comma counts as one
where it does not delimit). Whatever stays ambiguous is refused with the line, the column and what to write.
"""

import csv
import difflib
import io
import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from spheroidd.protocols.errors import ConfigError

if TYPE_CHECKING:
    from spheroidd.inference.dose_response.observations import Curve

DELIMITERS = (",", ";", "\t", "|")
MISSING = {"", "na", "n/a", "nan", "null", "none", ".", "-", "#n/a"}
LARGEST_MB = 200
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_COMMA_NUMBER = re.compile(r"[+-]?(\d+,\d*|,\d+)([eE][+-]?\d+)?")
_PICTURES = {
    b"PK\x03\x04": "an Excel workbook or a zip",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
    b"%PDF": "a PDF",
}


@dataclass(frozen=True, slots=True)
class FitTable:
    """A table's header and cells, stripped; `lines` are the rows' line numbers in the file, from 1."""

    path: Path
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    lines: tuple[int, ...]
    delimiter: str

    def __len__(self) -> int:
        return len(self.rows)

    def texts(self, column: str) -> list[str]:
        """A column's cells; ConfigError where there is no such column, naming those there are."""
        return [row[self._index(column)] for row in self.rows]

    def numbers(self, column: str) -> list[float]:
        """A column's numbers, NaN where a cell is empty or says NA."""
        cells = self.texts(column)
        comma = self._comma_decimals(column, cells)
        return [self._number(column, i, cell, comma) for i, cell in enumerate(cells)]

    def doses(self, column: str, controls: Collection[str]) -> list[float]:
        """The same for doses; cells that are one of the `controls` (case-folded) are dose 0."""
        cells = self.texts(column)
        comma = self._comma_decimals(column, cells)
        return [
            0.0 if cell.casefold() in controls else self._number(column, i, cell, comma, dose=True)
            for i, cell in enumerate(cells)
        ]

    def _index(self, column: str) -> int:
        if column in self.columns:
            return self.columns.index(column)
        folded = [name.casefold() for name in self.columns]
        if folded.count(column.strip().casefold()) == 1:
            return folded.index(column.strip().casefold())
        near = difflib.get_close_matches(column, self.columns, n=1)
        do = f"did you mean {near[0]!r}?" if near else "name one of them"
        what = f"there is no column {column!r}; the columns are {', '.join(map(repr, self.columns))}"
        raise ConfigError(what, where=str(self.path), do=do)

    def _comma_decimals(self, column: str, cells: Sequence[str]) -> bool:
        """Whether the column's numbers have decimal commas; refused where it mixes them with points."""
        commas = [i for i, cell in enumerate(cells) if _COMMA_NUMBER.fullmatch(cell)]
        points = [i for i, cell in enumerate(cells) if "." in cell and _NUMBER.fullmatch(cell)]
        if commas and (points or self.delimiter == ","):
            cell = cells[commas[0]]
            what = f"{cell!r} in column {column!r} could be {cell.replace(',', '')} or {cell.replace(',', '.')}"
            raise ConfigError(what, where=self._line(commas[0]), do="write numbers with decimal points only")
        return bool(commas)

    def _number(self, column: str, row: int, cell: str, comma: bool, dose: bool = False) -> float:
        if cell.casefold() in MISSING:
            return math.nan
        plain = cell.replace(",", ".") if comma else cell
        if _NUMBER.fullmatch(plain):
            return float(plain)
        do = "write a number without its unit, or nothing"
        if cell[:1] in "<>":
            do = "write the value at the limit, or leave the cell empty"
        elif dose and not any(sign.isdigit() for sign in cell):
            do = f'write a dose; if this marks untreated wells, add --control "{cell}"'
        raise ConfigError(f"{cell!r} in column {column!r} is not a number", where=self._line(row), do=do)

    def _line(self, row: int) -> str:
        return f"{self.path}: line {self.lines[row]}"


def read_fit_table(path: Path) -> FitTable:
    """Read a table with a header. ConfigError where it cannot be read as one, saying why and what to do."""
    where = str(path)
    try:
        size_mb = path.stat().st_size / 1e6
        if size_mb > LARGEST_MB:
            what = f"the file has {size_mb:.0f} MB"
            raise ConfigError(what, where=where, do=f"split it into files of at most {LARGEST_MB} MB")
        raw = path.read_bytes()
    except IsADirectoryError as error:
        raise ConfigError("this is a folder", where=where, do="name the table in it") from error
    except OSError as error:
        do = "check the path and that you may read it"
        raise ConfigError(f"cannot read the table: {error.strerror or error}", where=where, do=do) from error
    text = _decoded(raw, where)
    if not text.strip():
        raise ConfigError("the file is empty", where=where, do="give a table with a header and a row for every well")
    return _parsed(text, path)


def _decoded(raw: bytes, where: str) -> str:
    for start, kind in _PICTURES.items():
        if raw.startswith(start):
            raise ConfigError(f"this is {kind}", where=where, do="export the sheet as CSV and give that")
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        encodings: tuple[str, ...] = ("utf-16",)
    elif b"\x00" in raw[:4096]:
        raise ConfigError("this is a binary file", where=where, do="give a table as text: CSV or tab-separated")
    else:
        encodings = ("utf-8-sig", "cp1252", "latin-1")
    for encoding in encodings:
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise ConfigError("the text is cut off in the middle of a character", where=where, do="export the table again")


def _parsed(text: str, path: Path) -> FitTable:
    first = next(line for line in text.splitlines() if line.strip())
    delimiter = max(DELIMITERS, key=lambda sign: len(next(csv.reader([first], delimiter=sign))))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    lines: list[int] = []
    cells: list[tuple[str, ...]] = []
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                lines.append(reader.line_num)
                cells.append(tuple(cell.strip() for cell in row))
    except csv.Error as error:
        do = "look for a quotation mark that is never closed"
        raise ConfigError(f"not a table: {error}", where=f"{path}: line {reader.line_num}", do=do) from error
    if not cells:
        raise ConfigError("the file has no cells", where=str(path), do="give a header and a row for every well")
    header, body = _squared(cells[0], cells[1:])
    _check_header(header, path)
    if not body:
        raise ConfigError("the table has a header and no rows", where=str(path), do="give a row for every well")
    for number, found in zip(lines[1:], body, strict=True):
        if len(found) != len(header):
            what = f"{len(found)} cells where the header has {len(header)} columns"
            do = f"write {len(header)} cells, separated by {_NAMES[delimiter]}"
            raise ConfigError(what, where=f"{path}: line {number}", do=do)
    return FitTable(path, header, tuple(body), tuple(lines[1:]), delimiter)


def _squared(header: tuple[str, ...], body: list[tuple[str, ...]]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """One cell more in every row than in the header: a delimiter at the lines' ends, or R's row names."""
    if not body or any(len(row) != len(header) + 1 for row in body):
        return header, body
    if not any(row[-1] for row in body):
        return header, [row[:-1] for row in body]
    names = [row[0] for row in body]
    if names == [str(i) for i in range(1, len(names) + 1)] or not any(_NUMBER.fullmatch(name) for name in names):
        return ("", *header), body
    return header, body


_NAMES = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}


def _check_header(header: tuple[str, ...], path: Path) -> None:
    if all(_NUMBER.fullmatch(name.replace(",", ".")) for name in header):
        raise ConfigError("the first line is numbers", where=str(path), do="write the columns' names above them")
    named = [name for name in header if name]
    twice = next((name for name in named if named.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"column {twice!r} stands twice", where=str(path), do="give every column its own name")


@dataclass(frozen=True, slots=True)
class TableColumns:
    """Which columns of a table mean what. `controls` are values of a `by` column, or words in the dose column, that
    mark untreated wells: those belong to every curve that agrees with them in the other `by` columns."""

    dose: str
    response: str
    by: tuple[str, ...] = ()
    weight: str | None = None
    total: str | None = None
    time_zero: str | None = None
    controls: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TableCurve:
    """One curve's columns as numbers, rows with an empty response left in as NaN, and what `by` says of it."""

    name: str
    by: dict[str, str]
    doses_um: list[float]
    responses: list[float]
    weights: list[float] | None
    totals: list[float] | None
    time_zero: list[float] | None

    def curve(self, control: float | None) -> "Curve":
        """For `fit_many`."""
        from spheroidd.inference.dose_response.observations import Curve

        return Curve(self.name, self.doses_um, self.responses, self.weights, control)


def table_curves(table: FitTable, wanted: TableColumns) -> list[TableCurve]:
    """The table's curves in the order of their first rows; the controls' rows are in every curve they belong to."""
    by = _split_names(table, wanted.by)
    controls = {value.casefold() for value in wanted.controls}
    doses = table.doses(wanted.dose, controls)
    keys: list[tuple[str, ...]] = (
        list(zip(*(table.texts(name) for name in by), strict=True)) if by else [()] * len(table)
    )
    _check_controls(table, wanted, keys, by)
    shared = [i for i, key in enumerate(keys) if any(value.casefold() in controls for value in key)]
    for i in shared:
        doses[i] = 0.0
    numbers = {
        name: None if column is None else table.numbers(column)
        for name, column in (("weights", wanted.weight), ("totals", wanted.total), ("time_zero", wanted.time_zero))
    }
    responses = table.numbers(wanted.response)
    groups: dict[tuple[str, ...], list[int]] = {}
    for i in sorted(set(range(len(table))) - set(shared)):
        groups.setdefault(keys[i], []).append(i)
    found = []
    for key, own in groups.items():
        rows = own + [i for i in shared if _agrees(keys[i], key, controls)]
        picked = {name: None if values is None else [values[i] for i in rows] for name, values in numbers.items()}
        name = " / ".join(value or "(empty)" for value in key) if key else table.path.stem
        labels = dict(zip(by, key, strict=True))
        found.append(TableCurve(name, labels, [doses[i] for i in rows], [responses[i] for i in rows], **picked))
    if not found:
        raise ConfigError("all rows are controls", where=str(table.path), do="name fewer values in --control")
    return found


def _agrees(control: tuple[str, ...], key: tuple[str, ...], controls: set[str]) -> bool:
    return all(ours == theirs or ours.casefold() in controls for ours, theirs in zip(control, key, strict=True))


def _split_names(table: FitTable, by: Sequence[str]) -> tuple[str, ...]:
    """Column names; "a,b" stands for two where no column is called so."""
    names = [part for name in by for part in ([name] if name in table.columns else name.split(","))]
    return tuple(table.columns[table._index(name.strip())] for name in dict.fromkeys(names))


def _check_controls(table: FitTable, wanted: TableColumns, keys: Sequence[tuple[str, ...]], by: Sequence[str]) -> None:
    there = {value.casefold() for key in keys for value in key}
    there |= {mark.casefold() for mark in table.texts(wanted.dose)}
    for value in wanted.controls:
        place = str(table.path)
        is_number = _NUMBER.fullmatch(value.replace(",", "."))
        level = f"; the response that is 100 % is --full-scale {value}" if is_number else ""
        if value.casefold() not in there:
            places = ", ".join(map(repr, (*by, wanted.dose)))
            raise ConfigError(f"no row says {value!r} in {places}", where=place, do=f"check --control{level}")
        if is_number and float(value.replace(",", ".")) != 0 and value in table.texts(wanted.dose):
            what = f"--control {value} names a dose that is not 0"
            raise ConfigError(what, where=place, do=f"name what marks untreated wells{level}")
