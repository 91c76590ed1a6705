"""How deep cells can be told apart: in a made-up spheroid whose cells fade into haze below its surface."""

import numpy as np
import pytest
from scipy import ndimage

from spheroidd.inference.quality.depth_seen import SHELL_UM, SURFACE_SHELLS, depth_seen_um
from spheroidd.protocols.stack import CHANNELS

FLOOR = dict.fromkeys(CHANNELS, 100.0)
SHAPE, STEP_UM, RADIUS_UM = (60, 60, 60), (2.0, 2.0, 2.0), 50.0


def spheroid(length_um: float, light: float = 400.0, noise: float = 3.0) -> np.ndarray:
    """Nuclei 11 um apart whose light leaves focus by e in `length_um` below the surface, and comes back as haze."""
    rng = np.random.default_rng(0)
    nuclei = ndimage.gaussian_filter((rng.random(SHAPE) < (2 / 11) ** 3).astype(float), 1.5)
    nuclei /= nuclei.mean()
    grid = (np.indices(SHAPE) + 0.5) * 2 - 60
    below_um = RADIUS_UM - np.sqrt((grid**2).sum(0))
    focused = np.exp(-below_um.clip(0) / length_um)
    bright = np.where(below_um > 0, 1 + focused * (nuclei - 1), 0.0)
    return (100 + light * bright + rng.normal(0, noise, SHAPE)).astype(np.float32)


def seen_um(length_um: float, **more: float) -> float | None:
    return depth_seen_um({"488": spheroid(length_um, **more)}, STEP_UM, FLOOR)


def test_the_shorter_light_stays_in_focus_the_less_deep_cells_are_seen() -> None:
    found = [seen_um(length_um) for length_um in (8.0, 11.0, 15.0)]
    assert None not in found
    assert found == sorted(set(found))  # type: ignore[type-var]
    for length_um, depth_um in zip((8.0, 11.0, 15.0), found, strict=True):
        assert 1.5 * length_um < depth_um < 4.0 * length_um  # type: ignore[operator]


def test_a_spheroid_that_does_not_scatter_is_seen_to_its_middle() -> None:
    assert seen_um(1e9) == pytest.approx(RADIUS_UM, abs=8.0)


def test_dim_light_is_not_a_shallow_spheroid() -> None:
    bright, dim = seen_um(10.0, light=4000.0), seen_um(10.0, light=150.0)
    assert bright is not None
    assert dim == pytest.approx(bright, abs=5.0)


def test_the_channel_that_shows_less_deep_decides_and_one_without_structure_does_not() -> None:
    deep, shallow, flat = spheroid(15.0), spheroid(8.0), spheroid(1e-3)
    alone = seen_um(8.0)
    assert depth_seen_um({"488": deep, "561": shallow}, STEP_UM, FLOOR) == alone
    assert depth_seen_um({"488": shallow, "561": flat}, STEP_UM, FLOOR) == alone
    assert (depth_seen_um({"561": flat}, STEP_UM, FLOOR) or 0.0) <= SURFACE_SHELLS * SHELL_UM


def test_finer_points_say_the_same() -> None:
    coarse = spheroid(10.0)
    fine = coarse.repeat(2, 0).repeat(2, 1).repeat(2, 2)
    assert depth_seen_um({"488": fine}, (1.0, 1.0, 1.0), FLOOR) == seen_um(10.0)


@pytest.mark.parametrize(
    ("values", "step_um"),
    [(spheroid(10.0), (3.5, 2.0, 2.0)), (spheroid(10.0)[20:40, 20:40, 20:40], STEP_UM)],
    ids=["points too far apart", "nothing but tissue"],
)
def test_where_nobody_can_say_nothing_is_said(values: np.ndarray, step_um: tuple[float, float, float]) -> None:
    assert depth_seen_um({"488": values}, step_um, FLOOR) is None
