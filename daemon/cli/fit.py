"""Commands that answer: IC50s out of any table."""

from pathlib import Path
from typing import Annotated

import typer

from spheroidd.daemon.cli.app import JsonOption, app, console


@app.command()
def fit(
    table: Annotated[
        Path, typer.Argument(metavar="TABLE", help="CSV or tab-separated, one row a well, with a header.")
    ],
    dose: Annotated[str, typer.Option(metavar="COL", help="Column of the doses; 0 is an untreated well.")],
    response: Annotated[str, typer.Option(metavar="COL", help="Column of the responses.")],
    by: Annotated[
        list[str] | None, typer.Option(metavar="COL", help="A curve for each value; repeat for more.")
    ] = None,
    increasing: Annotated[bool, typer.Option("--increasing", help="The response rises with the dose.")] = False,
    dose_unit: Annotated[
        str | None,
        typer.Option(metavar="UNIT|COL", help="Unit of the doses, or its column, where the header names none."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="LL.3 (lower plateau 0), LL.4 (else) or LL.5 (asymmetric); with --total LL.2 (else) to LL.4."
        ),
    ] = None,
    control: Annotated[
        list[str] | None,
        typer.Option(metavar="VALUE", help="Marks untreated rows in a --by column or the doses; repeat for more."),
    ] = None,
    full_scale: Annotated[
        float | None, typer.Option(metavar="NUMBER", help="The response that is 100 %; else the upper plateau.")
    ] = None,
    robust: Annotated[bool, typer.Option("--robust", help="Huber's loss: outliers count less.")] = False,
    weight: Annotated[str | None, typer.Option(metavar="COL", help="Column of weights, such as replicates.")] = None,
    total: Annotated[
        str | None, typer.Option(metavar="COL", help="Column of group sizes: responses are counts.")
    ] = None,
    time_zero: Annotated[
        str | None, typer.Option(metavar="COL", help="Column of counts at treatment: fit GR, growth-rate inhibition.")
    ] = None,
    pooled_variance: Annotated[
        bool, typer.Option("--pooled-variance", help="One residual variance for all curves, as in R drc.")
    ] = False,
    as_json: JsonOption = False,
) -> int:
    """Fit dose-response curves of a table: an IC50 with its 95 % limits, or why there is none."""
    from spheroidd.daemon.analysis import curve_table
    from spheroidd.daemon.analysis.fit_table import TableColumns, read_fit_table, table_curves

    marks = tuple(value.strip() for value in control or ())
    columns = TableColumns(dose, response, tuple(by or ()), weight, total, time_zero, marks, dose_unit)
    curves = table_curves(read_fit_table(table), columns)
    options = curve_table.FitOptions(model, increasing, robust, pooled_variance, full_scale)
    fits = curve_table.fit_table(curves, options, where=str(table))
    if as_json:
        typer.echo(curve_table.to_json(curves, fits, full_scale))
    else:
        console().print(curve_table.to_screen(fits, table.name))
    return 0
