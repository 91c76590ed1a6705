"""A well's name."""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Self

from spheroidd.protocols.errors import ConfigError

MAX_ROWS, MAX_COLUMNS = 32, 48  # a 1536-well plate, the largest SBS format
_WELL = re.compile(r"([A-Za-z]{1,2})0*([1-9]\d?)")


@dataclass(frozen=True, slots=True, order=True)
class WellId:
    """A well by its zero-based row and column; written "A01" to "AF48".

    >>> WellId.parse("b7"), str(WellId(1, 6)), WellId(26, 0).row_name
    (WellId(row=1, column=6), 'B07', 'AA')
    """

    row: int
    column: int

    def __post_init__(self) -> None:
        if not (0 <= self.row < MAX_ROWS and 0 <= self.column < MAX_COLUMNS):
            raise ConfigError(f"well row {self.row}, column {self.column} is on no plate", do="use A01 to AF48")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "A1", "a01" or "AF48"; ConfigError for anything else."""
        match = _WELL.fullmatch(text.strip())
        if not match:
            raise ConfigError(f"{text!r} is not a well", do="write a row letter and a column number such as A01")
        row = 0
        for letter in match[1].upper():
            row = row * 26 + ord(letter) - ord("A") + 1
        if row > MAX_ROWS or int(match[2]) > MAX_COLUMNS:
            raise ConfigError(f"{text!r} is on no plate", do="use A01 to AF48")
        return cls(row - 1, int(match[2]) - 1)

    @property
    def row_name(self) -> str:
        """ "A" to "AF"."""
        high, low = divmod(self.row, 26)
        return (chr(ord("A") + high - 1) if high else "") + chr(ord("A") + low)

    @property
    def column_name(self) -> str:
        """ "01" to "48"."""
        return f"{self.column + 1:02d}"

    def __str__(self) -> str:
        return _name(self)


@lru_cache(maxsize=MAX_ROWS * MAX_COLUMNS)  # each row of a catalog is found by it
def _name(well: WellId) -> str:
    return well.row_name + well.column_name
