"""One recorded plate through every emulated instrument, at the instrument's pace. `python -m bench.recordings`.

Each way is processes as a lab has them: `spheroidd run` on one side, on the other `spheroidd emulate` where the
instrument is a program of its own. What must hold: pixels and rows are those of `replay`, and no slice is late.
"""

import json
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

SPHEROIDD = (sys.executable, "-c", "from spheroidd.daemon.cli import main; main()")
PERIOD_S = 0.25
LIMIT_S = 240.0
STARTED_S = 60.0
WELLS = "A01,A02,A04,B01"  # two untreated, one killed, one sample
# Figures of a row that may differ: when it was made, how fast, and by whom.
UNLIKE = re.compile(r"(_s|_at|_utc|sequence|changes|latency.*|acked.*)$")


def spheroidd(*words: object, check: int | None = 0) -> str:
    """One command to its end; what it printed."""
    done = subprocess.run([*SPHEROIDD, *map(str, words)], capture_output=True, text=True, timeout=LIMIT_S, check=False)
    if check is not None and done.returncode != check:
        raise RuntimeError(f"{words} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return done.stdout


@contextmanager
def player(until: str, *words: object) -> Iterator[subprocess.Popen[str]]:
    """A program that plays an instrument, from when it has printed `until` on."""
    with subprocess.Popen(
        [*SPHEROIDD, "emulate", *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            assert process.stdout is not None
            if until and not re.search(until, said := process.stdout.readline()):
                raise RuntimeError(f"{words} said {said!r} {process.communicate()[0]}")
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()


def configuration(folder: Path, plate_map: Path, source: str, *, service: bool = False) -> Path:
    """A configuration whose data lie in `folder/data`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "plate.toml"
    path.write_text(
        f"[data]\ndir = '{folder / 'data'}'\n[plate]\nname = 'recorded'\nmap = '{plate_map}'\n"
        f"[store]\nmin_free_gb = 0.0\n[service]\nenabled = {str(service).lower()}\nhttp = false\n"
        f"[inference]\nthreads = 1\nnormalisation = 'plate'\n[source]\n{source}\n",
        encoding="utf-8",
    )
    return path


def stack_of(plate_map: Path) -> dict[str, Any]:
    """The geometry of a recorded plate's first stack, as settings say it."""
    from spheroidd.daemon.emulation.open_recording import open_recording

    with closing(open_recording(plate_map)) as recording:
        held = recording.geometry
    camera = held.camera
    return {
        "n_z": held.n_z,
        "height": camera.height,
        "width": camera.width,
        "dtype": camera.dtype,
        "pixel_um": camera.pixel_um,
        "z_step_um": held.z_step_um,
    }


def toml(table: dict[str, Any]) -> str:
    """Plain keys of a table."""
    return "\n".join(f"{key} = {json.dumps(value)}" for key, value in table.items())


def by_replay(folder: Path, plate_map: Path, recording: Path) -> Path:
    """What all others are compared with."""
    spheroidd("run", configuration(folder, recording, "kind = 'replay'"), "--plain", check=None)
    return folder / "data"


def by_emulator(folder: Path, plate_map: Path, recording: Path) -> Path:
    """The emulator in process."""
    source = f"kind = 'emulator'\npreset = 'unit'\nslice_period_s = {PERIOD_S}\nrecording = '{recording}'"
    spheroidd("run", configuration(folder, plate_map, source), "--plain", check=None)
    return folder / "data"


def by_micromanager(folder: Path, plate_map: Path, recording: Path, exposure_ms: float = 5.0) -> Path:
    """A microscope's own configuration, tried with a recording behind Micro-Manager's real core."""
    stack = stack_of(recording)
    source = f"""kind = 'micromanager'
micromanager_dir = '/opt/micro-manager'
config = 'scope.cfg'
{toml(stack)}
z_start_um = 100.0
channel_group = "Laser line"
a01_um = [12000.0, 8000.0]
pitch_um = [9000.0, -9000.0]
x_limits_um = [0.0, 130000.0]
y_limits_um = [-90000.0, 20000.0]
z_limits_um = [0.0, 1000.0]
retract_z_um = 0.0
min_stall_s = 5.0
first_frame_s = 60.0
slice_period_s = {PERIOD_S}
channels.488 = {{ preset = "FITC", exposure_ms = {exposure_ms} }}
channels.561 = {{ preset = "Cy3", exposure_ms = {exposure_ms} }}"""
    path = configuration(folder, plate_map, source)
    spheroidd("run", path, "--plain", "--recording", recording, check=None)
    return folder / "data-trial"


def by_las_x(folder: Path, plate_map: Path, recording: Path) -> Path:
    """A fake LAS X that scans the recording into its Matrix Screener tree."""
    images = folder / "images"
    images.mkdir(parents=True)
    words = (images, "--as", "leica-cam", "--recording", recording, "--port", 0, "--period", PERIOD_S)
    with subprocess.Popen([*SPHEROIDD, "emulate", *map(str, words)], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            port = int(re.search(r"listens at [^:]+:(\d+) ", said)[1])  # type: ignore[index]
            source = f"kind = 'leica-cam'\nfolder = '{images}'\nport = {port}\ntemplate = 'spheroids'\nsettle_s = 2.0\n"
            source += toml(stack_of(recording))
            spheroidd("run", configuration(folder, plate_map, source), "--plain", check=None)
        finally:
            process.kill()
    return folder / "data"


def by_folder(folder: Path, plate_map: Path, recording: Path, *options: object) -> Path:
    """A tree that grows while it is watched."""
    out = folder / "out"
    words = (out, "--layout", "matrix-screener", "--pace", "real", "--recording", recording, "--name", "recorded")
    folder.mkdir(parents=True, exist_ok=True)
    with subprocess.Popen(
        [*SPHEROIDD, "emulate", *map(str, words), "--period", str(PERIOD_S), *map(str, options)],
        stdout=subprocess.DEVNULL,
    ) as process:
        try:
            _await((tree := out / "experiment--recorded").is_dir, "the tree begins")
            source = f"kind = 'matrix-screener'\nfolder = '{tree}'\nsettle_s = 8.0\nend_after_s = 30.0\n"
            source += f"poll_s = 0.5\nn_z = {stack_of(recording)['n_z']}"
            spheroidd("run", configuration(folder, plate_map, source), "--plain", check=None)
        finally:
            process.kill()
    return folder / "data"


def by_push(folder: Path, plate_map: Path, recording: Path, *options: object) -> Path:
    """A program that pushes over gRPC."""
    path = configuration(folder, plate_map, "kind = 'push'", service=True)
    with subprocess.Popen([*SPHEROIDD, "run", str(path), "--plain"], stdout=subprocess.DEVNULL) as daemon:
        try:
            words = (folder / "data", "--as", "push", "--recording", recording, "--period", PERIOD_S)
            spheroidd("emulate", *words, *options, check=None)
            daemon.wait(LIMIT_S)
        finally:
            daemon.kill()
    return folder / "data"


WAYS = {
    "emulator": by_emulator,
    "micromanager": by_micromanager,
    "leica-cam": by_las_x,
    "folder": by_folder,
    "push": by_push,
}


def _await(there: Any, what: str) -> None:
    deadline_s = time.monotonic() + STARTED_S
    while not there():
        if time.monotonic() > deadline_s:
            raise RuntimeError(f"waited in vain until {what}")
        time.sleep(0.05)


def rows(data: Path) -> dict[str, dict[str, Any]]:
    """Each well's row, without what says when it was made."""
    found = json.loads(spheroidd("results", data, "--json", check=None))
    return {row["well"]: {k: v for k, v in row.items() if not UNLIKE.search(k)} for row in found}


def slices(data: Path) -> list[tuple[str, str, int, int, float, float]]:
    """(well, channel, z, crc32c, acquired_s, acked_s) of every slice, in the order in which they were acquired."""
    with closing(sqlite3.connect(f"file:{(data / 'catalog.sqlite').as_posix()}?mode=ro", uri=True)) as catalog:
        return catalog.execute(
            "SELECT well, channel, z, crc32c, acquired_s, acked_s FROM slices ORDER BY acquired_s, z, channel"
        ).fetchall()


def pixels(data: Path) -> dict[tuple[str, str, int], int]:
    """Each slice's checksum."""
    return {(well, channel, z): crc for well, channel, z, crc, _, _ in slices(data)}


def lateness_s(data: Path) -> list[float]:
    """How long after it was due each slice was acquired, from its stack's first; a z-step's channels share it."""
    first: dict[str, float] = {}
    late = []
    for well, channel, z, _, acquired_s, _ in slices(data):
        due_s = PERIOD_S * (z + (0.5 if channel == "561" else 0.0))
        late.append(acquired_s - first.setdefault(well, acquired_s - due_s) - due_s)
    return late


def compare(name: str, data: Path, reference: Path) -> dict[str, Any]:
    """What one way gave beside `replay`."""
    mine, wanted = rows(data), rows(reference)
    late = sorted(lateness_s(data))
    acked = sorted(acked_s - acquired_s for *_, acquired_s, acked_s in slices(data))
    return {
        "way": name,
        "wells": len(mine),
        "rows_equal": mine == wanted,
        "rows_differ": sorted({k for w in wanted for k in wanted[w] if mine.get(w, {}).get(k) != wanted[w][k]}),
        "pixels_equal": pixels(data) == pixels(reference),
        "slices": len(late),
        "late": sum(one > PERIOD_S for one in late),
        "lateness_s_p50_max": [round(late[len(late) // 2], 4), round(late[-1], 4)] if late else None,
        "acknowledged_after_s_p50_max": [round(acked[len(acked) // 2], 4), round(acked[-1], 4)] if acked else None,
    }


def record(folder: Path, *options: object) -> Path:
    """The plate to be played: emulated, so that its truth is known; its map."""
    spheroidd("emulate", folder, "--preset", "unit", "--wells", WELLS, "--name", "recorded", *options)
    return folder / "map.csv"


def all_ways(folder: Path, recording: Path, chosen: Sequence[str] = tuple(WAYS)) -> list[dict[str, Any]]:
    """Every way beside `replay`."""
    reference = by_replay(folder / "replay", recording, recording)
    return [compare(name, WAYS[name](folder / name, recording, recording), reference) for name in chosen]


def main() -> None:
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        print(json.dumps({"recordings": all_ways(folder, record(folder / "recording"), sys.argv[1:] or tuple(WAYS))}))


if __name__ == "__main__":
    main()
