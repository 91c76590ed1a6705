"""What a wheel holds: every room, and every file that is no module. An editable install works without these rows.

And what it asks for: every library that is imported is declared, not merely there because another one needs it.
"""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from tests.places import ROOT

FOLDERS = ("acquisition", "daemon", "inference", "protocols", "sim_emulator", "testing")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SETUPTOOLS = PYPROJECT["tool"]["setuptools"]
EXTRAS = PYPROJECT["project"]["optional-dependencies"]
# What the two commands of a fresh machine install, and what a user's installation may add.
OF_TESTS = ("export", "micromanager", "proto", "test", "train", "useq")
OF_PRODUCT = ("export", "micromanager", "ray", "train", "useq")


def test_every_room_is_packaged() -> None:
    rooms = {
        "spheroidd." + ".".join(path.parent.relative_to(ROOT).parts)
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("__init__.py")
    }
    assert rooms == set(SETUPTOOLS["packages"])


def test_every_room_says_in_a_sentence_what_it_is() -> None:
    for package in SETUPTOOLS["packages"]:
        text = ROOT.joinpath(*package.split(".")[1:], "__init__.py").read_text()
        assert text.startswith('"""'), package
        assert "." in text.partition("\n")[0], package


def test_every_data_file_is_packaged() -> None:
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and path.suffix in {
                ".j2",
                ".css",
                ".js",
                ".proto",
                ".pyi",
                ".safetensors",
                ".json",
                ".md",
            }:
                assert _patterns(path), path


@pytest.mark.parametrize(
    ("folders", "extras"),
    [(FOLDERS[:-1], OF_PRODUCT), (("testing", "tests"), OF_TESTS)],
    ids=["product", "tests"],
)
def test_every_imported_library_is_declared(folders: tuple[str, ...], extras: tuple[str, ...]) -> None:
    declared = {_normal(line) for line in PYPROJECT["project"]["dependencies"]}
    declared |= {_normal(line) for extra in extras for line in EXTRAS[extra]}
    distributions = packages_distributions()
    ours = {"spheroidd", "tests", "bench"}
    unknown = {
        name: where
        for folder in folders
        for name, where in _imports(ROOT / folder)
        if name not in sys.stdlib_module_names and name not in ours
        if not declared & {_normal(found) for found in distributions.get(name, [name])}
    }
    assert not unknown


def _imports(folder: Path) -> Iterator[tuple[str, str]]:
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                names = [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []
            yield from ((name.partition(".")[0], f"{path.relative_to(ROOT)}:{node.lineno}") for name in names)


def _normal(requirement: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", requirement, maxsplit=1)[0]).lower()


def _patterns(path: Path) -> list[str]:
    relative = path.relative_to(ROOT)
    found = []
    for package, patterns in SETUPTOOLS["package-data"].items():
        folder = Path(*package.split(".")[1:]) if package != "*" else None
        if folder is not None and relative.is_relative_to(folder):
            found += [pattern for pattern in patterns if relative.relative_to(folder).match(pattern)]
    return found
