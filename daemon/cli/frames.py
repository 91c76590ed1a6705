"""`spheroidd frames`: what is known of every camera image."""

from typing import Annotated

import typer

from spheroidd.daemon.cli.app import DEFAULT_DATA, DataArgument, JsonOption, app
from spheroidd.protocols.errors import ConfigError


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
    with CatalogReader.read_only(data) as catalog:
        rows = catalog.query(_FRAMES, asked)
    if not rows:
        given = ", ".join(f"{name} {value}" for name, value in asked.items() if value is not None) or "any plate"
        raise ConfigError(f"no image of {given} is in the ledger", where=str(data), do="see `spheroidd results`")
    if as_json:
        for row in rows:
            said = json.loads(row.pop("metadata_json"))
            typer.echo(json.dumps({**row, "metadata": said}, allow_nan=False))
        return 0
    writer = csv.DictWriter(sys.stdout, rows[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return 0


_FRAMES = """
SELECT frames_view.* FROM frames_view JOIN plates USING (plate) JOIN wells USING (plate, well)
WHERE (:plate IS NULL OR plate = :plate) AND (:well IS NULL OR well = :well) AND (:stack IS NULL OR stack = :stack)
ORDER BY plates.created_s, plate, wells.ordinal, stack, z, channel
"""
