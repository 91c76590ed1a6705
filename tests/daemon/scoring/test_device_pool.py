"""Several devices in one machine, a worker each: here two that are the processor, one of which is killed."""

import time
from pathlib import Path

import psutil
import pytest
import torch

from spheroidd.daemon.scoring.device_pool import named_devices
from spheroidd.protocols.errors import ModelError
from tests.faults.plate_runs import kill, ledger, start, write_config
from tests.warm_spawn import is_spawned


def workers_of(pid: int) -> list[psutil.Process]:
    """The processes that score: those of the daemon's that run niced."""
    found = psutil.Process(pid).children(recursive=True)
    return [one for one in found if one.is_running() and is_spawned(one) and one.nice() > 0]


def test_devices_are_named_by_their_numbers() -> None:
    assert named_devices([0, 2, "cpu"]) == ("cuda:0", "cuda:2", "cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="here is a GPU")
def test_all_devices_of_a_machine_without_one_are_refused_in_words() -> None:
    with pytest.raises(ModelError, match="no GPU"):
        named_devices("all")


@pytest.mark.skipif(not psutil.POSIX, reason="workers are known by their nice value")
def test_two_workers_score_one_plate_and_one_that_is_killed_costs_no_row(tmp_path: Path, undisturbed: Path) -> None:
    config = write_config(tmp_path, devices=["cpu", "cpu"])
    process = start(config)
    try:
        until_s = time.monotonic() + 120
        while time.monotonic() < until_s and not (
            any(state == "scoring" for state, _ in ledger(config).states.values()) and len(workers_of(process.pid)) == 2
        ):
            time.sleep(0.05)
        killed = workers_of(process.pid)
        assert len(killed) == 2, "each device has a process"
        killed[0].kill()
        assert process.wait(180) == 0
    finally:
        kill(process)
    assert ledger(config).states == ledger(undisturbed).states
    assert ledger(config).results == ledger(undisturbed).results
