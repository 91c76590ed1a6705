"""What a plate's size costs: each cost on 6 to 1536 wells (a million slices), and the exponent with which it grows.

    python -m bench.growth [WELLS ...]          three minutes for 6 96 384 1536

The plates are rows of a catalog (`growth_plate`), all but the last wells scored. Measured are how long after
`spheroidd run` the first new slice is acknowledged; main's turns while 8 results and 80 slices a second come in; what
a person looks at meanwhile; and how much memory the commands that read the whole ledger take. A part that takes longer
than its time is cut off: its figure is then how far it came.
"""

import io
import itertools
import json
import math
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from rich.console import Console

from bench.growth_plate import N_Z, config_of, scored, write
from spheroidd.acquisition.channel import Channel
from spheroidd.daemon.catalog.kept_standings import KeptStandings
from spheroidd.daemon.catalog.rows import StackState
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.config.model import Config
from spheroidd.daemon.config.named_models import chosen_regressor
from spheroidd.daemon.monitoring.failed_logins import FailedLogins
from spheroidd.daemon.monitoring.status import Status, look, to_json, to_screen
from spheroidd.daemon.pipeline.live_table import Progress
from spheroidd.daemon.pipeline.main_loop import PlateRun
from spheroidd.daemon.pipeline.run_context import RunContext
from spheroidd.daemon.pipeline.throughput import Throughput
from spheroidd.daemon.scoring.messages import Scored, ScoreJob
from spheroidd.daemon.scoring.pool import WorkerReady
from spheroidd.daemon.scoring.scheduler import ScoringScheduler, ScoringSettings
from spheroidd.daemon.service.messages import status_message
from spheroidd.daemon.system.garbage import settle_memory
from spheroidd.daemon.web.kept_plate import KeptPlate
from spheroidd.daemon.web.metrics import Metrics
from spheroidd.daemon.web.plate_view import plate_view
from spheroidd.inference.network.model_card import read_card
from spheroidd.protocols.events import SliceDurable
from spheroidd.protocols.plate import PlateMap
from spheroidd.protocols.results import Normalisation
from spheroidd.protocols.stack import StackKey, StackPlan

WELLS = (6, 96, 384, 1536)
N_LEFT = 2  # wells that are still to be imaged
RESULTS, RESULTS_PER_S = 160, 8.0
SLICES_PER_TURN, TURN_EVERY_S = 3, 0.03
CUT_S = 60.0  # no part on one plate takes longer
COMMAND = (sys.executable, "-c", "from spheroidd.daemon.cli import main; main()")
PEAK = """
import sys, atexit
from pathlib import Path
def peak_mb():  # of this program alone; getrusage would tell of who started it
    (line,) = [one for one in Path('/proc/self/status').read_text().splitlines() if one.startswith('VmHWM')]
    return int(line.split()[1]) / 1024
atexit.register(lambda: print(f'PEAK {peak_mb():.0f}', file=sys.stderr))
from spheroidd.daemon.cli import main
main()
"""
LIMITS = {
    "first_slice_s": 3.0,
    "turn_p99_ms": 20.0,
    "turn_longest_ms": 60.0,
    "cpu_ms_per_row": 20.0,
    "frames_mb": 200.0,
    "quality_mb": 200.0,
    "report_mb": 200.0,
}


class _AtOnce:
    """A worker that has its answer ready: what is measured is main."""

    follows_growing = True
    ahead = 0

    def __init__(self) -> None:
        self.jobs: list[ScoreJob] = []

    def submit(self, job: ScoreJob) -> None:
        self.jobs.append(job)


def first_slice(config: Config) -> dict[str, float]:
    """Seconds from starting `spheroidd run` to the first slice of the wells that are left, and the processor time that
    main took until then: on a busy machine that is the figure that means something.
    """
    path, began_s = config.data.dir.parent / "plate.toml", time.time()
    with (path.with_suffix(".log")).open("w") as log:
        process = subprocess.Popen([*COMMAND, "run", str(path), "--plain"], stdout=log, stderr=subprocess.STDOUT)
    sql = "SELECT min(acked_s) FROM slices WHERE plate = 'P1' AND well = ? AND acked_s > ?"
    connection = sqlite3.connect(f"file:{config.data.dir / 'catalog.sqlite'}?mode=ro", uri=True, timeout=30)
    wells = [row[0] for row in connection.execute("SELECT well FROM stacks WHERE state = 'queued'")]
    try:
        while time.time() < began_s + CUT_S and process.poll() is None:
            found = [row[0] for well in wells for row in connection.execute(sql, (well, began_s)) if row[0] is not None]
            if found:
                used = psutil.Process(process.pid).cpu_times()
                return {"first_slice_s": float(min(found) - began_s), "first_slice_cpu_s": used.user + used.system}
            time.sleep(0.02)
        return dict.fromkeys(("first_slice_s", "first_slice_cpu_s"), math.inf)
    finally:
        connection.close()
        process.kill()
        process.wait()


def turns(config: Config, plate_map: PlateMap) -> dict[str, float]:
    """Main's turns, milliseconds, while results come in at their pace; and its processor time for each row."""
    with Catalog.create_or_open(config.data.dir) as catalog:
        keys = [StackKey("P1", entry.well) for entry in plate_map.imaged()]
        waiting, growing = keys[1 : 1 + min(RESULTS, len(keys) // 2)], keys[-1]
        _unscore(catalog, waiting)
        settings = ScoringSettings(read_card(None).sha256, Normalisation.PLATE, config.inference.known_limits(), 0.0, 3)
        scheduler = ScoringScheduler(catalog, plate_map, settings, chosen_regressor(config.inference))
        scheduler.source_finished = True
        events: Channel[Any] = Channel(capacity=512)
        pace, worker = Throughput(1, 0, plate="P1"), _AtOnce()
        console = Console(file=io.StringIO())
        progress = Progress(console, catalog, pace, "P1", live=False)
        run = PlateRun(catalog, scheduler, worker, events, pace, progress, None, RunContext())  # type: ignore[arg-type]
        answers = {
            key: scored(catalog.plan(key), plate_map[key.well].treatment.role, np.random.default_rng(n))
            for n, key in enumerate(waiting)
        }
        settle_memory()  # as a run does before its first turn
        with progress:
            began_s = time.thread_time()
            settle(run, scheduler)
            start = {"start_cpu_s": time.thread_time() - began_s}
            events.put(WorkerReady(1, settings.model_sha256))
            return start | _offer(run, worker, events, answers, catalog.plan(growing))


def settle(run: PlateRun, scheduler: ScoringScheduler) -> None:
    """What main does by itself after a start, until it has nothing left to do: once a run, however many rows follow."""
    until_s = time.monotonic() + CUT_S
    run._turn()
    while getattr(scheduler, "relations_due", False) and time.monotonic() < until_s:
        run._turn()


def _offer(
    run: PlateRun, worker: _AtOnce, events: Channel[Any], answers: dict[StackKey, Scored], plan: StackPlan
) -> dict[str, float]:
    """Turn after turn, each with something to do, so that none waits."""
    began_s, used_s, took_s, n = time.monotonic(), [], [], 0
    slices = itertools.cycle(plan.indices())
    while time.monotonic() < began_s + CUT_S and (answers or not run._scheduler.idle()):
        if worker.jobs and time.monotonic() >= began_s + n / RESULTS_PER_S:
            events.put(answers.pop(worker.jobs.pop(0).key))
            n += 1
        for index in itertools.islice(slices, SLICES_PER_TURN):
            events.put(SliceDurable(plan.key, index, 1, 0.0))
        before, before_cpu = time.perf_counter(), time.thread_time()
        run._turn()
        took_s.append(time.perf_counter() - before)
        used_s.append(time.thread_time() - before_cpu)
        time.sleep(TURN_EVERY_S)
    cpu_s = sum(used_s)
    took_s.sort()
    used_s.sort()
    return {
        "rows": n,
        "turns": len(took_s),
        "turn_median_ms": 1e3 * took_s[len(took_s) // 2],
        "turn_p99_ms": 1e3 * took_s[int(0.99 * (len(took_s) - 1))],
        "turn_longest_ms": 1e3 * took_s[-1],
        "turn_cpu_p99_ms": 1e3 * used_s[int(0.99 * (len(used_s) - 1))],
        "turn_cpu_longest_ms": 1e3 * used_s[-1],
        "cpu_ms_per_row": 1e3 * cpu_s / max(n, 1),
    }


def _unscore(catalog: Catalog, keys: Sequence[StackKey]) -> None:
    """These wells wait for the model."""
    catalog.connection.execute("PRAGMA foreign_keys = OFF")  # their history stays, and names rows that are gone
    with catalog.transaction():
        for key in keys:
            where = (key.plate, str(key.well), key.stack)
            for table in ("mask_evidence", "results"):
                catalog.connection.execute(f"DELETE FROM {table} WHERE plate = ? AND well = ? AND stack = ?", where)
            catalog.set_stack_state(key, StackState.STORED)
    catalog.connection.execute("PRAGMA foreign_keys = ON")


def looks(config: Config) -> dict[str, float]:
    """Milliseconds of processor time of what is asked while a plate runs, the median of three."""
    metrics, kept = Metrics(config.data.dir, FailedLogins()), KeptStandings()
    page = KeptPlate(KeptStandings(), "P1")
    with Catalog.read_only(config.data.dir) as catalog:
        look(config.data.dir, catalog, None, kept)  # a stream looks again and again
        page.view(catalog, None)  # and so does who looks at the page
        asked: dict[str, Callable[[], object]] = {
            "status_ms": lambda: _print(look(config.data.dir, catalog, figures=False)),
            "status_json_ms": lambda: to_json(look(config.data.dir, catalog)),  # every figure of who is doubtful
            "stream_ms": lambda: status_message(look(config.data.dir, catalog, None, kept, figures=False)),
            "page_first_ms": lambda: plate_view(catalog, "P1", None),
            "page_ms": lambda: page.view(catalog, None),
            "metrics_ms": lambda: metrics.text(catalog),
        }
        return {name: 1e3 * sorted(_cpu_s(one) for _ in range(3))[1] for name, one in asked.items()}


def _print(seen: Status) -> None:
    Console(file=io.StringIO(), width=140).print(to_screen(seen))


def _cpu_s(act: Callable[[], object]) -> float:
    began_s = time.thread_time()
    act()
    return time.thread_time() - began_s


def memory(config: Config) -> dict[str, float]:
    """Peak MB of the commands that read the ledger, and their seconds."""
    data, found = str(config.data.dir), {}
    report = str(config.data.dir.parent / "report.html")
    for name, words in (
        ("frames", ["frames", data]),
        ("quality", ["quality", data, "--json"]),
        ("report", ["report", data, "-o", report]),
    ):
        began_s = time.perf_counter()
        command = [sys.executable, "-c", PEAK, *words]
        done = subprocess.run(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        told = [line for line in done.stderr.splitlines() if line.startswith("PEAK ")]
        if not told:
            raise RuntimeError(f"spheroidd {name} failed: {done.stderr[-2000:]}")
        found[f"{name}_mb"] = float(told[-1].split()[1])
        found[f"{name}_s"] = time.perf_counter() - began_s
    return found


def exponent(sizes: Sequence[int], costs: Sequence[float]) -> float | None:
    """The slope of log cost over log size, by least squares; None where a cost is not known."""
    if len(sizes) < 2 or not all(cost > 0 and math.isfinite(cost) for cost in costs):
        return None
    return float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])


def plate(n_wells: int, folder: Path) -> dict[str, float]:
    """All costs on one plate."""
    config = config_of(folder, n_wells)
    began_s = time.perf_counter()
    plate_map = write(config, N_LEFT)
    found = {"write_s": time.perf_counter() - began_s}
    found |= looks(config) | memory(config)
    found |= turns(config, plate_map)
    return found | first_slice(config)


def main() -> None:
    sizes = [int(word) for word in sys.argv[1:]] or list(WELLS)
    found: dict[int, dict[str, float]] = {}
    for n_wells in sizes:
        with tempfile.TemporaryDirectory(prefix="spheroidd-growth-") as place:
            found[n_wells] = plate(n_wells, Path(place) / "plate")
        print(n_wells, {name: round(value, 3) for name, value in found[n_wells].items()}, file=sys.stderr, flush=True)
    names = [name for name in found[sizes[0]] if name not in ("rows", "turns", "write_s")]
    costs = {
        name: {
            **{str(n): _plain(found[n][name]) for n in sizes},
            "exponent": _plain(exponent(sizes, [found[n][name] for n in sizes])),
            **({"limit": LIMITS[name], "kept": found[sizes[-1]][name] <= LIMITS[name]} if name in LIMITS else {}),
        }
        for name in names
    }
    print(json.dumps({"bench": "growth", "slices_per_well": 2 * N_Z, "cut_s": CUT_S, "costs": costs}, indent=1))


def _plain(value: float | None) -> float | str | None:
    if value is None or math.isfinite(value):
        return None if value is None else round(value, 3)
    return f"more than {CUT_S:g} s"


if __name__ == "__main__":
    main()
