"""How wide the cells of a plate look, as a person reads it, and as a program does."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from rich.table import Table

from spheroidd.inference.quality.cell_width import PlateWidth, StackWidth, plate_width


def to_json(found: Mapping[str, Sequence[StackWidth]]) -> str:
    """Every plate with its stacks."""
    plates = [
        asdict(plate_width(stacks)) | {"plate": plate, "of_stacks": [asdict(one) | {"um": one.um} for one in stacks]}
        for plate, stacks in found.items()
    ]
    return json.dumps(plates, indent=1)


def to_screen(plate: str, stacks: Sequence[StackWidth]) -> Table:
    """A row for each stack, and beneath what they say together."""
    table = Table("well", "cells", "look um wide", "taken", "unlike", "doubts", title=f"plate {plate}")
    for one in stacks:
        taken = "" if one.stated_um is None else f"{one.stated_um:g}"
        unlike = "" if one.looks is None else f"{one.looks.unlike:.2f}"
        um = "" if one.um is None else f"{one.um:.1f}"
        table.add_row(one.name, str(one.n_cells), um, taken, unlike, ", ".join(one.flags))
    table.caption = advice(plate_width(stacks))
    return table


def advice(told: PlateWidth) -> str:
    """What to do, in words."""
    if told.um is None:
        return f"The width cannot be told: {told.why}. If the images are sound, measure some cells and state that."
    by = f"{told.um:.1f} um, by {told.stacks} stacks ({told.low:.1f} to {told.high:.1f})"
    if told.fits:
        return f"Cells look {by}: about as wide as was taken. Nothing need be stated."
    return f"Cells look {by}. Check the voxel size; if it is right: spheroidd score DATA --cell-um {told.um:.1f}"


def exit_code(found: Mapping[str, Sequence[StackWidth]]) -> int:
    """1 where somebody should state a width, or it cannot be told."""
    return int(any(not plate_width(stacks).fits for stacks in found.values()))
