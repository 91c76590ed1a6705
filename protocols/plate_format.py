"""A plate's geometry: where its wells lie, from the centre of A01, and what part of a well can be imaged.

Lengths are micrometres in the plate's own axes: x runs along a row towards higher columns, y towards higher rows.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.well import MAX_COLUMNS, MAX_ROWS, WellId

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class PlateFormat:
    """A rectangular lattice of equal wells, each round or rectangular where the sample sits.

    `well_um` is (width, height): a diameter twice for round wells. `a01_from_corner_um` is A01's centre from the
    plate's left and top edge and `outline_um` the plate's (length, width); both are known of catalogued plates only.

    >>> PlateFormat("mine", 2, 3, (9000.0, 9000.0), (6400.0, 6400.0)).centre_um(WellId.parse("B03"))
    (18000.0, 9000.0)
    """

    name: str
    rows: int
    columns: int
    pitch_um: Point
    well_um: Point
    round_wells: bool = True
    a01_from_corner_um: Point | None = None
    outline_um: Point | None = None

    def __post_init__(self) -> None:
        if not (1 <= self.rows <= MAX_ROWS and 1 <= self.columns <= MAX_COLUMNS):
            what = f"{self.rows} rows and {self.columns} columns"
            raise ConfigError(what, where=self.name, do=f"use 1 to {MAX_ROWS} rows and 1 to {MAX_COLUMNS} columns")
        for name in ("pitch_um", "well_um"):
            if not all(math.isfinite(length) and length > 0 for length in getattr(self, name)):
                raise ConfigError(f"{name} is {getattr(self, name)}", where=self.name, do="write lengths above 0")
        for count, axis, direction in ((self.columns, 0, "columns"), (self.rows, 1, "rows")):
            if count > 1 and self.well_um[axis] > self.pitch_um[axis]:
                what = (
                    f"wells of {self.well_um[axis]:g} um stand {self.pitch_um[axis]:g} um apart along its {direction}"
                )
                raise ConfigError(what, where=self.name, do="correct the well's size or the pitch")

    @property
    def n_wells(self) -> int:
        """All wells of the plate."""
        return self.rows * self.columns

    def __contains__(self, well: WellId) -> bool:
        return well.row < self.rows and well.column < self.columns

    def wells(self) -> Iterator[WellId]:
        """Every well, row by row."""
        return (WellId(row, column) for row in range(self.rows) for column in range(self.columns))

    def centre_um(self, well: WellId) -> Point:
        """A well's centre from A01's; ConfigError for a well that the plate does not have."""
        if well not in self:
            last = WellId(self.rows - 1, self.columns - 1)
            what = f"there is no well {well}: the plate ends at {last}"
            raise ConfigError(what, where=self.name, do="correct the well, or choose the plate that has it")
        return well.column * self.pitch_um[0], well.row * self.pitch_um[1]

    def nearest(self, x_um: float, y_um: float) -> WellId | None:
        """The well whose centre is nearest; None where that would lie beside the plate."""
        column, row = round(x_um / self.pitch_um[0]), round(y_um / self.pitch_um[1])
        return WellId(row, column) if 0 <= row < self.rows and 0 <= column < self.columns else None

    def overreach_um(self, points: Iterable[Point]) -> float:
        """How far the outermost of `points` (from the well's centre) lies beyond the wall; negative inside."""
        half_x, half_y = self.well_um[0] / 2, self.well_um[1] / 2
        if self.round_wells:
            return max(math.hypot(x, y) for x, y in points) - half_x
        return max(max(abs(x) - half_x, abs(y) - half_y) for x, y in points)
