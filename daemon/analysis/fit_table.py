"""Any table of doses and responses, as spreadsheets, plate readers and R write them, to curves.

It guesses the encoding (UTF-8, UTF-16 with its mark, else Windows-1252) and the delimiter (comma, semicolon, tab or
bar, the one that splits the header into most columns); what a comma in a number means is decided by `tables.numbers`, a
column at a time, and the unit of the doses by their header, by a column of units or by the cells. Whatever stays
ambiguous is refused with the line, the column and what to write.
"""

import csv
import difflib
import io
import math
import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.plate_map.dose_units import (
    UNITS,
    DoseUnit,
    read_unit,
    refuse_logarithms,
    split_dose,
    unit_of_header,
)
from spheroidd.protocols.regular_file import read_regular
from spheroidd.protocols.tables.cells import unguarded
from spheroidd.protocols.tables.numbers import MISSING, NumberStyle, number_style, proves_points

if TYPE_CHECKING:
    from spheroidd.inference.dose_response.observations import Curve

DELIMITERS = (",", ";", "\t", "|")
LARGEST_MB = 200
_NUMBER = re.compile(r"[+-]?(\d+(?:\.\d*)?|\.\d+)([eE][+-]?\d+)?")
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
        style = self._style(column, cells)
        return [self._number(column, i, cell, style) for i, cell in enumerate(cells)]

    def doses(
        self, column: str, controls: Collection[str], unit: str | None = None
    ) -> tuple[list[float], DoseUnit | None]:
        """A column's doses and their unit; cells that are one of the `controls` (case-folded) are dose 0.

        The unit is the header's, or the one of the first row that names one; all others are converted into it. `unit`
        says it where the table does not, or which column does. None where nobody says it. ConfigError for logarithms,
        and for units that cannot be converted or contradict each other.
        """
        column = self.columns[self._index(column)]
        refuse_logarithms(column, str(self.path))
        cells = ["0" if cell.casefold() in controls else cell for cell in self.texts(column)]
        split = [split_dose(cell) for cell in cells]
        style = self._style(column, [number for number, _ in split])
        values = [self._number(column, i, number, style, dose=True) for i, (number, _) in enumerate(split)]
        given, beside = self._units_beside(column, unit)
        named = [own or other for (_, own), other in zip(split, beside, strict=True)]
        for i, ((_, own), other) in enumerate(zip(split, beside, strict=True)):
            if own and other and own != other:
                raise ConfigError(
                    f"{cells[i]!r} beside the unit {other.name}", where=self._line(i), do="write one unit"
                )
        target = unit_of_header(column) or given or next((found for found in named if found), None)
        if target is None:
            return values, None
        bare = unit_of_header(column) or given
        return [self._converted(i, value, named[i] or bare, target) for i, value in enumerate(values)], target

    def _units_beside(self, column: str, said: str | None) -> tuple[DoseUnit | None, list[DoseUnit | None]]:
        """The unit that was given for the doses, and that of each row where a column has them."""
        place = said if said in self.columns else self._unit_column(column) if said is None else None
        none: list[DoseUnit | None] = [None] * len(self)
        if place is not None:
            found = [(text, read_unit(text)) for text in self.texts(place)]
            for i, (text, unit) in enumerate(found):
                if unit is None and text.casefold() not in MISSING:
                    raise ConfigError(f"{text!r} in column {place!r} is no unit", where=self._line(i), do=_DO_UNIT)
            header = unit_of_header(column)
            for i, (_, unit) in enumerate(found):
                if unit and header and unit != header:
                    what = f"column {column!r} is in {header.name} and column {place!r} says {unit.name}"
                    raise ConfigError(what, where=self._line(i), do="correct one of the two, or take it out")
            return None, [unit for _, unit in found]
        given = None if said is None else read_unit(said)
        header = unit_of_header(column)
        if said is not None and given is None:
            raise ConfigError(f"{said!r} is no unit of doses and no column", where=str(self.path), do=_DO_UNIT)
        if given and header and given != header:
            what = f"column {column!r} is in {header.name} and --dose-unit says {given.name}"
            raise ConfigError(what, where=str(self.path), do="leave --dose-unit out, or correct the header")
        return given, none

    def _unit_column(self, column: str) -> str | None:
        """The column that says the doses' units: by a name that says so, or "unit" where it holds units of doses."""
        folded = {re.sub(r"[\s_.]+", " ", name).strip().casefold(): name for name in self.columns}
        own = re.sub(r"[\s_.]+", " ", column).strip().casefold()
        for name in (own, "dose", "conc", "concentration"):
            for end in (" unit", " units"):
                if f"{name}{end}" in folded:
                    return folded[f"{name}{end}"]
        for name in ("unit", "units"):
            texts = (
                [text for text in self.texts(folded[name]) if text.casefold() not in MISSING] if name in folded else []
            )
            if texts and all(read_unit(text) for text in texts):
                return folded[name]
        return None

    def _converted(self, row: int, dose: float, unit: DoseUnit | None, target: DoseUnit) -> float:
        if dose == 0 or math.isnan(dose) or unit == target:
            return dose
        if unit is None:
            what = f"dose {dose:g} has no unit beside others in {target.name}"
            raise ConfigError(what, where=self._line(row), do="write every dose with its unit, or the header with one")
        if unit.kind != target.kind:
            what = f"a dose in {unit.name} beside others in {target.name}: a {unit.kind} is no {target.kind}"
            raise ConfigError(what, where=self._line(row), do="convert them, or fit them as two tables")
        return unit.convert(dose, target)

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

    def _style(self, column: str, cells: Sequence[str]) -> NumberStyle:
        points = self.delimiter == "," or proves_points(cell for row in self.rows for cell in row)
        return number_style(cells, column=column, line=self._line, points=points)

    def _number(self, column: str, row: int, cell: str, style: NumberStyle, dose: bool = False) -> float:
        if cell.casefold() in MISSING:
            return math.nan
        value = style.read(cell)
        if value is not None:
            return value
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
        raw = read_regular(path, LARGEST_MB * 1_000_000)
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
    delimiter = max(DELIMITERS, key=lambda sign: _n_columns(first, sign))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    lines: list[int] = []
    cells: list[tuple[str, ...]] = []
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                lines.append(reader.line_num)
                cells.append(tuple(unguarded(cell.strip()) for cell in row))
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


def _n_columns(line: str, delimiter: str) -> int:
    try:
        return len(next(csv.reader([line], delimiter=delimiter)))
    except csv.Error:  # a field that is longer than any name
        return 0


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


_DO_UNIT = f"use one of {', '.join(dict.fromkeys(unit.name for unit in UNITS.values()))}"
_NAMES = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}


def _check_header(header: tuple[str, ...], path: Path) -> None:
    if all(_NUMBER.fullmatch(name.replace(",", ".")) for name in header):
        raise ConfigError("the first line is numbers", where=str(path), do="write the columns' names above them")
    times = Counter(name for name in header if name)
    twice = next((name for name, n in times.items() if n > 1), None)
    if twice is not None:
        raise ConfigError(f"column {twice!r} stands twice", where=str(path), do="give every column its own name")


@dataclass(frozen=True, slots=True)
class TableColumns:
    """Which columns of a table mean what. `controls` are values of a `by` column, or words in the dose column, that
    mark untreated wells: those belong to every curve that agrees with them in the other `by` columns. `dose_unit` is
    the unit of the doses, or the column that has it, where their header does not say."""

    dose: str
    response: str
    by: tuple[str, ...] = ()
    weight: str | None = None
    total: str | None = None
    time_zero: str | None = None
    controls: tuple[str, ...] = ()
    dose_unit: str | None = None


@dataclass(frozen=True, slots=True)
class TableCurve:
    """One curve's columns as numbers, rows with an empty response left in as NaN, and what `by` says of it.

    Doses are in `dose_unit`; None where the table does not say.
    """

    name: str
    by: dict[str, str]
    doses: list[float]
    dose_unit: str | None
    responses: list[float]
    weights: list[float] | None
    totals: list[float] | None
    time_zero: list[float] | None

    def curve(self, control: float | None) -> "Curve":
        """For `fit_many`."""
        from spheroidd.inference.dose_response.observations import Curve

        return Curve(self.name, self.doses, self.responses, self.weights, control, self.dose_unit)


def table_curves(table: FitTable, wanted: TableColumns) -> list[TableCurve]:
    """The table's curves in the order of their first rows; the controls' rows are in every curve they belong to."""
    by = _split_names(table, wanted.by)
    controls = {value.casefold() for value in wanted.controls}
    doses, unit = table.doses(wanted.dose, controls, wanted.dose_unit)
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
        said, seen = unit.name if unit else None, [responses[i] for i in rows]
        found.append(TableCurve(name, labels, [doses[i] for i in rows], said, seen, **picked))
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
