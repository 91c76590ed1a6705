"""Tables as pandas frames: typed columns, units and meanings in `attrs`, missing for what is not known."""

from typing import TYPE_CHECKING

from spheroidd.daemon.export.tables import Table
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.result_columns import Kind, from_stored

if TYPE_CHECKING:
    import pandas as pd

_DTYPES: dict[Kind, str] = {"text": "string", "integer": "Int64", "number": "float64", "truth": "boolean"}


def missing_package(name: str) -> ConfigError:
    """The error for a package of the extra `notebook` that is not installed."""
    do = 'pip install "spheroidd[notebook]"'
    return ConfigError(f"notebooks need the package {name}, which is not installed", where="spheroidd.open", do=do)


def to_frame(table: Table) -> "pd.DataFrame":
    """A frame with the table's columns in their order; ConfigError where pandas is not installed.

    Numbers are float64 with NaN for what is not known, counts Int64, texts string and yes or no boolean, with NA; flags
    are lists and a map's further columns dictionaries.
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise missing_package("pandas") from error
    columns = {}
    for column in table.columns:
        values = [row[column.name] for row in table.rows]
        dtype = _DTYPES.get(column.kind, "object")
        if dtype == "object":  # a list or a record, stored as JSON
            values = [from_stored(column.kind, value) if isinstance(value, str) else value for value in values]
        columns[column.name] = pd.Series(values, dtype=dtype)
    frame = pd.DataFrame(columns)
    frame.attrs["units"] = {column.name: column.unit for column in table.columns if column.unit}
    frame.attrs["meanings"] = {column.name: column.meaning for column in table.columns}
    return frame
