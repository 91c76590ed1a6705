"""Volumes, densities and object counts: synthetic cells whose number and place are known."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spheroidd.inference.segmentation.objects import (
    DENSITY_SIGMA_UM,
    StackCounter,
    count_objects,
    density_target,
    find_markers,
    split_objects,
)
from spheroidd.protocols.errors import ConfigError, StackError
from spheroidd.protocols.ports import Prediction
from spheroidd.protocols.results import Limits, Normalisation, Precision
from spheroidd.protocols.stack import StackKey, StackPlan
from spheroidd.protocols.well import WellId
from spheroidd.sim_emulator.phantom import CellState
from spheroidd.sim_emulator.source import EmulatorSettings, EmulatorSource
from spheroidd.testing.source_contract import FakeClock

KEY = StackKey("plate", WellId(0, 0))
LIMITS = {"488": Limits(0.0, 1.0, 0.5, 0.2)}


def plan(n_z=6, height=8, width=10, pixel_um=0.5, z_step_um=2.0, channels=("488", "561")) -> StackPlan:
    return StackPlan(KEY, channels, n_z, height, width, pixel_um, z_step_um)


def measure(counter: StackCounter, **changes):
    known = {
        "limits": LIMITS,
        "normalisation": Normalisation.STACK,
        "precision": Precision.FP32,
        "model_sha256": "ab",
        "cpu_s": 1.0,
        "quantiles": {},
    }
    return counter.measure(**(known | changes))


def place_cells(rng, extent_um, distance_um, n_tries=6000):
    """Centres (n, 3) at least `distance_um` apart, some of them up to 6 um outside the field on every side."""
    centres = np.empty((0, 3))
    for candidate in rng.uniform(-6, np.array(extent_um) + 6, (n_tries, 3)):
        if not len(centres) or np.min(np.linalg.norm(centres - candidate, axis=1)) >= distance_um:
            centres = np.vstack([centres, candidate])
    return centres


def render(rng, centres, shape, spacing_um, radius_um):
    """Mask of touching ellipsoids (each radius and axis varies by 10 %) and the density, with 10 % noise on both."""
    grid = np.moveaxis((np.indices(shape).T + 0.5) * spacing_um, (0, 2), (2, 0))
    mask = np.zeros(shape, bool)
    for centre in centres:
        axes = radius_um * rng.uniform(0.9, 1.1, 3)
        low = [max(0, int((c - 1.2 * radius_um) / s)) for c, s in zip(centre, spacing_um, strict=True)]
        high = [max(0, int((c + 1.2 * radius_um) / s) + 2) for c, s in zip(centre, spacing_um, strict=True)]
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        mask[box] |= (((grid[box] - centre) / axes) ** 2).sum(-1) <= 1
    density = density_target(centres, shape, spacing_um)
    unit_peak = (2 * math.pi * DENSITY_SIGMA_UM**2) ** -1.5
    density += rng.normal(0, 0.1 * unit_peak, shape).astype(np.float32)
    probability = np.clip(np.where(mask, 0.9, 0.1) + rng.normal(0, 0.1, shape), 0, 1).astype(np.float32)
    return probability, np.maximum(density, 0)


@pytest.mark.parametrize(
    ("spacing_um", "distance_um", "radius_um"),
    [
        ((1, 1, 1), 9.0, 6.0),
        ((0.5, 0.5, 0.5), 9.0, 6.0),
        ((2, 1, 1), 9.0, 6.0),
        ((2, 1.3, 1.3), 9.0, 6.0),
        ((1, 1, 1), 6.5, 4.0),
    ],
    ids=str,
)
def test_touching_cells_are_counted_within_5_percent(spacing_um, distance_um, radius_um):
    rng = np.random.default_rng(7)
    extent_um = (45, 66, 66)
    shape = tuple(int(e / s) for e, s in zip(extent_um, spacing_um, strict=True))
    centres = place_cells(rng, extent_um, distance_um)
    truth = np.all((centres >= 0) & (centres < np.array(shape) * spacing_um), axis=1).sum()
    found = count_objects(*render(rng, centres, shape, spacing_um, radius_um), spacing_um)
    print(spacing_um, truth, found)
    assert truth > 100
    assert found == pytest.approx(truth, rel=0.05)


def test_noise_alone_holds_no_cell():
    rng = np.random.default_rng(0)
    probability, density = render(rng, np.empty((0, 3)), (30, 40, 40), (1, 1, 1), 6.0)
    assert count_objects(probability, density, (1, 1, 1)) == 0


@settings(deadline=None, max_examples=40)
@given(
    at=st.tuples(*[st.floats(0.2, 19.8)] * 3),
    spacing_um=st.sampled_from([(1.0, 1.0, 1.0), (0.5, 0.4, 0.4), (2.0, 1.0, 1.0)]),
)
def test_one_cell_is_one_object_wherever_it_lies(at, spacing_um):
    shape = tuple(int(20 / s) for s in spacing_um)
    density = density_target(np.array([at]), shape, spacing_um)
    everywhere = np.ones(shape, np.float32)
    assert count_objects(everywhere, density, spacing_um) == 1
    markers = (find_markers(everywhere, density, spacing_um) + 0.5) * spacing_um
    assert len(markers) == 1
    assert np.abs(markers - at).max() <= 0.5 * max(spacing_um) + 0.7


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize(("outside_um", "n"), [(-1.0, 1), (1.0, 0), (4.0, 0)])
def test_a_cell_centred_beyond_the_border_is_not_counted(axis, outside_um, n):
    at = [10.0, 10.0, 10.0]
    for border in (-outside_um, 20 + outside_um):
        at[axis] = border
        density = density_target(np.array([at]), (20, 20, 20), (1, 1, 1))
        assert len(find_markers(np.ones((20, 20, 20), np.float32), density, (1, 1, 1))) == n


def test_the_rim_of_a_cell_beyond_the_border_is_no_cell_of_this_field():
    probability, density = render(
        np.random.default_rng(0), np.array([[15.0, 15.0, -2.0]]), (30, 30, 30), (1, 1, 1), 6.0
    )
    assert (probability > 0.5).sum() > 100
    assert count_objects(probability, density, (1, 1, 1)) == 0


@pytest.mark.parametrize("well", ["A01", "A05", "B04"])
def test_an_emulated_spheroids_cells_are_all_found_given_their_density(well):
    source = EmulatorSource(EmulatorSettings(preset="unit", pace="fast"), None, "plate", FakeClock())
    plan, truth = source.plan(WellId.parse(well)), source.truth(well)
    own_um = (plan.z_step_um, plan.pixel_um, plan.pixel_um)
    live, dead = (
        density_target(truth.points_um(*states) + np.array(own_um) / 2, truth.live.shape, own_um)
        for states in ([CellState.LIVE], [CellState.DEAD, CellState.DOUBLE_POSITIVE])
    )
    counter = StackCounter(plan, model_shape=truth.live.shape, model_spacing_um=own_um)
    counter.add_density(0, Prediction(truth.live.astype(np.float32), truth.dead.astype(np.float32), live, dead))
    assert counter.count("488") == pytest.approx(truth.well.n_live, rel=0.02, abs=1)
    assert counter.count("561") == pytest.approx(truth.well.n_dead, rel=0.02, abs=1)


def test_density_is_one_cell_per_cell_and_zero_without():
    points = np.array([[20.0, 20.0, 20.0], [18.5, 22.1, 19.0]])
    density = density_target(points, (40, 80, 80), (1.0, 0.5, 0.5))
    assert density.dtype == np.float32
    assert density.sum() * 0.25 == pytest.approx(2, rel=1e-5)
    assert not density_target(np.empty((0, 3)), (4, 4, 4), (1, 1, 1)).any()
    assert density_target(np.array([[0.0, 20, 20]]), (40, 40, 40), (1, 1, 1)).sum() == pytest.approx(0.5, rel=1e-4)


def test_a_piece_of_mask_without_a_peak_counts_if_it_is_big_enough():
    probability = np.zeros((20, 20, 20), np.float32)
    probability[2:7, 2:7, 2:7] = 1  # 125 um3
    probability[12:14, 12:14, 12:14] = 1  # 8 um3
    density = np.zeros_like(probability)
    assert count_objects(probability, density, (1, 1, 1)) == 1
    labels = split_objects(probability, density, (1, 1, 1))
    assert (labels == 1).sum() == 125
    assert labels.max() == 1


def test_the_label_volume_holds_as_many_objects_as_are_counted_and_covers_them():
    rng = np.random.default_rng(3)
    centres = place_cells(rng, (30, 40, 40), 9.0, 1500)
    probability, density = render(rng, centres, (30, 40, 40), (1, 1, 1), 6.0)
    probability[:, :2] = 0
    labels = split_objects(probability, density, (1, 1, 1))
    present = np.unique(labels[labels > 0])
    assert len(present) == labels.max() == count_objects(probability, density, (1, 1, 1))
    assert not labels[probability < 0.5].any()
    assert np.bincount(labels[labels > 0]).max() < 3 * 4 / 3 * math.pi * 6**3


class TestStackCounter:
    def test_volumes_are_micrometres_cubed_per_slice(self):
        rng = np.random.default_rng(1)
        live, dead = rng.random((2, 6, 8, 10)) > 0.5
        counter = StackCounter(plan(), model_shape=(12, 4, 5), model_spacing_um=(1, 1, 1))
        for z in (4, 0, 2):
            counter.add_masks(z, live[z : z + 2], dead[z : z + 2])
        counter.add_density(0, prediction((12, 4, 5)))
        measured = measure(counter)
        assert measured.live_um3 == live.sum() * 0.5
        assert measured.dead_um3 == dead.sum() * 0.5
        assert measured.live_um3_by_z == tuple(live.sum((1, 2)) * 0.5)
        assert (measured.n_live, measured.n_dead) == (0, 0)

    @pytest.mark.parametrize(
        "spacing_um", [(1.0, 1.0, 1.0), (0.5, 0.2, 0.2), (0.1, 0.5, 0.5), (3.0, 1.3, 1.3)], ids=str
    )
    def test_slabs_in_any_order_count_like_the_whole(self, spacing_um):
        rng = np.random.default_rng(5)
        extent_um = (24.0, 30.0, 31.0)
        shape = tuple(round(e / s) for e, s in zip(extent_um, spacing_um, strict=True))
        centres = place_cells(rng, extent_um, 10.0, 500)
        density = density_target(centres, shape, spacing_um)
        whole = Prediction(*[np.ones(shape, np.float32)] * 2, density, np.zeros(shape, np.float32))
        counts = []
        for step, order in ((shape[0], 1), (5, 1), (7, -1)):
            counter = StackCounter(plan(channels=("488",)), model_shape=shape, model_spacing_um=spacing_um)
            for z in range(0, shape[0], step)[::order]:
                counter.add_density(z, Prediction(*(part[z : z + step] for part in whole)))
            counts.append(counter.count("488"))
        n_inside = np.all((centres >= 0) & (centres <= extent_um), axis=1).sum()
        assert counts == [counts[0]] * 3
        assert counts[0] == pytest.approx(n_inside, abs=2)
        assert counter.count("561") is None
        labels, bin_um = counter.objects("488")
        assert labels.max() == counts[0]
        assert np.allclose(np.array(labels.shape) * bin_um, extent_um, atol=3)

    def test_a_slab_scored_again_takes_the_place_of_the_first(self):
        counter = StackCounter(plan(), model_shape=(20, 20, 20), model_spacing_um=(1, 1, 1))
        density = density_target(np.array([[10.0, 10, 10]]), (20, 20, 20), (1, 1, 1))
        counter.add_density(0, prediction((20, 20, 20)))
        assert counter.count("488") == 0
        for _ in range(2):
            counter.add_density(0, Prediction(*[np.ones((20, 20, 20), np.float32)] * 2, density, density))
        assert (counter.count("488"), counter.count("561")) == (1, 1)
        mask = np.ones((6, 8, 10), bool)
        for live in (mask, mask, ~mask):
            counter.add_masks(0, live, None)
        assert counter.volumes_by_z("488").sum() == 0

    def test_what_was_never_fed_is_an_error_not_a_zero(self):
        counter = StackCounter(plan(), model_shape=(12, 4, 5), model_spacing_um=(1, 1, 1))
        counter.add_masks(0, np.ones((5, 8, 10), bool), np.ones((6, 8, 10), bool))
        with pytest.raises(StackError, match="1 of 6 slices of channel 488"):
            counter.volumes_by_z("488")
        counter.add_density(0, prediction((11, 4, 5)))
        with pytest.raises(StackError, match="missing for 1 of 12 depths"):
            counter.count("488")

    def test_a_channel_that_the_stack_lacks_stays_unknown(self):
        counter = StackCounter(plan(channels=("488",)), model_shape=(12, 4, 5), model_spacing_um=(1, 1, 1))
        counter.add_masks(0, np.zeros((6, 8, 10), bool), None)
        counter.add_density(0, prediction((12, 4, 5)))
        measured = measure(counter)
        assert (measured.live_um3, measured.n_live) == (0.0, 0)
        assert (measured.dead_um3, measured.n_dead, measured.v_count) == (None, None, None)
        dead_only = StackCounter(plan(channels=("561",)), model_shape=(12, 4, 5), model_spacing_um=(1, 1, 1))
        dead_only.add_masks(0, None, np.zeros((6, 8, 10), bool))
        dead_only.add_density(0, prediction((12, 4, 5)))
        assert (measure(dead_only).live_um3, measure(dead_only).live_um3_by_z) == (None, ())

    def test_a_slab_of_the_wrong_size_is_refused(self):
        counter = StackCounter(plan(), model_shape=(12, 4, 5), model_spacing_um=(1, 1, 1))
        with pytest.raises(ConfigError, match="does not fit"):
            counter.add_masks(5, np.ones((2, 8, 10), bool), None)
        with pytest.raises(ConfigError, match="does not fit"):
            counter.add_density(0, prediction((12, 5, 5)))

    def test_a_huge_field_gets_coarser_bins_and_not_more_memory(self):
        counter = StackCounter(plan(), model_shape=(1000, 5200, 5200), model_spacing_um=(0.4, 0.1, 0.1))
        n_bytes = sum(part.nbytes for maps in (counter._probability, counter._density) for part in maps.values())
        assert n_bytes <= 140e6


def prediction(shape) -> Prediction:
    return Prediction(*[np.zeros(shape, np.float32)] * 4)
