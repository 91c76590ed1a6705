"""A plate's focus map as a person reads it, and as a program does."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from rich.table import Table

from spheroidd.protocols.focus import FocusFound, FocusStatus


def to_json(found: Sequence[FocusFound]) -> str:
    """Every stack's focus with its curve."""
    rows = [
        {"plate": one.key.plate, "well": str(one.key.well), "stack": one.key.stack}
        | {name: value for name, value in asdict(one).items() if name != "key"}
        for one in found
    ]
    return json.dumps(rows, indent=1)


def to_screen(found: Sequence[FocusFound]) -> Table:
    """A row for each stack, in the order in which they were looked for."""
    table = Table("well", "focus um", "first slice um", "off the wells around um", "images", "what", title="focus map")
    for one in found:
        off = None
        if one.status is FocusStatus.FOUND and one.focus_z_um is not None and one.predicted_z_um is not None:
            off = one.focus_z_um - one.predicted_z_um
        stack = f" stack {one.key.stack}" if one.key.stack else ""
        table.add_row(
            f"{one.key.well}{stack}",
            _number(one.focus_z_um),
            _number(one.first_z_um),
            _number(off, "+.1f"),
            str(len(one.curve)),
            _word(one),
            style="yellow" if _needs_look(one) else None,
        )
    return table


def exit_code(found: Sequence[FocusFound]) -> int:
    """1 where somebody should look."""
    return int(any(_needs_look(one) for one in found))


def _needs_look(one: FocusFound) -> bool:
    return one.outlier or one.status is not FocusStatus.FOUND


def _word(one: FocusFound) -> str:
    if one.status is FocusStatus.FOUND:
        return "found; does not fit the wells around" if one.outlier else "found"
    head = "taken from the wells around" if one.status is FocusStatus.NEIGHBOURS else "not taken"
    return f"{head}: {one.reason}"


def _number(value: float | None, form: str = ".1f") -> str:
    return "" if value is None else format(value, form)
