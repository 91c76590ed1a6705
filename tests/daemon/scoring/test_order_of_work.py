"""Which stack a worker gets next, and what a death costs: with one worker, with two, with one of two killed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from spheroidd.daemon.catalog.rows import StackState
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.scoring.messages import ScoreJob
from spheroidd.daemon.scoring.pool import ScoringPool, WorkerLost, WorkerReady
from spheroidd.daemon.scoring.scheduler import ScoringScheduler, ScoringSettings
from spheroidd.inference.viability.regressor import ViabilityRegressor
from spheroidd.protocols.events import SliceDurable
from spheroidd.protocols.faults import FaultCode
from spheroidd.protocols.results import Normalisation
from spheroidd.protocols.stack import StackKey
from spheroidd.protocols.well import WellId
from tests.daemon.report import plates

GROWING, *STORED = (StackKey("P1", WellId(0, column)) for column in range(4))


class Pool:
    """Two devices that never answer."""

    follows_growing = True

    def __init__(self, ahead: int = 0) -> None:
        self.ahead = ahead
        self.keys: list[StackKey] = []

    def submit(self, job: ScoreJob) -> None:
        self.keys.append(job.key)


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    """One stack that grows and three that are stored."""
    treatments = {key.well: plates.UNTREATED if n == 1 else plates.KILLED for n, key in enumerate([GROWING, *STORED])}
    with Catalog.create_or_open(tmp_path) as catalog:
        catalog.register_plate(plates.plate_map("P1", treatments), '{"inference":{}}')
        for key in (GROWING, *STORED):
            plan = plates.plan_of(key, n_z=2, side=8)
            catalog.expect(plan)
            catalog.set_stack_state(key, StackState.ACQUIRING)
            for number, index in enumerate(plan.indices() if key in STORED else ()):
                catalog.acknowledge(SliceDurable(key, index, number, 1.0), 1.0)
            if key in STORED:
                catalog.set_stack_state(key, StackState.STORED)
        yield catalog


def scheduler_of(catalog: Catalog, n_workers: int) -> ScoringScheduler:
    settings = ScoringSettings(plates.MODEL, Normalisation.STACK, None, tolerance=0.0, max_attempts=3)
    scheduler = ScoringScheduler(catalog, catalog.plate_map("P1"), settings, ViabilityRegressor.load())
    for number in range(n_workers):
        scheduler.joined(WorkerReady(number, plates.MODEL, number))
    return scheduler


@pytest.mark.parametrize(
    ("n_workers", "expected"),
    [(1, STORED[:1]), (2, [GROWING, STORED[0]]), (3, [GROWING, *STORED[:2]]), (4, [GROWING, *STORED])],
)
def test_the_growing_stack_comes_first_where_a_second_worker_scores_what_is_stored(
    catalog: Catalog, n_workers: int, expected: list[StackKey]
) -> None:
    pool = Pool()
    scheduler_of(catalog, n_workers).dispatch(cast(ScoringPool, cast(Any, pool)))
    assert pool.keys == expected


@pytest.mark.parametrize(("n_workers", "expected"), [(0, []), (1, STORED[:2]), (2, [GROWING, *STORED[:2]])])
def test_a_pool_gets_jobs_ahead_once_one_of_its_workers_is_ready(
    catalog: Catalog, n_workers: int, expected: list[StackKey]
) -> None:
    pool, scheduler = Pool(ahead=1), scheduler_of(catalog, n_workers)
    scheduler.dispatch(cast(ScoringPool, cast(Any, pool)))
    scheduler.dispatch(cast(ScoringPool, cast(Any, pool)))
    assert pool.keys == expected


def test_a_worker_that_dies_costs_its_stack_one_attempt_and_no_other_stack_any(catalog: Catalog) -> None:
    pool, scheduler = Pool(), scheduler_of(catalog, 2)
    scheduler.dispatch(cast(ScoringPool, cast(Any, pool)))
    died = WorkerLost(GROWING, -9, worker=0)
    scheduler.record_lost(died)
    scheduler.lost(died)
    scheduler.dispatch(cast(ScoringPool, cast(Any, pool)))
    assert pool.keys == [GROWING, STORED[0]], "the other worker goes on, and there is none for a third stack"
    scheduler.joined(WorkerReady(9, plates.MODEL, 0))
    scheduler.dispatch(cast(ScoringPool, cast(Any, pool)))
    assert pool.keys == [GROWING, STORED[0], GROWING]
    (fault,) = catalog.faults()
    assert (fault.code, fault.key) == (FaultCode.WORKER_DIED, str(GROWING))
    assert "attempt 1" in fault.what
    assert catalog.stack(GROWING).state is StackState.ACQUIRING
