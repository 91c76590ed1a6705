"""Tables of plate readers and of people, found by their labels wherever they stand in a sheet.

Four shapes, whatever the reader (Tecan Magellan, i-control and Spark, BMG MARS, BioTek Gen5, EnVision, a spreadsheet):
a picture of the plate (column numbers above, row letters beside), a list (a column of wells and columns of readings),
wells as columns (a line for each reading), and wells as lines under "Cycle Nr.". What a table is called, its wavelength
and whether it holds readings at all (a plate's layout looks the same) is told by the words above and beside it.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from spheroidd.inference.viability.mtt import ReaderBlock, Unit
from spheroidd.inference.viability.reader_cells import block_of
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.plate_map.labels import ColumnRun, column_runs, is_stray_row, is_well, row_of
from spheroidd.protocols.tables.sheets import Sheet
from spheroidd.protocols.well import MAX_COLUMNS, MAX_ROWS, WellId

UNITS = {
    "od": Unit.OD,
    "absorbance": Unit.OD,
    "value": Unit.OD,
    "viability": Unit.PERCENT,
    "viability_percent": Unit.PERCENT,
    "mtt_percent": Unit.PERCENT,
}
MOST_SHARE = 1.5  # of 1: a well above its controls
_WELL_TITLES = {"well", "wells", "well position", "well positions", "well pos", "well name", "position", "well number"}
_ROW_TITLES = {"well row", "row", "well_row"}
_COLUMN_TITLES = {"well col", "well column", "column", "col", "well_col", "well_column"}
_CYCLES = re.compile(r"cycle( nr)?\.?|cycles */ *well|cycle number", re.I)
_NO_TITLE = re.compile(
    r"(conc(entration)?s?|doses?|dilutions?|samples?|groups?|compounds?)( ?(ids?|names?|\(.*\)))?", re.I
)
_NO_READINGS = re.compile(r"layout|plate ?map|plate layout|well id|name|conc(/dil)?|group|plate ?type", re.I)
_READINGS = re.compile(r"results?\b|raw data|(calculated|corrected|reduced) ", re.I)
_READING_TITLE = re.compile(
    r"raw data|reading|signal|absorb|\babs\b|\bod\b|\bod_?\d|fluor|lumin|intensity|\brfu\b|\brlu\b|counts?\b"
    r"|\blabel ?\d|(?<!\d)[2-9]\d\d(?!\d)|\bvalues?\b|\bresults?\b|\bcps\b",
    re.I,
)
_STATISTIC = re.compile(
    r"\bcount\b|mean|average|std|\bsd\b|\bcv\b|\bconc|dilution|date|time|barcode|\bid\b|meas.?info", re.I
)
_DEVIATION = re.compile(r"(st(andard|d|\.)?[ .]?dev(iation)?\.?|std|sd|sem|%? ?cv( ?\[?%\]?)?)", re.I)
_COUNT = re.compile(r"[0-9]{1,4}")  # of rows or columns
_WAVELENGTH = re.compile(r"(?<![\d./])([2-9]\d\d)(?![\d./])")
_DERIVED = re.compile(r"blank|conc|ratio|corrected|reduced|delta|-\s*[2-9]\d\d|/", re.I)


@dataclass(slots=True)
class _Before:
    """The lines of words above a table, since the table before it; `labels` are a Tecan's names for wavelengths."""

    lines: list[tuple[str, ...]] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)

    def title(self) -> str:
        """The table's name where a line gives it (Spark), else the last line of words above it; no reference's."""
        words = [[cell for cell in line if cell] for line in self.lines]
        named = [line[1] for line in words if len(line) == 2 and line[0].rstrip(": ").casefold() == "name"]
        if len(named) == 1:
            return named[0]
        return next((" ".join(line) for line in reversed(words) if not re.match(r"reference", line[0], re.I)), "")

    def holds_readings(self) -> bool:
        """Not right below what names doses or samples, nor below "Layout" or "Platemap", unless "Results" follows."""
        if self.lines and _NO_TITLE.fullmatch(next((cell for cell in self.lines[-1] if cell), "").rstrip(": ")):
            return False
        for line in reversed(self.lines):
            first = next((cell for cell in line if cell), "").rstrip(": ")
            if _READINGS.match(first):
                return True
            if re.fullmatch(r"layout|plate ?map|plate layout", first, re.I):
                return False
        return True

    def label(self) -> str:
        """ "Label1", where a Tecan says so once above the table."""
        found = {match[1] for line in self.lines for cell in line if (match := _TECAN_LABEL.fullmatch(cell))}
        return found.pop() if len(found) == 1 else ""

    def wavelength_nm(self, text: str) -> int | None:
        """Of an absorbance: in its own name, else the only one that the settings above the table name."""
        if (label := re.sub(r"\s", "", text).lower()) in self.labels:
            return self.labels[label]
        if _DERIVED.search(text):
            return None
        if found := _WAVELENGTH.findall(text):
            return int(found[0]) if len(set(found)) == 1 else None
        said = {nm for line in self.lines for nm in _said_wavelength(line)}
        return said.pop() if len(said) == 1 else None


_TECAN_LABEL = re.compile(r"(?:Label: *)(\S.*)|(?!)", re.I)


def _said_wavelength(line: Sequence[str]) -> Iterator[int]:
    """ "Wavelength | 570 | nm", "Measurement wavelength: 570 nm", "Wavelengths: 570"; not a reference's."""
    for at, cell in enumerate(line):
        if re.match(r"(measurement )?wavelengths?\b", cell, re.I):
            text = " ".join(part for part in line[at:] if part)
            found = _WAVELENGTH.findall(text)
            if len(found) == 1:
                yield int(found[0])


def table_blocks(sheet: Sheet) -> Iterator[ReaderBlock]:
    """Every table of readings of a sheet, in its order, each with a name of its own. Lines of words are passed over."""
    before = _Before(labels=_named_wavelengths(sheet))
    points = sheet.points() or (sheet.separator != ";" and _is_readers(sheet))
    names: dict[str, int] = {}
    at = 0
    while at < len(sheet.rows):
        for read in (_pictures, _list, _wells_as_columns, _wells_as_lines, _whole_plate):
            found = read(sheet, at, before, points)
            if found is not None:
                break
        else:
            if is_stray_row(sheet.rows[at], _is_number) and before.holds_readings():
                what = (
                    f"row {next(filter(None, sheet.rows[at]))} of a plate stands where no column numbers stand above it"
                )
                do = "put the rows of a picture right below its column numbers, A first, without a line between them"
                raise ConfigError(what, where=sheet.where(at), do=do)
            if any(sheet.rows[at]):
                before.lines.append(sheet.rows[at])
            at += 1
            continue
        at, blocks = found
        before.lines.clear()
        for block in blocks:
            if not block.values:
                continue
            names[block.name] = names.get(block.name, 0) + 1
            n = names[block.name]
            yield block if n == 1 else replace(block, name=f"{block.name} ({n})")


def _is_number(cell: str) -> bool:
    return re.fullmatch(r"-?\d+([.,]\d+)?([eE][-+]?\d+)?", cell) is not None


_SOFTWARE = re.compile(
    r"software version|experiment file path|user: |test name: |plate information$|basic assay information"
    r"|application: |tecan|magellan|device: |ensight results",
    re.I,
)


def _is_readers(sheet: Sheet) -> bool:
    """Whether a plate reader's software wrote it: none separates thousands, so that a point is a decimal sign."""
    return any(_SOFTWARE.match(row[0]) for row in sheet.rows if row)


def _named_wavelengths(sheet: Sheet) -> dict[str, int]:
    """ "Label1=535" in any cell, as Magellan writes it."""
    found = (re.fullmatch(r"(label ?\d+) *[=:] *([2-9]\d\d)( ?nm)?", cell, re.I) for row in sheet.rows for cell in row)
    return {re.sub(r"\s", "", match[1]).lower(): int(match[2]) for match in found if match}


_Found = tuple[int, list[ReaderBlock]] | None


def _pictures(sheet: Sheet, at: int, before: _Before, points: bool) -> _Found:
    """Pictures side by side: column numbers in this line, row letters in the lines below, left of the cells."""
    there = column_runs(sheet.rows[at])
    runs = [run for run in there if _row_label_at(sheet, at, run) is not None]
    if not runs:
        return None
    below = sheet.rows[at + 1] if at + 1 < len(sheet.rows) else ()
    if any(
        run.at > runs[0].at and run not in runs and _is_number("".join(below[run.at : run.at + 1])) for run in there
    ):
        what, do = "a picture of a plate has no row letters of its own", "write them left of each picture"
        raise ConfigError(what, where=sheet.where(at), do=do)
    found = [_picture(sheet, at, run, before, points) for run in runs]
    stop = max(stop for stop, _ in found)
    return stop, [block for _, blocks in found for block in blocks] if before.holds_readings() else []


def _row_label_at(sheet: Sheet, at: int, run: ColumnRun) -> int | None:
    """Where the row letters stand: the nearest cell left of the run in the next line that is not blank."""
    below = next((row for row in sheet.rows[at + 1 : at + 3] if any(row)), ())
    for place in range(run.at - 1, -1, -1):
        if place < len(below) and below[place]:
            return place if row_of(below[place]) is not None else None
    return None


def _picture(sheet: Sheet, at: int, run: ColumnRun, before: _Before, points: bool) -> tuple[int, list[ReaderBlock]]:
    """One picture; several readings of a plate row stand below each other, each with its name at the line's end."""
    place = _row_label_at(sheet, at, run)
    width = run.at + len(run.columns)
    head = sheet.rows[at]  # a name at a line's end has no title above it; a mean or a deviation has
    named = not (width < len(head) and head[width]) and column_runs(head)[-1].at <= run.at
    parts: dict[str, dict[WellId, str]] = {}
    current, n_sub, n = -1, 0, at + 1
    while n < len(sheet.rows):
        row = sheet.rows[n]
        label = row[place] if place is not None and place < len(row) else ""
        letter = row_of(label)
        cells = [row[x] if x < len(row) else "" for x in range(run.at, width)]
        if letter is not None and letter >= current:
            n_sub = n_sub + 1 if letter == current else 0
            current = letter
        elif label or current < 0 or not any(row):
            if any(row) or current >= 0:
                break
            n += 1
            continue
        else:
            n_sub += 1
        side = row[width] if named and width < len(row) else ""
        name = side or (f"line {n_sub + 1}" if n_sub else "")
        part = parts.setdefault(name, {})
        for column, cell in zip(run.columns, cells, strict=True):
            well = WellId(current, column)
            if well in part:
                what = f"row {label or '?'} stands twice in a picture of the plate"
                raise ConfigError(what, where=sheet.where(n), do="export the plate again, or keep one of the two")
            part[well] = cell
        n += 1
    where = sheet.where(at)
    blocks = []
    for side, cells_of in parts.items():
        if _NO_READINGS.fullmatch(side):
            continue
        label = before.label()
        name = side or label or before.title() or "Plate"
        nm = before.wavelength_nm(name)
        if not side and label and nm:
            name = f"{label} {nm}"
        filled = {well: text for well, text in cells_of.items() if text}
        blocks.append(block_of(_short(name), filled, where, points=points, wavelength_nm=nm))
    return n, blocks


def _short(name: str) -> str:
    """A name that a person can type after --block."""
    return re.sub(r"\s+", " ", name).strip()[:80]


def _list(sheet: Sheet, at: int, before: _Before, points: bool) -> _Found:
    """A column of wells, or one of row letters and one of column numbers, and a block for each column of readings."""
    titles = [re.sub(r"\s+", " ", cell).strip(" :.").casefold() for cell in sheet.rows[at]]
    by_well = next((x for x, title in enumerate(titles) if title in _WELL_TITLES), None)
    by_row = next((x for x, title in enumerate(titles) if title in _ROW_TITLES), None)
    by_column = next((x for x, title in enumerate(titles) if title in _COLUMN_TITLES), None)
    if by_well is None and (by_row is None or by_column is None):
        return None
    rows = list(_list_rows(sheet, at, by_well, by_row, by_column))
    if not rows:
        return None
    chosen = _reading_columns(sheet, at, titles)
    stop = rows[-1][0] + 1
    if len(set(filter(None, titles))) < len(list(filter(None, titles))):
        raise ConfigError(_columns_are(sheet, at), where=sheet.where(at), do="give every column its own name")
    if not chosen:
        if not before.holds_readings() or len(sheet.rows) > stop + 1:
            return stop, []
        do = f"give the columns well and one of {', '.join(UNITS)}"
        raise ConfigError(_columns_are(sheet, at), where=sheet.where(at), do=do)
    seen: dict[WellId, int] = {}
    for n, well in rows:
        if well in seen:
            raise ConfigError(f"well {well} stands twice", where=sheet.where(n), do="keep one row for it")
        if any(sheet.rows[n][len(titles) :]) or (sheet.separator == "," and len(sheet.rows[n]) > len(titles)):
            do = "write decimals with a point, or separate cells by semicolons"
            raise ConfigError("more cells than columns", where=sheet.where(n), do=do)
        seen[well] = n
    blocks = []
    for x, unit in chosen.items():
        cells = {well: sheet.rows[n][x] if x < len(sheet.rows[n]) else "" for well, n in seen.items()}
        if unit is Unit.PERCENT:
            cells = {well: text.removesuffix("%").rstrip() for well, text in cells.items()}
        name = sheet.rows[at][x]
        name = name.lower() if titles[x].replace(" ", "_") in UNITS else name
        nm = before.wavelength_nm(name) if unit is Unit.OD else None
        blocks.append(block_of(_short(name), cells, sheet.where(at), points=points, unit=unit, wavelength_nm=nm))
        if name == "viability" and "%" not in "".join(
            sheet.rows[n][x] for n in seen.values() if x < len(sheet.rows[n])
        ):
            _refuse_shares(blocks[-1], sheet.where(at))
    return stop, blocks


def _refuse_shares(block: ReaderBlock, where: str) -> None:
    """Percents that are all 1 or less are shares, or the wells are dead to the last: nobody can tell."""
    most = max(block.values.values(), default=0.0)
    if 0 < most <= MOST_SHARE:
        what = f"the column {block.name!r} goes up to {most:g}, which could be percent or shares of 1"
        raise ConfigError(what, where=where, do="write percent, and call the column viability_percent")


def _columns_are(sheet: Sheet, at: int) -> str:
    return f"its columns are {', '.join(cell for cell in sheet.rows[at] if cell)[:200] or 'none'}"


def _reading_columns(sheet: Sheet, at: int, titles: Sequence[str]) -> dict[int, Unit]:
    """The columns that are readings: by their exact names, else by the words in them."""
    exact = {x: UNITS[name] for x, title in enumerate(titles) if (name := title.replace(" ", "_")) in UNITS}
    if exact:
        return exact
    return {
        x: Unit.OD
        for x, cell in enumerate(sheet.rows[at])
        if _READING_TITLE.search(cell) and not _STATISTIC.search(cell) and titles[x] not in _WELL_TITLES
    }


def _list_rows(
    sheet: Sheet, at: int, by_well: int | None, by_row: int | None, by_column: int | None
) -> Iterator[tuple[int, WellId]]:
    """The lines of a list and their wells; units may stand below the titles, and the first other line ends it."""
    started, passed = False, 0
    for n in range(at + 1, len(sheet.rows)):
        row = sheet.rows[n]
        if not any(row):
            if started and sheet.separator != "" and _all_blank(sheet, n):
                return
            continue
        text = _well_text(row, by_well, by_row, by_column)
        if is_well(text):
            started = True
            yield n, WellId.parse(text)
        elif started or passed == 3:
            if started and text and re.fullmatch(r"[A-Za-z]{1,2}\d{1,3}", text):
                _refuse_well(text, sheet.where(n))
            return
        else:
            if re.fullmatch(r"[A-Za-z]{1,2}\d{1,3}", text):
                _refuse_well(text, sheet.where(n))
            passed += 1


def _all_blank(sheet: Sheet, n: int) -> bool:
    return not any(any(row) for row in sheet.rows[n : n + 2])


def _refuse_well(text: str, where: str) -> None:
    try:
        WellId.parse(text)
    except ConfigError as error:
        raise ConfigError(error.what, where=where, do=error.do) from error


def _well_text(row: Sequence[str], by_well: int | None, by_row: int | None, by_column: int | None) -> str:
    if by_well is not None:
        return row[by_well] if by_well < len(row) else ""
    if by_row is None or by_column is None or max(by_row, by_column) >= len(row):
        return ""
    return row[by_row] + row[by_column]


def _wells_as_columns(sheet: Sheet, at: int, before: _Before, points: bool) -> _Found:
    """A line of wells with readings below: a block for each line that has any, but for deviations between readings."""
    labels = sheet.rows[at]
    wells = {x: WellId.parse(cell) for x, cell in enumerate(labels) if is_well(cell)}
    if len(wells) < 2 or len(wells) < 0.5 * sum(map(bool, labels)) or len(set(wells.values())) < len(wells):
        return None
    rows = []
    n = at + 1
    while n < len(sheet.rows) and any(sheet.rows[n]):
        cells = {well: sheet.rows[n][x] if x < len(sheet.rows[n]) else "" for x, well in wells.items()}
        if any(cells.values()) and not any(_DEVIATION.fullmatch(cell) for cell in sheet.rows[n][: min(wells)]):
            rows.append((n, cells))
        n += 1
    if not rows or not any(re.search(r"\d", text) for text in rows[0][1].values()):
        return None
    title = before.title() or "Plate"
    nm = before.wavelength_nm(title)
    blocks = []
    for count, (line, cells) in enumerate(rows, start=1):
        name = f"{title} reading {count}" if len(rows) > 1 else title
        blocks.append(block_of(_short(name), cells, sheet.where(line), points=points, wavelength_nm=nm))
    return n, blocks


def _wells_as_lines(sheet: Sheet, at: int, before: _Before, points: bool) -> _Found:
    """A Tecan's kinetics: "Cycle Nr." and its numbers, time and temperature below, then a line for each well."""
    head = sheet.rows[at]
    if not head or not _CYCLES.fullmatch(head[0].rstrip(":")):
        return None
    cycles = [x for x in range(1, len(head)) if re.fullmatch(r"\d+", head[x])]
    lines: dict[WellId, int] = {}
    n = at + 1
    while n < len(sheet.rows) and any(sheet.rows[n]):
        if is_well(first := sheet.rows[n][0]) and WellId.parse(first) not in lines:
            lines[WellId.parse(first)] = n
        n += 1
    if not cycles or not lines:
        return None
    title = before.label() or before.title() or "Plate"
    nm = before.wavelength_nm(title)
    blocks = []
    for x in cycles:
        cells = {well: sheet.rows[line][x] if x < len(sheet.rows[line]) else "" for well, line in lines.items()}
        name = f"{title} cycle {head[x]}"
        blocks.append(block_of(_short(name), cells, sheet.where(at), points=points, wavelength_nm=nm))
    return n, blocks


def _whole_plate(sheet: Sheet, at: int, before: _Before, points: bool) -> _Found:
    """EnVision's picture without labels, where it is as large as the plate that the file describes in words."""
    if not any(line[0] == "Background information" for line in before.lines if line):
        return None
    size = _plate_size(sheet)
    n = at
    while n < len(sheet.rows) and any(sheet.rows[n]):
        n += 1
    rows = [_trimmed(row) for row in sheet.rows[at:n]]
    if size is None or len(rows) != size[0] or any(len(row) != size[1] for row in rows):
        return None
    cells = {WellId(y, x): cell for y, row in enumerate(rows) for x, cell in enumerate(row)}
    title = " ".join(before.lines[-1][:2])
    nm = before.wavelength_nm(title)
    return n, [block_of(_short(f"Plate {title}"), cells, sheet.where(at), points=points, wavelength_nm=nm)]


def _trimmed(row: Sequence[str]) -> Sequence[str]:
    """Without the empty cell after the comma that ends EnVision's lines."""
    return row[:-1] if row and not row[-1] else row


def _plate_size(sheet: Sheet) -> tuple[int, int] | None:
    """ "Number of rows" and "Number of columns" of the plate's type."""
    found = {}
    for row in sheet.rows:
        words = [cell for cell in row if cell]
        if len(words) == 2 and words[0] in ("Number of rows", "Number of columns") and _COUNT.fullmatch(words[1]):
            found[words[0]] = int(words[1])
    size = (found.get("Number of rows", 0), found.get("Number of columns", 0))
    return size if 0 < size[0] <= MAX_ROWS and 0 < size[1] <= MAX_COLUMNS else None
