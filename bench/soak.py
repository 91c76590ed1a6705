"""A daemon over 384 wells of small stacks: memory, handles, threads and latency over time. `python -m bench.soak`.

Prints one JSON object. `exit_code` is the daemon's, and `said` its last words where that is not 0: 1 where images of a
well show no cell, say; `failed` names such wells. `series` holds a sample every `--every` seconds of the daemon and
its worker: resident MB, handles, threads, wells scored, and the median time from exposure to acknowledgement of the
slices since the sample before. `drift` compares the last quarter of the run with its second quarter (the first one
warms up): what is flat is near 0. Growth of the resident size per 100 wells is what a leak would show.
"""

import argparse
import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

# As small as a spheroid with cells can be, and paced so that slices go on arriving while others are scored.
SMALL = {"preset": "unit", "pace": "real", "slice_period_s": 0.02, "n_z": 12, "height": 72, "width": 72}
COMMAND = (sys.executable, "-c", "from spheroidd.daemon.cli import main; main()", "run")


def configuration(folder: Path, wells: int) -> Path:
    """The plate: an eighth of its wells are controls, the rest compounds at six doses."""
    controls = max(2, wells // 16)
    compounds = max(1, (wells - 2 * controls) // 6)
    source = {**SMALL, "compounds": compounds, "doses": 6, "negative_controls": controls, "positive_controls": controls}
    lines = ["[data]", f"dir = {str(folder / 'data')!r}", "[plate]", "name = 'soak'", "[store]", "min_free_gb = 0.0"]
    lines += ["[service]", "http_address = '127.0.0.1:0'", "[inference]", "model = 'threshold'", "threads = 1"]
    lines += ["[source]", "kind = 'emulator'"]
    lines += [f"{key} = {value!r}" for key, value in source.items()]
    path = folder / "soak.toml"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def sample(process: psutil.Process, catalog: Path, since_s: float) -> dict[str, Any] | None:
    """One look at the daemon, its worker and the ledger; None where it has just ended."""
    found: dict[str, Any] = {}
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        workers = [one for one in process.children() if "spawn_main" in " ".join(one.cmdline())]
        for name, one in (("daemon", process), *(("worker", worker) for worker in workers[:1])):
            handles = one.num_handles() if psutil.WINDOWS else one.num_fds()
            memory = round(one.memory_info().rss / 1e6, 1)
            found[name] = {"mb": memory, "handles": handles, "threads": one.num_threads()}
    except psutil.Error:
        return None
    with suppress(sqlite3.Error), sqlite3.connect(f"{catalog.as_uri()}?mode=ro", uri=True) as connection:
        rows = connection.execute("SELECT acked_s - acquired_s FROM slices WHERE acked_s > ?", (since_s,)).fetchall()
        (scored,) = connection.execute("SELECT count(*) FROM results").fetchone()
        found |= {"scored": scored, "slices": len(rows)}
        found["ack_ms"] = round(1000 * statistics.median(row[0] for row in rows), 1) if rows else None
    return found


def drift(series: list[dict[str, Any]]) -> dict[str, Any]:
    """The medians of the second and of the last quarter, and their difference."""
    quarter = len(series) // 4
    parts = series[quarter : 2 * quarter], series[-quarter:]

    def compared(values: list[list[float]]) -> dict[str, float] | None:
        if not all(values):
            return None
        early, late = (statistics.median(part) for part in values)
        return {"early": early, "late": late, "difference": round(late - early, 2)}

    told: dict[str, Any] = {}
    for who in ("daemon", "worker"):
        for name in ("mb", "handles", "threads"):
            told[f"{who}_{name}"] = compared([[each[who][name] for each in part if who in each] for part in parts])
    told["ack_ms"] = compared([[each["ack_ms"] for each in part if each.get("ack_ms") is not None] for part in parts])
    scored = [[each["scored"] for each in part if "scored" in each] for part in parts]
    if all(scored) and told["daemon_mb"]:
        wells = statistics.median(scored[1]) - statistics.median(scored[0])
        told["daemon_mb_per_100_wells"] = round(100 * told["daemon_mb"]["difference"] / wells, 2) if wells else None
    return told


def soak(wells: int, every_s: float) -> dict[str, Any]:
    """Run the plate to its end."""
    with tempfile.TemporaryDirectory(prefix="soak-") as scratch:
        config = configuration(Path(scratch), wells)
        catalog = Path(scratch) / "data" / "catalog.sqlite"
        began_s, series = time.monotonic(), []
        with config.with_suffix(".log").open("w") as log:
            daemon = subprocess.Popen([*COMMAND, str(config), "--plain"], stdout=log, stderr=log)
            try:
                process, since_s = psutil.Process(daemon.pid), time.time()
                while daemon.poll() is None:
                    time.sleep(every_s)
                    now_s = time.time()
                    if found := sample(process, catalog, since_s):
                        series.append({"s": round(time.monotonic() - began_s, 1), **found})
                    since_s = now_s
            finally:
                if daemon.poll() is None:
                    daemon.kill()
        with sqlite3.connect(catalog) as connection:
            (n_wells,) = connection.execute("SELECT count(*) FROM results WHERE status = 'final'").fetchone()
            (n_slices,) = connection.execute("SELECT count(*) FROM slices").fetchone()
            failed = dict(connection.execute("SELECT well, reason FROM results WHERE trust = 'fail'").fetchall())
        said = config.with_suffix(".log").read_text(encoding="utf-8", errors="replace").splitlines()[-3:]
    total = {"exit_code": daemon.returncode, "wells": n_wells, "slices": n_slices}
    total |= {"seconds": round(time.monotonic() - began_s, 1), "cores": os.cpu_count()}
    if daemon.returncode != 0:
        total |= {"said": said, "failed": failed}
    return {**total, "drift": drift(series), "series": series}


def main() -> None:
    """Print what the soak gave."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--wells", type=int, default=384)
    parser.add_argument("--every", type=float, default=2.0, metavar="S", help="seconds between two samples")
    options = parser.parse_args()
    print(json.dumps(soak(options.wells, options.every), indent=1))


if __name__ == "__main__":
    main()
