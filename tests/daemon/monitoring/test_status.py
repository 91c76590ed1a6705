"""Status, lock and results: what a person and a program are told of a data directory."""

import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console, RenderableType

from spheroidd.daemon.analysis import results_table as results
from spheroidd.daemon.catalog.writer import Catalog, RunState, StackState
from spheroidd.daemon.monitoring import status
from spheroidd.daemon.monitoring.status import ATTENTION, HEALTHY, STOPPED, Status
from spheroidd.daemon.system.lock import LOCK_NAME, acquire_lock, describe_holder, is_locked
from spheroidd.protocols.errors import ConfigError, StorageError
from spheroidd.protocols.events import SliceDurable
from spheroidd.protocols.plate import PlateMap, PlateWell, Treatment, WellRole
from spheroidd.protocols.results import Normalisation, Related, StackMeasurement, WellStatus
from spheroidd.protocols.stack import StackKey, StackPlan
from spheroidd.protocols.stack_end import Ending, StackEnd
from spheroidd.protocols.well import WellId

CONTROL, SAMPLE = WellId(0, 0), WellId(0, 1)
MODEL = "ab" * 32


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A plate of two wells: the first is final, the second has not begun."""
    sample = Treatment(WellRole.SAMPLE, "drug", 1.5, "pt7")
    wells = (PlateWell(CONTROL, Treatment(WellRole.NEGATIVE_CONTROL)), PlateWell(SAMPLE, sample))
    with Catalog.create_or_open(tmp_path) as catalog:
        catalog.register_plate(PlateMap("P1", wells), "{}")
        for well in (CONTROL, SAMPLE):
            catalog.expect(StackPlan(StackKey("P1", well), ("488",), 3, 8, 8, 0.1, 0.5))
        finish(catalog, CONTROL)
        catalog.set_run_state(RunState("0.1", 7, "running", 0.0, 100.0, plate="P1", well="A02", stack=0, eta_s=65.0))
    return tmp_path


def finish(catalog: Catalog, well: WellId) -> None:
    key = StackKey("P1", well)
    for index in catalog.plan(key).indices():
        catalog.acknowledge(SliceDurable(key, index, 1, 0.0), 1.0)
    catalog.set_stack_state(key, StackState.STORED)
    measurement = StackMeasurement(10.0, None, 3, None, (10.0,), {}, Normalisation.STACK, MODEL, 1.0, {})
    catalog.record_measurement(key, measurement, 2.0)
    catalog.update_related(key, MODEL, Related(WellStatus.FINAL, None, 100.0), "controls")


def seen(data: Path, now_s: float = 101.0) -> Status:
    with Catalog.read_only(data) as catalog:
        return status.look(data, catalog, now_s)


def shown(part: RenderableType, width: int = 120) -> str:
    console = Console(width=width)
    with console.capture() as captured:
        console.print(part)
    return captured.get()


# Exit codes


def test_stopped_with_work_left(data: Path) -> None:
    found = seen(data)
    assert (found.exit_code, found.running, found.work_left, found.slice) == (STOPPED, False, True, None)
    assert "`spheroidd run` goes on" in shown(status.to_screen(found))


def test_stopped_with_all_done(data: Path) -> None:
    with Catalog.create_or_open(data) as catalog:
        finish(catalog, SAMPLE)
    found = seen(data)
    assert found.exit_code == HEALTHY
    assert "all done" in shown(status.to_screen(found))


def test_running(data: Path) -> None:
    with acquire_lock(data):
        found = seen(data)
    assert (found.exit_code, found.running, found.silent_s) == (HEALTHY, True, 1.0)
    assert (found.slice, found.slices, found.wells) == ((0, 3), (3, 6), {"final": 1, "queued": 1})
    text = shown(status.to_screen(found))
    for words in ("running (pid 7", "P1, well A02", "slice 0 of 3", "3 of 6", "1 min 05 s", "1 queued  1 final"):
        assert words in text


def test_no_sign_of_life(data: Path) -> None:
    with acquire_lock(data):
        found = seen(data, now_s=100.0 + status.SILENT_S + 1)
    assert found.exit_code == ATTENTION
    assert "no sign of life for 11 s" in shown(status.to_screen(found))


def test_an_open_fault(data: Path) -> None:
    with Catalog.create_or_open(data) as catalog, acquire_lock(data):
        catalog.raise_fault("storage", StorageError("the disk is full", where="D:", do="free some space"))
        found = seen(data)
        assert found.exit_code == ATTENTION
        assert "D:: the disk is full; free some space" in shown(status.to_screen(found))
        catalog.clear_fault("storage")
        assert seen(data).exit_code == HEALTHY


@pytest.mark.parametrize(("how", "word"), [(StackEnd.FAILED, "failed"), (StackEnd.SHORT, "incomplete")])
def test_a_well_that_ended_badly(data: Path, how: StackEnd, word: str) -> None:
    with Catalog.create_or_open(data) as catalog:
        catalog.end_stack(StackKey("P1", SAMPLE), Ending(how, "the folder went quiet", "look at it"))
    found = seen(data)
    assert (found.exit_code, found.work_left, found.wells) == (ATTENTION, False, {"final": 1, word: 1})
    assert f"A02 {word}: the folder went quiet; look at it" in shown(status.to_screen(found))


@pytest.mark.parametrize("how", [StackEnd.SKIPPED, StackEnd.ABORTED], ids=str)
def test_a_well_that_a_person_left_out_is_nothing_to_look_at(data: Path, how: StackEnd) -> None:
    with Catalog.create_or_open(data) as catalog:
        catalog.end_stack(StackKey("P1", SAMPLE), Ending(how, "left out by eve: mould"))
    found = seen(data)
    assert (found.exit_code, found.work_left, found.failed) == (HEALTHY, False, ())
    assert found.wells == {"final": 1, how.value: 1}
    text = shown(status.to_screen(found))
    assert f"A02 {how}: left out by eve: mould" in text
    assert "failed" not in text
    assert [well["status"] for well in json.loads(status.to_json(found))["left_out"]] == [how.value]


def test_a_well_that_was_stopped_is_work_left(data: Path) -> None:
    with Catalog.create_or_open(data) as catalog:
        catalog.end_stack(StackKey("P1", SAMPLE), Ending(StackEnd.STOPPED, "stopped", "run it"))
    found = seen(data)
    assert (found.exit_code, found.work_left, found.failed) == (STOPPED, True, ())


def test_status_as_json(data: Path) -> None:
    found = json.loads(status.to_json(seen(data)))
    assert found["exit_code"] == STOPPED
    assert found["run"]["pid"] == 7
    assert found["wells"] == {"final": 1, "queued": 1}


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(None, "—"), (-3.0, "—"), (0, "0 s"), (59.6, "1 min 00 s"), (3599, "59 min 59 s"), (7500, "2 h 05 min")],
)
def test_durations(seconds: float | None, words: str) -> None:
    assert status.duration(seconds) == words


# Results


def test_what_is_not_known_is_null_in_json_and_empty_in_csv(data: Path) -> None:
    with Catalog.read_only(data) as catalog:
        rows = catalog.result_rows()
    first, second = json.loads(results.to_json(rows))
    assert (first["v_control"], first["n_dead"], first["model_sha256"]) == (100.0, None, MODEL)
    assert (second["status"], second["live_um3"], second["n_slices_expected"]) == ("queued", None, 3)
    assert (second["role"], second["compound"], second["dose_um"], second["patient"]) == ("sample", "drug", 1.5, "pt7")
    results.write_csv(rows, data / "rows.csv")
    with (data / "rows.csv").open(newline="", encoding="utf-8") as file:
        one, two = csv.DictReader(file)
    assert tuple(one) == results.COLUMNS == tuple(first)
    assert (one["v_control"], two["v_control"], two["reason"]) == ("100.0", "", "not imaged yet")


def test_a_csv_that_cannot_be_written_says_so(data: Path) -> None:
    with pytest.raises(StorageError, match="cannot write the results"):
        results.write_csv([], data)


def test_the_table_shows_a_dash_and_a_reason_never_a_zero(data: Path) -> None:
    with Catalog.read_only(data) as catalog:
        text = shown(results.results_table(catalog.result_rows()), width=120)
    header, first, second = (line.split() for line in text.splitlines())
    assert header[0] == "well"
    assert "score" not in header  # no row has one
    assert first[:3] == ["A01", "untreated", "3/3"]
    assert second == [
        "A02",
        "drug",
        "1.5",
        "uM",
        "pt7",
        "0/3",
        "—",
        "—",
        "—",
        "—",
        "—",
        "queued",
        "not",
        "imaged",
        "yet",
    ]


# Somebody who may only read


@contextmanager
def without_rights(folder: Path) -> Iterator[None]:
    """Nobody may write the folder or what is in it; a root user becomes somebody else for the while."""
    if sys.platform == "win32":
        pytest.skip("rights are kept otherwise on Windows")
    user = os.geteuid()
    for path in folder.iterdir():
        path.chmod(0o444)
    folder.chmod(0o555)
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)
        folder.chmod(0o755)


@pytest.mark.parametrize(("seconds", "running"), [(1.0, True), (60.0, False)])
def test_who_may_only_read_sees_the_same(data: Path, seconds: float, running: bool) -> None:
    """A copy on a read-only medium opens too. Where the lock cannot be tried, the heartbeat tells."""
    with acquire_lock(data):
        pass
    expected = seen(data)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "copy"
        shutil.copytree(data, folder)
        (folder / LOCK_NAME).touch()
        Path(place).chmod(0o755)
        with without_rights(folder):
            found = seen(folder, now_s=100.0 + seconds)
    assert (found.wells, found.run, found.running) == (expected.wells, expected.run, running)


# The lock


def test_a_second_daemon_is_refused(tmp_path: Path) -> None:
    child = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from pathlib import Path; from spheroidd.daemon.system.lock import acquire_lock\n"
            "with acquire_lock(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()",
            str(tmp_path),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    assert is_locked(tmp_path)
    with (
        pytest.raises(ConfigError, match=f"another spheroidd .pid {child.pid}. runs") as caught,
        acquire_lock(tmp_path),
    ):
        pass
    assert "another directory" in caught.value.do
    child.kill()  # the system gives the lock back, whatever became of the holder
    child.wait()
    child.stdin.close()
    child.stdout.close()
    assert not is_locked(tmp_path)
    with acquire_lock(tmp_path):
        assert is_locked(tmp_path)
    assert not is_locked(tmp_path)
    assert describe_holder(tmp_path) == "pid unknown"


def test_looking_at_a_lock_makes_no_file(tmp_path: Path) -> None:
    assert not is_locked(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot lock"), acquire_lock(tmp_path / "file" / "data"):
        pass


def test_a_row_of_another_stack_is_told_apart(data: Path) -> None:
    with Catalog.create_or_open(data) as catalog:
        plan = catalog.plan(StackKey("P1", CONTROL))
        catalog.expect(replace(plan, key=StackKey("P1", CONTROL, 1)))
        text = shown(results.results_table(catalog.result_rows(all_stacks=True)))
    assert "stack" in text.splitlines()[0]
    assert len(text.splitlines()) == 4
