"""A screen of 1,000 stacks on a cluster of 4 nodes with 2 GPUs: how long, and what a fault costs.

    python -m bench.cluster            the simulation: 20 seeds a case, a table, a figure with --figure
    python -m bench.cluster --ray      also the real Ray pool, on made-up GPUs of this computer, 100 times as fast

The simulation has what decides: a stack's time on a GPU with its spread and stragglers, shared storage, controls that
are measured before the plate's limits are known, workers' start, nodes that are lost and come back, one writer. The
real pool has none of the network's arithmetic: its workers sleep. It shows what the driver, Ray and SQLite cost.
"""

import argparse
import itertools
import random
import sqlite3
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import simpy

from bench.cluster_worker import FASTER, NoLedger, SleepingWorker, Slept, seconds_of

STACK_MB, STACKS, CONTROLS = 512, 1000, 80
PIECES = 8  # a stack is read and scored piece by piece
NODES, GPUS = 4, 2
START_S, DETECTION_S, LIGHT_S, ROW_S = 30.0, 15.0, 1.5, 0.02
SEEDS = 20
MAX_HOURS, MIN_EFFICIENCY, MAX_WAIT_MS = 0.5, 0.7, 5.0


@dataclass(frozen=True, slots=True)
class Case:
    """What a cluster is like. Times in seconds; `losses` are (node, when, how long it is away)."""

    name: str
    stack_s: float = 8.0
    cv: float = 0.25
    stragglers: tuple[float, float] = (0.01, 5.0)  # share, and how much longer
    storage_mb_s: float = 2000.0
    nodes: int = NODES
    gpus: int = GPUS
    losses: tuple[tuple[int, float, float], ...] = ()
    must_be_quick: bool = True


_FOR_GOOD = 1e9
CASES = (
    Case("8 GPUs"),
    Case("a node lost at 5 min, back after 10", losses=((1, 300, 600),)),
    Case("a node lost at 5 min for good", losses=((1, 300, _FOR_GOOD),)),
    Case(
        "every node lost each half hour for 5 min",
        losses=tuple((node, 300.0 + 400 * node + 1800 * turn, 300) for turn in range(4) for node in range(NODES)),
    ),
    Case("5 % stragglers, ten times as long", stragglers=(0.05, 10.0)),
    Case("storage of 0.25 GB/s", storage_mb_s=250, must_be_quick=False),
    Case("storage of 0.1 GB/s (1 GbE)", storage_mb_s=100, must_be_quick=False),
    Case("one GPU", nodes=1, gpus=1, must_be_quick=False),
    Case("115 s a stack", stack_s=115, must_be_quick=False),
)


class Screen:
    """One simulated run."""

    def __init__(self, case: Case, seed: int) -> None:
        self.case, self.random, self.env = case, random.Random(seed), simpy.Environment()
        self.storage = simpy.Resource(self.env, capacity=1)
        self.writer = simpy.Resource(self.env, capacity=1)
        self.todo: simpy.Store = simpy.Store(self.env)
        self.rows: Counter[int] = Counter()
        self.lights: set[int] = set()
        self.attempts = 0
        self.done = self.env.event()
        for stack in range(CONTROLS):
            self.todo.put((stack, True))
        self.workers = [[self.env.process(self._gpu()) for _ in range(case.gpus)] for _ in range(case.nodes)]
        for loss in case.losses:
            self.env.process(self._lose(*loss))

    def run(self) -> float:
        """Hours until the last row."""
        self.env.run(until=self.done)
        return float(self.env.now) / 3600

    def _gpu(self) -> Iterator[Any]:
        asked = job = None
        try:
            yield self.env.timeout(START_S)
            while True:
                asked = self.todo.get()
                job = yield asked
                asked = None
                yield from self._score(*job)
                job = None
        except simpy.Interrupt:
            if asked is not None:
                asked.cancel()
                if asked.triggered:
                    job = asked.value
            if job is not None:
                yield self.env.timeout(DETECTION_S)
                yield self.todo.put(job)

    def _score(self, stack: int, light_only: bool) -> Iterator[Any]:
        self.attempts += 1
        seconds = LIGHT_S if light_only else self._service_s()
        for _ in range(PIECES):
            with self.storage.request() as turn:
                yield turn
                yield self.env.timeout(STACK_MB / PIECES / self.case.storage_mb_s)
            yield self.env.timeout(seconds / PIECES)
        if light_only:
            self.lights.add(stack)
            if len(self.lights) == CONTROLS:
                for number in range(STACKS):
                    self.todo.put((number, False))
            return
        self.env.process(self._write(stack))

    def _write(self, stack: int) -> Iterator[Any]:
        with self.writer.request() as turn:
            yield turn
            yield self.env.timeout(ROW_S)
        self.rows[stack] += 1
        if len(self.rows) == STACKS and not self.done.triggered:
            self.done.succeed()

    def _service_s(self) -> float:
        share, longer = self.case.stragglers
        seconds = max(0.2 * self.case.stack_s, self.random.gauss(self.case.stack_s, self.case.cv * self.case.stack_s))
        return seconds * (longer if self.random.random() < share else 1.0)

    def _lose(self, node: int, when_s: float, away_s: float) -> Iterator[Any]:
        yield self.env.timeout(when_s)
        for worker in self.workers[node]:
            if worker.is_alive:
                worker.interrupt()
        yield self.env.timeout(away_s)
        self.workers[node] = [self.env.process(self._gpu()) for _ in range(self.case.gpus)]


def simulate() -> tuple[dict[str, list[float]], list[str]]:
    """Hours of every case and seed, and what is not as it must be."""
    hours: dict[str, list[float]] = {}
    wrong = []
    for case in CASES:
        screens = [Screen(case, seed) for seed in range(SEEDS)]
        hours[case.name] = [screen.run() for screen in screens]
        whole = all(set(screen.rows) == set(range(STACKS)) and max(screen.rows.values()) == 1 for screen in screens)
        median, worst = statistics.median(hours[case.name]), max(hours[case.name])
        attempts = max(screen.attempts for screen in screens) - CONTROLS
        rows = STACKS if whole else "NOT ALL"
        print(f"{case.name:42} {median:5.2f} / {worst:4.2f} h   {attempts} attempts   {rows} rows")
        if not whole:
            wrong.append(f"{case.name}: not {STACKS} rows, each once")
        if case.must_be_quick and median > MAX_HOURS:
            wrong.append(f"{case.name}: {median:.2f} h, not {MAX_HOURS}")
    return hours, wrong


def draw(hours: dict[str, list[float]], path: Path) -> None:
    """A line for each case: its seeds, its median, and the study's 4 hours."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "spheroidd"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 3.6), layout="constrained")
    for line, (_, values) in enumerate(reversed(hours.items())):
        axes.plot(values, [line] * len(values), "o", color="#4477aa", alpha=0.4, markersize=4)
        axes.plot(statistics.median(values), line, "|", color="black", markersize=12)
    axes.axvline(4.0, color="#aa3377", linestyle="--", linewidth=1)
    axes.set_yticks(range(len(hours)), list(reversed(hours)))
    axes.set_xscale("log")
    axes.set_xlabel("hours for 1,000 stacks (simulated; dashed: the study's 4 h)")
    axes.set_xticks([0.25, 0.5, 1, 2, 4], ["0.25", "0.5", "1", "2", "4"])
    figure.savefig(path, metadata={"Date": None})


# -- the real pool ---------------------------------------------------------------------------------------------------


def waits_ms(slept: list[Slept]) -> list[float]:
    """How long each worker waited from the end of a stack to the beginning of its next."""
    by_worker: dict[int, list[Slept]] = {}
    for one in sorted(slept, key=lambda one: one.began_s):
        by_worker.setdefault(one.pid, []).append(one)
    return [
        1000 * (after.began_s - before.ended_s)
        for own in by_worker.values()
        for before, after in itertools.pairwise(own)
    ]


def with_ray(lose_a_node: bool) -> tuple[float, float, int, list[float]]:
    """Seconds of the real pool, the ideal, the attempts, and how long workers waited for each stack in ms; an error
    where a row is missing or was written twice.
    """
    from ray.cluster_utils import Cluster

    from spheroidd.daemon.scoring.messages import ScoreJob
    from spheroidd.daemon.scoring.pool import WorkerBroken, WorkerLost, WorkerReady
    from spheroidd.daemon.scoring.ray_pool import ClusterSettings, RayPool
    from spheroidd.daemon.scoring.worker import WorkerSettings
    from spheroidd.protocols.results import Normalisation
    from spheroidd.protocols.stack import StackKey
    from spheroidd.protocols.well import WellId

    notice = {"health_check_period_ms": 500, "health_check_timeout_ms": 1000, "health_check_failure_threshold": 3}
    head = {"num_cpus": 0, "num_gpus": 0, "include_dashboard": False, "_system_config": notice}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    nodes = [cluster.add_node(num_cpus=2, num_gpus=GPUS) for _ in range(NODES)]
    events: SimpleQueue[Any] = SimpleQueue()
    settings = WorkerSettings(Path(), None, "cpu", 1)
    pool = RayPool(settings, ClusterSettings(cluster.address), NoLedger(), events.put, kind=SleepingWorker)
    keys = [StackKey("screen", WellId(n // 48, n % 48)) for n in range(STACKS)]
    jobs = {key: ScoreJob(key, Normalisation.STACK, None, 0.0) for key in keys}
    left, running, ready, attempts = list(reversed(keys)), set[StackKey](), set[int](), 0
    slept: list[Slept] = []
    ideal_s = sum(map(seconds_of, keys)) / (NODES * GPUS)
    pool.start()
    try:
        with tempfile.TemporaryDirectory() as folder, closing(sqlite3.connect(Path(folder) / "rows.sqlite")) as rows:
            rows.execute("PRAGMA journal_mode = WAL")
            rows.execute("CREATE TABLE results (well TEXT PRIMARY KEY, writes INTEGER) STRICT")
            began_s = None
            for number in itertools.count():
                done = rows.execute("SELECT COUNT(*) FROM results").fetchone()[0] if number % 50 == 0 else 0
                if done == STACKS or (not left and not running):
                    break
                match events.get(timeout=300):
                    case WorkerReady(worker=worker):
                        ready.add(worker)
                    case WorkerBroken(error):
                        raise error
                    case WorkerLost(key=key, worker=worker):
                        ready.discard(worker)
                        if key is not None:
                            running.discard(key)
                            left.append(key)
                    case Slept(key=key) as one:
                        slept.append(one)
                        running.discard(key)
                        with rows:
                            rows.execute(
                                "INSERT INTO results VALUES (?, 1) ON CONFLICT DO UPDATE SET writes = writes + 1",
                                (str(key),),
                            )
                if began_s is None and len(ready) < NODES * GPUS:
                    continue  # the clock starts when all are there
                began_s = began_s or time.monotonic()
                if lose_a_node and nodes and len(left) < STACKS * 0.7:
                    cluster.remove_node(nodes.pop(), allow_graceful=False)
                    lose_a_node = False
                while left and len(running) < len(ready) + pool.ahead:
                    key = left.pop()
                    running.add(key)
                    attempts += 1
                    pool.submit(jobs[key])
            seconds = time.monotonic() - (began_s or 0.0)
            counts = dict(rows.execute("SELECT writes, COUNT(*) FROM results GROUP BY writes").fetchall())
    finally:
        pool.stop()
        cluster.shutdown()
    if counts != {1: STACKS}:
        raise AssertionError(f"rows by the times they were written: {counts}")
    return seconds, ideal_s, attempts, waits_ms(slept)


def main(arguments: list[str] | None = None) -> int:
    """The table, and 1 where a bound is not kept."""
    parser = argparse.ArgumentParser(prog="bench.cluster", description=__doc__.splitlines()[0])
    parser.add_argument("--ray", action="store_true", help="also the real Ray pool, compressed 100 times")
    parser.add_argument("--figure", type=Path, metavar="SVG", help="draw the simulation")
    given = parser.parse_args(arguments)
    print(f"{STACKS} stacks of {STACK_MB} MB, {CONTROLS} of them controls; median / worst of {SEEDS} seeds (simulated)")
    hours, wrong = simulate()
    if given.figure:
        draw(hours, given.figure)
    for loses in (False, True) if given.ray else ():
        seconds, ideal_s, attempts, waits = with_ray(loses)
        word = "a node lost on the way" if loses else "nothing lost"
        median_ms, p95_ms = statistics.median(waits), statistics.quantiles(waits, n=20)[-1]
        print(
            f"Ray, {NODES} x {GPUS} made-up GPUs, {FASTER:g} times as fast, {word}: {seconds:.1f} s, "
            f"ideal {ideal_s:.1f} s (efficiency {ideal_s / seconds:.2f}); a worker waits {median_ms:.1f} ms for its "
            f"next stack (median; 95 %: {p95_ms:.1f}), "
            f"{attempts} attempts, {STACKS} rows, none double"
        )
        if not loses and ideal_s / seconds < MIN_EFFICIENCY:
            wrong.append(f"the Ray pool's efficiency is {ideal_s / seconds:.2f}, not {MIN_EFFICIENCY}")
        if not loses and median_ms > MAX_WAIT_MS:
            wrong.append(f"a worker waits {median_ms:.1f} ms for its next stack, not {MAX_WAIT_MS:g}")
    for what in wrong:
        print(f"NOT KEPT: {what}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
