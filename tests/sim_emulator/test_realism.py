"""Plates as hard as life: what scatters is kept, what is broken up stays one cell, and the truth says what is known."""

import math
from dataclasses import replace

import numpy as np
import pytest

from spheroidd.daemon.system.clock import SystemClock
from spheroidd.protocols.plate import PlateMap, WellRole
from spheroidd.sim_emulator.phantom import CellState, Phantom, grow
from spheroidd.sim_emulator.plate import PlateDesign, SpecChoices, WellSpec, well_spec
from spheroidd.sim_emulator.presets import PRESETS, Preset
from spheroidd.sim_emulator.realism import EASY, KNOWN_CONTRAST, TYPICAL_CELL_UM, Conditions, Realism, conditions
from spheroidd.sim_emulator.scene import Scene, well_truth
from spheroidd.sim_emulator.source import EmulatorSettings, EmulatorSource

DESIGN: PlateMap = PlateDesign(compounds=1, doses=3, negative_controls=1, positive_controls=1).plate_map("p", 0)
KILLED, UNTREATED = WellRole.POSITIVE_CONTROL, WellRole.NEGATIVE_CONTROL
# The whole spheroid, coarsely, with water around it: no light leaves the field unseen.
WHOLE = replace(PRESETS["unit"], n_z=56, height=72, width=72, pixel_um=4.0, z_step_um=5.0, field_z_um=-60.0)
QUIET = {"background_adu": 0.0, "haze": 0.0, "bleaching": 0.0, "light_um": 1e9}


def spec(role: WellRole = UNTREATED, diameter_um: float = 160.0, /, **changed: float | Conditions) -> WellSpec:
    entry = next(entry for entry in DESIGN if entry.treatment.role is role)
    return replace(well_spec(DESIGN, entry, SpecChoices(0, diameter_um, edge_effects=False)), **changed)  # type: ignore[arg-type]


def light(of: WellSpec, channel: str, preset: Preset = WHOLE) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """The expected image (z, y, x), photoelectrons."""
    scene = Scene.of(of, preset)
    return np.stack([scene.expected_e(channel, z).astype(np.float64) for z in range(preset.n_z)])


def n_dead(phantom: Phantom) -> int:
    return int((phantom.cells.state == CellState.DEAD).sum())


@pytest.mark.parametrize("realism", [Realism.REAL, Realism.HOSTILE])
def test_a_plate_has_its_own_conditions_and_all_its_wells_the_same(realism: Realism) -> None:
    entries = list(DESIGN.imaged())
    of = [well_spec(DESIGN, entry, SpecChoices(0, 200.0, realism=realism)).conditions for entry in entries]
    assert len(set(of)) == 1
    assert of[0] != EASY
    assert len({conditions(realism, seed, "p") for seed in range(50)}) == 50


def test_hostile_plates_are_harder_than_real_ones() -> None:
    drawn = {kind: [conditions(kind, seed, "p") for seed in range(200)] for kind in (Realism.REAL, Realism.HOSTILE)}
    length = {kind: float(np.median([one.ballistic_um for one in found])) for kind, found in drawn.items()}
    assert length[Realism.HOSTILE] < 0.5 * length[Realism.REAL]
    for found in drawn.values():
        assert all(12 <= one.ballistic_um <= 300 and 8 <= one.cell_um <= 20 for one in found)
        assert all(one.known_um == pytest.approx(one.ballistic_um * math.log((1 - one.hazy) / 0.05)) for one in found)


def test_an_easy_plate_scatters_nothing() -> None:
    assert conditions(Realism.EASY, 3, "p") is EASY
    assert not EASY.scatters
    assert Scene.of(spec(), PRESETS["unit"]).known(12).all()
    assert well_truth(spec(), PRESETS["unit"]).known_um is None


@pytest.mark.parametrize("channel", ["488", "561"])
def test_light_that_leaves_focus_is_kept_as_haze(channel: str) -> None:
    clear = light(spec(KILLED, **QUIET), channel).sum()
    cloudy = light(spec(KILLED, **QUIET, conditions=Conditions(ballistic_um=40.0, hazy=0.2)), channel).sum()
    assert cloudy == pytest.approx(clear, rel=0.12)  # haze is made of cells as amounts, focus of their voxels


def test_contrast_dies_within_the_length_that_was_drawn() -> None:
    """The light in focus beside that of a clear spheroid, where haze has no detail: the finest differences."""
    preset = replace(PRESETS["unit"], n_z=72, height=64, width=64, pixel_um=1.0, z_step_um=1.0)
    clear, cloudy = (
        light(spec(KILLED, **QUIET, conditions=one), "561", preset)
        for one in (Conditions(), Conditions(ballistic_um=25.0))
    )
    detail = [np.abs(np.diff(volume, 2, axis=2)).mean((1, 2)) for volume in (clear, cloudy)]
    ratio, z_um = (detail[1] / detail[0])[10:70], np.arange(10, 70.0)
    assert -1 / np.polyfit(z_um, np.log(ratio), 1)[0] == pytest.approx(25.0, rel=0.15)


def test_focus_gets_wider_with_depth_and_keeps_its_light() -> None:
    preset = replace(PRESETS["unit"], n_z=60, height=96, width=96)
    sharp, wide = (
        light(spec(KILLED, **QUIET, conditions=one), "561", preset) for one in (EASY, Conditions(widening_um=30.0))
    )
    detail = [np.abs(np.diff(volume, 2, axis=2)).mean((1, 2)) for volume in (sharp, wide)]
    assert detail[1][50] / detail[0][50] < 0.6 < 0.8 < detail[1][3] / detail[0][3]
    assert wide[50].sum() == pytest.approx(sharp[50].sum(), rel=0.12)


def test_the_truth_says_down_to_where_anything_is_known() -> None:
    here = Conditions(ballistic_um=12.0, hazy=0.3)
    scene = Scene.of(spec(conditions=here), PRESETS["unit"])
    depth = math.log(0.7 / KNOWN_CONTRAST) * 12.0
    assert scene.known(0).all()
    assert not scene.known(23)[48, 48] or depth > 23
    assert Scene.of(spec(conditions=replace(here, ballistic_um=5.0)), PRESETS["unit"]).known(23).sum() < 96 * 96 / 2
    assert well_truth(spec(conditions=here), PRESETS["unit"]).known_um == pytest.approx(depth)


@pytest.mark.parametrize(("cell_um", "times"), [(8.0, (12.6 / 8) ** 3), (20.0, (12.6 / 20) ** 3)])
def test_cells_of_another_size_fill_the_spheroid_as_well(cell_um: float, times: float) -> None:
    usual, other = grow(spec(UNTREATED, 260.0)), grow(spec_of_size(cell_um))
    assert len(other.cells) == pytest.approx(times * len(usual.cells), rel=0.2)
    assert np.median(other.cells.radius_um) == pytest.approx(6.3 * cell_um / 12.6, rel=0.02)


def spec_of_size(cell_um: float) -> WellSpec:
    found = spec(UNTREATED, 260.0, conditions=Conditions(cell_um=cell_um, size_spread=0.1))
    return replace(found, sites_per_um3=found.sites_per_um3 / (cell_um / 12.6) ** 3)


def test_a_loose_culture_holds_the_share_of_cells_that_was_drawn() -> None:
    full, loose = grow(spec(UNTREATED, 260.0)), grow(spec(UNTREATED, 260.0, conditions=Conditions(filled=0.2)))
    assert len(loose.cells) == pytest.approx(0.2 * len(full.cells), rel=0.15)


def test_a_nucleus_in_pieces_is_one_dead_cell() -> None:
    whole, broken = grow(spec(KILLED)), grow(spec(KILLED, conditions=Conditions(fragmented=0.3)))
    assert n_dead(whole) == n_dead(broken)
    assert len(np.unique(broken.pieces.ids)) == pytest.approx(0.3 * n_dead(broken), rel=0.3)
    assert set(broken.pieces.state) == {CellState.DEAD}
    preset = PRESETS["unit"]
    ids = np.stack([plane.cell_ids[plane.dead] for plane in [Scene.of(broken.spec, preset).plane_truth(12)]])
    assert set(np.unique(ids)) <= set(broken.cells.ids)
    truth = well_truth(broken.spec, preset)
    assert truth.n_dead == well_truth(whole.spec, preset).n_dead
    assert truth.dead_um3_true < well_truth(whole.spec, preset).dead_um3_true


def test_what_is_left_of_a_ghost_is_faint_and_dead() -> None:
    ghosts = grow(spec(KILLED, conditions=Conditions(ghosts=0.2)))
    dead = ghosts.cells.state == CellState.DEAD
    usual = grow(spec(KILLED)).cells.pi
    fainter = ghosts.cells.pi[dead] / usual[dead] < 0.31
    assert fainter.mean() == pytest.approx(0.2, abs=0.06)


def test_crumbs_between_cells_are_no_cells() -> None:
    clean, full = grow(spec(KILLED)), grow(spec(KILLED, conditions=Conditions(crumbs_inside=0.5)))
    n_crumbs = int((full.cells.state == CellState.DEBRIS).sum())
    assert n_crumbs == round(0.5 * n_dead(clean))
    assert len(np.unique(full.cells.ids)) == len(full.cells)
    assert well_truth(full.spec, PRESETS["unit"]).n_dead == well_truth(clean.spec, PRESETS["unit"]).n_dead


def test_a_red_compound_shines_in_live_nuclei_which_stay_live() -> None:
    plain, red = spec(**QUIET), spec(**QUIET, red_drug=1.0)
    assert light(red, "561").sum() > 3 * light(plain, "561").sum()
    assert light(red, "488").sum() == pytest.approx(light(plain, "488").sum(), rel=0.1)
    assert well_truth(red, PRESETS["unit"]).n_live == well_truth(plain, PRESETS["unit"]).n_live


def test_an_uneven_field_is_brighter_on_one_side() -> None:
    even, uneven = (light(spec(conditions=one), "488") for one in (EASY, Conditions(uneven=0.3)))
    ratio = uneven[20] / even[20]
    assert ratio.max() - ratio.min() == pytest.approx(0.3, rel=0.5)


def test_the_settings_may_say_how_wide_cells_are() -> None:
    plates = [
        EmulatorSource(EmulatorSettings(preset="unit", seed=2, cell_um=cell_um), None, "p", SystemClock())
        for cell_um in (None, TYPICAL_CELL_UM, 8.8)
    ]
    well = next(iter(plates[0].plate_map.imaged())).well
    usual, said, small = (plate.truth(well) for plate in plates)
    assert np.array_equal(usual.cell_ids, said.cell_ids), "as wide as they are without a word"
    radii = [float(np.median(truth.cells["body_radius_um"])) for truth in (usual, small)]
    assert radii[1] / radii[0] == pytest.approx(8.8 / TYPICAL_CELL_UM, rel=0.05)
