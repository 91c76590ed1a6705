"""A well that a person leaves out: visible everywhere, out of the control median, and beside a running daemon too."""

import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import pytest
from typer.testing import CliRunner, Result

from spheroidd.daemon.catalog.audit_chain import Action
from spheroidd.daemon.catalog.audit_trail import events
from spheroidd.daemon.catalog.audit_verification import verify
from spheroidd.daemon.catalog.reader import CatalogReader
from spheroidd.daemon.catalog.rows import RunState
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.cli import console as cli
from spheroidd.daemon.scoring.exclusions import exclude_well, excluded_wells, include_well, record_decision
from spheroidd.daemon.scoring.scheduler import ScoringScheduler, ScoringSettings
from spheroidd.daemon.system.lock import acquire_lock
from spheroidd.inference.viability.regressor import ViabilityRegressor
from spheroidd.inference.viability.related_viability import NO_CONTROL_INCLUDED
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.plate import WellRole
from spheroidd.protocols.results import Normalisation, WellStatus
from spheroidd.protocols.well import WellId
from tests import warm_start
from tests.daemon.report import plates
from tests.faults.plate_runs import kill, write_config
from tests.warm_start import Process

T = TypeVar("T")
A01, A02, A03, B01, B02 = (WellId(row, column) for row, column in ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1)))
TREATMENTS = dict.fromkeys((A01, A02, A03), plates.UNTREATED) | {
    B01: plates.KILLED,
    B02: plates.sample("drug", 2.0),
}
LIVE = {A01: 900.0, A02: 1000.0, A03: 2000.0, B01: 5.0, B02: 500.0}


def command(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    wells = plates.plate_map("P1", TREATMENTS)
    plates.register(tmp_path, wells)
    plates.score(tmp_path, wells, LIVE)
    return tmp_path


def v_control(data: Path) -> dict[str, float | None]:
    with Catalog.read_only(data) as catalog:
        return {row.result.well: row.result.v_control for row in catalog.result_rows("P1")}


def related_to(*controls: WellId) -> dict[str, float]:
    median = statistics.median(LIVE[well] for well in controls)
    return {str(well): 100 * live / median for well, live in LIVE.items()}


def test_an_excluded_control_no_longer_enters_the_median(data: Path) -> None:
    assert v_control(data) == pytest.approx(related_to(A01, A02, A03))
    decision = exclude_well(data, "a3", "twice the\n size", who="ann")
    assert decision.related
    assert v_control(data) == pytest.approx(related_to(A01, A02))
    with Catalog.read_only(data) as catalog:
        changes = [change for change in catalog.result_changes() if "excluded" in change.reason]
        assert {str(change.key.well) for change in changes} == {"A01", "A02", "A03", "B01", "B02"}
        assert {change.reason for change in changes} == {"control A03 excluded: twice the size"}
        assert {row.result.status for row in catalog.result_rows()} == {WellStatus.FINAL}
        assert verify(catalog).intact


def test_included_again_all_is_as_before(data: Path) -> None:
    exclude_well(data, "A03", "twice the size")
    include_well(data, "A03", "the map was wrong")
    assert v_control(data) == pytest.approx(related_to(A01, A02, A03))
    with Catalog.read_only(data) as catalog:
        assert excluded_wells(catalog, "P1") == {}
        assert catalog.result_changes()[-1].reason == "control A03 included again"
        told = [event for event in events(catalog) if event.well == "A03" and event.action.startswith("well")]
        assert [event.reason for event in told] == ["twice the size", "the map was wrong"]


def test_without_any_control_left_a_row_says_so(data: Path) -> None:
    for well in ("A01", "A02", "A03"):
        exclude_well(data, well, "contaminated")
    with Catalog.read_only(data) as catalog:
        for row in catalog.result_rows("P1"):
            assert row.result.v_control is None
            assert row.result.v_score is None
            assert row.result.reason == NO_CONTROL_INCLUDED


def test_an_excluded_sample_keeps_its_row_and_changes_no_other(data: Path) -> None:
    before = v_control(data)
    exclude_well(data, "B02", "a bubble")
    assert v_control(data) == before
    with Catalog.read_only(data) as catalog:
        found = excluded_wells(catalog, "P1")["B02"]
        assert (found.well, found.plate, found.reason) == ("B02", "P1", "a bubble")
        assert catalog.result_rows("P1")[-1].exclusion == found


def test_it_is_seen_in_results_and_status(data: Path, tmp_path: Path) -> None:
    assert command("exclude", data, "--well", "B02", "--reason", "a bubble", "--who", "ann").exit_code == 0
    rows = {row["well"]: row for row in json.loads(command("results", data, "--json").stdout)}
    assert (rows["B02"]["excluded"], rows["B02"]["exclusion_reason"]) == (True, "a bubble")
    assert (rows["A01"]["excluded"], rows["A01"]["exclusion_reason"]) == (False, None)
    assert "excluded by ann: a bubble" in command("results", data).stdout
    status = json.loads(command("status", data, "--json").stdout)
    assert [(one["plate"], one["well"], one["reason"]) for one in status["excluded"]] == [("P1", "B02", "a bubble")]
    assert "P1/B02 excluded by ann: a bubble" in command("status", data).stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--well", "B02", "--reason", "  "), "the reason is empty"),
        (("--well", "H12", "--reason", "x"), "has no well H12"),
        (("--well", "B2x", "--reason", "x"), "is not a well"),
        (("--well", "B02", "--reason", "x", "--plate", "P2"), "there is no plate 'P2'"),
        (("--well", "B02", "--reason", "x", "--who", " "), "who is empty"),
        (("--well", "B02", "--reason", "esc \x1b[2J"), "control characters"),
    ],
)
def test_what_cannot_be_excluded_is_refused_and_not_entered(data: Path, arguments: tuple[str, ...], words: str) -> None:
    with Catalog.read_only(data) as catalog:
        before = events(catalog)
    done = command("exclude", data, *arguments)
    assert done.exit_code == 2
    assert words in done.stderr
    with Catalog.read_only(data) as catalog:
        assert events(catalog) == before


def test_excluding_twice_needs_another_reason_and_including_twice_is_refused(data: Path) -> None:
    exclude_well(data, "B02", "a bubble", who="ann")
    with pytest.raises(ConfigError, match="excluded already, by ann"):
        exclude_well(data, "B02", "a bubble")
    exclude_well(data, "B02", "a bubble and dust")
    include_well(data, "B02", "seen under the microscope")
    with pytest.raises(ConfigError, match="is not excluded"):
        include_well(data, "B02", "again")


def test_where_nothing_was_run_nothing_is_made(tmp_path: Path) -> None:
    done = command("exclude", tmp_path, "--well", "A01", "--reason", "x")
    assert done.exit_code == 2
    assert "no plate was ever run here" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_two_plates_need_a_name(data: Path) -> None:
    other = plates.plate_map("P2", TREATMENTS)
    plates.register(data, other)
    with pytest.raises(ConfigError, match="there are 2 plates"):
        exclude_well(data, "A03", "x")
    exclude_well(data, "A03", "x", plate="P2")
    with Catalog.read_only(data) as catalog:
        assert excluded_wells(catalog, "P1") == {}
        assert set(excluded_wells(catalog, "P2")) == {"A03"}


def test_rows_of_every_model_are_related_anew(data: Path) -> None:
    """An earlier model's rows are asked for by name, and must not keep the excluded control."""
    wells = plates.plate_map("P1", TREATMENTS)
    original, plates.MODEL = plates.MODEL, "ab" * 32
    try:
        plates.score(data, wells, LIVE)
        exclude_well(data, "A03", "twice the size")
        for model in (original, plates.MODEL):
            with Catalog.read_only(data) as catalog:
                found = {row.result.well: row.result.v_control for row in catalog.result_rows("P1", model)}
            assert found == pytest.approx(related_to(A01, A02))
    finally:
        plates.MODEL = original


def test_a_daemon_that_does_not_answer_gets_the_event_all_the_same(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spheroidd.daemon.scoring.exclusions.PATIENCE_S", 0.3)
    with acquire_lock(data):
        decision = exclude_well(data, "A03", "twice the size")
    assert not decision.related
    assert v_control(data) == pytest.approx(related_to(A01, A02, A03))
    with Catalog.read_only(data) as catalog:
        assert "A03" in excluded_wells(catalog, "P1")


def desk_of(catalog: Catalog) -> ScoringScheduler:
    settings = ScoringSettings(plates.MODEL, Normalisation.PLATE, limits=None, tolerance=0.0, max_attempts=1)
    scheduler = ScoringScheduler(catalog, catalog.plate_map("P1"), settings, ViabilityRegressor.load())
    scheduler.source_finished = True
    return scheduler


def test_the_next_run_relates_what_was_excluded_while_nobody_looked(data: Path) -> None:
    with Catalog.create_or_open(data) as catalog:
        record_decision(catalog, Action.WELL_EXCLUDED, plate="P1", well="A03", reason="twice the size")
        assert v_control(data) == pytest.approx(related_to(A01, A02, A03))
        scheduler = desk_of(catalog)
        scheduler.related_without(scheduler.record_exclusions())
        assert v_control(data) == pytest.approx(related_to(A01, A02))
        n = len(catalog.result_changes())
        scheduler.related_without(scheduler.record_exclusions())
        assert len(catalog.result_changes()) == n


def test_a_re_score_that_is_ordered_during_a_run_is_in_the_trail(data: Path) -> None:
    with Catalog.create_or_open(data) as catalog:
        scheduler = desk_of(catalog)
        assert scheduler.score_again({A01, B02}, "ann") == 2
        event = events(catalog)[-1]
        assert (event.action, event.who, event.plate) == (Action.RESCORE_STARTED, "ann", "P1")
        assert json.loads(event.new_json or "")["stacks"] == ["P1/A01/0", "P1/B02/0"]
        assert scheduler.score_again({WellId(7, 7)}) == 0
        assert events(catalog)[-1] == event


def test_a_commit_that_failed_relates_again(data: Path) -> None:
    """Main's transaction may be rolled back by a full disk and be done once more: nothing may be forgotten by then."""
    with Catalog.create_or_open(data) as catalog:
        record_decision(catalog, Action.WELL_EXCLUDED, plate="P1", well="A03", reason="twice the size")
        scheduler = desk_of(catalog)
        with suppress(ZeroDivisionError), catalog.transaction():
            scheduler.record_exclusions()
            raise ZeroDivisionError
        assert v_control(data) == pytest.approx(related_to(A01, A02, A03))
        with catalog.transaction():
            scheduler.record_exclusions()
        assert v_control(data) == pytest.approx(related_to(A01, A02))


@pytest.mark.parametrize("plate", [None, "P2"])
def test_a_daemon_that_does_not_run_this_plate_leaves_the_relating_to_the_command(
    data: Path, plate: str | None
) -> None:
    """`spheroidd serve` holds the lock between plates, and while it runs another one."""
    with acquire_lock(data), Catalog.create_or_open(data) as catalog:
        catalog.set_run_state(RunState("0", 1, "idle", 0.0, time.time() + 60, plate=plate))
        assert exclude_well(data, "A03", "twice the size").related
    assert v_control(data) == pytest.approx(related_to(A01, A02))


def test_a_lock_that_cannot_be_had_says_why(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def refused(data_dir: Path) -> Iterator[None]:
        raise ConfigError("cannot lock the data directory: Permission denied", where=str(data_dir))
        yield

    monkeypatch.setattr("spheroidd.daemon.scoring.exclusions.acquire_lock", refused)
    with pytest.raises(ConfigError, match="Permission denied"):
        exclude_well(data, "A03", "twice the size")


# Beside a daemon that runs in a process of its own

PATIENCE_S = 200.0
# Scoring gives way to all else: by a clock, a busy machine takes the whole plate before the first wells are scored.
HOLDING_THE_LAST_WELL = f"""
import sys, time
from pathlib import Path
from spheroidd.daemon.cli import main
from spheroidd.sim_emulator.source import EmulatorSource

frames, go_on = EmulatorSource.frames, Path(sys.argv[2]).with_name("go-on")

def held(source, plan, wanted):
    until_s = time.monotonic() + {PATIENCE_S}
    while plan.key == source.plans()[-1].key and not go_on.exists():
        if time.monotonic() > until_s:
            raise TimeoutError("nobody lets the last well go on")
        time.sleep(0.05)
    return frames(source, plan, wanted)

EmulatorSource.frames = held
main()
"""


@contextmanager
def holding_the_last_well(config: Path) -> Iterator[Process]:
    """`spheroidd run`, whose instrument waits with the last well until there is a file "go-on"."""
    with config.with_suffix(".log").open("a") as log:
        arguments = ("run", str(config), "--plain")
        process = warm_start.start(arguments, stdout=log, stderr=log, program=HOLDING_THE_LAST_WELL)
    try:
        yield process
    finally:
        kill(process)


def wait_for(found: Callable[[CatalogReader], list[T]], config: Path, process: Process) -> list[T]:
    """What `found` finds in the catalog of a run that goes on, once it finds anything."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(ConfigError), Catalog.read_only(config.parent / "data") as catalog:  # it may not be there yet
            if there := found(catalog):
                return there
        time.sleep(0.1)
    raise AssertionError(config.with_suffix(".log").read_text())


def three_related_controls(catalog: CatalogReader) -> list[WellId]:
    rows = [row for row in catalog.result_rows() if row.treatment.role is WellRole.NEGATIVE_CONTROL]
    related = [row.result.well for row in rows if row.result.v_control is not None]
    return related if len(related) == 3 else []


def test_beside_a_running_daemon_it_is_taken_up_at_once_and_its_slices_are_all_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spheroidd.daemon.scoring.exclusions.PATIENCE_S", PATIENCE_S)
    config = write_config(tmp_path, source={"negative_controls": 3, "doses": 3})
    data = tmp_path / "data"
    with holding_the_last_well(config) as process:
        control = wait_for(three_related_controls, config, process)[0]
        done = command("exclude", data, "--well", control, "--reason", "a bubble", "--who", "ann")
        assert done.exit_code == 0, done.stderr
        assert "up to date" in done.stdout
        said = f"control {control} excluded: a bubble"
        wait_for(lambda catalog: [one for one in catalog.result_changes() if one.reason == said], config, process)
        (tmp_path / "go-on").touch()
        assert process.wait(PATIENCE_S) == 0, config.with_suffix(".log").read_text()
    with Catalog.read_only(data) as catalog:
        rows = {row.result.well: row for row in catalog.result_rows()}
        controls = {well for well, row in rows.items() if row.treatment.role is WellRole.NEGATIVE_CONTROL}
        median = statistics.median(rows[well].result.live_um3 or 0.0 for well in controls - {control})
        for row in rows.values():
            assert row.result.n_slices_acked == row.result.n_slices_expected
            assert row.result.v_control == pytest.approx(100 * (row.result.live_um3 or 0.0) / median)
        actions = [event.action for event in events(catalog)]
        assert actions.count(Action.RUN_STARTED) == actions.count(Action.WELL_EXCLUDED) == 1
        assert verify(catalog).intact
        assert catalog.verify() == []
