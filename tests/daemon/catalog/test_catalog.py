"""The catalog: the same facts make the same rows, and what was committed stays."""

import itertools
import json
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spheroidd.daemon.catalog import result_rows, schema
from spheroidd.daemon.catalog.audit_chain import Action
from spheroidd.daemon.catalog.audit_trail import events
from spheroidd.daemon.catalog.audit_verification import verify
from spheroidd.daemon.catalog.writer import Catalog, RunState, StackState
from spheroidd.protocols.errors import ConfigError, InstrumentError, SpheroiddError, StackError, StorageError
from spheroidd.protocols.events import SliceDurable
from spheroidd.protocols.evidence import ChannelLight, MaskEvidence, MaskShape, StackLight
from spheroidd.protocols.plate import PlateMap, PlateWell, Treatment, WellRole
from spheroidd.protocols.results import Limits, Normalisation, Precision, Related, StackMeasurement, WellStatus
from spheroidd.protocols.stack import CHANNELS, Block, SliceIndex, StackKey, StackPlan
from spheroidd.protocols.stack_end import Ending, StackEnd
from spheroidd.protocols.trust import Trust
from spheroidd.protocols.well import WellId
from tests.daemon.catalog.older import make_older
from tests.warm_start import talking

A01, A02, A03 = (WellId(0, column) for column in range(3))
MAP = PlateMap(
    "P1",
    (
        PlateWell(A01, Treatment(WellRole.NEGATIVE_CONTROL)),
        PlateWell(A02, Treatment(WellRole.SAMPLE, "drug", 1.5, "pt7")),
        PlateWell(A03, Treatment(WellRole.EMPTY)),
    ),
)
KEY = StackKey("P1", A01)
PLAN = StackPlan(KEY, CHANNELS, 4, 8, 8, 0.125, 0.5, slice_period_s=1.2)
LIGHT = StackLight({"488": ChannelLight(100.0, 900.0, 1200.0, 0.0)}, 0.125)
MODEL = "ab" * 32
MEASUREMENT = StackMeasurement(
    live_um3=1000.5,
    dead_um3=0.0,
    n_live=3,
    n_dead=1,
    live_um3_by_z=(0.0, 500.25, 500.25, 0.0),
    limits={"488": Limits(100.0, 900.0, 300.0, 50.0)},
    normalisation=Normalisation.STACK,
    model_sha256=MODEL,
    cpu_s=1.0,
    quantiles={"488": {"0.5": 120.0}},
    precision=Precision.FP32,
)


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    ticks = itertools.count(1000.0)
    with Catalog.create_or_open(tmp_path, now=lambda: next(ticks)) as found:
        found.register_plate(MAP, "{}")
        yield found


def durable(key: StackKey, index: SliceIndex) -> SliceDurable:
    """The slice's one true event: its crc and times follow from its place."""
    return SliceDurable(key, index, 7 + index.z, 10.0 + index.z, {"stage_z_um": index.z / 2})


def acknowledge_all(catalog: Catalog, plan: StackPlan = PLAN) -> None:
    catalog.expect(plan)
    with catalog.transaction():
        for index in plan.indices():
            catalog.acknowledge(durable(plan.key, index), 20.0 + index.z)


def scored(catalog: Catalog) -> None:
    acknowledge_all(catalog)
    catalog.set_stack_state(KEY, StackState.STORED)
    catalog.record_measurement(KEY, MEASUREMENT, 2.5)


def all_rows(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """Every row of every table that facts make; a block's cursor tells the order of arrival, so it is left out."""
    columns = {"blocks": "plate, well, stack, channel, z_start, z_stop"}
    with sqlite3.connect(path) as connection:
        tables = ("plates", "wells", "stacks", "slices", "blocks", "results", "stack_light")
        found = {
            name: sorted(connection.execute(f"SELECT {columns.get(name, '*')} FROM {name}"), key=repr)
            for name in tables
        }
    connection.close()
    return found


# Durability


def test_it_is_set_to_survive_a_power_cut(catalog: Catalog) -> None:
    pragmas = {
        name: catalog._connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("journal_mode", "synchronous", "foreign_keys")
    }
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}


def facts() -> list[Callable[[Catalog], object]]:
    """What two stacks of four slices in two channels bring about, as calls in an order that is natural."""
    calls: list[Callable[[Catalog], object]] = []
    for well in (A01, A02):
        plan = replace(PLAN, key=StackKey("P1", well))
        for index in plan.indices():
            event = durable(plan.key, index)
            calls.append(lambda catalog, event=event: catalog.acknowledge(event, event.acquired_s + 1))
        for channel, z in itertools.product(CHANNELS, (0, 2)):
            block = Block(plan.key, channel, z, z + 2)
            calls.append(lambda catalog, block=block: catalog.block_stored(block))
        calls.append(lambda catalog, key=plan.key: catalog.put_stack_light(key, LIGHT))
    return calls


def play(folder: Path, calls: list[Callable[[Catalog], object]], cuts: set[int]) -> dict[str, list[tuple[object, ...]]]:
    """Write facts down in a new catalog, a transaction ending at each cut."""
    with Catalog.create_or_open(folder, now=lambda: 5.0) as catalog:
        catalog.register_plate(MAP, "{}")
        for well in (A01, A02):
            catalog.expect(replace(PLAN, key=StackKey("P1", well)))
        edges = [0, *sorted(cuts), len(calls)]
        for start, stop in itertools.pairwise(edges):
            with catalog.transaction():
                for call in calls[start:stop]:
                    call(catalog)
        for well in (A01, A02):
            catalog.record_measurement(StackKey("P1", well), MEASUREMENT, 1.0)
            catalog.record_measurement(StackKey("P1", well), MEASUREMENT, 9.0)
        assert catalog.verify() == []
    return all_rows(folder / "catalog.sqlite")


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_the_same_facts_in_any_order_and_number_make_the_same_rows(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    once = facts()
    again = [once[i] for i in data.draw(st.lists(st.integers(0, len(once) - 1), max_size=20), label="repeated")]
    mixed = data.draw(st.permutations(once + again), label="order")
    cuts = data.draw(st.sets(st.integers(0, len(mixed)), max_size=4), label="commits")
    folder = tmp_path_factory.mktemp("catalogs")
    assert play(folder / "one", once, set()) == play(folder / "other", mixed, cuts)


BATCH = 7
_CHILD = """
import sys
from pathlib import Path
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.protocols.events import SliceDurable
from spheroidd.protocols.evidence import ChannelLight, MaskEvidence, MaskShape, StackLight
from spheroidd.protocols.plate import PlateMap, PlateWell, Treatment, WellRole
from spheroidd.protocols.stack import StackKey, StackPlan
from spheroidd.protocols.well import WellId
key, batch = StackKey("P1", WellId(0, 0)), int(sys.argv[2])
with Catalog.create_or_open(Path(sys.argv[1])) as catalog:
    catalog.register_plate(PlateMap("P1", (PlateWell(key.well, Treatment(WellRole.SAMPLE)),)), "{}")
    plan = StackPlan(key, ("488",), 10000 * batch, 8, 8, 0.1, 0.5)
    catalog.expect(plan)
    done = len(catalog.acknowledged(key))
    waiting = list(plan.indices())[done:]
    for start in range(0, len(waiting), batch):
        with catalog.transaction():
            for index in waiting[start : start + batch]:
                catalog.acknowledge(SliceDurable(key, index, 7 + index.z, 0.0), 1.0)
        print(done + start + batch, flush=True)
"""


def test_kill_9_keeps_every_commit_that_was_announced(tmp_path: Path) -> None:
    """A real process is killed at four moments; each batch is there whole or not at all."""
    before = 0
    for lines in (1, 2, 10, 100):
        with talking(_CHILD, str(tmp_path), str(BATCH)) as (child, said):
            announced = [int(next(said)) for _ in range(lines)][-1]
            child.kill()
        with Catalog.read_only(tmp_path) as catalog:
            kept = catalog.acknowledged(KEY)
        assert len(kept) >= announced > before
        assert len(kept) % BATCH == 0
        assert all(crc == 7 + index.z for index, crc in kept.items())
        before = announced
    with Catalog.create_or_open(tmp_path) as catalog:
        assert catalog.verify() == []


def test_a_failure_inside_a_transaction_takes_all_of_it_back(catalog: Catalog) -> None:
    catalog.expect(PLAN)

    def fail() -> None:
        with catalog.transaction():
            catalog.acknowledge(durable(KEY, SliceIndex("488", 0)), 1.0)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert catalog.acknowledged(KEY) == {}


def test_a_refused_fact_leaves_the_others_of_its_transaction(catalog: Catalog) -> None:
    catalog.expect(PLAN)
    with catalog.transaction():
        catalog.acknowledge(durable(KEY, SliceIndex("488", 0)), 1.0)
        with pytest.raises(StackError, match="1 of 8 slices"):
            catalog.record_measurement(KEY, MEASUREMENT, 1.0)
    assert len(catalog.acknowledged(KEY)) == 1


def test_a_full_disk_acknowledges_nothing_and_recovers(catalog: Catalog) -> None:
    plan = replace(PLAN, n_z=2000)
    catalog.expect(plan)
    pages = catalog._connection.execute("PRAGMA page_count").fetchone()[0]
    catalog._connection.execute(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(StorageError, match="disk is full") as caught:
        acknowledge_all(catalog, plan)
    assert "goes on by itself" in caught.value.do
    assert catalog.acknowledged(KEY) == {}
    catalog._connection.execute("PRAGMA max_page_count = 1000000")
    catalog.acknowledge(durable(KEY, SliceIndex("488", 0)), 1.0)
    assert len(catalog.acknowledged(KEY)) == 1


def test_a_catalog_that_another_process_holds_is_named(catalog: Catalog, tmp_path: Path) -> None:
    with Catalog.create_or_open(tmp_path, busy_s=0.05) as other, catalog.transaction():
        with pytest.raises(StorageError, match="another process holds"):
            other.expect(PLAN)
        catalog.expect(PLAN)
    assert catalog.plan(KEY) == PLAN


# Promises and their ledger


def test_a_plan_comes_back_as_it_was_promised(catalog: Catalog) -> None:
    catalog.expect(PLAN)
    catalog.expect(replace(PLAN, slice_period_s=9.0))
    assert catalog.plan(KEY) == PLAN
    assert catalog.plate_map("P1") == MAP


@pytest.mark.parametrize(
    ("change", "words"),
    [({"n_z": 5}, "n_z 4 -> 5"), ({"pixel_um": 0.2}, "pixel_um 0.125 -> 0.2"), ({"channels": ("488",)}, "channels")],
    ids=str,
)
def test_another_geometry_is_refused_with_what_differs(catalog: Catalog, change: dict[str, object], words: str) -> None:
    catalog.expect(PLAN)
    with pytest.raises(ConfigError, match=words):
        catalog.expect(replace(PLAN, **change))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wells", "words"),
    [
        (MAP.wells[:2], "A03 is gone"),
        ((*MAP.wells, PlateWell(WellId(1, 0), Treatment(WellRole.EMPTY))), "B01 is new"),
        (
            (MAP.wells[0], PlateWell(A02, Treatment(WellRole.SAMPLE, "drug", 2.0, "pt7")), MAP.wells[2]),
            "A02: dose_um 1.5 -> 2.0",
        ),
    ],
    ids=["gone", "new", "dose"],
)
def test_another_map_of_the_same_name_is_refused(catalog: Catalog, wells: tuple[PlateWell, ...], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        catalog.register_plate(PlateMap("P1", wells), "{}")
    assert catalog.plate_map("P1") == MAP


def test_a_moved_recording_keeps_its_plate(catalog: Catalog, tmp_path: Path) -> None:
    moved = (replace(MAP.wells[0], paths={"": tmp_path / "a.tif"}), *MAP.wells[1:])
    catalog.register_plate(PlateMap("P1", moved), '{"inference": {"model": "default"}}')
    assert dict(catalog.plate_map("P1")[A01].paths) == {"": tmp_path / "a.tif"}
    assert catalog.plate_inference("P1") == {"model": "default"}


def test_names_that_differ_in_case_only_are_refused(catalog):
    catalog.register_plate(MAP, "{}")
    with pytest.raises(ConfigError, match=r"plate p1 differs from plate P1 .* in upper and lower case only") as refused:
        catalog.register_plate(PlateMap("p1", MAP.wells), "{}")
    assert "call it P1" in refused.value.do
    assert catalog.plates() == ["P1"]


def test_an_acknowledged_slice_never_changes(catalog: Catalog) -> None:
    catalog.expect(PLAN)
    event = durable(KEY, SliceIndex("488", 2))
    catalog.acknowledge(event, 1.0)
    with pytest.raises(StorageError, match="was acknowledged with 00000009"):
        catalog.acknowledge(replace(event, crc32c=1), 2.0)
    assert catalog.acknowledged(KEY) == {SliceIndex("488", 2): 9}


@pytest.mark.parametrize(
    "write",
    [
        lambda c: c.acknowledge(durable(KEY, SliceIndex("488", 0)), 1.0),
        lambda c: c.block_stored(Block(KEY, "488", 0, 1)),
        lambda c: c.set_stack_state(KEY, StackState.ACQUIRING),
        lambda c: c.record_measurement(KEY, MEASUREMENT, None),
        lambda c: c.update_related(KEY, MODEL, Related(WellStatus.FINAL), "x"),
        lambda c: c.lock_limits("P9", {}),
    ],
)
def test_nothing_belongs_to_a_stack_that_was_not_planned(catalog: Catalog, write: Callable[[Catalog], object]) -> None:
    with pytest.raises(SpheroiddError) as caught:
        write(catalog)
    assert caught.value.do


def test_states_carry_their_times_reasons_and_attempts(catalog: Catalog) -> None:
    acknowledge_all(catalog)
    for state in (StackState.ACQUIRING, StackState.STORED, StackState.SCORING, StackState.SCORING):
        catalog.set_stack_state(KEY, state)
    catalog.end_stack(KEY, Ending(StackEnd.FAILED, "the worker died twice", "look for lack of memory"))
    row = catalog.stack(KEY)
    assert (row.state, row.end, row.attempts) == (StackState.FAILED, StackEnd.FAILED, 2)
    assert (row.reason, row.todo) == ("the worker died twice", "look for lack of memory")
    assert row.complete
    assert row.last_acked_s == 23.0
    assert row.opened_s is not None
    assert row.sealed_s is not None


def test_an_incomplete_ledger_is_never_stored_or_scored(catalog: Catalog) -> None:
    catalog.expect(PLAN)
    catalog.acknowledge(durable(KEY, SliceIndex("488", 0)), 1.0)
    with pytest.raises(StackError, match="7 slices are missing"):
        catalog.set_stack_state(KEY, StackState.STORED)
    with pytest.raises(StackError, match="no measurement"):
        catalog.set_stack_state(KEY, StackState.SCORED)
    with pytest.raises(StackError, match="1 of 8 slices"):
        catalog.record_measurement(KEY, MEASUREMENT, 1.0)


def test_a_reader_follows_blocks_by_its_cursor(catalog: Catalog, tmp_path: Path) -> None:
    catalog.expect(PLAN)
    with Catalog.read_only(tmp_path) as reader:
        assert reader.blocks(KEY) == []
        catalog.block_stored(Block(KEY, "488", 0, 2))
        [(cursor, block)] = reader.blocks(KEY)
        assert block == Block(KEY, "488", 0, 2)
        catalog.block_stored(Block(KEY, "488", 0, 2))
        catalog.block_stored(Block(KEY, "561", 0, 2))
        assert [block.channel for _, block in reader.blocks(KEY, cursor)] == ["561"]


# Results


def test_a_well_without_a_measurement_says_why_and_shows_no_figure(catalog: Catalog) -> None:
    acknowledge_all(catalog)
    catalog.end_stack(KEY, Ending(StackEnd.SHORT, "the folder went quiet"))
    first, second = catalog.results()
    assert (first.well, first.status, first.reason) == ("A01", WellStatus.INCOMPLETE, "the folder went quiet")
    assert (second.well, second.status, second.n_slices_expected) == ("A02", WellStatus.QUEUED, 0)
    for result in (first, second):
        assert result.live_um3 is result.n_dead is result.v_count is result.v_control is result.model_sha256 is None


def test_a_measurement_is_provisional_until_it_is_related(catalog: Catalog) -> None:
    scored(catalog)
    result = catalog.results()[0]
    assert (result.status, result.dead_um3, result.v_count, result.latency_s) == ("provisional", 0.0, 0.75, 2.5)
    assert catalog.update_related(KEY, MODEL, Related(WellStatus.FINAL, None, 100.0, 97.0, 90.0, 99.0), "controls in")
    assert not catalog.update_related(KEY, MODEL, Related(WellStatus.FINAL, None, 100.0, 97.0, 90.0, 99.0), "again")
    result = catalog.results()[0]
    assert (result.status, result.v_control, result.v_score_lo) == (WellStatus.FINAL, 100.0, 90.0)
    [row] = catalog.measurements("P1", MODEL)
    assert (row.key, row.measurement, row.treatment) == (KEY, MEASUREMENT, MAP[A01].treatment)
    assert row.related.v_score_hi == 99.0


def test_the_same_measurement_again_changes_nothing(catalog: Catalog) -> None:
    scored(catalog)
    catalog.update_related(KEY, MODEL, Related(WellStatus.FINAL, None, 100.0), "controls in")
    before = catalog.results(), catalog.result_changes()
    assert not catalog.record_measurement(KEY, replace(MEASUREMENT, cpu_s=99.0), 77.0)
    assert (catalog.results(), catalog.result_changes()) == before


def test_every_change_of_a_result_is_in_its_history(catalog: Catalog) -> None:
    scored(catalog)
    catalog.update_related(KEY, MODEL, Related(WellStatus.FINAL, None, 100.0), "controls in")
    assert catalog.record_measurement(KEY, replace(MEASUREMENT, n_live=4), 3.0, "scored again")
    result = catalog.results()[0]
    assert (result.n_live, result.status, result.v_control) == (4, WellStatus.PROVISIONAL, None)
    changes = catalog.result_changes(KEY)
    assert [change.reason for change in changes] == ["scored", "controls in", "scored again"]
    assert changes[0].old is None
    for earlier, later in itertools.pairwise(changes):
        assert later.old == earlier.new
    assert changes[-1].new["n_live"] == 4


@pytest.mark.parametrize("statement", ["UPDATE result_changes SET reason = 'x'", "DELETE FROM result_changes"])
def test_the_history_cannot_be_rewritten(catalog: Catalog, tmp_path: Path, statement: str) -> None:
    scored(catalog)
    stranger = sqlite3.connect(tmp_path / "catalog.sqlite")
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        stranger.execute(statement)
    stranger.close()


def test_each_model_has_its_own_row_and_the_latest_is_shown(catalog: Catalog) -> None:
    scored(catalog)
    other = "cd" * 32
    catalog.record_measurement(KEY, replace(MEASUREMENT, model_sha256=other, n_live=9), 1.0)
    assert catalog.models() == [other, MODEL]
    assert catalog.results()[0].n_live == 9
    assert catalog.results(model_sha256=MODEL)[0].n_live == 3
    unknown = catalog.results(model_sha256="ef" * 32)[0]
    assert (unknown.n_live, unknown.reason) == (None, "not scored by this model")


def test_a_stack_that_failed_later_shows_no_old_figure(catalog: Catalog) -> None:
    scored(catalog)
    catalog.end_stack(KEY, Ending(StackEnd.FAILED, "its bytes do not read back"))
    assert (catalog.results()[0].status, catalog.results()[0].n_live) == (WellStatus.FAILED, None)


def test_locked_limits_stay(catalog: Catalog) -> None:
    limits = {"488": Limits(1.0, 2.5, 1.5, 0.25)}
    assert catalog.locked_limits("P1") is None
    catalog.lock_limits("P1", limits)
    catalog.lock_limits("P1", limits)
    assert catalog.locked_limits("P1") == limits
    with pytest.raises(ConfigError, match="locked to other"):
        catalog.lock_limits("P1", {"488": Limits(1.0, 9.0, 1.5, 0.25)})


def test_limits_that_moved_take_the_place_of_the_locked_ones_and_are_in_the_trail(catalog: Catalog) -> None:
    one, other = {"561": Limits(1.0, 2.5, 1.5, 0.25)}, {"561": Limits(1.0, 9.0, 2.5, 1.5)}
    with pytest.raises(ConfigError, match="lock them first"):
        catalog.move_limits("P1", one, "early")
    catalog.lock_limits("P1", one)
    catalog.move_limits("P1", other, "B03 is brighter")
    catalog.move_limits("P1", other, "again")
    assert catalog.locked_limits("P1") == other
    moved = [event for event in events(catalog) if event.action == Action.LIMITS_MOVED]
    assert [event.reason for event in moved] == ["B03 is brighter"]
    assert verify(catalog).problems == ()


def test_a_stacks_light_comes_back(catalog: Catalog) -> None:
    catalog.expect(PLAN)
    catalog.put_stack_light(KEY, LIGHT)
    assert catalog.stack_lights("P1") == {KEY: LIGHT}


def test_what_masks_look_like_is_kept_for_each_model(catalog: Catalog) -> None:
    catalog.expect(PLAN)
    shape = MaskShape(chord_z_um=5.0, chord_x_um=None, inside={"488": 300.0, "561": None})
    found = MaskEvidence({"488": shape}, {"488": 120.0})
    catalog.put_mask_evidence(KEY, MODEL, found)
    assert catalog.mask_evidence("P1", MODEL) == {KEY: found}
    assert catalog.mask_evidence("P1", "cd" * 32) == {}


# The run, and the file itself


def test_a_fault_stands_until_it_is_cleared(catalog: Catalog) -> None:
    catalog.raise_fault("instrument", InstrumentError("no laser", where="488", do="switch it on"), KEY)
    catalog.raise_fault("instrument", InstrumentError("no laser", where="488", do="press the key"), KEY)
    [fault] = catalog.faults()
    assert (fault.kind, fault.do, fault.key, fault.cleared_s) == ("InstrumentError", "press the key", "P1/A01/0", None)
    catalog.clear_fault("instrument", KEY)
    catalog.clear_fault("instrument", KEY)
    assert catalog.faults() == []
    catalog.raise_fault("instrument", InstrumentError("no laser again"), KEY)
    assert len(catalog.faults(open_only=False)) == 2


def test_the_run_state_is_one_row(catalog: Catalog) -> None:
    state = RunState("0.1", 12, "running", 1.0, 2.0, plate="P1", well="A01", stack=0, slices_done=3, slices_total=8)
    catalog.set_run_state(replace(state, heartbeat_s=1.0))
    catalog.set_run_state(state)
    assert catalog.run_state() == state


def test_a_reader_needs_a_catalog_and_makes_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no plate was ever run here"):
        Catalog.read_only(tmp_path / "nowhere")
    assert list(tmp_path.iterdir()) == []


def test_a_reader_cannot_write(catalog: Catalog, tmp_path: Path) -> None:
    with Catalog.read_only(tmp_path) as reader, pytest.raises(StorageError, match="cannot be written"):
        reader.expect(PLAN)


@pytest.mark.parametrize("opened", [Catalog.read_only, Catalog.create_or_open], ids=["reader", "writer"])
def test_what_is_no_catalog_is_refused(tmp_path: Path, opened: Callable[[Path], Catalog]) -> None:
    (tmp_path / "catalog.sqlite").write_bytes(b"not a database, and longer than a header would be" * 50)
    with pytest.raises(StorageError, match="no SQLite database"):
        opened(tmp_path)


@pytest.mark.parametrize("opened", [Catalog.read_only, Catalog.create_or_open], ids=["reader", "writer"])
def test_a_newer_catalog_is_refused(catalog: Catalog, tmp_path: Path, opened: Callable[[Path], Catalog]) -> None:
    catalog._connection.execute("PRAGMA user_version = 99")
    with pytest.raises(ConfigError, match="newer"):
        opened(tmp_path)


def test_how_rows_stand_is_read_from_an_index_which_a_catalog_of_before_gets(catalog: Catalog, tmp_path: Path) -> None:
    scored(catalog)
    before = catalog.standings()
    catalog._connection.execute("DROP INDEX results_standing")
    assert catalog.standings() == before
    with Catalog.read_only(tmp_path) as reader:
        assert reader.standings() == before
    with Catalog.create_or_open(tmp_path) as opened:
        sql = f"EXPLAIN QUERY PLAN {result_rows._STANDINGS}"
        plan = [row["detail"] for row in opened.query(sql, {"plate": None, "model": None})]
        assert any("COVERING INDEX results_standing" in step for step in plan)
        assert not any("results USING PRIMARY KEY" in step for step in plan)
        assert opened.standings() == before


def test_an_older_catalog_is_brought_up_to_date_step_by_step(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored(catalog)
    before = catalog.results()
    steps = (*schema.MIGRATIONS, "ALTER TABLE plates ADD COLUMN note TEXT;", "CREATE TABLE x (y);\nSELECT nonsense;")
    monkeypatch.setattr(schema, "MIGRATIONS", steps)
    with pytest.raises(StorageError, match="nonsense"):
        Catalog.create_or_open(tmp_path)
    assert schema.schema_version(catalog._connection) == len(steps) - 1  # the broken step left nothing
    assert not catalog._rows("SELECT name FROM sqlite_master WHERE name = 'x'")
    assert catalog._rows("SELECT note FROM plates") == [{"note": None}]
    assert catalog.results() == before


OLD_ENDS = [
    ("incomplete", "skipped by eve: mould; run the plate again", "skipped", "skipped by eve: mould"),
    ("incomplete", "the plate was aborted by bob; run the plate again", "aborted", "the plate was aborted by bob"),
    ("incomplete", "stopped in the middle; `spheroidd run` goes on", "stopped", "stopped in the middle"),
    ("incomplete", "7 of 8 slices came; run the plate again", "short", "7 of 8 slices came"),
    ("incomplete", "the folder went quiet", "short", "the folder went quiet"),
    ("failed", "P1/A01/0: the worker died; look for lack of memory", "failed", "the worker died"),
    ("stored", "waits; for the plate's limits", None, "waits; for the plate's limits"),
]


@pytest.mark.parametrize(("state", "sentence", "end", "what"), OLD_ENDS, ids=[one[1][:20] for one in OLD_ENDS])
def test_how_an_older_catalogs_stack_ended_is_read_from_its_sentence_once(
    catalog: Catalog, tmp_path: Path, state: str, sentence: str, end: str | None, what: str
) -> None:
    catalog.expect(PLAN)
    catalog.close()
    make_older(tmp_path, 8)
    connection = sqlite3.connect(tmp_path / "catalog.sqlite")
    with connection:
        connection.execute("UPDATE stacks SET state = ?, reason = ?", (state, sentence))
    connection.close()
    word = {"short": "incomplete", None: state}.get(end, end)
    todo = None if end is None else sentence.partition("; ")[2] or None
    for opened in (Catalog.read_only, Catalog.create_or_open):  # a reader changes nothing; the writer upgrades
        with opened(tmp_path) as older:
            row = older.stack(KEY)
            assert (row.end, row.reason, row.todo) == (end, what, todo)
            assert (older.results()[0].status, older.results()[0].reason) == (word, older_words(sentence))
            assert older.query("SELECT status, reason FROM wells_view WHERE well = 'A01'") == [
                {"status": word, "reason": older_words(sentence)}
            ]


def older_words(sentence: str) -> str:
    return sentence.removeprefix("P1/A01/0: ")


@pytest.mark.parametrize("state", [StackState.FAILED, StackState.INCOMPLETE])
def test_a_stack_does_not_end_without_saying_how(catalog: Catalog, state: StackState) -> None:
    catalog.expect(PLAN)
    with pytest.raises(StackError, match="call end_stack"):
        catalog.set_stack_state(KEY, state, "skipped by eve")


def test_a_stack_that_is_taken_up_again_has_not_ended(catalog: Catalog) -> None:
    catalog.expect(PLAN)
    catalog.end_stack(KEY, Ending(StackEnd.SKIPPED, "mould", "run it"))
    catalog.set_stack_state(KEY, StackState.ACQUIRING)
    row = catalog.stack(KEY)
    assert (row.end, row.reason, row.todo) == (None, None, None)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("DELETE FROM slices WHERE z = 3 AND channel = '488'", "although 1 slices are missing"),
        ("UPDATE slices SET z = 99 WHERE z = 3 AND channel = '488'", "in the ledger but not in the plan"),
        ("DELETE FROM results", "scored but has no result"),
        ("UPDATE blocks SET z_stop = 50", "not in the plan"),
        ("DELETE FROM stacks", "belongs to nothing"),
    ],
)
def test_verify_finds_what_cannot_be(catalog: Catalog, tmp_path: Path, damage: str, words: str) -> None:
    scored(catalog)
    catalog.block_stored(Block(KEY, "488", 0, 2))
    assert catalog.verify() == []
    stranger = sqlite3.connect(tmp_path / "catalog.sqlite", isolation_level=None)
    stranger.execute("DROP TRIGGER result_changes_keep")
    stranger.execute(damage)
    stranger.close()
    assert any(words in problem for problem in catalog.verify())


def test_metadata_is_kept_with_the_slice(catalog: Catalog) -> None:
    acknowledge_all(catalog)
    rows = catalog._rows("SELECT metadata_json FROM slices WHERE z = 3")
    assert [json.loads(row["metadata_json"]) for row in rows] == [{"stage_z_um": 1.5}] * 2


def test_rows_that_are_asked_for_by_key_are_those_of_the_whole_plate(catalog: Catalog) -> None:
    """A scored stack, its repeat that is still to come, and a well of which no stack is planned."""
    scored(catalog)
    repeat = replace(PLAN, key=replace(KEY, stack=1))
    catalog.expect(repeat)
    wells = [KEY, repeat.key, StackKey("P1", A02)]
    rows = {row.key: row for row in catalog.result_rows("P1", all_stacks=True)}
    stands = {one.key: one for one in catalog.standings("P1")}
    assert rows.keys() == stands.keys() == set(wells)
    for key in wells:
        assert catalog.rows_of([key, key]) == [rows[key]]
        assert catalog.standings("P1", [key]) == [stands[key]]
    assert catalog.rows_of([*wells, replace(KEY, stack=7), StackKey("P1", A02, 1), StackKey("P2", A01)]) == [
        rows[key] for key in wells
    ]
    assert stands[KEY].v_control == rows[KEY].result.v_control


def test_a_value_that_follows_comes_back_when_the_images_are_trusted_again(catalog: Catalog) -> None:
    scored(catalog)
    for trust, v_count in ((Trust.OK, 0.75), (Trust.FAIL, None), (Trust.OK, 0.75), (Trust.CHECK, 0.75)):
        catalog.update_related(KEY, MODEL, Related(WellStatus.FINAL, None, 90.0, trust=trust, trust_flags=()), "asked")
        assert catalog.results("P1")[0].v_count == v_count
