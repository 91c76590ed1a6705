"""In which order the wells of a plate are imaged, which fields of each, and where the stage stands for them."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby, pairwise
from typing import Self

from spheroidd.protocols.calibration import Calibration
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.plate import PlateMap, WellRole
from spheroidd.protocols.plate_format import PlateFormat, Point
from spheroidd.protocols.well import MAX_COLUMNS, MAX_ROWS, WellId

NOTHING_UM = 1e-6  # a field that just touches the wall is inside, whatever its corners lost in arithmetic
CENTRE: tuple[Point, ...] = ((0.0, 0.0),)


class WellOrder(StrEnum):
    """The way over the plate."""

    MAP = "map"  # as the plate map lists them
    ROWS = "rows"  # every row from column 1 on
    COLUMNS = "columns"  # every column from row A on
    SERPENTINE_ROWS = "serpentine-rows"  # each row from its nearer end
    SERPENTINE_COLUMNS = "serpentine-columns"


def ordered_wells(wells: Iterable[WellId], order: WellOrder, start: WellId | None = None) -> list[WellId]:
    """The wells in that order; a serpentine takes each row or column from the end nearer to the well before, and the
    rows or columns from the side nearer to `start`.

    >>> [str(well) for well in ordered_wells(map(WellId.parse, ("B2", "A1", "B1", "A2")), WellOrder.SERPENTINE_ROWS)]
    ['A01', 'A02', 'B02', 'B01']
    """
    match order:
        case WellOrder.MAP:
            return list(wells)
        case WellOrder.ROWS:
            return sorted(wells)
        case WellOrder.COLUMNS:
            return sorted(wells, key=_by_column)
        case WellOrder.SERPENTINE_ROWS:
            lines = [list(line) for _, line in groupby(sorted(wells), key=lambda well: well.row)]
        case WellOrder.SERPENTINE_COLUMNS:
            lines = [list(line) for _, line in groupby(sorted(wells, key=_by_column), key=lambda well: well.column)]
    if start and lines and _nearest(start, lines[-1]) < _nearest(start, lines[0]):
        lines.reverse()
    way: list[WellId] = []
    for line in lines:
        last = way[-1] if way else start
        if last and _steps(last, line[-1]) < _steps(last, line[0]):
            line.reverse()
        way += line
    return way


def _by_column(well: WellId) -> tuple[int, int]:
    return well.column, well.row


def _nearest(start: WellId, line: Sequence[WellId]) -> int:
    return min(_steps(start, line[0]), _steps(start, line[-1]))


def _steps(one: WellId, other: WellId) -> int:
    """How far apart two wells are, in wells along both axes."""
    return abs(one.row - other.row) + abs(one.column - other.column)


@dataclass(frozen=True, slots=True)
class AcquisitionPlan:
    """A plate of a known format that lies in a known place: what the stage is told, well by well and field by field.

    `fields_um` are the fields' centres from the well's, in the plate's axes; field i is the well's stack i.
    """

    plate: PlateFormat
    calibration: Calibration
    order: WellOrder = WellOrder.MAP
    controls_first: bool = True
    fields_um: tuple[Point, ...] = CENTRE

    @classmethod
    def at_pitch(cls, a01_um: Point, pitch_um: Point) -> Self:
        """Wells by A01's stage position and the stage's way from a column and a row to the next, which may be negative.

        Nothing is known of the wells' size, so they are as large as there is room for, and there may be any number.
        """
        (x, y), signs = pitch_um, [math.copysign(1.0, pitch) for pitch in pitch_um]
        lattice = PlateFormat("at pitch_um", MAX_ROWS, MAX_COLUMNS, (abs(x), abs(y)), (abs(x), abs(y)))
        return cls(lattice, Calibration(((signs[0], 0.0), (0.0, signs[1])), a01_um))

    def wells(self, plate_map: PlateMap) -> list[WellId]:
        """The wells to image, in the order of their turn; ConfigError for one that the plate does not have."""
        imaged: list[tuple[WellId, bool]] = []
        for entry in plate_map:
            if (role := entry.treatment.role) is not WellRole.EMPTY:
                self.plate.centre_um(entry.well)
                imaged.append((entry.well, self.controls_first and role is WellRole.SAMPLE))
        way: list[WellId] = []
        for later in (False, True):
            way += ordered_wells((w for w, waits in imaged if waits is later), self.order, way[-1] if way else None)
        return way

    def xy_um(self, well: WellId, field: int = 0) -> Point:
        """Where the stage stands over a field of a well; a well that is imaged again counts on from its last field."""
        x_um, y_um = self.plate.centre_um(well)
        dx_um, dy_um = self.fields_um[field % len(self.fields_um)]
        return self.calibration.stage_um(x_um + dx_um, y_um + dy_um)

    def site_at(self, x_um: float, y_um: float, tolerance_um: float) -> tuple[WellId, int] | None:
        """The well and the field that a stage position is the centre of; None between them and beside the plate."""
        well = self.plate.nearest(*self.calibration.plate_um(x_um, y_um))
        if well is None:
            return None
        for number in range(len(self.fields_um)):
            x, y = self.xy_um(well, number)
            if max(abs(x - x_um), abs(y - y_um)) <= tolerance_um:
                return well, number
        return None

    def check_fields(self, image_um: Point, wall_margin_um: float = 0.0) -> None:
        """ConfigError where a field of that (width, height), taken along the stage's axes, reaches beyond the wall."""
        half_x, half_y = image_um[0] / 2, image_um[1] / 2
        corners = [self.calibration.plate_direction_um(sx * half_x, sy * half_y) for sx in (-1, 1) for sy in (-1, 1)]
        for number, (x, y) in enumerate(self.fields_um):
            beyond = self.plate.overreach_um((x + dx, y + dy) for dx, dy in corners) + wall_margin_um
            if beyond > NOTHING_UM:
                size = "x".join(f"{side:g}" for side in dict.fromkeys(self.plate.well_um))
                wells = f"{'round' if self.plate.round_wells else 'rectangular'} wells of {size} um"
                what = f"field {number} at ({x:g}, {y:g}) um reaches {beyond:.0f} um too far out of the {wells}"
                do = "move it inwards, take fewer fields, or allow the wall in view by a negative wall_margin_um"
                raise ConfigError(what, do=do)
        for number, field in enumerate(self.fields_um):
            if field in self.fields_um[:number]:
                raise ConfigError(f"field {number} is at the place of another", do="write each field once")


def travel_um(way: Sequence[Point]) -> float:
    """How far the stage moves from the first to the last position, on straight lines."""
    return sum(math.dist(one, other) for one, other in pairwise(way))
