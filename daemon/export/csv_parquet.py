"""Tables as files: tidy CSV (UTF-8, a header, an empty cell for what is not known) and Parquet (typed, with units)."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spheroidd.daemon.export.tables import Table
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.tables.cells import guarded

_TRUTH = {True: "true", False: "false"}


def write_csv(table: Table, path: Path) -> None:
    """One line a row; numbers in full precision with a point, yes and no as true and false.

    Texts are `guarded` against being taken for formulas. OSError passes through.
    """
    names = [column.name for column in table.columns]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        for row in table.rows:
            writer.writerow(map(_cell, map(row.get, names)))


def _cell(value: object) -> object:
    if isinstance(value, bool):
        return _TRUTH[value]
    return guarded(value) if isinstance(value, str) else value


def write_parquet(table: Table, path: Path, facts: Mapping[str, str]) -> None:
    """Typed columns, each with `unit` and `meaning` in its metadata; `facts` go into the file's.

    ConfigError where pyarrow is missing. OSError passes through.
    """
    pyarrow, parquet = _pyarrow()
    kinds = {
        "text": pyarrow.string(),
        "integer": pyarrow.int64(),
        "number": pyarrow.float64(),
        "truth": pyarrow.bool_(),
        "list": pyarrow.string(),
        "record": pyarrow.string(),
    }
    fields = [
        pyarrow.field(column.name, kinds[column.kind], metadata={"unit": column.unit, "meaning": column.meaning})
        for column in table.columns
    ]
    schema = pyarrow.schema(fields, metadata=dict(facts))
    columns = {column.name: [row[column.name] for row in table.rows] for column in table.columns}
    parquet.write_table(pyarrow.Table.from_pydict(columns, schema=schema), path)


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        do = 'pip install "spheroidd[export]", or choose another --format'
        raise ConfigError("Parquet needs the package pyarrow", where="spheroidd export", do=do) from error
    return pyarrow, parquet
