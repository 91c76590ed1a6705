"""Which pattern a plate goes on with, by what its first stacks say."""

import pytest

from spheroidd.daemon.scoring.plate_patterns import MAX_ASKED, doubts, plate_patterns
from spheroidd.protocols.sim_pattern import AngleEstimate, OrderEstimate, PatternEstimate
from spheroidd.protocols.stack import StackKey
from spheroidd.protocols.well import WellId

CHANNELS = ("488", "561")


def estimate(channel: str, usable: bool, n: int) -> PatternEstimate:
    order = OrderEstimate(1, 0.7, 0.01, 800.0, usable, "found" if usable else "not found")
    return PatternEstimate(channel, 0.25, n, (AngleEstimate(0, 1.7, 12.0, (0.0, 120.0, 240.0), False, (order,)),), 0.1)


def asked(*stacks: str) -> dict[StackKey, dict[str, PatternEstimate]]:
    """Each stack as a letter for each colour: u usable, - not."""
    return {
        StackKey("P1", WellId(0, n)): {
            c: estimate(c, said == "u", n + 1) for c, said in zip(CHANNELS, one, strict=True)
        }
        for n, one in enumerate(stacks)
    }


@pytest.mark.parametrize(
    ("stacks", "none_left", "found"),
    [
        ((), False, None),
        (("uu",), False, (1, 1)),
        (("u-",), False, None),
        (("u-", "uu"), False, (1, 2)),
        (("u-", "-u"), False, (1, 2)),
        (("u-",), True, (1, None)),
        (("--",) * MAX_ASKED, False, (None, None)),
        ((), True, (None, None)),
    ],
)
def test_the_first_sure_estimate_of_each_colour_is_the_plates(stacks, none_left, found):
    patterns = plate_patterns(asked(*stacks), CHANNELS, lambda: none_left)
    told = patterns and tuple(patterns[c] and patterns[c].n_slices for c in CHANNELS)
    assert told == found


def test_a_colour_that_goes_on_in_widefield_is_told_with_the_reason():
    stacks = asked("u-")
    known = plate_patterns(stacks, CHANNELS, lambda: True)
    (error,) = doubts(known, stacks, "P1")
    assert "the pattern of 561 cannot be trusted" in error.what
    assert "not found" in error.what
    assert not list(doubts(None, stacks, "P1"))
