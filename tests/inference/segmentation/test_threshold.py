"""The baseline: what is bright is a cell, what is round is one cell, and no network is loaded for it."""

import subprocess
import sys

import numpy as np
import pytest
from numpy.typing import NDArray

from spheroidd.inference.network.model_card import read_card
from spheroidd.inference.segmentation.choice import model_digest, open_segmenter
from spheroidd.inference.segmentation.objects import find_markers, lone_peak
from spheroidd.inference.segmentation.threshold import ThresholdSegmenter
from spheroidd.protocols.errors import ModelError
from spheroidd.protocols.ports import Segmenter
from spheroidd.testing.segmenter_contract import SegmenterContract


class TestThresholdSegmenter(SegmenterContract):
    def make_segmenter(self) -> Segmenter:
        return ThresholdSegmenter()


class TestAtOtherVoxels(SegmenterContract):
    def make_segmenter(self) -> Segmenter:
        return ThresholdSegmenter(0.5, (2.0, 1.0, 1.0))


def balls(*centres_um: tuple[float, float, float], height: float = 1.0, step_um: float = 1.0) -> NDArray[np.float32]:
    """A region (2, z, y, x) of 40 um whose live channel holds balls of a cell's radius."""
    at = (np.indices([round(40 / step_um)] * 3) + 0.5) * step_um
    live = np.zeros(at.shape[1:], np.float32)
    for centre in centres_um:
        live[((at - np.reshape(centre, (3, 1, 1, 1))) ** 2).sum(0) <= 5.6**2] = height
    return np.stack([live, np.zeros_like(live)])


def test_a_mask_is_what_is_brighter_than_the_threshold() -> None:
    region = balls((20, 20, 20), height=2.0)
    assert np.array_equal(ThresholdSegmenter(1.0).predict(region).live > 0.5, region[0] > 1.0)
    assert not (ThresholdSegmenter(2.5).predict(region).live > 0.5).any()


def test_its_halo_is_all_that_a_spot_sees() -> None:
    segmenter, region = ThresholdSegmenter(0.5), balls((20, 20, 14), (20, 20, 25), (8, 8, 8))
    whole, part = (segmenter.predict(one).live_density for one in (region, region[:, : 8 + segmenter.halo]))
    assert np.abs(whole[:8] - part[:8]).max() <= 1e-6 * whole.max()


@pytest.mark.parametrize("step_um", [1.0, 0.5], ids=str)
def test_a_lone_cell_has_a_lone_cells_peak_at_its_centre(step_um: float) -> None:
    found = ThresholdSegmenter(0.5, (step_um,) * 3).predict(balls((20.5, 20.5, 20.5), step_um=step_um))
    peak = np.unravel_index(found.live_density.argmax(), found.live_density.shape)
    assert (np.array(peak) + 0.5) * step_um == pytest.approx([20.5] * 3, abs=step_um)
    assert found.live_density.max() == pytest.approx(lone_peak((step_um,) * 3), rel=0.1)
    assert not found.dead_density.any()


@pytest.mark.parametrize(
    ("centres", "n"),
    [([(20, 20, 20)], 1), ([(20, 20, 14), (20, 20, 25)], 2), ([(14, 20, 20), (25, 14, 20), (25, 26, 20)], 3)],
)
def test_cells_that_touch_are_counted_apart(centres: list[tuple[float, float, float]], n: int) -> None:
    found = ThresholdSegmenter(0.5).predict(balls(*centres))
    assert len(find_markers(found.live, found.live_density, (1.0, 1.0, 1.0))) == n


@pytest.mark.parametrize(("model", "digest"), [("threshold", "threshold-1"), ("threshold:1.5", "threshold-1.5")])
def test_its_name_stands_in_the_rows(model: str, digest: str) -> None:
    assert model_digest(model) == open_segmenter(model).sha256 == digest
    assert model_digest() == read_card().sha256


@pytest.mark.parametrize("model", ["threshold:", "threshold:high", "threshold:nan"])
def test_a_threshold_that_is_no_number_is_refused(model: str) -> None:
    with pytest.raises(ModelError, match="is no threshold"):
        model_digest(model)


def test_it_loads_no_torch() -> None:
    code = (
        "import sys; from spheroidd.daemon.scoring import score_stack; "
        "from spheroidd.inference.segmentation.choice import open_segmenter; "
        "score_stack.warm_up(open_segmenter('threshold')); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "False"
