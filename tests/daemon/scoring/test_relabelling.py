"""A plate map that was corrected after the run: rows, curves, quality and references follow, old labels stay known."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from spheroidd.daemon.analysis.curves import curve_points
from spheroidd.daemon.analysis.plate_quality import plate_quality
from spheroidd.daemon.catalog.audit_verification import verify
from spheroidd.daemon.catalog.reader import CatalogReader
from spheroidd.daemon.catalog.references import import_references, references_of
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.cli import console as cli
from spheroidd.daemon.scoring.limits_of_plate import limits_of_wells
from spheroidd.daemon.scoring.relabelling import IMPORT_AGAIN
from spheroidd.daemon.system.lock import acquire_lock
from spheroidd.inference.viability.mtt import Blank
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.evidence import ChannelLight, StackLight
from spheroidd.protocols.plate import PlateMap, PlateWell
from spheroidd.protocols.results import WellStatus
from spheroidd.protocols.stack import StackKey
from spheroidd.protocols.well import WellId
from tests.daemon.report import plates

# As the map said it: A03 untreated, B01 treated. In truth it was the other way round.
A01, A02, A03, B01, B02 = (WellId(row, column) for row, column in ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1)))
EMPTY = plates.Treatment(plates.WellRole.EMPTY)
TREATMENTS = dict.fromkeys((A01, A02, A03), plates.UNTREATED) | {B01: plates.sample("drug", 2.0), B02: EMPTY}
LIVE = {A01: 900.0, A02: 1000.0, A03: 300.0, B01: 1100.0}
CORRECTED = (
    "well,role,compound,dose_um\nA01,untreated,,\nA02,untreated,,\nA03,sample,drug,2\nB01,untreated,,\nB02,empty,,\n"
)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A plate that was run to its end with a wrong map, and read by a plate reader."""
    home = tmp_path / "data"
    wells = plates.plate_map("P1", TREATMENTS)
    plates.register(home, wells)
    plates.score(home, wells, LIVE)
    (tmp_path / "od.csv").write_text("well,od\nA01,1.0\nA02,1.1\nA03,0.4\nB01,1.2\nB02,0.1\n")
    import_references(home, tmp_path / "od.csv")
    (tmp_path / "right.csv").write_text(CORRECTED.replace("untreated", "negative_control"))
    return home


def relabel(data: Path, *options: object, text: str | None = None) -> Result:
    file = data.parent / "right.csv"
    if text is not None:
        file.write_text(text)
    command = ["relabel", data, file, "--reason", "A03 and B01 were exchanged", "--who", "ann", *options]
    return CliRunner().invoke(cli.app, [str(argument) for argument in command])


def test_rows_curves_quality_and_references_follow_the_corrected_map(data: Path) -> None:
    done = relabel(data)
    assert done.exit_code == 0, done.stderr
    assert "A03: role negative_control -> sample" in done.stdout
    with CatalogReader.read_only(data) as catalog:
        rows = {row.result.well: row for row in catalog.result_rows("P1")}
        figures = {well: row.result.v_control for well, row in rows.items()}
        assert figures == pytest.approx({"A01": 90, "A02": 100, "A03": 30, "B01": 110}), "the median control is 1000"
        assert {row.result.status for row in rows.values()} == {WellStatus.FINAL}
        assert rows["A03"].treatment == plates.sample("drug", 2.0)
        (points,) = curve_points(catalog, "P1")
        assert (points.wells, points.responses) == (("A03",), pytest.approx((30.0,)))
        assert sorted(points.control_wells) == ["A01", "A02", "B01"]
        assert plate_quality(catalog, "P1").n_negative == 3
        assert {change.reason for change in catalog.result_changes()} >= {
            "plate relabelled: A03 and B01 were exchanged"
        }
        percent = {well: one.viability_percent for well, one in references_of(catalog, "P1").items()}
        assert percent == pytest.approx({"A01": 90, "A02": 100, "A03": 30, "B01": 110})
        assert verify(catalog).intact


def test_the_old_labels_stay_in_the_history(data: Path) -> None:
    assert relabel(data).exit_code == 0
    shown = CliRunner().invoke(cli.app, ["audit", "show", str(data), "--well", "A03", "--json"])
    told = [event for event in json.loads(shown.stdout) if event["action"] == "well relabelled"]
    assert [(event["who"], event["reason"]) for event in told] == [("ann", "A03 and B01 were exchanged")]
    assert (told[0]["old"]["role"], told[0]["old"]["compound"]) == ("negative_control", None)
    assert (told[0]["new"]["role"], told[0]["new"]["compound"], told[0]["new"]["dose_um"]) == ("sample", "drug", 2.0)


def test_a_fitted_curve_of_before_is_outdated(data: Path) -> None:
    export = CliRunner().invoke(cli.app, ["export", str(data), "-o", str(data.parent / "out")])
    assert export.exit_code == 0, export.stderr
    assert relabel(data).exit_code == 0
    with CatalogReader.read_only(data) as catalog:
        assert {row["outdated"] for row in catalog.query("SELECT outdated FROM curves_view")} == {1}


def test_a_dry_run_says_the_same_and_changes_nothing(data: Path) -> None:
    before = (data / "catalog.sqlite").read_bytes()
    said = relabel(data, "--dry-run")
    assert "B01: role sample -> negative_control" in said.stdout
    assert "nothing is changed" in said.stdout
    with CatalogReader.read_only(data) as catalog:
        assert catalog.plate_map("P1")[A03].treatment == plates.UNTREATED
    assert len(before) == (data / "catalog.sqlite").stat().st_size


def test_where_the_blank_may_be_another_one_no_reference_is_known(data: Path) -> None:
    said = relabel(
        data, text=CORRECTED.replace("untreated", "negative_control").replace("A02,negative_control", "A02,empty")
    )
    assert said.exit_code == 0, said.stderr
    assert IMPORT_AGAIN in said.stdout
    with CatalogReader.read_only(data) as catalog:
        assert {one.viability_percent for one in references_of(catalog, "P1").values()} == {None}
        assert {row.result.well for row in catalog.result_rows("P1")} == {"A01", "A03", "B01"}
        assert verify(catalog).intact
    import_references(data, data.parent / "od.csv", blank=Blank(od=0.1))


def test_limits_that_rest_on_the_old_controls_are_told(data: Path) -> None:
    with Catalog.create_or_open(data) as catalog:
        catalog.lock_limits("P1", {"488": plates.Limits(1.0, 2.0, 1.5, 0.5)})
    assert "Note: the intensity limits stay those" in relabel(data).stdout


def test_limits_follow_the_new_controls_and_rows_wait_for_them(data: Path) -> None:
    with Catalog.create_or_open(data) as catalog:
        for well, live in LIVE.items():
            one = ChannelLight(low=100.0, high=100.0 + live, peak=200.0 + live, saturated_share=0.0, noise=3.0)
            catalog.put_stack_light(StackKey("P1", well), StackLight({"488": one, "561": one}, bleed=0.0))
        catalog.lock_limits("P1", limits_of_wells(catalog, catalog.plate_map("P1")))
        before = catalog.locked_limits("P1")
    assert "Note: the intensity limits follow the new controls" in relabel(data).stdout
    with CatalogReader.read_only(data) as catalog:
        after = catalog.locked_limits("P1")
        assert after is not None
        assert before is not None
        assert after["488"].high > before["488"].high, "the median untreated well is brighter: 1000, not 900 counts"
        assert after == limits_of_wells(catalog, catalog.plate_map("P1"))
        assert verify(catalog).intact


def test_the_corrected_map_is_the_plates_map_from_then_on(data: Path) -> None:
    assert relabel(data).exit_code == 0
    with Catalog.create_or_open(data) as catalog:
        with pytest.raises(ConfigError, match="was run with another map"):
            catalog.register_plate(plates.plate_map("P1", TREATMENTS), "{}")
        catalog.register_plate(catalog.plate_map("P1"), "{}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("well,role\nA01,negative_control\n", "it leaves out wells of plate P1: A02, A03, B01, B02"),
        (
            "well,role,compound,dose_um\nA01,negative_control,,\nA02,negative_control,,\nA03,negative_control,,\n"
            "B01,sample,drug,2\nB02,empty,,\n",
            "it says of every well what plate P1 says already",
        ),
        ("well,role\nA01,boss\n", "role is 'boss'"),
    ],
)
def test_a_map_that_corrects_nothing_is_refused(data: Path, text: str, message: str) -> None:
    refused = relabel(data, text=text)
    assert refused.exit_code == ConfigError.exit_code
    assert message in refused.stderr


def test_beside_a_running_daemon_it_is_refused(data: Path) -> None:
    with acquire_lock(data):
        refused = relabel(data)
    assert "a daemon runs on this data directory" in refused.stderr


def test_a_map_that_names_other_files_for_wells_that_have_images_is_refused(tmp_path: Path) -> None:
    home, imaged = tmp_path / "data", {A01: plates.UNTREATED, B01: plates.sample("drug", 2.0)}
    wells = PlateMap("P1", tuple(PlateWell(w, of, {"": tmp_path / f"{w}.tif"}) for w, of in imaged.items()))
    plates.register(home, wells)
    plates.score(home, wells, {A01: 1000.0, B01: 100.0})
    text = "well,path,role,compound,dose_um\nA01,{0}.tif,negative_control,,\nB01,{1}.tif,sample,drug,20\n"
    refused = relabel(home, text=text.format("B01", "A01"))
    assert (refused.exit_code, "A01 was imaged from" in refused.stderr) == (2, True)
    assert relabel(home, text=text.format("A01", "B01")).exit_code == 0
