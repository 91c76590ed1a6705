"""The table of faults: the documentation shows it as it is, and no code is spelt anywhere else."""

import pickle
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType

import pytest

from spheroidd.inference.quality import plate_verdict, well_flags
from spheroidd.protocols.faults import EndedBy, FaultCode, Severity, known, of_flag, severity
from tests.places import ROOT
from tests.protocols.fault_document import PATH, with_faults

ROOMS = ("acquisition", "daemon", "inference", "protocols", "sim_emulator")
SOURCES = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py")) if path.name != "faults.py"]


def test_the_documentation_shows_the_table() -> None:
    text = PATH.read_text(encoding="utf-8")
    assert with_faults(text) == text, "`make docs` writes it"
    assert all(f"`{one}`" in text for one in EndedBy), "it says what `ended by` means"


def test_every_code_is_raised_somewhere() -> None:
    used = {name for path in SOURCES for code in _codes(path) for name in code.co_names}
    by_flag = {code.name for code in FaultCode if code.startswith("quality-")}  # raised by the flag of that name
    assert {code.name for code in FaultCode} - used - by_flag == set()


def test_every_flag_that_is_an_alarm_is_one_that_quality_raises() -> None:
    said = {text for module in (plate_verdict, well_flags) for text in _strings(Path(str(module.__file__)))}
    flags = [code.removeprefix("quality-") for code in FaultCode if code.startswith("quality-")]
    assert set(flags) <= said
    assert [of_flag(flag) for flag in flags] == [code for code in FaultCode if code.startswith("quality-")]


# "leica-cam" is a kind of source as well.
@pytest.mark.parametrize("code", [code for code in FaultCode if "-" in code and code != "leica-cam"], ids=str)
def test_no_code_is_spelt_by_hand(code: FaultCode) -> None:
    assert [str(path.relative_to(ROOT)) for path in SOURCES if code.value in _strings(path)] == []


def test_a_code_crosses_processes_and_files_as_its_text() -> None:
    for code in FaultCode:
        assert pickle.loads(pickle.dumps(code)) is code
        assert known(str(code)) is code


def test_a_code_that_is_not_known_here_is_a_warning() -> None:
    assert (known("laser-aged"), severity("laser-aged")) == (None, Severity.WARNING)


_SEEN: dict[Path, frozenset[str]] = {}


def _strings(path: Path) -> frozenset[str]:
    """Every text in a file's code."""
    if path not in _SEEN:
        _SEEN[path] = frozenset(text for code in _codes(path) for text in _texts(code.co_consts))
    return _SEEN[path]


def _texts(constant: object) -> Iterator[str]:
    if isinstance(constant, str):
        yield constant
    elif isinstance(constant, tuple | frozenset):
        for one in constant:
            yield from _texts(one)


def _codes(path: Path) -> Iterator[CodeType]:
    """A file as Python has compiled it, and keeps it: to parse all of them anew takes seconds."""
    code = SourceFileLoader(path.stem, str(path)).get_code(path.stem)
    waiting = [code] if code else []
    while waiting:
        yield (one := waiting.pop())
        waiting += [inner for inner in one.co_consts if isinstance(inner, CodeType)]
