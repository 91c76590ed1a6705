"""The notebooks of docs/notebooks: their cells, and executed in Jupyter for the site.

`python -m tests.daemon.notebook.notebooks DATA OUT` executes each of them in a kernel of its own on a copy of a plate,
which it images first where there is none, and writes them with their outputs into OUT.
"""

import json
import os
import shutil
import sys
from pathlib import Path

from tests.faults.plate_runs import run, write_config
from tests.places import DOCS

NOTEBOOKS = tuple(sorted((DOCS / "notebooks").glob("*.ipynb")))
TIMEOUT_S = 240
PLATE = {"n_z": 24, "compounds": 2, "doses": 6, "negative_controls": 4, "positive_controls": 2}


def cells(notebook: Path, kind: str = "code") -> list[str]:
    """The text of a notebook's cells of one kind, in their order."""
    found = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in found if cell["cell_type"] == kind]


def execute(notebook: Path, data: Path, out: Path) -> None:
    """Run a notebook as Jupyter does; nbclient's error where a cell fails."""
    import nbformat
    from nbclient import NotebookClient

    node = nbformat.read(notebook, as_version=4)
    os.environ["SPHEROIDD_DATA"] = str(data)
    NotebookClient(node, timeout=TIMEOUT_S, kernel_name="python3").execute()
    for cell in node.cells:
        cell.metadata.pop("execution", None)  # when it ran, which would be another time each time
    nbformat.write(node, out / notebook.name)


def main(work: Path, out: Path) -> int:
    """Image the plate where it is not there, then execute every notebook on a copy of it."""
    work = work.resolve()  # a path in settings is relative to their file
    data = work / "data"
    if not (work / "finished").exists():
        code = run(write_config(work, name="demo", source=PLATE), timeout_s=600)
        if code not in (0, 1):  # 1: a well to be looked at, as plates have them
            print((work / "plate.log").read_text(encoding="utf-8"), file=sys.stderr)
            return code
        (work / "finished").touch()
    out.mkdir(parents=True, exist_ok=True)
    for notebook in NOTEBOOKS:
        copy = work / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(data, copy)
        execute(notebook, copy, out)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
