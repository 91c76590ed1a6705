"""What the page asks of a plate's answer: its curves, its table, its report; and what a person corrects in it."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from spheroidd.daemon.analysis.curves import curve_points, curves
from spheroidd.daemon.catalog.writer import Catalog, RunState
from spheroidd.daemon.pipeline import orders
from spheroidd.daemon.report import wording
from spheroidd.daemon.scoring.relabelling import relabel_well
from spheroidd.daemon.service.tokens import Role, TokenFile
from spheroidd.daemon.web.curve_view import CurveViews
from spheroidd.daemon.web.plate_views import PlateViews, fingerprint
from spheroidd.protocols.errors import ConfigError, MissingError
from spheroidd.protocols.plate import Treatment, WellRole
from spheroidd.protocols.results import Related, WellStatus
from spheroidd.protocols.stack import StackKey
from spheroidd.protocols.well import WellId
from tests.daemon.report import plates
from tests.daemon.web.rig import Client, asked, said
from tests.daemon.web.test_page import fill_plate


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    fill_plate(folder)
    return folder


@pytest.fixture(scope="module")
def client(data_dir: Path) -> Iterator[Client]:
    with asked(data_dir) as (client, _, _):
        yield client


def two_compounds(folder: Path) -> tuple[Path, list[WellId]]:
    """A plate of two compounds of which all but the last well of each is scored; those two wells."""
    wells, live = plates.screen_plate("P1", 6, 8, {"one": 1.0, "two": 5.0})
    plates.register(folder, wells)
    last = {entry.treatment.compound: entry.well for entry in wells if entry.treatment.compound}
    plates.score(folder, wells, {well: volume for well, volume in live.items() if well not in last.values()})
    return folder, [last["one"], last["two"]]


def test_the_curves_are_those_of_the_report(client: Client, data_dir: Path) -> None:
    (drawn,) = client.get("/page/curves?plate=P1").json["curves"]
    with Catalog.read_only(data_dir) as catalog:
        (curve,) = curves(catalog, "P1")
    doses = tuple(dose for dose in curve.doses_um if dose > 0)
    assert (drawn["compound"], drawn["status"], said(drawn["said"])) == ("drug", curve.fit.status, curve.fit.words.said)
    assert said(drawn["ic50"]) == wording.ic50(curve.fit, doses)
    assert (said(drawn["reason"]), list(map(said, drawn["warnings"]))) == (curve.fit.reason, list(curve.fit.warnings))
    assert [one[0] for one in drawn["points"]] == list(curve.wells)
    assert [one[2] for one in drawn["points"]] == pytest.approx(curve.responses, abs=1e-3)
    assert {one[0] for one in drawn["missing"]} == {one.well for one in curve.missing}
    assert (drawn["line"][0][0], drawn["line"][-1][0]) == pytest.approx((min(doses), max(doses)), rel=1e-3)
    assert all(low <= middle <= high for _, middle, low, high in drawn["line"] if low is not None)


def finish(folder: Path, well: WellId, v_control: float) -> None:
    """One further well gets its row."""
    wells, live = plates.screen_plate("P1", 6, 8, {"one": 1.0, "two": 5.0})
    plates.score(folder, wells, {well: live[well]})
    with Catalog.create_or_open(folder) as catalog, catalog.transaction():
        related = Related(WellStatus.FINAL, None, v_control)
        catalog.update_related(StackKey("P1", well), plates.MODEL, related, "controls")


def test_a_row_fits_its_own_curve_again_and_no_other(tmp_path: Path) -> None:
    folder, (well, _) = two_compounds(tmp_path)
    views = CurveViews(lambda: 0.0)

    def look() -> tuple[str, dict[str, Any]]:
        with Catalog.read_only(folder) as catalog:
            tag, _ = views.of(catalog, "P1", fingerprint(catalog, "P1"))
        return tag, {points.compound: drawn for points, drawn in views._drawn["P1"].items()}

    tag, before = look()
    assert look()[0] == tag
    finish(folder, well, 50.0)
    after_tag, after = look()
    assert after_tag != tag
    assert after["two"] is before["two"]
    assert after["one"]["n"] == before["one"]["n"] + 1


def test_a_large_plate_is_judged_where_its_rows_changed_and_not_all_the_time(tmp_path: Path) -> None:
    """Judging takes a second here: for twenty seconds more the judgement stays, and without a new row for ever."""
    folder, (first, second) = two_compounds(tmp_path)
    first_s, looks, second_s, third_s = (10.0, 11.0), (30.9, 31.1), (31.2, 32.2), (1000.0, 1000.0, 1001.0)
    clock = iter([*first_s, *looks, *second_s, *third_s])
    views = PlateViews(lambda: next(clock))
    with Catalog.read_only(folder) as catalog:
        judged = views.quality(catalog, "P1")
        assert views.quality(catalog, "P1") is judged  # no row has changed: the clock is not even looked at
        finish(folder, first, 50.0)
        assert views.quality(catalog, "P1") is judged
        again = views.quality(catalog, "P1")
        assert again is not judged
        finish(folder, second, 50.0)
        assert views.quality(catalog, "P1") is not again


def test_the_table_has_raw_values_and_null_for_what_is_not_known(client: Client, data_dir: Path) -> None:
    found = client.get("/page/results?plate=P1")
    names = [column["name"] for column in found.json["columns"]]
    rows = {row[0]: dict(zip(names, row, strict=True)) for row in found.json["rows"]}
    with Catalog.read_only(data_dir) as catalog:
        stored = {row.result.well: row.values() for row in catalog.result_rows("P1")}
    assert rows.keys() == stored.keys()
    assert {well: row["v_control_percent"] for well, row in rows.items()} == {
        well: row["v_control"] for well, row in stored.items()
    }
    assert None in {row["v_control_percent"] for row in rows.values()}
    assert client.get("/page/results?plate=P1", if_none_match=found.headers["etag"]).status == 304


def test_the_report_comes_as_a_file_and_stands_in_the_audit_trail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warm_program: tuple[str]
) -> None:
    monkeypatch.setattr("spheroidd.daemon.web.report_file._COMMAND", warm_program)
    fill_plate(tmp_path)
    token = TokenFile(tmp_path).create("Ada", Role.VIEWER, 600)
    with asked(tmp_path) as (client, _, _):
        refused = client.get("/page/report?plate=P1&kind=doc")
        assert (refused.status, refused.json["do"]) == (400, "ask for one of html, pdf")
        assert client.get("/page/report?plate=P9&kind=html").status == 400
        answer = client.get("/page/report?plate=P1&kind=html", authorization=f"Bearer {token}")
    assert (answer.status, answer.headers["content-disposition"]) == (200, "attachment; filename*=UTF-8''P1.html")
    assert b"Plate P1" in answer.body
    with Catalog.read_only(tmp_path) as catalog:
        (entry,) = catalog.query("SELECT who, plate FROM audit WHERE action = 'report written'")
    assert entry == {"who": "Ada", "plate": "P1"}


# -- corrections


@contextmanager
def beating(folder: Path) -> Iterator[None]:
    """A main that shows a sign of life and runs P1."""
    over = threading.Event()

    def beat() -> None:
        with Catalog.create_or_open(folder) as catalog:
            while not over.wait(0.05):
                catalog.set_run_state(RunState("1", 1, "running", 1.0, time.time(), plate="P1"))

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_a_well_is_excluded_and_taken_in_again_with_who_and_why(tmp_path: Path) -> None:
    fill_plate(tmp_path)
    token = TokenFile(tmp_path).create("Ada", Role.OPERATOR, 600)
    viewer = TokenFile(tmp_path).create("Eve", Role.VIEWER, 600)
    path = "/v1/plates/P1/wells/B02"

    def exclusions() -> dict[str, tuple[str, str]]:
        with Catalog.read_only(tmp_path) as catalog:
            return {well: (one.who, one.reason) for well, one in catalog.excluded_wells("P1").items()}

    with beating(tmp_path), asked(tmp_path, local_role="none") as (client, _, _):
        given = {"reason": "a bubble"}
        assert client.post(f"{path}:exclude", given, authorization=f"Bearer {viewer}").status == 403
        assert client.post(f"{path}:exclude", {}, authorization=f"Bearer {token}").status == 400
        done = client.post(f"{path}:exclude", given, authorization=f"Bearer {token}").json["done"]
        assert done == "B02 is excluded; the plate's rows are up to date"
        assert exclusions() == {"B02": ("Ada", "a bubble")}
        view = client.get("/page/well?plate=P1&well=B02", authorization=f"Bearer {token}").json
        assert view["exclusion_reason"] == "a bubble"
        client.post(f"{path}:include", {"reason": "none at all"}, authorization=f"Bearer {token}")
        assert exclusions() == {}
        assert client.post(f"{path}:include", given, authorization=f"Bearer {token}").status == 400


def test_a_label_goes_to_main_as_a_whole(tmp_path: Path) -> None:
    fill_plate(tmp_path)
    label = {"role": "sample", "compound": "drug", "dose_um": 0.0, "reason": "swapped"}
    with asked(tmp_path) as (client, main, _):
        assert client.post("/v1/plates/P1/wells/B02:relabel", label).status == 200
        assert client.post("/v1/plates/P1/wells/B02:relabel", {**label, "role": "king"}).status == 400
        assert client.post("/v1/plates/P1/wells/B02:relabel", {"role": "sample", "compound": "drug"}).status == 400
    treatment = Treatment(WellRole.SAMPLE, "drug", 0.0)
    assert main.orders == [
        orders.RelabelWell(who="local", plate="P1", well=WellId(1, 1), treatment=treatment, reason="swapped")
    ]


def test_a_label_is_changed_and_its_curve_follows(tmp_path: Path) -> None:
    folder, _ = two_compounds(tmp_path)
    with Catalog.create_or_open(folder) as catalog:
        (row,) = [
            row for row in catalog.result_rows("P1") if row.treatment == plates.sample("one", plates.DOSES_UM[0])
        ][:1]
        at = WellId.parse(row.result.well)
        done = relabel_well(folder, catalog, "P1", at, plates.sample("two", 1.0), "swapped", who="Ada")
        held = {one.compound: one.wells for one in curve_points(catalog, "P1")}
        assert str(at) in held["two"]
        assert str(at) not in held["one"]
        with pytest.raises(MissingError, match="no well H12"):
            relabel_well(folder, catalog, "P1", WellId(7, 11), plates.sample("two", 1.0), "swapped", who="Ada")
        with pytest.raises(ConfigError, match="says already"):
            relabel_well(folder, catalog, "P1", at, plates.sample("two", 1.0), "swapped", who="Ada")
    assert done.event is not None
    assert done.event.reason == "swapped"
