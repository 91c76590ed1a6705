"""SoftMax Pro's text export (SpectraMax readers), in all its modes.

An export is blocks that begin with "Plate:" or "Group:" and end with "~End". A plate block is pictures of the plate
("PlateFormat": one line of cells a plate row, wavelengths side by side, readings below each other) or a column a well
("TimeFormat": readings and wavelengths below each other); what was reduced from the readings follows under a second
line of labels. Cells are placed by the labels above them; where the counts in the block's first line say otherwise,
the block is refused. A group block lists wells with their values. All else (notes, standards' fits) is left.
"""

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from spheroidd.inference.viability.mtt import ReaderBlock
from spheroidd.inference.viability.reader_cells import block_of
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.plate_map.labels import column_runs, is_well
from spheroidd.protocols.tables.sheets import Sheet
from spheroidd.protocols.well import WellId

_ROWS_OF = {3: 2, 4: 3, 6: 4, 8: 6, 12: 8, 24: 16, 48: 32}  # columns to rows of every plate that is made
_AGAIN = "export the plate from SoftMax Pro again, as text with all its columns"


@dataclass(frozen=True, slots=True)
class _Head:
    """The first line of a plate block. `columns` and `rows` are those that were read, from 0, where it says so."""

    name: str
    form: str
    kind: str
    mode: str
    data: str
    wavelengths: tuple[str, ...]
    columns: range | None
    rows: range | None

    @classmethod
    def parse(cls, cells: Sequence[str]) -> "_Head":
        """Fields count from the word Raw or Reduced: fluorescence has one more before it than absorbance."""

        def text(at: int) -> str:
            return cells[at] if 0 <= at < len(cells) else ""

        data = next((at for at, cell in enumerate(cells) if at > 3 and cell in ("Raw", "Reduced", "Both")), None)
        waves: tuple[str, ...] = ()
        columns = rows = None
        if data is not None:  # older exports lack the fields; then the labels stand alone
            waves = tuple(text(data + 9).split())
            rows_at = data + 13 if text(5) == "Absorbance" else data + 22
            columns, rows = (_range(text(at), text(at + 1)) for at in (data + 10, rows_at))
        return cls(text(1) or "Plate", text(3), text(4), text(5), text(data or -1), waves, columns, rows)


_NUMBER = re.compile(r"[0-9]{1,4}")  # of columns, rows, nanometres


def _range(first: str, count: str) -> range | None:
    if not all(_NUMBER.fullmatch(text) and 0 < int(text) < 100 for text in (first, count)):
        return None
    return range(int(first) - 1, int(first) - 1 + int(count))


@dataclass(frozen=True, slots=True)
class _Section:
    """A line of labels and the lines under it, as row numbers of the sheet; `reduced` for the second of a block."""

    labels: int
    body: range
    reduced: bool


def is_softmax(sheet: Sheet) -> bool:
    """Whether its first line or its blocks are SoftMax Pro's."""
    first = next((row[0] for row in sheet.rows if any(row)), "")
    return first.startswith("##BLOCKS=") or any(
        row and ((row[0] == "Plate:" and len(row) > 3) or _group(row)) for row in sheet.rows
    )


def softmax_blocks(sheet: Sheet) -> Iterator[ReaderBlock]:
    """Every block of readings of an export; ConfigError where two plates have one name or one is not as it says.

    SoftMax Pro separates no thousands: a point in it is a decimal sign.
    """
    seen: set[str] = set()
    for start, row in enumerate(sheet.rows):
        if not row or not (row[0] == "Plate:" or _group(row)):
            continue
        stop = next((n for n in range(start + 1, len(sheet.rows)) if _ends(sheet.rows[n])), len(sheet.rows))
        read = _plate if row[0] == "Plate:" else _wells
        for block in read(sheet, start, stop):
            if block.name in seen and read is _wells:
                n = next(n for n in itertools.count(2) if f"{block.name} ({n})" not in seen)
                block = replace(block, name=f"{block.name} ({n})")
            elif block.name in seen:
                do = "rename one in the reader"
                raise ConfigError(f"two blocks are called {block.name!r}", where=sheet.where(start), do=do)
            seen.add(block.name)
            yield block


def _group(row: Sequence[str]) -> bool:
    return row[0].startswith("Group:")


def _ends(row: Sequence[str]) -> bool:
    return bool(row) and (row[0].startswith("~End") or row[0] == "Plate:" or _group(row))


def _plate(sheet: Sheet, start: int, stop: int) -> Iterator[ReaderBlock]:
    head = _Head.parse(sheet.rows[start])
    if head.form not in ("PlateFormat", "TimeFormat"):
        do = "export the plate in plate or time format"
        raise ConfigError(f"{head.name} is in a format {head.form!r}", where=sheet.where(start), do=do)
    labelled = [n for n in range(start + 1, stop) if _labels(head, sheet, start, n)]
    if labelled[:1] != [start + 1]:
        what = f"{head.name} has no line of {'columns' if head.form == 'PlateFormat' else 'wells'} above its cells"
        raise ConfigError(what, where=sheet.where(start), do=_AGAIN)
    for n, at in enumerate(labelled):
        end = labelled[n + 1] if n + 1 < len(labelled) else stop
        section = _Section(at, range(at + 1, end), reduced=n > 0 or head.data == "Reduced")
        yield from (_pictures if head.form == "PlateFormat" else _times)(sheet, head, section)


def _labels(head: _Head, sheet: Sheet, start: int, n: int) -> bool:
    """The line after the plate's is labels; so is a later one like it, without a temperature, after an empty line."""
    row, first = sheet.rows[n], sheet.rows[start + 1]
    find = _well_places if head.form == "TimeFormat" else column_runs
    if n == start + 1:
        return bool(find(row))
    blank_before = not any(sheet.rows[n - 1])
    return blank_before and bool(find(row)) and find(row)[:1] == find(first)[:1] and not any(row[:2])


def _well_places(row: Sequence[str]) -> list[tuple[int, str]]:
    return [(at, cell) for at, cell in enumerate(row) if is_well(cell)]


def _words(head: _Head, wave: int, reading: str, reduced: bool) -> str:
    """A block's name: the plate, the wavelength where there are several, the reading where there are several."""
    waves = head.wavelengths
    which = waves[wave] if len(waves) > 1 and not reduced else ""
    if which and waves.count(which) > 1:
        which += f" ({waves[: wave + 1].count(which)})"
    return " ".join(word for word in (head.name, "reduced" if reduced else "", which, reading) if word)


def _wavelength(head: _Head, wave: int, reduced: bool) -> int | None:
    """In nanometres; None for what is no absorbance, and for what was reduced (its formula is not in the file)."""
    if head.mode != "Absorbance" or reduced or wave >= len(head.wavelengths):
        return None
    text = head.wavelengths[wave]
    return int(text) if _NUMBER.fullmatch(text) else None


def _pictures(sheet: Sheet, head: _Head, section: _Section) -> Iterator[ReaderBlock]:
    """Pictures of the plate: `runs` of labels side by side, a picture for each reading below each other."""
    runs = column_runs(sheet.rows[section.labels])
    where = sheet.where(section.labels)
    n_waves = max(len(head.wavelengths), 1)
    if len(runs) != n_waves and not section.reduced:
        what = f"{head.name} names {n_waves} wavelengths and has {len(runs)} sets of columns"
        raise ConfigError(what, where=where, do=_AGAIN)
    width = max(run.at + len(run.columns) for run in runs)
    readings = list(_readings(sheet, section, runs[0].at, width))
    for n, lines in enumerate(readings, start=1):
        rows = _plate_rows(sheet, head, lines, runs[0].columns, where)
        reading = sheet.rows[lines[0]][0] if head.kind == "Spectrum" else f"reading {n}" if len(readings) > 1 else ""
        for wave, run in enumerate(runs):
            cells = {
                WellId(row, column): _cell(sheet.rows[line], run.at + x)
                for line, row in rows.items()
                for x, column in enumerate(run.columns)
            }
            read = _read_part(head, cells, sheet.where(lines[0]))
            name = _words(head, wave, reading, section.reduced)
            nm = _wavelength(head, wave, section.reduced)
            yield block_of(name, read, sheet.where(lines[0]), points=True, wavelength_nm=nm)


def _readings(sheet: Sheet, section: _Section, first: int, width: int) -> Iterator[list[int]]:
    """The lines of each picture: a line without cells for the plate, not even empty ones, ends it."""
    lines: list[int] = []
    for n in section.body:
        if len(sheet.rows[n]) > first + 1 or (len(sheet.rows[n]) > first and sheet.rows[n][first]):
            lines.append(n)
        elif lines:
            yield lines
            lines = []
    if lines:
        yield lines


def _plate_rows(sheet: Sheet, head: _Head, lines: list[int], columns: Sequence[int], where: str) -> dict[int, int]:
    """Line of the file to row of the plate. A picture has all rows of the plate, or just those that were read."""
    whole = _ROWS_OF.get(len(columns)) if columns[0] == 0 else None
    if len(lines) == whole:
        return {line: row for row, line in enumerate(lines)}
    if head.rows is not None and len(lines) == len(head.rows):
        return dict(zip(lines, head.rows, strict=True))
    promised = len(head.rows) if head.rows is not None else whole
    what = f"{head.name} promises {promised or 'no'} rows of cells and has {len(lines)}"
    raise ConfigError(what, where=where, do="export the plate again: a row is missing")


def _read_part(head: _Head, cells: dict[WellId, str], where: str) -> dict[WellId, str]:
    """The wells that were read; refused where readings stand in others than the block's first line says."""
    if head.columns is None or head.rows is None:
        return {well: text for well, text in cells.items() if text}
    inside = {well for well in cells if well.column in head.columns and well.row in head.rows}
    outside = sorted(well for well, text in cells.items() if text and well not in inside)
    if outside:
        said = (
            f"columns {head.columns.start + 1} to {head.columns.stop}, rows {head.rows.start + 1} to {head.rows.stop}"
        )
        what = f"{head.name} says that {said} were read, and its labels put a reading in {outside[0]}"
        raise ConfigError(what, where=where, do=_AGAIN)
    return {well: cells[well] for well in sorted(inside)}


def _times(sheet: Sheet, head: _Head, section: _Section) -> Iterator[ReaderBlock]:
    """A column a well: a table for each wavelength below each other, in each a line for each reading."""
    labels = sheet.rows[section.labels]
    wells = {at: WellId.parse(cell) for at, cell in enumerate(labels) if is_well(cell)}
    if len(set(wells.values())) < len(wells):
        raise ConfigError(f"{head.name} has a well twice", where=sheet.where(section.labels), do=_AGAIN)
    tables: list[list[int]] = [[]]
    for n in section.body:
        if any(_cell(sheet.rows[n], at) for at in wells):
            tables[-1].append(n)
        elif tables[-1]:
            tables.append([])
    tables = [table for table in tables if table]
    n_waves = max(len(head.wavelengths), 1)
    if not tables:
        return  # a plate that was never read
    if len(tables) != n_waves and not section.reduced:
        what = f"{head.name} names {n_waves} wavelengths and has {len(tables)} tables"
        raise ConfigError(what, where=sheet.where(section.labels), do=_AGAIN)
    for wave, lines in enumerate(tables):
        for n, line in enumerate(lines, start=1):
            row = sheet.rows[line]
            reading = row[0] if head.kind == "Spectrum" else f"reading {n}" if len(lines) > 1 else ""
            cells = _read_part(head, {well: _cell(row, at) for at, well in wells.items()}, sheet.where(line))
            name = _words(head, wave, reading, section.reduced)
            nm = _wavelength(head, wave, section.reduced)
            yield block_of(name, cells, sheet.where(line), points=True, wavelength_nm=nm)


def _wells(sheet: Sheet, start: int, stop: int) -> Iterator[ReaderBlock]:
    """A group's wells and values, as a block of its own; nothing where it lists no wells."""
    head = sheet.rows[start]
    name = head[0].removeprefix("Group:").strip() or _cell(head, 1) or "Group"
    titles = [cell.lower() for cell in sheet.rows[start + 1]] if start + 1 < stop else []
    at_value = next((titles.index(title) for title in ("values", "value") if title in titles), None)
    if "wells" not in titles or at_value is None:
        return
    cells: dict[WellId, str] = {}
    for n in range(start + 2, stop):
        text = _cell(sheet.rows[n], titles.index("wells"))
        if not is_well(text):
            continue
        well = WellId.parse(text)
        if well in cells:
            do = "export the group again"
            raise ConfigError(f"well {well} stands twice in a group", where=sheet.where(n), do=do)
        cells[well] = _cell(sheet.rows[n], at_value)
    if cells:
        yield block_of(name, cells, sheet.where(start), points=True)


def _cell(row: Sequence[str], at: int) -> str:
    return row[at] if at < len(row) else ""
