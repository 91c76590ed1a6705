"""A backup and what is brought back from it: the same bytes, at every moment, after a kill and after damage."""

import json
import os
import shutil
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spheroidd.acquisition.store.zarr_store import ZarrStackStore
from spheroidd.daemon.backup import backup as backing_up
from spheroidd.daemon.backup import follow as following
from spheroidd.daemon.backup.backup import DATA, REPLACED, Pass, back_up, backup_folder
from spheroidd.daemon.backup.follow import followed
from spheroidd.daemon.backup.index import NAME, BackupIndex
from spheroidd.daemon.backup.restore import restore
from spheroidd.daemon.catalog.rows import RunState, StackState
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.system.lock import acquire_lock, is_locked
from spheroidd.daemon.verification.findings import DAMAGED, INTACT, Kind
from spheroidd.daemon.verification.verifier import verify
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.events import Event, SliceDurable
from spheroidd.protocols.stack import Frame
from tests.daemon.verification import damage
from tests.daemon.verification.plates import MAP, add_stack, make_plate, plan_of, score
from tests.faults.plate_runs import spheroidd
from tests.warm_start import talking

KILLED = """
import os, sys
from pathlib import Path
from spheroidd.daemon.backup import backup, copying
copy, left = copying.copy_file, [int(sys.argv[3])]
def counted(*given, **named):
    left[0] -= 1
    if not left[0]:
        os._exit(9)
    return copy(*given, **named)
backup.copy_file = counted
kept = copying.replacing
with backup.backup_folder(Path(sys.argv[2])) as index:
    if sys.argv[4] == "index":
        index.add = lambda *given: os._exit(9)
    backup.back_up(Path(sys.argv[1]), Path(sys.argv[2]), index)
"""


@pytest.fixture(scope="module")
def plate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plate that nothing befell; to be read only."""
    return make_plate(tmp_path_factory.mktemp("plate") / "data", wells=("A01", "A02"), n_z=8, side=64)


@pytest.fixture
def data(plate: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(plate, tmp_path / "data"))


def one_pass(data: Path, to: Path, *, check: bool = False) -> Pass:
    with backup_folder(to) as index:
        return back_up(data, to, index, check=check)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of the images: the catalog's copy has other bytes and the same rows."""
    found = [path for path in folder.rglob("*") if path.is_file() and ".ome.zarr" in str(path)]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def b01(data: Path) -> None:
    """One more stack."""
    with Catalog.create_or_open(data) as catalog:
        add_stack(data, catalog, plan_of("B01", n_z=8, side=64), seed=7)


def test_what_is_brought_back_is_what_was_backed_up(data: Path, tmp_path: Path) -> None:
    done = one_pass(data, tmp_path / "to")
    assert (done.exit_code, done.findings, done.checked) == (INTACT, (), 2 * 2 * 8)
    back = restore(tmp_path / "to", tmp_path / "elsewhere" / "data")
    assert (back.exit_code, back.report.findings, back.damaged) == (INTACT, (), ())
    assert contents(tmp_path / "elsewhere" / "data") == contents(data)


def test_the_next_pass_copies_what_is_new_and_each_moment_stays(data: Path, tmp_path: Path) -> None:
    one_pass(data, tmp_path / "to")
    before = contents(data)
    b01(data)
    done = one_pass(data, tmp_path / "to")
    assert done.checked == 2 * 8
    assert done.copied < done.moment.files / 2
    for number, expected in ((1, before), (2, contents(data))):
        back = restore(tmp_path / "to", tmp_path / str(number), str(number))
        assert (back.exit_code, back.report.findings) == (INTACT, ())
        assert contents(tmp_path / str(number)) == expected


@pytest.mark.parametrize(("at", "where"), [(9, ""), (10_000, "index")], ids=["ninth file", "index"])
@pytest.mark.parametrize("earlier", [False, True], ids=["first pass", "later pass"])
def test_a_killed_pass_leaves_the_moments_before_and_the_next_one_is_whole(
    data: Path, tmp_path: Path, at: int, where: str, earlier: bool
) -> None:
    to = tmp_path / "to"
    if earlier:
        one_pass(data, to)
        b01(data)
    with talking(KILLED, str(data), str(to), str(at), where) as (process, _):
        assert process.wait(120) == 9
    with BackupIndex(to) as index:
        assert len(index.moments()) == earlier
    if earlier:
        assert restore(to, tmp_path / "before").exit_code == INTACT
    else:
        with pytest.raises(ConfigError, match="no backup was ever finished"):
            restore(to, tmp_path / "before")
    assert one_pass(data, to).exit_code == INTACT
    assert list(to.rglob("*.partial")) == []
    assert restore(to, tmp_path / "after").exit_code == INTACT
    assert contents(tmp_path / "after") == contents(data)


def test_damage_at_the_source_is_found_and_earlier_moments_are_sound(data: Path, tmp_path: Path) -> None:
    one_pass(data, tmp_path / "to")
    damage.zeroed_shard(data)
    done = one_pass(data, tmp_path / "to")
    assert done.exit_code == DAMAGED
    assert {finding.kind for finding in done.findings} == {Kind.DAMAGED_SHARD}
    assert done.moment.damage > 0
    assert restore(tmp_path / "to", tmp_path / "now").exit_code == DAMAGED
    assert restore(tmp_path / "to", tmp_path / "before", "1").exit_code == INTACT


def test_damage_of_the_backup_is_found_and_mended_from_the_source(data: Path, tmp_path: Path) -> None:
    one_pass(data, tmp_path / "to")
    struck = damage.shard(tmp_path / "to" / DATA)
    times = struck.stat().st_mtime_ns
    damage.flip(struck)
    os.utime(struck, ns=(times, times))  # a bit that flips does not tell the file's time
    name = struck.relative_to(tmp_path / "to" / DATA).as_posix()
    back = restore(tmp_path / "to", tmp_path / "back")
    assert (back.exit_code, back.damaged) == (DAMAGED, (name,))
    assert Kind.MISSING_SHARD in {finding.kind for finding in back.report.findings}
    assert one_pass(data, tmp_path / "to").mended == ()  # times and sizes alone do not show it
    assert one_pass(data, tmp_path / "to", check=True).mended == (name,)
    assert restore(tmp_path / "to", tmp_path / "whole").exit_code == INTACT


def test_content_of_earlier_moments_that_is_damaged_is_told(data: Path, tmp_path: Path) -> None:
    one_pass(data, tmp_path / "to")
    with BackupIndex(tmp_path / "to") as index:
        held = index.files()[damage.shard(data).relative_to(data).as_posix()]
    damage.cut_shard(data)
    one_pass(data, tmp_path / "to")
    damage.flip(tmp_path / "to" / REPLACED / held.digest)
    done = one_pass(data, tmp_path / "to", check=True)
    assert (done.exit_code, done.lost) == (DAMAGED, (held.digest,))


def test_files_that_the_source_no_longer_has_are_in_earlier_moments_alone(data: Path, tmp_path: Path) -> None:
    one_pass(data, tmp_path / "to")
    damage.shard(data).unlink()
    one_pass(data, tmp_path / "to")
    assert contents(tmp_path / "to" / DATA) == contents(data)
    assert restore(tmp_path / "to", tmp_path / "before", "1").exit_code == INTACT


def test_verifying_the_copy_in_its_place_changes_nothing_of_it(data: Path, tmp_path: Path) -> None:
    one_pass(data, tmp_path / "to")
    assert spheroidd("verify", str(tmp_path / "to" / DATA)).returncode == INTACT  # it writes an event into that catalog
    assert restore(tmp_path / "to", tmp_path / "back").exit_code == INTACT


def test_nothing_is_overwritten(data: Path, tmp_path: Path) -> None:
    one_pass(data, tmp_path / "to")
    (tmp_path / "there").mkdir()
    assert restore(tmp_path / "to", tmp_path / "there").exit_code == INTACT  # it was empty
    (tmp_path / "file").write_text("mine")
    for place in (tmp_path / "there", tmp_path / "file", data):
        with pytest.raises(ConfigError, match="nothing is ever overwritten"):
            restore(tmp_path / "to", place)


def test_a_folder_with_something_else_is_no_backup(data: Path, tmp_path: Path) -> None:
    (tmp_path / "to").mkdir()
    (tmp_path / "to" / "thesis.tex").write_text("")
    with pytest.raises(ConfigError, match=r"not empty and no backup: thesis\.tex"):
        one_pass(data, tmp_path / "to")
    with pytest.raises(ConfigError, match="this is no backup"):
        restore(tmp_path / "to", tmp_path / "back")


def test_another_directory_is_not_backed_up_over_the_first(data: Path, tmp_path: Path) -> None:
    one_pass(data, tmp_path / "to")
    other = make_plate(tmp_path / "other", wells=("A01",), n_z=8, side=64)
    with pytest.raises(ConfigError, match="another data directory was backed up here"):
        one_pass(other, tmp_path / "to")
    assert restore(tmp_path / "to", tmp_path / "back").exit_code == INTACT


def test_two_backups_into_one_folder_are_refused(data: Path, tmp_path: Path) -> None:
    with backup_folder(tmp_path / "to"):
        refused: list[str] = []

        def second() -> None:
            try:
                one_pass(data, tmp_path / "to")
            except ConfigError as error:
                refused.append(error.what)

        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert refused == ["another spheroidd makes a backup into this folder"]


@pytest.mark.parametrize("at", ["99", "tomorrow", "1999-01-01", "1e400"])
def test_a_moment_that_is_not_there_is_refused(data: Path, tmp_path: Path, at: str) -> None:
    one_pass(data, tmp_path / "to")
    with pytest.raises(ConfigError, match=r"there is no moment|is no time"):
        restore(tmp_path / "to", tmp_path / "back", at)


def test_a_stack_that_grows_is_in_the_backup_with_its_ring(tmp_path: Path) -> None:
    """Part of a stack is acknowledged and lies in the ring; brought back, nothing of it is missing."""
    data, plan, events = tmp_path / "data", plan_of("A01", n_z=12, side=64), list[Event]()
    store = ZarrStackStore(data, MAP, events.append, ring_slots=32)
    store.open(plan)
    for number, index in enumerate(list(plan.indices())[:6]):
        store.append(Frame(plan.key, index, np.full((64, 64), number, np.uint16), 1.0, {}))
    store.close()
    with Catalog.create_or_open(data) as catalog:
        catalog.register_plate(MAP, "{}")
        catalog.expect(plan)
        catalog.set_stack_state(plan.key, StackState.ACQUIRING)
        for event in events:
            if isinstance(event, SliceDurable):
                catalog.acknowledge(event, 2.0)
    assert one_pass(data, tmp_path / "to").exit_code == INTACT
    back = restore(tmp_path / "to", tmp_path / "back")
    assert (back.report.slices, back.damaged) == (6, ())
    assert {finding.kind for finding in back.report.findings} == {Kind.WAITING}
    shutil.copytree(tmp_path / "back", tmp_path / "without")
    shutil.rmtree(tmp_path / "without" / "P1.ring")
    assert {finding.kind for finding in verify(tmp_path / "without").findings} == {Kind.MISSING_SHARD}
    again = ZarrStackStore(tmp_path / "back", MAP, lambda event: None, ring_slots=32)
    assert len(again.open(plan)) == 6
    for number, index in enumerate(list(plan.indices())[6:]):
        again.append(Frame(plan.key, index, np.full((64, 64), 6 + number, np.uint16), 1.0, {}))
    again.seal(plan.key)
    again.close()
    assert verify(tmp_path / "back").findings == ()


def test_the_commands_say_what_they_did(data: Path, tmp_path: Path) -> None:
    made = spheroidd("backup", str(data), "--to", str(tmp_path / "to"))
    assert made.returncode == INTACT, made.stderr
    assert "moment 1 of " in made.stdout
    assert "as it was written" in spheroidd("restore", str(tmp_path / "to"), "--list").stdout
    back = spheroidd("restore", str(tmp_path / "to"), "--to", str(tmp_path / "back"))
    assert back.returncode == INTACT, back.stderr
    assert "Everything is as it was written." in back.stdout


def test_a_disk_that_fails_at_the_source_is_told_and_the_rest_is_copied(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy, struck = backing_up.copy_file, damage.shard(data)

    def failing(source: Path, target: Path, **named: object):
        if source == struck:
            raise backing_up.SourceUnreadableError(OSError(5, "Input/output error"), source)
        return copy(source, target, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(backing_up, "copy_file", failing)
    done = one_pass(data, tmp_path / "to")
    assert done.exit_code == DAMAGED
    assert {finding.kind for finding in done.findings} == {Kind.UNREADABLE, Kind.MISSING_SHARD}
    assert done.moment.files == len(contents(data))  # the catalog's is one more, the one that fails one less
    monkeypatch.setattr(backing_up, "copy_file", copy)
    assert one_pass(data, tmp_path / "to").exit_code == INTACT
    assert (tmp_path / "to" / NAME).is_file()


def test_what_was_brought_back_says_so_in_its_trail(data: Path, tmp_path: Path) -> None:
    one_pass(data, tmp_path / "to")
    done = restore(tmp_path / "to", tmp_path / "back")
    assert done.unrecorded == ""
    with Catalog.read_only(tmp_path / "back") as catalog:
        (event,) = catalog.query("SELECT * FROM audit WHERE action = 'restored'")
        assert event["plate"] == "P1"
        said = json.loads(event["new_json"])
    assert (said["moment"], said["damaged"], said["findings"]) == (1, [], 0)
    assert said["backup"] == str(tmp_path / "to")
    assert verify(tmp_path / "back").findings == ()


def test_a_catalog_that_is_damaged_is_brought_back_as_it_is(data: Path, tmp_path: Path) -> None:
    damage.edited_result(data)
    one_pass(data, tmp_path / "to")
    done = restore(tmp_path / "to", tmp_path / "back")
    assert "catalog.sqlite is damaged, and is left as it is" in done.unrecorded
    with Catalog.read_only(tmp_path / "back") as catalog:
        assert catalog.query("SELECT * FROM audit WHERE action = 'restored'") == []


@pytest.mark.parametrize(
    ("state", "said"),
    [("running", ["the daemon died, and all that it left is in the backup"]), ("idle", ["the daemon died,"])],
)
def test_a_backup_that_follows_a_daemon_that_is_dead_ends(data: Path, state: str, said: list[str]) -> None:
    with Catalog.create_or_open(data) as catalog:
        catalog.set_run_state(RunState("1", 1, state, 0.0, 0.0))
    told: list[str] = []
    assert list(followed(data, 3600.0, told.append)) == [0]
    assert [words[: len(said[0])] for words in told] == said


def test_what_a_daemon_writes_before_it_ends_amid_a_round_is_no_damage(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed, at_work = backing_up.files_to_copy, ExitStack()
    at_work.enter_context(acquire_lock(data))

    def after_its_last_row(*given: Any) -> Any:
        if is_locked(data):  # the round has copied the catalog
            with Catalog.create_or_open(data) as catalog:
                score(data, catalog, plan_of("A01", n_z=8, side=64), seed=50)
            at_work.close()
        return listed(*given)

    monkeypatch.setattr(backing_up, "files_to_copy", after_its_last_row)
    monkeypatch.setattr(backing_up, "PAUSE_S", 0.0)
    assert one_pass(data, tmp_path / "to").findings == ()


def test_a_backup_that_follows_waits_for_a_daemon_and_ends_with_it(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "LOOK_S", 0.01)
    with Catalog.create_or_open(data) as catalog:
        catalog.set_run_state(RunState("1", 1, "stopped", 0.0, 0.0))
    told: list[str] = []
    passes = followed(data, 0.05, told.append)
    assert [next(passes), next(passes)] == [0, 1]
    assert told == ["no daemon runs: what the next one does is backed up too; Ctrl-C ends this"]
    with acquire_lock(data):
        next(passes)
    assert len(list(passes)) == 1
    assert told[1:] == ["the daemon has ended, and all of it is in the backup"]


@pytest.mark.parametrize(("age_s", "runs"), [(0.0, True), (60.0, False)], ids=["alive", "dead"])
def test_a_lock_that_may_not_be_tried_is_no_reason_to_follow_for_ever(
    data: Path, monkeypatch: pytest.MonkeyPatch, age_s: float, runs: bool
) -> None:
    monkeypatch.setattr(following, "is_locked", lambda data_dir: None)
    with Catalog.create_or_open(data) as catalog:
        catalog.set_run_state(RunState("1", 1, "running", 0.0, time.time() - age_s))
    assert following._daemon(data) == (runs, not runs)
