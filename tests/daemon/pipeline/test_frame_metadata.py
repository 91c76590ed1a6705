"""What is known of every image: it reaches the ledger, and a person can read it there."""

import csv
import io
import json
import sqlite3
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from spheroidd.acquisition.sources.micromanager.core import recorded
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.cli import console as cli
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.events import SliceDurable
from spheroidd.protocols.plate import PlateMap, PlateWell, Treatment, WellRole
from spheroidd.protocols.stack import SliceIndex, StackKey, StackPlan
from spheroidd.protocols.well import WellId
from tests.acquisition.sources.micromanager.rig import settings

SAID = {
    "x_um": 1.5,
    "y_um": -2.0,
    "z_um": 100.25,
    "z_planned_um": 100.0,
    "exposure_ms": 5.0,
    "preset": "FITC",
    "camera": "Cam",
    "instrument_elapsed_s": 0.25,
    "instrument_time": "2026-01-01 10:00:00",
    "host_time_s": 1_700_000_001.5,
    "laser_mw": 12.5,
}


def spheroidd(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two wells, of which one said everything of its images, and the other nothing."""
    wells = [WellId.parse(name) for name in ("B02", "A01")]
    with Catalog.create_or_open(tmp_path) as catalog:
        entries = tuple(PlateWell(well, Treatment(WellRole.SAMPLE)) for well in wells)
        catalog.register_plate(PlateMap("P1", entries), "{}")
        for well, said in zip(wells, (SAID, {}), strict=True):
            plan = StackPlan(StackKey("P1", well), ("488",), 2, 8, 8, 1.0, 1.0)
            catalog.expect(plan)
            for z in range(2):
                event = SliceDurable(plan.key, SliceIndex("488", z), 7, 1_700_000_000.0, said)  # type: ignore[arg-type]
                catalog.acknowledge(event, 1_700_000_002.0)
    return tmp_path


def test_a_person_reads_them_as_csv_in_the_maps_order(data: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(spheroidd("frames", data).stdout)))
    assert [(row["well"], row["z"]) for row in rows] == [("B02", "0"), ("B02", "1"), ("A01", "0"), ("A01", "1")]
    assert {name: rows[0][name] for name in ("x_um", "y_um", "z_um", "exposure_ms", "preset", "camera")} == {
        "x_um": "1.5",
        "y_um": "-2.0",
        "z_um": "100.25",
        "exposure_ms": "5.0",
        "preset": "FITC",
        "camera": "Cam",
    }
    assert rows[0]["acquired_at_utc"] == "2023-11-14T22:13:20.000Z"
    assert rows[0]["received_at_utc"] == "2023-11-14T22:13:21.500Z"
    assert rows[0]["acked_at_utc"] == "2023-11-14T22:13:22.000Z"
    assert {rows[2][name] for name in ("x_um", "exposure_ms", "preset", "received_at_utc")} == {""}


def test_a_program_reads_all_that_was_said(data: Path) -> None:
    lines = spheroidd("frames", data, "--well", "b2", "--json").stdout.splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["metadata"] for row in rows] == [SAID, SAID]
    assert rows[0]["crc32c"] == 7


def test_the_view_is_there_for_sql(data: Path) -> None:
    connection = sqlite3.connect(data / "catalog.sqlite")
    assert connection.execute("SELECT well, x_um FROM frames_view WHERE x_um IS NOT NULL AND z = 1").fetchall() == [
        ("B02", 1.5)
    ]
    connection.close()


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (("--well", "C03"), "no image of well C03"),
        (("--plate", "P2"), "no image of plate P2"),
        (("--well", "B02", "--stack", "1"), "no image of well B02, stack 1"),
        (("--well", "nowhere"), "is not a well"),
    ],
    ids=str,
)
def test_what_there_is_not_is_said(data: Path, options: tuple[str, ...], what: str) -> None:
    result = spheroidd("frames", data, *options)
    assert result.exit_code == 2
    assert what in result.stderr


class _Core:
    """A core with three properties."""

    def get_property(self, label: str, name: str) -> str:
        return {("Laser", "Power"): "12.5", ("Laser", "Line"): "488 nm", ("Laser", "Odd"): "nan"}[label, name]


def test_recorded_properties_are_numbers_where_they_can_be() -> None:
    rig = settings(recorded={"mw": ("Laser", "Power"), "line": ("Laser", "Line"), "odd": ("Laser", "Odd")})
    assert recorded(_Core(), rig) == {"mw": 12.5, "line": "488 nm", "odd": "nan"}  # type: ignore[arg-type]


def test_a_property_that_is_none_is_refused_by_its_key() -> None:
    with pytest.raises(ConfigError, match=r"source.recorded.mw: Laser-Might cannot be read"):
        recorded(_Core(), settings(recorded={"mw": ("Laser", "Might")}))  # type: ignore[arg-type]


@pytest.mark.parametrize("key", ["x_um", "host_time_s", "Power", "a b", ""])
def test_a_recorded_property_has_a_name_of_its_own(key: str) -> None:
    with pytest.raises(ValueError, match="recorded"):
        settings(recorded={key: ("Laser", "Power")})
