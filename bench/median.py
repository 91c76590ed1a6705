"""The exact 3x3x3 median against scipy's and MONAI's: `python -m bench.median` prints JSON.

Rates are Mvoxel/s, medians of repeats. On one thread they are per CPU second, so that a busy machine disturbs them
less; on two they are per second of wall time. scipy has no threads and is measured once.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import numpy as np
import torch
from monai.transforms.intensity.array import MedianSmooth
from numpy.typing import NDArray
from scipy import ndimage

from spheroidd.inference.preprocessing.median import median3, median_slice

REPEATS = 5
Work = tuple[int, int, Callable[[], object]]  # voxels, threads, what to time
PLANE = (800, 800)


def stack(n_z: int, height: int, width: int) -> NDArray[np.uint16]:
    """Shot noise on a smooth field: what a median is for."""
    rng = np.random.default_rng(0)
    field = ndimage.gaussian_filter(rng.normal(size=(n_z, height, width)), 4)
    pixels: NDArray[np.uint16] = rng.poisson(300 + 200 * (field / field.std()).clip(0)).astype(np.uint16)
    return pixels


def median_rates(works: dict[str, Work], repeats: int) -> dict[str, float]:
    """Mvoxel/s of each; the works take turns, so that a busy spell of the machine falls on all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, (_, threads, work) in works.items():
            torch.set_num_threads(threads)
            clock = time.process_time if threads == 1 else time.perf_counter
            start = clock()
            work()
            seconds[name].append(clock() - start)
    return {name: works[name][0] / statistics.median(spent) / 1e6 for name, spent in seconds.items()}


def ours_by_slice(volume: NDArray[np.uint16]) -> Callable[[], object]:
    """As a stream has it: plane by plane, into a plane that is there already."""
    out = np.empty(PLANE, np.uint16)

    def work() -> None:
        for z in range(len(volume)):
            median_slice(volume[max(z - 1, 0)], volume[z], volume[min(z + 1, len(volume) - 1)], out)

    return work


def measure(repeats: int = REPEATS) -> dict[str, float]:
    volume, crop = stack(32, *PLANE), stack(8, 400, 400)
    smooth, tensor = MedianSmooth(radius=1), torch.from_numpy(crop.astype(np.float32))[None]
    inside = (slice(1, -1),) * 3  # MONAI pads with zeros
    assert np.array_equal(median3(crop), ndimage.median_filter(crop, size=3, mode="nearest"))
    assert np.array_equal(median3(crop)[inside], np.asarray(smooth(tensor))[0][inside])
    threads = torch.get_num_threads()
    works: dict[str, Work] = {
        "ours_1_thread": (volume.size, 1, ours_by_slice(volume)),
        "ours_volume_2_threads": (volume.size, 2, lambda: median3(volume, threads=2)),
        "scipy_1_thread": (crop.size, 1, lambda: ndimage.median_filter(crop, size=3)),
        "monai_1_thread": (crop.size, 1, lambda: smooth(tensor)),
        "monai_2_threads": (crop.size, 2, lambda: smooth(tensor)),
    }
    try:
        result = median_rates(works, repeats)
    finally:
        torch.set_num_threads(threads)
    result["ratio_to_scipy"] = result["ours_1_thread"] / result["scipy_1_thread"]
    result["ratio_to_monai"] = result["ours_1_thread"] / result["monai_1_thread"]
    result["ratio_to_monai_2_threads"] = result["ours_volume_2_threads"] / result["monai_2_threads"]
    result["compile_and_first_slice_cpu_s"] = _first_call_s()
    return {name: float(f"{value:.4g}") for name, value in result.items()}


_FIRST_CALL = """
import time
import numpy as np
from spheroidd.inference.preprocessing.median import median_slice
plane = np.zeros((40, 40), np.uint16)
start = time.process_time()
median_slice(plane, plane, plane)
print(time.process_time() - start)
"""


def _first_call_s() -> float:
    """CPU seconds that a process without numba's cache needs for its first slice."""
    with tempfile.TemporaryDirectory() as empty:
        environment = os.environ | {"NUMBA_CACHE_DIR": empty}
        command = [sys.executable, "-c", _FIRST_CALL]
        return float(subprocess.run(command, env=environment, capture_output=True, check=True, text=True).stdout)


if __name__ == "__main__":
    print(json.dumps({"median": measure()}, indent=2))
