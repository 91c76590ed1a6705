"""The emulator's raw frames: their light is that of the slice, their stripes are those of the truth, faults do harm."""

import math

import numpy as np
import pytest
from pydantic import ValidationError

from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.stack import RawIndex, SliceIndex
from spheroidd.sim_emulator.camera import OFFSET_ADU
from spheroidd.sim_emulator.raw_camera import RawCamera
from spheroidd.sim_emulator.source import EmulatorSettings, EmulatorSource
from spheroidd.testing.source_contract import FakeClock, SourceContract, take

FIELD = {"preset": "sim", "n_z": 4, "height": 64, "width": 96, "field_z_um": 6.0, "pace": "fast", "seed": 3}
WELL = "A01"


def source_of(faults=(), **raw) -> EmulatorSource:
    settings = EmulatorSettings(**FIELD, raw={**raw, "faults": faults})
    return EmulatorSource(settings, None, "plate", FakeClock())


def camera_of(source: EmulatorSource) -> RawCamera:
    return RawCamera.over(source.scene(source.plate_map.imaged()[0].well), source.settings.raw)


@pytest.fixture(scope="module")
def sound() -> RawCamera:
    return camera_of(source_of())


class TestRawFrames(SourceContract):
    def make_source(self, folder, clock):
        return EmulatorSource(EmulatorSettings(**FIELD, raw={"n_phases": 3}), None, "plate", clock)


def test_a_plan_promises_what_is_true_of_the_pattern():
    source = source_of()
    plan = source.plans()[0]
    assert (plan.raw.n_angles, plan.raw.n_phases, plan.frame_shape) == (3, 5, (32, 48))
    for channel in plan.channels:
        truth = source.pattern_truth(channel)
        assert plan.raw.angles_deg == truth.angles_deg
        assert plan.raw.period_of(channel) == pytest.approx(1 / truth.frequency_per_um)
        assert truth.modulation_at(15.0) == pytest.approx(0.8 / math.e)


@pytest.mark.parametrize("channel", ["488", "561"])
def test_all_frames_of_an_angle_together_have_the_light_of_the_slice(sound, channel):
    frames = [sound.expected_e(RawIndex(channel, 2, 1, phase)) for phase in range(5)]
    slice_e = sound.scene.expected_e(channel, 2)
    gathered = slice_e.reshape(32, 2, 48, 2).sum((1, 3))
    np.testing.assert_allclose(3 * sum(frames), gathered, rtol=0.03)


def test_stripes_have_the_true_frequency_phase_and_modulation(sound):
    truth, angle = sound.truth["488"], 1
    flat = np.ones((64, 96), np.float32)
    from spheroidd.sim_emulator.striped_planes import StripedPlanes

    planes = StripedPlanes.of(flat, np.ones(1, np.float32), 0.125, truth)
    y_um, x_um = ((np.arange(n) - (n - 1) / 2) * 0.25 for n in (32, 48))
    fy, fx = truth.frequency_yx(angle)
    turn = 2 * np.pi * (fy * y_um[:, None] + fx * x_um) + math.radians(40.0)
    gathered = np.cos(np.pi * fy * 0.125) * np.cos(np.pi * fx * 0.125)  # of stripes by a pixel of two times two samples
    np.testing.assert_allclose(planes.frame(angle, 40.0, 0.5), 1 + 0.5 * gathered * np.cos(turn), atol=2e-4)


def test_frames_have_noise_of_their_own_and_the_same_bytes_again(sound):
    index = RawIndex("488", 2, 0, 1)
    first = sound.image(index)
    noise = [(sound.image(i) - OFFSET_ADU) / 2.17 - sound.expected_e(i) for i in (index, RawIndex("488", 2, 0, 2))]
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.1
    np.testing.assert_array_equal(sound.image(index), first)


def _only(change, *frames):
    """Which of these frames (angle, phase) a pattern's fault changes, as expected without noise."""
    faulty, sound = camera_of(source_of([change])), camera_of(source_of())
    return [frame for frame in frames if np.abs(faulty.expected_e(frame) / sound.expected_e(frame) - 1).max() > 0.01]


A, B, C = RawIndex("488", 1, 0, 0), RawIndex("488", 1, 0, 1), RawIndex("561", 1, 0, 1)


@pytest.mark.parametrize(
    ("fault", "changed"),
    [
        ({"kind": "unequal", "degrees": 20.0}, [B, C]),
        ({"kind": "stuck", "phase": 1}, [B, C]),
        ({"kind": "reversed", "channel": "488"}, [B]),
        ({"kind": "turned", "degrees": 5.0}, [A, B, C]),
        ({"kind": "dead", "channel": "561"}, [C]),
        ({"kind": "brighter", "angle": 0, "phase": 1, "degrees": 5.0, "channel": "561"}, [C]),
    ],
    ids=lambda value: value["kind"] if isinstance(value, dict) else "",
)
def test_a_fault_changes_its_frames_and_no_other(fault, changed):
    assert _only(fault, A, B, C) == changed


def test_a_stuck_phase_is_the_one_before_it():
    camera = camera_of(source_of([{"kind": "stuck", "phase": 3}]))
    held = [camera.expected_e(RawIndex("488", 1, 2, phase)) for phase in (2, 3, 4)]
    np.testing.assert_array_equal(held[0], held[1])
    assert not np.array_equal(held[1], held[2])


@pytest.mark.parametrize(
    ("order", "asked", "shown"),
    [
        (("z", "phase", "angle"), (1, 0, 1), (1, 1, 0)),
        (("angle", "z", "phase"), (0, 1, 2), (1, 0, 2)),
    ],
    ids=["phase-before-angle", "angle-before-z"],
)
def test_a_wrong_order_gives_another_frame_under_a_name(order, asked, shown):
    source = source_of([{"kind": "order", "order": order}])
    assert source.settings.raw.shown_in(RawIndex("488", *asked), 4) == RawIndex("488", *shown)
    assert len({source.settings.raw.shown_in(i, 4) for i in source.plans()[0].indices()}) == 4 * 2 * 15


def test_a_flip_turns_the_rows_of_a_frame(sound):
    flipped = camera_of(source_of([{"kind": "flipped"}])).image(A)
    np.testing.assert_array_equal(flipped[::-1], sound.image(A))


@pytest.mark.parametrize(("kind", "n"), [("drop", 29), ("duplicate", 31)])
def test_a_single_frame_is_lost_or_doubled(kind, n):
    settings = EmulatorSettings(
        **{**FIELD, "n_z": 1},
        raw={},
        faults=[{"kind": kind, "well": "A01", "z": 0, "channel": "561", "angle": 2, "phase": 1}],
    )
    source = EmulatorSource(settings, None, "plate", FakeClock())
    plan = next(plan for plan in source.plans() if str(plan.key.well) == "A01")
    came = [frame.index for frame in source.frames(plan, set(plan.indices()))]
    assert len(came) == n
    assert came.count(RawIndex("561", 0, 2, 1)) == {"drop": 0, "duplicate": 2}[kind]


@pytest.mark.parametrize(
    ("more", "what"),
    [
        ({"preset": "demo"}, "would not see the stripes"),
        ({"raw": {"faults": [{"kind": "stuck", "phase": 5}]}}, "phase 5, which the pattern has not"),
        ({"raw": {"n_phases": 2}}, "n_phases"),
    ],
)
def test_settings_that_make_no_pattern_are_refused(more, what):
    with pytest.raises(ValidationError, match=what):
        EmulatorSettings(**{"preset": "sim", "raw": {}, **more})


def test_no_pattern_is_true_of_slices_without_one():
    source = EmulatorSource(EmulatorSettings(**FIELD), None, "plate", FakeClock())
    with pytest.raises(ConfigError, match="no raw frames"):
        source.pattern_truth("488")
    plan = source.plans()[0]
    assert set(take(source, plan, set(plan.indices()))) == {SliceIndex(c, z) for c in ("488", "561") for z in range(4)}
