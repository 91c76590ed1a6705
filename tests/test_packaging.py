"""What a wheel holds: every room, and every file that is no module. An editable install works without these rows."""

import tomllib
from pathlib import Path

from tests.places import ROOT

FOLDERS = ("acquisition", "daemon", "inference", "protocols", "sim_emulator", "testing")
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]


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


def _patterns(path: Path) -> list[str]:
    relative = path.relative_to(ROOT)
    found = []
    for package, patterns in SETUPTOOLS["package-data"].items():
        folder = Path(*package.split(".")[1:]) if package != "*" else None
        if folder is not None and relative.is_relative_to(folder):
            found += [pattern for pattern in patterns if relative.relative_to(folder).match(pattern)]
    return found
