"""Commands for when something went wrong: alarms, logs, support-bundle."""

from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from spheroidd.daemon.cli.app import DEFAULT_DATA, DataArgument, JsonOption, app

OutOption = Annotated[Path, typer.Option("-o", "--out", metavar="FILE.zip", help="The file to write.")]
ConfigOption = Annotated[Path | None, typer.Option("--config", metavar="FILE", help="Let the preflight check it too.")]
NamesOption = Annotated[bool, typer.Option("--with-names", help="Leave patients' names as they are.")]


@app.command()
def alarms(
    data: DataArgument = DEFAULT_DATA,
    as_json: JsonOption = False,
    test: Annotated[
        Path | None, typer.Option("--test", metavar="CONFIG", help="Send a test to the receivers of [alarms] instead.")
    ] = None,
) -> int:
    """List what a person must know of now. Exit code 1 where there is anything."""
    import json
    from dataclasses import asdict

    if test is not None:
        return _test_receivers(test, data)

    from spheroidd.daemon.catalog.audit_chain import utc
    from spheroidd.daemon.catalog.writer import Catalog
    from spheroidd.daemon.monitoring.alarms import alarms_now

    with Catalog.read_only(data) as catalog:
        found = alarms_now(data, catalog)
    if as_json:
        typer.echo(json.dumps([asdict(alarm) for alarm in found], indent=1))
    for alarm in () if as_json else found:
        typer.echo(f"{alarm.severity:8}  since {utc(alarm.raised_s)}  {alarm.where or alarm.key}: {alarm.what}")
        typer.echo(f"          to do: {alarm.do}")
    if not found and not as_json:
        typer.echo("no alarm stands")
    return int(bool(found))


@app.command()
def logs(
    data: DataArgument = DEFAULT_DATA,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for more until Ctrl-C.")] = False,
    well: Annotated[str | None, typer.Option(metavar="WELL", help="Only lines of this well.")] = None,
    since: Annotated[str | None, typer.Option(metavar="TIME", help='"30m", "2h", "1d", or ISO 8601 (UTC).')] = None,
    as_json: JsonOption = False,
) -> int:
    """Print what the daemon logged, oldest first."""
    import json
    import time

    from spheroidd.daemon.monitoring import log_reader as log_lines
    from spheroidd.protocols.errors import ConfigError

    asked = log_lines.Asked.of(well, since, time.time())
    if not log_lines.log_files(data) and not follow:
        raise ConfigError("there is no log", where=str(data), do="give the directory of a run")
    with suppress(KeyboardInterrupt, BrokenPipeError):
        for line in log_lines.lines(data, asked):
            typer.echo(json.dumps(line, ensure_ascii=False) if as_json else log_lines.in_words(line))
        for line in log_lines.follow(data, asked) if follow else ():
            typer.echo(json.dumps(line, ensure_ascii=False) if as_json else log_lines.in_words(line))
    return 0


@app.command("support-bundle")
def support_bundle(
    data: DataArgument = DEFAULT_DATA,
    out: OutOption = Path("spheroidd-support.zip"),
    config: ConfigOption = None,
    with_names: NamesOption = False,
) -> int:
    """Write one file for whoever helps: versions, settings, status, faults, logs. No images and no secrets."""
    from spheroidd.daemon.monitoring.support_bundle import write_bundle

    for part in write_bundle(data, out, with_names=with_names, config=config):
        typer.echo(f"{part.name:16} {part.holds}")
    typer.echo(f"{out} is written; look at it before you send it")
    return 0


def _test_receivers(config: Path, data: Path) -> int:
    from spheroidd.daemon.monitoring.alarm_test import send_test

    found = send_test(config, data)
    for receiver, refusal in found.items():
        typer.echo(f"{receiver}: {refusal or 'accepted'}")
    return int(any(found.values()))
