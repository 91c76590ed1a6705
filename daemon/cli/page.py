"""The command that opens the page of a data directory: that of its daemon, or without one a page to look at."""

from pathlib import Path
from typing import Annotated

import typer

from spheroidd.daemon.cli.app import DEFAULT_DATA, DataArgument, app
from spheroidd.protocols.errors import ConfigError


@app.command()
def page(
    data: DataArgument = DEFAULT_DATA,
    show: Annotated[bool, typer.Option("--print", help="Only print the address of the daemon's page.")] = False,
    address: Annotated[str, typer.Option(help="Where to serve it, where no daemon runs.")] = "127.0.0.1:8040",
    browser: Annotated[bool, typer.Option(help="Open it in the browser.")] = True,
    words: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Its words in another language (/words.json), where no daemon runs."),
    ] = None,
) -> int:
    """Open the page of the daemon that runs on a data directory; where none runs, serve it to look at until Ctrl-C."""
    import webbrowser

    from spheroidd.daemon.system.address_files import read_page
    from spheroidd.daemon.system.lock import is_locked

    url = read_page(data) if data.is_dir() and is_locked(data) is not False else None
    if url is None and not show:
        return _serve(data, address, words, browser=browser)
    if url is None:
        do = "start one: `spheroidd run CONFIG.toml`, with [service] http = true; or leave --print out to look at it"
        raise ConfigError("no daemon with a page runs here", where=str(data), do=do)
    if words is not None:
        do = "name the file in [service] http_words of the daemon's settings, and start it again"
        raise ConfigError("a daemon runs here, whose page has words of its own", where=str(words), do=do)
    typer.echo(url)
    if not show and browser:
        webbrowser.open(url)
    return 0


def _serve(data: Path, address: str, words: Path | None, *, browser: bool) -> int:
    import threading
    import webbrowser

    from spheroidd.daemon.system.stop_signals import stopped_by_signals
    from spheroidd.daemon.web.server import page_alone

    ended = threading.Event()
    with stopped_by_signals(ended.set, lambda words: None), page_alone(data, address, words) as web:
        typer.echo(web.url)
        typer.echo("No daemon runs here: the page shows what is there and takes no orders. Ctrl-C ends it.", err=True)
        if browser:
            webbrowser.open(web.url)
        while not ended.wait(1.0):  # not for good: on Windows Ctrl-C would wait with it
            pass
    return 0
