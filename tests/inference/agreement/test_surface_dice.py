"""Surface Dice by hand, against MONAI, and independent of how the volume is cut into slabs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from spheroidd.inference.agreement import surface_dice as surface
from spheroidd.inference.agreement.surface_dice import surface_agreement
from spheroidd.protocols.errors import ConfigError


def box(*corners: tuple[int, int], shape: tuple[int, int, int] = (12, 12, 12)) -> NDArray[np.bool_]:
    mask = np.zeros(shape, bool)
    mask[tuple(slice(*corner) for corner in corners)] = True
    return mask


CUBE = box((4, 8), (4, 8), (4, 8))


@pytest.mark.parametrize(
    ("mask", "tolerance_um", "dice"),
    [
        (CUBE, 0.0, 1.0),
        (box((4, 8), (4, 8), (5, 9)), 0.0, 2 * 3 * 12 / 112),
        (box((4, 8), (4, 8), (5, 9)), 1.0, 1.0),
        (box((0, 1), (0, 1), (0, 1)), 1.0, 0.0),
        (np.zeros_like(CUBE), 1.0, 0.0),
    ],
    ids=["equal", "one to the right, exactly", "one to the right, within 1 um", "apart", "nothing found"],
)
def test_by_hand(mask: NDArray[np.bool_], tolerance_um: float, dice: float) -> None:
    found = surface_agreement(mask, CUBE, (1.0, 1.0, 1.0), tolerance_um)
    assert found.dice == pytest.approx(dice)
    assert surface_agreement(CUBE, mask, (1.0, 1.0, 1.0), tolerance_um) == found


def test_two_empty_masks_agree() -> None:
    empty = np.zeros((2, 3, 4), bool)
    assert surface_agreement(empty, empty, (1, 1, 1), 1.0).dice == 1
    assert surface_agreement(~empty, ~empty, (1, 1, 1), 1.0).dice == 1


def test_the_fields_border_is_no_surface() -> None:
    """Two halves of the field that end one voxel apart: only the planes where they end count."""
    one, other = box((0, 6), (0, 12), (0, 12)), box((0, 7), (0, 12), (0, 12))
    assert surface_agreement(one, other, (1, 1, 1), 0.0).dice == 0
    assert surface_agreement(one, other, (1, 1, 1), 1.0).dice == 1


def test_distances_are_micrometres() -> None:
    moved = box((5, 9), (4, 8), (4, 8))
    assert surface_agreement(moved, CUBE, (0.5, 2.0, 2.0), 0.5).dice == 1
    assert surface_agreement(moved, CUBE, (2.0, 0.5, 0.5), 0.5).dice < 1


def _blobs(seed: int) -> NDArray[np.bool_]:
    rng = np.random.default_rng(seed)
    mask = np.zeros((14, 14, 14), bool)
    mask[2:-2, 2:-2, 2:-2] = rng.random((10, 10, 10)) > 0.6
    return mask


@given(st.integers(0, 50), st.sampled_from([0.0, 0.6, 1.3, 2.0]))
@settings(deadline=None, max_examples=15)
def test_slabs_change_nothing(seed: int, tolerance_um: float) -> None:
    spacing = (0.6, 0.5, 1.0)
    whole = surface_agreement(_blobs(seed), _blobs(seed + 1), spacing, tolerance_um)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(surface, "_SLAB_VOXELS", 1)
        assert surface_agreement(_blobs(seed), _blobs(seed + 1), spacing, tolerance_um) == whole


# MONAI's own call of its own function: it warns of an argument that it will drop itself.
@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")
@pytest.mark.parametrize("tolerance_um", [0.0, 0.7, 1.5])
def test_monai_says_the_same_away_from_the_border(tolerance_um: float) -> None:
    metrics = pytest.importorskip("monai.metrics")
    torch = pytest.importorskip("torch")
    spacing = (0.6, 0.5, 1.0)
    mask, truth = box((3, 9), (3, 9), (4, 8)), box((4, 8), (3, 10), (3, 8))
    given, true = (torch.from_numpy(part)[None, None].float() for part in (mask, truth))
    expected = metrics.compute_surface_dice(
        given, true, [tolerance_um], include_background=True, spacing=spacing, use_subvoxels=False
    )
    assert surface_agreement(mask, truth, spacing, tolerance_um).dice == pytest.approx(float(expected))


@pytest.mark.parametrize(
    ("truth", "tolerance_um"),
    [(np.zeros((1, 2, 3), bool), 1.0), (CUBE.astype(np.uint8), 1.0), (CUBE, -1.0), (CUBE, float("nan"))],
    ids=["shape", "dtype", "negative", "nan"],
)
def test_what_cannot_be_compared_is_refused(truth: NDArray[np.bool_], tolerance_um: float) -> None:
    with pytest.raises(ConfigError):
        surface_agreement(CUBE, truth, (1, 1, 1), tolerance_um)
