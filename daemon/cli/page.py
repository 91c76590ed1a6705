"""The command that opens the page of a running daemon."""

from typing import Annotated

import typer

from spheroidd.daemon.cli.app import DEFAULT_DATA, DataArgument, app
from spheroidd.protocols.errors import ConfigError


@app.command()
def page(
    data: DataArgument = DEFAULT_DATA,
    show: Annotated[bool, typer.Option("--print", help="Only print the address.")] = False,
) -> int:
    """Open the page of the daemon that runs on a data directory."""
    import webbrowser

    from spheroidd.daemon.system.address_files import read_page
    from spheroidd.daemon.system.lock import is_locked

    url = read_page(data) if data.is_dir() and is_locked(data) is not False else None
    if url is None:
        do = "start one: `spheroidd run CONFIG.toml`, with [service] http = true"
        raise ConfigError("no daemon with a page runs here", where=str(data), do=do)
    typer.echo(url)
    if not show:
        webbrowser.open(url)
    return 0
