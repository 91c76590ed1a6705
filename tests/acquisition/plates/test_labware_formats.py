"""Plate formats: what the catalogue says, what a lab's own file may say, and what a plate refuses to be."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spheroidd.acquisition.plates.labware_formats import listed_formats, plate_format, read_plate_format
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.plate_format import PlateFormat
from spheroidd.protocols.well import WellId
from tests.places import REAL_DATA, needs_real_data

DATA = REAL_DATA / "labware"

OWN: dict[str, Any] = {
    "$schema": "https://raw.githubusercontent.com/ramonaoptics/labware/main/labware/labware.v1.schema.json",
    "name": "Ours",
    "number_of_wells": 6,
    "manufacturer": "the workshop",
    "author": "the workshop",
    "last_updated": "2026-01-01T00:00:00Z",
    "part_number": "1",
    "web_reference": "https://example.org",
    "outer_plate_dimensions": {"length": 0.12776, "width": 0.08548, "height": 0.0144},
    "well_dimensions": {
        "pitch": 0.01,
        "row_pitch": 0.012,
        "column_pitch": 0.01,
        "rows": 2,
        "columns": 3,
        "shape": "rectangle",
        "diameter": 0.004,
        "width": 0.008,
        "height": 0.004,
        "depth": 0.01,
        "bottom_shape": "flat",
    },
    "alignment_reference": {
        "origin_reference": "A1 well center",
        "offset_from_left_edge": 0.02,
        "offset_from_top_edge": 0.03,
        "z_reference": "top surface of plate",
    },
    "notes": "",
}


def written(folder: Path, table: object) -> Path:
    path = folder / "ours.json"
    path.write_text(table if isinstance(table, str) else json.dumps(table), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "rows", "columns", "pitch_um", "well_um", "round_wells"),
    [
        ("Akura_96_spheroid_microplate", 8, 12, 9000.0, 1000.0, True),
        ("Akura_384_spheroid_microplate", 16, 24, 4500.0, 1000.0, True),
        ("Corning_3830_384_well_plate", 16, 24, 4500.0, 3630.0, False),
        ("SBS_96_well_plate", 8, 12, 9000.0, 6400.0, True),
        ("SBS_384_well_plate", 16, 24, 4500.0, 3600.0, True),
    ],
)
@needs_real_data
def test_real_files_and_the_catalogue_say_the_same(
    name: str, rows: int, columns: int, pitch_um: float, well_um: float, round_wells: bool
) -> None:
    plate = read_plate_format(DATA / f"{name}.json")
    assert (plate.rows, plate.columns, plate.round_wells) == (rows, columns, round_wells)
    assert plate.pitch_um == (pitch_um, pitch_um)
    assert plate.well_um == (well_um, well_um)
    assert plate.outline_um == (127760.0, 85480.0)
    assert plate == plate_format(name)


def test_the_catalogue_has_plates_of_every_size_and_each_is_sound() -> None:
    listed = listed_formats()
    assert len(listed) >= 70
    assert {one.plate.n_wells for one in listed} >= {6, 12, 24, 48, 96, 384, 1536}
    coated = {one.name for one in listed if one.coating == "ultra-low attachment"}
    assert coated >= {"Akura_96_spheroid_microplate", "Akura_384_spheroid_microplate"}
    for one in listed:
        assert len(set(one.plate.wells())) == one.plate.n_wells
        length, width = one.plate.outline_um or (0.0, 0.0)
        x, y = one.plate.a01_from_corner_um or (0.0, 0.0)
        last_x, last_y = one.plate.centre_um(list(one.plate.wells())[-1])
        assert 0 < x <= x + last_x < length, one.name
        assert 0 < y <= y + last_y < width, one.name


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("96", "SBS_96_well_plate"),
        (" 1536 ", "SBS_1536_well_plate"),
        ("akura 96 spheroid microplate", "Akura_96_spheroid_microplate"),
        ("corning-3830-384-well-plate", "Corning_3830_384_well_plate"),
    ],
)
def test_a_name_may_be_written_as_people_write_it(given: str, found: str) -> None:
    assert plate_format(given).name == found


@pytest.mark.parametrize(
    ("given", "advice"),
    [
        ("Acura_96_spheroid_microplate", "write Akura_96_spheroid_microplate"),
        ("24", "plates with so few wells differ: write one of"),
        ("24", "CellVis_24_well_plate"),
        ("7", "`spheroidd plan formats` lists them"),
        ("", "`spheroidd plan formats` lists them"),
    ],
)
def test_an_unknown_plate_is_refused_with_what_to_write(given: str, advice: str) -> None:
    with pytest.raises(ConfigError, match="there is no plate") as caught:
        plate_format(given)
    assert advice in caught.value.do


def test_a_file_of_ones_own_with_its_own_pitches_and_rectangles(tmp_path: Path) -> None:
    plate = read_plate_format(written(tmp_path, OWN))
    assert plate == PlateFormat(
        "ours", 2, 3, (10000.0, 12000.0), (8000.0, 4000.0), False, (20000.0, 30000.0), (127760.0, 85480.0)
    )
    assert plate.centre_um(WellId.parse("B03")) == (20000.0, 12000.0)


def without(*path: str) -> dict[str, Any]:
    table: dict[str, Any] = json.loads(json.dumps(OWN))
    owner = table
    for key in path[:-1]:
        owner = owner[key]
    del owner[path[-1]]
    return table


@pytest.mark.parametrize(
    ("table", "what"),
    [
        ("{", "not JSON"),
        ("[]", "the file"),
        (without("well_dimensions", "rows"), "well_dimensions.rows"),
        (OWN | {"colour": "red"}, "colour"),
        (OWN | {"well_dimensions": OWN["well_dimensions"] | {"rows": 2000}, "number_of_wells": 6000}, "2000 rows"),
        (OWN | {"well_dimensions": OWN["well_dimensions"] | {"width": 0.02}}, "10000 um apart along its columns"),
    ],
    ids=str,
)
def test_a_file_that_is_no_plate_is_refused_by_name(tmp_path: Path, table: object, what: str) -> None:
    with pytest.raises(ConfigError, match=what) as caught:
        read_plate_format(written(tmp_path, table))
    assert "ours" in caught.value.where


def test_a_missing_file_is_a_wrong_path(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_plate_format(tmp_path / "none.json")


@pytest.mark.parametrize(
    "changed",
    [
        {"rows": 0},
        {"columns": 49},
        {"pitch_um": (0.0, 9000.0)},
        {"pitch_um": (float("nan"), 9000.0)},
        {"well_um": (-1.0, 1.0)},
        {"well_um": (9001.0, 9000.0)},
    ],
    ids=str,
)
def test_a_plate_refuses_nonsense(changed: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        PlateFormat(**{"name": "x", "rows": 8, "columns": 12, "pitch_um": (9e3, 9e3), "well_um": (6e3, 6e3)} | changed)


@given(row=st.integers(0, 15), column=st.integers(0, 23), dx=st.floats(-0.49, 0.49), dy=st.floats(-0.49, 0.49))
def test_a_place_belongs_to_the_nearest_well(row: int, column: int, dx: float, dy: float) -> None:
    plate = PlateFormat("x", 16, 24, (4500.0, 4000.0), (3000.0, 3000.0))
    x, y = plate.centre_um(WellId(row, column))
    assert plate.nearest(x + dx * 4500.0, y + dy * 4000.0) == WellId(row, column)
    assert plate.nearest(-0.6 * 4500.0, y) is None
    assert plate.nearest(x, 15.6 * 4000.0) is None
