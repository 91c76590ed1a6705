"""The catalog's rows of a plate's focus map; `Catalog.put_focus` and `CatalogReader.focus_map` are their callers."""

import json
import sqlite3

from spheroidd.daemon.catalog.rows import dump, parameters, stack_key
from spheroidd.protocols.focus import FocusFound, FocusStatus


def put(connection: sqlite3.Connection, found: FocusFound, now_s: float) -> None:
    """Write a stack's focus down inside the caller's transaction; a later search replaces an earlier one."""
    own = {name: getattr(found, name) for name in _OWN}
    row = {**parameters(found.key), **own, "status": found.status.value, "outlier": int(found.outlier)}
    connection.execute(_PUT, {**row, "curve": dump([list(point) for point in found.curve]), "now": now_s})


def of_plate(connection: sqlite3.Connection, plate: str) -> list[FocusFound]:
    """The focus of every stack of a plate that was looked for, in the order in which they were found."""
    rows = connection.execute("SELECT * FROM focus WHERE plate = ? ORDER BY measured_s, well, stack", (plate,))
    return [
        FocusFound(
            stack_key(row),
            FocusStatus(row["status"]),
            row["channel"],
            row["x_um"],
            row["y_um"],
            row["focus_z_um"],
            row["first_z_um"],
            row["predicted_z_um"],
            bool(row["outlier"]),
            tuple((z_um, measure) for z_um, measure in json.loads(row["curve_json"])),
            row["reason"],
        )
        for row in rows
    ]


_OWN = ("channel", "x_um", "y_um", "focus_z_um", "first_z_um", "predicted_z_um", "reason")
_PUT = """
REPLACE INTO focus (plate, well, stack, status, channel, x_um, y_um, focus_z_um, first_z_um, predicted_z_um, outlier,
  curve_json, reason, measured_s)
VALUES (:plate, :well, :stack, :status, :channel, :x_um, :y_um, :focus_z_um, :first_z_um, :predicted_z_um, :outlier,
  :curve, :reason, :now)
"""
