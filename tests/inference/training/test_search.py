"""Tuning: the same points whether or not it was interrupted, and no plate but those to learn from."""

import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from spheroidd.daemon.cli.console import app
from spheroidd.daemon.training.config import load_training_config
from spheroidd.daemon.training.study import inner_cases
from spheroidd.inference.training import search as tuning
from spheroidd.inference.training.crossval import Case, patient_folds
from spheroidd.inference.training.history import Progress
from spheroidd.inference.training.search import SearchSpace, Trial, at_point, tune
from spheroidd.inference.training.settings import TrainSettings
from spheroidd.protocols.errors import ConfigError, ModelError
from tests.inference.training.rig import CONFIG, TINY, balls, made_up

__all__ = ["made_up"]
STACKS, CHOSEN_BY = [balls(0)], [balls(1)]


class KilledError(Exception):
    """Whatever ends the process."""


@pytest.fixture
def peak(monkeypatch: pytest.MonkeyPatch) -> list[TrainSettings]:
    """A training whose Dice has a peak that is known, in place of a real one; what was trained."""
    trained: list[TrainSettings] = []

    def train(stacks: object, validation: object, settings: TrainSettings, out: Path, **given: Any) -> None:
        trained.append(settings)
        out.mkdir(parents=True)
        dice = 0.9 - (settings.loss.lambda_dice - 0.6) ** 2 - 0.02 * (settings.loss.gamma - 2) ** 2
        for step in (3, settings.steps):
            given["report"](Progress(step, 1.0, 0.1, 0.0, {"a": (dice, dice)}))

    monkeypatch.setattr(tuning, "train", train)
    return trained


def points(trials: list[Trial]) -> list[dict[str, float]]:
    return [trial.point for trial in sorted(trials, key=lambda trial: trial.number)]


def test_it_finds_the_peak_and_ranks_the_trials(peak: list[TrainSettings], tmp_path: Path) -> None:
    found = tune(STACKS, CHOSEN_BY, TINY, tmp_path, trials=14)
    assert len(found) == len(peak) == 14
    assert [trial.dice for trial in found] == sorted((trial.dice for trial in found), reverse=True)  # type: ignore[type-var]
    assert found[0].dice is not None
    assert found[0].dice > 0.88
    for settings in peak:
        assert settings.loss.lambda_dice + settings.loss.lambda_focal == pytest.approx(1)
        assert settings.loss.stages == TINY.loss.stages, "what is not searched stays"


def test_taken_up_it_counts_what_is_there_and_goes_the_same_way(peak: list[TrainSettings], tmp_path: Path) -> None:
    straight = tune(STACKS, CHOSEN_BY, TINY, tmp_path / "straight", trials=8)
    assert len(tune(STACKS, CHOSEN_BY, TINY, tmp_path / "cut", trials=3)) == 3
    peak.clear()
    found = tune(STACKS, CHOSEN_BY, TINY, tmp_path / "cut", trials=8)
    assert len(peak) == 5
    assert found == straight
    assert tune(STACKS, CHOSEN_BY, TINY, tmp_path / "cut", trials=2) == straight
    assert len(peak) == 5
    other = tune(STACKS, CHOSEN_BY, replace(TINY, seed=1), tmp_path / "other", trials=3)
    assert points(other) != points(straight)[:3]


def test_a_killed_trial_is_taken_up_at_its_point_from_its_checkpoint(tmp_path: Path) -> None:
    straight = tune(STACKS, CHOSEN_BY, TINY, tmp_path / "straight", trials=2)

    def kill(trial: Trial) -> None:
        (tmp_path / "reported").touch()

    train = tuning.train

    def killed(*args: Any, **given: Any) -> Any:
        if (tmp_path / "reported").exists():
            told = given["report"]

            def told_and_killed(progress: Progress) -> None:
                told(progress)
                raise KilledError

            given["report"] = told_and_killed
        return train(*args, **given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tuning, "train", killed)
        with pytest.raises(KilledError):
            tune(STACKS, CHOSEN_BY, TINY, tmp_path / "cut", trials=2, report=kill)
    (checkpoint,) = (tmp_path / "cut" / "trials").glob("*/checkpoint.pt")
    found = tune(STACKS, CHOSEN_BY, TINY, tmp_path / "cut", trials=2)
    assert {(tuple(t.point.items()), t.dice) for t in found} == {(tuple(t.point.items()), t.dice) for t in straight}
    assert not checkpoint.exists()


def test_a_trial_that_falls_behind_is_cut_short(peak: list[TrainSettings], tmp_path: Path) -> None:
    found = tune(STACKS, CHOSEN_BY, TINY, tmp_path, trials=12, prune=True)
    assert len(found) == 12
    assert [trial.dice is None for trial in found] == sorted(trial.dice is None for trial in found)
    assert any(trial.dice is None for trial in found)


def test_a_training_that_diverges_is_the_worst(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def diverges(*args: object, **given: object) -> None:
        raise ModelError("the loss is nan at step 2")

    monkeypatch.setattr(tuning, "train", diverges)
    assert [trial.dice for trial in tune(STACKS, CHOSEN_BY, TINY, tmp_path, trials=1)] == [0.0]


def test_another_study_s_folder_is_refused(peak: list[TrainSettings], tmp_path: Path) -> None:
    tune(STACKS, CHOSEN_BY, TINY, tmp_path, trials=1)
    for settings, chosen_by in ((replace(TINY, steps=7), CHOSEN_BY), (TINY, [balls(5)])):
        with pytest.raises(ConfigError, match="other settings or stacks"):
            tune(STACKS, chosen_by, settings, tmp_path, trials=2)


@pytest.mark.parametrize(
    "bounds", [{"lambda_dice": (0.2, 1.5)}, {"gamma": (3.0, 1.0)}, {"learning_rate": (0.0, 1.0)}], ids=str
)
def test_bounds_that_cannot_be_searched_are_refused(bounds: dict[str, tuple[float, float]]) -> None:
    with pytest.raises(ConfigError, match="tuning"):
        SearchSpace(**bounds)


def test_nothing_to_choose_by_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing to choose by"):
        tune(STACKS, [], TINY, tmp_path, trials=1)


def test_the_command_writes_a_file_that_train_takes_and_never_asks_for_held_out_plates(
    made_up: list[tuple[str, int]], peak: list[TrainSettings], tmp_path: Path
) -> None:
    (tmp_path / "c.toml").write_text(CONFIG)
    found = CliRunner().invoke(app, ["tune", str(tmp_path / "c.toml"), "--trials", "2"])
    assert found.exit_code == 0, found.output
    assert set(made_up) == {("unit", 3), ("unit", 4), ("demo", 3)}, "no plate but those to learn from"
    best = tmp_path / "out" / "tune" / "best.toml"
    config = load_training_config(best)
    ranked = [
        at_point(
            config.training,
            {"lambda_dice": s.loss.lambda_dice, "gamma": s.loss.gamma, "learning_rate": s.learning_rate},
        )
        for s in peak
    ]
    assert config.training in ranked
    assert config.out == tmp_path / "out" / "tune" / "best"
    assert [part.first_seed for part in config.data.held_out] == [77]
    assert "Dice" in best.read_text().splitlines()[0]
    assert tomllib.loads(best.read_text())["data"]["train"] == [
        {"kind": "unit", "first_seed": 3, "plates": 2},
        {"kind": "demo", "first_seed": 3, "plates": 1},
    ]


def test_inside_a_fold_what_it_judges_is_not_seen() -> None:
    cases = [Case(balls(seed), f"P{seed % 5}") for seed in range(10)]
    for number, fold in enumerate(patient_folds(cases), 1):
        judged = {cases[n].patient for n in fold.test}
        inner = inner_cases(cases, number, seed=0)
        assert inner
        assert not judged & {case.patient for case in inner}
    with pytest.raises(ConfigError, match="no fold 6"):
        inner_cases(cases, 6, seed=0)
