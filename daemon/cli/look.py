"""Commands that look at what is there: status, results, quality, focus, images, and the preflight."""

from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from spheroidd.daemon.cli.app import DEFAULT_DATA, DataArgument, JsonOption, app, console
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.tables.cells import guarded


@app.command()
def status(
    data: DataArgument = DEFAULT_DATA,
    as_json: JsonOption = False,
    watch: Annotated[bool, typer.Option("--watch", help="Look again every second until Ctrl-C.")] = False,
    address: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Ask this daemon over the network instead.")
    ] = None,
    authority: Annotated[
        Path | None, typer.Option("--ca", metavar="PEM", help="With --address: who signed its certificate.")
    ] = None,
) -> int:
    """Say how the daemon is. Exit code 0: healthy, 1: somebody should look, 3: stopped with work left.

    Without --address it reads what the daemon wrote into the catalog about a second ago.
    """
    from spheroidd.daemon.catalog.reader import CatalogReader
    from spheroidd.daemon.monitoring import status as looking

    if address is not None:
        return _remote_status(address, authority, as_json=as_json, watch=watch)
    with CatalogReader.read_only(data) as catalog:
        found = looking.look(data, catalog, figures=as_json)
        if as_json:
            typer.echo(looking.to_json(found))
        elif watch:
            found = _watch(data, catalog)
        else:
            console().print(looking.to_screen(found))
    return found.exit_code


@app.command()
def results(
    data: DataArgument = DEFAULT_DATA,
    as_json: JsonOption = False,
    csv: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Write CSV.")] = None,
    plate: Annotated[str | None, typer.Option(help="Only this plate.")] = None,
    model: Annotated[str | None, typer.Option(help="Only this model's rows (the start of its sha256).")] = None,
    all_stacks: Annotated[
        bool, typer.Option("--all-stacks", help="Earlier and excluded stacks of a well too, which count nowhere.")
    ] = False,
) -> int:
    """Print a row for every imaged well: viability where there is one, and why where there is none.

    Exit code 1 where somebody should look at a well: it failed, or its trust is check or fail, and nobody excluded it;
    and where a row is not as the daemon wrote it.
    """
    from spheroidd.daemon.analysis import results_table as rows_out
    from spheroidd.daemon.catalog.reader import CatalogReader
    from spheroidd.daemon.verification.read_check import results_altered, told

    with CatalogReader.read_only(data) as catalog, catalog.snapshot():
        if plate is not None and plate not in catalog.plates():
            known = ", ".join(catalog.plates()) or "none"
            raise ConfigError(f"there is no plate {plate!r}", where=str(data), do=f"the plates are: {known}")
        rows = catalog.result_rows(plate, _model_digest(model, catalog.models(plate)), all_stacks=all_stacks)
        altered = results_altered(catalog, plate)
    if as_json:
        typer.echo(rows_out.to_json(rows))
    if csv is not None:
        rows_out.write_csv(rows, csv)
    if not as_json and csv is None:
        screen = console()
        for name in dict.fromkeys(row.result.plate for row in rows):
            screen.print(
                rows_out.results_table(
                    [row for row in rows if row.result.plate == name], f"plate {name}", width=screen.width
                )
            )
    if altered:
        typer.echo(f"spheroidd: NOT as they were written: {told(altered)}\n  To do: see `spheroidd verify`.", err=True)
    return 1 if altered or any(row.to_look_at or row.went_wrong for row in rows) else 0


@app.command()
def doctor(
    config: Annotated[Path | None, typer.Argument(metavar="[CONFIG]", help="Configuration (TOML).")] = None,
    as_json: JsonOption = False,
) -> int:
    """Check before a run: configuration, disk, model, device, clock, source. Exit code 1 where a check fails."""
    from spheroidd.daemon.monitoring import preflight as checking

    checks = checking.examine(config)
    if as_json:
        typer.echo(checking.to_json(checks))
    else:
        console().print(checking.to_screen(checks))
    return checking.exit_code(checks)


def _model_digest(start: str | None, models: list[str]) -> str | None:
    """The one model whose digest starts so."""
    if start is None:
        return None
    found = [digest for digest in models if digest.startswith(start)]
    if len(found) != 1:
        known = ", ".join(digest[:12] for digest in models) or "none"
        raise ConfigError(f"--model {start}: {len(found)} models start so", do=f"the models are: {known}")
    return found[0]


def _remote_status(address: str, authority: Path | None, *, as_json: bool, watch: bool) -> int:
    """The same, told by a daemon itself."""
    from rich.live import Live

    from spheroidd.daemon.monitoring import status as looking
    from spheroidd.daemon.service import status_remote as remote

    with remote.connect(address, authority) as client:
        found = remote.ask(client)
        if as_json:
            typer.echo(looking.to_json(found))
        elif watch:
            with suppress(KeyboardInterrupt), Live(console=console(), auto_refresh=False) as live:
                for found in remote.watch(client):
                    live.update(looking.to_screen(found), refresh=True)
        else:
            console().print(looking.to_screen(found))
    return found.exit_code


def _watch(data: Path, catalog: Any) -> Any:
    """Show the status until Ctrl-C; the last one."""
    import time

    from rich.live import Live

    from spheroidd.daemon.catalog.kept_standings import KeptStandings
    from spheroidd.daemon.monitoring import status as looking

    kept = KeptStandings()
    found = looking.look(data, catalog, kept=kept, figures=False)
    with suppress(KeyboardInterrupt), Live(console=console(), auto_refresh=False) as live:
        while True:
            live.update(looking.to_screen(found), refresh=True)
            time.sleep(1.0)
            found = looking.look(data, catalog, kept=kept, figures=False)
    return found


@app.command()
def quality(
    data: DataArgument = DEFAULT_DATA,
    as_json: JsonOption = False,
    plate: Annotated[str | None, typer.Option(help="Only this plate.")] = None,
    metric: Annotated[str, typer.Option(help="v_control, v_count or v_score.")] = "v_control",
) -> int:
    """Judge each plate and its images. Exit code 0: passes, 1: look at it (warn, unknown), 3: fails."""
    from spheroidd.daemon.analysis import quality_table as quality_screen
    from spheroidd.daemon.analysis.plate_quality import plate_quality
    from spheroidd.daemon.catalog.writer import Catalog

    with Catalog.read_only(data) as catalog:
        names = catalog.plates() if plate is None else [plate]
        if not names:
            raise ConfigError("no plate was ever run here", where=str(data), do="give the directory of a run")
        found = [plate_quality(catalog, name, metric) for name in names]
    if as_json:
        typer.echo(quality_screen.to_json(found))
    else:
        for one in found:
            console().print(quality_screen.to_screen(one))
    return quality_screen.exit_code(found)


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


@app.command()
def frames(
    data: DataArgument = DEFAULT_DATA,
    plate: Annotated[str | None, typer.Option(help="Only this plate.")] = None,
    well: Annotated[str | None, typer.Option(help='Only this well, such as "A01".')] = None,
    stack: Annotated[int | None, typer.Option(help="Only this stack of each well, from 0.")] = None,
    as_json: JsonOption = False,
) -> int:
    """Print a row for every camera image: stage position, exposure, channel, times; docs/schema.md explains them.

    CSV, or with --json an object a line with all that the source said.
    """
    import csv
    import json
    import sys

    from spheroidd.daemon.catalog.reader import CatalogReader
    from spheroidd.protocols.well import WellId

    asked = {"plate": plate, "well": str(WellId.parse(well)) if well else None, "stack": stack}
    writer, n_told = None, 0
    with CatalogReader.read_only(data) as catalog, catalog.snapshot():
        for one in catalog.query(_WITH_FRAMES, asked):  # a stack at a time: a plate has a million images
            for row in catalog.query(_FRAMES, one):
                n_told += 1
                if as_json:
                    said = json.loads(row.pop("metadata_json"))
                    typer.echo(json.dumps({**row, "metadata": said}, allow_nan=False))
                    continue
                if writer is None:
                    writer = csv.DictWriter(sys.stdout, row.keys(), lineterminator="\n")
                    writer.writeheader()
                writer.writerow({k: guarded(v) if isinstance(v, str) else v for k, v in row.items()})
    if not n_told:
        given = ", ".join(f"{name} {value}" for name, value in asked.items() if value is not None) or "any plate"
        raise ConfigError(f"no image of {given} is in the ledger", where=str(data), do="see `spheroidd results`")
    return 0


_WITH_FRAMES = """
SELECT plate, well, stack FROM stacks JOIN plates USING (plate) JOIN wells USING (plate, well)
WHERE n_acked > 0 AND (:plate IS NULL OR plate = :plate) AND (:well IS NULL OR well = :well)
  AND (:stack IS NULL OR stack = :stack)
ORDER BY plates.created_s, plate, wells.ordinal, stack
"""
_FRAMES = """
SELECT * FROM frames_view WHERE plate = :plate AND well = :well AND stack = :stack
ORDER BY z, channel, angle, phase
"""


@app.command("cell-width")
def cell_width(
    data: DataArgument = DEFAULT_DATA,
    as_json: JsonOption = False,
    plate: Annotated[str | None, typer.Option(help="Only this plate.")] = None,
) -> int:
    """Tell how wide cells look to the network, and what to state. Exit code 1: state it, or it cannot be told."""
    from spheroidd.daemon.analysis import cell_width_table as widths
    from spheroidd.daemon.catalog.reader import CatalogReader
    from spheroidd.daemon.scoring.cell_width import stack_widths

    with CatalogReader.read_only(data) as catalog, catalog.snapshot():
        names = catalog.plates() if plate is None else [plate]
        found = {name: stacks for name in names if (stacks := stack_widths(catalog, name))}
    if not found:
        raise ConfigError("no plate was scored here", where=str(data), do="give the directory of a run")
    if as_json:
        typer.echo(widths.to_json(found))
    else:
        for name, stacks in found.items():
            console().print(widths.to_screen(name, stacks))
    return widths.exit_code(found)
