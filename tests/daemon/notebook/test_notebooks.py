"""The notebooks of the documentation run to their end on a plate, cell by cell, and say what they promise."""

import ast
import shutil
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from tests.daemon.notebook.notebooks import NOTEBOOKS, cells

SAID = {
    "screen-analysis": "from the truth in the mean of 5 wells",
    "score-again": "5 wells changed",
    "gate-by-quality": "excluded by a person: no well",
}


@pytest.fixture
def no_windows() -> Iterator[None]:
    import matplotlib.pyplot as plt

    plt.switch_backend("agg")
    yield
    plt.close("all")


def _run(cell: str, names: dict[str, Any]) -> None:
    """As a kernel does: the value of a last line that is an expression is shown."""
    tree = ast.parse(cell)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "<cell>", "exec"), names)
    if isinstance(last, ast.Expr):
        repr(eval(compile(ast.Expression(last.value), "<cell>", "eval"), names))


@pytest.mark.usefixtures("no_windows")
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_to_its_end(
    notebook: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warm_program: tuple[str]
) -> None:
    monkeypatch.setattr("spheroidd.daemon.notebook.plate._COMMAND", warm_program)
    data = tmp_path / "data"
    shutil.copytree(undisturbed.parent / "data", data)
    monkeypatch.setenv("SPHEROIDD_DATA", str(data))
    monkeypatch.chdir(tmp_path)
    said, names = StringIO(), {"__name__": "__main__"}
    with redirect_stdout(said):
        for cell in cells(notebook):
            _run(cell, names)
    assert SAID[notebook.stem] in said.getvalue()


def test_there_is_a_notebook_for_each_use() -> None:
    assert {path.stem for path in NOTEBOOKS} == set(SAID)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_outputs(notebook: Path) -> None:
    text = notebook.read_text(encoding="utf-8")
    assert '"outputs": []' in text
    assert '"output_type"' not in text
