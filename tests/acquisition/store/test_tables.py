"""Tables beside a plate: what each well holds, laid out as ngio reads it, and no well of their own."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import zarr

from spheroidd.acquisition.store import ngff
from spheroidd.acquisition.store.tables import Table, conditions, write_conditions, write_table
from spheroidd.protocols.plate import PlateMap, PlateWell, Treatment, WellRole
from spheroidd.protocols.stack import StackKey
from spheroidd.protocols.well import WellId
from tests.daemon.report.plates import plan_of, store_images

MAP = PlateMap(
    "P1",
    (
        PlateWell(WellId(0, 0), Treatment(WellRole.NEGATIVE_CONTROL, patient="pt7"), annotations={"passage": "12"}),
        PlateWell(WellId(1, 10), Treatment(WellRole.SAMPLE, 'Taxol, "old"', 0.0, "pt7")),
        PlateWell(WellId(1, 11), Treatment(WellRole.EMPTY)),
    ),
)


def rows(text: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text.decode())))


def test_conditions_name_every_well_and_leave_empty_what_is_not_known() -> None:
    first, second, third = rows(conditions(MAP).text())
    assert first == {
        **{"row": "A", "column": "1", "role": "negative_control", "compound": "", "dose_um": "", "patient": "pt7"},
        "passage": "12",
    }
    assert (second["row"], second["column"], second["compound"], second["dose_um"]) == (
        "B",
        "11",
        'Taxol, "old"',
        "0.0",
    )
    assert (third["role"], third["patient"], third["passage"]) == ("empty", "", "")


def test_a_plate_has_its_table_from_its_first_stack_on_and_no_further_well(tmp_path: Path) -> None:
    wells = PlateMap("P1", MAP.wells[:2])
    assert not (ngff.plate_path(tmp_path, "P1") / "tables").exists()
    write_conditions(tmp_path, wells)  # nothing is stored yet
    assert not ngff.plate_path(tmp_path, "P1").exists()
    for well in (WellId(0, 0), WellId(1, 10)):
        store_images(tmp_path, wells, plan_of(StackKey("P1", well)), 0.5)
    group = zarr.open_group(ngff.plate_path(tmp_path, "P1"), mode="r")
    assert [well["path"] for well in group.attrs["ome"]["plate"]["wells"]] == ["A/01", "B/11"]
    assert group["tables"].attrs["tables"] == ["conditions"]
    kind = {"type": "condition_table", "table_version": "1", "backend": "csv"}
    assert dict(group["tables/conditions"].attrs) == kind
    relabelled = replace(wells.wells[1], treatment=Treatment(WellRole.SAMPLE, "Gemcitabine", 1.0))
    write_conditions(tmp_path, PlateMap("P1", (wells.wells[0], relabelled)))
    told = (ngff.plate_path(tmp_path, "P1") / "tables" / "conditions" / "table.csv").read_bytes()
    assert [row["compound"] for row in rows(told)] == ["", "Gemcitabine"]


def test_a_table_is_listed_once_it_is_whole(tmp_path: Path) -> None:
    (tmp_path / "tables" / "begun").mkdir(parents=True)
    write_table(tmp_path, Table("nuclei", "feature_table", ("label", "volume_um3"), [(1, 2.5), (2, None)]))
    assert json.loads((tmp_path / "tables" / "zarr.json").read_text())["attributes"] == {"tables": ["nuclei"]}
    assert (tmp_path / "tables" / "nuclei" / "table.csv").read_text() == "label,volume_um3\n1,2.5\n2,\n"
