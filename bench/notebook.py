"""A notebook's first seconds: import, open, a table, and one plane of an image of a screen's size.

    python -m bench.notebook

A plate of 384 wells with the images of one. Import and open are timed in processes of their own, with their processor
time beside it: on a busy computer the clock says more of the neighbours.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import spheroidd
from spheroidd.protocols.stack import StackKey, StackPlan
from tests.daemon.report import plates

N_STARTS, N_PLANES, N_Z, SIDE_PX = 7, 40, 48, 1000
START = """
import json, sys, time
wall, cpu = time.perf_counter(), time.process_time()
import spheroidd
imported = time.perf_counter(), time.process_time()
spheroidd.open(sys.argv[1])
opened = time.perf_counter(), time.process_time()
print(json.dumps([1e3 * (imported[0] - wall), 1e3 * (imported[1] - cpu),
                  1e3 * (opened[0] - imported[0]), 1e3 * (opened[1] - imported[1]), "torch" in sys.modules]))
"""


def starts(data: Path) -> dict[str, float | bool]:
    """Milliseconds of `import spheroidd` and of `open`, the median of several processes."""
    command = [sys.executable, "-c", START, str(data)]
    found = [json.loads(subprocess.run(command, capture_output=True, check=True).stdout) for _ in range(N_STARTS)]
    names = ("import_ms", "import_cpu_ms", "open_ms", "open_cpu_ms")
    figures = {name: round(statistics.median(one[n] for one in found), 1) for n, name in enumerate(names)}
    return {**figures, "torch_loaded": any(one[4] for one in found)}


def planes(stack: spheroidd.Stack) -> dict[str, float]:
    """Milliseconds of one plane, its checksum included: by the clock, and of processors in all threads."""
    image = stack.image()
    clock, cpu = [], []
    for n in range(N_PLANES):
        began = time.perf_counter(), time.process_time()
        image[n % 2, (7 * n) % N_Z].compute()
        clock.append(1e3 * (time.perf_counter() - began[0]))
        cpu.append(1e3 * (time.process_time() - began[1]))
    found = {"plane_ms": statistics.median(clock), "plane_worst_ms": max(clock), "plane_cpu_ms": statistics.median(cpu)}
    return {name: round(value, 1) for name, value in found.items()}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        wells, live = plates.screen_plate("P1", 16, 24, {"drug": 1.0})
        shown = sorted(live)[0]

        def plan_of(key: StackKey) -> StackPlan:
            plan = plates.plan_of(key)
            return replace(plan, n_z=N_Z, height=SIDE_PX, width=SIDE_PX) if key.well == shown else plan

        plates.register(data, wells, plan=plan_of)
        plates.score(data, wells, live)
        plates.store_images(data, wells, plan_of(StackKey("P1", shown)), 0.7)
        figures: dict[str, object] = dict(starts(data))
        plate = spheroidd.open(data)
        import pandas  # noqa: F401 - its own start is not the table's

        began_s = time.perf_counter()
        plate.rows()
        figures["rows_ms"] = round(1e3 * (time.perf_counter() - began_s), 1)
        figures |= planes(plate[str(shown)])
        figures["of"] = {"wells": len(live), "plane_px": SIDE_PX}
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
