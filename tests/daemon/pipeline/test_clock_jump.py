"""The computer's clock is set anew in the middle of a plate: the daemon goes on showing signs of life."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from spheroidd.acquisition.channel import Channel
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.pipeline import main_loop as pipeline
from spheroidd.daemon.pipeline.run_context import RunContext
from spheroidd.daemon.pipeline.throughput import Throughput


class Desk:
    """A scoring scheduler with nothing to score."""

    source_finished = True
    relations_due = False

    def lock_when_ready(self) -> None: ...
    def record_relations(self, budget_s: float) -> None: ...
    def record_exclusions(self, budget_s: float) -> tuple[str, ...]:
        return ()

    def related_without(self, excluded: object) -> None: ...
    def drop_raw(self) -> None: ...


@pytest.mark.parametrize("jump_s", [-3600.0, -1.5, 0.0, 3600.0])
def test_heartbeats_go_on_when_the_clock_jumps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump_s: float) -> None:
    clock = SimpleNamespace(wall_s=1.7e9, steady_s=100.0)
    given = SimpleNamespace(time=lambda: clock.wall_s, monotonic=lambda: clock.steady_s)
    monkeypatch.setattr(pipeline, "time", given)
    with Catalog.create_or_open(tmp_path) as catalog:
        events: Channel[Any] = Channel(capacity=1)
        nobody = cast(Any, None)
        run = pipeline.PlateRun(
            catalog, cast(Any, Desk()), nobody, events, Throughput(0, 0), lambda: None, None, RunContext()
        )
        beats = []
        for passed_s, jumps_s in ((0.0, 0.0), (0.5, 0.0), (0.6, jump_s), (0.5, 0.0), (0.6, 0.0)):
            clock.steady_s += passed_s
            clock.wall_s += passed_s + jumps_s
            run._commit([])
            state = catalog.run_state()
            assert state is not None
            beats.append(state.heartbeat_s - 1.7e9)
    assert beats == pytest.approx([0.0, 0.0, 1.1 + jump_s, 1.1 + jump_s, 2.2 + jump_s])
