"""What watching a folder of 100,000 files costs. `python -m bench.watch`.

The tree is one of Matrix Screener's: 250 wells, 400 planes each, small files. Measured are the first look, a full
rescan, one look at the idle tree, a minute of it, and how long a new slice takes from its closing to its frame.
"""

import itertools
import json
import os
import threading
import time
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import psutil
import tifffile

from spheroidd.acquisition.sources.watched_folder.arrivals import FolderWatch
from spheroidd.acquisition.sources.watched_folder.settings import MatrixScreenerSettings
from spheroidd.acquisition.sources.watched_folder.source import MatrixScreenerSource
from spheroidd.daemon.system.clock import SystemClock
from spheroidd.protocols.plate import PlateMap, PlateWell, Treatment, WellRole
from spheroidd.protocols.well import WellId

N_ROWS, N_COLUMNS, N_Z = 10, 25, 200
IDLE_S = 60.0
N_LATENCIES = 50
WELLS = [WellId(row, column) for row in range(N_ROWS) for column in range(N_COLUMNS)]
PLATE = PlateMap("bench", tuple(PlateWell(well, Treatment(WellRole.SAMPLE, "C", 1.0)) for well in WELLS))


def slice_path(root: Path, well: WellId, channel: int, z: int) -> Path:
    place = f"U{well.column:02d}--V{well.row:02d}"
    field = root / "experiment--bench" / "slide--S00" / f"chamber--{place}" / "field--X00--Y00"
    return field / f"image--L0000--S00--{place}--J08--E00--O00--X00--Y00--T0000--Z{z:02d}--C{channel:02d}.ome.tif"


def write_tree(root: Path) -> int:
    """Empty files: what a scan costs does not depend on what is in them."""
    count = 0
    for well in WELLS:
        slice_path(root, well, 0, 0).parent.mkdir(parents=True)
        for channel, z in itertools.product(range(2), range(N_Z)):
            os.close(os.open(slice_path(root, well, channel, z), os.O_CREAT))
            count += 1
    return count


def look(watch: FolderWatch) -> dict[str, float]:
    """Seconds of one look, now: on the clock, and of a processor."""
    watch._due_s = 0.0
    began, began_cpu = time.perf_counter(), time.thread_time()
    watch.look()
    took_s, cpu_s = time.perf_counter() - began, time.thread_time() - began_cpu
    return {"s": round(took_s, 4), "cpu_s": round(cpu_s, 4)}


def scans(root: Path, file_system: Any) -> dict[str, Any]:
    settings = MatrixScreenerSettings(folder=root, file_system=file_system, n_z=N_Z, pixel_um=1, z_step_um=1)
    watch = FolderWatch(settings, PLATE, SystemClock())
    figures: dict[str, Any] = {"first_look": look(watch)}
    time.sleep(2.1)  # files come to rest
    figures["look_that_finds_all_ready"] = look(watch)
    time.sleep(2.6)  # and folders' times can be believed
    look(watch)
    figures["idle_look"] = look(watch)
    if watch._scan is not None:
        watch._scan._listed_s = float("-inf")
    figures["full_rescan"] = look(watch)
    process = psutil.Process()
    before, began = process.cpu_times(), time.monotonic()
    while time.monotonic() - began < IDLE_S:
        watch.look()
        watch.wait(lambda: False)
    after = process.cpu_times()
    used_s = after.user + after.system - before.user - before.system
    figures["idle_cpu_s_per_minute"] = round(used_s * 60 / IDLE_S, 3)
    watch.stop()
    return figures


def latency(root: Path, file_system: Any) -> dict[str, float]:
    """Milliseconds from a slice's closing to its frame, 800 x 800 pixels, one slice every 0.2 s."""
    well = WellId(0, 0)
    plate = PlateMap("bench", (PlateWell(well, Treatment(WellRole.SAMPLE, "C", 1.0)),))
    settings = MatrixScreenerSettings(
        folder=root, file_system=file_system, channels={"488": 0}, n_z=N_LATENCIES, pixel_um=1, z_step_um=1
    )
    closed: dict[int, float] = {}
    image = np.random.default_rng(0).integers(0, 4096, (800, 800), np.uint16)

    def write() -> None:
        for z in range(N_LATENCIES):
            path = slice_path(root, well, 0, z)
            path.parent.mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(path, image, metadata=None)
            closed[z] = time.perf_counter()
            time.sleep(0.2)

    writer = threading.Thread(target=write)
    taken = []
    with closing(MatrixScreenerSource(settings, plate, "bench", SystemClock())) as source:
        writer.start()
        plan = next(iter(source.plans()))
        for frame in source.frames(plan, set(plan.indices())):
            taken.append(time.perf_counter() - closed[frame.index.z])
    writer.join()
    late_ms = 1000 * np.array(taken)
    return {
        "median_ms": round(float(np.median(late_ms)), 1),
        "p95_ms": round(float(np.percentile(late_ms, 95)), 1),
        "max_ms": round(float(late_ms.max()), 1),
    }


def measure() -> dict[str, Any]:
    with TemporaryDirectory() as folder:
        root = Path(folder)
        figures: dict[str, Any] = {"files": write_tree(root / "tree")}
        for file_system in ("local", "network"):
            figures[file_system] = scans(root / "tree", file_system)
            (root / file_system).mkdir()
            figures[file_system]["slice_to_frame"] = latency(root / file_system, file_system)
    figures["watch_rss_mb"] = round(psutil.Process().memory_info().rss / 1e6, 1)
    return figures


if __name__ == "__main__":
    print(json.dumps({"watch": measure()}, indent=2))
