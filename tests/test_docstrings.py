"""Every example in a docstring is executed."""

import doctest
import importlib
import pkgutil
from pathlib import Path
from types import ModuleType

import pytest

pytestmark = pytest.mark.lint

FOLDERS = ("acquisition", "daemon", "inference", "protocols", "sim_emulator", "testing")
MODULES = [
    module.name
    for folder in FOLDERS
    for module in pkgutil.walk_packages(importlib.import_module(f"spheroidd.{folder}").__path__, f"spheroidd.{folder}.")
    if not module.ispkg
]


def source(module: ModuleType) -> str:
    """`inspect.getsource` looks through all modules that are loaded, each time."""
    assert module.__file__ is not None
    return Path(module.__file__).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", MODULES)
def test_examples_give_what_they_say(name: str) -> None:
    """And every module can be imported by itself, in whatever order."""
    module = importlib.import_module(name)
    if ">>> " in source(module):
        done = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
        assert (done.failed, done.attempted > 0) == (0, True)


def test_every_room_is_walked() -> None:
    assert len(MODULES) >= 300


def test_some_module_has_examples() -> None:
    found = sum(source(importlib.import_module(name)).count(">>> ") for name in MODULES)
    assert found >= 5
