"""A `screen` stack at true pace through the whole daemon: what is late, what memory it takes, when the row stands.

    python -m bench.screen          (8 minutes: the stack is imaged twice, 240 s each)

First with the limits of the stack itself (normalisation `stack`, two passes), then with those limits known before
(normalisation `plate`). All is read from the catalog and from the processes, not from what the daemon says of itself.
"""

import json
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

COMMAND = (sys.executable, "-c", "from spheroidd.daemon.cli import main; main()")
SAMPLE_S = 0.5


def measure(folder: Path, normalisation: str, limits: dict[str, dict[str, float]] | None) -> dict[str, Any]:
    """Image one stack at true pace and measure it."""
    config = _config(folder, normalisation, limits)
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


def limits_of(folder: Path) -> dict[str, dict[str, float]]:
    """The limits that a run ended with."""
    with sqlite3.connect(folder / "data" / "catalog.sqlite") as connection:
        text = connection.execute("SELECT limits_json FROM results").fetchone()[0]
    limits: dict[str, dict[str, float]] = json.loads(text)
    return limits


def _from_catalog(path: Path) -> dict[str, Any]:
    with sqlite3.connect(path) as connection:
        rows = connection.execute("SELECT channel, z, acquired_s, acked_s FROM slices ORDER BY acquired_s").fetchall()
        result = connection.execute("SELECT latency_s, cpu_s FROM results").fetchone()
    start_s = min(acquired - 1.2 * (z + 0.5 * (channel == "561")) for channel, z, acquired, _ in rows)
    late_s = [acquired - start_s - 1.2 * (z + 0.5 * (channel == "561")) for channel, z, acquired, _ in rows]
    acked_ms = [1000 * (acked - acquired) for _, _, acquired, acked in rows]
    return {
        "slices_acknowledged": len(rows),
        "slices_late_by_more_than_half_a_slice": sum(late > 0.3 for late in late_s),
        "worst_lateness_ms": round(1000 * max(late_s), 1),
        "acquired_to_acknowledged_ms_median": round(statistics.median(acked_ms), 2),
        "acquired_to_acknowledged_ms_max": round(max(acked_ms), 2),
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


def _config(folder: Path, normalisation: str, limits: dict[str, dict[str, float]] | None) -> Path:
    folder.mkdir(parents=True)
    (folder / "map.csv").write_text("well,role,compound,dose_um,patient\nB02,sample,C01,1.0,P01\n", encoding="utf-8")
    lines = ["[data]", f"dir = {str(folder / 'data')!r}", "[plate]", 'name = "screen"', "map = 'map.csv'"]
    lines += ["[source]", 'kind = "emulator"', 'preset = "screen"', "seed = 11", 'pace = "real"']
    lines += ["[inference]", f'normalisation = "{normalisation}"', "limit_tolerance = 0.0"]
    for channel, values in (limits or {}).items():
        lines += [f"[inference.limits.{channel}]", *(f"{name} = {value!r}" for name, value in values.items())]
    path = folder / "screen.toml"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def main() -> None:
    """Print both runs as JSON."""
    with tempfile.TemporaryDirectory(prefix="spheroidd-screen-") as place:
        folder = Path(place)
        two_pass = measure(folder / "stack", "stack", None)
        known = measure(folder / "plate", "plate", limits_of(folder / "stack"))
    print(json.dumps({"bench": "screen", "stack": two_pass, "plate": known}, indent=1))


if __name__ == "__main__":
    main()
