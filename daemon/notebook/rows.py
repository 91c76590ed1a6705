"""The tables behind a notebook's frames that no file has: rows by one chosen model, and what is true of a plate."""

from typing import Any

from spheroidd.daemon.catalog.reader import CatalogReader
from spheroidd.daemon.export.tables import WELLS, Column, Table, wells_table
from spheroidd.protocols.result_columns import ROW, stored

TRUTH = (
    Column("well", "text", "", "row letter and column number, A01"),
    Column("v_true_fraction", "number", "fraction", "the part of the field's cells that lives, 0 to 1"),
)


def rows_table(catalog: CatalogReader, plate: str, model_sha256: str | None) -> Table:
    """The rows of `wells_view` as one model measured them; None is each stack's latest."""
    latest = wells_table(catalog, [plate])
    if model_sha256 is None:
        return latest
    measured_at = {
        (row["well"], row["stack"]): row["at"] for row in catalog.query(_MEASURED, {"p": plate, "m": model_sha256})
    }
    geometry = {(row["well"], row["stack"]): row for row in latest.rows}
    rows = []
    for one in catalog.result_rows(plate, model_sha256):
        values, name = one.values(), (one.result.well, one.result.stack)
        row: dict[str, Any] = dict(geometry[name]) if name in geometry else {column.name: None for column in WELLS}
        row |= {column.export_name: stored(values[column.name]) for column in ROW}
        rows.append({**row, "measured_at_utc": measured_at.get(name)})
    return Table("wells", WELLS, tuple(rows))


_MEASURED = """
SELECT well, stack, strftime('%Y-%m-%dT%H:%M:%fZ', measured_s, 'unixepoch') AS at FROM results
WHERE plate = :p AND model_sha256 = :m
"""


def truth_table(catalog: CatalogReader, plate: str) -> Table:
    """A row for each imaged well; a well of which nobody knows has no figure. ConfigError where no truth is known."""
    from spheroidd.daemon.evaluation.truth import plate_truth  # builds an emulator

    known = plate_truth(catalog, plate, None, None)
    wells = [entry.well for entry in catalog.plate_map(plate).imaged()]
    return Table("truth", TRUTH, tuple({"well": str(well), "v_true_fraction": known.v_true(well)} for well in wells))
