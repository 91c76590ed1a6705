"""Commands for plates that are not imaged yet: a plate map from a template."""

from pathlib import Path
from typing import Annotated

import typer

from spheroidd.daemon.cli.app import console, sub_app
from spheroidd.daemon.cli.map import lines, picture
from spheroidd.protocols.errors import ConfigError

_group = sub_app("plate", "Plates to come: a plate map from a template.")


@_group.command("templates")
def templates() -> int:
    """List the templates that `plate new` knows."""
    from spheroidd.daemon.planning.plate_template import described

    for line in described():
        typer.echo(line)
    return 0


@_group.command("new")
def new(
    template: Annotated[str, typer.Option(help="One of `spheroidd plate templates`.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="FILE.csv", help="What to write; must not be there.")],
    compound: Annotated[
        list[str] | None, typer.Option("--compound", metavar="NAME", help="Repeat for each; without it C01, C02, ...")
    ] = None,
    patient: Annotated[
        list[str] | None, typer.Option("--patient", metavar="NAME", help="Repeat for each; all get every series.")
    ] = None,
    doses: Annotated[int | None, typer.Option(help="Doses of a series.")] = None,
    replicates: Annotated[int | None, typer.Option(help="Series of each compound and patient.")] = None,
    untreated: Annotated[int | None, typer.Option(help="Untreated wells.")] = None,
    killed: Annotated[int | None, typer.Option(help="Killed wells.")] = None,
    top: Annotated[float, typer.Option(metavar="UM", help="The highest dose, uM.")] = 50.0,
    dilution: Annotated[float, typer.Option(help="From one dose to the next; 3.162 is half a decade.")] = 10**0.5,
    seed: Annotated[int | None, typer.Option(help="Of random places; without it that of the plate's name.")] = None,
) -> int:
    """Write a plate map from a template: the plate is called as the file is. `map check` reads it."""
    from spheroidd.daemon.planning.plate_template import Content, new_plate
    from spheroidd.protocols.plate_map.file import write_plate_map

    content = Content(
        compounds=tuple(compound) if compound else None,
        patients=tuple(patient) if patient else (None,),
        doses=doses,
        replicates=replicates,
        untreated=untreated,
        killed=killed,
        top_um=top,
        dilution=dilution,
        seed=seed,
    )
    made, drawn = new_plate(out.stem, template, content)
    if out.exists():
        raise ConfigError("it is there already", where=str(out), do="choose another name")
    try:
        write_plate_map(out, made)
    except OSError as error:
        do = "choose a file that you may write"
        raise ConfigError(f"cannot write it: {error.strerror}", where=str(out), do=do) from error
    screen = console()
    screen.print(picture(made))
    for line in lines(made):
        screen.print(line, highlight=False)
    again = "" if drawn is None else f", places drawn with --seed {drawn}"
    typer.echo(f"{out}: {len(made)} wells{again}")
    return 0
