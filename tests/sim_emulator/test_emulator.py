"""The synthetic microscope: its truth agrees with itself and with its pictures, its physics with what was asked."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from scipy.spatial import cKDTree

from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.plate import WellRole
from spheroidd.protocols.stack import SliceIndex
from spheroidd.protocols.well import WellId
from spheroidd.sim_emulator import camera as camera_module
from spheroidd.sim_emulator.camera import GAIN_ADU_PER_E, OFFSET_ADU, READ_NOISE_E, Camera
from spheroidd.sim_emulator.coarse import CoarseSpheroid
from spheroidd.sim_emulator.draws import Draws
from spheroidd.sim_emulator.phantom import CellState, Phantom, grow, live_fraction
from spheroidd.sim_emulator.plate import Compound, DrugMode, PlateDesign, SpecChoices, WellSpec, well_spec
from spheroidd.sim_emulator.presets import PRESETS
from spheroidd.sim_emulator.scene import Scene, well_truth
from spheroidd.sim_emulator.source import EmulatorSettings, EmulatorSource
from spheroidd.sim_emulator.truth import Truth
from spheroidd.testing.source_contract import FakeClock

DESIGN = PlateDesign(compounds=6).plate_map("plate", 0)
SMALL = dataclasses.replace(PRESETS["unit"], n_z=12, height=64, width=64, pixel_um=0.6, z_step_um=1.5)


def spec(well: str = "A01", *, diameter_um: float = 200.0, **changed: Any) -> WellSpec:
    made = well_spec(DESIGN, DESIGN[WellId.parse(well)], SpecChoices(0, diameter_um))
    return dataclasses.replace(made, **changed)


def states(phantom: Phantom) -> NDArray[np.uint8]:
    return phantom.cells.state


@pytest.fixture(scope="module")
def half_killed() -> tuple[Scene, Truth]:
    source = EmulatorSource(EmulatorSettings(preset="unit", doses=3), None, "plate", FakeClock())
    return source.scene(WellId.parse("B02")), source.truth("B02")


class TestTruth:
    def test_masks_and_numbers_agree_with_the_cells_table(self, half_killed: tuple[Scene, Truth]) -> None:
        _, truth = half_killed
        state = np.full(int(truth.cell_ids.max()) + 1, 255, np.uint8)
        state[truth.cells["id"][truth.cells["id"] < len(state)]] = truth.cells["state"][truth.cells["id"] < len(state)]
        state[0] = 255
        at = state[truth.cell_ids]
        assert np.array_equal(truth.live, at == CellState.LIVE)
        assert truth.dead.any()
        assert set(np.unique(at[truth.dead])) <= {CellState.DEAD, CellState.DOUBLE_POSITIVE}

    def test_a_cell_is_where_its_row_says(self, half_killed: tuple[Scene, Truth]) -> None:
        scene, truth = half_killed
        rows = truth.cells[truth.cells["in_fov"]]
        step = np.array([scene.preset.z_step_um, scene.preset.pixel_um, scene.preset.pixel_um])
        place = np.stack([rows["z_um"], rows["y_um"], rows["x_um"]], 1) / step
        z, y, x = np.clip(np.rint(place).astype(int), 0, np.array(truth.live.shape) - 1).T
        assert (truth.cell_ids[z, y, x] == rows["id"]).mean() > 0.97

    def test_every_number_in_the_volume_has_a_row(self, half_killed: tuple[Scene, Truth]) -> None:
        _, truth = half_killed
        assert set(np.unique(truth.cell_ids)) - {0} <= set(truth.cells["id"])

    def test_counts_and_viability_follow_from_the_table(self, half_killed: tuple[Scene, Truth]) -> None:
        _, truth = half_killed
        state = truth.cells["state"][truth.cells["in_fov"]]
        n_dead = np.isin(state, [CellState.DEAD, CellState.DOUBLE_POSITIVE]).sum()
        assert (truth.well.n_live, truth.well.n_dead) == ((state == CellState.LIVE).sum(), n_dead)
        assert truth.well.v_true_fov == truth.well.n_live / (truth.well.n_live + truth.well.n_dead)

    def test_the_cheap_volumes_are_those_of_the_masks(self, half_killed: tuple[Scene, Truth]) -> None:
        scene, truth = half_killed
        voxel_um3 = scene.preset.pixel_um**2 * scene.preset.z_step_um
        assert truth.well.live_um3_true == pytest.approx(truth.live.sum() * voxel_um3, rel=0.03)
        assert truth.well.dead_um3_true == pytest.approx(truth.dead.sum() * voxel_um3, rel=0.05)

    def test_points_are_the_cells_of_a_state(self, half_killed: tuple[Scene, Truth]) -> None:
        _, truth = half_killed
        assert len(truth.points_um(CellState.LIVE)) == (truth.cells["state"] == CellState.LIVE).sum()

    def test_a_label_can_be_seen(self, half_killed: tuple[Scene, Truth]) -> None:
        scene, truth = half_killed
        z = scene.preset.n_z // 2
        green, red = scene.image("488", z).astype(float), scene.image("561", z).astype(float)
        outside = truth.cell_ids[z] == 0
        assert np.median(green[truth.live[z]]) > 2 * np.median(green[outside]) - OFFSET_ADU
        assert np.median(red[truth.dead[z]]) > 2 * np.median(red[outside]) - OFFSET_ADU

    def test_no_cell_is_a_ball(self, half_killed: tuple[Scene, Truth]) -> None:
        """A ball of its volume would share far more with each body than it does."""
        scene, truth = half_killed
        step = np.array([scene.preset.z_step_um, scene.preset.pixel_um, scene.preset.pixel_um])
        ratios = []
        for number in np.unique(truth.cell_ids[1:-1, 1:-1, 1:-1])[1:]:
            where = np.argwhere(truth.cell_ids == number)
            if (where.min(0) == 0).any() or (where.max(0) == np.array(truth.live.shape) - 1).any():
                continue
            spread = np.sqrt(np.linalg.eigvalsh(np.cov((where * step).T)))
            ratios.append(spread[-1] / spread[0])
        assert len(ratios) >= 3
        assert np.median(ratios) > 1.15


class TestPhantom:
    @settings(deadline=None, max_examples=15)
    @given(st.floats(0, 0.99), st.sampled_from(DrugMode), st.integers(0, 1000))
    def test_the_live_fraction_is_the_one_asked_for(self, target: float, mode: DrugMode, seed: int) -> None:
        phantom = grow(spec(v_target=target, mode=mode, effect=0.5, necrotic=False, draws=Draws.of(seed)))
        assert live_fraction(states(phantom)) == pytest.approx(target, abs=0.03)

    def test_cells_are_packed_as_in_tissue(self) -> None:
        phantom = grow(spec(diameter_um=300))
        inside = phantom.cells.depth_um > 15
        distance = cKDTree(phantom.cells.centre_um).query(phantom.cells.centre_um[inside], 2)[0][:, 1]
        volume_mm3 = 4 / 3 * np.pi * (phantom.shape.radius_um / 1000) ** 3
        assert 0.7e6 < len(phantom.cells) / volume_mm3 < 1.9e6
        assert distance.min() > 4.5
        assert 6.5 < np.median(distance) < 11

    def test_sizes_are_those_of_cells(self) -> None:
        cells = grow(spec()).cells
        live = cells.state == CellState.LIVE
        assert 11 <= 2 * cells.radius_um[live].min() <= 2 * cells.radius_um[live].max() <= 14
        share = (cells.nucleus_radius_um[live] / cells.radius_um[live]) ** 3
        assert 0.34 < share.min() < share.max() < 0.46

    def test_some_cells_show_both_dyes_and_some_none(self) -> None:
        state = states(grow(spec("B02", diameter_um=300, v_target=0.6)))
        for kind in (CellState.DOUBLE_POSITIVE, CellState.DOUBLE_NEGATIVE):
            assert 0.01 < (state == kind).mean() < 0.06

    @pytest.mark.parametrize(("mode", "sign"), [(DrugMode.RIM_IN, -1), (DrugMode.CORE_OUT, 1), (DrugMode.UNIFORM, 0)])
    def test_death_starts_where_the_mode_says(self, mode: DrugMode, sign: int) -> None:
        cells = grow(spec(mode=mode, v_target=0.5)).cells
        dead, live = (cells.depth_um[cells.state == s].mean() for s in (CellState.DEAD, CellState.LIVE))
        assert (dead - live) * sign > 5 if sign else abs(dead - live) < 4

    def test_a_large_spheroid_has_a_dead_core_even_untreated(self) -> None:
        cells = grow(spec(diameter_um=450, necrotic=True, rim_um=120.0, v_target=0.97)).cells
        core, rim = cells.state[cells.depth_um > 125], cells.state[cells.depth_um < 115]
        assert live_fraction(core) < 0.2
        assert live_fraction(rim) > 0.9

    def test_shedding_leaves_dead_cells_and_crumbs_outside(self) -> None:
        phantom = grow(spec(mode=DrugMode.SHEDDING, v_target=0.5, effect=0.8))
        outside = phantom.shape.depth_um(phantom.cells.centre_um) < -2
        kinds = phantom.cells.state[outside]
        assert (kinds == CellState.DEBRIS).sum() > 20
        assert (kinds == CellState.DEAD).sum() > 10
        assert not (kinds == CellState.LIVE).any()

    def test_crumbs_are_in_no_mask(self) -> None:
        scene = Scene.of(spec(mode=DrugMode.SHEDDING, v_target=0.5, effect=1.0), SMALL)
        crumbs = set(scene.phantom.cells.ids[states(scene.phantom) == CellState.DEBRIS])
        assert not crumbs & set(np.unique([plane.cell_ids for plane in scene.planes_truth()]))

    def test_a_crop_shows_the_cells_of_the_whole(self) -> None:
        here = spec()
        crop = dataclasses.replace(SMALL, n_z=6, field_z_um=SMALL.field_z_um + 3 * SMALL.z_step_um)
        whole, part = set(Scene.of(here, SMALL).cells()["id"]), set(Scene.of(here, crop).cells()["id"])
        assert part
        assert part <= whole


class TestPlate:
    def test_controls_are_what_they_should_be(self) -> None:
        design = PlateDesign(compounds=0, negative_controls=20, positive_controls=20).plate_map("controls", 3)
        for entry in design:
            live = well_spec(design, entry, SpecChoices(3, 150)).v_target
            if entry.treatment.role is WellRole.POSITIVE_CONTROL:
                assert 0.015 < live < 0.045
            else:
                assert 0.88 < live < 0.99

    @settings(deadline=None)
    @given(st.floats(0.01, 1000), st.floats(0.8, 2.5), st.floats(0, 0.3), st.floats(1e-3, 1e4), st.floats(1.0, 100))
    def test_more_of_a_drug_never_helps(self, ic50: float, hill: float, floor: float, dose: float, more: float) -> None:
        compound = Compound("X", ic50, hill, floor, DrugMode.UNIFORM)
        assert floor <= compound.response(dose * more, ic50) <= compound.response(dose, ic50) <= 1
        assert compound.response(ic50, ic50) == pytest.approx((1 + floor) / 2)

    def test_a_compound_is_the_same_on_every_plate_of_a_patient(self) -> None:
        first, second = (PlateDesign().plate_map(name, 0) for name in ("one", "two"))
        ic50 = [well_spec(plate, plate[WellId.parse("B03")], SpecChoices(0, 200)).ic50_um for plate in (first, second)]
        assert ic50[0] is not None
        assert ic50[1] is not None
        assert ic50[0] != ic50[1]
        assert abs(math.log10(ic50[0] / ic50[1])) < 0.6

    def test_cytostatic_wells_are_small_and_alive(self) -> None:
        low, high = (spec(well) for well in ("E01", "E05"))
        assert high.mode is DrugMode.CYTOSTATIC
        assert high.diameter_um < 0.8 * low.diameter_um
        assert high.v_target > 0.9

    def test_an_autofluorescent_compound_shines_with_its_dose(self) -> None:
        low, high = (spec(well) for well in ("G01", "G05"))
        assert high.mode is DrugMode.AUTOFLUORESCENT
        assert high.effect > low.effect
        assert high.autofluorescence > 0.1

    def test_doses_fall_from_the_top(self) -> None:
        assert PlateDesign().dose_series_um() == (0.5, 1.581, 5.0, 15.81, 50.0)

    def test_every_patient_has_its_own_controls(self) -> None:
        plate = PlateDesign(patients=3, replicates=2).plate_map("many", 0)
        assert len(plate) == 3 * (5 + 2 * 5 * 2)
        untreated = [e.treatment.patient for e in plate if e.treatment.role is WellRole.NEGATIVE_CONTROL]
        assert {patient: untreated.count(patient) for patient in untreated} == {"P01": 3, "P02": 3, "P03": 3}

    def test_shuffling_moves_treatments_and_loses_none(self) -> None:
        plain, shuffled = (PlateDesign(shuffled=s).plate_map("s", 0) for s in (False, True))
        assert [e.treatment for e in plain] != [e.treatment for e in shuffled]
        assert {e.treatment for e in plain} == {e.treatment for e in shuffled}


class TestOptics:
    def volume(self, made: WellSpec, *, channel: str = "488", **how: Any) -> NDArray[np.float32]:
        scene = Scene.of(made, SMALL, **how)
        return np.stack([scene.expected_e(channel, z).copy() for z in range(SMALL.n_z)])

    def test_slices_do_not_depend_on_the_order(self) -> None:
        scene = Scene.of(spec(), SMALL)
        forward = [scene.image("561", z) for z in range(SMALL.n_z)]
        for z in (7, 0, 11, 3):
            assert np.array_equal(scene.image("561", z), forward[z])

    def test_cells_get_dim_with_depth(self) -> None:
        deep = dataclasses.replace(SMALL, n_z=12, z_step_um=8.0)
        scene = Scene.of(spec(diameter_um=300), deep)
        mean = []
        for z in (2, 9):
            live = scene.plane_truth(z).live
            mean.append(scene.expected_e("488", z)[live].mean())
        assert 0.1 < mean[1] / mean[0] < 0.75

    def test_calcein_bleeds_into_561_and_hardly_the_other_way(self) -> None:
        quiet = {"haze": 0.0, "autofluorescence": 0.0, "background_adu": 0.0}
        live = spec(v_target=0.99, double_positive=0.0, bleed_calcein=0.1, **quiet)
        dead = spec(v_target=0.0, double_positive=0.0, **quiet)
        green, red = (self.volume(live, channel=c).mean() for c in ("488", "561"))
        assert 0.05 < red / green < 0.35
        red, green = (self.volume(dead, channel=c).mean() for c in ("561", "488"))
        assert green / red < 0.12

    def test_haze_fills_the_dark(self) -> None:
        clear, hazy = (self.volume(spec(haze=h)) for h in (0.0, 0.35))
        assert (hazy >= clear).all()
        assert np.quantile(hazy, 0.05) > np.quantile(clear, 0.05) + 5

    def test_bleaching_takes_the_later_slices(self) -> None:
        none, some = (self.volume(spec(bleaching=b)) for b in (0.0, 0.2))
        ratio = (some / none).mean((1, 2))
        assert ratio[0] == pytest.approx(1)
        assert ratio[-1] == pytest.approx(0.8 ** (11 / 12), rel=1e-3)

    def test_swapping_the_channels_swaps_the_dyes(self) -> None:
        assert np.array_equal(self.volume(spec(), swapped=True, channel="561"), self.volume(spec(), channel="488"))

    def test_intensity_scales_the_dyes(self) -> None:
        plain, bright = (well_spec(DESIGN, DESIGN[WellId(0, 0)], SpecChoices(0, 200, i)).calcein_adu for i in (1, 1.4))
        assert bright == pytest.approx(1.4 * plain)

    def test_the_pictures_drift_takes_the_truth_with_it(self) -> None:
        scene = Scene.of(spec(), dataclasses.replace(SMALL, field_z_um=30.0, n_z=12))
        fit = []
        for z in (1, 10):
            live = scene.plane_truth(z).live
            image = scene.expected_e("488", z).copy()
            fit.append([np.corrcoef(np.roll(live, s, 1).ravel(), image.ravel())[0, 1] for s in (-2, 0, 2)])
        assert all(middle > max(left, right) for left, middle, right in fit)


class TestCamera:
    def flat(self, size: int = 200) -> Camera:
        return Camera(np.ones((size, size), np.float32), np.zeros((size, size), np.float32))

    @pytest.mark.parametrize("mean_e", [0.0, 0.5, 3.0, 9.9375, 10.0, 40.0, 300.0, 2000.0])
    def test_mean_and_variance_are_those_of_shot_and_read_noise(self, mean_e: float) -> None:
        image = self.flat().expose(np.full((200, 200), mean_e, np.float32), 1).astype(float)
        variance = GAIN_ADU_PER_E**2 * (mean_e + READ_NOISE_E**2) + 1 / 12
        assert image.mean() == pytest.approx(OFFSET_ADU + GAIN_ADU_PER_E * mean_e, abs=4 * math.sqrt(variance / 40000))
        assert image.var() == pytest.approx(variance, rel=0.04)

    @pytest.mark.parametrize("mean_e", [0.25, 6.0, 10.0, 12.5, 100.0])
    def test_shot_noise_is_poisson(self, mean_e: float, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(camera_module, "_READ", np.zeros(65536, np.float32))
        image = self.flat().expose(np.full((200, 200), mean_e, np.float32), 7)
        electrons = np.rint((image - OFFSET_ADU) / GAIN_ADU_PER_E).astype(int)
        edges = np.unique(stats.poisson.ppf(np.linspace(0.02, 0.98, 25), mean_e))
        bins = np.concatenate([[-1], edges, [np.inf]])
        seen = np.histogram(electrons, bins + 0.5)[0]
        expected = np.diff(stats.poisson.cdf(bins, mean_e)) * electrons.size
        assert stats.chisquare(seen, expected * seen.sum() / expected.sum()).pvalue > 1e-4

    def test_philox_gives_the_published_numbers(self) -> None:
        """Random123's known answer for a counter and key of zeros."""
        first, second = camera_module._philox(0, 0, 0, np.uint64(0))
        assert (int(first), int(second)) == (0x6627E8D5E169C58D, 0xBC57AC4C9B00DBD8)

    def test_neighbours_are_independent(self) -> None:
        image = self.flat().expose(np.full((200, 200), 50, np.float32), 3).astype(float)
        assert abs(np.corrcoef(image[:, 1:].ravel(), image[:, :-1].ravel())[0, 1]) < 0.02

    def test_it_has_its_own_pattern(self) -> None:
        camera = Camera.drawn(1000, 1000, Draws.of(0, "camera"))
        assert camera.gain.std() == pytest.approx(0.01, rel=0.05)
        assert 1 <= (camera.hot_adu > 0).sum() <= 30
        assert (Camera.drawn(1000, 1000, Draws.of(0, "camera")).gain == camera.gain).all()

    def test_a_last_digit_hardly_ever_reaches_the_image(self) -> None:
        expected = np.random.default_rng(0).uniform(0, 500, (200, 200)).astype(np.float32)
        nudged = np.nextafter(expected, np.float32(1e9))
        changed = self.flat().expose(expected, 1) != self.flat().expose(nudged, 1)
        assert changed.mean() < 1e-3

    def test_it_saturates(self) -> None:
        assert (self.flat(4).expose(np.full((4, 4), 1e6, np.float32), 1) == 65535).all()


@pytest.mark.parametrize(
    "wrong",
    [{"n_z": 0}, {"pixel_um": 0.0}, {"z_step_um": math.nan}, {"diameter_um": 5.0}, {"slice_period_s": -1.0}],
    ids=str,
)
def test_a_preset_refuses_nonsense(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        dataclasses.replace(PRESETS["unit"], **wrong)


def test_a_field_without_cells_has_no_viability() -> None:
    empty = well_truth(spec(), dataclasses.replace(SMALL, field_y_um=5000.0))
    assert math.isnan(empty.v_true_fov)
    assert (empty.n_live, empty.live_um3_true) == (0, 0.0)
    assert not math.isnan(empty.v_true_whole)


@pytest.mark.parametrize("aside_um", [0.0, 45.0])
@pytest.mark.parametrize("well", ["A01", "B02", "C04"])
def test_a_coarse_spheroid_shows_what_the_masks_of_a_field_do(well: str, aside_um: float) -> None:
    preset = dataclasses.replace(PRESETS["demo"], n_z=20, z_step_um=2.5, height=100, width=100, pixel_um=1.0)
    preset = dataclasses.replace(preset, field_y_um=aside_um)
    scene = Scene.of(spec(well, diameter_um=250.0), preset)
    pixels = np.array([(plane.live.sum(), plane.dead.sum()) for plane in scene.planes_truth()], float)
    masks = pixels.T * preset.pixel_um**2 * preset.z_step_um
    found = CoarseSpheroid.of(scene.phantom).depth_volumes(preset)
    for coarse, mask in zip(found, masks, strict=True):
        assert coarse.sum() == pytest.approx(mask.sum(), rel=0.05, abs=500)
        assert np.abs(coarse - mask).sum() < 0.1 * mask.sum() + 1000


@settings(deadline=None, max_examples=30)
@given(st.text("aé\x1f ", max_size=5), st.floats(-5, 5), st.floats(0, 10))
def test_named_numbers_stay_in_their_range(name: str, low: float, width: float) -> None:
    value = Draws.of(0, "x").uniform(name, low, low + width)
    assert low <= value <= low + width
    assert value == Draws.of(0, "x").uniform(name, low, low + width)


def test_frames_say_where_the_stages_stood_and_for_how_long_the_camera_exposed() -> None:
    source = EmulatorSource(EmulatorSettings(preset="demo", pace="fast"), None, "plate", FakeClock())
    plan = next(plan for plan in source.plans() if plan.key.well == WellId.parse("B02"))
    wanted = {SliceIndex("488", 0), SliceIndex("561", 3)}
    said = {frame.index: frame.metadata for frame in source.frames(plan, wanted)}
    period_s = plan.slice_period_s or 0.0
    assert said[SliceIndex("561", 3)] == {
        "x_um": 9000.0,
        "y_um": 9000.0,
        "z_um": pytest.approx(source.preset.field_z_um + 3 * plan.z_step_um),
        "exposure_ms": pytest.approx(1000 * period_s / 4),
        "instrument_elapsed_s": pytest.approx(3.5 * period_s),
    }
    assert said[SliceIndex("488", 0)]["z_um"] == source.preset.field_z_um
