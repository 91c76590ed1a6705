"""Plates beside their truth: what is compared, what is left out, what is drawn; held-out plates taken up again."""

import io
import json
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image
from scipy import ndimage
from typer.testing import CliRunner, Result

from spheroidd.acquisition.store.labels import LabelWriter
from spheroidd.daemon.catalog.references import put_references
from spheroidd.daemon.catalog.writer import Catalog, StackState
from spheroidd.daemon.cli import console as cli
from spheroidd.daemon.evaluation import held_out
from spheroidd.daemon.evaluation import held_out_table as held_out_screen
from spheroidd.daemon.evaluation.figures import extremes, write_figures
from spheroidd.daemon.evaluation.held_out import evaluate_held_out
from spheroidd.daemon.evaluation.overlay import overlay, slice_to_show
from spheroidd.daemon.evaluation.plate import Evaluation, LabelFigures, WellFigures, evaluate_plate
from spheroidd.daemon.evaluation.summary import by_patient, record, summarise
from spheroidd.daemon.scoring.exclusions import exclude_well
from spheroidd.daemon.system.clock import SystemClock
from spheroidd.daemon.training import run as training
from spheroidd.daemon.training.emulated_plates import TrainingPlate
from spheroidd.inference.agreement.overlap_metrics import Agreement
from spheroidd.inference.annotations.volume import ClassNames
from spheroidd.inference.network.model_card import ModelCard, UNetSettings
from spheroidd.inference.segmentation.threshold import ThresholdSegmenter
from spheroidd.inference.viability.mtt import MttReference
from spheroidd.protocols.errors import ConfigError, StorageError
from spheroidd.protocols.events import SliceDurable
from spheroidd.protocols.plate import Treatment, WellRole
from spheroidd.protocols.results import Normalisation, StackMeasurement
from spheroidd.protocols.stack import StackPlan
from spheroidd.protocols.well import WellId
from spheroidd.sim_emulator.phantom import CellState, count_states
from spheroidd.sim_emulator.source import EmulatorSettings, EmulatorSource

MODEL = "ef" * 32
SETTINGS = EmulatorSettings(
    preset="unit", seed=3, pace="fast", compounds=1, doses=2, negative_controls=1, positive_controls=1
)


def spheroidd(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def source() -> EmulatorSource:
    return EmulatorSource(SETTINGS, None, "P1", SystemClock())


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory, source: EmulatorSource) -> Path:
    """An emulated plate whose masks are the truth, the live ones a voxel too large; the last well was never scored."""
    folder = tmp_path_factory.mktemp("scored")
    plans = list(source.plans())
    with Catalog.create_or_open(folder) as catalog, catalog.transaction():
        catalog.register_plate(source.plate_map, json.dumps({"source": SETTINGS.model_dump(mode="json")}))
        for plan in plans:
            catalog.expect(plan)
        for plan in plans[:-1]:
            _score(folder, catalog, source, plan)
    return folder


@pytest.fixture
def data(tmp_path: Path, scored: Path) -> Path:
    """A copy of that plate for one test."""
    shutil.copytree(scored, tmp_path / "data")
    return tmp_path / "data"


def _score(folder: Path, catalog: Catalog, source: EmulatorSource, plan: StackPlan) -> None:
    truth = source.truth(plan.key.well)
    for index in plan.indices():
        catalog.acknowledge(SliceDurable(plan.key, index, 1, 0.0), 1.0)
    catalog.set_stack_state(plan.key, StackState.STORED)
    for label, mask in (("live", ndimage.binary_dilation(truth.live)), ("dead", truth.dead)):
        with LabelWriter(folder, plan.key, plan, label, {"model_sha256": MODEL}) as writer:
            writer.append(0, mask)
            writer.commit()
    row = truth.well
    measured = StackMeasurement(1.0, 1.0, row.n_live, row.n_dead, (1.0,), {}, Normalisation.STACK, MODEL, 1.0, {})
    catalog.record_measurement(plan.key, measured, None)


def test_an_emulated_plate_needs_no_truth_beside_it(data: Path) -> None:
    found = evaluate_plate(data)
    assert list(found.left_out.values()) == ["not imaged yet"]
    assert len(found.wells) == 3
    assert found.reference == "emulated"
    for well in found.wells:
        live, dead = well.labels["live"], well.labels["dead"]
        assert dead.overlap.dice == dead.surface_dice == 1
        assert live.overlap.recall == 1
        assert 0 < live.overlap.dice < 1
        assert live.surface_dice is not None
        assert 0.8 < live.surface_dice <= 1  # a voxel is no further than the tolerance, but gaps close
        assert well.v_count == pytest.approx(well.v_count_true)


def test_excluded_wells_are_left_out_and_one_well_can_be_chosen(data: Path) -> None:
    first, second = (well.well for well in evaluate_plate(data, tolerance_um=None).wells[:2])
    exclude_well(data, first, "bubble")
    found = evaluate_plate(data, tolerance_um=None)
    assert found.left_out[first] == "excluded: bubble"
    assert [well.well for well in evaluate_plate(data, well=second.lower(), tolerance_um=None).wells] == [second]
    with pytest.raises(ConfigError, match=r"can be compared \(.*bubble"):
        evaluate_plate(data, well=first, tolerance_um=None)


def test_imported_references_go_before_emulated_ones(data: Path) -> None:
    well = evaluate_plate(data, tolerance_um=None).wells[0].well
    with Catalog.create_or_open(data) as catalog:
        put_references(catalog, "P1", (MttReference(WellId.parse(well), None, 77.0, None),))
    found = evaluate_plate(data, tolerance_um=None)
    assert found.reference == "imported"
    assert [one.mtt for one in found.wells] == [77.0, None, None]


def _folder(folder: Path, source: EmulatorSource, well: str) -> Path:
    truth = source.truth(well)
    (folder / "truth").mkdir(parents=True)
    tifffile.imwrite(folder / "truth" / f"{well}_live.tif", truth.live.astype(np.uint8))
    tifffile.imwrite(folder / "truth" / f"{well}_dead.tif", truth.dead.astype(np.uint8))
    (folder / "truth" / "wells.csv").write_text(f"well,v_true_fov\n{well},0.25\n")
    return folder


def test_a_folder_of_truths_as_emulate_writes_it(data: Path, tmp_path: Path, source: EmulatorSource) -> None:
    well = str(next(iter(source.plans())).key.well)
    found = evaluate_plate(data, truth=_folder(tmp_path / "out", source, well), tolerance_um=None)
    assert [(one.well, one.v_count_true) for one in found.wells] == [(well, 25.0)]
    assert found.wells[0].labels["dead"].overlap.dice == 1
    assert set(found.left_out.values()) == {"it has no truth", "not imaged yet"}


def test_a_drawn_truth_is_compared(data: Path, tmp_path: Path, source: EmulatorSource) -> None:
    plan = next(iter(source.plans()))
    truth = source.truth(plan.key.well)
    labels = truth.live.astype(np.uint8) + 2 * (truth.dead & ~truth.live).astype(np.uint8)
    (tmp_path / "drawn").mkdir()
    told: dict[str, Any] = {"axes": "ZYX", "spacing": plan.z_step_um, "unit": "um"}
    path = tmp_path / "drawn" / f"{plan.key.well}.tif"
    tifffile.imwrite(path, labels, imagej=True, resolution=(1 / plan.pixel_um,) * 2, metadata=told)
    names = ClassNames.given(live=["1"], dead=["2"])
    found = evaluate_plate(data, truth=path.parent, names=names, tolerance_um=None)
    assert found.wells[0].labels["live"].overlap.recall == 1
    with pytest.raises(ConfigError, match="no name in it means"):
        evaluate_plate(data, truth=path.parent, tolerance_um=None)
    tifffile.imwrite(path, labels, imagej=True, resolution=(0.1, 0.1), metadata=told)
    with pytest.raises(ConfigError, match="its voxels are"):
        evaluate_plate(data, truth=path.parent, names=names, tolerance_um=None)
    tifffile.imwrite(path, labels[:-1], imagej=True)
    with pytest.raises(ConfigError, match="truth is"):
        evaluate_plate(data, truth=path.parent, names=names, tolerance_um=None)
    np.save(path.with_suffix(".npy"), labels)
    with pytest.raises(ConfigError, match="several truths"):
        evaluate_plate(data, truth=path.parent, names=names, tolerance_um=None)


def test_a_plate_of_a_microscope_needs_its_truth(data: Path, tmp_path: Path) -> None:
    with Catalog.create_or_open(data) as catalog:
        catalog.register_plate(catalog.plate_map("P1"), json.dumps({"source": {"kind": "watch"}}))
    with pytest.raises(ConfigError, match="nobody knows the truth"):
        evaluate_plate(data)
    with pytest.raises(ConfigError, match="no such folder"):
        evaluate_plate(data, truth=tmp_path / "none")


def test_a_mask_of_another_model_is_not_compared(data: Path, source: EmulatorSource) -> None:
    plan = next(iter(source.plans()))
    with LabelWriter(data, plan.key, plan, "live", {"model_sha256": "00" * 32}) as writer:
        writer.append(0, np.zeros((plan.n_z, plan.height, plan.width), bool))
        writer.commit()
    with pytest.raises(StorageError, match="another model"):
        evaluate_plate(data, tolerance_um=None)


def test_the_command_prints_tables_and_json(data: Path) -> None:
    plain = spheroidd("evaluate", data, "--no-surface")
    assert plain.exit_code == 0, plain.output
    assert "masks against truth" in plain.stdout
    assert "v_count against truth" in plain.stdout
    told = json.loads(spheroidd("evaluate", data, "--no-surface", "--json").stdout)
    assert told["pooled"]["masks"]["dead"]["dice"]["mean"] == 1
    assert told["surface_tolerance_um"] is None
    assert len(told["wells"]) == 3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--model", "emulator"], "--held-out alone"),
        (["--held-out", "--well", "A01"], "--held-out alone"),
        (["--held-out", "--kind", "cake"], "--kind cake"),
        (["--tolerance-um", "-1"], "the tolerance is -1"),
        (["--plate", "P7"], "no plate 'P7'"),
        (["--well", "H12"], "H12"),
        (["--live", "a", "--dead", "A"], "as live and as dead"),
    ],
)
def test_options_that_do_not_go_together_are_told(data: Path, options: list[str], words: str) -> None:
    done = spheroidd("evaluate", data, *options)
    assert done.exit_code == 2
    assert words in done.stderr


def figures(well: str, dice: float | None, patient: str | None, v_score: float | None = None) -> WellFigures:
    labels = {} if dice is None else {"live": LabelFigures(Agreement(dice, dice, dice, dice), None)}
    treatment = Treatment(WellRole.SAMPLE, "drug", 1.0, patient)
    low, high = (None, None) if v_score is None else (v_score - 10, v_score + 10)
    return WellFigures("P1", well, 0, treatment, labels, v_score=v_score, v_score_lo=low, v_score_hi=high, mtt=50.0)


WELLS = (
    figures("A01", 0.9, "P1", 45.0),
    figures("A02", 0.8, "P2", 65.0),
    figures("A03", None, "P2", 55.0),
    figures("A04", 0.7, "P3"),
    figures("A05", 0.6, None, 50.0),
)


def test_a_summary_pools_and_keeps_patients_apart() -> None:
    pooled, patients = summarise(WELLS), by_patient(WELLS)
    assert pooled.masks["live"]["dice"].mean == pytest.approx(0.75)
    assert pooled.masks["live"]["dice"].mean_lo is not None
    assert "surface_dice" not in pooled.masks["live"]
    assert pooled.viability["v_score against MTT"].n == 4
    assert pooled.coverage_90 == 0.75
    assert list(patients) == ["P1", "P1, no patient", "P2", "P3"]
    assert patients["P2"].masks["live"]["dice"].n == 1
    json.dumps(record(Evaluation("t", MODEL, None, "imported", WELLS, {})), allow_nan=False)


def test_figures_are_written_and_well_formed(tmp_path: Path) -> None:
    found = Evaluation("t", MODEL, None, "imported", WELLS, {})
    files = write_figures(found, tmp_path / "new", lambda well: well.well.encode())
    assert [path.name for path in files] == [
        "calibration.svg",
        "bland_altman.svg",
        "dice.svg",
        "live_best.png",
        "live_worst.png",
    ]
    for path in files[:3]:
        assert ET.fromstring(path.read_text(encoding="utf-8")).tag == "{http://www.w3.org/2000/svg}svg"
    assert (files[3].read_bytes(), files[4].read_bytes()) == (b"A01", b"A05")
    assert write_figures(Evaluation("t", MODEL, None, "", (), {}), tmp_path / "none") == []
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        write_figures(found, tmp_path / "file")
    assert spheroidd("evaluate", "--held-out", "--figures", tmp_path / "file").exit_code == 2


def test_extremes_of_one_well_are_that_well() -> None:
    assert {well.well for well in extremes(WELLS[:1]).values()} == {"A01"}
    assert extremes([]) == {}


def test_an_overlay_shows_both_outlines() -> None:
    mask = np.zeros((20, 30), bool)
    mask[5:12, 5:12] = True
    moved = np.roll(mask, 4, 1)
    pixels = np.arange(600, dtype=np.uint16).reshape(20, 30)
    png = overlay({"live": pixels}, {"live": mask}, {"live": moved}, "w")
    picture = np.asarray(Image.open(io.BytesIO(png)))
    colours = {tuple(colour) for colour in picture.reshape(-1, 3)}
    assert {(255, 176, 0), (120, 190, 255)} <= colours
    assert slice_to_show({"live": np.stack([mask & False, mask])}, {}) == 1
    assert slice_to_show({}, {}) == 0


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Evaluation]]:
    work = tmp_path_factory.mktemp("held")
    return work, evaluate_held_out(ThresholdSegmenter(), {"unit": [9000]}, work, tolerance_um=None)


def test_held_out_plates_give_a_table_for_each_normalisation(held: tuple[Path, dict[str, Evaluation]]) -> None:
    _, found = held
    assert list(found) == ["unit stack", "unit plate"]
    for one in found.values():
        assert len(one.wells) == 6
        assert all(well.mtt is not None and well.v_score is not None for well in one.wells)
        assert all(set(well.labels) == {"live", "dead"} for well in one.wells)


def test_the_assay_of_a_held_out_well_sees_the_whole_spheroid(held: tuple[Path, dict[str, Evaluation]]) -> None:
    """And not the cells near the field alone, which the truth's table holds."""
    (journal,) = held[0].iterdir()
    source = TrainingPlate("unit", 9000).source
    for row in map(json.loads, journal.read_text().splitlines()):
        well = WellId.parse(row["well"])
        assert row["n_live_whole"] == count_states(source.scene(well).phantom.cells.state)[0]
        assert row["n_live_whole"] > (source.truth(well).cells["state"] == CellState.LIVE).sum()


def test_an_interrupted_evaluation_goes_on_with_the_same_numbers(
    held: tuple[Path, dict[str, Evaluation]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, before = held
    (journal,) = work.iterdir()
    lines = journal.read_text().splitlines()
    (tmp_path / journal.name).write_text("\n".join(lines[:-2]) + "\n" + lines[-2][:50])  # killed while writing
    measured: list[str] = []
    original = held_out.segment_stack
    monkeypatch.setattr(held_out, "segment_stack", lambda *a: (measured.append("one"), original(*a))[1])
    assert evaluate_held_out(ThresholdSegmenter(), {"unit": [9000]}, tmp_path, tolerance_um=None) == before
    assert len(measured) == 2
    assert len((tmp_path / journal.name).read_text().splitlines()) == 12


def test_the_cards_table_is_compared(held: tuple[Path, dict[str, Evaluation]]) -> None:
    _, found = held
    table = held_out.card_figures(found)
    card = ModelCard("one", UNetSettings(), 1, "ab" * 32, metrics=table)
    assert held_out_screen.differences(card, found) == {}
    table["unit plate"]["live_dice_mean"] += 0.01
    other = ModelCard("one", UNetSettings(), 1, "ab" * 32, metrics=table)
    assert list(held_out_screen.differences(other, found)) == ["unit plate live_dice_mean"]
    json.dumps(held_out_screen.record(other, found), allow_nan=False)
    assert held_out.only({"a": [1], "b": [2]}, ["b"]) == {"b": [2]}


def test_the_command_takes_a_threshold_on_held_out_plates(
    held: tuple[Path, dict[str, Evaluation]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "HELD_OUT", {"unit": (9000,)})
    command = ("evaluate", "--held-out", "--model", "threshold", "--no-surface", "--work", held[0])
    told = json.loads(spheroidd(*command, "--json").stdout)
    assert told["table"] == held_out.card_figures(held[1])
    assert (told["model"], told["sha256"], told["precision"]) == ("threshold-1", "threshold-1", "fp32")
    assert told["differs_from_card"] == {}
    printed = spheroidd(*command).stdout
    assert "threshold-1 on held-out plates" in printed
    assert "A threshold has no card to compare with." in printed
    refused = spheroidd(*command[:3], "threshold:loud", *command[4:])
    assert refused.exit_code == 2
    assert "'loud' is no threshold" in refused.stderr


def test_a_work_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot keep"):
        evaluate_held_out(ThresholdSegmenter(), {}, tmp_path / "file", tolerance_um=None)
