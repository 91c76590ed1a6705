"""[source.plan]: which plate it is, where it lies, which fields of its wells are imaged, in which order."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from spheroidd.acquisition.plates.labware_formats import plate_format, read_plate_format
from spheroidd.protocols.acquisition_plan import CENTRE, AcquisitionPlan, WellOrder
from spheroidd.protocols.calibration import Calibration, Fit, calibrate
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.plate_format import PlateFormat, Point
from spheroidd.protocols.well import MAX_COLUMNS, MAX_ROWS, WellId

Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class FormatSettings(BaseModel):
    """A plate that no catalogue has."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int = Field(ge=1, le=MAX_ROWS, description="rows of wells")
    columns: int = Field(ge=1, le=MAX_COLUMNS, description="columns of wells")
    pitch_um: tuple[Positive, Positive] = Field(description="from a column to the next, and from a row to the next")
    well_um: tuple[Positive, Positive] = Field(description="a well's width and height where the sample sits")
    round: bool = Field(default=True, description="false for rectangular wells")


class FieldGrid(BaseModel):
    """Fields on a lattice around the well's centre."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int = Field(ge=1, le=100, description="rows of fields")
    columns: int = Field(ge=1, le=100, description="columns of fields")
    step_um: tuple[Positive, Positive] = Field(description="from a field's centre to the next in x and in y")

    def centres_um(self) -> tuple[Point, ...]:
        """Row by row, every other one backwards, so that the stage goes from neighbour to neighbour."""
        centres: list[Point] = []
        for row in range(self.rows):
            line = [
                ((column - (self.columns - 1) / 2) * self.step_um[0], (row - (self.rows - 1) / 2) * self.step_um[1])
                for column in range(self.columns)
            ]
            centres += line[::-1] if row % 2 else line
        return tuple(centres)


class PlanSettings(BaseModel):
    """Wells by a catalogued plate and two or three taught wells, in place of a01_um and pitch_um.

    Which wells are imaged says the plate map; z and channels stand beside this table, in [source].
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    labware: str | None = Field(
        default=None, description='a plate of `spheroidd plan formats`, or "96", "384", "1536" for the standard ones'
    )
    labware_file: Path | None = Field(
        default=None, description="a plate's JSON as the package `labware` has it (lengths in metres)"
    )
    format: FormatSettings | None = Field(default=None, description="a plate by its rows, columns, pitch and wells")
    taught: dict[str, tuple[Finite, Finite]] = Field(
        description="two or more wells and where the XY stage stood with each centred, such as A01 = [1200.0, -340.0]"
    )
    fit: Fit = Field(
        default="similarity",
        description='how the plate is laid: "similarity" (offset, rotation, one scale), or "affine" with three wells '
        "or more, for a stage whose axes have scales of their own",
    )
    mirrored: bool | None = Field(
        default=None,
        description="whether one axis of the stage runs against the plate's; found out where it is not given",
    )
    taught_tolerance_um: Positive = Field(
        default=100.0, description="how far a taught well may lie from the best fit of all"
    )
    order: WellOrder = Field(default=WellOrder.SERPENTINE_ROWS, description="the way over the plate")
    controls_first: bool = Field(
        default=True, description="the control wells before all others: results are related to them"
    )
    fields_um: tuple[tuple[Finite, Finite], ...] | None = Field(
        default=None,
        min_length=1,
        max_length=10_000,
        description="the fields' centres from the well's in x (along the row) and y (towards higher rows): each is a "
        "stack of the well, 0, 1, ...; without it one field at the centre",
    )
    field_grid: FieldGrid | None = Field(default=None, description="the same as a lattice: rows, columns, step_um")
    wall_margin_um: Finite = Field(
        default=0.0, description="how far a field's edge stays off the wall; negative where the wall may be seen"
    )

    @field_validator("taught")
    @classmethod
    def _different_wells(cls, taught: dict[str, Point]) -> dict[str, Point]:
        names: dict[WellId, str] = {}
        for name in taught:
            try:
                well = WellId.parse(name)
            except ConfigError as error:
                raise ValueError(f"{error.what}; {error.do}") from error
            if well in names:
                raise ValueError(f"{names[well]} and {name} are the same well; teach another one")
            names[well] = name
        if len(names) < 2:
            raise ValueError("one well cannot tell how the plate is turned; teach two or three, far apart")
        return taught

    @model_validator(mode="after")
    def _one_of_each(self) -> Self:
        plates = [name for name in ("labware", "labware_file", "format") if getattr(self, name) is not None]
        if len(plates) != 1:
            found = " and ".join(plates) or "no plate"
            raise ValueError(f"{found} is given; write one of labware, labware_file or format")
        if self.fields_um is not None and self.field_grid is not None:
            raise ValueError("fields_um and field_grid are both given; keep one")
        return self

    def plate(self) -> PlateFormat:
        """The plate; ConfigError where there is none of that name, or the file is not one."""
        if self.labware_file is not None:
            with _told_of("labware_file"):
                return read_plate_format(self.labware_file)
        if self.labware is not None:
            with _told_of("labware"):
                return plate_format(self.labware)
        given = self.format
        assert given is not None  # the validator saw to it
        with _told_of("format"):
            name = f"of {given.rows} x {given.columns} wells"
            return PlateFormat(name, given.rows, given.columns, given.pitch_um, given.well_um, given.round)

    def calibration(self, plate: PlateFormat) -> Calibration:
        """Where the plate lies; ConfigError where the taught wells leave it open or contradict each other."""
        taught = {WellId.parse(name): position for name, position in self.taught.items()}
        with _told_of("taught"):
            return calibrate(plate, taught, fit=self.fit, mirrored=self.mirrored, tolerance_um=self.taught_tolerance_um)

    def unchecked(self) -> AcquisitionPlan:
        """The plan, its fields wherever they lie; ConfigError where the plate or the taught wells cannot be right."""
        plate = self.plate()
        fields = self.fields_um or (self.field_grid.centres_um() if self.field_grid else CENTRE)
        return AcquisitionPlan(plate, self.calibration(plate), self.order, self.controls_first, fields)

    def build(self, image_um: Point) -> AcquisitionPlan:
        """The plan for images of that (width, height); ConfigError names the key that cannot be right."""
        plan = self.unchecked()
        with _told_of("field_grid" if self.field_grid else "fields_um"):
            plan.check_fields(image_um, self.wall_margin_um)
        return plan


@contextlib.contextmanager
def _told_of(key: str) -> Iterator[None]:
    """A ConfigError from inside names this key of the table."""
    try:
        yield
    except ConfigError as error:
        what = f"{error.where}: {error.what}" if error.where not in ("", key) else error.what
        raise ConfigError(what, where=f"source.plan.{key}", do=error.do) from error
