"""A plate with something going wrong, in real processes: what a person finds afterwards."""

import contextlib
import json
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from spheroidd.daemon.catalog.rows import StackState
from spheroidd.daemon.catalog.writer import Catalog
from tests.faults.disks import NoDiskError, small_disk
from tests.faults.plate_runs import (
    N_Z,
    Ledger,
    kill,
    ledger,
    run,
    signal_group,
    spheroidd,
    start,
    unreadable,
    write_config,
)
from tests.warm_spawn import is_spawned

SLOW = {"pace": "real", "slice_period_s": 0.08}


def wait_for(condition: object, timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it never arrived to that"
        time.sleep(0.05)


def log_of(config: Path) -> str:
    return config.with_suffix(".log").read_text()


def workers(pid: int) -> list[psutil.Process]:
    """The daemon's inference workers (not the helper process that multiprocessing keeps beside them)."""
    found = []
    for child in psutil.Process(pid).children():
        with contextlib.suppress(psutil.NoSuchProcess):  # it ended while we looked, or just had
            if is_spawned(child):
                found.append(child)
    return found


def settled(config: Path, still_s: float = 2.0) -> Ledger:
    """What the ledger holds once nothing has come for that long."""
    last, since = ledger(config), time.monotonic()
    deadline = since + 60.0
    while time.monotonic() - since < still_s:
        assert time.monotonic() < deadline, "slices go on coming"
        time.sleep(0.1)
        now = ledger(config)
        if now.slices != last.slices:
            last, since = now, time.monotonic()
    return last


def in_hand(config: Path) -> str:
    """What the worker does with which stack at this moment; "" where it has none in hand."""
    database = config.parent / "data" / "catalog.sqlite"
    if not database.exists():
        return ""
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    try:
        row = connection.execute("SELECT worker FROM run_state").fetchone()
    except sqlite3.OperationalError:  # not made yet
        return ""
    finally:
        connection.close()
    return str(row[0]) if row and row[0].startswith(("scoring", "measuring")) else ""


def test_a_killed_worker_costs_no_slice_and_no_row(tmp_path: Path, undisturbed: Path) -> None:
    config = write_config(tmp_path / "killed", source=SLOW)
    process = start(config)
    try:
        killed: set[int] = set()
        while len(killed) < 2:
            wait_for(lambda: any(worker.pid not in killed for worker in workers(process.pid)))
            wait_for(lambda: in_hand(config), 120)  # it has loaded its model and scores
            for worker in workers(process.pid):
                worker.kill()
                killed.add(worker.pid)
            wait_for(lambda: not in_hand(config))
        assert process.wait(120) == 0, log_of(config)
    finally:
        kill(process)
    assert ledger(config).results == ledger(undisturbed).results
    assert ledger(config).slices == ledger(undisturbed).slices


@pytest.mark.skipif(os.name != "posix", reason="a process is stopped by a signal")
def test_a_worker_that_hangs_costs_no_slice_and_no_row(tmp_path: Path, undisturbed: Path) -> None:
    config = write_config(tmp_path, source=SLOW, patience_s=10.0)
    process = start(config)
    try:
        wait_for(lambda: in_hand(config), 120)
        (worker,) = workers(process.pid)
        worker.suspend()
        assert process.wait(120) == 0, log_of(config)
    finally:
        kill(process)
    assert ledger(config).results == ledger(undisturbed).results
    assert ledger(config).slices == ledger(undisturbed).slices
    with sqlite3.connect(tmp_path / "data" / "catalog.sqlite") as connection:
        told = [what for (what,) in connection.execute("SELECT what FROM faults")]
    assert any("gave no sign of life for 10 s and was killed" in what for what in told), told


@pytest.mark.timeout(400)
def test_of_a_killed_worker_nothing_is_said_but_that_it_died(tmp_path: Path) -> None:
    config = write_config(tmp_path, source=SLOW)
    process = start(config)
    try:
        wait_for(lambda: in_hand(config), 120)
        first = in_hand(config)
        wait_for(lambda: in_hand(config) not in ("", first), 120)  # it has read a stack to its end, and has another one
        beside = psutil.Process(process.pid).children(recursive=True)
        for worker in workers(process.pid):
            worker.kill()
        assert process.wait(120) == 0, log_of(config)
    finally:
        kill(process)
    _, alive = psutil.wait_procs(beside, timeout=20)  # what Python keeps beside a daemon speaks after its end
    assert alive == []
    printed = log_of(config)
    for word in ("resource_tracker", "leaked", "Warning", "Traceback"):
        assert word not in printed, printed


def test_a_worker_does_not_outlive_its_daemon(tmp_path: Path) -> None:
    config = write_config(tmp_path, source=SLOW)
    process = start(config)
    try:
        wait_for(lambda: workers(process.pid))
        orphans = workers(process.pid)
        wait_for(lambda: in_hand(config), 120)
    finally:
        kill(process)
    _, alive = psutil.wait_procs(orphans, timeout=20)
    assert alive == []


def test_a_stack_that_kills_every_worker_fails_alone(tmp_path: Path) -> None:
    config = write_config(tmp_path, source=SLOW, max_attempts=1)
    process = start(config)
    try:
        wait_for(lambda: in_hand(config))
        for worker in workers(process.pid):
            worker.kill()
        assert process.wait(120) == 1, log_of(config)
    finally:
        kill(process)
    with Catalog.read_only(tmp_path / "data") as catalog:
        states = catalog.stacks("P1")
    (failed,) = [row for row in states if row.state is StackState.FAILED]
    assert "worker died" in (failed.reason or "")
    assert "spheroidd score" in (failed.todo or "")
    assert len(ledger(config).results) == len(states) - 1
    assert spheroidd("score", str(tmp_path / "data")).returncode == 0
    assert len(ledger(config).results) == len(states)


def test_a_second_daemon_is_refused(tmp_path: Path) -> None:
    config = write_config(tmp_path, source={"pace": "real", "slice_period_s": 0.5})
    process = start(config)
    try:
        wait_for((tmp_path / "data" / "catalog.sqlite").exists)
        second = spheroidd("run", str(config))
        assert second.returncode == 75
        assert f"pid {process.pid}" in second.stderr
        assert "use another directory" in second.stderr
        assert process.poll() is None
    finally:
        kill(process)


def test_an_incomplete_stack_gets_a_reason_and_no_viability(tmp_path: Path) -> None:
    """One stack that ends early and one that lacks a slice, on a plate whose other wells are well."""
    short, dropped = {"kind": "short", "z": 7}, {"kind": "drop", "z": 5, "channel": "561"}
    config = write_config(tmp_path, source={"faults": [{"well": "B01", **short}, {"well": "B02", **dropped}]})
    assert run(config) == 1, log_of(config)
    rows = {row["well"]: row for row in json.loads(spheroidd("results", str(tmp_path / "data"), "--json").stdout)}
    for well, missing in (("B01", "channel 488 z 7"), ("B02", "channel 561 z 5")):
        bad = rows.pop(well)
        assert bad["status"] == "incomplete"
        assert missing in bad["reason"]
        assert bad["n_slices_acked"] < bad["n_slices_expected"] == 2 * N_Z
        assert all(bad[name] is None for name in ("live_um3", "n_live", "v_count", "v_control", "v_score"))
        assert well in log_of(config)
    assert len(rows) == 3
    assert {row["status"] for row in rows.values()} == {"final"}
    mended = write_config(tmp_path)
    assert run(mended) == 0, log_of(config)
    assert {len(rows) for rows in ledger(mended).results.values()} == {1}


def test_a_failing_instrument_is_asked_again_for_what_is_missing(tmp_path: Path, undisturbed: Path) -> None:
    config = write_config(tmp_path, source={"faults": [{"well": "A02", "kind": "lost", "z": 9, "times": 1}]})
    assert run(config) == 0, log_of(config)
    assert ledger(config).results == ledger(undisturbed).results


def test_a_lost_instrument_ends_the_run_and_keeps_what_it_gave(tmp_path: Path) -> None:
    config = write_config(tmp_path, source={"faults": [{"well": "A02", "kind": "lost", "z": 9}]}, max_attempts=2)
    assert run(config) == 3, log_of(config)
    assert "set to fail at channel 488 z 9" in log_of(config)
    assert sum(key[0] == "A02" for key in ledger(config).slices) == 18
    assert run(write_config(tmp_path)) == 0


@pytest.mark.skipif(os.name != "posix", reason="Ctrl-C is sent to a process group")
def test_ctrl_c_keeps_what_is_in_flight_and_a_second_run_goes_on(tmp_path: Path) -> None:
    config = write_config(tmp_path, source=SLOW)
    process = start(config)
    try:
        wait_for(lambda: len(ledger(config).slices) > 20)
        signal_group(process)
        assert process.wait(60) in (1, 130), log_of(config)
    finally:
        kill(process)
    assert "slices are kept" in log_of(config)
    assert set(ledger(config).ends.values()) == {None, "stopped"}
    kept = ledger(config).slices
    assert unreadable(config, kept) == []
    assert run(config) == 0, log_of(config)
    assert kept.items() <= ledger(config).slices.items()
    assert set(ledger(config).ends.values()) == {None}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MB of its own."""
    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(small_disk(tmp_path))
        except NoDiskError as reason:
            pytest.skip(str(reason))
        yield folder


def leave_free(folder: Path, n_bytes: int) -> Path:
    """Fill a disk until that much is left."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while (spare := shutil.disk_usage(folder).free - n_bytes) > 0 and file.write(bytes(max(4096, spare // 2))):
            pass
    return ballast


@pytest.mark.parametrize(("min_free_gb", "left"), [(0.004, 2 << 20), (0.0, 0)], ids=["low", "not a byte"])
def test_a_full_disk_takes_no_slice_and_the_run_goes_on_when_there_is_space(
    disk: Path, undisturbed: Path, min_free_gb: float, left: int
) -> None:
    config = write_config(disk, source=SLOW, min_free_gb=min_free_gb)
    process = start(config)
    try:
        wait_for(lambda: len(ledger(config).slices) > 10)
        ballast = leave_free(disk, left)
        wait_for(lambda: json.loads(spheroidd("status", str(disk / "data"), "--json").stdout)["faults"])
        stuck = settled(config)  # what was on its way has arrived
        time.sleep(3.0)
        assert process.poll() is None, log_of(config)
        assert ledger(config).slices == stuck.slices, "slices were acknowledged on a full disk"
        assert len(stuck.slices) < 2 * N_Z * len(stuck.states)
        status = spheroidd("status", str(disk / "data"))
        assert status.returncode == 1
        assert "the run goes on" in " ".join(status.stdout.split())
        ballast.unlink()
        assert process.wait(120) == 0, log_of(config)
    finally:
        kill(process)
    assert unreadable(config, ledger(config).slices) == []
    assert json.loads(spheroidd("status", str(disk / "data"), "--json").stdout)["faults"] == []
    assert ledger(config).results == ledger(undisturbed).results


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[source]\nkind = 'emulator'\nprest = 'unit'\n", ["line 3", "prest", "preset"]),
        ("[source]\nkind = 'emulater'\n", ["emulater", "'emulator'"]),
        ("[source\n", ["not TOML", "line 1"]),
        ("[source]\nkind = 'emulator'\n[inference]\nmodel = 'nowhere.safetensors'\n", ["nowhere.safetensors"]),
        ("[source]\nkind = 'emulator'\n[plate]\nmap = 'none.csv'\n", ["none.csv"]),
    ],
    ids=["key", "kind", "syntax", "model", "map"],
)
def test_a_bad_configuration_ends_with_2_and_says_what_to_write(tmp_path: Path, text: str, words: list[str]) -> None:
    config = tmp_path / "plate.toml"
    config.write_text(f"{text}")
    done = spheroidd("run", str(config))
    assert done.returncode == 2
    assert all(word in done.stderr for word in words), done.stderr
    assert "Traceback" not in done.stderr
