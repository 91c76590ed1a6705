"""Trust and its flags: each flag has one meaning, the gravest decides, what a newer program wrote is not lost."""

import pytest

from spheroidd.protocols.trust import MEANINGS, Trust, TrustFlag, doubts, failed_reason, in_order, meaning, trust_of


def test_every_flag_has_a_meaning_a_weight_and_a_remedy() -> None:
    assert set(MEANINGS) == set(TrustFlag)
    for found in MEANINGS.values():
        assert found.weight in (Trust.CHECK, Trust.FAIL)
        assert found.meaning
        assert found.do


def test_no_two_flags_mean_the_same() -> None:
    assert len({found.meaning for found in MEANINGS.values()}) == len(MEANINGS)


@pytest.mark.parametrize(
    ("flags", "trust"),
    [
        ((), Trust.OK),
        ((TrustFlag.CLIPPED,), Trust.CHECK),
        ((TrustFlag.CLIPPED, TrustFlag.NO_CELL), Trust.FAIL),
        (("clipped",), Trust.CHECK),
        (("no-cell",), Trust.FAIL),
        (("flag-of-tomorrow",), Trust.CHECK),
    ],
)
def test_the_gravest_flag_decides(flags: tuple[str, ...], trust: Trust) -> None:
    assert trust_of(flags) is trust


def test_a_flag_of_a_newer_program_is_named() -> None:
    assert "flag-of-tomorrow" in meaning("flag-of-tomorrow").meaning


def test_the_reason_of_a_failed_row_names_what_failed_and_no_doubt() -> None:
    flags = (TrustFlag.NO_CELL, TrustFlag.CLIPPED)
    assert failed_reason(flags) == "its images failed: no cell was found, neither living nor dead"
    assert doubts(flags) == (MEANINGS[TrustFlag.CLIPPED].meaning,)
    assert doubts(None) == ()


def test_flags_are_told_in_the_tables_order_and_once() -> None:
    assert in_order([TrustFlag.CLIPPED, TrustFlag.NO_CELL, TrustFlag.CLIPPED]) == (TrustFlag.NO_CELL, TrustFlag.CLIPPED)
