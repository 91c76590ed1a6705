"""A column of the list stands in every place where a result row does; the list is all that has to be told."""

import csv
import json
import shutil
import sqlite3
from collections.abc import Mapping
from dataclasses import fields, replace
from enum import Enum
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from google.protobuf.descriptor import FieldDescriptor
from typer.testing import CliRunner

from spheroidd.daemon.analysis import results_table
from spheroidd.daemon.catalog import schema
from spheroidd.daemon.catalog.rows import Exclusion, ResultRow
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.cli.console import app
from spheroidd.daemon.export.tables import WELLS, wells_table
from spheroidd.daemon.report.content import well_entries
from spheroidd.daemon.report.tables import WELL_COLUMNS, well_table
from spheroidd.daemon.report.well_entry import WellEntry
from spheroidd.daemon.scoring.exclusions import exclude_well
from spheroidd.daemon.service.messages import result_message
from spheroidd.daemon.web.openapi import openapi
from spheroidd.daemon.web.plate_view import well_view
from spheroidd.daemon.web.words import english
from spheroidd.protocols import spheroidd_pb2 as wire
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.plate import PlateMap, PlateWell, Treatment
from spheroidd.protocols.result_columns import (
    COLUMNS,
    ROW,
    STORED,
    Origin,
    Place,
    ResultColumn,
    Shown,
    from_stored,
    of,
    plain,
    seen_in,
    stored,
)
from spheroidd.protocols.results import Related, StackMeasurement, WellResult
from spheroidd.protocols.stack import StackKey
from spheroidd.protocols.trust import Trust
from spheroidd.protocols.well import WellId
from tests.daemon.export.schema_document import PATH
from tests.daemon.report import plates
from tests.daemon.web.rig import said

WELL = WellId(1, 1)
WIRE_TYPES = {
    "text": {FieldDescriptor.TYPE_STRING},
    "integer": {FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_INT64},
    "number": {FieldDescriptor.TYPE_DOUBLE},
    "truth": {FieldDescriptor.TYPE_BOOL},
    "list": {FieldDescriptor.TYPE_STRING},
    "record": {FieldDescriptor.TYPE_MESSAGE},
}
every_column = pytest.mark.parametrize("column", COLUMNS, ids=lambda column: column.name)
every_row_column = pytest.mark.parametrize("column", ROW, ids=lambda column: column.name)


def sample_value(noun: type, name: str, seed: int) -> Any:
    """A value of an attribute's own type, another for each attribute; of an enumeration the last member."""
    hint = get_type_hints(noun)[name]
    kinds = [kind for kind in (hint, *get_args(hint)) if isinstance(kind, type)]
    if enumeration := next((kind for kind in kinds if issubclass(kind, Enum)), None):
        return list(enumeration)[-1]
    if any(getattr(kind, "__origin__", None) is tuple for kind in (hint, *get_args(hint))):
        return ("clipped", "drift")
    return {float: 10.25 + seed, int: 10 + seed, str: f"text {seed}"}[kinds[0]]


def filled(noun: type, origin: Origin, **others: Any) -> dict[str, Any]:
    own = {field.name for field in fields(noun)}
    names = [column.name for column in of(origin) if column.name in own]
    return {name: sample_value(noun, name, seed) for seed, name in enumerate(names)} | others


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An excluded well of which every column of the list has a value."""
    folder = tmp_path_factory.mktemp("data")
    drug = PlateWell(WELL, plates.sample("drug", 1.5, "pt7"), annotations={"passage": "12", "plaque n°": "3, µ-slide"})
    wells = PlateMap("P1", (drug,))
    plates.register(folder, wells)
    plates.score(folder, wells, {WELL: 1000.0})
    base = plates.measurement(1000.0)
    kept = ("live_um3_by_z", "limits", "model_sha256", "cpu_s", "quantiles")
    measured = StackMeasurement(
        **filled(StackMeasurement, Origin.MEASURED, **{name: getattr(base, name) for name in kept})
    )
    decided = {"status": plates.WellStatus.FINAL, "trust": Trust.CHECK}
    related = Related(**filled(Related, Origin.RELATED) | decided)
    key = StackKey("P1", WELL)
    exclude_well(folder, str(WELL), "a bubble", who="ann")
    with Catalog.create_or_open(folder) as catalog:
        catalog.record_measurement(key, measured, 2.5)
        catalog.update_related(key, plates.MODEL, related, "controls")
        for state in (plates.StackState.ACQUIRING, plates.StackState.SCORED):
            catalog.set_stack_state(key, state)
    return folder


@pytest.fixture(scope="module")
def row(data: Path) -> ResultRow:
    with Catalog.read_only(data) as catalog:
        (found,) = catalog.result_rows()
    return found


# The nouns


def test_names_are_given_once() -> None:
    for names in ([c.name for c in COLUMNS], [c.export_name for c in COLUMNS]):
        assert len(set(names)) == len(names)


def test_a_result_has_the_columns_that_no_other_noun_has() -> None:
    others = (Origin.TREATMENT, Origin.ANNOTATION, Origin.EXCLUSION, Origin.PLAN)
    assert {f.name for f in fields(WellResult)} == {c.name for c in COLUMNS if c.origin not in others}


@pytest.mark.parametrize(
    ("origin", "noun"),
    [(Origin.MEASURED, StackMeasurement), (Origin.RELATED, Related), (Origin.TREATMENT, Treatment)],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_each_column_is_an_attribute_of_the_noun_it_comes_from(origin: Origin, noun: type) -> None:
    for column in of(origin):
        assert hasattr(noun, column.name)


# SQL


@every_row_column
def test_the_catalog_gives_back_what_was_written(row: ResultRow, column: ResultColumn) -> None:
    assert row.values()[column.name] is not None


def test_measured_and_related_come_back_equal(data: Path) -> None:
    with Catalog.read_only(data) as catalog:
        (found,) = catalog.measurements("P1", plates.MODEL)
        (result,) = catalog.results()
    for column in STORED:
        source = {Origin.MEASURED: found.measurement, Origin.RELATED: found.related}.get(column.origin, result)
        assert plain(getattr(source, column.name)) == plain(getattr(result, column.name))


@every_column
def test_the_view_the_export_and_the_document_have_it(data: Path, column: ResultColumn) -> None:
    with Catalog.read_only(data) as catalog:
        table = wells_table(catalog, ["P1"])
        (viewed,) = catalog.query("SELECT * FROM wells_view")
        (result,) = catalog.result_rows()
    (exported,) = table.rows
    assert exported[column.export_name] == viewed[column.export_name]
    assert viewed[column.export_name] is not None
    if column in ROW:
        assert from_stored(column.kind, exported[column.export_name]) == result.values()[column.name]
    (told,) = [one for one in WELLS if one.name == column.export_name]
    assert (told.kind, told.unit, told.meaning) == (column.kind, column.unit, column.meaning)
    line = f"| `{column.export_name}` | {column.kind} | {column.unit} | {column.meaning} |"
    assert line in PATH.read_text(encoding="utf-8")


# Programs


@every_row_column
def test_json_csv_and_the_wire_have_it(row: ResultRow, tmp_path: Path, column: ResultColumn) -> None:
    value = row.values()[column.name]
    (as_json,) = json.loads(results_table.to_json([row]))
    assert as_json[column.name] == value
    results_table.write_csv([row], tmp_path / "rows.csv")
    with (tmp_path / "rows.csv").open(newline="", encoding="utf-8") as file:
        (line,) = csv.DictReader(file)
    assert line[column.name] == str(stored(value))
    told = getattr(result_message(row), column.name)
    assert {"list": list, "record": dict}.get(column.kind, lambda same: same)(told) == value
    assert wire.Result.DESCRIPTOR.fields_by_name[column.name].type in WIRE_TYPES[column.kind]
    assert openapi()["components"]["schemas"]["Result"]["properties"][column.name]["description"] == column.text


def test_the_wire_has_nothing_else() -> None:
    assert {field.name for field in wire.Result.DESCRIPTOR.fields} == {column.name for column in ROW}


# People


@pytest.mark.parametrize(("column", "shown"), seen_in(Place.TABLE), ids=lambda value: getattr(value, "name", ""))
def test_the_results_table_shows_it(row: ResultRow, column: ResultColumn, shown: Shown) -> None:
    table = results_table.results_table([row])
    cells = {str(head.header): list(head.cells) for head in table.columns}
    assert [str(cell) for cell in cells[shown.heading]] == [column.in_words(row.result, Place.TABLE)]


def test_further_columns_of_the_map_stand_beside_the_figures_and_a_corrected_map_changes_them(
    data: Path, tmp_path: Path
) -> None:
    said = {"passage": "12", "plaque n°": "3, µ-slide"}
    catalog = tmp_path / "data"
    shutil.copytree(data, catalog)
    (told,) = json.loads(CliRunner().invoke(app, ["results", str(catalog), "--json"]).stdout)
    assert told["annotations"] == said
    shown = CliRunner().invoke(app, ["results", str(catalog)], env={"COLUMNS": "500"}).stdout
    assert "passage 12" in shown
    corrected = tmp_path / "map.csv"
    corrected.write_text("well,role,compound,dose_um,patient,passage\nB02,sample,drug,1.5,pt7,13\n", encoding="utf-8")
    words = ["relabel", str(catalog), str(corrected), "--plate", "P1", "--reason", "typing error"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    (told,) = json.loads(CliRunner().invoke(app, ["results", str(catalog), "--json"]).stdout)
    assert told["annotations"] == {"passage": "13"}


@pytest.mark.parametrize(("column", "shown"), seen_in(Place.PANEL), ids=lambda value: getattr(value, "name", ""))
def test_the_page_shows_it(data: Path, row: ResultRow, column: ResultColumn, shown: Shown) -> None:
    with Catalog.read_only(data) as catalog:
        (stack,) = well_view(catalog, "P1", WELL, None)["stacks"]
    found = {name: said(value) for name, value in stack["figures"]}
    assert found[column.name] == column.in_words(row.result)
    assert (english()[f"column_{column.name}"], english()[f"column_{column.name}_meaning"]) == (
        shown.label,
        column.text,
    )


@pytest.mark.parametrize(("column", "shown"), seen_in(Place.REPORT), ids=lambda value: getattr(value, "name", ""))
def test_the_report_shows_it(row: ResultRow, column: ResultColumn, shown: Shown) -> None:
    found = well_table([WellEntry(WELL, row.treatment, (row.result,))])
    heads = [one.head for one in found.columns]
    assert found.rows[0].cells[heads.index(shown.title)] == column.in_words(row.result, unit=False)
    assert shown.title in [one.head for one in WELL_COLUMNS]


def test_the_page_and_the_report_show_further_columns_of_the_map(data: Path) -> None:
    with Catalog.read_only(data) as catalog:
        assert well_view(catalog, "P1", WELL, None)["notes"] == [("passage", "12"), ("plaque n°", "3, µ-slide")]
        entries = list(well_entries(catalog, "P1", {}).values())
    found = well_table(entries)
    assert found.rows[0].cells[[one.head for one in found.columns].index("Notes")] == "passage 12; plaque n° 3, µ-slide"
    plain = well_table([replace(one, annotations={}) for one in entries])
    assert "Notes" not in [one.head for one in plain.columns]


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("v_count", 0.4567, "45.7 % (41.2 to 50.0)"),
        ("v_count", 0.0, "0.0 % (41.2 to 50.0)"),
        ("v_count", None, "—"),
        ("live_um3", 12345.6, "12.3 10³ µm³"),
        ("n_live", 7, "7"),
        ("v_score", 81.6, "82 % (10 to 11)"),
        ("model_sha256", "0123456789abcdef", "0123456789ab"),
    ],
)
def test_how_a_value_reads(row: ResultRow, name: str, value: Any, words: str) -> None:
    (column,) = [one for one in COLUMNS if one.name == name]
    ends = {"v_score_lo": 10.2, "v_score_hi": 11.4, "v_count_lo": 0.4123, "v_count_hi": 0.5}
    values: Mapping[str, Any] = {**ends, name: value}
    assert column.in_words(type("Row", (), dict(values))()) == words


def test_a_terminal_has_no_room_for_the_interval_of_a_count(row: ResultRow) -> None:
    (column,) = [one for one in COLUMNS if one.name == "v_count"]
    assert column.in_words(row.result, Place.TABLE) == column.in_words(row.result).split(" (")[0]


# Catalogs of other programs


def test_an_older_catalog_gets_the_columns_it_lacks_and_a_reader_sees_them_empty(tmp_path: Path) -> None:
    wells = plates.plate_map("P1", {WELL: plates.sample("drug", 1.5)})
    plates.register(tmp_path, wells)
    plates.score(tmp_path, wells, {WELL: 1000.0})
    with sqlite3.connect(tmp_path / "catalog.sqlite") as connection:
        for name in ("doses_view", "wells_view"):
            connection.execute(f"DROP VIEW {name}")
        connection.execute("CREATE VIEW wells_view AS SELECT plate, well FROM wells")
        connection.execute("ALTER TABLE results DROP COLUMN latency_s")
    connection.close()
    with Catalog.read_only(tmp_path) as catalog:
        assert [(found.n_live, found.latency_s) for found in catalog.results()] == [(1, None)]
        assert catalog.query("SELECT latency_s, n_live FROM wells_view") == [{"latency_s": None, "n_live": 1}]
    with Catalog.create_or_open(tmp_path) as catalog:
        assert catalog.query("SELECT latency_s, n_live FROM wells_view") == [{"latency_s": None, "n_live": 1}]
        assert "latency_s" in schema._columns_of_results(catalog.connection)


@pytest.mark.parametrize("opened", [Catalog.read_only, Catalog.create_or_open], ids=["reader", "writer"])
def test_a_column_that_is_not_known_is_a_newer_programs(tmp_path: Path, opened: Any) -> None:
    Catalog.create_or_open(tmp_path).close()
    with sqlite3.connect(tmp_path / "catalog.sqlite") as connection:
        connection.execute("ALTER TABLE results ADD COLUMN mood TEXT")
    connection.close()
    with pytest.raises(ConfigError, match="this program does not know: mood") as caught:
        opened(tmp_path)
    assert "newer spheroidd" in caught.value.do


def test_an_exclusion_is_told_by_its_four_columns(row: ResultRow) -> None:
    assert isinstance(row.exclusion, Exclusion)
    values = row.values()
    assert (values["excluded"], values["exclusion_reason"], values["excluded_by"]) == (True, "a bubble", "ann")
