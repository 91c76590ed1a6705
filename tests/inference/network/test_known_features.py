"""Foreign images: the distance of features, what counts for it, and the file beside the weights."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage

from spheroidd.inference.network.known_features import (
    LEAST_VOXELS,
    SUFFIX,
    FeatureSums,
    KnownFeatures,
    home_of,
    kind_of,
    known_features,
)
from spheroidd.inference.network.model_card import find_weights, read_card
from spheroidd.inference.segmentation.segmenter import load_segmenter
from spheroidd.protocols.errors import ModelError
from spheroidd.protocols.results import Normalisation
from spheroidd.protocols.stack import CHANNELS

PLATE = Normalisation.PLATE


def sums(values: np.ndarray) -> FeatureSums:
    found = FeatureSums.none()
    found.add("last", len(values), values.sum(0), (values**2).sum(0))
    return found


def vector(rng: np.random.Generator, width: float = 1.0) -> np.ndarray:
    """Features whose last mean grows with the logarithm of the width of cells."""
    return np.concatenate([rng.normal([1, 2 + np.log(width)], 0.05), rng.normal([0.5, 0.5], 0.05)])


def known(tmp_path: Path, sha256: str = "abc") -> tuple[KnownFeatures, Path]:
    rng = np.random.default_rng(0)
    usual = [vector(rng) for _ in range(50)]
    shown = [(vector(rng, width), width) for width in (0.5, 0.7, 1.0, 1.4, 2.0) for _ in range(10)]
    home = home_of(usual, shown)._replace(farthest=4.0, off=0.2)
    found = KnownFeatures({kind_of(CHANNELS, PLATE): home}, sha256, {"command": "by hand"})
    path = tmp_path / f"mine{SUFFIX}"
    found.write(path)
    return found, path


def test_sums_of_parts_are_the_means_and_deviations_of_the_whole() -> None:
    values = np.random.default_rng(1).gamma(2.0, size=(1000, 3))
    together = sums(values[:400])
    together.merge(sums(values[400:]))
    vector = together.vector()
    assert vector is not None
    np.testing.assert_allclose(vector, [*values.mean(0), *values.std(0)], rtol=1e-9)


def test_of_hardly_any_cell_nobody_can_say() -> None:
    assert sums(np.ones((LEAST_VOXELS - 1, 2))).vector() is None
    assert FeatureSums.none().vector() is None


@pytest.mark.parametrize(("shift", "is_foreign"), [(0.0, False), (0.1, False), (1.0, True)])
def test_what_lies_far_from_home_is_foreign(tmp_path: Path, shift: float, is_foreign: bool) -> None:
    found, path = known(tmp_path)
    values = np.random.default_rng(2).normal([1 + shift, 2], 0.5, (5000, 2))
    looks = found.looks(sums(values), CHANNELS, PLATE)
    assert looks is not None
    assert (looks.unlike > 1) == (looks.foreign > 1) == is_foreign
    again = KnownFeatures.read(path).looks(sums(values), CHANNELS, PLATE)
    assert again is not None
    assert (again.unlike, again.width) == pytest.approx((looks.unlike, looks.width), rel=1e-3)


@pytest.mark.parametrize(("width", "is_foreign"), [(0.7, True), (0.95, False), (1.05, False), (1.4, True)])
def test_how_wide_cells_look_is_told_where_a_distance_does_not_note_it(
    tmp_path: Path, width: float, is_foreign: bool
) -> None:
    found, _ = known(tmp_path)
    values = np.random.default_rng(2).normal([1, 2 + np.log(width)], 0.5, (5000, 2))
    looks = found.looks(sums(values), CHANNELS, PLATE)
    assert looks is not None
    assert looks.width == pytest.approx(width, rel=0.06)
    assert (looks.width_off > 1) == is_foreign
    assert looks.foreign == max(looks.unlike, looks.width_off)


def test_a_kind_of_stack_that_has_no_reference_is_not_judged(tmp_path: Path) -> None:
    found, _ = known(tmp_path)
    assert found.looks(sums(np.ones((5000, 2))), ("488",), PLATE) is None


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04nothing", None])
def test_a_damaged_reference_is_refused_in_words(tmp_path: Path, damage: bytes | None) -> None:
    _, path = known(tmp_path)
    path.write_bytes(path.read_bytes()[:-300] if damage is None else damage)
    with pytest.raises(ModelError, match="not a reference of features"):
        KnownFeatures.read(path)


def test_the_shipped_weights_have_a_reference_of_their_own_and_others_have_none(tmp_path: Path) -> None:
    found = known_features("emulator", read_card("emulator").sha256)
    assert found is not None
    kinds = {"488+561 plate", "488+561 stack", "488", "561"}
    assert set(found.homes) == kinds
    other = shutil.copy(find_weights("emulator"), tmp_path / "other.safetensors")
    assert known_features(other, found.weights_sha256) is None
    with pytest.raises(ModelError, match="other weights"):
        known_features("emulator", "0" * 64)


def test_the_reference_is_no_network_s_weights() -> None:
    with pytest.raises(ModelError):
        find_weights("emulator.features")


def test_a_region_s_features_are_the_same_on_the_device_way() -> None:
    noise = np.random.default_rng(3).normal(size=(2, 40, 40, 40))
    region = (30 * ndimage.gaussian_filter(noise, (0, 4, 4, 4))).astype(np.float32)
    segmenter = load_segmenter("emulator", "cpu", 1, "fp32")
    segmenter.predict(region)
    one = segmenter.take_features().vector()
    segmenter.predict_many(torch.from_numpy(region)[None])
    other = segmenter.take_features().vector()
    assert one is not None
    assert other is not None
    np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)
    assert segmenter.take_features().vector() is None
