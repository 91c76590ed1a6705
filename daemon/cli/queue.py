"""`spheroidd queue`: the plates that wait for their turn, and what becomes of them."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from spheroidd.daemon.cli.app import DEFAULT_DATA, DataArgument, JsonOption, console, sub_app
from spheroidd.daemon.cli.control import order, reach

if TYPE_CHECKING:
    from rich.table import Table

    from spheroidd.daemon.catalog.plate_queue import QueuedPlate

queue_app = sub_app("queue", "The plates that wait for their turn: look, reorder, edit, hold, remove.")
PlateArgument = Annotated[str, typer.Argument(metavar="PLATE", help="A plate of the queue.")]


@queue_app.command("show")
def show(data: DataArgument = DEFAULT_DATA, as_json: JsonOption = False) -> int:
    """Print what runs, what waits in its order, and what is finished with its verdict. Works without a daemon too."""
    from dataclasses import asdict

    from spheroidd.daemon.catalog.plate_queue import queue_run, queued_plates
    from spheroidd.daemon.catalog.reader import CatalogReader

    with CatalogReader.read_only(data) as catalog:
        plates, run = queued_plates(catalog), queue_run(catalog)
    if as_json:
        typer.echo(json.dumps({"goes_on": run.goes_on, "why": run.why, "plates": [asdict(one) for one in plates]}))
        return 0
    console().print(_table(plates))
    goes = "When a plate has ended, the next one starts." if run.goes_on else "No plate starts by itself."
    typer.echo(goes + (f" ({run.why})" if run.why else ""))
    return 0


@queue_app.command("start")
def start(data: DataArgument = DEFAULT_DATA) -> int:
    """Start the first plate that waits and is not held, and when it has ended the next, until none is left."""
    return order(data, "StartQueue")


@queue_app.command("move")
def move(
    plates: Annotated[str, typer.Argument(metavar="PLATES", help="The plates in their order, such as P9,P7.")],
    data: DataArgument = DEFAULT_DATA,
) -> int:
    """Run these plates next, in this order. The others follow as they were."""
    return order(data, "ArrangeQueue", plates=[one for one in plates.replace(" ", "").split(",") if one])


@queue_app.command("hold")
def hold(plate: PlateArgument, data: DataArgument = DEFAULT_DATA) -> int:
    """Pass a plate over until it is released."""
    return order(data, "HoldPlate", plate=plate, held=True)


@queue_app.command("release")
def release(plate: PlateArgument, data: DataArgument = DEFAULT_DATA) -> int:
    """Let a plate that is held have its turn."""
    return order(data, "HoldPlate", plate=plate, held=False)


@queue_app.command("remove")
def remove(plate: PlateArgument, data: DataArgument = DEFAULT_DATA) -> int:
    """Take a plate out of the queue and forget what was submitted. What was imaged of it stays."""
    return order(data, "RemovePlate", plate=plate)


@queue_app.command("pause")
def pause(data: DataArgument = DEFAULT_DATA) -> int:
    """Start no further plate when the one under way has ended; `queue start` goes on."""
    return order(data, "GoOn", goes_on=False)


@queue_app.command("edit")
def edit(plate: PlateArgument, data: DataArgument = DEFAULT_DATA) -> int:
    """Open what was submitted of a plate in $EDITOR, configuration and map, and hand it in again where it changed."""
    import click

    from spheroidd.protocols import spheroidd_pb2 as wire

    with reach(data) as daemon:
        before = daemon.call(daemon.stub.GetSubmission, wire.GetSubmissionRequest(plate=plate))
        config = click.edit(before.config_toml, extension=".toml") or before.config_toml
        plate_map = before.plate_map_csv and (
            click.edit(before.plate_map_csv, extension=".csv") or before.plate_map_csv
        )
        if (config, plate_map) == (before.config_toml, before.plate_map_csv):
            typer.echo(f"plate {plate} stays as it was")
            return 0
        given = {"lease": daemon.lease, "config_toml": config, "plate_map_csv": plate_map}
        answer = daemon.call(daemon.stub.SubmitPlate, wire.SubmitPlateRequest(**given))
    typer.echo(f"plate {answer.plate} is submitted again")
    return 0


def _table(plates: "list[QueuedPlate]") -> "Table":
    from rich.table import Table

    found = Table(title="Queue", title_justify="left")
    for name in ("", "plate", "state", "wells", "by", "started", "ended", "verdict"):
        found.add_column(name, overflow="fold")
    for place, one in enumerate(plates, start=1):
        state = f"{one.state}, held" if one.held else one.state
        times = [_local(at) for at in (one.started_s, one.ended_s)]
        wells = "" if one.n_wells is None else str(one.n_wells)
        found.add_row(str(place), one.plate, state, wells, one.submitted_by, *times, one.verdict or "")
    return found


def _local(seconds: float | None) -> str:
    """A time as the clock of this computer has it, with how far that is from UTC."""
    from datetime import datetime

    return "" if seconds is None else datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M %z")
