"""The quick ones of `make cases`, and that every kind has two members."""

from collections import Counter
from pathlib import Path

import pytest

from tests.cases.case import Case, Plate
from tests.cases.every import every_case

QUICK = [case for case in every_case() if isinstance(case, Case) and case.quick]


@pytest.mark.parametrize("case", QUICK, ids=lambda case: case.name)
def test_a_case_gives_what_is_right(
    tmp_path: Path, case: Case, monkeypatch: pytest.MonkeyPatch, warm_program: tuple[str]
) -> None:
    monkeypatch.setattr("tests.cases.case.PROGRAM", warm_program)
    for outcome in case.outcomes(tmp_path):
        assert outcome.ok, outcome.happened


def test_every_kind_has_two_members_at_least() -> None:
    members: Counter[str] = Counter()
    for one in every_case():
        if isinstance(one, Plate):
            members.update(well.kind.split()[0] for well in one.wells if well.seen is not None)
        else:
            members[one.kind.split()[0]] += 1
    assert members.keys() >= {"A1", "A2", "A3", "B5", "B6", "C7", "C8", "C9", "C10", "D11"}
    assert min(members.values()) >= 2, members
