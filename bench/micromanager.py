"""Micro-Manager's way of a frame: what the core, the engine and the ring cost. `python -m bench.micromanager`.

The demo adapters, pycromanager's engine and the source are the real ones; only exposures are short. Overhead is what
a slice takes beyond its exposure, from the core's process to a frame in ours.
"""

import json
import multiprocessing
import statistics
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import psutil

from bench.places import EXAMPLES
from spheroidd.acquisition.sources.micromanager.frame_ring import FrameRing, RingWriter
from spheroidd.acquisition.sources.micromanager.settings import MicroManagerSettings
from spheroidd.acquisition.sources.micromanager.source import MicroManagerSource
from spheroidd.daemon.system.clock import SystemClock
from spheroidd.protocols.plate import PlateMap, PlateWell, Treatment, WellRole
from spheroidd.protocols.stack import CHANNELS
from spheroidd.protocols.well import WellId

DEMO_CFG = EXAMPLES / "micromanager-demo.cfg"
SCREEN = (800, 800)
EXPOSURE_MS = 5.0
N_STACKS, N_Z = 20, 20
RING_FRAMES = 2000
PLATE = PlateMap("bench", tuple(PlateWell(WellId(0, c), Treatment(WellRole.SAMPLE, "C", 1.0)) for c in range(2)))


@contextmanager
def rig(pixels: int, n_z: int, *, sequenced: bool = False, exposure_ms: float = EXPOSURE_MS) -> Iterator[Any]:
    """A source over the demo adapters with a camera of that many pixels."""
    lines = DEMO_CFG.read_text(encoding="utf-8").replace("Size,96", f"Size,{pixels}")
    lines += "ConfigGroup,System,Startup,Camera,FastImage,1\n"
    if sequenced:
        lines += "ConfigGroup,System,Startup,Z,UseSequences,Yes\n"
    with TemporaryDirectory() as folder:
        config = Path(folder) / "rig.cfg"
        config.write_text(lines, encoding="utf-8")
        settings = MicroManagerSettings(
            micromanager_dir="test-adapters",
            config=config,
            n_z=n_z,
            height=pixels,
            width=pixels,
            pixel_um=0.5,
            z_step_um=0.5,
            z_start_um=0.0,
            channels={c: {"preset": c, "exposure_ms": exposure_ms} for c in CHANNELS},  # type: ignore[misc]
            z_sequencing=sequenced,
            a01_um=(0.0, 0.0),
            pitch_um=(100.0, 100.0),
            x_limits_um=(-1, 20000),
            y_limits_um=(-1, 20000),
            z_limits_um=(0, 300),
            retract_z_um=0.0,
        )
        with closing(MicroManagerSource(settings, PLATE, "bench", SystemClock())) as source:
            source.check()
            yield source


def overhead(pixels: int, *, sequenced: bool = False) -> dict[str, float]:
    """Milliseconds a slice takes beyond its exposure: median and 95th percentile."""
    with rig(pixels, 50, sequenced=sequenced) as source:
        plan = source.plans()[0]
        list(source.frames(plan, set(plan.indices())))
        arrived: list[float] = []
        for _ in source.frames(plan, set(plan.indices())):
            arrived.append(time.perf_counter())
    gaps_ms = np.diff(arrived) * 1000 - EXPOSURE_MS
    return {"median_ms": round(float(np.median(gaps_ms)), 2), "p95_ms": round(float(np.percentile(gaps_ms, 95)), 2)}


def memory() -> dict[str, float]:
    """How much both processes have grown from the third stack to the last, in MB."""
    with rig(SCREEN[0], N_Z, exposure_ms=1.0) as source:
        sizes = []
        for number in range(N_STACKS):
            plan = source.plans()[number % 2]
            n = sum(1 for _ in source.frames(plan, set(plan.indices())))
            assert n == plan.n_slices
            sizes.append([psutil.Process(pid).memory_info().rss / 1e6 for pid in (None, source.pid)])
        stack_mb = plan.n_bytes / 1e6
    grown = np.subtract(sizes[-1], sizes[2])
    return {"stacks": N_STACKS, "stack_mb": round(stack_mb, 1)} | {
        "daemon_grew_mb": round(float(grown[0]), 1),
        "core_grew_mb": round(float(grown[1]), 1),
    }


def abort() -> dict[str, float]:
    """Milliseconds from closing the iterator to being able to go on: in the middle of a stack, and with a hung core."""
    out = {}
    with rig(96, 50) as source:
        plan = source.plans()[0]
        frames = source.frames(plan, set(plan.indices()))
        next(frames)
        began = time.perf_counter()
        frames.close()
        out["within_a_stack_ms"] = round(1000 * (time.perf_counter() - began), 1)
        frames = source.frames(plan, set(plan.indices()))
        next(frames)
        psutil.Process(source.pid).suspend()  # as a driver that never returns
        began = time.perf_counter()
        frames.close()
        out["hung_ms"] = round(1000 * (time.perf_counter() - began), 1)
    return out


def _write(writer: RingWriter, link: Connection) -> None:
    frame = np.random.default_rng(0).integers(0, 4096, SCREEN, np.uint16)
    link.recv()
    began = time.process_time()
    for _ in range(RING_FRAMES):
        while not writer.reserve(1.0):
            pass
        link.send(writer.write(frame))
    link.send(time.process_time() - began)


def ring() -> tuple[float, float]:
    """Screen frames through the ring, from a process of its own into arrays of ours: GB/s, and CPU seconds per GB."""
    context = multiprocessing.get_context("spawn")
    with closing(FrameRing.of_size(64, SCREEN[0] * SCREEN[1] * 2)) as ring:
        ours, theirs = context.Pipe()
        process = context.Process(target=_write, args=(ring.writer(), theirs), daemon=True)
        process.start()
        ours.send("begin")
        began, cpu_began = time.perf_counter(), time.process_time()
        gigabytes = 0.0
        for _ in range(RING_FRAMES):
            gigabytes += ring.take(ours.recv(), SCREEN, "uint16").nbytes / 1e9
        took_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu_began
        cpu_s += ours.recv()
        process.join()
    return gigabytes / took_s, cpu_s / gigabytes


def measure() -> dict[str, Any]:
    rates, cpu = zip(*(ring() for _ in range(5)), strict=True)
    return {
        "overhead_per_slice": {"96x96": overhead(96), "800x800": overhead(800)},
        "overhead_hardware_sequence": overhead(800, sequenced=True),
        "memory_over_stacks": memory(),
        "abort": abort(),
        "ring_gb_s": {"median": round(statistics.median(rates), 2), "of": len(rates), "min": round(min(rates), 2)},
        "ring_cpu_s_per_gb": round(statistics.median(cpu), 3),
    }


if __name__ == "__main__":
    print(json.dumps({"micromanager": measure()}, indent=2))
