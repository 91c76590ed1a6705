"""Commands for MTT references and for the viability regressor that learns from them."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from spheroidd.daemon.cli.app import DEFAULT_DATA, DataArgument, JsonOption, console, sub_app, told_when_interrupted

_group = sub_app("reference", "MTT references of a plate's wells: import a plate reader's file, show them.")
PlateOption = Annotated[str | None, typer.Option(help="The plate, where there are several.")]


@_group.command("import")
def import_command(
    data: DataArgument,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A plate reader's export (text, CSV, xlsx), or a table: well, od.")
    ],
    plate: PlateOption = None,
    block: Annotated[str | None, typer.Option(help="Which block of the file, where several fit.")] = None,
    blank: Annotated[
        str | None, typer.Option(help='Wells ("H11,H12"), a density, or none; else the map\'s empty wells.')
    ] = None,
    who: Annotated[str | None, typer.Option(help="Who imports it; by default this user.")] = None,
    as_json: JsonOption = False,
) -> int:
    """Keep a plate reader's readings as the plate's MTT viability, percent of its untreated wells. Audited."""
    from spheroidd.daemon.analysis import reference_table
    from spheroidd.daemon.catalog.references import import_references
    from spheroidd.inference.viability.mtt import Blank

    done = import_references(data, file, plate=plate, block=block, blank=Blank.parse(blank), who=who)
    if as_json:
        typer.echo(reference_table.import_json(done))
    else:
        console().print(reference_table.import_words(done), highlight=False)
    return 0


@_group.command("list")
def list_command(data: DataArgument = DEFAULT_DATA, plate: PlateOption = None, as_json: JsonOption = False) -> int:
    """Show the MTT references beside what the images say."""
    from spheroidd.daemon.analysis import reference_table
    from spheroidd.daemon.catalog.reader import CatalogReader

    with CatalogReader.read_only(data) as catalog:
        rows = reference_table.rows(catalog, plate)
    if as_json:
        typer.echo(reference_table.to_json(rows))
    else:
        console().print(reference_table.to_screen(rows))
    return 0


_regressor = sub_app("regressor", "The viability regressor: train it on plates with MTT references.")


@_regressor.command("train")
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
