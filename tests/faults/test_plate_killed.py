"""kill -9 at random moments of a running plate: nothing acknowledged is lost, every well ends with one row."""

import random
import time
from pathlib import Path

import pytest

from tests.faults.plate_runs import kill, ledger, start, unreadable, write_config

PARTS, KILLS = 6, 5
USUAL = 2  # of the parts; `pytest -m slow` runs the others, and `make test-faults` kills two hundred times
SOURCE = {"pace": "real", "slice_period_s": 0.16}  # two seconds a stack: a kill hits each stage of it


@pytest.mark.parametrize(
    "part", [pytest.param(part, marks=() if part < USUAL else pytest.mark.slow) for part in range(PARTS)]
)
def test_thirty_kills_change_nothing(tmp_path: Path, undisturbed: Path, part: int) -> None:
    """In six parts of five, so that they can run beside each other."""
    chance = random.Random(20261122 + part)
    truth = ledger(undisturbed)
    kills, plate = 0, 0
    while kills < KILLS:
        plate += 1
        config = write_config(tmp_path / f"plate{plate}", source=SOURCE)
        seen: dict[tuple[str, int, str, int], int] = {}
        while True:
            process = start(config)
            # Short lives hit the start and the acquisition, long ones the scoring and the last commits.
            life_s = chance.choice([chance.uniform(0.3, 3.0), chance.uniform(3.0, 12.0)])
            deadline = time.monotonic() + (life_s if kills < KILLS else 120)
            while process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.01)
            if process.poll() is not None:
                break
            kill(process)
            kills += 1
            now = ledger(config).slices
            assert seen.items() <= now.items(), "an acknowledged slice left the ledger"
            seen = now
        assert process.returncode == 0, config.with_suffix(".log").read_text()
        end = ledger(config)
        assert seen.items() <= end.slices.items()
        assert end.slices == truth.slices
        assert unreadable(config, end.slices) == []
        assert {well: len(rows) for well, rows in end.results.items()} == dict.fromkeys(truth.results, 1)
        assert end.results == truth.results
