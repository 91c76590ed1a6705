"""The durable store against other writers and the disk: `python -m bench.writer [FOLDER]` prints JSON.

512 MB, plane by plane, each run in a process of its own, until every byte is on the disk: a final fsync of each file
and folder counts for all. The runs take turns, so that a busy spell falls on all of them; `to_raw` is the median of
the ratios within each round. Memory is the peak of the process above what it had when all was imported and the images
were there.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from bench.places import OUT
from bench.writer_peers import HEIGHT, N_PLANES, SHARD_Z, WIDTH, WRITERS, Ours, Plane

ROUNDS = 3
IMAGES = "images.npy"
PLANES_PER_S = 100.0  # the pace of the latency run
TOTAL_MB = N_PLANES * HEIGHT * WIDTH * 2 / 1e6


def images(n: int = SHARD_Z, seed: int = 0) -> NDArray[np.uint16]:
    """Planes like those of a reconstructing SIM camera: blurred cells, haze, shot noise, gain, offset, read noise."""
    from scipy import ndimage  # not in the processes whose memory is measured

    rng = np.random.default_rng(seed)
    cells = np.zeros((n, HEIGHT, WIDTH), np.float32)
    where = rng.integers(0, (n, HEIGHT, WIDTH), (300, 3)).T
    cells[tuple(where)] = rng.lognormal(0, 0.4, 300)
    bodies = ndimage.gaussian_filter(cells, (4, 25, 25))
    haze = ndimage.gaussian_filter(bodies, (0, 80, 80))
    electrons = rng.poisson(5 + 120 * bodies / bodies.max() + 20 * haze / haze.max())
    pixels = 100 + 2.17 * electrons + rng.normal(0, 3.5, electrons.shape)
    return pixels.clip(0, 65535).round().astype(np.uint16)


def make_durable(root: Path) -> None:
    """fsync every file and folder below a folder: what the other writers leave to their users."""
    for folder, _, names in os.walk(root):
        for path in (*(Path(folder) / name for name in names), Path(folder)):
            fd = os.open(path, os.O_RDONLY)
            os.fsync(fd)
            os.close(fd)


def run_one(name: str, root: Path) -> dict[str, float]:
    """Write the stack once with one writer, here and now; MB/s, CPU seconds, memory in MB, append times in ms."""
    planes = np.load(root / IMAGES)
    with _one_run(root) as folder:
        writer = WRITERS[name](folder)  # imports happen here, before the clock starts
        rss_before = psutil.Process().memory_info().rss
        cpu_before, start = time.process_time(), time.perf_counter()
        appended = [_timed_append(writer, z, planes[z % len(planes)]) for z in range(N_PLANES)]
        writer.finish()
        if not name.startswith(("raw", "ours")):
            make_durable(folder)
        seconds, cpu_s = time.perf_counter() - start, time.process_time() - cpu_before
        peak = _peak_memory()
        stored = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and path.suffix != ".ring")
    return {
        "mb_per_s": TOTAL_MB / seconds,
        "cpu_s": cpu_s,
        "rss_above_start_mb": (peak - rss_before) / 1e6,
        "rss_process_mb": peak / 1e6,
        "compression": TOTAL_MB * 1e6 / stored,
        **_percentiles("append_ms", appended),
    }


def run_paced(root: Path) -> dict[str, float]:
    """Append at the pace and take the time until each plane is reported durable, the pyramid being written besides.

    `disk_ms` is what the disk itself needs for it, before ours: a write and a sync into a file that is there.
    `disk_4kb_ms` is the same for 4 kB instead of a plane: what no writer on this disk can be quicker than.
    """
    planes = np.load(root / IMAGES)
    appended, durable = np.zeros((2, N_PLANES))

    def told(z: int) -> None:
        durable[z] = time.perf_counter()

    with _one_run(root) as folder:
        small = _disk_alone(folder / "file", planes[:, :4], 4096)
        disk = _disk_alone(folder / "file", planes, planes[0].nbytes)
        writer = Ours(folder, told, with_pyramid=True)
        start = time.perf_counter()
        for z in range(N_PLANES):
            _wait_for(start, z)
            appended[z] = time.perf_counter()
            writer.append(z, planes[z % len(planes)])
        writer.finish()
    times = {**_percentiles("durable_ms", list(durable - appended)), **_percentiles("disk_ms", disk)}
    return {"planes_per_s": PLANES_PER_S, **times, **_percentiles("disk_4kb_ms", small)}


def _disk_alone(path: Path, planes: Plane, n_bytes: int) -> list[float]:
    """Seconds of a write and a sync of so many bytes, at the pace, into a file that is there already."""
    pixels = [plane.tobytes()[:n_bytes] for plane in planes]
    path.write_bytes(bytes(len(pixels) * n_bytes))
    fd = os.open(path, os.O_WRONLY)
    os.fsync(fd)
    seconds, start = [], time.perf_counter()
    for z in range(N_PLANES):
        _wait_for(start, z)
        begun = time.perf_counter()
        os.pwrite(fd, pixels[z % len(pixels)], z % len(pixels) * n_bytes)
        os.fdatasync(fd)
        seconds.append(time.perf_counter() - begun)
    os.close(fd)
    return seconds


def _wait_for(start_s: float, z: int) -> None:
    time.sleep(max(0.0, start_s + z / PLANES_PER_S - time.perf_counter()))


def _peak_memory() -> int:
    """The most memory this process ever held, in bytes; ru_maxrss would count that of the process that started it."""
    status = Path("/proc/self/status").read_text()
    kb = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    return 1024 * int(kb)


def _timed_append(writer: Any, z: int, plane: Plane) -> float:
    start = time.perf_counter()
    writer.append(z, plane)
    return time.perf_counter() - start


def _percentiles(name: str, seconds: list[float]) -> dict[str, float]:
    p50, p99, worst = np.percentile(seconds, [50, 99, 100]) * 1e3
    return {f"{name}_p50": p50, f"{name}_p99": p99, f"{name}_max": worst}


@contextmanager
def _one_run(root: Path) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(dir=root))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def _in_a_process(name: str, root: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "bench.writer", str(root), name]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{name}: {done.stderr[-2000:]}")
    result: dict[str, float] = json.loads(done.stdout)
    return result


def measure(root: Path) -> dict[str, Any]:
    """All writers, in turn, and their medians."""
    names = [*WRITERS, "paced"]
    rounds = [{name: _in_a_process(name, root) for name in names} for _ in range(ROUNDS)]
    medians = {name: {key: _median(r[name][key] for r in rounds) for key in rounds[0][name]} for name in names}
    ours = [r["ours_durable_per_plane"]["mb_per_s"] for r in rounds]
    ratios = {
        f"to_{name}": _median(mine / r[name]["mb_per_s"] for mine, r in zip(ours, rounds, strict=True))
        for name in WRITERS
        if not name.startswith("ours")
    }
    return {"rounds": ROUNDS, "mb": TOTAL_MB, "ratios": ratios, "medians": medians}


def _median(values: Any) -> float:
    return float(f"{statistics.median(values):.4g}")


def main() -> None:
    """Run all writers, or the one that is named."""
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else OUT
    root.mkdir(parents=True, exist_ok=True)
    if not (root / IMAGES).exists():
        np.save(root / IMAGES, images())
    match sys.argv[2:]:
        case []:
            result: dict[str, Any] = {"writer": measure(root)}
        case ["paced"]:
            result = run_paced(root)
        case [name]:
            result = run_one(name, root)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
