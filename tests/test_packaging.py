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
from tests.release import faults_of, in_wheel, shipped

pytestmark = pytest.mark.lint

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SETUPTOOLS = PYPROJECT["tool"]["setuptools"]
EXTRAS = PYPROJECT["project"]["optional-dependencies"]
# What `make test` and `make docs` install, and what a user's installation may add.
OF_TESTS = ("docs", "export", "micromanager", "notebook", "proto", "test", "train", "useq")
OF_PRODUCT = ("export", "micromanager", "notebook", "ray", "train", "useq")
FOLDERS = {folder: package for package, folder in SETUPTOOLS["package-dir"].items()}


def test_every_room_is_packaged() -> None:
    rooms = {
        ".".join((package, *path.parent.relative_to(ROOT / folder).parts))
        for folder, package in FOLDERS.items()
        for path in (ROOT / folder).rglob("__init__.py")
    }
    assert rooms == set(SETUPTOOLS["packages"])


def test_every_folder_of_the_program_is_mapped_and_goes_into_the_image() -> None:
    """A folder that is mapped and not copied makes the image's installation fail."""
    rooms = {path.parent.name for path in ROOT.glob("*/py.typed")}
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text()
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert rooms == set(FOLDERS)
    assert [name for name in FOLDERS if f"COPY {name} {name}\n" not in dockerfile or f"!{name}" not in ignored] == []


def test_type_checkers_find_every_folder() -> None:
    links = ROOT / "tests" / "_typeroot" / "spheroidd"
    for folder, package in FOLDERS.items():
        inner = links.joinpath(*package.split(".")[1:])
        assert (inner / "__init__.py").samefile(ROOT / folder / "__init__.py")


def test_every_room_says_in_a_sentence_what_it_is() -> None:
    for package in SETUPTOOLS["packages"]:
        text = (_folder(package) / "__init__.py").read_text()
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
                ".npz",
                ".json",
                ".md",
            }:
                assert _patterns(path), path


@pytest.mark.parametrize(
    ("folders", "extras"),
    [(tuple(set(FOLDERS) - {"testing"}), OF_PRODUCT), (("testing", "tests"), OF_TESTS)],
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
        for node in _statements(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                names = [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []
            yield from ((name.partition(".")[0], f"{path.relative_to(ROOT)}:{node.lineno}") for name in names)


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """It and the statements within it, without their expressions, which hold no import and are most of a tree."""
    yield node
    for part in ("body", "orelse", "finalbody", "handlers", "cases"):
        for inner in within if isinstance(within := getattr(node, part, ()), list) else ():
            yield from _statements(inner)


def _normal(requirement: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", requirement, maxsplit=1)[0]).lower()


def _folder(package: str) -> Path:
    root = next(root for root in (package, *_parents(package)) if root in SETUPTOOLS["package-dir"])
    return ROOT.joinpath(SETUPTOOLS["package-dir"][root], *package.removeprefix(root).strip(".").split("."))


def _parents(package: str) -> list[str]:
    parts = package.split(".")
    return [".".join(parts[:n]) for n in range(len(parts) - 1, 0, -1)]


def _patterns(path: Path) -> list[str]:
    relative = path.relative_to(ROOT)
    found = []
    for package, patterns in SETUPTOOLS["package-data"].items():
        folder = _folder(package).relative_to(ROOT) if package != "*" else None
        if folder is not None and relative.is_relative_to(folder):
            found += [pattern for pattern in patterns if relative.relative_to(folder).match(pattern)]
    return found


FILES = ("api/__init__.py", "inference/weights/emulator.json", "examples/a.toml")


def test_a_distribution_that_lacks_weights_or_holds_tests_is_refused() -> None:
    wanted = [
        in_wheel(name, "0.1.0") for name in ("api/__init__.py", "inference/weights/emulator.json", "examples/a.toml")
    ]
    assert wanted == [
        "spheroidd/__init__.py",
        "spheroidd/inference/weights/emulator.json",
        "spheroidd-0.1.0.data/data/share/spheroidd/examples/a.toml",
    ]
    assert faults_of([*wanted, "spheroidd/testing/__init__.py"], wanted) == []
    assert faults_of([wanted[0], wanted[2], "tests/test_packaging.py", "spheroidd/a.nbi"], wanted) == [
        "lacks spheroidd/inference/weights/emulator.json",
        "holds spheroidd/a.nbi",
        "holds tests/test_packaging.py",
    ]


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="a release is made from a clone")
def test_a_release_holds_examples_weights_cards_templates_and_no_test() -> None:
    names = shipped()
    kinds = {".safetensors", ".npz", ".json", ".j2", ".css", ".js", ".proto", ".toml", ".csv"}
    assert kinds <= {Path(name).suffix for name in names}
    assert "inference/weights/emulator.json" in names
    assert not [name for name in names if name.startswith(("tests/", "bench/"))]


def test_the_changelog_has_a_section_for_each_version() -> None:
    heads = [
        line for line in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").splitlines() if line.startswith("## ")
    ]
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert heads[0] == "## Unreleased"
    assert heads[1].startswith(f"## {version} (")


def test_the_image_holds_every_dependency() -> None:
    """The locks are made by `deploy/lock/compile.py`; what one lacks, an image lacks when it is run."""
    locks = "\n".join((ROOT / "deploy" / "lock" / name).read_text() for name in ("base.txt", "cpu.txt"))
    wanted = {re.split(r"[\[<>=;! ]", one)[0] for one in PYPROJECT["project"]["dependencies"]}
    assert sorted(one for one in wanted if not re.search(rf"^{one}==", locks, re.MULTILINE)) == []
