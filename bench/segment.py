"""How fast the network segments a screen-size volume on this machine: `python -m bench.segment`. Prints JSON.

Each figure comes from a process of its own, so that threads, caches and peak memory are its own too.
"""

import json
import subprocess
import sys
import time

import psutil

FIELD_UM = 100.0  # the screen preset: 800 x 0.125 um, 200 x 0.5 um
THREADS = (1, 2)
REPEATS = 3


def main() -> None:
    model = sys.argv[1] if len(sys.argv) > 1 else "default"
    print(json.dumps([_in_own_process(model, threads) for threads in THREADS], indent=2))


def _in_own_process(model: str, threads: int) -> object:
    command = [sys.executable, "-m", "bench.segment", "--measure", model, str(threads)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def measure(model: str, threads: int) -> dict[str, float | str]:
    """Segment a volume of random cells-like blobs, of which no tile can be skipped; medians of wall and CPU time."""
    import numpy as np

    from spheroidd.inference.segmentation.segmenter import load_segmenter
    from spheroidd.inference.segmentation.streaming import StreamingSegmentation
    from spheroidd.protocols.results import Limits
    from spheroidd.protocols.stack import CHANNELS

    segmenter = load_segmenter(model, "cpu", threads)
    shape = tuple(round(FIELD_UM / step) for step in segmenter.spacing_um)
    volume = np.random.default_rng(0).normal(0, 1, (2, *shape)).astype(np.float32)
    limits = dict.fromkeys(CHANNELS, Limits(0.0, 1.0, 0.0, 1.0))
    base_mb = peak_mb()
    walls, cpus = [], []
    for _ in range(REPEATS):
        wall, cpu = time.perf_counter(), time.process_time()
        seen = 0
        for slab in StreamingSegmentation(_Ready(volume), segmenter, limits=limits).finish():
            seen += slab.prediction.live.size
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    wall, cpu = sorted(walls)[REPEATS // 2], sorted(cpus)[REPEATS // 2]
    return {
        "bench": "segment",
        "model": segmenter.card.name,
        "spacing_um": str(segmenter.spacing_um),
        "shape": str(shape),
        "threads": threads,
        "wall_s": round(wall, 3),
        "cpu_s": round(cpu, 3),
        "mvoxel_per_s": round(seen / wall / 1e6, 3),
        "rss_mb": round(peak_mb()),
        "rss_mb_before": round(base_mb),
    }


class _Ready:
    """A volume that has been preprocessed already."""

    def __init__(self, volume) -> None:  # type: ignore[no-untyped-def]
        self._volume = volume
        self.shape = volume.shape[1:]
        self.ready_z = self.shape[0]

    def volume(self, z_start: int, z_stop: int, limits: object) -> object:
        return self._volume[:, z_start:z_stop]

    def discard(self, below_z: int) -> None:
        pass


def peak_mb() -> float:
    """This process's largest resident size so far, in MiB."""
    if sys.platform == "win32":
        return float(psutil.Process().memory_info().peak_wset) / 2**20
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(sys.argv[2], int(sys.argv[3]))))
    else:
        main()
