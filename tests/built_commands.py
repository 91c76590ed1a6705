"""The command line, built once a process: its 80 commands take 30 ms of a processor, whichever of them is called."""

from functools import cache

import typer.main


def keep() -> None:
    """What is built of an app from now on is kept, for programs and for the tests' runner, which is loaded later."""
    typer.main.get_command = cache(typer.main.get_command)
