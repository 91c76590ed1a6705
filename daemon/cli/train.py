"""The command that trains a network."""

from pathlib import Path
from typing import Annotated

import typer

from spheroidd.daemon.cli.app import app, console, told_when_interrupted
from spheroidd.protocols.errors import ConfigError


@app.command()
def train(
    config: Annotated[Path | None, typer.Argument(metavar="CONFIG", help="Configuration (TOML).")] = None,
    preset: Annotated[str | None, typer.Option(help="quick: a small network within five minutes.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where to write, instead of the file's `out`.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:0, instead of the file's.")] = None,
) -> int:
    """Train a network on emulated plates or annotated stacks. An interrupted training is taken up where it stopped."""
    from spheroidd.daemon.training.config import load_training_config, training_preset
    from spheroidd.daemon.training.run import run_training

    if (config is None) == (preset is None):
        raise ConfigError("one of a file and a preset is needed", where="train", do="give CONFIG or --preset quick")
    chosen = load_training_config(config) if config is not None else training_preset(preset or "", Path.cwd())
    changed = {name: value for name, value in (("out", out and out.absolute()), ("device", device)) if value}
    told = f"--preset {preset}" if config is None else config.name if config.is_absolute() else config.as_posix()
    command = f"spheroidd train {told}"  # goes into the card: no path of this machine
    chosen = chosen.model_copy(update=changed)
    kept = (
        f"Rendered stacks and the last checkpoint, if there was one, are kept in {chosen.data.cache} and {chosen.out}"
    )
    with told_when_interrupted(f"{kept}: the same command goes on from there."):
        weights = run_training(chosen, console(lasting=True), command)
    if weights is not None:
        typer.echo(f"Weights and card: {weights}")
    return 0
