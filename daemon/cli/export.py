"""`spheroidd export`: a data directory's numbers for other programs."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from spheroidd.daemon.cli.app import DataArgument, app


class FormatChoice(StrEnum):
    """What --format takes."""

    CSV = "csv"
    PARQUET = "parquet"
    PZFX = "pzfx"
    MIHCSME = "mihcsme"
    ALL = "all"


@app.command()
def export(
    data: DataArgument,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Directory to write to.")],
    formats: Annotated[
        list[FormatChoice] | None,
        typer.Option("--format", help="Tables as csv or parquet, GraphPad Prism, MIHCSME metadata; may be repeated."),
    ] = None,
    plate: Annotated[str | None, typer.Option(help="Only this plate.")] = None,
    metric: Annotated[str, typer.Option(help="Of the curves: v_control, v_score or v_count.")] = "v_control",
    who: Annotated[str | None, typer.Option(help="Who exports; without it $SPHEROIDD_USER or this account.")] = None,
) -> int:
    """Write wells, curves and metadata as files, and enter them in the audit trail."""
    from spheroidd.daemon.export import writer as exporting

    chosen = formats or [FormatChoice.CSV]
    every = FormatChoice.ALL in chosen
    wanted = list(exporting.Format) if every else [exporting.Format(one.value) for one in dict.fromkeys(chosen)]
    done = exporting.export(data, out, formats=wanted, plate=plate, metric=metric, who=who)
    for file in done.files:
        typer.echo(file)
    typer.echo(f"audit head {done.head}")
    return 0
