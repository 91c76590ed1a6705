"""The raw pattern and its estimate refuse nonsense, and frames find their places in every order."""

from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest

from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.sim_pattern import (
    RAW_AXES,
    AngleEstimate,
    Beams,
    ChannelOptics,
    OrderEstimate,
    OtfKind,
    PatternEstimate,
    SimPattern,
)


@pytest.mark.parametrize("order", list(permutations(RAW_AXES)), ids="-".join)
def test_every_order_counts_each_frame_once_and_finds_it_again(order: Any) -> None:
    pattern = SimPattern(n_angles=3, n_phases=5, order=order)
    places = [(z, a, p) for z in range(4) for a in range(3) for p in range(5)]
    numbers = [pattern.frame_number(*place, n_z=4) for place in places]
    assert sorted(numbers) == list(range(60))
    assert [pattern.frame_place(number, n_z=4) for number in numbers] == places
    slowest = pattern.frame_place(59, 4)[("z", "angle", "phase").index(order[0])]
    assert slowest == {"z": 3, "angle": 2, "phase": 4}[order[0]]


@pytest.mark.parametrize(
    "said",
    [
        {"n_angles": 0},
        {"n_phases": 2},
        {"n_phases": 3, "beams": Beams.THREE},
        {"order": ("z", "angle", "angle")},
        {"step_sign": 0},
        {"angles_deg": (0.0, 60.0)},
        {"angles_deg": (0.0, 60.0, float("nan"))},
        {"period_um": (("488", 0.0),)},
        {"period_um": (("488", 0.3), ("488", 0.4))},
        {"optics": (ChannelOptics("488", 515, 0.5), ChannelOptics("488", 617, 0.5))},
    ],
    ids=str,
)
def test_a_pattern_that_cannot_be_is_refused(said: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        SimPattern(**said)


@pytest.mark.parametrize(
    "said",
    [
        {"emission_nm": 0.515},
        {"na": 0.0},
        {"otf": OtfKind.GAUSSIAN},
        {"psf_sigma_um": 0.2},
        {"otf": OtfKind.TABLE},
        {"otf": OtfKind.TABLE, "otf_table": (0.9, 0.1)},
        {"otf_table": (1.0, 0.1)},
    ],
    ids=str,
)
def test_optics_that_cannot_be_are_refused(said: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        replace(ChannelOptics("488", 515, 0.5), **said)


def test_the_optics_of_a_channel_that_was_not_described_are_asked_for() -> None:
    pattern = SimPattern(optics=(ChannelOptics("488", 515, 0.5),))
    assert pattern.optics_of("488").cutoff_per_um == pytest.approx(1.9417, abs=1e-4)
    with pytest.raises(ConfigError, match="561"):
        pattern.optics_of("561")


def estimate(trusted: bool = True) -> PatternEstimate:
    orders = (OrderEstimate(1, 0.8, 0.01, 90.0, trusted, "found" if trusted else "no peak"),)
    angles = tuple(
        AngleEstimate(a, 1.75, 60.0 * a - 60, (0.0, 72.0, 144.0, -144.0, -72.0), True, orders) for a in (0, 1)
    )
    return PatternEstimate("488", 0.25, 6, angles, 0.12, 100.0)


def test_an_estimate_is_usable_only_where_every_angle_is_trusted_and_nothing_is_doubted() -> None:
    assert estimate().usable
    assert not estimate(trusted=False).usable
    assert "no peak" in estimate(trusted=False).verdict
    doubted = replace(estimate(), doubts=("all angles have one direction",))
    assert not doubted.usable
    assert "one direction" in doubted.verdict


def test_an_estimate_survives_json_and_a_spoiled_one_is_refused() -> None:
    assert PatternEstimate.from_json(estimate().to_json()) == estimate()
    for spoiled in ("{}", "no json", estimate().to_json().replace("0.12", "-1")):
        with pytest.raises(ConfigError):
            PatternEstimate.from_json(spoiled)


def test_the_frequency_vector_points_along_the_angle() -> None:
    y, x = estimate().angles[0].frequency_yx
    assert (x, y) == pytest.approx((0.875, -1.5155), abs=1e-4)
