"""Cross-validation and tuning of a training's file. The held-out plates are no business of this module's.

The patients of an emulated plate come from its seed alone, so plates of one seed, whatever their kind, share theirs.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from spheroidd.daemon.config.model import to_toml
from spheroidd.daemon.training.config import TrainingConfig
from spheroidd.daemon.training.emulated_plates import cached_stacks
from spheroidd.daemon.training.recordings import recorded_stack
from spheroidd.daemon.training.run import chosen_device, training_stacks
from spheroidd.inference.network.unet import UNet
from spheroidd.inference.network.weights import load_model
from spheroidd.inference.training.crossval import (
    FOLDS,
    LABELS,
    Case,
    Progressed,
    Scores,
    cross_validate,
    patient_folds,
    summary,
)
from spheroidd.inference.training.search import Trial, at_point, tune
from spheroidd.protocols.durable import write_atomically
from spheroidd.protocols.errors import ConfigError

BEST_NAME = "best.toml"
INNER_FOLDS = 4  # of a tuning's patients, one part in so many is chosen by


@dataclass(frozen=True, slots=True)
class Tuned:
    """What a tuning left: all finished trials, the best first, and the file that `spheroidd train` takes."""

    trials: list[Trial]
    toml: Path


def run_crossval(config: TrainingConfig, n_folds: int, console: Console) -> list[Scores]:
    """Train and judge every fold; finished ones are kept in `config.out`."""
    found = list(cases(config, console))
    _tell_folds(found, n_folds, config, console)

    def report(progress: Progressed) -> None:
        live, dead = progress.training.mean_dice()
        at = f"fold {progress.fold} of {progress.folds}, step {progress.training.step}"
        watched = f", watched Dice live {live:.3f}, dead {dead:.3f}" if progress.training.dice else ""
        console.print(f"{at}, {progress.training.seconds:.0f} s: loss {progress.training.loss:.4f}{watched}")

    return cross_validate(
        found,
        config.training,
        config.out,
        validation=training_stacks(_only_validation(config), console)[1],
        n_folds=n_folds,
        report=report,
        start_from=_first_weights(config),
        device=_prepared(config),
    )


def run_tune(config: TrainingConfig, trials: int, inside_fold: int | None, prune: bool, console: Console) -> Tuned:
    """Search among the training plates' patients; with `inside_fold` only those that this fold of five learns from."""
    found = list(cases(config, console))
    if inside_fold is not None:
        found = inner_cases(found, inside_fold, config.training.seed)
    split = patient_folds(found, min(INNER_FOLDS, max(2, len({case.patient for case in found}))), config.training.seed)[
        0
    ]
    learnt, chosen_by = ([found[n].stack for n in part] for part in (split.train, split.test))
    console.print(f"{len(learnt)} stacks to learn from, {len(chosen_by)} of other patients to choose by")

    def report(trial: Trial) -> None:
        dice = "cut short" if trial.dice is None else f"Dice {trial.dice:.4f}"
        console.print(f"trial {trial.number}: {_point(trial)}: {dice}")

    ranked = tune(
        learnt,
        chosen_by,
        config.training,
        config.out,
        trials=trials,
        prune=prune,
        report=report,
        start_from=_first_weights(config),
        device=_prepared(config),
    )
    return Tuned(ranked, _write_best(config, ranked))


def inner_cases(found: list[Case], fold: int, seed: int) -> list[Case]:
    """What a fold of the cross-validation learns from: a tuning inside it never sees what it is judged by."""
    if not 1 <= fold <= FOLDS:
        raise ConfigError(f"there is no fold {fold}", where="tuning", do=f"give 1 to {FOLDS}")
    return [found[n] for n in patient_folds(found, FOLDS, seed)[fold - 1].train]


def cases(config: TrainingConfig, console: Console) -> Iterator[Case]:
    """The file's training plates and recordings with their patients."""
    data, spacing_um = config.data, config.training.network.spacing_um
    chosen = [(part.kind, part.first_seed + n) for part in data.train for n in range(part.plates)]
    for kind, seed in track(chosen, "training plates", console=console, disable=not chosen):
        for stack in cached_stacks(kind, seed, spacing_um, data.cache):
            yield Case(stack, f"seed-{seed}")
    for recording in data.recordings:
        yield Case(recorded_stack(recording, spacing_um, data.cache), recording.patient or recording.name)


def crossval_json(scores: list[Scores]) -> dict[str, Any]:
    """All figures: the summary, and each stack's."""
    rows = [{**asdict(score), **{f"{label}_dice": getattr(score, label).dice for label in LABELS}} for score in scores]
    return {"summary": summary(scores), "stacks": rows}


def crossval_tables(scores: list[Scores]) -> Iterator[Table]:
    """One table for each normalisation: a row for each patient, and one for all."""
    for kind, found in summary(scores).items():
        table = Table(title=f"out of fold, normalisation {kind}", title_justify="left")
        for name in ("patient", "stacks", "live Dice", "dead Dice", "live, all voxels", "dead, all voxels"):
            table.add_column(name, justify="left" if name == "patient" else "right")
        for patient, figures in found["by_patient"].items():
            table.add_row(patient, *_row(figures))
        table.add_section()
        table.add_row("all", *_row(found["pooled"]))
        yield table


def _row(figures: dict[str, Any]) -> list[str]:
    dice = [
        f"{figures[label]['mean']:.3f}" + (f" +- {sd:.3f}" if (sd := figures[label]["sd"]) is not None else "")
        for label in LABELS
    ]
    return [str(figures["stacks"]), *dice, *(f"{figures[label]['voxels']['dice']:.3f}" for label in LABELS)]


def _tell_folds(found: list[Case], n_folds: int, config: TrainingConfig, console: Console) -> None:
    for number, fold in enumerate(patient_folds(found, n_folds, config.training.seed), 1):
        judged = sorted({found[n].patient for n in fold.test})
        console.print(f"fold {number}: {len(fold.train)} stacks to learn from; judged on {', '.join(judged)}")


def _first_weights(config: TrainingConfig) -> UNet | None:
    """The weights that the file starts from; refused for emulated plates, which those weights may know."""
    if config.start_from is None:
        return None
    if config.data.train:
        what = f"{config.start_from} may have been trained on the very plates that judge"
        do = "take start_from out of the file, or give recordings of your own only"
        raise ConfigError(what, where="start_from", do=do)
    return load_model(config.start_from)[0]


def _prepared(config: TrainingConfig) -> str:
    """The device; torch's threads are set."""
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    return chosen_device(config.device)


def _only_validation(config: TrainingConfig) -> TrainingConfig:
    data = config.data.model_copy(update={"train": (), "recordings": (), "held_out": ()})
    return config.model_copy(update={"data": data})


def _write_best(config: TrainingConfig, ranked: list[Trial]) -> Path:
    best = ranked[0]
    if best.dice is None:
        raise ConfigError("every trial was cut short", where=str(config.out), do="ask for more, or without --prune")
    training = at_point(config.training, best.point)
    name, out = f"{config.name}-tuned", config.out / "best"
    chosen = config.model_copy(update={"training": training, "name": name, "out": out})
    path = config.out / BEST_NAME
    about = f"# The best of {len(ranked)} trials: validation Dice {best.dice:.4f}. Use: spheroidd train {BEST_NAME}"
    write_atomically(path, f"{about}\n{to_toml(chosen)}".encode())
    return path


def _point(trial: Trial) -> str:
    point = trial.point
    share = f"lambda_dice {point['lambda_dice']:.3f}, lambda_focal {1 - point['lambda_dice']:.3f}"
    return f"{share}, gamma {point['gamma']:.2f}, learning rate {point['learning_rate']:.2e}"
