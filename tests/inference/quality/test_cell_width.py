"""How wide cells are, by how they look: a plate's wells say it together; where nobody can tell, it is refused."""

from dataclasses import replace

import pytest

from spheroidd.inference.quality.cell_width import LEAST_CELLS, StackWidth, plate_width
from spheroidd.protocols.evidence import StackLooks
from spheroidd.protocols.results import USUAL_CELL_UM

OFF = 0.2  # logarithm of the width from which on a stack is foreign


def stack(width: float, n_cells: int = 200, **given: float) -> StackWidth:
    looks = StackLooks(given.get("unlike", 0.6), width, given.get("off", abs(width - 1) / OFF))
    return StackWidth("A01", n_cells, given.get("stated"), looks)


def test_wells_together_say_the_width_in_micrometres() -> None:
    told = plate_width([stack(0.66), stack(0.7), stack(0.74)])
    assert told.um == pytest.approx(0.7 * USUAL_CELL_UM, rel=0.01)
    assert (told.low, told.high) == pytest.approx((0.66 * USUAL_CELL_UM, 0.74 * USUAL_CELL_UM))
    assert (told.stacks, told.fits, told.why) == (3, False, None)


def test_what_was_stated_is_what_widths_are_told_in() -> None:
    told = plate_width([stack(1.05, stated=9.0), stack(1.0, stated=9.0)])
    assert told.um == pytest.approx(9.2, abs=0.05)
    assert told.fits


@pytest.mark.parametrize(
    ("stacks", "fits"),
    [
        ([stack(1.28, off=0.9)], True),  # one stack may be off by so much
        ([stack(1.28, off=0.9)] * 6, False),  # six that say the same are not
        ([stack(0.78, off=0.9)] * 6, False),
        ([stack(1.12, off=0.4)] * 24, True),  # a plate of usual cells may be told as wide as that
    ],
)
def test_several_stacks_say_it_more_surely_than_one(stacks: list[StackWidth], fits: bool) -> None:
    assert plate_width(stacks).fits == fits


def test_doubts_about_sizes_alone_do_not_silence_a_well() -> None:
    told = plate_width([replace(stack(1.4), flags=("object-size", "cells-look-large"))])
    assert told.um == pytest.approx(1.4 * USUAL_CELL_UM)


@pytest.mark.parametrize(
    ("stacks", "why"),
    [
        ([], "no stack has 10 cells"),
        ([stack(0.7, n_cells=LEAST_CELLS - 1)], "no stack has 10 cells"),
        ([StackWidth("A01", 300, None, None)], "does not say"),
        ([stack(1.5, unlike=4.0)] * 3, "by more than a width explains"),
        ([stack(0.7), stack(1.2)], "disagree"),
        ([stack(2.2)] * 3, "2.2 times as wide"),
        ([stack(0.45)] * 3, "check the voxel size"),
        ([replace(stack(1.4), flags=("cells-look-large", "out-of-focus"))], "without another doubt"),
    ],
)
def test_where_nobody_can_tell_it_is_refused(stacks: list[StackWidth], why: str) -> None:
    told = plate_width(stacks)
    assert told.um is None
    assert not told.fits
    assert told.why is not None
    assert why in told.why
