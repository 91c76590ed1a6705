"""What is handed out, read back by programs that know nothing of this one."""

import csv
import hashlib
import json
import math
import re
import sqlite3
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import mihcsme_py
import openpyxl
import pyarrow.parquet
import pytest
import pzfx
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlite_utils import Database
from typer.testing import CliRunner, Result

from spheroidd.daemon.analysis.curves import CurvePoints, MissingWell
from spheroidd.daemon.catalog.audit_trail import events
from spheroidd.daemon.catalog.audit_verification import verify
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.cli import console as cli
from spheroidd.daemon.export.prism import write_pzfx
from spheroidd.daemon.export.tables import TABLES, WELLS
from spheroidd.daemon.export.writer import Format, export
from spheroidd.daemon.scoring.exclusions import exclude_well
from spheroidd.protocols.errors import ConfigError, StorageError
from spheroidd.protocols.plate import Treatment, WellRole
from spheroidd.protocols.stack_end import StackEnd
from spheroidd.protocols.tables.cells import unguarded
from spheroidd.protocols.well import WellId
from tests.daemon.export.schema_document import PATH, with_columns
from tests.daemon.report import plates
from tests.places import DOCS

DOSES_UM = (0.1, 1.0, 3.0, 10.0, 100.0)
COMPOUNDS = ("=1+1", 'a "b", <c> & ü', "flat")


def command(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def layout() -> dict[WellId, Treatment]:
    treatments: dict[WellId, Treatment] = {}
    for row in (0, 1):
        treatments[WellId(row, 0)] = Treatment(WellRole.NEGATIVE_CONTROL, patient="pt1")
        treatments[WellId(row, 1)] = plates.KILLED
        for place, compound in enumerate(COMPOUNDS):
            for column, dose in enumerate(DOSES_UM):
                treatments[WellId(row, 2 + place * len(DOSES_UM) + column)] = plates.sample(compound, dose, "pt1")
    return treatments


def live_um3(well: WellId, of: Treatment) -> float:
    if of.role is WellRole.POSITIVE_CONTROL:
        return 50.0
    share = 1.0 if of.dose_um is None or of.compound == "flat" else plates.share_alive(of.dose_um, 3.0)
    return plates.FULL_UM3 * share * (1 + 0.01 * well.row)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plate with an excluded well, one that failed, and one that waits."""
    folder = tmp_path_factory.mktemp("data")
    wells = plates.plate_map("P1", layout())
    plates.register(folder, wells)
    waiting, failed = WellId(1, 16), WellId(1, 15)
    imaged = {entry.well: entry.treatment for entry in wells.imaged() if entry.well not in (waiting, failed)}
    plates.score(folder, wells, {well: live_um3(well, of) for well, of in imaged.items()})
    plates.end_stack(folder, "P1", failed, StackEnd.FAILED, "the shutter stuck")
    exclude_well(folder, "B05", "a bubble", who="ann")
    return folder


@pytest.fixture(scope="module")
def out(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("out")
    done = command("export", data, "-o", folder, "--format", "all", "--who", "bob")
    assert done.exit_code == 0, done.output
    return folder


def cells(out: Path, name: str) -> list[dict[str, str]]:
    """A table's rows as a spreadsheet gets them."""
    with (out / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def table(out: Path, name: str) -> list[dict[str, str]]:
    """The same with every text as it was before it was written."""
    return [{key: unguarded(cell) for key, cell in row.items()} for row in cells(out, name)]


# CSV


@pytest.mark.parametrize("name", TABLES)
def test_csv_has_the_columns_in_their_order(out: Path, name: str) -> None:
    assert list(table(out, name)[0]) == [column.name for column in TABLES[name]]


def test_every_imaged_well_has_a_row_and_what_is_missing_is_empty(out: Path) -> None:
    rows = {row["well"]: row for row in table(out, "wells")}
    assert len(rows) == len(layout())
    waiting, failed = rows["B17"], rows["B16"]
    assert (waiting["status"], waiting["reason"]) == ("queued", "not imaged yet")
    assert (failed["status"], failed["reason"]) == ("failed", "the shutter stuck")
    for row in (waiting, failed):
        for name in ("live_um3", "n_live", "v_count_fraction", "v_control_percent", "v_score_percent", "model_sha256"):
            assert row[name] == "", name
    assert rows["B05"]["excluded"] == "true"
    assert (rows["B05"]["exclusion_reason"], rows["B05"]["excluded_by"]) == ("a bubble", "ann")
    assert rows["A03"]["excluded"] == "false"
    assert rows["A03"]["compound"] == "=1+1"


@pytest.mark.parametrize("name", ["wells", "curves", "curve_points", "rows"])
def test_no_table_holds_a_formula(data: Path, out: Path, tmp_path: Path, name: str) -> None:
    if name == "rows":
        assert command("results", data, "--csv", tmp_path / "rows.csv").exit_code in (0, 1)
        out = tmp_path
    rows = cells(out, name)
    assert {row["compound"] for row in rows if "1+1" in row["compound"]} == {"'=1+1"}
    assert not any(cell[:1] in "=+@" for row in rows for cell in row.values() if cell)


def test_numbers_come_back_bit_by_bit(out: Path, data: Path) -> None:
    with Catalog.read_only(data) as catalog:
        results = {result.well: result for result in catalog.results("P1")}
    for row in table(out, "wells"):
        result = results[row["well"]]
        for name, value in (
            ("live_um3", result.live_um3),
            ("v_control_percent", result.v_control),
            ("v_score_lo_percent", result.v_score_lo),
            ("v_count_fraction", result.v_count),
        ):
            assert (float(row[name]) if row[name] else None) == value
        assert row["status"] == result.status
        assert (row["reason"] or None) == result.reason


def test_curves_have_an_ic50_or_say_why_not(out: Path) -> None:
    rows = {row["compound"]: row for row in table(out, "curves")}
    assert set(rows) == set(COMPOUNDS)
    assert rows["=1+1"]["status"] == "ok"
    assert float(rows["=1+1"]["ic50_abs_um"]) == pytest.approx(3.0, rel=0.3)
    assert (rows["=1+1"]["n_excluded"], rows["=1+1"]["n_controls"], rows["=1+1"]["unit"]) == ("1", "2", "percent")
    flat = rows["flat"]
    assert flat["status"] == "inactive"
    assert flat["ic50_rel_um"] == flat["ic50_abs_um"] == ""
    assert (flat["n_missing"], flat["provisional"]) == ("2", "true")
    assert flat["reason"]


def test_every_well_of_a_curve_is_accounted_for(out: Path) -> None:
    rows = [row for row in table(out, "curve_points") if row["compound"] == "=1+1"]
    assert len(rows) == 2 * len(DOSES_UM) + 2
    assert sum(row["in_fit"] == "true" for row in rows) == 2 * len(DOSES_UM) + 2 - 1
    assert [row["exclusion_reason"] for row in rows if row["well"] == "B05"] == ["a bubble"]
    assert {row["dose_um"] for row in rows if row["control"] == "true"} == {"0.0"}
    missing = [row for row in table(out, "curve_points") if row["missing_reason"]]
    assert {row["well"]: row["response"] for row in missing} == {"B16": "", "B17": ""}


# Parquet


@pytest.mark.parametrize("name", TABLES)
def test_parquet_says_what_the_csv_says_with_types_and_units(out: Path, name: str) -> None:
    found = pyarrow.parquet.read_table(out / f"{name}.parquet")
    types = dict.fromkeys(("text", "list", "record"), "string")
    types |= {"integer": "int64", "number": "double", "truth": "bool"}
    for column in TABLES[name]:
        field = found.schema.field(column.name)
        assert str(field.type) == types[column.kind]
        assert field.metadata[b"unit"].decode() == column.unit
    assert found.schema.metadata[b"audit_head"]
    lines = table(out, name)
    rows = found.to_pylist()
    assert len(rows) == len(lines) > 0
    for row, line in zip(rows, lines, strict=True):
        for column in TABLES[name]:
            value, cell = row[column.name], line[column.name]
            if value is None:
                assert cell == ""
            elif column.kind == "truth":
                assert cell == str(value).lower()
            else:
                assert type(value)(cell) == value


# GraphPad Prism


def test_prism_holds_each_replicate_at_its_dose_and_strikes_the_excluded(out: Path) -> None:
    path = out / "P1.pzfx"
    assert pzfx.pzfx_tables(str(path)) == ["P1 pt1 v_control"]
    kept, fitted = pzfx.read_pzfx(str(path), strike_action="keep"), pzfx.read_pzfx(str(path))
    assert list(kept["dose (uM)"]) == [0.0, *DOSES_UM]
    points = table(out, "curve_points")
    for compound in COMPOUNDS:
        columns = [f"{compound}_1", f"{compound}_2"]
        for dose in (0.0, *DOSES_UM):
            mine = [p for p in points if p["compound"] == compound and float(p["dose_um"]) == dose and p["response"]]
            for frame, wanted in ((kept, mine), (fitted, [p for p in mine if p["in_fit"] == "true"])):
                line = frame[frame["dose (uM)"] == dose]
                found = sorted(value for name in columns for value in line[name] if not math.isnan(value))
                assert found == sorted(float(point["response"]) for point in wanted)


def test_prism_finds_what_its_own_files_have(out: Path) -> None:
    root = ET.parse(out / "P1.pzfx").getroot()
    assert (root.tag, root.get("PrismXMLVersion")) == ("GraphPadPrismFile", "5.00")
    assert [child.tag for child in root] == ["Created", "InfoSequence", "Info", "TableSequence", "Table"]
    one = root.find("Table")
    assert one is not None
    assert (one.get("TableType"), one.get("XFormat"), one.get("YFormat")) == ("XY", "numbers", "replicates")
    assert [ref.get("ID") for ref in root.iterfind("TableSequence/Ref")] == [one.get("ID")]
    lengths = {len(column) for column in one.iter("Subcolumn")}
    assert lengths == {1 + len(DOSES_UM)}
    assert {c.get("Subcolumns") for c in one.iterfind("YColumn")} == {one.get("Replicates")}
    info = {c.findtext("Name"): c.findtext("Value") for c in root.iterfind("Info/Constant")}
    assert re.fullmatch(r"\d+:[0-9a-f]{64}", info["audit_head"] or "")


names = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=8).map(str.strip).filter(bool)
responses = st.floats(-1e6, 1e6, allow_nan=False)


@settings(max_examples=40, deadline=None)
@given(
    curves=st.lists(
        st.tuples(names, st.none() | names, st.lists(st.tuples(st.sampled_from(DOSES_UM), responses), max_size=6)),
        max_size=5,
    ),
    controls=st.lists(responses, max_size=4),
)
def test_any_names_and_numbers_are_a_file_that_reads_back(
    curves: list[tuple[str, str | None, list[tuple[float, float]]]],
    controls: list[float],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    path = tmp_path_factory.mktemp("pzfx") / "any.pzfx"
    given_curves = [
        CurvePoints(
            plate="P1",
            patient=patient,
            compound=compound,
            metric="v_control",
            doses_um=tuple(dose for dose, _ in points),
            responses=tuple(value for _, value in points),
            wells=("A01",) * len(points),
            excluded=(None,) * len(points),
            control_responses=tuple(controls),
            control_wells=("B01",) * len(controls),
            excluded_controls=(),
            missing=(MissingWell("C01", 1.0, "lost", None),),
            provisional=False,
        )
        for compound, patient, points in curves
    ]
    write_pzfx(given_curves, path, {"who": "\ud800\x00<&>"})
    found = sorted(float(d.text) for t in ET.parse(path).iter("YColumn") for d in t.iter("d") if d.text)
    assert found == sorted([value for *_, points in curves for _, value in points] + controls * len(curves))


def test_more_data_sets_than_a_table_holds_go_into_another(tmp_path: Path) -> None:
    def one(number: int) -> CurvePoints:
        return CurvePoints("P1", None, f"c{number}", "v_control", (), (), (), (), (), (), (), (), False)

    write_pzfx([one(number) for number in range(101)], tmp_path / "many.pzfx", {})
    titles = [element.findtext("Title") for element in ET.parse(tmp_path / "many.pzfx").iter("Table")]
    assert titles == ["P1 v_control (1)", "P1 v_control (2)"]


# MIHCSME


def test_the_omero_tool_reads_the_metadata(out: Path) -> None:
    found = mihcsme_py.parse_excel_to_model(out / "P1.mihcsme.xlsx")
    wells = {one.well: one.conditions for one in found.assay_conditions}
    assert len(wells) == len(layout())
    assert {one.plate for one in found.assay_conditions} == {"P1"}
    assert (wells["A03"]["Treatment"], float(wells["A03"]["Dose"]), wells["A03"]["DoseUnit"]) == ("=1+1", 0.1, "uM")
    assert (wells["B05"]["Excluded"], wells["B05"]["ExclusionReason"]) == ("yes", "a bubble")
    assert wells["A01"]["Treatment"] == "untreated"
    assert "Dose" not in wells["A01"]
    assay = found.assay_information
    assert assay.assay.assay_title == "P1"
    assert (assay.image_data.image_number_of_pixelsx, assay.image_data.image_number_of_z_stacks) == ("48", "8")
    assert [channel.visualization_method for channel in assay.specimen.channels] == [
        "Calcein-AM, 488 nm",
        "Propidium iodide, 561 nm",
    ]
    assert found.investigation_information.data_owner.last_name is None  # a person fills that in


def test_every_key_of_the_published_template_is_there(out: Path) -> None:
    """The keys that mihcsme-py knows, from its own models."""
    workbook = openpyxl.load_workbook(out / "P1.mihcsme.xlsx")
    models = {
        "InvestigationInformation": ("DataOwner", "DataCollaborator", "InvestigationInfo"),
        "StudyInformation": ("Study", "Biosample", "Library", "Protocols", "Plate"),
        "AssayInformation": ("Assay", "AssayComponent", "BiosampleAssay", "ImageData", "ImageAcquisition"),
    }
    for sheet, classes in models.items():
        keys = {row[1] for row in workbook[sheet].iter_rows(values_only=True) if row[1]}
        for name in classes:
            fields = getattr(mihcsme_py.models, name).model_fields.values()
            assert {field.alias for field in fields} <= keys


def test_a_name_that_looks_like_a_formula_stays_a_name(out: Path) -> None:
    sheet = openpyxl.load_workbook(out / "P1.mihcsme.xlsx")["AssayConditions"]
    cells = [cell for row in sheet.iter_rows() for cell in row if cell.value == "=1+1"]
    assert {(cell.data_type, cell.quotePrefix) for cell in cells} == {("s", True)}


# The manifest and the audit trail


def test_the_manifest_names_every_file_and_its_head_is_an_anchor(out: Path, data: Path) -> None:
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    assert {file["name"] for file in manifest["files"]} | {"manifest.json"} == {path.name for path in out.iterdir()}
    for file in manifest["files"]:
        assert hashlib.sha256((out / file["name"]).read_bytes()).hexdigest() == file["sha256"]
    assert manifest["exported_by"] == "bob"
    with Catalog.read_only(data) as catalog:
        assert verify(catalog, manifest["audit_head"]).intact
        event = next(event for event in events(catalog) if f"{event.seq}:{event.sha256}" == manifest["audit_head"])
    assert (event.action, event.who, event.plate) == ("export written", "bob", "P1")
    assert json.loads(event.new_json or "")["files"] == manifest["files"]


# SQL


def test_the_views_say_what_the_rows_say(out: Path, data: Path) -> None:
    database = Database(sqlite3.connect(data / "catalog.sqlite"))
    assert {"wells_view", "curves_view", "doses_view", "plates_view", "audit_view"} <= set(database.view_names())
    wells = list(database.query("SELECT * FROM wells_view"))
    assert list(wells[0]) == [column.name for column in WELLS]
    for row, line in zip(wells, table(out, "wells"), strict=True):
        for column in WELLS:
            value = bool(row[column.name]) if column.kind == "truth" else row[column.name]
            assert ("" if value is None else str(value).lower()) == line[column.name].lower()
    (plate,) = database.query("SELECT * FROM plates_view")
    assert (plate["n_wells"], plate["n_wells_measured"], plate["n_wells_excluded"]) == (34, 32, 1)
    doses = list(database.query("SELECT * FROM doses_view WHERE compound = '=1+1' ORDER BY dose_um"))
    assert [row["n_with_v_control"] for row in doses] == [2, 2, 1, 2, 2]
    flat = list(database.query("SELECT * FROM doses_view WHERE compound = 'flat' ORDER BY dose_um"))
    assert [row["n_with_v_control"] for row in flat] == [2, 2, 2, 1, 1]
    database.close()


def test_fitted_curves_are_in_a_view_until_a_number_behind_them_changes(tmp_path: Path) -> None:
    wells = plates.plate_map("P1", layout())
    plates.register(tmp_path, wells)
    plates.score(tmp_path, wells, {entry.well: live_um3(entry.well, entry.treatment) for entry in wells})
    export(tmp_path, tmp_path / "out")
    export(tmp_path, tmp_path / "out")
    query = "SELECT compound, ic50_abs_um, outdated FROM curves_view"
    with Catalog.read_only(tmp_path) as catalog:
        before = catalog.query(query)
    lines = table(tmp_path / "out", "curves")
    assert [row["compound"] for row in before] == [line["compound"] for line in lines]
    assert {row["outdated"] for row in before} == {0}
    for row, line in zip(before, lines, strict=True):
        assert row["ic50_abs_um"] == (float(line["ic50_abs_um"]) if line["ic50_abs_um"] else None)
    exclude_well(tmp_path, "B05", "a bubble")
    with Catalog.read_only(tmp_path) as catalog:
        assert {row["outdated"] for row in catalog.query(query)} == {1}


# The documentation


def test_every_column_is_documented() -> None:
    text = PATH.read_text(encoding="utf-8")
    assert with_columns(text) == text, "docs/schema.md is older than the columns: run `make docs`"


def test_every_view_is_documented(data: Path) -> None:
    text = (DOCS / "schema.md").read_text(encoding="utf-8")
    connection = sqlite3.connect(data / "catalog.sqlite")
    views = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'view'")]
    for view in views:
        if view.endswith("_view"):
            assert f"`{view}`" in text
            for column in connection.execute(f"SELECT name FROM pragma_table_info('{view}')"):
                assert f"`{column[0]}`" in text, (view, column[0])
    connection.close()


# What goes wrong


def test_a_plate_of_which_nothing_is_known_is_exported_all_the_same(tmp_path: Path) -> None:
    plates.register(tmp_path, plates.plate_map("P1", layout()))
    export(tmp_path, tmp_path / "out", formats=list(Format))
    assert {row["status"] for row in table(tmp_path / "out", "curves")} == {"failed"}
    assert {row["v_control_percent"] for row in table(tmp_path / "out", "wells")} == {""}


def test_a_plate_without_compounds_has_empty_tables_with_headers(tmp_path: Path) -> None:
    plates.register(tmp_path, plates.plate_map("P1", {WellId(0, 0): plates.UNTREATED}))
    export(tmp_path, tmp_path / "out", formats=list(Format))
    assert (tmp_path / "out" / "curves.csv").read_text().startswith("plate,patient,compound")
    assert pyarrow.parquet.read_table(tmp_path / "out" / "curves.parquet").num_rows == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--plate", "P9"), "there is no plate 'P9'"),
        (("--metric", "mood"), "there is no metric 'mood'"),
        (("--who", "\x1b"), "control characters"),
    ],
)
def test_what_there_is_not_is_refused(data: Path, tmp_path: Path, options: tuple[str, str], words: str) -> None:
    done = command("export", data, "-o", tmp_path / "out", *options)
    assert done.exit_code == 2
    assert words in done.stderr


def test_a_missing_package_is_named_with_what_to_install(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r'parquet needs the package pyarrow.*pip install "spheroidd\[export\]"'):
        export(data, tmp_path / "out", formats=[Format.CSV, Format.PARQUET])
    assert not (tmp_path / "out").exists()
    export(data, tmp_path / "out", formats=[Format.CSV, Format.PZFX])


def test_a_directory_that_cannot_be_written_is_named_and_nothing_is_entered(data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with Catalog.read_only(data) as catalog:
        before = events(catalog)
    with pytest.raises(StorageError, match="file"):
        export(data, tmp_path / "file")
    with Catalog.read_only(data) as catalog:
        assert events(catalog) == before


def test_a_failure_leaves_the_file_of_the_last_export(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(data, tmp_path)
    before = (tmp_path / "wells.csv").read_bytes()

    def full(table: object, path: Path) -> None:
        path.write_text("half a fi")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("spheroidd.daemon.export.writer.write_csv", full)
    with pytest.raises(StorageError, match="No space left"):
        export(data, tmp_path)
    assert (tmp_path / "wells.csv").read_bytes() == before
    assert not list(tmp_path.glob("*.partial"))


def test_where_nothing_was_run_nothing_is_made(tmp_path: Path) -> None:
    done = command("export", tmp_path, "-o", tmp_path / "out")
    assert done.exit_code == 2
    assert list(tmp_path.iterdir()) == []


def test_help_needs_none_of_the_packages() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from spheroidd.daemon.cli import console as cli; "
        "r = CliRunner().invoke(cli.app, ['export', '--help']); assert r.exit_code == 0; "
        "print(sorted({'pyarrow', 'openpyxl', 'scipy', 'numba', 'torch', 'sqlite_utils'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
