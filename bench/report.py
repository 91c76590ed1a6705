"""The report of a 384-well plate: seconds and bytes, HTML and PDF, the command as a user calls it.

    python -m bench.report

The plate is simulated as rows: 40 compounds at 8 doses, 32 untreated and 32 killed wells, 400 slices in the ledger of
each stack. The wells whose pictures are shown have images of 200 x 200 x 200 voxels and two channels, which is what a
report reads of a `screen` stack (its third pyramid level).
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.report.images import choose
from spheroidd.daemon.report.well_entry import WellEntry
from spheroidd.protocols.stack import StackKey
from tests.daemon.report import plates

COMMAND = (sys.executable, "-c", "from spheroidd.daemon.cli import main; main()")
N_COMPOUNDS, N_Z = 40, 200
SIDE_PX = 200


def simulate(data: Path) -> None:
    """The plate's rows and the pictures that a report will choose."""
    ic50_um = {f"C{n:02d}": 0.02 * 10 ** (4.5 * n / N_COMPOUNDS) for n in range(N_COMPOUNDS)}
    wells, live = plates.screen_plate("bench384", 16, 24, ic50_um)
    plates.register(data, wells, plan=lambda key: plates.plan_of(key, N_Z, SIDE_PX))
    plates.score(data, wells, live)
    with Catalog.read_only(data) as catalog:
        rows = catalog.result_rows("bench384")
    entries = [WellEntry(plates.wells_of([r.result.well])[0], r.treatment, (r.result,)) for r in rows]
    for number, entry in enumerate(choose(entries)):
        plan = plates.plan_of(StackKey("bench384", entry.well), N_Z, SIDE_PX)
        plates.store_images(data, wells, plan, live[entry.well] / plates.FULL_UM3, number)


def measure(data: Path, out: Path, *, pdf: bool) -> dict[str, Any]:
    """One call of the command."""
    html, paper = out / "report.html", out / "report.pdf"
    began = time.perf_counter()
    options = ["--pdf", str(paper)] if pdf else []
    process = psutil.Popen([*COMMAND, "report", str(data), "-o", str(html), *options], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    figures = {
        "exit_code": os.waitstatus_to_exitcode(status),
        "seconds": round(time.perf_counter() - began, 2),
        "cpu_s": round(usage.ru_utime + usage.ru_stime, 2),
        "peak_rss_mb": round(usage.ru_maxrss / 1024),
        "html_mb": round(html.stat().st_size / 1e6, 2),
    }
    return {**figures, "pdf_mb": round(paper.stat().st_size / 1e6, 2)} if pdf else figures


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        simulate(data)
        print(
            json.dumps(
                {
                    "wells": 384,
                    "compounds": N_COMPOUNDS,
                    "html": [measure(data, Path(folder), pdf=False) for _ in range(3)],
                    "html_and_pdf": measure(data, Path(folder), pdf=True),
                },
                indent=1,
            )
        )


if __name__ == "__main__":
    main()
