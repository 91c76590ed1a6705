"""Bayesian tuning of the loss and the learning rate by validation Dice, with Optuna's Gaussian process.

Knows training stacks only: whoever calls it gives stacks of training folds, to learn from and to choose by. The trials
stand in an SQLite file; an interrupted trial is taken up from its checkpoint, and the next point depends on the seed
and the finished trials alone, so an interrupted study goes the way of an uninterrupted one.
"""

import hashlib
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from filelock import FileLock, Timeout
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from spheroidd.inference.network.unet import UNet
from spheroidd.inference.training.checkpoint import weights_digest
from spheroidd.inference.training.history import Progress
from spheroidd.inference.training.settings import TrainSettings
from spheroidd.inference.training.stack import TrainingStack, stacks_digest
from spheroidd.inference.training.trainer import train, validate
from spheroidd.protocols.errors import ConfigError, ModelError, StorageError

STUDY_NAME = "study.db"
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
_STARTUP = 5  # points drawn at random before the process has something to go by
_PARAMETERS = ("lambda_dice", "gamma", "learning_rate")


@dataclass(frozen=True, slots=True)
class SearchSpace:
    """The bounds of what is tried. lambda_focal is 1 - lambda_dice: of the two only the ratio matters to AdamW."""

    lambda_dice: tuple[float, float] = (0.1, 0.9)
    gamma: tuple[float, float] = (0.5, 4.0)
    learning_rate: tuple[float, float] = (1e-4, 1e-2)

    def __post_init__(self) -> None:
        for name in _PARAMETERS:
            low, high = getattr(self, name)
            if not 0 < low <= high or (name == "lambda_dice" and high > 1):
                raise ConfigError(f"{name} is from {low} to {high}", where="tuning", do="give 0 < lowest <= highest")

    def asked(self, trial: optuna.Trial) -> dict[str, float]:
        """The trial's point."""
        return {
            name: trial.suggest_float(name, *getattr(self, name), log=name == "learning_rate") for name in _PARAMETERS
        }


@dataclass(frozen=True, slots=True)
class Trial:
    """A finished trial: its point, and the mean of live and dead validation Dice (None where it was cut short)."""

    number: int
    point: dict[str, float]
    dice: float | None


def at_point(settings: TrainSettings, point: dict[str, float]) -> TrainSettings:
    """The settings with a point's loss and learning rate."""
    share = point["lambda_dice"]
    loss = replace(settings.loss, lambda_dice=share, lambda_focal=1 - share, gamma=point["gamma"])
    return replace(settings, loss=loss, learning_rate=point["learning_rate"])


def tune(
    stacks: Sequence[TrainingStack],
    validation: Sequence[TrainingStack],
    settings: TrainSettings,
    out: Path,
    *,
    trials: int,
    space: SearchSpace | None = None,
    prune: bool = False,
    report: Callable[[Trial], None] = lambda trial: None,
    start_from: UNet | None = None,
    device: str = "cpu",
) -> list[Trial]:
    """Go on until there are `trials` finished ones in `out`; all of them, the best first.

    `settings.seed` decides every point and training. With `prune` a trial ends early whose Dice is below the median of
    the others at the same step. A training that diverges has Dice 0. ConfigError where `out` holds another study.
    """
    if trials < 1 or not validation:
        what = f"{trials} trials" if trials < 1 else "there is nothing to choose by"
        raise ConfigError(what, where="tuning", do="ask for 1 or more, and give validation stacks")
    space = space or SearchSpace()
    with _study(out, _decisive(stacks, validation, settings, space, prune, start_from), prune) as study:
        _put_back(study)
        while (done := len(study.get_trials(deepcopy=False, states=FINISHED))) < trials:
            study.sampler = _sampler(settings.seed, done)
            trial = study.ask()
            point = space.asked(trial)
            place = out / "trials" / _digest(point)
            try:
                dice = _dice(trial, stacks, validation, at_point(settings, point), place, start_from, device)
            except optuna.TrialPruned:
                study.tell(trial, state=TrialState.PRUNED)
                dice = None
            else:
                study.tell(trial, dice)
            shutil.rmtree(place, ignore_errors=True)
            report(Trial(trial.number, point, dice))
        return _ranked(study)


def _dice(
    trial: optuna.Trial,
    stacks: Sequence[TrainingStack],
    validation: Sequence[TrainingStack],
    settings: TrainSettings,
    place: Path,
    start_from: UNet | None,
    device: str,
) -> float:
    """Train at a point; the validation Dice after the last step. TrialPruned where it is cut short."""
    last: list[float] = []

    def told(progress: Progress) -> None:
        value = float(np.mean(progress.mean_dice()))
        if progress.step == settings.steps:
            last.append(value)
            return
        trial.report(value, progress.step)
        if trial.should_prune():
            raise optuna.TrialPruned

    try:
        model = train(stacks, validation, settings, place, report=told, start_from=start_from, device=device)
    except ModelError:  # it diverged: that, too, is known of the point now
        return 0.0
    # A trial that was stopped between its last step and its row has nothing left to report.
    return last[0] if last else float(np.mean(list(validate(model, validation).values())))


def _sampler(seed: int, done: int) -> optuna.samplers.BaseSampler:
    """A sampler of its own for each trial: one that is kept would draw otherwise after an interruption."""
    drawn = int(np.random.default_rng([seed, done]).integers(2**31))
    return optuna.samplers.GPSampler(seed=drawn, n_startup_trials=_STARTUP)


def _put_back(study: optuna.Study) -> None:
    """Trials that were running when their process ended are asked for again, at the same points."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
        if set(trial.params) == set(_PARAMETERS):
            study.enqueue_trial(trial.params)


@contextmanager
def _study(out: Path, decisive: str, prune: bool) -> Iterator[optuna.Study]:
    """The study of a folder, for one process at a time."""
    out.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    lock = FileLock(out / "tune.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ConfigError("another process tunes here", where=str(out), do="wait for it, or give --out") from error
    try:
        storage = _storage(out / STUDY_NAME)
        try:
            pruner = optuna.pruners.MedianPruner() if prune else optuna.pruners.NopPruner()
            study = optuna.create_study(
                storage=storage, study_name="spheroidd", direction="maximize", load_if_exists=True, pruner=pruner
            )
            if study.user_attrs.setdefault("decisive", decisive) != decisive:
                do = "go on with the same file and data, or give another folder with --out"
                raise ConfigError(
                    "its trials are of other settings or stacks, or began with other weights", where=str(out), do=do
                )
            study.set_user_attr("decisive", decisive)
            yield study
        except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
            do = "make room, or remove the file if it is damaged; finished trials are kept in it"
            what = f"the trials cannot be kept: {str(error).splitlines()[0]:.200}"
            raise StorageError(what, where=str(out / STUDY_NAME), do=do) from error
        finally:
            storage.remove_session()
            storage.engine.dispose()
    finally:
        lock.release()


def _storage(path: Path) -> optuna.storages.RDBStorage:
    try:
        return optuna.storages.RDBStorage(f"sqlite:///{path.as_posix()}")
    except SQLAlchemyError as error:
        what = f"it is no file of trials: {str(error).splitlines()[0]:.200}"
        raise ConfigError(what, where=str(path), do="move it away, or give another folder with --out") from error


def _ranked(study: optuna.Study) -> list[Trial]:
    def ours(trial: FrozenTrial) -> Trial:
        complete = trial.state is TrialState.COMPLETE and trial.value is not None
        return Trial(
            trial.number, {name: float(trial.params[name]) for name in _PARAMETERS}, trial.value if complete else None
        )

    found = [ours(trial) for trial in study.get_trials(deepcopy=False, states=FINISHED)]
    return sorted(found, key=lambda trial: -math.inf if trial.dice is None else trial.dice, reverse=True)


def _decisive(
    stacks: Sequence[TrainingStack],
    validation: Sequence[TrainingStack],
    settings: TrainSettings,
    space: SearchSpace,
    prune: bool,
    start_from: UNet | None,
) -> str:
    """All that decides the trials, besides their points."""
    free = at_point(settings, {"lambda_dice": 0.5, "gamma": 2.0, "learning_rate": 1.0})
    told: dict[str, Any] = {item.name: getattr(free, item.name) for item in fields(free)}
    first = () if start_from is None else (weights_digest(start_from),)
    return _digest((told, space, prune, stacks_digest(stacks), stacks_digest(validation), *first))


def _digest(content: object) -> str:
    return hashlib.sha256(repr(content).encode()).hexdigest()[:16]
