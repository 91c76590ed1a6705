"""A little of `make fuzz`: each parser reads what is good, and a few hundred bad inputs end in an error of our own."""

import json
import logging
import warnings
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spheroidd.protocols.errors import SpheroiddError
from tests.fuzz.__main__ import main
from tests.fuzz.campaign import Found, _execute, fuzz
from tests.fuzz.mutations import mutated
from tests.fuzz.parsers import PARSERS, Parser

NEVER_READ = ("model package",)  # its weights are left out: 6 MB for each input


@pytest.mark.parametrize("parser", PARSERS, ids=lambda parser: parser.name)
def test_a_parser_reads_what_is_good_and_lets_nothing_escape(tmp_path: Path, parser: Parser) -> None:
    logging.disable()
    try:
        seeds, take = parser.set_up(tmp_path)
        read = 0
        for seed in seeds:
            with warnings.catch_warnings(action="ignore"):
                try:
                    take(seed)
                    read += 1
                except SpheroiddError:
                    continue
        assert read or not seeds or parser.name in NEVER_READ
        found = fuzz(parser, _fresh(tmp_path), Random(0), executions=25, seconds=5.0)
    finally:
        logging.disable(logging.NOTSET)
    assert found.escapes == {}
    assert found.executions or not seeds


def _fresh(folder: Path) -> Path:
    (folder / "again").mkdir()
    return folder / "again"


@given(content=st.binary(max_size=200), chance=st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_mutation_is_bytes_whatever_it_is_made_of(content: bytes, chance: Random) -> None:
    assert isinstance(mutated(content, chance), bytes)
    assert len(mutated(content, chance)) < 500_000


def test_what_escapes_is_kept_with_its_place() -> None:
    def take(content: bytes) -> None:
        if content == b"refused":
            raise SpheroiddError("no")
        if content == b"deep":
            raise RecursionError("too deep")

    found = Found()
    for content in (b"good", b"refused", b"deep", b"deep"):
        _execute(take, content, found)
    assert (found.executions, found.read, found.refused) == (4, 1, 1)
    assert list(found.escapes.values()) == ["RecursionError: too deep"]
    assert list(found.inputs.values()) == [b"deep"]


def test_a_campaign_goes_on_where_the_last_one_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state, page = tmp_path / "state.json", tmp_path / "page.md"
    try:
        for wanted in ("40", "90"):
            options = ("--only", "labware", "--executions", wanted, "--state", str(state), "--out", str(page))
            monkeypatch.setattr("sys.argv", ["fuzz", *options, "--keep", str(tmp_path / "escapes")])
            assert main() == 0
    finally:
        logging.disable(logging.NOTSET)
    assert json.loads(state.read_text())["labware"]["executions"] == 90
    assert "90 executions" in page.read_text()
    assert "| labware | 90 |" in page.read_text()
