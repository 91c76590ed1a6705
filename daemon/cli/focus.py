"""The command that shows where each stack's focus was found."""

from typing import Annotated

import typer

from spheroidd.daemon.cli.app import DEFAULT_DATA, DataArgument, JsonOption, app, console
from spheroidd.protocols.errors import ConfigError


@app.command("focus-map")
def focus_map(
    data: DataArgument = DEFAULT_DATA,
    as_json: JsonOption = False,
    plate: Annotated[str | None, typer.Option(help="Only this plate.")] = None,
) -> int:
    """Show where each stack's focus was found. Exit code 1: look, a focus was not found or does not fit the others."""
    from spheroidd.daemon.analysis import focus_table as focus_screen
    from spheroidd.daemon.catalog.reader import CatalogReader

    with CatalogReader.read_only(data) as catalog:
        names = catalog.plates() if plate is None else [plate]
        found = [one for name in names for one in catalog.focus_map(name)]
    if not found:
        do = "write [source.autofocus] (a Micro-Manager source), and run the plate"
        raise ConfigError("no focus was looked for here", where=str(data), do=do)
    if as_json:
        typer.echo(focus_screen.to_json(found))
    else:
        console().print(focus_screen.to_screen(found))
    return focus_screen.exit_code(found)
