"""Result rows for people (a table) and for programs (JSON, CSV). What is not known is shown as such, never as 0."""

import csv
import json
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from spheroidd.daemon.rows import ResultRow
from spheroidd.protocols.errors import StorageError
from spheroidd.protocols.results import WellResult, WellStatus

UNKNOWN = "—"
COLUMNS = (*(field.name for field in fields(WellResult)), "role", "compound", "dose_um", "patient")
STYLES = {
    WellStatus.QUEUED: "dim",
    WellStatus.ACQUIRING: "cyan",
    WellStatus.STORED: "blue",
    WellStatus.SCORING: "magenta",
    WellStatus.PROVISIONAL: "yellow",
    WellStatus.FINAL: "green",
    WellStatus.FAILED: "bold red",
    WellStatus.INCOMPLETE: "bold red",
}


def record(row: ResultRow) -> dict[str, Any]:
    """A row as plain values by column, None for what is not known."""
    values = {name: getattr(row.result, name) for name in COLUMNS if hasattr(row.result, name)}
    treatment = row.treatment
    values |= {"compound": treatment.compound, "dose_um": treatment.dose_um, "patient": treatment.patient}
    return {**values, "status": row.result.status.value, "role": treatment.role.value}


def to_json(rows: Sequence[ResultRow]) -> str:
    """A JSON list with one object for each row."""
    return json.dumps([record(row) for row in rows], indent=1, allow_nan=False)


def write_csv(rows: Sequence[ResultRow], path: Path) -> None:
    """Write one line for each row, an empty cell for what is not known; StorageError where the disk refuses."""
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(record(row) for row in rows)
    except OSError as error:
        do = "choose a file you may write to"
        raise StorageError(f"cannot write the results: {error.strerror}", where=str(path), do=do) from error


def results_table(rows: Sequence[ResultRow], title: str | None = None) -> Table:
    """The wells with their treatment, figures, state and, where a figure is missing, why."""
    table = Table(title=title, box=None, pad_edge=False, header_style="bold")
    several = any(row.result.stack for row in rows)
    for name in ("well", *(("stack",) if several else ()), "role", "compound", "patient"):
        table.add_column(name)
    for name in ("dose uM", "slices", "n live", "n dead", "V count", "V control", "V score", "s after"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("status", no_wrap=True)
    table.add_column("reason", overflow="fold")
    for row in rows:
        table.add_row(*_cells(row, several))
    return table


def _cells(row: ResultRow, several: bool) -> list[str | Text]:
    result, treatment = row.result, row.treatment
    return [
        result.well,
        *((str(result.stack),) if several else ()),
        treatment.role.replace("_", " "),
        treatment.compound or "",
        treatment.patient or "",
        "" if treatment.dose_um is None else f"{treatment.dose_um:g}",
        f"{result.n_slices_acked}/{result.n_slices_expected}" if result.n_slices_expected else UNKNOWN,
        _number(result.n_live, "d"),
        _number(result.n_dead, "d"),
        _number(None if result.v_count is None else 100 * result.v_count, ".1f", " %"),
        _number(result.v_control, ".1f", " %"),
        _score(result),
        _number(result.latency_s, ".1f"),
        Text(result.status, style=STYLES[result.status]),
        Text(result.reason or "", style="dim"),
    ]


def _number(value: float | None, form: str, unit: str = "") -> str:
    return UNKNOWN if value is None else f"{value:{form}}{unit}"


def _score(result: WellResult) -> str:
    if result.v_score is None:
        return UNKNOWN
    if result.v_score_lo is None or result.v_score_hi is None:
        return f"{result.v_score:.0f} %"
    return f"{result.v_score:.0f} % ({result.v_score_lo:.0f} to {result.v_score_hi:.0f})"
