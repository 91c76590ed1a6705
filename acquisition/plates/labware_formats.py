"""Plate formats by name, from the package `labware` (vendors' drawings as JSON, in metres), or from a file.

The only module that knows that package. It is imported when a plate is first asked for: it takes a fifth of a second.
"""

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.json_text import parse_json
from spheroidd.protocols.plate_format import PlateFormat
from spheroidd.protocols.regular_file import read_regular_text

if TYPE_CHECKING:
    from labware import Labware

UM = 1e6  # micrometres in a metre
SHORT_NAMES = {str(wells): f"SBS_{wells}_well_plate" for wells in (96, 384, 1536)}
"""A number alone names a plate only where ANSI/SLAS 4 fixes the wells' positions: with 6 to 48 wells makes differ."""


@dataclass(frozen=True, slots=True)
class ListedFormat:
    """A plate of the package as a list shows it."""

    name: str
    title: str
    maker: str
    coating: str
    plate: PlateFormat


def plate_format(name: str) -> PlateFormat:
    """The plate of that name in the package, or the standard one of "96", "384" or "1536" wells; else ConfigError.

    Names are taken as the package has them, in upper or lower case, with blanks, "-" or "_" between the words.
    """
    known = _library()
    names = {_plain(given): given for given in known}
    given = names.get(_plain(SHORT_NAMES.get(name.strip(), name)))
    if given is None:
        raise ConfigError(f"there is no plate {name!r}", where="labware", do=_advice(name, known))
    return _format(given, known[given])


def read_plate_format(path: Path) -> PlateFormat:
    """The plate that a JSON file in the package's form describes; ConfigError names what is wrong in it."""
    from labware import Labware
    from pydantic import ValidationError

    try:
        # Of our own accord and not by the model's: the package opens files in the system's encoding.
        found = Labware.model_validate(parse_json(read_regular_text(path)))
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", where=str(path), do="check the path") from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ConfigError(f"not JSON in UTF-8: {error}", where=str(path), do="correct the file") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"])) or "the file"
        do = "write it as the package `labware` does: lengths in metres (labware.v1.schema.json)"
        raise ConfigError(f"{key}: {first['msg']}", where=str(path), do=do) from error
    return _format(path.stem, found)


def listed_formats() -> list[ListedFormat]:
    """Every plate of the package with wells that can be named, by the number of wells and the name."""
    listed = []
    for name, found in _library().items():
        coating = ", ".join(found.well_dimensions.surface_treatments or ())
        listed.append(ListedFormat(name, found.name, found.manufacturer, coating, _format(name, found)))
    return sorted(listed, key=lambda one: (one.plate.n_wells, one.name.lower()))


@cache
def _library() -> "Mapping[str, Labware]":
    from labware import load_labware

    return load_labware()


def _format(name: str, found: "Labware") -> PlateFormat:
    """Metres become micrometres, rounded to the nanometre, which takes the dust off 0.0045 * 1e6."""
    wells, corner, outer = found.well_dimensions, found.alignment_reference, found.outer_plate_dimensions
    rectangle = wells.shape == "rectangle"
    width = wells.width if rectangle and wells.width else wells.diameter
    height = wells.height if rectangle and wells.height else wells.diameter
    return PlateFormat(
        name,
        wells.rows,
        wells.columns,
        (_um(wells.column_pitch or wells.pitch), _um(wells.row_pitch or wells.pitch)),
        (_um(width), _um(height)),
        round_wells=wells.shape in ("circle", "other"),  # of a shape without a name, its largest circle
        a01_from_corner_um=(_um(corner.offset_from_left_edge), _um(corner.offset_from_top_edge)),
        outline_um=(_um(outer.length), _um(outer.width)),
    )


def _um(metres: float) -> float:
    return round(metres * UM, 3)


def _plain(name: str) -> str:
    return name.strip().lower().replace(" ", "_").replace("-", "_").removesuffix(".json")


def _advice(name: str, known: Mapping[str, object]) -> str:
    if name.strip().isdigit():
        alike = [one for one in known if f"_{name.strip()}_well" in one]
        return f"plates with so few wells differ: write one of {', '.join(alike)}" if alike else _LIST
    plain = {_plain(one): one for one in known}
    near = difflib.get_close_matches(_plain(name), plain, n=3, cutoff=0.5)
    return f"write {' or '.join(plain[one] for one in near)}; {_LIST}" if near else _LIST


_LIST = "`spheroidd plan formats` lists them all, and labware_file names a file of your own"
