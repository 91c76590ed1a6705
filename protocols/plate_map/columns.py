"""What a plate map's columns, or the titles of its grids, are called, and the unit that a dose column says."""

import difflib
import re
from dataclasses import dataclass

from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.stack import CHANNELS
from spheroidd.protocols.well_imaging import EXPOSURES, IMAGING_COLUMNS

COLUMNS = (
    "well",
    "path",
    *(f"path_{c}" for c in CHANNELS),
    "role",
    "compound",
    "dose_um",
    "patient",
    "pixel_um",
    "z_step_um",
    *IMAGING_COLUMNS,
)
TO_UM = {"fm": 1e-9, "pm": 1e-6, "nm": 1e-3, "um": 1.0, "mm": 1e3, "m": 1e6}  # molar, by their case-folded symbols
_SAME = {
    "well": "wells, well id, wellid, well name, well position, well positions, position, well no",
    "row": "well row",
    "column": "well column, col, well col",
    "role": "type, well type, well role, sample type, content, control type",
    "compound": "drug, substance, compound name, drug name, treatment, molecule, agent",
    "patient": "donor, patient id, donor id, patient no",
}
_NAMES = {name: name for name in (*COLUMNS, "row", "column")} | {
    word: name for name, words in _SAME.items() for word in words.split(", ")
}
_DOSE = r"(?:final |test |drug |compound )?(?:doses?|concentrations?|conc)\b"
_LENGTH = r"(?:(?:pixel|voxel)(?: ?size)?(?: [xy]+)?|z ?-?(?:step|spacing)(?: ?size)?)(?: ?(nm|um|mm|m|px))?"
_LIGHT = r"exposures?(?: ?time)? ?(?:[um]s|msec|s|sec)?(?: ?\d{3})?"
_MASS = r"(?:[munpf]?g|%|iu|u) ?(?:per |/ ?)?(?:[mu]?l)?"


@dataclass(frozen=True, slots=True)
class MapColumn:
    """What a column is: a name of `COLUMNS`, "row", "column", or "" for an annotation.

    `to_um` turns its numbers into micromolar; None for a dose that says no unit, and for everything else.
    """

    title: str
    name: str
    to_um: float | None = None


def read_column(title: str) -> MapColumn:
    """A column by its title; ConfigError where it is nearly a known one, a logarithm, or a dose that is not molar.

    >>> read_column("Dose (nM)").to_um, read_column("Drug").name, read_column("Cell line").name
    (0.001, 'compound', '')
    """
    if title.strip().casefold() in _NAMES:
        name = _NAMES[title.strip().casefold()]
        return MapColumn(title, name, 1.0 if name == "dose_um" else None)
    plain = re.sub(r"[\s_()\[\],:]+|\.(?!\d)", " ", title.casefold().replace("\u00b5", "u").replace("\u03bc", "u"))
    plain = " ".join(plain.split())
    if plain in _NAMES:
        return MapColumn(title, _NAMES[plain])
    if re.match(rf"(log|lg|ln|p)\s?\d* ?({_DOSE})|{_DOSE} log", plain):
        raise ConfigError(f"the column {title!r} holds logarithms", do="write doses as they are, such as dose_um")
    if match := re.fullmatch(rf"{_DOSE}(?: in)? ?(.*)", plain):
        return _dose_column(title, match[1].replace("umol/l", "um").replace("nmol/l", "nm").strip())
    if length := re.fullmatch(_LENGTH, plain):
        name = "z_step_um" if plain.startswith("z") else "pixel_um"
        what = f"the column {title!r} looks like a {'z-step' if name == 'z_step_um' else 'pixel size'}"
        what += f" in {length[1]}" if length[1] else ""
        raise ConfigError(what, do=f"write micrometres, and call it {name}; or give the column another name")
    if re.fullmatch(_LIGHT, plain) and plain != "exposure time":  # that may be the drug's
        do = f"write milliseconds, and call it {', '.join(EXPOSURES.values())}; or give the column another name"
        raise ConfigError(f"the column {title!r} looks like an exposure", do=do)
    near = difflib.get_close_matches(plain, [name for name in _NAMES if len(name) > 3], n=1, cutoff=0.8)
    if near:
        do = f"did you mean {_NAMES[near[0]]}? If not, give the column another name"
        raise ConfigError(f"unknown column {title!r}", do=do)
    return MapColumn(title, "")


def _dose_column(title: str, unit: str) -> MapColumn:
    if not unit:
        return MapColumn(title, "dose_um", None)
    if unit in TO_UM:
        return MapColumn(title, "dose_um", TO_UM[unit])
    if re.fullmatch(_MASS, unit):
        do = "doses are molar: convert them, and call the column dose_um"
        raise ConfigError(f"the column {title!r} is in {unit}", do=do)
    do = "call it dose_um, dose_nm or dose_mm, or give a column that is no dose another name"
    raise ConfigError(f"the unit of the column {title!r} is not known", do=do)


def split_unit(cell: str) -> tuple[str, float] | None:
    """The number of a dose that says its own unit, and what makes it micromolar; None for anything else.

    >>> split_unit("10 nM"), split_unit("3,3\u00b5M"), split_unit("10")
    (('10', 0.001), ('3,3', 1.0), None)
    """
    match = re.fullmatch(r"(.*?[0-9.,])\s*([fpnum\u00b5\u03bc]?)M", cell.strip())
    if not match:
        return None
    return match[1].strip(), TO_UM[match[2].replace("\u00b5", "u").replace("\u03bc", "u") + "m"]
