"""The benches of the study's tables, on inputs as small as can be."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bench import ablation, finetune, hard_plates, network_pictures, nuclei, pareto, robustness, study, validation
from bench.hard_plates import Hard
from bench.robustness import POINTS, Point
from spheroidd.daemon.training.config import load_training_config
from spheroidd.inference.network.model_card import UNetSettings
from spheroidd.inference.segmentation.threshold import ThresholdSegmenter
from spheroidd.inference.training.overlap_counts import Overlap, stack_overlaps
from spheroidd.protocols.stack import CHANNELS
from spheroidd.sim_emulator.presets import PRESETS
from tests.inference.training.rig import TINY, balls
from tests.places import EXAMPLES, needs_real_data

SHORT = replace(TINY, steps=2, every=1)
UNIT = replace(PRESETS["unit"], n_z=10, height=48, width=48)
SMALL = {name: replace(point, diameter_um=100) for name, point in POINTS.items()}  # few cells


@given(st.lists(st.tuples(*[st.integers(0, 50)] * 3), max_size=8))
@settings(deadline=None)
def test_overlaps_add_up(counts: list[tuple[int, int, int]]) -> None:
    parts = [Overlap(both, both + more, both + other) for both, more, other in counts]
    total = sum(parts, Overlap())
    for one in (*parts, total):
        assert 0 <= one.dice <= 1
        assert min(one.precision, one.recall) - 1e-12 <= one.dice <= max(one.precision, one.recall) + 1e-12
    if parts:
        dice = [one.dice for one in parts]
        assert min(dice) - 1e-12 <= total.dice <= max(dice) + 1e-12


class KilledError(Exception):
    """Whatever ends the process."""


def test_an_ablation_keeps_finished_rows_and_takes_up_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {"all of it": TINY.network, "2-D": replace(TINY.network, architecture="SlicewiseUNet")}
    training, held_out = {"a": [balls(0)], "b": [balls(1)]}, {"c": [balls(2), balls(3)]}
    straight = ablation.ablation(rows, training, held_out, SHORT, tmp_path / "straight")
    assert list(straight) == list(rows)
    assert straight["2-D"]["parameters"] < straight["all of it"]["parameters"]
    for row in straight.values():
        assert row["stack"]["wells"] == row["plate"]["wells"] == 2
        assert 0 <= row["stack"]["live"]["dice"] <= 1

    def killed(text: str) -> None:
        if text.startswith("2-D"):
            raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(ablation, "say", killed)
        with pytest.raises(KilledError):
            ablation.ablation(rows, training, held_out, SHORT, tmp_path / "cut")
    trained: list[Any] = []
    monkeypatch.setattr(ablation, "trained", lambda *given: trained.append(given) or study.trained(*given))
    found = ablation.ablation(rows, training, held_out, SHORT, tmp_path / "cut")
    assert len(trained) == 1, "the first row was finished"
    assert _without_times(found) == _without_times(straight)
    ablation.ablation(rows, training, held_out, replace(SHORT, seed=1), tmp_path / "cut")
    assert len(trained) == 3, "another seed is another table"


def _without_times(table: dict[str, Any]) -> dict[str, Any]:
    return {name: {k: v for k, v in row.items() if not k.startswith("cpu_s")} for name, row in table.items()}


def test_every_part_of_the_network_has_a_row() -> None:
    whole = ablation.NETWORK
    changed = {
        tuple(name for name in UNetSettings.__dataclass_fields__ if getattr(row, name) != getattr(whole, name))
        for row in ablation.ROWS.values()
    }
    assert changed == {(), ("architecture",), ("residual",), ("deep_supervision",), ("density",)}


@pytest.fixture(scope="module")
def segmenter() -> ThresholdSegmenter:
    return ThresholdSegmenter(0.8)


@pytest.fixture(scope="module")
def plain(segmenter: ThresholdSegmenter) -> dict[str, Any]:
    """The row of the plate as it is, which the others are compared with."""
    return robustness.row(segmenter, SMALL["as it is"], 5, UNIT)


def test_a_threshold_does_not_care_which_channel_is_which(segmenter: ThresholdSegmenter, plain: dict[str, Any]) -> None:
    """By the stack's own limits; the plate's are found from what its controls hold in each channel."""
    exchanged = robustness.row(segmenter, SMALL["channels exchanged, nobody said so"], 5, UNIT)
    assert plain["stack"] == exchanged["stack"]
    assert plain["stack"]["wells"] == 7
    assert plain["stack"]["live"]["dice"] > 0.3, "bright is live"


@pytest.mark.parametrize(
    "name", ["noise of 50 counts more", "fringes of 20 %", "autofluorescence 0.3", "intensity -40 %"]
)
def test_what_a_point_changes_changes_the_figures(
    segmenter: ThresholdSegmenter, plain: dict[str, Any], name: str
) -> None:
    assert robustness.row(segmenter, SMALL[name], 5, UNIT) != plain


def test_channels_put_in_order_show_the_same_but_for_noise() -> None:
    plain, ordered = (
        robustness.plate(SMALL[name], 5, UNIT) for name in ("as it is", "channels exchanged, put in order")
    )
    for one, other in zip(plain, ordered, strict=True):
        assert np.array_equal(one.truth.live, other.truth.live)
        for channel in range(len(CHANNELS)):
            a, b = one.stack[channel].astype(float), other.stack[channel].astype(float)
            assert not np.array_equal(a, b)
            assert a.mean() == pytest.approx(b.mean(), rel=0.02)


def test_killed_wells_are_judged_alone(segmenter: ThresholdSegmenter) -> None:
    found = robustness.row(segmenter, SMALL["killed wells"], 5, UNIT)
    assert found["plate"]["wells"] == 4
    wrongly = {kind: found[kind]["killed_wells"]["live_um3_found_wrongly"] for kind in ("stack", "plate")}
    assert wrongly["plate"] < wrongly["stack"], "a stack's own limits stretch its noise"


def test_fringes_and_noise_keep_a_stack_a_stack() -> None:
    stack = np.full((2, 4, 32, 32), 1100, np.uint16)
    own_um = (1.0, 0.5, 0.5)
    still = robustness.changed(stack, Point(), own_um, np.random.default_rng(0))
    assert still is stack
    striped = robustness.changed(stack, Point(fringes=0.2), own_um, np.random.default_rng(0))
    assert striped.dtype == np.uint16
    assert striped.max() == pytest.approx(1300, abs=5)
    assert striped.min() == pytest.approx(900, abs=5)
    assert (striped == striped[:1, :1]).all(), "fringes stand still"
    noisy = robustness.changed(stack, Point(noise_adu=50), own_um, np.random.default_rng(0))
    assert noisy.astype(float).std() == pytest.approx(50, rel=0.05)


def test_a_hard_plate_is_judged_where_it_can_be_known(
    segmenter: ThresholdSegmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    hard = Hard(
        {"preset": "unit", "n_z": 10, "height": 48, "width": 48, "diameter_um": 100, "compounds": 1, "doses": 1}
    )
    own_um, wells = hard_plates.wells_of(hard)
    assert own_um == (UNIT.z_step_um, UNIT.pixel_um, UNIT.pixel_um)
    plain = hard_plates.row(hard, segmenter)
    assert plain["wells"] == len(wells) == 4
    assert plain["v_count"]["worst"] >= plain["v_count"]["mae"]

    def half_known(hard: Hard) -> object:
        half = np.zeros(wells[0].stack.shape[1:], bool)
        half[:, :, : half.shape[2] // 2] = True
        return own_um, [replace(well, truth=replace(well.truth, known=half)) for well in wells]

    monkeypatch.setattr(hard_plates, "wells_of", half_known)
    half = hard_plates.row(hard, segmenter)
    assert half["live"] != plain["live"]
    assert half["v_count"] == plain["v_count"], "cells are counted in the whole field"


def test_haze_takes_light_out_of_focus_and_keeps_it() -> None:
    stack = np.full((2, 40, 64, 64), 100, np.uint16)
    stack[:, 20, 32, 32] = 60_000
    hazy = hard_plates.hazy(stack, 0.5, (1.0, 1.0, 1.0))
    assert int(hazy[0, 20, 32, 32]) == pytest.approx(30_050, abs=60), "half of it stays, and what haze adds there"
    assert np.array_equal(hard_plates.hazy(stack, 0.0, (1.0, 1.0, 1.0)), stack)
    wide = hard_plates.hazy(np.full((2, 40, 64, 64), 1100, np.uint16), 0.5, (1.0, 1.0, 1.0))
    assert (wide == 1100).all(), "even light stays as it is"


def test_nothing_is_judged_where_nobody_could_know(segmenter: ThresholdSegmenter) -> None:
    stack = balls()
    known = np.zeros(stack.shape, np.uint8)
    known[:, :, :12] = 255
    whole = stack_overlaps(segmenter, stack)  # type: ignore[arg-type]
    part = stack_overlaps(segmenter, replace(stack, known=known))  # type: ignore[arg-type]
    for number, label in enumerate(stack.fractions() >= 0.5):
        assert whole[number].truth == np.count_nonzero(label)
        assert part[number].truth == np.count_nonzero(label[:, :, :12])
        assert part[number].mask <= whole[number].mask


def test_the_poorest_point_is_named() -> None:
    def row(dice: float) -> dict[str, Any]:
        return {"plate": {label: {"dice": dice, "precision": 1.0, "recall": dice} for label in ("live", "dead")}}

    poorest = robustness.least({"a": row(0.9), "b": row(0.8), "killed wells": row(0.1)}, "plate")
    assert poorest["live dice"] == (0.8, "b")
    assert poorest["live precision"][0] == 1.0


def placed(dice: float, seconds: float) -> dict[str, Any]:
    return {
        "spacing_um": 1.0,
        "base": 4,
        "live": {"dice": dice},
        "dead": {"dice": dice},
        "cpu_s_per_screen_stack": seconds,
    }


@given(st.lists(st.tuples(st.integers(0, 10), st.integers(1, 10)), max_size=12))
@settings(deadline=None)
def test_no_point_of_the_front_is_beaten(places: list[tuple[int, int]]) -> None:
    points = [placed(dice / 10, seconds) for dice, seconds in places]
    best = pareto.front(points)
    assert bool(best) == bool(points)
    for row in points:
        dice, seconds = row["live"]["dice"], row["cpu_s_per_screen_stack"]
        beaten = any(
            (o["live"]["dice"] >= dice and o["cpu_s_per_screen_stack"] <= seconds)
            and (o["live"]["dice"] > dice or o["cpu_s_per_screen_stack"] < seconds)
            for o in points
        )
        assert beaten is (row not in best)


def test_seconds_of_a_stack_grow_with_its_voxels() -> None:
    found = {
        spacing: pareto.cpu_seconds(UNetSettings(base=1, levels=2, density_level=0, spacing_um=(spacing,) * 3))
        for spacing in (2.0, 0.1)
    }
    assert found[2.0]["mvoxels_with_halos"] == pytest.approx(56**3 / 1e6, abs=0.01)
    assert found[0.1]["mvoxels_with_halos"] > 1000, "a thousand times as many, and halos"
    assert found[0.1]["measured_on_voxels"] <= 64**3


def test_a_point_is_trained_once_and_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    field = replace(PRESETS["unit"], n_z=12, height=32, width=32, diameter_um=80)
    wells = study.imaged(_unit_settings(), field)[:2]
    monkeypatch.setattr(pareto, "crops", lambda seed: wells)
    monkeypatch.setattr(pareto, "OWN_UM", (1.0, 0.5, 0.5))
    monkeypatch.setattr(pareto, "CROP_UM", 12.0)
    network = UNetSettings(base=2, levels=2, density_level=0, density=False, spacing_um=(1.0, 1.0, 1.0))
    row = pareto.point(network, SHORT, tmp_path)
    assert row["spacing_um"] == 1.0
    assert row["wells"] == 2
    monkeypatch.setattr(pareto, "trained", None)  # it would be called
    assert pareto.point(network, SHORT, tmp_path) == json.loads(json.dumps(row))
    pareto.draw([row, {**row, "base": 4, "cpu_s_per_screen_stack": 50.0}], tmp_path / "front.png")
    assert (tmp_path / "front.png").stat().st_size > 5000


def test_the_network_s_pictures_are_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    network_pictures.curves(tmp_path / "curves.png", None)
    monkeypatch.setattr(network_pictures, "load_segmenter", lambda *given, **more: ThresholdSegmenter(0.8))
    network_pictures.overlay(tmp_path / "overlay.png", kind="unit", seed=5, model="x")
    for name in ("curves", "overlay"):
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert min(picture.size) > 200
            assert len(picture.convert("RGB").getcolors(1 << 24)) > 20, "something is drawn"


def _unit_settings() -> Any:
    return robustness.EmulatorSettings.model_validate(
        {"preset": "unit", "seed": 3, "pace": "fast", "compounds": 1, "doses": 1, "negative_controls": 1}
    )


def test_the_fine_tuning_never_trains_on_what_judges_it(tmp_path: Path) -> None:
    config = finetune.configuration(finetune.CONFIG, tmp_path / "nuclei_gt", tmp_path / "out")
    assert config.start_from == "emulator"
    for recording in config.data.recordings:
        for path in (recording.path_488, recording.live):
            assert path is not None
            assert path.is_relative_to(tmp_path / "nuclei_gt")
            assert finetune.NEVER_SEEN not in str(path)
    assert config.data.cache.is_relative_to(tmp_path)
    leak = tmp_path / "leak.toml"
    leak.write_text(finetune.CONFIG.read_text().replace('"1135"', '"1136"'))
    with pytest.raises(ValueError, match="1136, which is to judge"):
        finetune.configuration(leak, tmp_path, tmp_path / "out")


@needs_real_data
def test_the_recordings_of_the_fine_tuning_are_read() -> None:
    from spheroidd.daemon.training.recordings import read_volume

    pytest.importorskip("h5py")
    config = finetune.configuration(finetune.CONFIG, nuclei.DATA, Path("out"))
    for recording in config.data.recordings:
        assert recording.path_488 is not None
        assert recording.live is not None
        image, truth = read_volume(recording.path_488), read_volume(recording.live)
        assert image.shape == truth.shape
        assert image[truth != 0].mean() > 1.5 * image[truth == 0].mean()


@pytest.mark.parametrize("name", ["finetune-nuclei.toml", "100nm.toml"])
def test_the_examples_can_be_read(name: str) -> None:
    config = load_training_config(finetune.CONFIG.with_name(name))
    assert config.training.steps > 0


def test_weights_are_chosen_on_validation_plates_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = load_training_config(EXAMPLES / "training" / "shipped.toml")
    for kind, seeds in validation.PLATES.items():
        for plates in (shipped.data.train, shipped.data.held_out):
            for one in plates:
                assert not set(seeds) & set(range(one.first_seed, one.first_seed + one.plates)), kind
    monkeypatch.setattr(validation, "PLATES", {"unit": (5000,)})
    row = validation.row("emulator", tmp_path)
    assert len(row) == 5
    assert set(row["volume_errors"]) == {"unit-5000"}
    assert row["in order, limits of the plate"]["wells"] == 6
    assert row["in order, limits of the plate"]["live"]["dice"] > 0.8
    assert row["in order, limits of the plate"] != row["exchanged, limits of the plate"]


def test_exchanged_twice_is_as_it_was() -> None:
    stack = balls(0)
    once, twice = validation.exchanged(stack), validation.exchanged(validation.exchanged(stack))
    assert np.array_equal(once.cells[0], stack.cells[1])
    assert np.array_equal(once.variants[0][1], stack.variants[0][0])
    assert np.array_equal(twice.cells, stack.cells)
    assert np.array_equal(twice.live_points_um, stack.live_points_um)


def test_volume_errors_are_what_was_put_in() -> None:
    true = [(100, 10), (50, 60), (0, 90)]
    pairs = [(Overlap(0, round(1.1 * live + 0.2 * dead), live), Overlap(0, 0, dead)) for live, dead in true]
    errors = validation.volume_errors([*pairs, (Overlap(0, 50, 100), Overlap(0, 0, 10))], ["a", "a", "a", "b"])
    assert errors["a"] == pytest.approx({"live_excess": 0.1, "dead_taken_for_live": 0.2}, abs=0.01)
    assert errors["b"]["live_excess"] < 0
