"""A `screen` stack at true pace through the whole daemon: what is late, what memory it takes, when the row stands.

    python -m bench.screen             13 minutes: the stack is imaged three times, 240 s each
    python -m bench.screen raw         only from raw frames

First with the limits of the stack itself (normalisation `stack`, two passes), then with those limits known before
(normalisation `plate`), then from 15 raw frames a slice, with limits and patterns known from a short stack of another
well. All is read from the catalog and from the processes, not from what the daemon says of itself.
"""

import json
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

COMMAND = (sys.executable, "-c", "from spheroidd.daemon.cli import main; main()")
SAMPLE_S = 0.5
PERIOD_S, CHANNELS = 1.2, 2  # of a slice pair
Limits = dict[str, dict[str, float]]
SCREEN = {"preset": "screen", "seed": 11, "pace": "real"}
CALIBRATION = {"preset": "screen", "seed": 12, "pace": "fast", "n_z": 24}  # no deeper than stripes reach
PARTS = ("stack", "plate", "raw")


def measure(
    folder: Path, normalisation: str, limits: Limits | None, source: Mapping[str, Any] = SCREEN, more: str = ""
) -> dict[str, Any]:
    """Image one stack at true pace and measure it; `more` are lines of its configuration."""
    config = _config(folder, normalisation, limits, source, more)
    process = psutil.Popen([*COMMAND, "run", str(config), "--plain"], stdout=subprocess.DEVNULL)
    rss_mb: list[float] = []
    pss_mb: list[float] = []
    while process.poll() is None:
        family = [process, *_children(process)]
        rss_mb.append(sum(_memory(member, "rss") for member in family) / 1e6)
        pss_mb.append(sum(_memory(member, "pss") for member in family) / 1e6)
        time.sleep(SAMPLE_S)
    return {
        "normalisation": normalisation,
        "limits": "known before" if limits else "the stack's own, known after its last slice",
        "exit_code": process.returncode,
        **_from_catalog(folder / "data" / "catalog.sqlite"),
        "peak_rss_all_processes_mb": round(max(rss_mb)),
        "peak_pss_all_processes_mb": round(max(pss_mb)),
    }


def measure_raw(folder: Path) -> dict[str, Any]:
    """The same from raw frames. Limits and patterns are those of a short stack: one pass, and nothing to wait for.

    Half the cells of both wells are dead, so that either colour shows its stripes.
    """
    short = folder / "short"
    config = _config(short, "stack", None, CALIBRATION, "[source.raw]\n")
    subprocess.run([*COMMAND, "run", str(config), "--plain"], stdout=subprocess.DEVNULL, check=True)
    found = subprocess.run(
        [*COMMAND, "sim", "estimate", str(short / "data"), "--json"], stdout=subprocess.PIPE, check=True
    )
    known = folder / "pattern.json"
    known.write_bytes(found.stdout)
    given = "".join(f"pattern_{channel} = {str(known)!r}\n" for channel in ("488", "561"))
    return measure(folder / "raw", "plate", limits_of(short), SCREEN, f"[sim]\n{given}[source.raw]\n")


def limits_of(folder: Path) -> Limits:
    """The limits that a run ended with."""
    with sqlite3.connect(folder / "data" / "catalog.sqlite") as connection:
        text = connection.execute("SELECT limits_json FROM results").fetchone()[0]
    limits: Limits = json.loads(text)
    return limits


def _from_catalog(path: Path) -> dict[str, Any]:
    with sqlite3.connect(path) as connection:
        rows = connection.execute("SELECT channel, z, acquired_s, acked_s FROM slices ORDER BY acquired_s").fetchall()
        result = connection.execute("SELECT latency_s, cpu_s FROM results").fetchone()
        ((plan,),) = connection.execute("SELECT plan_json FROM stacks").fetchall()
    each = len(rows) // (CHANNELS * json.loads(plan)["n_z"])  # images of a slice: of raw frames 15

    def due_s(channel: str, plane: int) -> float:
        z, image = divmod(plane, each)
        return PERIOD_S * (z + ((channel == "561") + image / each) / CHANNELS)

    start_s = min(acquired - due_s(channel, plane) for channel, plane, acquired, _ in rows)
    late_s = [acquired - start_s - due_s(channel, plane) for channel, plane, acquired, _ in rows]
    acked_ms = sorted(1000 * (acked - acquired) for _, _, acquired, acked in rows)
    return {
        "images_acknowledged": len(rows),
        "images_late_by_more_than_half_a_slice": sum(late > PERIOD_S / 4 for late in late_s),
        "worst_lateness_ms": round(1000 * max(late_s), 1),
        "acquired_to_acknowledged_ms_median": round(statistics.median(acked_ms), 2),
        "acquired_to_acknowledged_ms_p99": round(acked_ms[int(0.99 * (len(acked_ms) - 1))], 2),
        "acquired_to_acknowledged_ms_max": round(acked_ms[-1], 2),
        "last_slice_to_row_s": round(result[0], 2),
        "worker_cpu_s": round(result[1], 2),
    }


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _memory(process: psutil.Process, kind: str) -> int:
    try:
        return int(getattr(process.memory_full_info() if kind == "pss" else process.memory_info(), kind))
    except (psutil.NoSuchProcess, psutil.AccessDenied, AttributeError):
        return 0


def _config(folder: Path, normalisation: str, limits: Limits | None, source: Mapping[str, Any], more: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "map.csv").write_text("well,role,compound,dose_um,patient\nB02,sample,C01,1.0,P01\n", encoding="utf-8")
    lines = ["[data]", f"dir = {str(folder / 'data')!r}", "[plate]", 'name = "screen"', "map = 'map.csv'"]
    lines += ["[source]", 'kind = "emulator"', *(f"{name} = {value!r}" for name, value in source.items()), more]
    lines += ["[inference]", f'normalisation = "{normalisation}"', "limit_tolerance = 0.0"]
    for channel, values in (limits or {}).items():
        lines += [f"[inference.limits.{channel}]", *(f"{name} = {value!r}" for name, value in values.items())]
    path = folder / "screen.toml"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def main() -> None:
    """Print the runs that are asked for, or all, as JSON."""
    chosen = sys.argv[1:] or list(PARTS)
    if unknown := set(chosen) - set(PARTS):
        sys.exit(f"no such part: {', '.join(sorted(unknown))}; there are: {', '.join(PARTS)}")
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="spheroidd-screen-") as place:
        folder = Path(place)
        if "stack" in chosen or "plate" in chosen:
            found["stack"] = measure(folder / "stack", "stack", None)
        if "plate" in chosen:
            found["plate"] = measure(folder / "plate", "plate", limits_of(folder / "stack"))
        if "raw" in chosen:
            found["raw"] = measure_raw(folder)
    print(json.dumps({"bench": "screen", **found}, indent=1))


if __name__ == "__main__":
    main()
