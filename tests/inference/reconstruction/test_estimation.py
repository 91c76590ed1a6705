"""The pattern is found where there is one and refused in words where not.

In 128 pixels and two slices; what an image of 400 gives is measured in `bench/sim.py`.
"""

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest

from bench.sim_scene import RED, Scene, Stripes, expose
from spheroidd.inference.reconstruction.estimation import estimate_pattern
from spheroidd.inference.reconstruction.verdicts import undirected
from spheroidd.protocols.errors import ConfigError, StackError
from spheroidd.protocols.sim_pattern import RAW_AXES
from tests.inference.reconstruction.scenes import SIZE, THREE_BEAM, estimated, slices

SCENE = Scene(size=SIZE)


def turned(degrees: float) -> float:
    return (degrees + 180) % 360 - 180


@pytest.mark.parametrize(
    "scene",
    [
        SCENE,
        replace(SCENE, n_phases=3),
        replace(SCENE, electrons=20.0),
        replace(SCENE, stripes=Stripes(modulation=(0.3,))),
        replace(SCENE, stripes=Stripes(step_sign=-1)),
        replace(SCENE, stripes=Stripes(step_errors_deg=((0, 9, -7, 3, -5), (4, 0, -8, 4, 0), (0, 0, 6, -6, 0)))),
        replace(SCENE, stripes=Stripes(brightness=((1, 1.05, 1, 0.9, 1), (1,) * 5, (0.7,) * 5))),
        replace(SCENE, optics=RED, stripes=Stripes(1.46)),
        replace(SCENE, stripes=THREE_BEAM),
    ],
    ids=["5 phases", "3 phases", "dim", "weak", "reversed", "uneven steps", "flicker", "red", "three beams"],
)
def test_frequency_direction_phases_and_modulation_are_those_of_the_scene(scene: Scene) -> None:
    found = estimated(scene, step_sign=scene.stripes.step_sign)
    assert found.usable, found.verdict
    truth = scene.stripes
    for angle, phases in zip(found.angles, truth.phases_deg(scene.n_phases), strict=True):
        assert angle.frequency_per_um == pytest.approx(truth.frequency_per_um, rel=1.5e-3)
        assert abs(turned(angle.angle_deg - truth.angles_deg[angle.angle])) < 0.08
        assert max(abs(turned(a - b)) for a, b in zip(angle.phases_deg, phases, strict=True)) < 8
        assert [one.modulation for one in angle.orders] == pytest.approx(truth.modulation, abs=0.07)


@pytest.mark.parametrize(
    "scene", [SCENE.dead(), replace(SCENE, n_phases=3).dead(), replace(SCENE, stripes=THREE_BEAM).dead()]
)
def test_no_pattern_is_found_where_there_is_none(scene: Scene) -> None:
    found = estimated(scene)
    assert not found.usable
    assert not any(one.trusted for one in found.angles)
    assert "no stripes found" in found.verdict


ORDERS = [order for order in permutations(RAW_AXES) if [a for a in order if a != "z"] == ["phase", "angle"]]


@pytest.mark.parametrize("scene", [SCENE, replace(SCENE, n_phases=3), replace(SCENE, stripes=THREE_BEAM)])
def test_frames_in_another_order_than_stated_are_refused(scene: Scene) -> None:
    stack = slices(scene, (0, 1, 2))
    lying = stack.transpose(0, 2, 1, 3, 4).reshape(stack.shape)
    found = estimate_pattern(lying, scene.pattern, "488", scene.pixel_um)
    assert not found.usable
    mixed = stack.transpose(1, 2, 0, 3, 4).reshape(stack.shape)  # angle-phase-z, read as z-angle-phase
    assert not estimate_pattern(mixed, scene.pattern, "488", scene.pixel_um).usable


@pytest.mark.parametrize(
    ("flipped", "stated", "word"),
    [
        (False, {"flip_y": False}, None),
        (True, {"flip_y": True}, None),
        (True, {"flip_y": False}, "write flip_y = true"),
        (False, {"flip_y": True}, "write flip_y = false"),
    ],
    ids=["neither", "both", "only the image", "only the setting"],
)
def test_a_flip_of_the_rows_is_tested_against_the_stated_angles(
    flipped: bool, stated: dict[str, bool], word: str | None
) -> None:
    stack = slices(SCENE)[..., ::-1, :] if flipped else slices(SCENE)
    sign = -1 if flipped else 1  # mirrored, the angles come as their negatives, seen from the same end of the steps
    pattern = replace(SCENE.pattern, angles_deg=SCENE.stripes.angles_deg, **stated)
    found = estimate_pattern(np.ascontiguousarray(stack), pattern, "488", SCENE.pixel_um)
    own = [undirected(sign * one.angle_deg) for one in found.angles]
    assert own == pytest.approx([undirected(a) for a in SCENE.stripes.angles_deg], abs=0.1)
    assert found.usable == (word is None)
    assert word is None or word in found.verdict


def test_a_reversed_step_is_noted_but_refuses_nothing() -> None:
    scene = replace(SCENE, stripes=Stripes(step_sign=-1))
    found = estimated(scene, angles_deg=scene.stripes.angles_deg)
    assert found.usable
    assert "step_sign should be -1" in found.notes[0]


def test_angles_other_than_those_stated_are_refused() -> None:
    assert "another pattern" in estimated(SCENE, angles_deg=(0.0, 45.0, 90.0)).verdict
    first, second, third = SCENE.stripes.angles_deg
    assert "another order than stated" in estimated(SCENE, angles_deg=(second, first, third)).verdict


def test_a_pattern_that_is_stuck_is_refused() -> None:
    stack = slices(SCENE).copy()
    stack[:, 1] = stack[:, 1, :1]  # one phase, five times
    found = estimate_pattern(stack, SCENE.pattern, "488", SCENE.pixel_um)
    assert not found.usable
    assert "angle 1" in found.verdict


def test_frames_of_three_angles_stated_as_one_angle_are_refused() -> None:
    stack = slices(replace(SCENE, n_phases=3), (0,))
    stated = replace(SCENE.pattern, n_angles=1, n_phases=9)
    found = estimate_pattern(stack.reshape(1, 1, 9, SIZE, SIZE), stated, "488", SCENE.pixel_um)
    assert not found.usable
    assert "change no phase: they are not 9 phases of one angle" in found.verdict


def several_at_once(n_phases: int) -> np.ndarray:
    """Frames (1, 1, phase, y, x) of a pattern of three directions, which step by one, two and three of its phases."""
    one_by_one = replace(SCENE, n_phases=n_phases).expected(SCENE.sample())
    order = np.arange(n_phases)
    at_once = sum(one_by_one[angle, (angle + 1) * order % n_phases] for angle in range(3))
    return expose(np.asarray(at_once), 0)[np.newaxis, np.newaxis]


def test_a_pattern_of_several_directions_at_once_is_refused() -> None:
    stated = replace(SCENE.pattern, n_angles=1, n_phases=7)
    found = estimate_pattern(several_at_once(7), stated, "488", SCENE.pixel_um)
    assert not found.usable
    assert "stripes of 14 and 74 and -46 degrees, which step at different paces" in found.verdict
    assert "(hexagonal) is not reconstructed" in found.verdict


def test_three_beams_stated_as_two_are_noted() -> None:
    stated = replace(SCENE.pattern, period_um=(("488", 1 / 0.85),))
    found = estimate_pattern(slices(replace(SCENE, stripes=THREE_BEAM)), stated, "488", SCENE.pixel_um)
    assert found.usable
    assert sum("read with three beams the image is sharper" in note for note in found.notes) == 3
    assert not any("beams" in note for note in estimated(SCENE).notes)


def test_phases_far_from_even_steps_are_measured_although_so_uneven_ones_make_more_noise() -> None:
    far = ((0, 30, -30), (0, 35, -51), (0, 15, -15))
    scene = replace(SCENE, n_phases=3, stripes=Stripes(step_errors_deg=far))
    found = estimated(scene)
    assert found.usable, found.verdict
    for angle, phases in zip(found.angles, scene.stripes.phases_deg(3), strict=True):
        assert angle.phases_measured
        taken, true = np.diff(angle.phases_deg) % 360, np.diff(phases) % 360
        assert taken == pytest.approx(true, abs=10)
        assert angle.orders[0].modulation == pytest.approx(0.8, abs=0.07)


def test_a_colour_whose_modulation_is_none_is_refused_beside_one_that_has_it() -> None:
    assert not estimated(replace(SCENE, optics=RED, stripes=Stripes(1.46)).dead()).usable


def test_what_cannot_be_looked_at_is_refused() -> None:
    with pytest.raises(StackError, match="angle, phase"):
        estimate_pattern(np.zeros((1, 3, 4, 64, 64), np.uint16), SCENE.pattern, "488", 0.25)
    with pytest.raises(StackError, match="no light"):
        estimate_pattern(np.full((1, 3, 5, 64, 64), 100, np.uint16), SCENE.pattern, "488", 0.25)
    with pytest.raises(ConfigError, match="sample less than half"):
        estimate_pattern(slices(SCENE), SCENE.pattern, "488", 2.5)


@pytest.mark.parametrize("stated", [False, True])
def test_a_small_field_is_searched_although_few_of_its_frequencies_are_near_the_stated_one(stated: bool) -> None:
    scene = Scene(size=64)
    pattern = replace(scene.pattern, period_um=(("488", 1 / 1.75),)) if stated else scene.pattern
    found = estimate_pattern(scene.frames()[np.newaxis], pattern, "488", scene.pixel_um)
    assert found.usable, found.verdict
    assert [one.frequency_per_um for one in found.angles] == pytest.approx([1.75] * 3, rel=0.01)
