"""Commands for the viability regressor: train it on plates with MTT references."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from spheroidd.daemon.cli.app import JsonOption, console, sub_app, told_when_interrupted

_group = sub_app("regressor", "The viability regressor: train it on plates with MTT references.")


@_group.command("train")
def train_command(
    data: Annotated[list[Path], typer.Argument(metavar="DATA...", help="Data directories of scored plates.")],
    plate: Annotated[list[str] | None, typer.Option(help="Only this plate; repeat for more.")] = None,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The .safetensors file to write.")] = Path(
        "regressor.safetensors"
    ),
    folds: Annotated[int, typer.Option(min=2, help="How many parts the patients are split into.")] = 5,
    seed: Annotated[int, typer.Option(help="Another seed is another split and another start.")] = 0,
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch", help="Start from V_control instead of the weights that ship.")
    ] = False,
    as_json: JsonOption = False,
) -> int:
    """Fit the regressor to slicewise live volumes and imported MTT references, cross-validated by patient."""
    from spheroidd.daemon.training import regressor_from_catalog as learning
    from spheroidd.protocols.errors import ConfigError

    if out.suffix != ".safetensors":
        raise ConfigError(f"--out is {out}", do="give a name that ends in .safetensors")
    wells = learning.learning_wells(data, tuple(plate or ()))
    command = " ".join(["spheroidd", *(Path(part).name if "/" in part else part for part in sys.argv[1:])])
    with told_when_interrupted("Nothing was written: the same command begins anew."):
        written, found = learning.train(wells, out, folds=folds, seed=seed, from_scratch=from_scratch, command=command)
    if as_json:
        told = {"sha256": written.sha256, "file": str(out), "wells": len(wells.rows), **learning.metrics(found)}
        typer.echo(json.dumps(told, indent=1, allow_nan=False))
    else:
        screen = console()
        screen.print(f"{len(wells.rows)} wells of {len(set(wells.patients))} patients, {found.n_folds} folds")
        for name, one in (("regressor, out of fold", found.figures), ("V control alone", found.v_control)):
            figures = ((n, getattr(one, n)) for n in ("pearson_r", "mae", "r2", "bias"))
            screen.print(f"{name:24}" + "  ".join(f"{n} {'—' if v is None else f'{v:.3f}'}" for n, v in figures))
        screen.print(f"90 % interval: held {100 * found.coverage:.0f} % out of fold")
        screen.print(f"{out} and its card {out.with_suffix('.md')}", highlight=False)
    return 0
