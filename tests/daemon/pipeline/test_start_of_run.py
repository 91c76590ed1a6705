"""What a run's start does not wait for: libraries that only later work needs."""

import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest

from spheroidd.acquisition.channel import Channel
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.config.alarm_settings import AlarmsConfig
from spheroidd.daemon.monitoring import alarm_watch
from spheroidd.daemon.pipeline import main_loop
from spheroidd.daemon.pipeline.main_loop import PlateRun
from spheroidd.daemon.pipeline.run_context import RunContext
from spheroidd.daemon.pipeline.throughput import Throughput
from tests.daemon.pipeline.test_catalog_outage import GOOD, durable, planned
from tests.daemon.pipeline.test_clock_jump import Desk

LATER = {"scipy", "skimage", "numba", "torch", "monai", "sqlite_utils", "pandas"}


class Related(Desk):
    """Counts how often rows were to be related."""

    relations_due = True
    source_finished = False

    def __init__(self) -> None:
        self.times = 0

    def record_relations(self, budget_s: float | None = None) -> None:
        self.times += 1

    def dispatch(self, pool: object) -> None: ...

    def describe(self) -> str:
        return "idle"


class Instrument:
    """Threads that took something."""


def test_a_run_is_put_together_without_what_only_workers_and_rows_need() -> None:
    code = "import sys, spheroidd.daemon.launch.run; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = set(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    )
    assert "spheroidd" in loaded
    assert loaded & LATER == set()


def test_a_configuration_of_the_emulator_is_read_without_what_draws_images() -> None:
    """That is loaded beside the catalog's check, of which a run waits for the database."""
    code = """
import sys
from pathlib import Path
from spheroidd.daemon.config.model import build_config, open_source
from spheroidd.daemon.system.clock import SystemClock
config = build_config({"source": {"kind": "emulator", "preset": "unit"}}, base=Path.cwd())
source = open_source(config, SystemClock())
drawing = {"numba", "scipy", "spheroidd.sim_emulator.scene"}
print(*drawing & set(sys.modules))
source.check()
print(*sorted(drawing & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["", "numba scipy spheroidd.sim_emulator.scene"]


@pytest.mark.parametrize(("large", "expected"), [(0, "LARGE_FIRST_LOOK_S"), (1, "LOOK_S")])
def test_a_large_plate_that_is_taken_up_is_judged_after_its_first_slice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: int, expected: str
) -> None:
    monkeypatch.setattr(alarm_watch, "LARGE_ROWS", large)
    with Catalog.create_or_open(tmp_path) as catalog:
        planned(catalog)
    watch = alarm_watch.AlarmWatch(tmp_path, AlarmsConfig(), dict, lambda: None, dict)
    assert watch._first_look_s() == getattr(alarm_watch, expected)


@pytest.mark.parametrize("comes", [True, False], ids=["after the first slice", "after a while without one"])
def test_rows_are_related_once_the_first_slice_does_not_wait_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, comes: bool
) -> None:
    monkeypatch.setattr(main_loop, "FIRST_SLICE_S", 3600.0 if comes else 0.0)
    with Catalog.create_or_open(tmp_path) as catalog:
        planned(catalog)
        desk, events = Related(), Channel[Any](capacity=8)
        pace, nobody, threads = Throughput(8, 0, plate="P1"), cast(Any, None), cast(Any, Instrument())
        run = PlateRun(catalog, cast(Any, desk), nobody, events, pace, lambda: None, threads, RunContext())
        if comes:
            run._turn()
            assert desk.times == 0
            events.put(durable(GOOD, 0))
            run._turn()
            assert len(catalog.acknowledged(GOOD)) == 1
        assert desk.times == 0 or not comes
        run._turn()
        assert desk.times > 0


def test_rows_do_not_wait_for_a_slice_where_none_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main_loop, "FIRST_SLICE_S", 3600.0)
    with Catalog.create_or_open(tmp_path) as catalog:
        planned(catalog)
        desk, pace = Related(), Throughput(8, 0, plate="P1")
        desk.source_finished = True
        nobody, threads = cast(Any, None), cast(Any, Instrument())
        events = Channel[Any](capacity=8)
        PlateRun(catalog, cast(Any, desk), nobody, events, pace, lambda: None, threads, RunContext())._turn()
        assert desk.times > 0
