"""The results of a plate as the page's table: raw values with how each column is written, so that it sorts and filters.

What is not known is null, never 0.
"""

from typing import Any

from spheroidd.daemon.catalog.reader import CatalogReader
from spheroidd.daemon.catalog.rows import ResultRow
from spheroidd.protocols.phrase import as_data
from spheroidd.protocols.result_columns import COLUMNS, ResultColumn

JSON = dict[str, Any]
NAMES = (
    *("well", "compound", "dose_um", "patient", "role", "status", "v_control", "v_count", "v_score"),
    *("n_live", "n_dead", "live_um3", "dead_um3", "trust", "excluded", "exclusion_reason", "reason"),
)


def result_view(catalog: CatalogReader, plate: str) -> JSON:
    """Columns and rows of a plate's current stacks; ConfigError for a plate there is not."""
    catalog.plate_map(plate)
    known = {column.name: column for column in COLUMNS}
    columns = [known[name] for name in NAMES]
    found = catalog.result_rows(plate)
    rows = [[_cell(name, values, row) for name in NAMES] for row in found for values in (row.values(),)]
    return {"plate": plate, "columns": [_column(column) for column in columns], "rows": rows}


def _cell(name: str, values: JSON, row: ResultRow) -> Any:
    return as_data(row.result.why) or None if name == "reason" else values[name]


def _column(column: ResultColumn) -> JSON:
    shown = column.shown
    return {
        "name": column.export_name,
        "key": column.name,
        "unit": "µM" if column.name == "dose_um" else shown.unit if shown else "",
        "scale": shown.scale if shown else 1.0,
        "places": None if column.name == "dose_um" or column.kind != "number" else shown.places if shown else 1,
        "kind": column.kind,
    }
