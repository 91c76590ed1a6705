"""What main does when the catalog refuses: a row that it cannot hold, another process that holds it, a full disk."""

import errno
import sqlite3
import time
from pathlib import Path
from typing import Any, cast

import pytest

from spheroidd.acquisition.channel import Channel
from spheroidd.acquisition.disk.durable_file import storage_errors
from spheroidd.daemon.catalog import transaction
from spheroidd.daemon.catalog.rows import StackState
from spheroidd.daemon.catalog.transaction import may_pass, translated
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.config.alarm_settings import AlarmsConfig
from spheroidd.daemon.monitoring import alarm_watch, outage_note
from spheroidd.daemon.monitoring.alarms import alarms_now
from spheroidd.daemon.monitoring.monitor import RunMonitor
from spheroidd.daemon.monitoring.status import look
from spheroidd.daemon.pipeline import catalog_outage
from spheroidd.daemon.pipeline import main_loop as main_loop_file
from spheroidd.daemon.pipeline.main_loop import PlateRun
from spheroidd.daemon.pipeline.run_context import RunContext
from spheroidd.daemon.pipeline.throughput import Throughput
from spheroidd.daemon.scoring.pool import Scored, ScoringFailed
from spheroidd.daemon.service.status_board import StatusBoard
from spheroidd.daemon.system.lock import acquire_lock
from spheroidd.protocols.errors import NoRoomError, RowRefusedError, StorageError
from spheroidd.protocols.events import SliceDurable
from spheroidd.protocols.plate import PlateMap, PlateWell, Treatment, WellRole
from spheroidd.protocols.stack import SliceIndex, StackKey, StackPlan
from spheroidd.protocols.well import WellId
from tests.daemon.pipeline.test_clock_jump import Desk
from tests.daemon.service.rig import fill

GOOD, BAD = (StackKey("P1", WellId(0, column)) for column in (0, 1))
PLATE = PlateMap("P1", tuple(PlateWell(key.well, Treatment(WellRole.NEGATIVE_CONTROL)) for key in (GOOD, BAD)))


def durable(key: StackKey, z: int, **changed: Any) -> SliceDurable:
    given = {"crc32c": z, "acquired_s": 1.0, "metadata": {}, **changed}
    return SliceDurable(key, SliceIndex("488", z), **given)


def planned(catalog: Catalog) -> None:
    catalog.register_plate(PLATE, "{}")
    for key in (GOOD, BAD):
        catalog.expect(StackPlan(key, ("488",), 4, 8, 8, 0.5, 1.0))


def main_loop(catalog: Catalog, monitor: RunMonitor | None = None, shown: Any = lambda: None) -> PlateRun:
    context = RunContext() if monitor is None else RunContext(monitor=monitor)
    pace, nobody = Throughput(8, 0, plate="P1"), cast(Any, None)
    events: Channel[Any] = Channel(capacity=8)
    return PlateRun(catalog, cast(Any, Desk()), nobody, events, pace, shown, None, context)


@pytest.mark.parametrize(
    "unholdable",
    [
        {"acquired_s": float("nan")},  # STRICT tables take no NULL for it
        {"metadata": {"exposure_ms": float("inf")}},
        {"metadata": {"image": object()}},
        {"crc32c": 2**70},
        {"acquired_s": "yesterday"},
    ],
    ids=["nan", "infinite", "object", "huge", "text"],
)
def test_a_slice_that_the_catalog_cannot_hold_fails_its_stack_alone(tmp_path: Path, unholdable: dict[str, Any]) -> None:
    with Catalog.create_or_open(tmp_path) as catalog:
        planned(catalog)
        run = main_loop(catalog)
        run._commit([durable(GOOD, 0), durable(BAD, 0, **unholdable), durable(GOOD, 1)])
        assert len(catalog.acknowledged(GOOD)) == 2
        assert catalog.acknowledged(BAD) == {}
        assert catalog.stack(BAD).state is StackState.FAILED
        assert catalog.stack(GOOD).state is StackState.QUEUED
        assert run._unwritten == [durable(BAD, 0, **unholdable)] or "image" in str(unholdable)


def test_what_a_file_name_cannot_say_is_written_down_escaped(tmp_path: Path) -> None:
    with Catalog.create_or_open(tmp_path) as catalog:
        catalog.raise_fault("watch-folder", StorageError("odd", where="in/\udcff.tif"))
        assert [fault.where for fault in catalog.faults()] == ["in/\\udcff.tif"]


@pytest.fixture
def held(tmp_path: Path) -> sqlite3.Connection:
    """Another process's connection, which holds the catalog as a database browser does."""
    with Catalog.create_or_open(tmp_path) as catalog:
        planned(catalog)
    connection = sqlite3.connect(tmp_path / "catalog.sqlite", isolation_level=None, check_same_thread=False)
    connection.execute("BEGIN IMMEDIATE")
    return connection


def test_a_catalog_that_another_program_holds_is_told_beside_it_and_taken_up(
    tmp_path: Path, held: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outage_note, "remove", lambda data_dir: None)
    seen: list[tuple[str, list[str]]] = []

    def shown() -> None:
        """While main waits: what a person sees from outside; then the other program lets go."""
        if outage_note.read(tmp_path) is None:
            return
        with Catalog.read_only(tmp_path) as reader:
            status = look(tmp_path, reader)
            assert status.run is not None
            assert (status.run.slices_per_s, status.run.eta_s, status.exit_code) == (None, None, 1)
            seen.append((status.run.state, [alarm.code for alarm in alarms_now(tmp_path, reader)]))
        held.execute("ROLLBACK")

    held.execute("ROLLBACK")
    with acquire_lock(tmp_path), Catalog.create_or_open(tmp_path, busy_s=0.05) as catalog:
        with RunMonitor(tmp_path, catalog, AlarmsConfig()) as monitor:
            run = main_loop(catalog, monitor, shown)
            run._commit([])
            held.execute("BEGIN IMMEDIATE")
            run._commit([durable(GOOD, 0)])
            assert seen[0] == ("storage fails", ["storage-catalog"])
            assert outage_note.read(tmp_path) is not None
            run._next_heartbeat_s = 0.0
            run._commit([])
            assert outage_note.read(tmp_path) is None
        assert len(catalog.acknowledged(GOOD)) == 1
        assert [fault.code for fault in catalog.faults(open_only=False)][-1] == "storage-catalog"


@pytest.mark.parametrize("stopping", [False, True], ids=["for too long", "while a person waits for the end"])
def test_nobody_waits_for_a_catalog_for_ever(
    tmp_path: Path, held: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch, stopping: bool
) -> None:
    monkeypatch.setattr(catalog_outage, "STOPPING_PATIENCE_S" if stopping else "PATIENCE_S", 0.5)
    held.execute("ROLLBACK")
    with Catalog.create_or_open(tmp_path, busy_s=0.05) as catalog:
        held.execute("BEGIN IMMEDIATE")
        run = main_loop(catalog)
        if stopping:
            run.stop()
        with pytest.raises(StorageError, match="another process holds the catalog"):
            run._commit([durable(GOOD, 0)])
        held.execute("ROLLBACK")


def test_a_full_disk_is_told_from_every_other_error(tmp_path: Path) -> None:
    with Catalog.create_or_open(tmp_path) as catalog:
        connection = catalog.connection
        connection.execute("PRAGMA max_page_count = 1")  # it stays at what there is
        with pytest.raises(NoRoomError, match="the disk is full") as full, catalog.transaction():
            connection.execute("CREATE TABLE filler AS SELECT zeroblob(4000000)")
    assert may_pass(full.value)
    with pytest.raises(RowRefusedError) as refused, translated(tmp_path):
        sqlite3.connect(":memory:").executescript("CREATE TABLE t (x NOT NULL); INSERT INTO t VALUES (NULL)")
    assert not may_pass(refused.value)
    (tmp_path / "no.sqlite").write_bytes(b"no database" * 1000)
    with pytest.raises(StorageError, match="no SQLite database") as damaged, translated(tmp_path):
        sqlite3.connect(tmp_path / "no.sqlite").execute("SELECT * FROM sqlite_master")
    assert not may_pass(damaged.value)


@pytest.mark.parametrize(
    ("number", "kind", "words"),
    [
        (errno.EDQUOT, NoRoomError, "the quota of the disk is used up"),
        (errno.ENOSPC, NoRoomError, "the disk is full"),
        (errno.EMFILE, StorageError, "too many files are open"),
        (errno.EACCES, StorageError, "the right to it is missing"),
        (errno.EROFS, StorageError, "its disk can only be read"),
        (errno.EIO, StorageError, "the disk fails"),
    ],
    ids=errno.errorcode.get,
)
def test_what_sqlite_keeps_to_itself_is_asked_of_the_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[StorageError], words: str
) -> None:
    def refuse(fd: int) -> None:
        raise OSError(number, "refused")

    monkeypatch.setattr(transaction, "sync_data", refuse)
    refused = sqlite3.OperationalError("disk I/O error")
    refused.sqlite_errorname = "SQLITE_IOERR_WRITE"
    with pytest.raises(StorageError, match=words) as told, translated(tmp_path / "catalog.sqlite"):
        raise refused
    assert type(told.value) is kind
    assert may_pass(told.value)
    assert list(tmp_path.iterdir()) == []


def test_a_quota_is_told_from_a_full_disk() -> None:
    with pytest.raises(NoRoomError, match="the quota of the disk is used up"), storage_errors("x"):
        raise OSError(errno.EDQUOT, "Disk quota exceeded")


def test_a_file_in_the_place_of_a_folder_is_no_fault_of_the_disk() -> None:
    with pytest.raises(StorageError, match="a file stands where a folder has to be"), storage_errors("x"):
        raise NotADirectoryError(errno.ENOTDIR, "Not a directory", "x")


def test_alarms_that_are_not_looked_for_are_an_alarm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alarm_watch, "LOOK_S", 0.01)
    monkeypatch.setattr(alarm_watch, "BLIND_S", 0.05)
    watch = alarm_watch.AlarmWatch(tmp_path, AlarmsConfig(), dict, lambda: None, dict)
    watch.start()  # there is no catalog that could be opened
    try:
        deadline = time.monotonic() + 20
        while not watch.found:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        (error,) = watch.found.values()
        assert "alarms are not looked for: no plate was ever run here" in str(error)
        with Catalog.create_or_open(tmp_path) as catalog:
            planned(catalog)
        while watch.found:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        watch.close()


def test_a_status_that_cannot_be_read_any_more_says_so(tmp_path: Path) -> None:
    fill(tmp_path)
    board = StatusBoard(tmp_path, lambda message: None)
    board.start()
    try:
        newest = board.newest(timeout_s=20)
        assert newest is not None
    finally:
        board.close()
    refused = StorageError("too many files are open", where="catalog.sqlite", do="close some")
    board._say_blind(refused)
    assert board.newest() == newest, "it is fresh yet"
    board._looked_s -= 60.0
    board._say_blind(refused)
    later = board.newest()
    assert later is not None
    assert "the status is not read any more: too many files are open" in [fault.what for fault in later.faults]
    assert later.verdict >= 1
    board._say_blind(refused)
    assert board.newest() == later


def test_masks_that_can_be_neither_kept_nor_removed_fail_their_stack_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise StorageError("too many files are open", where="masks", do="close some")

    monkeypatch.setattr(main_loop_file, "commit_label", refuse)
    monkeypatch.setattr(main_loop_file, "discard_label", refuse)
    nothing = cast(Any, None)
    scored = Scored(GOOD, nothing, nothing, nothing, labels=(cast(Any, "live"),))
    with Catalog.create_or_open(tmp_path) as catalog:
        planned(catalog)
        told = main_loop(catalog)._with_its_masks(scored)
    assert isinstance(told, ScoringFailed)
    assert (told.key, told.error.what) == (GOOD, "too many files are open")
