"""A well that was imaged more than once counts once: by its newest whole stack, or by the one that a person chose."""

import json
import statistics
import zlib
from collections.abc import Mapping
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from spheroidd.daemon.analysis.curves import curve_points
from spheroidd.daemon.analysis.plate_quality import plate_quality
from spheroidd.daemon.catalog.audit_chain import Action
from spheroidd.daemon.catalog.audit_verification import verify
from spheroidd.daemon.catalog.reader import CatalogReader
from spheroidd.daemon.catalog.rows import StackState
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.cli import console as cli
from spheroidd.daemon.export.tables import wells_table
from spheroidd.daemon.monitoring.status import look
from spheroidd.daemon.report.content import plate_content
from spheroidd.daemon.scoring.exclusions import relating
from spheroidd.protocols.events import SliceDurable
from spheroidd.protocols.results import WellStatus
from spheroidd.protocols.stack import StackKey
from spheroidd.protocols.stack_end import Ending, StackEnd
from spheroidd.protocols.well import WellId
from tests.daemon.report import plates

A01, A02, A03, B01 = (WellId(row, column) for row, column in ((0, 0), (0, 1), (0, 2), (1, 0)))
TREATMENTS = dict.fromkeys((A01, A02, A03), plates.UNTREATED) | {B01: plates.sample("drug", 2.0)}
LIVE = {A01: 900.0, A02: 1000.0, A03: 2000.0, B01: 500.0}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A plate that was run to its end; the last control is far from the others."""
    wells = plates.plate_map("P1", TREATMENTS)
    plates.register(tmp_path, wells)
    plates.score(tmp_path, wells, LIVE)
    return tmp_path


def image(data: Path, well: WellId, stack: int, live_um3: float | None, n_slices: int | None = None) -> None:
    """A further stack of a well: all of its slices, or so many, and its measurement where there is one."""
    key = StackKey("P1", well, stack)
    with Catalog.create_or_open(data) as catalog, catalog.transaction():
        plan = plates.plan_of(key)
        catalog.expect(plan)
        for number, index in list(enumerate(plan.indices()))[:n_slices]:
            crc = zlib.crc32(f"{key} {index}".encode())
            catalog.acknowledge(SliceDurable(key, index, crc, 1000.0 + number), 1000.0 + number)
        if n_slices is None:
            catalog.set_stack_state(key, StackState.STORED)
        else:
            catalog.end_stack(key, Ending(StackEnd.SHORT, "the camera stopped"))
        if live_um3 is not None:
            catalog.record_measurement(key, plates.measurement(live_um3), 2.0)
        scheduler = relating(catalog, "P1")
        assert scheduler is not None
        scheduler.record_relations()


def command(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def shown(data: Path) -> dict[str, tuple[int, float | None]]:
    """Well to the stack that counts and its V_control, as `spheroidd results --json` says it."""
    rows = json.loads(command("results", data, "--json").stdout)
    assert len({row["well"] for row in rows}) == len(rows), "one row a well"
    return {row["well"]: (row["stack"], row["v_control"]) for row in rows}


def expected(live: Mapping[WellId, float], stacks: Mapping[WellId, int], *controls: WellId) -> dict[str, object]:
    median = statistics.median(live[well] for well in controls)
    return {
        str(well): (stacks.get(well, 0), pytest.approx(100 * value / median, rel=1e-9)) for well, value in live.items()
    }


def test_a_repeated_control_counts_once_by_its_newest_stack(data: Path) -> None:
    image(data, A01, 1, 1100.0)
    live = {**LIVE, A01: 1100.0}
    # Counted twice, 900 and 1100 beside 1000 and 2000, the median were 1050 and every well 4.8 % lower.
    assert shown(data) == expected(live, {A01: 1}, A01, A02, A03)
    assert shown(data)["B01"][1] == pytest.approx(100 * 500 / 1100)
    with CatalogReader.read_only(data) as catalog:
        assert catalog.current_stacks("P1") == {StackKey("P1", well, int(well == A01)) for well in LIVE}
        (points,) = curve_points(catalog, "P1")
        assert sorted(points.control_responses) == pytest.approx([100 * v / 1100 for v in (1000, 1100, 2000)])
        assert plate_quality(catalog, "P1").n_negative == 3
        content = plate_content(catalog, data, "P1", with_images=False)
        assert [result.stack for result in content.entries[A01].results] == [1]
        doses = catalog.query("SELECT * FROM doses_view")
        assert [(row["dose_um"], row["n_with_v_control"]) for row in doses] == [(2.0, 1)]
        exported = {row["well"]: row["stack"] for row in wells_table(catalog, ["P1"]).rows}
        assert exported == {"A01": 1, "A02": 0, "A03": 0, "B01": 0}
        assert len(catalog.stacks("P1")) == len(catalog.results("P1", all_stacks=True)) == 5, "none is lost"
        assert verify(catalog).intact


def test_a_repeat_of_a_treated_well_replaces_its_figure(data: Path) -> None:
    image(data, B01, 1, 250.0)
    assert shown(data)["B01"] == (1, pytest.approx(25.0))
    with CatalogReader.read_only(data) as catalog:
        (points,) = curve_points(catalog, "P1")
        assert points.responses == pytest.approx((25.0,))


def test_a_repeat_without_all_of_its_slices_does_not_count(data: Path) -> None:
    image(data, A01, 1, None, n_slices=3)
    assert shown(data) == expected(LIVE, {}, A01, A02, A03)
    with CatalogReader.read_only(data) as catalog:
        assert [(one.well, one.stack) for one in look(data, catalog).failed] == [("A01", 1)]


def test_a_whole_repeat_that_waits_for_the_model_is_no_figure_yet(data: Path) -> None:
    image(data, B01, 1, None)
    assert shown(data)["B01"] == (1, None)
    with CatalogReader.read_only(data) as catalog:
        assert look(data, catalog).work_left


def test_an_excluded_stack_leaves_the_one_before_it(data: Path) -> None:
    image(data, A01, 1, 1500.0)
    assert shown(data)["B01"][1] == pytest.approx(100 * 500 / 1500)
    done = command("exclude", data, "--well", "a1", "--stack", 1, "--reason", "the lamp was off", "--who", "ann")
    assert done.exit_code == 0, done.stderr
    assert "A01, stack 1, excluded; the plate's rows are up to date" in done.stdout
    assert shown(data) == expected(LIVE, {}, A01, A02, A03)
    with CatalogReader.read_only(data) as catalog:
        reasons = {change.reason for change in catalog.result_changes()}
        assert "stack 1 of A01 excluded: the lamp was off" in reasons
        assert verify(catalog).intact
    everything = json.loads(command("results", data, "--json", "--all-stacks").stdout)
    assert [(row["stack"], row["excluded"]) for row in everything if row["well"] == "A01"] == [(0, False), (1, True)]
    again = command("include", data, "--well", "A01", "--stack", 1, "--reason", "it was on")
    assert again.exit_code == 0, again.stderr
    assert shown(data)["A01"][0] == 1


def test_a_chosen_stack_counts_until_the_well_is_imaged_again(data: Path) -> None:
    image(data, A01, 1, 1500.0)
    chosen = command("include", data, "--well", "A01", "--stack", 0, "--choose", "--reason", "1 has drifted")
    assert chosen.exit_code == 0, chosen.stderr
    assert shown(data) == expected(LIVE, {}, A01, A02, A03)
    image(data, A01, 2, 1200.0)
    assert shown(data) == expected({**LIVE, A01: 1200.0}, {A01: 2}, A01, A02, A03)


def test_a_well_whose_only_stack_is_excluded_has_no_figure_that_counts(data: Path) -> None:
    assert command("exclude", data, "--well", "A03", "--stack", 0, "--reason", "bubble").exit_code == 0
    assert shown(data) == expected(LIVE, {}, A01, A02)
    with CatalogReader.read_only(data) as catalog:
        assert plate_quality(catalog, "P1").n_negative == 2
        assert catalog.wells_left_out("P1").keys() == {"A03"}
        (row,) = (row for row in catalog.result_rows("P1") if row.result.well == "A03")
        assert row.exclusion is not None
        assert row.exclusion.reason == "stack 0: bubble"
        (viewed,) = catalog.query("SELECT excluded, exclusion_reason FROM wells_view WHERE well = 'A03'")
        assert viewed == {"excluded": 1, "exclusion_reason": "stack 0: bubble"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("exclude", "--stack", 7), "A01 has no stack 7; its stacks are: 0"),
        (("include", "--stack", 0), "this stack is not excluded"),
        (("include", "--stack", 0, "--choose"), "this stack counts already"),
        (("include", "--choose"), "add --stack N"),
    ],
    ids=str,
)
def test_what_cannot_be_decided_is_refused(data: Path, arguments: tuple[object, ...], message: str) -> None:
    name, *options = arguments
    refused = command(name, data, "--well", "A01", "--reason", "why", *options)
    assert refused.exit_code == 2
    assert message.partition(";")[0] in refused.stderr
    assert message.rpartition("; ")[2] in refused.stderr


def test_fields_of_a_well_are_no_repeats(data: Path) -> None:
    with Catalog.create_or_open(data) as catalog:
        catalog.register_plate(plates.plate_map("P1", TREATMENTS), "{}", n_fields=2)
    image(data, B01, 1, 300.0)
    with CatalogReader.read_only(data) as catalog:
        assert {key.stack for key in catalog.current_stacks("P1") if key.well == B01} == {0, 1}
        (points,) = curve_points(catalog, "P1")
        assert points.responses == pytest.approx((40.0,)), "the median of 50 % and 30 %"
    image(data, B01, 2, 700.0)
    with CatalogReader.read_only(data) as catalog:
        assert {key.stack for key in catalog.current_stacks("P1") if key.well == B01} == {1, 2}


def test_a_catalog_of_before_keeps_the_fields_that_all_of_its_wells_have(data: Path) -> None:
    for well in LIVE:
        image(data, well, 1, LIVE[well])
    with Catalog.create_or_open(data) as catalog, catalog.transaction():
        catalog.connection.execute("UPDATE plates SET n_fields = NULL")
    with CatalogReader.read_only(data) as catalog:
        assert len(catalog.current_stacks("P1")) == 8


def test_a_running_daemon_takes_a_decision_up_with_its_next_heartbeat(data: Path) -> None:
    image(data, A01, 1, 1500.0)
    with Catalog.create_or_open(data) as catalog:
        scheduler = relating(catalog, "P1")
        assert scheduler is not None
        new = {"stack": 1, "newest": 1}
        catalog.append_event(Action.STACK_EXCLUDED, plate="P1", well="A01", new=new, reason="drift")
        with catalog.transaction():
            scheduler.record_exclusions()
        assert {row.result.well: row.result.v_control for row in catalog.result_rows("P1")}["B01"] == pytest.approx(
            50.0
        )


def test_a_repeat_under_way_is_shown_beside_what_counts(data: Path) -> None:
    with Catalog.create_or_open(data) as catalog:
        catalog.expect(plates.plan_of(StackKey("P1", A01, 1)))
        catalog.set_stack_state(StackKey("P1", A01, 1), StackState.ACQUIRING)
        shown_now = [(row.result.stack, row.result.status) for row in catalog.rows_under_way("P1")][:2]
    assert shown_now == [(0, WellStatus.FINAL), (1, WellStatus.ACQUIRING)]
