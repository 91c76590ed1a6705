"""A few wells of the smallest preset, spoiled: each kind is found, and healthy wells are left alone."""

import pytest

from bench.spoiled import SPOILED
from bench.trust import SpoiledPlate
from spheroidd.inference.segmentation.segmenter import load_segmenter
from spheroidd.protocols.plate import WellRole

SETTINGS = {
    "preset": "unit",
    "seed": 311,
    "compounds": 1,
    "doses": 2,
    "top_dose_um": 5.0,
    "negative_controls": 2,
    "positive_controls": 1,
}
KINDS = {one.kind: one for one in SPOILED}  # the weaker of each kind


@pytest.fixture(scope="module")
def plate() -> SpoiledPlate:
    return SpoiledPlate(SETTINGS, load_segmenter(None, "cpu", precision="fp32"), slice(None))


def test_healthy_wells_have_no_flag(plate: SpoiledPlate) -> None:
    assert not any(plate.relabelled({}).values())


@pytest.mark.parametrize(
    ("kind", "flag"),
    [
        ("camera noise only", "camera-noise"),
        ("zeros", "channel-flat"),
        ("too dim", "too-dim"),
        ("out of focus", "out-of-focus"),
        ("debris only", "debris-only"),
        ("red debris", "live-dye-absent"),
        ("calcein absent", "live-dye-absent"),
        ("PI absent", "dead-dye-absent"),
        ("one channel copied", "channels-identical"),
        ("dyes exchanged", "channels-exchanged"),
        ("pixel size x 2", "pixel-size"),
        ("pixel size x .5", "pixel-size"),
        ("z step x 3", "pixel-size"),
        ("half the field shaded", "shaded"),
        ("a slice repeated", "repeated-slice"),
    ],
)
def test_a_spoiled_well_is_found(plate: SpoiledPlate, kind: str, flag: str) -> None:
    assert flag in plate.one_well(KINDS[kind], "B01")


def test_exchanged_controls_are_found(plate: SpoiledPlate) -> None:
    untreated, killed = WellRole.NEGATIVE_CONTROL, WellRole.POSITIVE_CONTROL
    found = plate.relabelled({"A01": killed, "A03": untreated})
    assert "controls-wrong-side" in found["A01"]
    assert "controls-wrong-side" in found["A03"]
