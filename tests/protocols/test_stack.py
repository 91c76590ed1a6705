"""Numbers that a plan or a frame may carry: what is none, or what no microscope has, is refused where it comes in."""

from typing import Any

import numpy as np
import pytest

from spheroidd.protocols.errors import ConfigError, StackError
from spheroidd.protocols.stack import CHANNELS, Frame, SliceIndex, StackKey, StackPlan
from spheroidd.protocols.well import WellId

KEY = StackKey("P1", WellId(0, 0))
NAN, INFINITE = float("nan"), float("inf")


@pytest.mark.parametrize("name", ["pixel_um", "z_step_um"])
@pytest.mark.parametrize("value", [NAN, INFINITE, -INFINITE, -0.5, 0.0, 5e-324, 1e30, 1.7e308])
def test_a_voxel_that_no_microscope_has_is_refused(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{name} is"):
        StackPlan(KEY, CHANNELS, 2, 8, 8, **{"pixel_um": 0.5, "z_step_um": 1.0, name: value})


@pytest.mark.parametrize("value", [NAN, INFINITE, -1.0, 1.7e308])
def test_a_period_that_is_none_is_refused(value: float) -> None:
    with pytest.raises(ConfigError, match="slice_period_s is"):
        StackPlan(KEY, CHANNELS, 2, 8, 8, 0.5, 1.0, slice_period_s=value)


@pytest.mark.parametrize(
    "given",
    [
        *({"acquired_s": value} for value in (NAN, INFINITE, -INFINITE, -1.0, 1e300)),
        *({"metadata": {"exposure_ms": value}} for value in (NAN, INFINITE, 10**400)),
    ],
    ids=str,
)
def test_a_frame_with_a_number_that_is_none_is_refused_by_its_place(given: dict[str, Any]) -> None:
    with pytest.raises(StackError, match="channel 561 z 1: ") as refused:
        Frame(KEY, SliceIndex("561", 1), np.zeros((8, 8), np.uint16), **{"acquired_s": 1.0, **given})
    assert refused.value.where == "P1/A01/0"
