"""Commands for plate maps: check one before the run, write it in the plain form."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spheroidd.daemon.cli.app import JsonOption, console, sub_app
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.well_imaging import IMAGING_COLUMNS

if TYPE_CHECKING:
    from rich.table import Table

    from spheroidd.protocols.plate import PlateMap, WellRole

_group = sub_app("map", "Plate maps: check one, whatever form it has, or write it as plain CSV.")
MapArgument = Annotated[Path, typer.Argument(metavar="MAP", help="List or grids; CSV, any text, or xlsx.")]
ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", metavar="CONFIG", help="Also against the configuration that it goes with: its limits."),
]
RoleOption = Annotated[
    list[str] | None,
    typer.Option("--role", metavar="WORD=ROLE", help="What a word of the map means; repeat for more."),
]


@_group.command("check")
def check(
    plate_map: MapArgument, role: RoleOption = None, config: ConfigOption = None, as_json: JsonOption = False
) -> int:
    """Read a plate map and say what it holds; exit code 2 with everything that is wrong in it."""
    import json

    from spheroidd.protocols.plate_map.file import read_plate_map

    if config is None:
        found = read_plate_map(plate_map, roles=own_words(role))
    else:
        found = _against(config, plate_map, own_words(role))
    if as_json:
        typer.echo(json.dumps(_summary(found), indent=1, ensure_ascii=False))
        return 0
    screen = console()
    screen.print(picture(found))
    for line in lines(found):
        screen.print(line, highlight=False)
    return 0


def _against(config: Path, plate_map: Path, roles: "dict[str, WellRole]") -> "PlateMap":
    """The map as a run of this configuration would read it; ConfigError also for what its instrument cannot do."""
    from spheroidd.daemon.config.model import load_config
    from spheroidd.daemon.config.source_registry import check_map
    from spheroidd.protocols.plate_map.file import read_plate_map

    settings = load_config(config)
    found = read_plate_map(plate_map, roles={**settings.plate.roles, **roles})
    check_map(settings.source, found)
    return found


@_group.command("convert")
def convert(
    plate_map: MapArgument,
    out: Annotated[Path, typer.Option("-o", "--out", metavar="FILE.csv", help="What to write; must not be there.")],
    role: RoleOption = None,
) -> int:
    """Write a plate map as plain CSV: a row a well, doses in micromolar, the four roles."""
    from spheroidd.protocols.plate_map.file import read_plate_map, write_plate_map

    found = read_plate_map(plate_map, roles=own_words(role))
    if out.exists():
        raise ConfigError("it is there already", where=str(out), do="choose another name")
    try:
        write_plate_map(out, found)
    except OSError as error:
        do = "choose a file that you may write"
        raise ConfigError(f"cannot write it: {error.strerror}", where=str(out), do=do) from error
    typer.echo(f"{out}: {len(found)} wells")
    return 0


def own_words(given: Sequence[str] | None) -> "dict[str, WellRole]":
    """ "staurosporine=positive_control" as a mapping; ConfigError for anything else."""
    from spheroidd.protocols.plate import WellRole

    words = {}
    for text in given or ():
        word, _, role = text.rpartition("=")
        if not word or role not in set(WellRole):
            do = f"write WORD=ROLE with one of {', '.join(WellRole)}"
            raise ConfigError(f"{text!r} maps no word to a role", where="--role", do=do)
        words[word.strip()] = WellRole(role)
    return words


_LETTERS = {"sample": "s", "negative_control": "U", "positive_control": "K", "empty": "."}


def picture(found: "PlateMap") -> "Table":
    """The plate with a letter a well."""
    from rich.table import Table

    from spheroidd.protocols.well import WellId

    roles = {entry.well: _LETTERS[entry.treatment.role.value] for entry in found}
    rows, columns = (1 + max(getattr(well, axis) for well in roles) for axis in ("row", "column"))
    table = Table(title=f"plate {found.name}", box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    for column in range(columns):
        table.add_column(str(column + 1), justify="right")
    for row in range(rows):
        cells = [roles.get(WellId(row, column), "") for column in range(columns)]
        table.add_row(WellId(row, 0).row_name, *cells)
    return table


def lines(found: "PlateMap") -> Iterator[str]:
    """What the plate holds, and what somebody should know of it, in words."""
    counts = Counter(entry.treatment.role.value for entry in found)
    named = {"sample": "treated (s)", "negative_control": "untreated (U)", "positive_control": "killed (K)"}
    yield (
        ", ".join(f"{counts.get(role, 0)} {words}" for role, words in named.items()) + f", {counts['empty']} empty (.)"
    )
    for name, doses in _doses(found).items():
        listed = ", ".join(f"{dose:g}" + (f" (x{n})" if n > 1 else "") for dose, n in sorted(doses.items()))
        yield f"{name}: {listed} uM"
    own = {entry.well: set(entry.imaging.columns) for entry in found if set(entry.imaging.columns)}
    if own:
        columns = ", ".join(column for column in IMAGING_COLUMNS if any(column in said for said in own.values()))
        yield f"{len(own)} wells are imaged in a way of their own: {columns}"
    annotations = {title: None for entry in found for title in entry.annotations if title not in IMAGING_COLUMNS}
    if annotations:
        yield f"Kept as annotations: {', '.join(annotations)}"
    if not counts["negative_control"]:
        yield "Note: no well is untreated, so no well will have a viability in percent of the controls."
    vehicles = {entry.treatment.compound for entry in found if entry.treatment.role.value == "negative_control"}
    if len(vehicles) > 1:
        listed = ", ".join(sorted(name or "nothing" for name in vehicles))
        yield f"Note: untreated wells hold different things and count as one group: {listed}."


def _doses(found: "PlateMap") -> dict[str, Counter[float]]:
    curves: dict[str, Counter[float]] = {}
    for entry in found:
        of = entry.treatment
        if of.role.value == "sample" and of.compound is not None and of.dose_um is not None:
            name = f"{of.patient} / {of.compound}" if of.patient else of.compound
            curves.setdefault(name, Counter())[of.dose_um] += 1
    return curves


def _summary(found: "PlateMap") -> dict[str, object]:
    return {
        "plate": found.name,
        "wells": [
            {
                "well": str(entry.well),
                "role": entry.treatment.role.value,
                "compound": entry.treatment.compound,
                "dose_um": entry.treatment.dose_um,
                "patient": entry.treatment.patient,
                "annotations": dict(entry.annotations),
            }
            for entry in found
        ],
    }
