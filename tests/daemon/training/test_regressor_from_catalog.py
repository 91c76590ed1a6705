"""The regressor learns from a catalog: measured live volumes, imported references, patients kept apart."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from spheroidd.daemon.catalog.references import put_references
from spheroidd.daemon.catalog.writer import Catalog, StackState
from spheroidd.daemon.cli import console as cli
from spheroidd.daemon.scoring.exclusions import exclude_well
from spheroidd.daemon.training.regressor_from_catalog import learning_wells
from spheroidd.inference.training.regressor_crossval import assign_folds, cross_validate
from spheroidd.inference.training.regressor_training import RegressorRow
from spheroidd.inference.viability.mtt import MttReference
from spheroidd.inference.viability.regressor import ViabilityRegressor
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.events import SliceDurable
from spheroidd.protocols.plate import PlateMap, PlateWell, Treatment, WellRole
from spheroidd.protocols.results import Normalisation, StackMeasurement
from spheroidd.protocols.stack import StackKey, StackPlan
from spheroidd.protocols.well import WellId

MODEL = "cd" * 32
N_Z = 4


def spheroidd(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def plate(folder: Path, name: str = "P1", patients: int = 4, doses: int = 6, referenced: bool = True) -> Path:
    """A scored plate: one untreated well and a dose series for each patient; MTT is the live volume's percentage."""
    rng = np.random.default_rng(7)
    wells = [
        PlateWell(
            WellId(row, column),
            Treatment(WellRole.NEGATIVE_CONTROL, patient=f"P{row}")
            if column == 0
            else Treatment(WellRole.SAMPLE, "drug", float(column), f"P{row}"),
        )
        for row in range(patients)
        for column in range(doses + 1)
    ]
    with Catalog.create_or_open(folder) as catalog, catalog.transaction():
        catalog.register_plate(PlateMap(name, tuple(wells)), "{}")
        references = []
        for entry in wells:
            key = StackKey(name, entry.well)
            plan = StackPlan(key, ("488",), N_Z, 8, 8, 1.0, 25.0)
            catalog.expect(plan)
            for index in plan.indices():
                catalog.acknowledge(SliceDurable(key, index, 1, 0.0), 1.0)
            catalog.set_stack_state(key, StackState.STORED)
            live = 1000.0 * (1 - entry.well.column / (doses + 1))
            volumes = tuple(float(live * v) for v in rng.uniform(0.95, 1.05, N_Z) / N_Z)
            measured = StackMeasurement(sum(volumes), None, 5, None, volumes, {}, Normalisation.STACK, MODEL, 1.0, {})
            catalog.record_measurement(key, measured, None)
            percent = live / 10 + rng.normal(0, 3)
            references.append(MttReference(entry.well, None, percent, None))
        if referenced:
            put_references(catalog, name, tuple(references))
    return folder


def test_it_learns_writes_its_card_and_can_be_loaded(tmp_path: Path) -> None:
    out = tmp_path / "new" / "mine.safetensors"
    done = spheroidd("regressor", "train", plate(tmp_path / "data"), "--out", out, "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert (told["wells"], told["folds"]) == (28, 4)
    assert told["out of fold"]["pearson_r"] > 0.9
    assert told["out of fold"]["mae"] < 15
    assert 0 <= told["coverage_90"] <= 1
    regressor = ViabilityRegressor.load(out)
    card = json.loads(out.with_suffix(".json").read_text())
    assert (regressor.sha256, len(card["data_sha256"]), card["plates"]) == (told["sha256"], 64, ["P1"])
    assert "Out of fold" in out.with_suffix(".md").read_text(encoding="utf-8")


def test_excluded_wells_and_other_plates_stay_out(tmp_path: Path) -> None:
    data = plate(tmp_path)
    plate(tmp_path, "P2", referenced=False)
    before = learning_wells([data])
    exclude_well(data, "B03", "bubble", plate="P1")
    after = learning_wells([data])
    assert (len(before.rows), len(after.rows), after.plates) == (28, 27, ("P1",))
    assert before.sha256 != after.sha256
    assert len(after.rows[0].control_um3_by_z) == 4


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--plate", "P9"], "no plate 'P9'"),
        (["--plate", "P2"], "plate P2 has no MTT references"),
        (["--out", "x.pt"], "ends in .safetensors"),
    ],
)
def test_what_cannot_be_learnt_is_told(tmp_path: Path, options: list[str], words: str) -> None:
    data = plate(tmp_path)
    plate(tmp_path, "P2", referenced=False)
    done = spheroidd("regressor", "train", data, *options)
    assert done.exit_code == 2
    assert words in done.stderr


def test_a_plate_without_live_controls_is_told(tmp_path: Path) -> None:
    data = plate(tmp_path, patients=1)
    exclude_well(data, "A01", "lost")
    with pytest.raises(ConfigError, match="no untreated well"):
        learning_wells([data])


def test_too_few_wells_or_patients_give_no_number(tmp_path: Path) -> None:
    wells = learning_wells([plate(tmp_path, patients=2, doses=4)])
    with pytest.raises(ConfigError, match="10 wells of 2 patients"):
        cross_validate(wells.rows, wells.patients, steps=2)
    with pytest.raises(ConfigError, match="1 patients"):
        cross_validate(wells.rows * 3, ["one"] * 30, steps=2)


@pytest.mark.parametrize("n_folds", [2, 3, 5])
def test_no_patient_is_in_two_folds(n_folds: int) -> None:
    rng = np.random.default_rng(0)
    patients = [f"P{n}" for n in rng.integers(0, 6, 60)]
    fold_of = assign_folds(rng.random(60).astype(np.float32), patients, n_folds, seed=1)
    assert len(np.unique(fold_of)) == n_folds
    for patient in set(patients):
        assert len({fold for fold, one in zip(fold_of, patients, strict=True) if one == patient}) == 1


def test_the_score_of_a_fold_never_saw_its_patient() -> None:
    """A patient whose references are noise is predicted no better for being in the data."""
    rng = np.random.default_rng(3)
    rows, patients = [], []
    for number in range(30):
        live = rng.uniform(0.1, 1)
        rows.append(RegressorRow((live,) * 4, 25.0, [(1.0,) * 4], 100 * live if number % 3 else rng.uniform(0, 100)))
        patients.append("noise" if number % 3 == 0 else f"P{number % 2}")
    found = cross_validate(rows, patients, steps=60)
    assert found.figures.mae is not None
    assert found.figures.mae > 5
