"""Raw frames made of a recorded volume: the pattern that was projected is found, and widefield is the recording."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from spheroidd.inference.reconstruction.estimation import estimate_pattern
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.pixels import Pixels
from spheroidd.protocols.stack import RawIndex, SliceIndex
from spheroidd.protocols.well import WellId
from spheroidd.sim_emulator.recorded.recording import Recording
from spheroidd.sim_emulator.source import EmulatorSettings, EmulatorSource
from spheroidd.testing.source_contract import FakeClock, SourceContract

A01 = WellId(0, 0)
LEVEL, N_Z, SIDE, PIXEL_UM = 150.0, 3, 128, 0.125


class Volume:
    """A recorded stack with fine texture, in memory."""

    channels, dtype = ("488", "561"), "uint16"
    shape, voxel_um = (N_Z, SIDE, SIDE), (1.0, PIXEL_UM)

    def plane(self, index: SliceIndex) -> Pixels:
        rng = np.random.default_rng(10 * index.z + int(index.channel))
        texture = gaussian_filter(rng.normal(size=(SIDE, SIDE)), 1.5)
        bodies = gaussian_filter(rng.normal(size=(SIDE, SIDE)), 12.0)
        light = (bodies > 0) * np.clip(600 + 1500 * texture / texture.std() * 0.3, 0, None)
        return (LEVEL + light + rng.normal(0, 3, light.shape)).clip(0).astype(np.uint16)

    def metadata(self, index: SliceIndex) -> Mapping[str, float | str]:
        return {}

    def close(self) -> None:
        pass


def source_of(clock=None, volume: type[Volume] = Volume, **settings) -> EmulatorSource:
    given = EmulatorSettings(recording=Path("recorded.csv"), pace="fast", raw={"dose": 3.0}, **settings)
    return EmulatorSource(given, None, "plate", clock or FakeClock(), recording=Recording({}, everywhere=volume))


class TestRawOfARecording(SourceContract):
    def make_source(self, folder, clock):
        return source_of(clock)


def frames_of(source: EmulatorSource, channel: str = "488") -> np.ndarray:
    (plan, *_) = source.plans()
    found = {frame.index: frame.pixels for frame in source.frames(plan, set(plan.indices()))}
    shape = range(plan.n_z), range(3), range(5)
    return np.array([[[found[RawIndex(channel, z, a, p)] for p in shape[2]] for a in shape[1]] for z in shape[0]])


def test_the_projected_pattern_is_found_in_the_recorded_texture() -> None:
    source = source_of()
    plan = source.plans()[0]
    assert (plan.n_z, plan.frame_shape, plan.pixel_um) == (N_Z, (64, 64), PIXEL_UM)
    found = estimate_pattern(frames_of(source), plan.raw, "488", plan.frame_pixel_um)
    assert found.usable, found.verdict
    truth = source.pattern_truth("488")
    for one, angle in zip(found.angles, truth.angles_deg, strict=True):
        assert (one.angle_deg - angle + 180) % 360 - 180 == pytest.approx(0, abs=0.5)
        assert one.frequency_per_um == pytest.approx(truth.frequency_per_um, rel=5e-3)


def test_all_frames_together_have_the_recorded_light() -> None:
    mean = frames_of(source_of()).astype(float).mean(axis=(1, 2))
    for z in range(N_Z):
        recorded = Volume().plane(SliceIndex("488", z)).astype(float) - LEVEL
        gathered = recorded.reshape(64, 2, 64, 2).sum((1, 3)).mean()
        # the camera's offset is 100; three times the dose goes into fifteen frames
        assert 15 * (mean[z].mean() - 100) / 3 == pytest.approx(gathered, rel=0.05)


def test_a_recording_too_coarse_for_stripes_is_refused() -> None:
    class Coarse(Volume):
        voxel_um = (1.0, 0.5)

    with pytest.raises(ConfigError, match="would not see the stripes"):
        source_of(volume=Coarse)
    with pytest.raises(ConfigError, match="both even"):
        frames_of(source_of(height=63))
