"""What is wrong with an emulated pattern is named by whoever looks for it, and what is harmless is."""

import numpy as np
import pytest

from spheroidd.inference.reconstruction.estimation import estimate_pattern
from spheroidd.inference.reconstruction.plan import ReconstructionPlan
from spheroidd.inference.reconstruction.reconstructor import CpuReconstructor
from spheroidd.protocols.plate import PlateMap, PlateWell, Treatment, WellRole
from spheroidd.protocols.sim_pattern import PatternEstimate
from spheroidd.protocols.stack import RawIndex, StackPlan
from spheroidd.protocols.well import WellId
from spheroidd.sim_emulator.raw_camera import RawCamera
from spheroidd.sim_emulator.source import EmulatorSettings, EmulatorSource
from spheroidd.testing.source_contract import FakeClock

FIELD = {"preset": "sim", "n_z": 3, "height": 192, "width": 192, "field_z_um": 6.0, "pace": "fast", "seed": 1}


def frames_of(*faults: dict, channel: str = "488") -> tuple[np.ndarray, StackPlan]:
    """Raw slices (z, angle, phase, y, x) as an instrument with these faults delivers them."""
    settings = EmulatorSettings(**FIELD, raw={"dose": 3.0, "faults": faults})
    source = EmulatorSource(settings, None, "plate", FakeClock())
    plan = source.plans()[0]
    assert plan.raw is not None
    camera = RawCamera.over(source.scene(plan.key.well), settings.raw)
    n_angles, n_phases = plan.raw.n_angles, plan.raw.n_phases
    slices = [
        [[camera.image(RawIndex(channel, z, a, p)) for p in range(n_phases)] for a in range(n_angles)]
        for z in range(plan.n_z)
    ]
    return np.array(slices), plan


def found_in(slices: np.ndarray, plan: StackPlan, channel: str = "488") -> PatternEstimate:
    return estimate_pattern(slices, plan.raw, channel, plan.frame_pixel_um)


@pytest.fixture(scope="module")
def sound() -> tuple[np.ndarray, StackPlan, PatternEstimate]:
    slices, plan = frames_of()
    return slices, plan, found_in(slices, plan)


def test_a_sound_pattern_has_nothing_to_be_said_of(sound) -> None:
    _, _, found = sound
    assert (found.usable, found.doubts, found.notes) == (True, (), ())


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"kind": "order", "order": ("z", "phase", "angle")}, "do not lie in the order z-angle-phase"),
        ({"kind": "order", "order": ("phase", "z", "angle")}, "not frames of one angle; state the order"),
        ({"kind": "order", "order": ("angle", "z", "phase")}, "not frames of one angle; state the order"),
        ({"kind": "flipped"}, "the rows run the other way; write flip_y = true"),
        ({"kind": "turned", "degrees": 9.0}, "this is another pattern"),
        ({"kind": "dead", "channel": "488"}, "no stripes found"),
    ],
    ids=lambda value: value["kind"] + "-".join(value.get("order", ())) if isinstance(value, dict) else "",
)
def test_a_fault_that_spoils_images_is_refused_by_name(fault: dict, words: str) -> None:
    found = found_in(*frames_of(fault))
    assert not found.usable
    assert words in found.verdict


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"kind": "stuck", "phase": 2}, "phases 1 and 2 are the same: the pattern was stuck, or a frame arrived twice"),
        ({"kind": "unequal", "degrees": 25.0}, "its phases do not step evenly (the step from"),
        ({"kind": "brighter", "angle": 0, "phase": 1, "degrees": 6.0}, "angle 0 phase 1 has 6% more light"),
        ({"kind": "reversed"}, "step_sign should be -1"),
    ],
    ids=lambda value: value["kind"] if isinstance(value, dict) else "",
)
def test_a_fault_that_images_are_made_in_spite_of_is_noted_by_name(fault: dict, words: str) -> None:
    found = found_in(*frames_of(fault))
    assert found.usable, found.verdict
    assert any(words in note for note in found.notes), found.notes


def test_no_modulation_in_one_colour_leaves_the_other_usable() -> None:
    fault = {"kind": "dead", "channel": "561"}
    assert found_in(*frames_of(fault)).usable
    assert not found_in(*frames_of(fault, channel="561"), "561").usable


def test_frames_in_the_reversed_order_of_phases_give_the_same_image(sound) -> None:
    """That the phases step the other way alone cannot be seen in any image: proven on the very same frames."""
    slices, plan, found = sound
    turned = np.ascontiguousarray(slices[:, :, [0, 4, 3, 2, 1]])
    other = found_in(turned, plan)
    assert any("step against the stated sign" in note for note in other.notes)
    images = [
        CpuReconstructor(ReconstructionPlan.of(plan.raw, "488", plan.frame_shape, plan.frame_pixel_um, estimate, 0.1))
        .reconstruct(frames[1])
        .image
        for frames, estimate in ((slices, found), (turned, other))
    ]
    assert np.abs(images[0] - images[1]).max() < 0.02 * images[0].std()


def test_a_few_bright_nuclei_make_no_second_pattern() -> None:
    """Around a pattern's peak lies what the sample alone makes of it: high and wide where little else shines."""
    well = PlateWell(WellId(1, 1), Treatment(WellRole.SAMPLE, "C01", 10.0, "P01"))
    settings = EmulatorSettings(preset="screen", seed=12, n_z=24, pace="fast", raw={})
    source = EmulatorSource(settings, PlateMap("plate", (well,)), "plate", FakeClock())
    plan, camera = source.plans()[0], RawCamera.over(source.scene(well.well), settings.raw)
    frames = [[camera.image(RawIndex("561", z, a, p)) for a in range(3) for p in range(5)] for z in (4, 12, 20)]
    found = found_in(np.array(frames).reshape(3, 3, 5, *plan.frame_shape), plan, "561")
    assert found.usable, found.verdict
    assert [one.angle_deg for one in found.angles] == pytest.approx([12, 72, 132], abs=0.1)
