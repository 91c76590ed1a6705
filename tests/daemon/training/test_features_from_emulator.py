"""What tells foreign images is made of emulated plates: every kind of stack, usual wells, and some in other voxels."""

import math

import numpy as np
import pytest
import torch

from spheroidd.daemon.training import features_from_emulator as made
from spheroidd.inference.segmentation.segmenter import UNetSegmenter, load_segmenter

KINDS = {"488+561 plate", "488+561 stack", "488", "561"}


@pytest.fixture(scope="module")
def segmenter() -> UNetSegmenter:
    torch.set_num_threads(1)
    return load_segmenter("emulator", "cpu", precision="fp32")


@pytest.fixture(scope="module")
def shown(segmenter: UNetSegmenter) -> dict[str, list[made.Shown]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(made, "WIDTHS", (0.7, 1.4))
        return made.plate_vectors("unit", 7300, segmenter)


def test_wells_are_shown_as_they_are_and_some_of_them_wider_and_narrower(shown: dict[str, list[made.Shown]]) -> None:
    assert set(shown) == KINDS
    for stacks in shown.values():
        assert {one.width for one in stacks} == {0.7, 1.0, 1.4}
        assert all(one.own == (one.width == 1.0) for one in stacks)


def test_a_reference_of_them_tells_widths_and_where_home_ends(shown: dict[str, list[made.Shown]]) -> None:
    known = made.reference(shown, shown, "abc", "by hand")
    assert set(known.homes) == KINDS
    for kind, home in known.homes.items():
        usual = [home.looks(one.vector) for one in shown[kind] if one.own]
        for seen in ([one.unlike for one in usual], [one.width_off for one in usual]):
            assert np.quantile(seen, 0.99) == pytest.approx(1 / 1.1)
        assert math.exp(-home.off) < 1 < math.exp(home.off)
    wide, narrow = (
        [known.homes["488+561 plate"].looks(one.vector) for one in shown["488+561 plate"] if one.width == width]
        for width in (1.4, 0.7)
    )
    assert np.median([one.width for one in wide]) == pytest.approx(1.4, rel=0.1)
    assert np.median([one.width for one in narrow]) == pytest.approx(0.7, rel=0.1)
    assert known.about["stacks"]["488+561 plate"][0] == sum(one.own for one in shown["488+561 plate"])


def test_wells_of_a_hard_plate_that_the_network_does_not_understand_are_left_out(
    segmenter: UNetSegmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(made, "WIDTHS", ())
    easy = made.plate_vectors("unit", 7300, segmenter)["488+561 plate"]
    monkeypatch.setattr(made.TrainingPlate, "is_easy", property(lambda _plate: False))
    right = made.plate_vectors("unit", 7300, segmenter)["488+561 plate"]
    monkeypatch.setattr(made, "_AGREES", 1.01)
    assert len(easy) / 2 < len(right) <= len(easy)
    assert made.plate_vectors("unit", 7300, segmenter) == {}
