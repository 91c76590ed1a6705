"""Pre-processing of a whole screen stack (2 x 200 x 800 x 800) to 0.5 um: `python -m bench.preprocess` prints JSON.

Each way runs in a process of its own, so that its peak memory is its own. Medians of repeats; making the pixels is
not counted.
"""

import json
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np
import psutil
from numpy.typing import NDArray

from spheroidd.inference.preprocessing.resample import MaskResampler
from spheroidd.inference.preprocessing.stream import StreamingPreprocessor
from spheroidd.protocols.results import Limits
from spheroidd.protocols.stack import CHANNELS

REPEATS = 3
N_Z, HEIGHT, WIDTH, BLOCK = 200, 800, 800, 8
MODEL_UM, OWN_UM = (0.5, 0.5, 0.5), (0.5, 0.125, 0.125)
LIMITS = {channel: Limits(110.0, 900.0, 300.0, 180.0) for channel in CHANNELS}
SLAB, HALO = 56, 8


class Stopwatch:
    """CPU and wall seconds of what runs inside `with`."""

    def __init__(self) -> None:
        self.cpu_s = self.wall_s = 0.0

    def __enter__(self) -> None:
        self._began = time.process_time(), time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.cpu_s += time.process_time() - self._began[0]
        self.wall_s += time.perf_counter() - self._began[1]


def peak_mb() -> float:
    """The most memory this process has had, in MB."""
    if sys.platform == "win32":
        return float(psutil.Process().memory_info().peak_wset) / 1e6
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


def blocks() -> dict[str, NDArray[np.uint16]]:
    """One block of each channel; it is fed again and again, because speed does not depend on what is in it."""
    rng = np.random.default_rng(0)
    shape = (BLOCK, HEIGHT, WIDTH)
    return {channel: (100 + rng.gamma(2, 150, shape)).astype(np.uint16) for channel in CHANNELS}


def stream(known: bool) -> dict[str, float]:
    """One stack, planes taken slab by slab: as they become ready with known limits, else after the last slice."""
    pixels, watch, before = blocks(), Stopwatch(), peak_mb()
    with watch:
        limits = LIMITS if known else None
        preprocessor = StreamingPreprocessor(N_Z, HEIGHT, WIDTH, 0.125, 0.5, CHANNELS, MODEL_UM, known_limits=limits)
        done = 0
        for z in range(0, N_Z, BLOCK):
            for channel in CHANNELS:
                preprocessor.feed(channel, z, pixels[channel])
            if known and preprocessor.ready_z >= min(done + SLAB + HALO, N_Z):
                done = take_slab(preprocessor, done, LIMITS)
        preprocessor.finish()
    last = Stopwatch()
    with watch, last:
        limits = LIMITS if known else preprocessor.limits()
        while done < N_Z:
            done = take_slab(preprocessor, done, limits)
    figures = {"cpu_s": watch.cpu_s, "wall_s": watch.wall_s, "after_last_slice_s": last.wall_s}
    return figures | {"memory_mb": peak_mb() - before}


def take_slab(preprocessor: StreamingPreprocessor, done: int, limits: dict[str, Limits]) -> int:
    """One slab with its halo; what came before the next one's halo is let go."""
    stop = min(done + SLAB, N_Z)
    preprocessor.volume(max(done - HALO, 0), min(stop + HALO, N_Z), limits)
    preprocessor.discard(max(stop - HALO, 0))
    return stop


def masks() -> dict[str, float]:
    """Both masks of a stack back to its own sampling, half of the volume being cells."""
    rng = np.random.default_rng(0)
    blobs = np.kron(rng.random((10, 10, 10)), np.ones((20, 20, 20))).astype(np.float32)
    watch, before = Stopwatch(), peak_mb()
    with watch:
        resampler = MaskResampler(blobs.shape, MODEL_UM, (N_Z, HEIGHT, WIDTH), OWN_UM)
        for z in range(0, len(blobs), SLAB):
            for _ in resampler.feed(z, blobs[z : z + SLAB], blobs[z : z + SLAB]):
                pass
        for _ in resampler.finish():
            pass
    return {"cpu_s": watch.cpu_s, "wall_s": watch.wall_s, "memory_mb": peak_mb() - before}


WAYS: dict[str, Callable[[], dict[str, float]]] = {
    "known_limits": partial(stream, True),
    "stack_limits": partial(stream, False),
    "masks_back": masks,
}


def run(name: str, repeats: int) -> dict[str, float]:
    """A way's medians, after one round that compiles; its memory is what the first round added to the process."""
    work = WAYS[name]
    memory_mb = work()["memory_mb"]
    rounds = [work() for _ in range(repeats)]
    figures = {key: statistics.median(one[key] for one in rounds) for key in rounds[0]} | {"memory_mb": memory_mb}
    return {key: float(f"{value:.4g}") for key, value in figures.items()} | {"peak_process_mb": round(peak_mb())}


def measure(repeats: int = REPEATS) -> dict[str, dict[str, float]]:
    result = {}
    for name in WAYS:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            result[name] = pool.submit(run, name, repeats).result()
    for name in ("known_limits", "stack_limits"):
        result[name]["mvoxel_per_cpu_s"] = round(2 * N_Z * HEIGHT * WIDTH / result[name]["cpu_s"] / 1e6, 1)
    return result


if __name__ == "__main__":
    print(json.dumps({"preprocess": measure()}, indent=2))
