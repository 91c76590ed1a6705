"""A block of readings out of the cells of a plate reader's table."""

from collections.abc import Mapping

from spheroidd.inference.viability.mtt import ReaderBlock, Unit
from spheroidd.protocols.tables.numbers import number_style
from spheroidd.protocols.well import WellId


def block_of(
    name: str,
    cells: Mapping[WellId, str],
    where: str,
    *,
    points: bool,
    unit: Unit = Unit.OD,
    wavelength_nm: int | None = None,
) -> ReaderBlock:
    """The cells as a block: numbers in one style for all of them, the rest missing with the reader's own words."""
    wells = list(cells)
    style = number_style(list(cells.values()), column=name, line=lambda i: f"{where}, well {wells[i]}", points=points)
    values = {well: value for well, text in cells.items() if (value := style.read(text)) is not None}
    missing = {well: text for well, text in cells.items() if well not in values}
    return ReaderBlock(name, unit, values, missing, wavelength_nm)
