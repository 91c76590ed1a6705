"""Scores recorded plates as they appear: scan -> score -> quality -> export -> report, mapped over plates.

A plate is a folder of `SPHEROIDD_PLATES` with plate.csv in it and DONE, which whoever records writes last. What is made
of it lies in `SPHEROIDD_OUT`/NAME; a plate with a report there is done, so a second run finds nothing to do.

Airflow and spheroidd live in environments of their own: a task is one command, and between tasks go names only. A task
is a plate, never a stack: what a task costs (seconds, with a scheduler) is what a stack costs. `score` is tried again
where its exit code says that it helps (75: the directory is held), and where the worker went away; a plate that cannot
be scored fails at once.
"""

import os
import subprocess
from datetime import timedelta
from pathlib import Path

from airflow.sdk import Asset, dag, get_current_context, task, task_group
from airflow.sdk.exceptions import AirflowException, AirflowFailException

COMMAND = os.environ.get("SPHEROIDD", "spheroidd")
PLATES = Path(os.environ.get("SPHEROIDD_PLATES", "/plates"))
OUT = Path(os.environ.get("SPHEROIDD_OUT", "/results"))
EXTRA = os.environ.get("SPHEROIDD_SCORE_OPTIONS", "").split()  # such as --engine ray --ray-address head:6379
TRY_LATER, NO_VIABILITY = 75, 1
ENDED = "replay-ended.txt"  # with which code
PLATE_LIMIT = timedelta(hours=24)
REPORTS = Asset("spheroidd-reports")


def spheroidd(plate: str, *arguments: object, may_say: tuple[int, ...] = ()) -> int:
    """One command in its own environment; its exit code decides whether to try again (docs/scale.md has the table)."""
    get_current_context()["plate"] = plate  # what Airflow's page calls this task
    # Airflow's own settings would lead spheroidd's Python to Airflow's packages.
    own = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "AIRFLOW", "VIRTUAL_ENV"))}
    words = [COMMAND, *map(str, arguments)]
    done = subprocess.run(words, env=own, capture_output=True, text=True, check=False)
    print(" ".join(words), done.stdout, done.stderr, sep="\n")
    if done.returncode == 0 or done.returncode in may_say:
        return done.returncode
    said = (done.stderr.strip() or done.stdout.strip()).splitlines()[-2:]
    what = f"{arguments[0]} ended with {done.returncode}: {' '.join(said)}"
    if done.returncode == TRY_LATER or done.returncode < 0:
        raise AirflowException(what)
    raise AirflowFailException(what)


@dag(
    schedule=None,
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=float(os.environ.get("SPHEROIDD_RETRY_S", "300")))},
    tags=["spheroidd"],
    doc_md=__doc__,
)
def spheroidd_screen() -> None:
    """Recorded plates to reports."""

    @task
    def scan() -> list[str]:
        """The plates that are whole and have no report yet."""
        found = sorted(path.parent.name for path in PLATES.glob("*/DONE") if (path.parent / "plate.csv").exists())
        return [name for name in found if not (OUT / name / "report.html").exists()]

    # As many slots as there are GPUs: `airflow pools set spheroidd_gpus 8 "one a GPU"`.
    @task(pool="spheroidd_gpus", map_index_template="{{ plate }}", execution_timeout=PLATE_LIMIT)
    def score(name: str) -> str:
        """Every stack that has no row yet. That a well has no viability (1) is for the report and for `wells`."""
        plate_map = PLATES / name / "plate.csv"
        replay = ("replay", plate_map, "--name", name, "--data", OUT / name / "data", "--plain", *EXTRA)
        code = spheroidd(name, *replay, may_say=(NO_VIABILITY,))
        (OUT / name / ENDED).write_text(str(code), encoding="utf-8")
        return name

    @task(map_index_template="{{ plate }}", execution_timeout=timedelta(hours=1))
    def quality(name: str) -> str:
        """Judge the plate; that it must be looked at (1) or fails (3) is a result and stops nothing."""
        spheroidd(name, "quality", OUT / name / "data", may_say=(1, 3))
        return name

    @task(map_index_template="{{ plate }}", execution_timeout=timedelta(hours=1))
    def export(name: str) -> str:
        """Tables for other programs."""
        spheroidd(name, "export", OUT / name / "data", "--out", OUT / name / "tables")
        return name

    @task(map_index_template="{{ plate }}", execution_timeout=timedelta(hours=1), outlets=[REPORTS])
    def report(name: str) -> str:
        """The report, at once: its file is what says that a plate is done."""
        partial = OUT / name / "report.partial.html"
        spheroidd(name, "report", OUT / name / "data", "--out", partial)
        partial.replace(OUT / name / "report.html")
        return name

    @task(map_index_template="{{ plate }}")
    def wells(name: str) -> None:
        """Fail a plate with a well that has no viability, once, so that somebody looks into its report."""
        get_current_context()["plate"] = name
        if (OUT / name / ENDED).read_text(encoding="utf-8") != "0":
            raise AirflowFailException(f"{name}: a well has no viability; its report says which and why")

    @task_group
    def plate(name: str) -> None:
        """One plate; what goes wrong with it stops no other."""
        wells(report(export(quality(score(name)))))

    plate.expand(name=scan())


spheroidd_screen()
