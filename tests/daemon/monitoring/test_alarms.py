"""Alarms: each condition has one beginning and one end, whatever is looked at how often."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spheroidd.daemon.catalog.writer import Catalog, StackState
from spheroidd.daemon.config.alarm_settings import AlarmsConfig
from spheroidd.daemon.monitoring import status
from spheroidd.daemon.monitoring.alarm_conditions import Situation, conditions
from spheroidd.daemon.monitoring.alarm_watch import AlarmWatch
from spheroidd.daemon.monitoring.alarms import alarms_now, open_alarms, settle
from spheroidd.daemon.monitoring.preflight import DISK_BYTES_PER_RAW_BYTE
from spheroidd.daemon.system.lock import acquire_lock
from spheroidd.protocols.errors import ConfigError, InstrumentError, StackError, StorageError
from spheroidd.protocols.quality import QualityFlag, Verdict
from spheroidd.protocols.stack_end import Ending, StackEnd
from tests.daemon.monitoring.alarm_rig import A01, A02, A03, NOW_S, RAW_BYTES, acknowledge, plate, says

SETTINGS = AlarmsConfig(stall_s=60.0, between_s=900.0)
FINE = Situation(NOW_S, 10**12, acquiring=True)


class DiskUsage(NamedTuple):
    """What shutil.disk_usage gives."""

    total: int
    used: int
    free: int


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with plate(tmp_path) as opened:
        opened.set_stack_state(A01, StackState.ACQUIRING)
        acknowledge(opened, A01, 3, NOW_S - 1.0)
        yield opened


def look(catalog: Catalog, situation: Situation = FINE) -> list[tuple[str, str]]:
    """One heartbeat: what stands after it."""
    found = conditions(catalog, SETTINGS, situation)
    if found is not None:
        settle(catalog, found, situation.now_s)
    return [(alarm.code, alarm.key) for alarm in open_alarms(catalog)]


def all_there_were(catalog: Catalog) -> list[str]:
    return [fault.code for fault in catalog.faults(open_only=False)]


def test_a_disk_too_full_to_write_an_alarm_down_is_one(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: DiskUsage(10**9, 10**9, 0))
    assert alarms_now(tmp_path, catalog) == []  # nobody is at work here
    with acquire_lock(tmp_path):
        (alarm,) = alarms_now(tmp_path, catalog)
    assert (alarm.code, alarm.severity) == ("disk-full", "critical")
    assert "make room" in alarm.do


def test_a_plate_that_runs_well_has_none(catalog: Catalog) -> None:
    assert look(catalog) == []
    assert look(catalog, replace(FINE, silent_s=50.0)) == []


def test_a_stall_begins_once_and_ends_with_the_next_slice(catalog: Catalog) -> None:
    late = replace(FINE, now_s=NOW_S + 61.0, silent_s=61.0)
    assert look(catalog, late) == [("stalled", "P1/A01/0")]
    assert look(catalog, replace(late, now_s=NOW_S + 90.0, silent_s=90.0)) == [("stalled", "P1/A01/0")]
    acknowledge(catalog, A01, 4, NOW_S + 91.0)
    assert look(catalog, replace(late, now_s=NOW_S + 92.0, silent_s=1.0)) == []
    assert all_there_were(catalog) == ["stalled"]


@pytest.mark.parametrize("state", ["paused", "pausing", "stopping", "storage full", "aborting", "starting"])
def test_no_stall_where_nothing_is_to_come(catalog: Catalog, state: str) -> None:
    says(catalog, state)
    assert look(catalog, replace(FINE, silent_s=5000.0)) == []


@pytest.mark.parametrize("set_by_s", [-86400.0, 86400.0])
def test_a_clock_that_is_set_neither_makes_a_stall_nor_hides_one(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, set_by_s: float
) -> None:
    true_s, clock = time.monotonic, {"wall": NOW_S, "steady": 0.0}
    monkeypatch.setattr(time, "time", lambda: clock["wall"])
    monkeypatch.setattr(time, "monotonic", lambda: true_s() + clock["steady"])
    watch = AlarmWatch(tmp_path, SETTINGS, dict, lambda: None, dict)
    watch.acquiring = True

    def stalled() -> bool:
        watch.look(catalog)
        return any(code == "stalled" for code, _ in watch.found or {})

    assert not stalled()
    clock["wall"] += set_by_s
    assert not stalled()
    clock["steady"] += 61.0
    assert stalled()
    acknowledge(catalog, A01, 4, clock["wall"])
    assert not stalled()


def test_a_plate_that_was_just_resumed_has_not_stalled(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true_s, late_s = time.monotonic, [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: true_s() + late_s[0])
    watch = AlarmWatch(tmp_path, SETTINGS, dict, lambda: None, dict)
    watch.acquiring = True
    for state in ("running", "paused", "running"):
        says(catalog, state)
        late_s[0] += 5000.0 * (state == "paused")
        watch.look(catalog)
    assert not any(code == "stalled" for code, _ in watch.found or {})


def test_what_a_fault_says_already_is_no_stall_as_well(catalog: Catalog) -> None:
    catalog.raise_fault("storage", StorageError("full", do="make room"))
    assert look(catalog, replace(FINE, silent_s=5000.0)) == [("storage", "")]


def test_between_two_stacks_there_may_be_longer_silence(catalog: Catalog) -> None:
    acknowledge(catalog, A01, 8, NOW_S)
    catalog.set_stack_state(A01, StackState.STORED)
    says(catalog, "running", well=None, stack=None)
    assert look(catalog, replace(FINE, silent_s=800.0)) == []
    assert look(catalog, replace(FINE, silent_s=901.0)) == [("stalled", "")]
    assert look(catalog, replace(FINE, silent_s=5000.0, acquiring=False)) == []


def test_a_short_stack_stands_until_the_well_is_imaged_whole(catalog: Catalog) -> None:
    what, do = "3 of 8 slices arrived, the first missing is channel 561 z 1", "run the plate again; or not"
    catalog.end_stack(A01, Ending(StackEnd.SHORT, what, do))
    assert look(catalog) == [("stack-incomplete", "P1/A01/0")]
    [alarm] = open_alarms(catalog)
    assert (alarm.what, alarm.do) == (what, do)
    catalog.expect(replace(catalog.plan(A01), key=replace(A01, stack=1)))
    assert look(catalog) == []


@pytest.mark.parametrize(
    "words", ["skipped by eve: mould", "3 of 8 slices came; image it again", "stopped in the middle", ""]
)
def test_what_a_person_ordered_is_no_alarm_however_it_is_worded(catalog: Catalog, words: str) -> None:
    catalog.end_stack(A01, Ending(StackEnd.SKIPPED, words))
    catalog.end_stack(A02, Ending(StackEnd.ABORTED, words))
    catalog.end_stack(A03, Ending(StackEnd.FAILED, "black", "open the shutter"))
    assert look(catalog) == [("stack-failed", str(A03))]
    [alarm] = open_alarms(catalog)
    assert (alarm.what, alarm.do) == ("black", "open the shutter")


@pytest.mark.parametrize("words", ["skipped by eve: mould", "the plate was aborted by eve", "the light went out"])
@pytest.mark.parametrize(
    ("how", "code"), [(StackEnd.SHORT, "stack-incomplete"), (StackEnd.FAILED, "stack-failed")], ids=str
)
def test_what_nobody_ordered_is_one_however_it_is_worded(
    catalog: Catalog, how: StackEnd, code: str, words: str
) -> None:
    catalog.end_stack(A01, Ending(how, words))
    assert look(catalog) == [(code, str(A01))]


@pytest.mark.parametrize("words", ["stopped in the middle", "skipped by eve", "the daemon left"])
def test_a_stack_that_was_stopped_is_left_to_image_however_it_is_worded(catalog: Catalog, words: str) -> None:
    catalog.end_stack(A01, Ending(StackEnd.STOPPED, words))
    for key in (A02, A03):
        catalog.end_stack(key, Ending(StackEnd.SKIPPED, words))
    assert look(catalog) == []
    says(catalog, "stopped")
    assert look(catalog) == [("plate-stopped", "")]
    assert "1 wells left to image: A01" in open_alarms(catalog)[0].what


@pytest.mark.parametrize("state", ["stopped", "idle"])
def test_a_plate_that_stopped_with_work_left(catalog: Catalog, state: str) -> None:
    says(catalog, state)
    assert look(catalog, replace(FINE, acquiring=False)) == [("plate-stopped", "")]
    assert "3 wells left to image: A01, A02, A03" in open_alarms(catalog)[0].what
    says(catalog, "starting")
    assert look(catalog) == [("plate-stopped", "")]  # whether it will run is not known yet
    says(catalog, "running")
    assert look(catalog) == []


def test_a_disk_that_the_rest_of_the_plate_does_not_fit_on(tmp_path: Path) -> None:
    with plate(tmp_path, min_free_gb=1.0) as catalog:
        catalog.set_stack_state(A01, StackState.ACQUIRING)
        acknowledge(catalog, A01, 4)  # half of it is on the disk
        need = round(1e9 + DISK_BYTES_PER_RAW_BYTE * 2.5 * RAW_BYTES)
        assert look(catalog, replace(FINE, free_bytes=need + 1)) == []
        assert look(catalog, replace(FINE, free_bytes=need - 1)) == [("disk-short", "")]
        assert look(catalog, replace(FINE, free_bytes=need + 1)) == [("disk-short", "")]  # it does not come and go
        assert look(catalog, replace(FINE, free_bytes=round(1.03 * need))) == []
        assert all_there_were(catalog) == ["disk-short"]


def test_controls_out_of_range(catalog: Catalog) -> None:
    catalog.end_stack(A01, Ending(StackEnd.SKIPPED, "mould"))
    flags = (
        QualityFlag("control-cv", Verdict.WARN, ("A01",), "CV 40 %", "look"),
        QualityFlag("outlier", Verdict.WARN, ("A02",), "far off", "look"),
        QualityFlag("z-prime", Verdict.PASS, (), "0.6", ""),
    )
    assert look(catalog, replace(FINE, flags=flags)) == [("quality-control-cv", "")]
    assert look(catalog) == []


def test_a_control_that_is_still_being_scored_is_not_lost(catalog: Catalog) -> None:
    situation = replace(FINE, flags=(QualityFlag("control-lost", Verdict.WARN, ("A01",), "no value", "score it"),))
    acknowledge(catalog, A01, 8)
    for state in (StackState.STORED, StackState.SCORING):
        catalog.set_stack_state(A01, state)
        assert look(catalog, situation) == []
    catalog.end_stack(A01, Ending(StackEnd.FAILED, "black", "mend it"))
    assert ("quality-control-lost", "") in look(catalog, situation)


def test_a_control_that_a_person_skipped_is_no_alarm_and_another_is(catalog: Catalog) -> None:
    def lost(*wells: str) -> Situation:
        return replace(FINE, flags=(QualityFlag("control-lost", Verdict.WARN, wells, "no value", "image it"),))

    catalog.end_stack(A01, Ending(StackEnd.SKIPPED, "mould"))
    catalog.end_stack(A02, Ending(StackEnd.FAILED, "black", "mend it"))
    assert look(catalog, lost("A01")) == [("stack-failed", str(A02))]
    assert ("quality-control-lost", "") in look(catalog, lost("A01", "A02"))


def test_a_fault_of_a_newer_program_stands_and_is_a_warning(catalog: Catalog) -> None:
    catalog.raise_fault("laser-aged", InstrumentError("dim", do="replace it"))  # type: ignore[arg-type]
    assert look(catalog) == [("laser-aged", "")]
    assert open_alarms(catalog)[0].severity == "warning"


def test_a_plate_that_stopped_before_it_was_scored(catalog: Catalog) -> None:
    for key in (A01, A02, A03):
        catalog.set_stack_state(key, StackState.ACQUIRING)
        acknowledge(catalog, key, 8)
        catalog.set_stack_state(key, StackState.STORED)
    assert look(catalog) == []
    says(catalog, "stopped")
    assert look(catalog) == [("plate-stopped", "")]
    assert "with 3 stacks to score" in open_alarms(catalog)[0].what


def test_receivers_that_cannot_be_told(catalog: Catalog) -> None:
    problem = {"email": ConfigError("no answer", where="mail:25", do="look")}
    assert look(catalog, replace(FINE, undelivered=problem)) == [("email-undelivered", "")]
    assert look(catalog) == []


def test_faults_that_are_ended_by_what_came_after(catalog: Catalog) -> None:
    catalog.raise_fault("instrument", InstrumentError("no camera"), A01)
    catalog.raise_fault("daemon-killed", StackError("killed"))
    catalog.raise_fault("worker-restarted", StackError("died"))
    catalog.raise_fault("slices-lost", StorageError("lost"), A02)
    assert look(catalog) == [("instrument", str(A01)), ("worker-restarted", ""), ("slices-lost", str(A02))]
    acknowledge(catalog, A01, 8, NOW_S)
    says(catalog, "running", worker="idle")
    assert look(catalog, replace(FINE, now_s=NOW_S + 59.0))[:1] == [("worker-restarted", "")]
    assert look(catalog, replace(FINE, now_s=NOW_S + 61.0)) == [("slices-lost", str(A02))]


def test_looking_again_writes_nothing(catalog: Catalog) -> None:
    catalog.end_stack(A01, Ending(StackEnd.FAILED, "black", "mend it"))
    look(catalog)
    before = catalog._connection.total_changes
    look(catalog)
    assert catalog._connection.total_changes == before


def test_status_says_each_once(catalog: Catalog, tmp_path: Path) -> None:
    from rich.console import Console

    catalog.end_stack(A01, Ending(StackEnd.FAILED, "black", "mend it"))
    look(catalog)
    console = Console(width=120)
    with console.capture() as captured:
        console.print(status.to_screen(status.look(tmp_path, catalog, NOW_S)))
    assert captured.get().count("black") == 1


def test_critical_alarms_come_first(catalog: Catalog) -> None:
    for code in ("worker-died", "instrument", "stack-failed", "storage"):
        catalog.raise_fault(code, StackError(code))
    assert [alarm.code for alarm in open_alarms(catalog)] == ["instrument", "storage", "worker-died", "stack-failed"]


STATES = st.sampled_from(["starting", "running", "paused", "stopping", "stopped", "idle"])


@settings(deadline=None, max_examples=8)
@given(st.lists(st.tuples(STATES, st.floats(0, 5000), st.integers(0, 10**12), st.booleans()), max_size=8))
def test_no_alarm_begins_before_its_last_ended(
    tmp_path_factory: pytest.TempPathFactory, looks: list[tuple[str, float, int, bool]]
) -> None:
    with plate(tmp_path_factory.mktemp("wild")) as catalog:
        for state, late_s, free_bytes, acquiring in looks:
            says(catalog, state)
            look(catalog, Situation(NOW_S + late_s, free_bytes, acquiring, silent_s=late_s))
        stands = [(fault.code, fault.key) for fault in catalog.faults()]
        assert len(stands) == len(set(stands))
