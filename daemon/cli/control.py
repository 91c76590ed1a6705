"""Commands that drive a daemon: serve, submit, start, pause, resume, abort, skip, repeat, next and stop; its rights."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spheroidd.daemon.cli.app import DEFAULT_DATA, DataArgument, JsonOption, app, console, sub_app
from spheroidd.protocols.errors import ConfigError

if TYPE_CHECKING:
    from spheroidd.daemon.service.client import DaemonClient

WellArgument = Annotated[str, typer.Argument(metavar="WELL", help='The well, such as "B03".')]
ReasonOption = Annotated[str, typer.Option(help="Why; it stands in the wells' rows.")]
RepeatReasonOption = Annotated[str, typer.Option(help="Why; it stands in the audit trail.")]
DAY_S = 86_400


@app.command()
def serve(
    data: DataArgument = DEFAULT_DATA,
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="TOML with [service], [alarms], [verification], [data] readable_by."),
    ] = None,
    from_well: Annotated[
        str | None,
        typer.Option(metavar="WELL", help="The first plate begins at this well; those before it come last."),
    ] = None,
) -> int:
    """Wait for plates that are submitted and started over the service, and run them."""
    from spheroidd.daemon.config.service_settings import read_alarms, read_rights, read_settings, read_verification
    from spheroidd.daemon.launch.serve import serve as run_daemon
    from spheroidd.daemon.system.last_data import remember_data
    from spheroidd.protocols.well import WellId

    begin_at = WellId.parse(from_well) if from_well is not None else None
    remember_data(data)
    settings, alarms, readers = read_settings(config), read_alarms(config), read_rights(config).readable_by
    return run_daemon(
        data,
        settings,
        console=console(lasting=True),
        alarms=alarms,
        verification=read_verification(config),
        from_well=begin_at,
        readers=readers,
    )


@app.command()
def submit(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="TOML without [data] and [service].")],
    data: DataArgument = DEFAULT_DATA,
    plate_map: Annotated[
        Path | None, typer.Option("--map", metavar="MAP", help="The plate map: CSV, any text, or xlsx.")
    ] = None,
    plates: Annotated[
        Path | None,
        typer.Option(
            "--plates",
            metavar="TABLE",
            help="Several: a table (CSV, any text, xlsx) with the columns name and map, a plate a row.",
        ),
    ] = None,
    start_it: Annotated[bool, typer.Option("--start", help="Start it as well.")] = False,
) -> int:
    """Hand one or several plates to a daemon that waits for them (`spheroidd serve`); they queue up."""
    from spheroidd.daemon.cli.submission import submissions
    from spheroidd.protocols import spheroidd_pb2 as wire

    if plates is not None and (plate_map is not None or start_it):
        do = "name the maps in the table, and start them by `spheroidd queue start`"
        raise ConfigError("--plates goes without --map and --start", where="submit", do=do)
    given = submissions(config, plate_map, plates)
    with reach(data) as daemon:
        for config_toml, plate_map_csv in given:
            request = wire.SubmitPlateRequest(lease=daemon.lease, config_toml=config_toml, plate_map_csv=plate_map_csv)
            answer = daemon.call(daemon.stub.SubmitPlate, request)
            wells = f", {answer.n_wells} wells to image" if answer.HasField("n_wells") else ""
            typer.echo(f"plate {answer.plate} is submitted{wells}")
    return start(answer.plate, data) if start_it else 0


@app.command()
def start(
    plate: Annotated[str, typer.Argument(metavar="PLATE", help="A plate that was submitted.")],
    data: DataArgument = DEFAULT_DATA,
) -> int:
    """Start a plate that was submitted, or take it up again, alone; `queue start` runs one after the other."""
    return order(data, "StartPlate", plate=plate)


@app.command()
def pause(
    data: DataArgument = DEFAULT_DATA,
    after_well: Annotated[bool, typer.Option("--after-well", help="Image the well under way to its end.")] = False,
) -> int:
    """Pause the plate: close the shutter after the slice in hand. The rest of the stack is taken on resume."""
    return order(data, "PausePlate", when="PAUSE_WHEN_AFTER_WELL" if after_well else "PAUSE_WHEN_NOW")


@app.command()
def resume(data: DataArgument = DEFAULT_DATA) -> int:
    """Go on with a paused plate."""
    return order(data, "ResumePlate")


@app.command()
def abort(data: DataArgument = DEFAULT_DATA, reason: ReasonOption = "") -> int:
    """Take no further slice of the plate. What is stored is still scored."""
    return order(data, "AbortPlate", reason=reason)


@app.command()
def skip(well: WellArgument, data: DataArgument = DEFAULT_DATA, reason: ReasonOption = "") -> int:
    """Leave a well out, or end it where it is."""
    return order(data, "SkipWell", well=well, reason=reason)


@app.command()
def repeat(well: WellArgument, data: DataArgument = DEFAULT_DATA, reason: RepeatReasonOption = "") -> int:
    """Image a well once more, as a further stack. What was imaged before stays."""
    return order(data, "RepeatWell", well=well, reason=reason)


@app.command("next")
def next_wells(
    wells: Annotated[str, typer.Argument(metavar="WELLS", help="The wells in their order, such as B03,C07.")],
    data: DataArgument = DEFAULT_DATA,
) -> int:
    """Image these wells next, in this order. The others follow as they were planned; none is lost."""
    return order(data, "ReorderWells", wells=[well for well in wells.replace(" ", "").split(",") if well])


@app.command()
def stop(data: DataArgument = DEFAULT_DATA) -> int:
    """End the daemon in good order; the plate can be taken up again."""
    return order(data, "StopDaemon")


control_app = sub_app("control", "Reserve the controls, so that nobody else can order anything meanwhile.")


@control_app.command("take")
def control_take(
    data: DataArgument = DEFAULT_DATA,
    holder: Annotated[str, typer.Option(help="Who, for others to see.")] = "",
    minutes: Annotated[float, typer.Option(help="For how long; take it again to renew.")] = 10.0,
    force: Annotated[bool, typer.Option("--force", help="Take them from another (admins).")] = False,
) -> int:
    """Reserve the controls; put what it prints into SPHEROIDD_LEASE."""
    from spheroidd.protocols import spheroidd_pb2 as wire

    with reach(data) as daemon:
        request = wire.TakeControlRequest(holder=holder, duration_s=60 * minutes, lease=daemon.lease, force=force)
        typer.echo(daemon.call(daemon.stub.TakeControl, request).lease)
    return 0


@control_app.command("release")
def control_release(data: DataArgument = DEFAULT_DATA) -> int:
    """Give the controls free (SPHEROIDD_LEASE says which)."""
    from spheroidd.protocols import spheroidd_pb2 as wire

    with reach(data) as daemon:
        daemon.call(daemon.stub.ReleaseControl, wire.ReleaseControlRequest(lease=daemon.lease))
    return 0


token_app = sub_app("token", "Make, list and revoke the tokens of a data directory's service.")


@token_app.command("create")
def token_create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whose it is.")],
    data: DataArgument = DEFAULT_DATA,
    role: Annotated[str, typer.Option(help="viewer, operator or admin.")] = "viewer",
    days: Annotated[float, typer.Option(help="How long it is valid.")] = 90.0,
) -> int:
    """Make a token and print it. It is kept as a hash: nobody can print it again."""
    from spheroidd.daemon.service.tokens import Role, TokenFile

    if not data.is_dir():
        raise ConfigError("there is no such directory", where=str(data), do="give the directory of a run")
    typer.echo(TokenFile(data).create(name, Role.named(role), days * DAY_S))
    return 0


@token_app.command("list")
def token_list(data: DataArgument = DEFAULT_DATA, as_json: JsonOption = False) -> int:
    """Say which tokens there are, without their secrets."""
    import json
    from datetime import UTC, datetime

    from spheroidd.daemon.service.tokens import TokenFile

    tokens = TokenFile(data).tokens()
    if as_json:
        names = ("id", "name", "role", "created_s", "expires_s")
        typer.echo(json.dumps([{name: getattr(token, name) for name in names} for token in tokens], indent=1))
    for token in () if as_json else tokens:
        until = datetime.fromtimestamp(token.expires_s, UTC).strftime("%Y-%m-%d %H:%M UTC")
        typer.echo(f"{token.id}  {token.role:8}  until {until}  {token.name}")
    return 0


@token_app.command("revoke")
def token_revoke(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its name or id.")], data: DataArgument = DEFAULT_DATA
) -> int:
    """Make a token worthless from now on."""
    from spheroidd.daemon.service.tokens import TokenFile

    TokenFile(data).revoke(name)
    return 0


def reach(data: Path) -> "DaemonClient":
    """The daemon of a data directory."""
    from spheroidd.daemon.service.client import DaemonClient

    return DaemonClient.of(data)


def order(data: Path, method: str, **fields: Any) -> int:
    """Order something of the daemon, and print what it did."""
    from spheroidd.protocols import spheroidd_pb2 as wire

    kind = getattr(wire, f"{method}Request")
    with reach(data) as daemon:
        answer = daemon.call(getattr(daemon.stub, method), kind(lease=daemon.lease, **fields))
    typer.echo(f"{answer.done} ({answer.state})")
    return 0
