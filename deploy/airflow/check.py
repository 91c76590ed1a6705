"""Runs the DAG in earnest, in this process and without a scheduler: `make airflow-test`.

Two recorded plates become two reports; a second run finds nothing to do and writes nothing; a plate whose images are
missing fails once, and is not tried three times; one whose directory is held is tried again.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

HERE = Path(__file__).parent
BIN = Path(sys.executable).parent
FOLDER = Path(sys.argv[1])
SPHEROIDD = sys.argv[2]
CALLS, WRAPPED = FOLDER / "calls.txt", FOLDER / "spheroidd"  # the command, which writes its end and itself down
PLATES, OUT = FOLDER / "plates", FOLDER / "results"
ENVIRONMENT = {
    **os.environ,
    "AIRFLOW_HOME": str(FOLDER / "airflow"),
    "AIRFLOW__CORE__DAGS_FOLDER": str(HERE / "dags"),
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
    "SPHEROIDD": str(WRAPPED),
    "SPHEROIDD_PLATES": str(PLATES),
    "SPHEROIDD_OUT": str(OUT),
    "SPHEROIDD_SCORE_OPTIONS": "--threads 1",
    "SPHEROIDD_RETRY_S": "1",
}


def airflow(*words: str, check: bool = True) -> str:
    """One command of Airflow; what it said."""
    done = subprocess.run(
        [str(BIN / "airflow"), *words], env=ENVIRONMENT, capture_output=True, text=True, timeout=400, check=False
    )
    if check and done.returncode:
        sys.exit(
            f"airflow {' '.join(words)} ended with {done.returncode}\n{done.stdout[-6000:]}\n{done.stderr[-3000:]}"
        )
    return done.stdout + done.stderr


def record(name: str) -> None:
    """A recorded plate of three wells."""
    words = [SPHEROIDD, "emulate", PLATES / name, "--preset", "unit", "--wells", "A01,A02,B01", "--name", name]
    subprocess.run([*map(str, words)], check=True, capture_output=True, text=True, timeout=200)
    (PLATES / name / "map.csv").rename(PLATES / name / "plate.csv")
    (PLATES / name / "DONE").touch()


def written() -> dict[str, str]:
    """Every file of the results, by what is in it; a lock's own file says nothing."""
    files = [path for path in OUT.rglob("*") if path.is_file() and path.name != "daemon.lock"]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def calls(name: str, *codes: str) -> int:
    """How often `spheroidd replay` of a plate ended, with one of these exit codes where some are given."""
    lines = CALLS.read_text(encoding="utf-8").splitlines() if CALLS.exists() else []
    found = [line.split()[0] for line in lines if f"replay {PLATES / name / 'plate.csv'}" in line]
    return sum(code in codes or not codes for code in found)


def must(true: bool, what: str, said: str = "") -> None:
    """Say what was seen, and end where it is not so."""
    print(f"{'ok' if true else 'NOT SO'}: {what}", flush=True)
    if not true:
        sys.exit(said[-8000:])


def holding(data: Path, name: str) -> threading.Thread:
    """Somebody else who has a data directory until the first try has met it."""
    data.mkdir(parents=True, exist_ok=True)
    program = f"import filelock, sys; lock = filelock.FileLock({str(data / 'daemon.lock')!r}); lock.acquire(); "
    program += "print('held', flush=True); sys.stdin.read()"
    python = str(Path(SPHEROIDD).parent / "python")
    process = subprocess.Popen([python, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()

    def let_go() -> None:
        end_s = time.monotonic() + 300
        while not calls(name, "75") and time.monotonic() < end_s:
            time.sleep(0.1)
        process.communicate(timeout=30)

    thread = threading.Thread(target=let_go, daemon=True)
    thread.start()
    return thread


def main() -> None:
    """The four stories."""
    began_s = time.monotonic()
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    noted = f'#!/bin/sh\n"{SPHEROIDD}" "$@"\ncode=$?\necho "$code $*" >> "{CALLS}"\nexit $code\n'
    WRAPPED.write_text(noted, encoding="utf-8")
    WRAPPED.chmod(0o755)
    airflow("db", "migrate")
    airflow("pools", "set", "spheroidd_gpus", "1", "one a GPU")
    record("P1")
    record("P2")
    must(not airflow("dags", "list-import-errors").count("spheroidd_screen"), "the DAG is imported without an error")
    said = airflow("dags", "test", "spheroidd_screen")
    must(
        (calls("P1", "0", "1"), calls("P2", "0", "1"), calls("P1"), calls("P2")) == (1, 1, 1, 1),
        "two plates are scored, each once",
        said,
    )
    reports = sorted(path.parent.name for path in OUT.glob("*/report.html"))
    must(reports == ["P1", "P2"], f"reports of {', '.join(reports)}", said)
    must(all((OUT / name / "tables").is_dir() for name in reports), "tables of both", said)
    before = written()
    called = CALLS.read_text(encoding="utf-8")
    said = airflow("dags", "test", "spheroidd_screen")
    must(CALLS.read_text(encoding="utf-8") == called, "a second run calls nothing", said)
    must(written() == before, f"and writes none of {len(before)} files", said)
    record("P3")
    next((PLATES / "P3").rglob("*.tif*")).unlink()
    record("P4")
    (OUT / "P4").mkdir(parents=True)
    holder = holding(OUT / "P4" / "data", "P4")
    said = airflow("dags", "test", "spheroidd_screen", check=False)
    holder.join(60)
    must(calls("P3") == calls("P3", "1") == 1, f"a plate that lacks an image is tried {calls('P3')} time", said)
    must("P3: a well has no viability" in said, "and fails", said)
    must((OUT / "P3" / "report.html").exists(), "behind its report", said)
    met, tried = calls("P4", "75"), calls("P4")
    must(
        met > 0 and calls("P4", "0", "1") == 1,
        f"a plate whose directory was held ({met} times) is tried {tried} times",
        said,
    )
    must((OUT / "P4" / "report.html").exists(), "and has its report, whatever became of the other", said)
    print(f"{time.monotonic() - began_s:.0f} s")


main()
