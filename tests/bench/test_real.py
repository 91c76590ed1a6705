"""The bench on real volumes: its peers find made-up nuclei one by one, and its figures say what was found."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from bench import real
from bench.real import _at_own_sampling, figures
from bench.real_peers import drawn_planes, forest, objects_of, otsu
from bench.real_volumes import VOLUMES, Volume
from spheroidd.inference.network.weights import load_model
from tests.inference.training.rig import TINY, balls
from tests.places import needs_real_data

CENTRES = [(8, 10, 10), (8, 10, 21), (16, 30, 12), (15, 28, 34), (6, 34, 30)]  # the first two touch


@pytest.fixture(scope="module")
def volume() -> Volume:
    """Balls of 6 voxels' radius on a slope of background, twice as far apart in z as in y and x."""
    grid = np.indices((24, 42, 44))
    objects = np.zeros(grid.shape[1:], np.int32)
    for number, centre in enumerate(CENTRES, 1):
        away = [(axis - at) * step for axis, at, step in zip(grid, centre, (2, 1, 1), strict=True)]
        objects[sum(one**2 for one in away) < 6**2] = number
    noise = np.random.default_rng(0).normal(0, 8, objects.shape)
    pixels = 100 + 2 * grid[2] + 120 * ndimage.gaussian_filter((objects > 0).astype(float), (0.4, 0.8, 0.8)) + noise
    return Volume(pixels.astype(np.uint16), objects, 0.5, 1.0)


@pytest.mark.parametrize("peer", [otsu, forest], ids=["otsu", "forest"])
def test_a_peer_finds_each_nucleus_on_an_uneven_background(volume: Volume, peer) -> None:  # type: ignore[no-untyped-def]
    mask = peer(volume)
    said = figures(volume, mask, objects_of(mask, volume))
    assert said["dice"] > 0.8
    assert said["f1"] == 1.0
    assert said["objects"] == said["true"] == len(CENTRES)


def test_an_empty_answer_scores_nothing(volume: Volume) -> None:
    said = figures(volume, np.zeros(volume.objects.shape, bool), np.zeros_like(volume.objects))
    assert (said["dice"], said["recall"], said["f1"], said["objects"]) == (0, 0, 0, 0)


def test_labels_at_another_sampling_come_back_to_their_place(volume: Volume) -> None:
    coarse = volume.objects[:, ::2, ::2]  # voxels of 1 um
    again = _at_own_sampling(coarse, (1.0, 1.0, 1.0), volume)
    assert again.shape == volume.objects.shape
    assert np.count_nonzero(again != volume.objects) < 0.05 * np.count_nonzero(volume.objects) + 400


def test_three_planes_are_drawn() -> None:
    assert list(drawn_planes(100)) == [25, 50, 75]


def test_the_2d_network_is_trained_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(real, "plates", lambda *asked: {"balls": [balls()]})
    monkeypatch.setattr(real, "BUDGET", replace(TINY, steps=2, every=1))
    monkeypatch.setattr(real, "OUT", tmp_path)
    path = Path(real.network_2d(tmp_path))
    written = path.stat().st_mtime_ns
    assert load_model(path)[1].settings.architecture == "SlicewiseUNet"
    assert Path(real.network_2d(tmp_path)) == path
    assert path.stat().st_mtime_ns == written


@needs_real_data
@pytest.mark.parametrize(("name", "n"), [("embryo8", 8), ("1135", None), ("1136", None), ("stardist", None)])
def test_every_real_volume_has_numbered_nuclei(name: str, n: int | None) -> None:
    volume = VOLUMES[name]()
    assert volume.pixels.shape == volume.objects.shape
    there = len(np.unique(volume.objects)) - 1
    assert there == n if n is not None else there > 5
