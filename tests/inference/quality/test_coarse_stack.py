"""What both channels and both masks say together: bleed-through, an edge of shade, the masks' lengths and light."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from spheroidd.inference.preprocessing.intensity import Histogram
from spheroidd.inference.quality.coarse_stack import CoarseStack
from spheroidd.inference.quality.trust.evidence import LIMITS
from spheroidd.protocols.evidence import MaskEvidence, StackLight, StackLooks
from spheroidd.protocols.stack import CHANNELS, StackKey, StackPlan
from spheroidd.protocols.well import WellId

SHAPE = (24, 64, 64)
PLAN = StackPlan(StackKey("P1", WellId(0, 0)), CHANNELS, *SHAPE, 0.5, 1.0)


def bodies(radius: float = 9.0) -> NDArray[np.bool_]:
    """Balls of 4.5 um, 2 pixels a micrometre sideways and one in depth."""
    z, y, x = np.indices(SHAPE)
    found = np.zeros(SHAPE, bool)
    for cz, cy, cx in ((8, 16, 16), (12, 40, 40), (15, 18, 48), (10, 46, 14)):
        found |= (2 * (z - cz)) ** 2 + (y - cy) ** 2 + (x - cx) ** 2 < radius**2
    return found


def camera(signal: NDArray[np.floating], seed: int = 0) -> NDArray[np.uint16]:  # type: ignore[type-arg]
    noise = np.random.default_rng(seed).normal(0, 4, SHAPE)
    return np.clip(np.rint(100 + signal + noise), 0, 65535).astype(np.uint16)


def seen(
    live: NDArray[np.uint16], dead: NDArray[np.uint16], masks: tuple[NDArray[np.bool_], NDArray[np.bool_]] | None = None
) -> tuple[StackLight, MaskEvidence]:
    coarse, counts = CoarseStack(PLAN), {}
    for channel, stack in zip(CHANNELS, (live, dead), strict=True):
        for z in range(0, SHAPE[0], 5):  # in portions, as blocks come
            coarse.feed(channel, z, stack[z : z + 5])
        counts[channel] = Histogram()
        counts[channel].add(stack)
    for z in range(0, SHAPE[0], 7):
        if masks:
            coarse.feed_masks(z, masks[0][z : z + 7], masks[1][z : z + 7])
    return coarse.light(counts, counts), coarse.masks()


def test_bleed_through_is_told_as_it_was_put_in() -> None:
    live = 800.0 * bodies()
    light, _ = seen(camera(live), camera(0.12 * live, 1))
    assert light.bleed == pytest.approx(0.12, abs=0.02)
    assert light.correlation is not None
    assert light.correlation > 0.9


def test_two_dyes_in_different_cells_do_not_correlate() -> None:
    light, _ = seen(camera(800.0 * bodies()), camera(500.0 * np.roll(bodies(), 16, 2), 1))
    assert light.correlation is not None
    assert abs(light.correlation) < 0.4


def test_noise_is_the_cameras() -> None:
    light, _ = seen(camera(np.zeros(SHAPE)), camera(np.zeros(SHAPE), 1))
    assert [one.noise for one in light.channels.values()] == pytest.approx([4.0, 4.0], rel=0.15)


@pytest.mark.parametrize("left", [1.0, 0.5, 0.25])
def test_a_shaded_half_shows_as_an_edge_in_both_channels(left: float) -> None:
    shade = np.ones(SHAPE)
    shade[:, :, :32] = left
    cells = np.random.default_rng(5).normal(size=(2, *SHAPE))
    live, dead = (ndimage.gaussian_filter(one, (2, 4, 4)).clip(0) * 8000 for one in cells)
    light, _ = seen(camera((60 + live) * shade), camera((60 + dead) * shade, 1))
    assert light.shade is not None
    assert (light.shade < LIMITS.shade) == (left < 1)


def test_masks_have_a_length_and_a_brightness() -> None:
    live, dead = bodies(), np.zeros(SHAPE, bool)
    _, found = seen(camera(800.0 * live), camera(np.zeros(SHAPE), 1), (live, dead))
    shape = found.masks["488"]
    assert shape.chord_z_um is not None
    assert shape.chord_x_um is not None
    assert shape.chord_x_um == pytest.approx(4 / 3 * 4.5, rel=0.15)  # Cauchy: a ball's mean chord
    assert shape.chord_z_um / shape.chord_x_um == pytest.approx(1.0, abs=0.15)
    assert shape.inside["488"] == pytest.approx(900, rel=0.1)
    assert found.ground["488"] == pytest.approx(100, rel=0.1)
    assert found.masks["561"].inside == {"488": None, "561": None}
    assert found.masks["561"].chord_z_um is None


def test_what_was_measured_comes_back_from_json() -> None:
    light, masks = seen(camera(800.0 * bodies()), camera(np.zeros(SHAPE), 1), (bodies(), bodies(3.0)))
    assert StackLight.from_json(light.to_json()) == light
    assert MaskEvidence.from_json(masks.to_json()) == masks
    with_looks = replace(masks, looks=StackLooks(0.6, 1.1, 0.4))
    assert MaskEvidence.from_json(with_looks.to_json()) == with_looks
