"""Folds by patient: none is both learnt from and judged; a killed cross-validation goes on at the fold it was in."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from spheroidd.daemon.cli.console import app
from spheroidd.inference.training import crossval
from spheroidd.inference.training.crossval import (
    Case,
    Fold,
    Progressed,
    Scores,
    check_apart,
    cross_validate,
    patient_folds,
    summary,
    viability_strata,
)
from spheroidd.inference.training.overlap_counts import Overlap
from spheroidd.inference.training.stack import TrainingStack
from spheroidd.protocols.errors import ConfigError
from tests.inference.training.rig import CONFIG, TINY, balls, made_up

__all__ = ["made_up"]

SHORT = replace(TINY, steps=2, every=2)


def stack(name: str, n_live: int, n_dead: int) -> TrainingStack:
    """As small as a stack can be; only its truth's points matter here."""
    cells = np.zeros((2, 1, 1, 1), np.uint8)
    points = (np.zeros((n_live, 3)), np.zeros((n_dead, 3)))
    return TrainingStack(name, (1.0, 1.0, 1.0), (cells.astype(np.float16),), cells, *points)


@st.composite
def screens(draw: st.DrawFn) -> tuple[list[Case], int]:
    patients = draw(st.integers(2, 9))
    wells = draw(st.lists(st.integers(1, 6), min_size=patients, max_size=patients))
    counts = st.integers(0, 30)
    cases = [
        Case(stack(f"{patient}-{well}", draw(counts), draw(counts)), f"P{patient}")
        for patient, n_wells in enumerate(wells)
        for well in range(n_wells)
    ]
    return draw(st.permutations(cases)), draw(st.integers(2, patients))


@given(screens(), st.integers(0, 3))
@settings(deadline=None, max_examples=60)
def test_no_patient_is_in_both_parts_and_every_case_is_judged_once(screen: tuple[list[Case], int], seed: int) -> None:
    cases, n_folds = screen
    folds = patient_folds(cases, n_folds, seed)
    assert len(folds) == n_folds
    assert sorted(n for fold in folds for n in fold.test) == list(range(len(cases)))
    for fold in folds:
        assert sorted((*fold.train, *fold.test)) == list(range(len(cases)))
        assert not {cases[n].patient for n in fold.train} & {cases[n].patient for n in fold.test}
        assert fold.train
        assert fold.test
    assert folds == patient_folds(cases, n_folds, seed)


@pytest.mark.parametrize(("n_patients", "n_folds"), [(4, 5), (1, 2), (0, 2), (3, 1)])
def test_too_few_patients_for_the_folds_are_refused(n_patients: int, n_folds: int) -> None:
    cases = [Case(stack(f"s{n}-{well}", 3, 2), f"P{n}") for n in range(n_patients) for well in range(4)]
    with pytest.raises(ConfigError, match=f"{n_patients} patients .* cannot make {n_folds} folds"):
        patient_folds(cases, n_folds)


def test_a_leak_is_refused() -> None:
    cases = [Case(stack("a", 1, 1), "P1"), Case(stack("b", 1, 1), "P1"), Case(stack("a", 1, 1), "P2")]
    with pytest.raises(ConfigError, match="P1 is both"):
        check_apart(cases, Fold((0,), (1,)))
    with pytest.raises(ConfigError, match="a is both"):
        check_apart(cases, Fold((0,), (2,)))
    check_apart(cases, Fold((1,), (2,)))


def test_each_fold_has_about_the_same_viabilities() -> None:
    rng = np.random.default_rng(0)
    cases = [
        Case(
            stack(f"{patient}-{well}", live := int(rng.integers(0, 8)) + 22 * (patient >= 10), 30 - live), f"P{patient}"
        )
        for patient in range(20)  # half of the patients answer, the other half do not
        for well in range(6)
    ]
    for seed in range(5):
        means = [np.mean([cases[n].viability for n in fold.test]) for fold in patient_folds(cases, 5, seed)]
        assert np.ptp(means) < 0.1, "a fold with one patient more of a kind would be 0.18 off"


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40), st.integers(1, 4))
@settings(deadline=None)
def test_strata_are_of_equal_size_and_rise_with_viability(viabilities: list[float], strata: int) -> None:
    found = viability_strata(viabilities, strata)
    sizes = np.bincount(found, minlength=strata)
    assert np.ptp(sizes) <= 1
    order = np.argsort(viabilities, kind="stable")
    assert list(np.array(found)[order]) == sorted(found)


def test_a_stack_without_cells_has_a_viability() -> None:
    assert Case(stack("s", 0, 0), "P").viability == 0.0
    assert Case(stack("s", 3, 1), "P").viability == 0.75


class KilledError(Exception):
    """Whatever ends the process."""


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return [Case(balls(seed), f"P{seed % 3}") for seed in range(6)]


def test_killed_after_the_second_fold_it_goes_on_in_the_third(
    cases: list[Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = cross_validate(cases, SHORT, tmp_path / "straight", n_folds=3)

    def cut_off(progress: Progressed) -> None:
        if progress.fold == 3:
            raise KilledError

    with pytest.raises(KilledError):
        cross_validate(cases, SHORT, tmp_path / "cut", n_folds=3, report=cut_off)
    begun: list[str] = []
    train = crossval.train

    def counted(*args: Any, **kwargs: Any) -> Any:
        begun.append(args[3].name)
        return train(*args, **kwargs)

    monkeypatch.setattr(crossval, "train", counted)
    steps: list[Progressed] = []
    assert cross_validate(cases, SHORT, tmp_path / "cut", n_folds=3, report=steps.append) == straight
    assert begun == ["fold-3"], "finished folds are kept"
    assert not steps, "its training was at its last checkpoint"
    assert cross_validate(cases, SHORT, tmp_path / "cut", n_folds=3) == straight
    assert begun == ["fold-3"]
    judged = [(score.stack, score.normalisation) for score in straight]
    assert sorted(judged) == sorted((f"balls-{n}", kind) for n in range(6) for kind in ("stack", "plate"))


def test_folds_of_another_training_are_not_taken(cases: list[Case], tmp_path: Path) -> None:
    cross_validate(cases, SHORT, tmp_path, n_folds=3)
    for other in (replace(SHORT, learning_rate=2e-2), replace(SHORT, seed=3)):
        with pytest.raises(ConfigError, match="other settings"):
            cross_validate(cases, other, tmp_path, n_folds=3)
    (tmp_path / "fold-2" / "result.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"result\.json: cannot be read"):
        cross_validate(cases, SHORT, tmp_path, n_folds=3)


def score(patient: str, number: int, live: Overlap, fold: int = 1) -> Scores:
    return Scores(fold, patient, f"{patient}-{number}", "stack", live, Overlap())


def test_the_summary_pools_stacks_and_voxels() -> None:
    good, poor = Overlap(90, 100, 100), Overlap(1, 4, 4)
    found = summary([score("A", 0, good), score("A", 1, poor), score("B", 0, good, fold=2)])["stack"]
    pooled = found["pooled"]["live"]
    assert pooled["mean"] == pytest.approx((0.9 + 0.25 + 0.9) / 3)
    assert pooled["sd"] == pytest.approx(np.std([0.9, 0.25, 0.9], ddof=1))
    assert pooled["voxels"]["dice"] == pytest.approx(2 * 181 / 408)
    assert found["pooled"]["dead"]["mean"] == 1.0, "nothing was to be found, and nothing was"
    assert found["by_patient"]["A"]["live"]["mean"] == pytest.approx(0.575)
    assert found["by_patient"]["B"]["live"]["sd"] is None
    assert found["by_fold"]["2"]["stacks"] == 1


def test_the_command_prints_every_patient_once_and_never_asks_for_held_out_plates(
    made_up: list[tuple[str, int]], tmp_path: Path
) -> None:
    (tmp_path / "c.toml").write_text(CONFIG)
    found = CliRunner().invoke(app, ["crossval", str(tmp_path / "c.toml"), "--folds", "2"])
    assert found.exit_code == 0, found.output
    assert set(made_up) == {("unit", 3), ("unit", 4), ("demo", 3)}
    assert "fold 2 of 2" in found.output
    content = json.loads((tmp_path / "out" / "crossval" / "crossval.json").read_text())
    patients = content["summary"]["stack"]["by_patient"]
    assert {name: row["stacks"] for name, row in patients.items()} == {"seed-3": 4, "seed-4": 2}
    assert len(content["stacks"]) == 12


def test_the_command_refuses_more_folds_than_patients(made_up: list[tuple[str, int]], tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(CONFIG)
    found = CliRunner().invoke(app, ["crossval", str(tmp_path / "c.toml")])
    assert found.exit_code != 0
    assert "2 patients (seed-3, seed-4) cannot make 5 folds" in found.output


def test_weights_that_may_know_the_plates_are_refused(made_up: list[tuple[str, int]], tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(f'start_from = "emulator"\n{CONFIG}')
    found = CliRunner().invoke(app, ["crossval", str(tmp_path / "c.toml"), "--folds", "2"])
    assert found.exit_code != 0
    assert "start_from" in found.output
