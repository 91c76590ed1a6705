"""Commands for MTT references: import a plate reader's file, show what is known."""

from pathlib import Path
from typing import Annotated

import typer

from spheroidd.daemon.cli.app import DEFAULT_DATA, DataArgument, JsonOption, console, sub_app

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
