"""Runs plates of the emulator in real daemon processes, and looks at what they left, independently of the daemon."""

import os
import signal
import sqlite3
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import google_crc32c
import zarr

from tests import warm_start
from tests.warm_start import COMMAND as COMMAND  # for whom a start is cold
from tests.warm_start import Process

N_Z = 14  # of the 24: half a stack costs half of a run, and no well of it is doubted
FIGURES = (
    "live_um3, dead_um3, n_live, n_dead, v_count, v_control, v_score, v_score_lo, v_score_hi, model_sha256, "
    "normalisation, live_um3_by_z_json, limits_json, status, reason"
)


def write_config(
    folder: Path,
    *,
    name: str = "P1",
    source: Mapping[str, Any] | None = None,
    min_free_gb: float = 0.0,
    page: bool = False,
    keep_raw: str = "all",
    sim: Mapping[str, str] | None = None,
    model: str = "threshold",
    **inference: Any,
) -> Path:
    """A configuration for a small plate of the emulator; its data directory is `folder/data`.

    What happens to processes, files and rows does not depend on who segments, and a network takes half of the time:
    only tests of figures name the model "default".
    """
    settings = {
        "kind": "emulator",
        **({} if source and "preset" in source else {"preset": "unit", "n_z": N_Z}),
        "pace": "fast",
        "compounds": 1,
        "doses": 2,
        "negative_controls": 2,
        "positive_controls": 1,
        **(source or {}),
    }
    scoring = {"model": model, "normalisation": "plate", "threads": 1, **inference}
    lines = ["[data]", f"dir = {str(folder / 'data')!r}", "[plate]", f"name = {name!r}"]
    lines += ["[store]", f"min_free_gb = {min_free_gb}", f"keep_raw = {keep_raw!r}"]
    lines += ["[service]", f"http = {_toml(page)}", 'http_address = "127.0.0.1:0"']
    for section, table in (("source", settings), ("inference", scoring), ("sim", sim or {})):
        lines.append(f"[{section}]")
        lines += [f"{key} = {_toml(value)}" for key, value in table.items()]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "plate.toml"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return repr(value)


def start(config: Path, *options: str) -> Process:
    """Start `spheroidd run` in a process group of its own; its output goes to `<config>.log`."""
    with config.with_suffix(".log").open("a") as log:
        arguments = ("run", str(config), "--plain", *options)
        return warm_start.start(arguments, stdout=log, stderr=log, start_new_session=os.name == "posix")


def run(config: Path, timeout_s: float = 180.0) -> int:
    """Run to the end; the exit code."""
    process = start(config)
    try:
        return process.wait(timeout_s)
    finally:
        kill(process)


def kill(process: Process) -> None:
    """Kill -9 the daemon (its worker must notice by itself); nothing where it has ended."""
    if process.poll() is None:
        process.kill()
    process.wait()


def signal_group(process: Process) -> None:
    """What Ctrl-C in a terminal does: SIGINT to the whole foreground group."""
    os.killpg(process.pid, signal.SIGINT)


def spheroidd(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """One command, to its end."""
    with TemporaryFile("w+", encoding="utf-8") as out, TemporaryFile("w+", encoding="utf-8") as errors:
        process = warm_start.start(arguments, stdout=out, stderr=errors, cwd=cwd)
        try:
            code = process.wait(180)
        finally:
            kill(process)
        for file in (out, errors):
            file.seek(0)
        return subprocess.CompletedProcess(process.args, code, out.read(), errors.read())


@dataclass(frozen=True, slots=True)
class Ledger:
    """What a catalog holds, read with plain sqlite3."""

    slices: dict[tuple[str, int, str, int], int]  # (well, stack, channel, z) -> crc32c
    results: dict[str, list[tuple[Any, ...]]]  # well -> its result rows
    states: dict[str, tuple[str, str | None]]  # well -> state and reason
    changes: int
    ends: dict[str, str | None]  # well -> how its stack ended


def ledger(config: Path) -> Ledger:
    """Read the catalog of a configuration's data directory; empty where there is none yet."""
    path = config.parent / "data" / "catalog.sqlite"
    if not path.exists():
        return Ledger({}, {}, {}, 0, {})
    connection = sqlite3.connect(path, timeout=30)
    try:
        if not connection.execute("SELECT 1 FROM pragma_table_info('stacks') WHERE name = 'ended'").fetchone():
            return Ledger({}, {}, {}, 0, {})
        rows = connection.execute("SELECT well, stack, channel, z, crc32c FROM slices").fetchall()
        results: dict[str, list[tuple[Any, ...]]] = {}
        for row in connection.execute(f"SELECT well, {FIGURES} FROM results ORDER BY well"):
            results.setdefault(row[0], []).append(tuple(row[1:]))
        states = {row[0]: (row[1], row[2]) for row in connection.execute("SELECT well, state, reason FROM stacks")}
        ends = dict(connection.execute("SELECT well, ended FROM stacks").fetchall())
        changes = connection.execute("SELECT count(*) FROM result_changes").fetchone()[0]
        return Ledger({tuple(row[:4]): row[4] for row in rows}, results, states, changes, ends)
    finally:
        connection.close()


def unreadable(config: Path, slices: Mapping[tuple[str, int, str, int], int]) -> list[tuple[str, int, str, int]]:
    """The slices whose bytes, read with zarr-python, have another crc32c than the ledger says."""
    plate = next((config.parent / "data").glob("*.ome.zarr"))
    bad = []
    for well, stack in sorted({key[:2] for key in slices}):
        group = zarr.open_group(plate / well[0] / well[1:] / str(stack), mode="r")
        image = group["0"]
        assert isinstance(image, zarr.Array)
        planes = image[:]
        for key in (key for key in slices if key[:2] == (well, stack)):
            pixels = planes[("488", "561").index(key[2]), key[3]]
            if google_crc32c.value(pixels.tobytes()) != slices[key]:
                bad.append(key)
    return bad
