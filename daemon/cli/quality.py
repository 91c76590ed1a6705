"""The command that judges plates: controls, layout, replicates and the images themselves."""

from typing import Annotated

import typer

from spheroidd.daemon.cli.app import DEFAULT_DATA, DataArgument, JsonOption, app, console
from spheroidd.protocols.errors import ConfigError


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
