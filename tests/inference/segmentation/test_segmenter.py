"""Tiles, the U-Net as a Segmenter, and slabs that stream."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from spheroidd.inference.agreement.overlap_metrics import agreement
from spheroidd.inference.network.model_card import ModelCard, UNetSettings
from spheroidd.inference.network.unet import ResidualUNet
from spheroidd.inference.preprocessing.stream import StreamingPreprocessor
from spheroidd.inference.segmentation.segmenter import UNetSegmenter, load_segmenter
from spheroidd.inference.segmentation.streaming import (
    LONGEST_TILE_YX,
    LONGEST_TILE_Z,
    SegmentedSlab,
    StreamingSegmentation,
)
from spheroidd.inference.segmentation.tiles import GRID, tile_axis
from spheroidd.protocols.errors import ConfigError, ModelError
from spheroidd.protocols.ports import Prediction, Segmenter
from spheroidd.protocols.results import Limits, Precision
from spheroidd.protocols.stack import CHANNELS
from spheroidd.sim_emulator.presets import PRESETS
from spheroidd.sim_emulator.source import EmulatorSettings, EmulatorSource
from spheroidd.testing.segmenter_contract import SegmenterContract, noise
from spheroidd.testing.source_contract import FakeClock


def tiny(background: float | None = None, halo: int = 16, precision: str = "fp32") -> UNetSegmenter:
    torch.manual_seed(3)
    shape = UNetSettings(base=4, levels=3)
    model = ResidualUNet(shape).eval()
    return UNetSegmenter(model, ModelCard("tiny", shape, halo, "0" * 64, background=background), "cpu", precision)


class TestUNetSegmenter(SegmenterContract):
    def make_segmenter(self) -> Segmenter:
        return tiny()


class TestUNetSegmenterInBf16(SegmenterContract):
    TILE_TOLERANCE = 1e-2  # a rounding of a logit moves a probability by 0.004 at most, and there are several

    def make_segmenter(self) -> Segmenter:
        return tiny(precision="bf16")


class FakePreprocessor:
    """A volume whose planes become ready on command, and whose own limits drift while they do."""

    def __init__(self, volume: NDArray[np.float32], drift: float = 0) -> None:
        self._volume, self._drift = volume, drift
        self.ready_z = 0
        self.first_z = 0
        self.asked: list[float] = []

    @property
    def shape(self) -> tuple[int, int, int]:
        return self._volume.shape[1:]

    def feed(self, channel: str, z: int, pixels: object) -> None:
        raise NotImplementedError

    def finish(self) -> None:
        self.ready_z = self.shape[0]

    def limits(self) -> dict[str, Limits]:
        scale = 1 + self._drift * (1 - self.ready_z / self.shape[0])
        return {channel: Limits(0.0, 100.0 * scale, 0.0, 1.0 * scale) for channel in CHANNELS}

    def volume(self, z_start: int, z_stop: int, limits: Mapping[str, Limits]) -> NDArray[np.float32]:
        assert self.first_z <= z_start < z_stop <= self.ready_z
        self.asked.append(limits[CHANNELS[0]].sd)
        return self._volume[:, z_start:z_stop] / np.float32(limits[CHANNELS[0]].sd)

    def discard(self, below_z: int) -> None:
        self.first_z = below_z


KNOWN = {"488": Limits(0.0, 100.0, 0.0, 1.0), "561": Limits(0.0, 100.0, 0.0, 1.0)}


def streamed(streaming: StreamingSegmentation, source: FakePreprocessor, steps: Iterable[int]) -> list[SegmentedSlab]:
    slabs = []
    for step in steps:
        source.ready_z = min(source.ready_z + step, source.shape[0])
        slabs += streaming.advance()
    source.finish()
    return slabs + list(streaming.finish())


def joined(slabs: list[SegmentedSlab], n_z: int) -> Prediction:
    assert [slab.z_start for slab in slabs] == [0, *(slab.z_stop for slab in slabs[:-1])], "not each z once, in order"
    assert slabs[-1].z_stop == n_z
    return Prediction(*(np.concatenate(parts) for parts in zip(*(slab.prediction for slab in slabs), strict=True)))


def same(a: Prediction, b: Prediction) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


SMALL = {"slab_z": 40, "tile_yx": 48}


@given(length=st.integers(1, 3000), longest=st.integers(8, 200), halo=st.integers(0, 40))
@settings(deadline=None)
def test_tiles_cover_an_axis_once_with_a_halo_on_every_inner_side(length: int, longest: int, halo: int) -> None:
    if longest // GRID * GRID <= 2 * (-(-halo // GRID) * GRID):
        with pytest.raises(ModelError):
            tile_axis(length, longest, halo)
        return
    tiles = tile_axis(length, longest, halo)
    assert [tile.core_start for tile in tiles] == [0, *(tile.core_stop for tile in tiles[:-1])]
    assert tiles[-1].core_stop == length
    assert len({tile.stop - tile.start for tile in tiles}) == 1
    for tile in tiles:
        assert tile.start % GRID == tile.stop % GRID == 0
        assert tile.stop - tile.start <= max(longest, GRID)
        assert tile.core_start < tile.core_stop
        assert tile.start == 0 or tile.core_start - tile.start >= halo
        assert tile.stop >= length or tile.stop - tile.core_stop >= halo
        assert 0 <= tile.start <= tile.core_start
        assert tile.stop < length + GRID


@pytest.mark.parametrize("n", [100, 200], ids=["1 um", "0.5 um"])
def test_the_default_tiles_of_a_screen_stack_see_a_voxel_twice_at_most(n: int) -> None:
    z, yx = tile_axis(n, LONGEST_TILE_Z, 16), tile_axis(n, LONGEST_TILE_YX, 16)
    seen = sum(t.stop - t.start for t in z) * sum(t.stop - t.start for t in yx) ** 2
    assert seen <= 2 * n**3, seen / n**3
    assert len(z) > 1, "something is inferred while slices still arrive"


@pytest.mark.parametrize("steps", [[1] * 90, [7] * 13, [90], [0, 89, 1], []], ids=lambda steps: str(steps[:3]))
def test_with_known_limits_slabs_do_not_depend_on_how_slices_arrive(steps: list[int]) -> None:
    volume = noise((90, 56, 40))
    source = FakePreprocessor(volume)
    slabs = streamed(StreamingSegmentation(source, tiny(), limits=KNOWN, **SMALL), source, steps)
    offline = FakePreprocessor(volume)
    offline.finish()
    whole = StreamingSegmentation(offline, tiny(), limits=KNOWN, **SMALL)
    assert same(joined(slabs, 90), joined(list(whole.finish()), 90))


def test_with_known_limits_a_slab_comes_out_as_soon_as_its_halo_is_there() -> None:
    source = FakePreprocessor(noise((90, 24, 24)))
    streaming = StreamingSegmentation(source, tiny(), limits=KNOWN, **SMALL)
    first = tile_axis(90, 40, 16)[0]
    source.ready_z = first.stop - 1
    assert list(streaming.advance()) == []
    source.ready_z = first.stop
    assert [(slab.z_start, slab.z_stop) for slab in streaming.advance()] == [(0, first.core_stop)]


@pytest.mark.parametrize("shape", [(5, 9, 7), (8, 8, 8), (17, 120, 30)], ids=str)
def test_any_volume_size_comes_out_whole(shape: tuple[int, int, int]) -> None:
    source = FakePreprocessor(noise(shape))
    slabs = streamed(StreamingSegmentation(source, tiny(), limits=KNOWN), source, [1] * shape[0])
    assert joined(slabs, shape[0]).live.shape == shape


def test_a_network_s_tiles_give_the_mask_of_the_whole_volume() -> None:
    volume = noise((80, 80, 64))
    source = FakePreprocessor(volume)
    tiled = joined(
        streamed(StreamingSegmentation(source, tiny(halo=24), limits=KNOWN, slab_z=64, tile_yx=64), source, []), 80
    )
    whole = tiny().predict(volume)
    for name, a, b in zip(Prediction._fields, tiled, whole, strict=True):
        assert np.abs(a - b).max() < 1e-3, name


def test_without_limits_and_tolerance_nothing_is_inferred_before_the_end() -> None:
    source = FakePreprocessor(noise((90, 24, 24)), drift=0.4)
    streaming = StreamingSegmentation(source, tiny(), **SMALL)
    source.ready_z = 90
    assert list(streaming.advance()) == []
    assert source.asked == []
    assert set(map(float, [slab.z_start for slab in streaming.finish()])) == {
        float(tile.core_start) for tile in tile_axis(90, 40, 16)
    }
    assert set(source.asked) == {1.0}


@pytest.mark.parametrize("guess", [None, KNOWN], ids=["running limits", "a guess"])
def test_with_tolerance_only_slabs_whose_limits_moved_are_inferred_again(guess: Mapping[str, Limits] | None) -> None:
    volume = noise((90, 24, 24))
    source = FakePreprocessor(volume, drift=0.4)
    streaming = StreamingSegmentation(source, tiny(), guess=guess, tolerance=0.1, **SMALL)
    slabs = streamed(streaming, source, [10] * 9)
    rows = tile_axis(90, 40, 16)
    two_pass = FakePreprocessor(volume, drift=0.4)
    expected = joined(streamed(StreamingSegmentation(two_pass, tiny(), **SMALL), two_pass, [90]), 90)
    result = joined(slabs, 90)
    if guess:
        assert source.asked == [1.0] * len(rows), "a right guess needs no second pass"
        assert np.abs(result.live - expected.live).max() < 1e-3
    else:
        again = source.asked[len(rows) :]
        assert 0 < len(again) < len(rows), "early slabs are inferred again, late ones are not"
        n = rows[len(again) - 1].core_stop
        assert np.array_equal(result.live[:n], expected.live[:n])


def test_a_negative_tolerance_is_refused() -> None:
    with pytest.raises(ConfigError, match="tolerance"):
        StreamingSegmentation(FakePreprocessor(noise((8, 8, 8))), tiny(), tolerance=-0.1)


@pytest.mark.parametrize("level", [-1.5, 0.0, 3.0])
def test_only_a_region_that_is_flat_in_every_channel_is_skipped(level: float) -> None:
    segmenter, never = tiny(background=0.5), tiny()
    region = np.full((2, 16, 16, 16), level, np.float32)
    region[:, 8:] += 0.25
    assert not any(part.any() for part in segmenter.predict(region))
    for channel in range(2):
        region[channel, 3, 4, 5] -= 0.25
        assert same(segmenter.predict(region), never.predict(region))
        region[channel, 3, 4, 5] += 0.25


@pytest.mark.parametrize("shape", [(1, 8, 8, 8), (3, 8, 8, 8), (2, 8, 8)], ids=str)
def test_a_region_of_another_form_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ModelError, match="shape"):
        tiny().predict(np.zeros(shape, np.float32))


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    shape = UNetSettings(base=2, levels=2, density_level=0)
    with pytest.raises(ModelError, match="no GPU"):
        UNetSegmenter(ResidualUNet(shape), ModelCard("tiny", shape, 8, "0" * 64), "cuda")


@pytest.fixture(scope="module")
def emulated() -> StreamingPreprocessor:
    """Half a small spheroid and empty field beside it, as the emulator sees them."""
    preset = replace(PRESETS["demo"], n_z=28, height=160, width=320, field_x_um=90.0, diameter_um=200.0)
    source = EmulatorSource(EmulatorSettings(pace="fast", seed=5), None, "P", FakeClock(), preset=preset)
    plan = next(iter(source.plans()))
    preprocessor = StreamingPreprocessor(28, 160, 320, 0.4, 1.25, CHANNELS, (1.0, 1.0, 1.0))
    for frame in source.frames(plan, set(plan.indices())):
        preprocessor.feed(frame.index.channel, frame.index.z, frame.pixels[np.newaxis])
    preprocessor.finish()
    return preprocessor


@pytest.mark.parametrize("precision", list(Precision))
class TestDefaultModelOnEmulatedData:
    """What must hold of the weights that ship, on data like those they were made for."""

    def masks(self, segmenter: UNetSegmenter, source: StreamingPreprocessor, tile_yx: int) -> NDArray[np.bool_]:
        keeping = FakePreprocessor(source.volume(0, source.shape[0], source.limits()))  # asked several times
        slabs = streamed(StreamingSegmentation(keeping, segmenter, limits=KNOWN, tile_yx=tile_yx), keeping, [])
        return np.stack(joined(slabs, source.shape[0])[:2]) >= 0.5

    def test_skipping_background_changes_no_mask(self, emulated: StreamingPreprocessor, precision: Precision) -> None:
        skipping, seeing = (load_segmenter(device="cpu", precision=precision) for _ in range(2))
        seeing.card = replace(seeing.card, background=None)
        assert skipping.card.background is not None
        volume = emulated.volume(0, emulated.shape[0], emulated.limits())
        empty = volume[:, :, :, -48:]
        assert np.ptp(empty, axis=(1, 2, 3)).max() < skipping.card.background, "the field's empty side is skipped"
        assert not skipping.predict(empty).live.any()
        assert seeing.predict(empty).live.any(), "unskipped, a network never says exactly 0"
        masks = self.masks(skipping, emulated, 48)
        assert masks[0].mean() > 0.05
        assert np.array_equal(masks, self.masks(seeing, emulated, 48))

    def test_the_card_s_halo_is_enough(self, emulated: StreamingPreprocessor, precision: Precision) -> None:
        segmenter = load_segmenter(device="cpu", precision=precision)
        tiled, whole = (self.masks(segmenter, emulated, tile_yx) for tile_yx in (64, 160))
        for kind in range(2):
            assert agreement(tiled[kind], whole[kind]).dice > 0.995
