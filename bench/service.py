"""The service beside a running plate: `python -m bench.service` prints JSON (about 3 minutes).

`push`: one `screen` stack (400 slices of 800 x 800) pushed over loopback by another process, until every slice is
acknowledged: synced and in the ledger. `status`: GetStatus calls while a `screen` stack is emulated at the instrument's
pace and while slices are pushed at 100 planes/s. `streams`: the processor time that the daemon takes for 50 viewers of
its status, above what it takes without them. `command`: `spheroidd status` as a whole process.
"""

import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Set
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil

from spheroidd.daemon.service.client import DaemonClient
from spheroidd.daemon.service.push_client import push_stack
from spheroidd.protocols import spheroidd_pb2 as wire
from spheroidd.protocols.stack import Frame, SliceIndex, StackKey, StackPlan
from spheroidd.protocols.well import WellId

COMMAND = (sys.executable, "-c", "from spheroidd.daemon.cli import main; main()")
HEIGHT = WIDTH = 800
N_Z = 200
CHANNELS = ("488", "561")
PLANE_MB = HEIGHT * WIDTH * 2 / 1e6
VIEWERS = 50
ROUNDS = 3
MAP = "well,role,compound,dose_um,patient\n" + "\n".join(f"B{n:02d},sample,C01,1.0,P01" for n in range(1, 10)) + "\n"
PUSH = '[plate]\nname = "pushed"\n[source]\nkind = "push"\n[inference]\nnormalisation = "stack"\n'
SCREEN = (
    '[plate]\nname = "screen"\n[source]\nkind = "emulator"\npreset = "screen"\n[inference]\nnormalisation = "stack"\n'
)


@contextmanager
def daemon(folder: Path, config: str) -> Iterator[tuple[DaemonClient, psutil.Process]]:
    """A daemon that has been given a plate and has started it."""
    data = folder / "data"
    process = psutil.Popen([*COMMAND, "serve", str(data)], stdout=subprocess.DEVNULL)
    try:
        while not (data / "service.json").exists():
            time.sleep(0.1)
        with DaemonClient.of(data) as client:
            plate = client.call(client.stub.SubmitPlate, wire.SubmitPlateRequest(config_toml=config, plate_map_csv=MAP))
            client.call(client.stub.StartPlate, wire.StartPlateRequest(plate=plate.plate), 60.0)
            yield client, process
            client.call(client.stub.StopDaemon, wire.StopDaemonRequest())
            process.wait(60)
    finally:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def push_one(data: Path, well: str, per_s: float | None = None) -> dict[str, float]:
    """Push a stack as an instrument's program would; how long it took until the last acknowledgement."""
    noise = np.random.default_rng(0).poisson(120, (8, HEIGHT, WIDTH)).astype("<u2")
    plan = StackPlan(StackKey("pushed", WellId.parse(well)), CHANNELS, N_Z, HEIGHT, WIDTH, 0.1, 0.5)
    first_s = last_s = 0.0

    def frames(wanted: Set[SliceIndex]) -> Iterator[Frame]:
        nonlocal first_s
        first_s = time.perf_counter()
        for n, index in enumerate(plan.indices()):
            if per_s is not None:
                time.sleep(max(0.0, first_s + n / per_s - time.perf_counter()))
            yield Frame(plan.key, index, noise[n % len(noise)], time.time())

    n_acknowledged = 0
    with DaemonClient.of(data) as client:
        for _ in push_stack(client, plan, frames, timeout_s=120):
            n_acknowledged, last_s = n_acknowledged + 1, time.perf_counter()
    return {"slices_acknowledged": n_acknowledged, "mb_per_s": n_acknowledged * PLANE_MB / (last_s - first_s)}


def _push_into(pipe: Any, data: Path, well: str, per_s: float | None) -> None:
    pipe.send(push_one(data, well, per_s))


def pushed(data: Path, well: str, per_s: float | None = None) -> dict[str, float]:
    """The same from a process of its own."""
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_push_into, args=(theirs, data, well, per_s))
    process.start()
    found: dict[str, float] = ours.recv()
    process.join()
    return found


def disk_limit(folder: Path) -> float:
    """MB/s of a raw write + fdatasync for each plane of the same stack, into a file that exists already."""
    plane = np.random.default_rng(0).poisson(120, (HEIGHT, WIDTH)).astype("<u2").tobytes()
    path, n = folder / "raw", 100
    with path.open("wb") as file:
        file.write(plane * n)
        os.fsync(file.fileno())
    fd = os.open(path, os.O_WRONLY)
    start_s = time.perf_counter()
    for _ in range(n):
        os.write(fd, plane)
        getattr(os, "fdatasync", os.fsync)(fd)
    seconds = time.perf_counter() - start_s
    os.close(fd)
    path.unlink()
    return n * PLANE_MB / seconds


def status_calls(client: DaemonClient, seconds: float) -> dict[str, float]:
    """GetStatus every 20 ms."""
    times_ms = []
    end_s = time.perf_counter() + seconds
    while time.perf_counter() < end_s:
        start_s = time.perf_counter()
        client.call(client.stub.GetStatus, wire.GetStatusRequest())
        times_ms.append(1000 * (time.perf_counter() - start_s))
        time.sleep(0.02)
    cuts = statistics.quantiles(times_ms, n=100)
    figures = {"p50_ms": cuts[49], "p99_ms": cuts[98], "max_ms": max(times_ms)}
    return {"calls": len(times_ms), **{name: round(value, 2) for name, value in figures.items()}}


def cpu_share(process: psutil.Process, seconds: float) -> float:
    """How much of a core a process takes, in percent; its children are not counted."""
    before = process.cpu_times()
    time.sleep(seconds)
    after = process.cpu_times()
    return 100 * (after.user + after.system - before.user - before.system) / seconds


def viewers_cost(client: DaemonClient, process: psutil.Process) -> dict[str, float]:
    """What 50 status streams take, in turns with none, so that a busy spell falls on both."""
    without, with_them = [], []
    for _ in range(ROUNDS):
        without.append(cpu_share(process, 10))
        calls = []
        for _ in range(VIEWERS):
            call = client.stub.WatchStatus(wire.WatchStatusRequest())
            threading.Thread(target=_drain, args=(call,), daemon=True).start()
            calls.append(call)
        time.sleep(1)
        with_them.append(cpu_share(process, 10))
        for call in calls:
            call.cancel()
        time.sleep(1)
    cost = statistics.median(more - less for more, less in zip(with_them, without, strict=True))
    idle = statistics.median(without)
    return {"viewers": VIEWERS, "percent_of_a_core": round(cost, 2), "without_percent": round(idle, 2)}


def _drain(call: Any) -> None:
    try:
        for _ in call:
            pass
    except grpc.RpcError:
        pass


def command_s(data: Path) -> float:
    times = []
    for _ in range(5):
        start_s = time.perf_counter()
        subprocess.run([*COMMAND, "status", str(data)], stdout=subprocess.DEVNULL, check=False)
        times.append(time.perf_counter() - start_s)
    return round(statistics.median(times), 3)


def main() -> None:
    figures: dict[str, Any] = {"bench": "service"}
    with tempfile.TemporaryDirectory(prefix="spheroidd-service-", dir=os.environ.get("BENCH_DIR")) as place:
        folder = Path(place)
        with daemon(folder / "push", PUSH) as (client, process):
            data, rounds, limits, cpu_s = folder / "push" / "data", [], [], []
            for n in range(ROUNDS):
                limits.append(disk_limit(folder))
                before = process.cpu_times()
                rounds.append(pushed(data, f"B{n + 1:02d}"))
                after = process.cpu_times()
                cpu_s.append(after.user + after.system - before.user - before.system)
            speeds = sorted(found["mb_per_s"] for found in rounds)
            figures["push"] = {
                "mb_per_s": [round(speed) for speed in speeds],
                "raw_write_and_fdatasync_mb_per_s": [round(limit) for limit in sorted(limits)],
                "daemon_cpu_s_per_512_mb": [round(seconds, 2) for seconds in cpu_s],
                "load_average": [round(load, 1) for load in psutil.getloadavg()],  # of two cores: others were at work
                "slices_acknowledged": [found["slices_acknowledged"] for found in rounds],
            }
            pusher = threading.Thread(target=pushed, args=(data, "B09", 100.0))
            pusher.start()
            time.sleep(1.5)
            figures["status_at_100_planes_per_s"] = status_calls(client, 3.5)
            pusher.join()
        with daemon(folder / "screen", SCREEN) as (client, process):
            time.sleep(10)
            figures["status_at_instrument_pace"] = status_calls(client, 15)
            figures["streams"] = viewers_cost(client, process)
            figures["status_command_s"] = command_s(folder / "screen" / "data")
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
