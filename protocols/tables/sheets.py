"""Tables as spreadsheets, instruments and people save them: text of any encoding and separator, or an Excel workbook.

The only module that knows encodings, separators and workbooks. It gives cells as text, stripped, with their lines; what
they mean is decided by its callers, and what a comma in a number means by `numbers`.
"""

import csv
import errno
import io
import re
import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, time
from pathlib import Path
from typing import Any

from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.regular_file import read_regular
from spheroidd.protocols.tables.cells import unguarded
from spheroidd.protocols.tables.numbers import ExactNumber, proves_points

MAX_BYTES = 1 << 26  # a 1536-well plate read a hundred times at ten wavelengths is 15 MB
_MAX_CELLS = 4_000_000  # a hundred readings of a 1536-well plate at ten wavelengths have 1.5 million
_SEPARATORS = ("\t", ";", ",", "|")
_KINDS = {
    b"\xd0\xcf\x11\xe0": "an old Excel workbook (.xls)",
    b"%PDF": "a PDF",
    b"<?xml": "XML",
    b"<html": "a web page",
    b"<!DOCTYPE": "a web page",
}


@dataclass(frozen=True, slots=True)
class Sheet:
    """One table: rows of stripped cells, not all of one length, and the line of each in the file, from 1.

    `title` is the sheet's name in a workbook, "" in a text; `separator` is "" in a workbook. Blank rows are kept.
    """

    path: Path
    title: str
    rows: tuple[tuple[str, ...], ...]
    lines: tuple[int, ...]
    separator: str

    def where(self, row: int) -> str:
        """The place of a row, for messages."""
        sheet = f", sheet {self.title!r}" if self.title else ""
        return f"{self.path}{sheet}, line {self.lines[row]}"

    def points(self) -> bool:
        """Whether decimal signs are points in all of it: commas separate its cells, or its numbers prove it."""
        return self.separator == "," or proves_points(cell for row in self.rows for cell in row)


def read_sheets(path: Path) -> tuple[Sheet, ...]:
    """The sheets of a workbook that hold something, or the one table of a text; ConfigError where there is none."""
    where = str(path)
    data = _bytes(path)
    kind = next((kind for start, kind in _KINDS.items() if data[:9].lower().startswith(start.lower())), None)
    if kind:
        raise ConfigError(f"this is {kind}", where=where, do="save it as .xlsx, or as text or CSV")
    if data.startswith(b"PK\x03\x04"):
        return tuple(_workbook(path, data))
    text = _decoded(data, where)
    return (_text(path, text),) if text.strip() else ()


def _bytes(path: Path) -> bytes:
    try:
        return read_regular(path, MAX_BYTES)
    except OSError as error:
        do = "give a table of one plate" if error.errno == errno.EFBIG else "check the path"
        raise ConfigError(f"cannot be read: {error.strerror}", where=str(path), do=do) from error


def _decoded(data: bytes, where: str) -> str:
    """UTF-8 or UTF-16 where it says so or is so, else Windows-1252, what spreadsheets of the West write."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        encodings: tuple[str, ...] = ("utf-16",)
    elif b"\0" in data[:4096]:
        encodings = _unmarked_utf16(data)
    else:
        encodings = ("utf-8-sig", "cp1252", "latin-1")
    for encoding in encodings:
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            return text
    raise ConfigError("its text is of no known encoding", where=where, do="save it again, as text in UTF-8")


def _unmarked_utf16(data: bytes) -> tuple[str, ...]:
    """Of Latin text every second byte is 0; anything else with zeros is no text."""
    head = data[: min(len(data), 4096) // 2 * 2]
    for encoding, zeros in (("utf-16-le", head[1::2]), ("utf-16-be", head[0::2])):
        if zeros.count(0) > 0.8 * len(zeros):
            return (encoding,)
    return ()


def _text(path: Path, text: str) -> Sheet:
    separator, skipped = _separator(text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True)
    try:
        rows = [(line, row) for line, row in _numbered(reader) if line > skipped]
    except csv.Error as error:
        if separator == ",":  # only there must a cell with the separator in it be quoted
            do = "look for a quotation mark that is never closed, and save it as CSV"
            raise ConfigError(f"not a table: {error}", where=f"{path}, line {reader.line_num}", do=do) from error
        lines = re.split(r"\r\n|\r|\n", text)[skipped:]
        rows = [(n, line.split(separator)) for n, line in enumerate(lines, start=skipped + 1)]
    if sum(len(row) for _, row in rows) > _MAX_CELLS:
        raise ConfigError(f"it has more than {_MAX_CELLS} cells", where=str(path), do="give a table of one plate")
    cells = tuple(tuple(unguarded(cell.strip()) for cell in row) for _, row in rows)
    return Sheet(path, "", cells, tuple(line for line, _ in rows), separator)


def _numbered(reader: Any) -> Iterator[tuple[int, list[str]]]:
    """Every row with the line that it starts in."""
    start = 1
    for row in reader:
        yield start, row
        start = reader.line_num + 1


def _separator(text: str) -> tuple[str, int]:
    """What separates the cells, and how many first lines say so (Excel's `sep=;`)."""
    lines = [re.sub(r'"[^"]*"', "", line) for line in text.splitlines()[:2000] if line.strip()]
    if match := re.fullmatch(r"sep=(.)\s*", lines[0].lstrip("\ufeff")) if lines else None:
        if match[1] in _SEPARATORS:
            return match[1], 1
        lines = lines[1:]
    here = [sign for sign in _SEPARATORS if lines and sign in lines[0]]
    if len(here) == 1 and sum(here[0] in line for line in lines) > 0.3 * len(lines):
        return here[0], 0
    for sign in _SEPARATORS:  # a tab or a semicolon is no part of a number, a comma may be
        if sum(sign in line for line in lines) > 0.3 * len(lines):
            return sign, 0
    return max(_SEPARATORS, key=lambda sign: sum(line.count(sign) for line in lines)), 0


# -- workbooks ----------------------------------------------------------------------------------------------------


def _workbook(path: Path, data: bytes) -> Iterator[Sheet]:
    where = str(path)
    _check_zip(data, where)
    for sheet, formulas in zip(_sheets(data, where, values=True), _sheets(data, where, values=False), strict=True):
        if sheet.sheet_state != "visible":
            continue
        n_rows, n_columns = sheet.max_row or 0, sheet.max_column or 0
        if n_rows * n_columns > _MAX_CELLS:
            what = f"sheet {sheet.title!r} spans {n_rows} rows and {n_columns} columns"
            raise ConfigError(what, where=where, do="delete what stands far outside the table")
        _check_formulas(sheet, formulas, where)
        merged = {
            (row, column): sheet.cell(area.min_row, area.min_col).value
            for area in sheet.merged_cells.ranges
            for row in range(area.min_row, min(area.max_row, n_rows) + 1)
            for column in range(area.min_col, min(area.max_col, n_columns) + 1)
        }
        rows = tuple(
            tuple(_cell(merged.get((cell.row, cell.column), cell.value)) for cell in row) for row in sheet.iter_rows()
        )
        if any(any(row) for row in rows):
            yield Sheet(path, sheet.title, rows, tuple(range(1, len(rows) + 1)), "")


def _check_zip(data: bytes, where: str) -> None:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            names, size = set(file.namelist()), sum(entry.file_size for entry in file.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise ConfigError(f"a broken workbook: {error}", where=where, do="save it again as .xlsx") from error
    if "xl/workbook.xml" not in names:
        raise ConfigError("this is a zip and no Excel workbook", where=where, do="save the table as .xlsx or CSV")
    if size > 4 * MAX_BYTES:
        raise ConfigError(f"it unpacks to {size >> 20} MB", where=where, do="give a workbook of one plate")


def _sheets(data: bytes, where: str, *, values: bool) -> list[Any]:
    import openpyxl  # slow to import, and only workbooks need it

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of styles and drop-down lists that it does not know: cells are enough
            book = openpyxl.load_workbook(io.BytesIO(data), data_only=values)
    except Exception as error:  # it raises whatever its parsers raise, from KeyError to zlib.error
        raise ConfigError(f"a broken workbook: {error}", where=where, do="save it again as .xlsx") from error
    return list(book.worksheets)


def _check_formulas(sheet: Any, formulas: Any, where: str) -> None:
    """A formula whose value was never computed looks like an empty cell; other programs than Excel write such."""
    for row in formulas.iter_rows():
        for cell in row:
            if cell.data_type == "f" and sheet.cell(cell.row, cell.column).value is None:
                what = f"sheet {sheet.title!r}, cell {cell.coordinate} holds a formula that was never computed"
                raise ConfigError(what, where=where, do="open the workbook in Excel, save it, and try again")


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, int):
        return ExactNumber(value)
    if isinstance(value, float):
        shown = float(f"{value:.15g}")  # Excel's own precision: 0.1 + 0.2 is 0.3 there
        return ExactNumber(int(shown) if shown.is_integer() and abs(shown) < 1e15 else repr(shown))
    if isinstance(value, date | time):
        return value.isoformat()
    return str(value).strip()
