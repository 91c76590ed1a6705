"""The engine ray on a cluster of several raylets on this computer: `make ray-test`; without Ray nothing of it runs.

An actor, a node and the driver are killed in the middle of a plate. What must be true then: a row for every well, none
twice, every figure as the embedded pool's to the last bit, and an audit trail that verifies.
"""

import contextlib
import hashlib
import os
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest

from spheroidd.acquisition.store.labels import read_label
from spheroidd.daemon.launch.sweep import sweep
from spheroidd.protocols.stack import StackKey
from spheroidd.protocols.well import WellId
from tests.faults.plate_runs import COMMAND, FIGURES, kill, run, spheroidd, write_config

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]
cluster_utils = pytest.importorskip("ray.cluster_utils", reason="Ray is not installed: `make ray-test`")

RAYLETS, GPUS = int(os.environ.get("RAYLETS", "2")), int(os.environ.get("GPUS", "1"))  # GPUs of a raylet; made up
DOSES, MODEL = int(os.environ.get("DOSES", "5")), os.environ.get("MODEL", "default")
WELLS = 3 + DOSES
ROWS_ALL_THERE = (0, 1)  # 1: so small a plate has a well whose images are doubted; how many rows there are is counted
QUICK_TO_NOTICE = {"health_check_period_ms": 500, "health_check_timeout_ms": 1000, "health_check_failure_threshold": 3}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data directory of a plate that the embedded pool scored."""
    config = write_config(tmp_path_factory.mktemp("embedded"), source={"doses": DOSES}, model=MODEL)
    assert run(config) in ROWS_ALL_THERE, config.with_suffix(".log").read_text()
    assert len(figures(config.parent / "data")) == WELLS
    return config.parent / "data"


@pytest.fixture
def cluster() -> Iterator[Any]:
    head = {"num_cpus": 0, "num_gpus": 0, "include_dashboard": False, "_system_config": QUICK_TO_NOTICE}
    made = cluster_utils.Cluster(initialize_head=True, head_node_args=head)
    made.workers = [made.add_node(num_cpus=1, num_gpus=GPUS) for _ in range(RAYLETS)]
    yield made
    made.shutdown()


def figures(data: Path) -> dict[str, tuple[Any, ...]]:
    """Every figure of every row; one well has one."""
    with closing(sqlite3.connect(data / "catalog.sqlite", timeout=30)) as connection:
        found = connection.execute(f"SELECT well, {FIGURES} FROM results ORDER BY well").fetchall()
    assert len({row[0] for row in found}) == len(found)
    return {row[0]: row[1:] for row in found}


def masks(data: Path) -> dict[str, bytes]:
    """A digest of every mask, read back from its file, by stack and name."""
    with closing(sqlite3.connect(data / "catalog.sqlite", timeout=30)) as connection:
        wells = [well for (well,) in connection.execute("SELECT well FROM results")]
    keys = {well: StackKey("P1", WellId.parse(well)) for well in wells}
    return {
        f"{well} {name}": hashlib.sha256(read_label(data, key, name).tobytes()).digest()
        for well, key in keys.items()
        for name in ("live", "dead")
    }


def scored(data: Path) -> list[str]:
    """The stacks whose measurement was taken, as often as it was."""
    lines = [line for path in sorted((data / "logs").glob("*")) for line in path.read_text().splitlines()]
    return [line for line in lines if '"stack-scored"' in line]


def replaying(recorded: Path, folder: Path, cluster: Any, *more: str) -> "subprocess.Popen[str]":
    """`spheroidd replay` with the engine ray, under way; images in a folder of their own, the catalog beside them."""
    options = ["--data", str(folder / "data"), "--images", str(folder / "plates"), "--threads", "1", "--plain"]
    options += ["--model", MODEL, "--engine", "ray", "--ray-address", cluster.address, *more]
    with (folder / "replay.log").open("a") as log:
        return subprocess.Popen([*COMMAND, "replay", str(recorded), *options], stdout=log, stderr=log, text=True)


def until(true: Callable[[], Any], process: "subprocess.Popen[str]", log: Path, patience_s: float = 180) -> Any:
    """Wait for something to become true while the run goes on."""
    end_s = time.monotonic() + patience_s
    while time.monotonic() < end_s:
        if found := true():
            return found
        assert process.poll() is None, log.read_text()
        time.sleep(0.02)
    raise AssertionError(f"nothing in {patience_s:.0f} s: {log.read_text()}")


def actors(at_work: bool) -> list[psutil.Process]:
    """The workers' processes; Ray puts what they do into their names."""
    word = "ray::RayWorker.score" if at_work else "ray::RayWorker"
    return [found for found in psutil.process_iter(["cmdline"]) if word in " ".join(found.info["cmdline"] or ())]


def rows(data: Path) -> int:
    if not (data / "logs").exists():
        return 0
    with contextlib.suppress(sqlite3.OperationalError):  # the catalog is being made
        return len(figures(data))
    return 0


def test_an_actor_and_a_node_that_are_killed_cost_no_row_and_change_no_figure(
    recorded: Path, cluster: Any, tmp_path: Path
) -> None:
    data, log = tmp_path / "data", tmp_path / "replay.log"
    process = replaying(recorded, tmp_path, cluster)
    try:
        (victim, *_) = until(lambda: actors(at_work=True), process, log)
        victim.send_signal(signal.SIGKILL)
        until(lambda: rows(data) >= 2, process, log)
        cluster.remove_node(cluster.workers[-1], allow_graceful=False)
        assert process.wait(240) in ROWS_ALL_THERE, log.read_text()
    finally:
        kill(process)
    assert figures(data) == figures(recorded)
    assert len(figures(data)) == WELLS
    assert masks(data) == masks(recorded)
    sweep(data)  # as the next start does: what a killed worker had begun to write is left until then
    assert list((tmp_path / "plates").glob("*.labels-in-work")) == []
    checked = spheroidd("audit", "verify", str(data))
    assert checked.returncode == 0, checked.stdout
    whole = spheroidd("verify", str(data))
    assert whole.returncode == 0, whole.stdout


def test_a_driver_that_is_killed_leaves_what_is_missing_to_the_next_one(
    recorded: Path, cluster: Any, tmp_path: Path
) -> None:
    """Each stack by its own limits here: the plate's may move, and then what is there is rightly scored once more."""
    data, log = tmp_path / "data", tmp_path / "replay.log"
    embedded = shutil.copytree(recorded, tmp_path / "embedded")
    done = spheroidd("score", str(embedded), "--normalisation", "stack", "--threads", "1")
    assert done.returncode in ROWS_ALL_THERE, done.stdout + done.stderr
    process = replaying(recorded, tmp_path, cluster, "--normalisation", "stack")
    try:
        until(lambda: rows(data) >= 2 and stored(data) == WELLS, process, log)
    finally:
        kill(process)
    before = figures(data)
    assert 2 <= len(before) < WELLS
    told = len(scored(data))
    again = spheroidd("score", str(data), "--missing", "--engine", "ray", "--ray-address", cluster.address)
    assert again.returncode in ROWS_ALL_THERE, again.stdout + again.stderr
    assert figures(data) == figures(embedded)
    assert len(scored(data)) - told == WELLS - len(before)  # the others were not scored once more
    nothing = spheroidd("score", str(data), "--missing", "--engine", "ray", "--ray-address", cluster.address)
    assert nothing.returncode in ROWS_ALL_THERE, nothing.stdout + nothing.stderr
    assert len(scored(data)) - told == WELLS - len(before)
    assert spheroidd("audit", "verify", str(data)).returncode == 0


def stored(data: Path) -> int:
    with closing(sqlite3.connect(data / "catalog.sqlite", timeout=30)) as connection:
        found = connection.execute("SELECT COUNT(*) FROM stacks WHERE state IN ('stored', 'scoring', 'scored')")
        return int(found.fetchone()[0])


def test_a_cluster_that_is_not_there_is_for_later(recorded: Path) -> None:
    refused = spheroidd("score", str(recorded), "--missing", "--engine", "ray", "--ray-address", "127.0.0.1:1")
    assert refused.returncode == 75, refused.stderr
    assert "does not answer" in refused.stderr
