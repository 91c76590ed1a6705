"""Result rows for people (a table) and for programs (JSON, CSV). What is not known is shown as such, never as 0."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from rich.table import Table
from rich.text import Text

from spheroidd.daemon.catalog.rows import Exclusion, ResultRow
from spheroidd.protocols.errors import StorageError
from spheroidd.protocols.plate import Treatment, WellRole
from spheroidd.protocols.result_columns import ROW, Place, seen_in, stored
from spheroidd.protocols.results import WellStatus
from spheroidd.protocols.tables.cells import guarded
from spheroidd.protocols.trust import Trust, doubts

UNKNOWN = "—"
COLUMNS = tuple(column.name for column in ROW)
TRUST_STYLES: dict[Trust | None, str] = {Trust.CHECK: "yellow", Trust.FAIL: "bold red"}
STYLES = {
    WellStatus.QUEUED: "dim",
    WellStatus.ACQUIRING: "cyan",
    WellStatus.STORED: "blue",
    WellStatus.SCORING: "magenta",
    WellStatus.PROVISIONAL: "yellow",
    WellStatus.FINAL: "green",
    WellStatus.FAILED: "bold red",
    WellStatus.INCOMPLETE: "bold red",
    WellStatus.SKIPPED: "dim",
    WellStatus.ABORTED: "dim",
    WellStatus.STOPPED: "yellow",
}


def to_json(rows: Sequence[ResultRow]) -> str:
    """A JSON list with one object for each row."""
    return json.dumps([row.values() for row in rows], indent=1, allow_nan=False)


def write_csv(rows: Sequence[ResultRow], path: Path) -> None:
    """Write one line for each row, an empty cell for what is not known, texts `guarded`; StorageError if it cannot."""
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows({name: _csv_cell(value) for name, value in row.values().items()} for row in rows)
    except OSError as error:
        do = "choose a file you may write to"
        raise StorageError(f"cannot write the results: {error.strerror}", where=str(path), do=do) from error


def _csv_cell(value: object) -> object:
    found = stored(value)
    return guarded(found) if isinstance(found, str) else found


def results_table(
    rows: Sequence[ResultRow], title: str | None = None, *, width: int | None = None, one_line: bool = False
) -> Table:
    """The wells with their treatment, figures, state and, where a figure is missing, why.

    A column that would be empty in every row is left out, and so are those that matter least until the table fits
    `width` characters. With `one_line` no row takes more than one: a reason that is longer is cut.
    """
    table = Table(title=title, box=None, pad_edge=False, header_style="bold")
    cells = [_cells(row) for row in rows]
    shown = [name for name in _ALIGN if name in _ALWAYS or any(str(line[name]) not in ("", UNKNOWN) for line in cells)]
    most: dict[str, int] = {}
    if width is not None:
        shown = _fitting(shown, cells, width)
        left = width - sum(_natural(name, cells) + _GAP for name in shown if name not in _WIDE) + _GAP
        for name in (name for name in _WIDE if name in shown and one_line):
            later = sum(_WIDE[other] + _GAP for other in shown if other in _WIDE and other not in (name, *most))
            most[name] = max(_WIDE[name], min(_natural(name, cells), left - _GAP - later))
            left -= most[name] + _GAP
    for name in shown:
        wide = name in _WIDE and not one_line
        overflow: Literal["fold", "ellipsis"] = "fold" if wide else "ellipsis"
        table.add_column(name, justify=_ALIGN[name], no_wrap=not wide, overflow=overflow, max_width=most.get(name))
    for line in cells:
        table.add_row(*(line[name] for name in shown))
    return table


# What may be folded or cut, and the fewest characters that are worth a column.
_WIDE = {"treatment": 12, "notes": 12, "reason": 14}
_GAP = 2  # characters between two columns
_LEAST_FIRST = ("after", "notes", "dead", "live", "V count", "patient", "reason", "V score", "stack")


def _natural(name: str, cells: Sequence[dict[str, str | Text]]) -> int:
    return max(len(name), *(len(str(line[name])) for line in cells), 0)


def _fitting(names: list[str], cells: Sequence[dict[str, str | Text]], width: int) -> list[str]:
    """The columns that are left when those that matter least are gone until the rest fits."""
    needed = {name: min(_natural(name, cells), _WIDE.get(name, width)) for name in names}
    kept = list(names)
    for name in _LEAST_FIRST:
        if sum(needed[one] + _GAP for one in kept) - _GAP <= width:
            break
        if name in kept:
            kept.remove(name)
    return kept


(_TRUST,) = (column for column, _ in seen_in(Place.TABLE) if column.name == "trust")  # coloured, beside the status
_FIGURES = tuple((column, shown) for column, shown in seen_in(Place.TABLE) if column is not _TRUST)
_ALIGN: dict[str, Literal["left", "right"]] = {
    "well": "left",
    "stack": "right",
    "treatment": "left",
    "patient": "left",
    "notes": "left",
    "slices": "right",
    **{shown.heading: "left" if column.kind == "text" else "right" for column, shown in _FIGURES},
    "trust": "left",
    "status": "left",
    "reason": "left",
}
_ALWAYS = ("well", "treatment", "slices", "trust", "status", *(shown.heading for _, shown in _FIGURES if shown.always))


def _cells(row: ResultRow) -> dict[str, str | Text]:
    result = row.result
    reasons = (excluded(row.exclusion), result.reason, *doubts(result.trust_flags))
    return {
        "well": result.well,
        "stack": str(result.stack or ""),
        "treatment": describe(row.treatment),
        "patient": row.treatment.patient or "",
        "notes": "; ".join(f"{name} {text}" for name, text in row.annotations.items()),
        "slices": f"{result.n_slices_acked}/{result.n_slices_expected}" if result.n_slices_expected else UNKNOWN,
        **{shown.heading: column.in_words(result, Place.TABLE, unknown=UNKNOWN) for column, shown in _FIGURES},
        "trust": Text(_TRUST.in_words(result, unknown=UNKNOWN), style=TRUST_STYLES.get(result.trust, "")),
        "status": Text(result.status, style=STYLES[result.status]),
        "reason": Text("; ".join(filter(None, reasons)), style="dim"),
    }


def excluded(exclusion: Exclusion | None) -> str:
    """ "excluded by ann: bubble in the well", or nothing."""
    return f"excluded by {exclusion.who}: {exclusion.reason}" if exclusion else ""


def describe(treatment: Treatment) -> str:
    """A treatment in a few words: "C01 15.8 uM", "untreated", "killed"."""
    if treatment.role is not WellRole.SAMPLE:
        return _ROLES[treatment.role]
    return "sample" if treatment.compound is None else f"{treatment.compound} {treatment.dose_um:g} uM"


_ROLES = {WellRole.NEGATIVE_CONTROL: "untreated", WellRole.POSITIVE_CONTROL: "killed", WellRole.EMPTY: "empty"}
