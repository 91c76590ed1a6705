"""`spheroidd service`: let the system start the daemon, and start it again."""

from pathlib import Path
from typing import Annotated

import typer

from spheroidd.daemon.cli.app import DEFAULT_DATA, DataArgument, sub_app

service_app = sub_app("service", "Let the system run the daemon: systemd, or WinSW on Windows.")
ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="With [source] it is run; with [service] and [alarms], served."),
]
UserOption = Annotated[bool, typer.Option("--user", help="A service of this account, without root.")]


@service_app.command("install")
def service_install(
    data: DataArgument = DEFAULT_DATA,
    config: ConfigOption = None,
    user: UserOption = False,
    only_print: Annotated[bool, typer.Option("--print", help="Print it, and write nothing.")] = False,
) -> int:
    """Write the description of the service, and say which commands start it."""
    from spheroidd.daemon.system import service_unit

    found = service_unit.describe(data, config, user=user)
    if only_print:
        typer.echo(found.text, nl=False)
        return 0
    service_unit.install(found)
    typer.echo(f"{found.path} is written. Now:")
    for command in found.commands:
        typer.echo(f"  {command}")
    return 0


@service_app.command("uninstall")
def service_uninstall(data: DataArgument = DEFAULT_DATA, user: UserOption = False) -> int:
    """Take the description away, and say which commands end the service. Data and rows stay."""
    from spheroidd.daemon.system import service_unit

    found = service_unit.describe(data, None, user=user)
    if not service_unit.uninstall(found):
        typer.echo(f"{found.path} is not there: nothing is installed")
        return 0
    typer.echo(f"{found.path} is removed. Now:")
    for command in found.undo:
        typer.echo(f"  {command}")
    return 0
