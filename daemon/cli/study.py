"""The commands of the study: cross-validation by patient, and tuning inside training folds."""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spheroidd.daemon.cli.app import JsonOption, app, console, told_when_interrupted
from spheroidd.protocols.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from spheroidd.daemon.training.config import TrainingConfig

ConfigArgument = Annotated[Path, typer.Argument(metavar="CONFIG", help="A training's configuration (TOML).")]
_GOES_ON = "the same command goes on from there"
OutOption = Annotated[Path | None, typer.Option(help="Where to work, instead of a folder beside the file's `out`.")]


@app.command()
def crossval(
    config: ConfigArgument,
    folds: Annotated[int, typer.Option(min=2, help="How many parts the patients are split into.")] = 5,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> int:
    """Cross-validate a training by patient. Interrupted, the same command goes on where it stopped."""
    from spheroidd.daemon.training.study import crossval_json, crossval_tables, run_crossval

    chosen = _config(config, out, "crossval")
    with told_when_interrupted(f"Finished folds and the last checkpoint are kept in {chosen.out}: {_GOES_ON}."):
        scores = run_crossval(chosen, folds, _progress(as_json))
    path = chosen.out / "crossval.json"
    path.write_text(_as_text(crossval_json(scores)), encoding="utf-8")
    if as_json:
        typer.echo(path.read_text(encoding="utf-8"))
        return 0
    for table in crossval_tables(scores):
        console().print(table)
    typer.echo(f"All figures: {path}")
    return 0


@app.command()
def tune(
    config: ConfigArgument,
    trials: Annotated[int, typer.Option(min=1, help="How many there shall be in the end, those there included.")] = 20,
    inside_fold: Annotated[int | None, typer.Option(help="Only what this fold of `crossval` learns from.")] = None,
    prune: Annotated[bool, typer.Option("--prune", help="End trials early that fall behind.")] = False,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> int:
    """Tune the loss and the learning rate on validation Dice, within the training plates. Takes an old search up."""
    from dataclasses import asdict

    from spheroidd.daemon.training.study import run_tune

    chosen = _config(config, out, "tune" if inside_fold is None else f"tune-fold-{inside_fold}")
    with told_when_interrupted(f"Finished trials and the last checkpoint are kept in {chosen.out}: {_GOES_ON}."):
        tuned = run_tune(chosen, trials, inside_fold, prune, _progress(as_json))
    if as_json:
        typer.echo(_as_text({"best": str(tuned.toml), "trials": [asdict(trial) for trial in tuned.trials]}))
        return 0
    best = tuned.trials[0]
    typer.echo(
        f"Best of {len(tuned.trials)}: trial {best.number}, Dice {best.dice:.4f}. Use: spheroidd train {tuned.toml}"
    )
    return 0


def _config(path: Path, out: Path | None, name: str) -> "TrainingConfig":
    """The file, writing to a folder of the command's own, so that no training's checkpoint lies there."""
    from spheroidd.daemon.training.config import load_training_config

    for module in ("monai", "optuna", "sklearn"):
        if find_spec(module) is None:
            raise ConfigError(f"{module} is not installed", where=name, do='pip install "spheroidd[train]"')
    chosen = load_training_config(path)
    return chosen.model_copy(update={"out": out.absolute() if out is not None else chosen.out / name})


def _progress(as_json: bool) -> "Console":
    """Progress goes beside the JSON, not into it."""
    from rich.console import Console

    return Console(stderr=True) if as_json else console()


def _as_text(content: object) -> str:
    import json

    return json.dumps(content, indent=1)
