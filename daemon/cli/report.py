"""`spheroidd report`, `heatmap`, `export`: a data directory's numbers as a document, a picture, files for others."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from spheroidd.daemon.cli.app import DEFAULT_DATA, DataArgument, app
from spheroidd.protocols.errors import ConfigError


@app.command()
def report(
    data: DataArgument = DEFAULT_DATA,
    out: Annotated[Path, typer.Option("-o", "--out", metavar="FILE", help="HTML file to write.")] = Path("report.html"),
    pdf: Annotated[Path | None, typer.Option("--pdf", metavar="FILE", help="Write a PDF too.")] = None,
    plate: Annotated[str | None, typer.Option(help="Only this plate.")] = None,
    compound_pages: Annotated[
        bool | None,
        typer.Option(
            "--compound-pages/--no-compound-pages",
            help="A page for each compound too, over all patients and plates; by default where a plate has more than 8 "
            "curves.",
        ),
    ] = None,
    who: Annotated[str | None, typer.Option(help="Who reports; without it $SPHEROIDD_USER or this account.")] = None,
) -> int:
    """Write a report: plate maps, controls, dose response, images, quality, provenance. One HTML file, nothing else."""
    if pdf is not None and pdf.absolute() == out.absolute():
        raise ConfigError("HTML and PDF have the same name", where=str(pdf), do="give -o and --pdf different files")
    from spheroidd.daemon.report.writer import write_report

    written = write_report(data, out, pdf, plate=plate, command=_command(), who=who, compound_pages=compound_pages)
    for file in written.files:
        typer.echo(f"{file}: {file.stat().st_size / 1e6:.1f} MB")
    if written.not_recorded:
        typer.echo(f"spheroidd: the report is not in the audit trail: {written.not_recorded}", err=True)
    return _altered(written.altered)


@app.command()
def heatmap(
    data: DataArgument,
    out: Annotated[Path, typer.Option("-o", "--out", metavar="FILE", help="What to write: .svg or .png.")],
    plate: Annotated[str | None, typer.Option(help="Of several plates, which.")] = None,
    metric: Annotated[
        str, typer.Option(help="v_control, v_score, v_count, live_um3, dead_um3, n_live, n_dead.")
    ] = "v_control",
    who: Annotated[str | None, typer.Option(help="Who exports; without it $SPHEROIDD_USER or this account.")] = None,
) -> int:
    """Write a picture of a plate: one figure of each well, as SVG or PNG, and enter it in the audit trail."""
    from spheroidd.daemon.report.writer import write_heatmap

    written = write_heatmap(data, out, plate=plate, metric=metric, who=who)
    typer.echo(out)
    if written.not_recorded:
        typer.echo(f"spheroidd: the picture is not in the audit trail: {written.not_recorded}", err=True)
    return _altered(written.altered)


def _altered(rows: tuple[str, ...]) -> int:
    """Say on stderr that rows are not as they were written; the exit code that follows."""
    if rows:
        from spheroidd.daemon.verification.read_check import told

        words = f"rows of the catalog are not as they were written, and the files say so: {told(rows)}"
        typer.echo(f"spheroidd: {words}\n  To do: `spheroidd verify` says more.", err=True)
    return 1 if rows else 0


def _command() -> str:
    """The command as it was given, so that the report says how to make it again."""
    import shlex

    return shlex.join(["spheroidd", *sys.argv[1:]])


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
    return _altered(done.altered)
