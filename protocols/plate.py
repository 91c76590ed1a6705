"""Treatments and the plate map: which well holds which compound, dose, control role and patient.

The plate map's CSV has the columns `well,path[,path_488,path_561],role,compound,dose_um,patient` and, optionally,
`pixel_um,z_step_um`. Paths are needed for replay only and are relative to the map; "/" and "\\" both separate folders,
because maps travel between Windows and Linux. Upper and lower case are one in the header and in roles.
"""

import csv
import math
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType

from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.stack import CHANNELS
from spheroidd.protocols.well import WellId

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class WellRole(StrEnum):
    """What a well is there for."""

    SAMPLE = "sample"
    NEGATIVE_CONTROL = "negative_control"  # untreated
    POSITIVE_CONTROL = "positive_control"  # killed
    EMPTY = "empty"


@dataclass(frozen=True, slots=True)
class Treatment:
    """What was done to a well: its role, the compound, its dose in micromolar, and whose cells they are."""

    role: WellRole
    compound: str | None = None
    dose_um: float | None = None
    patient: str | None = None

    def __post_init__(self) -> None:
        for name in ("compound", "patient"):
            _check_label(name, getattr(self, name))
        if self.dose_um is not None and not (math.isfinite(self.dose_um) and self.dose_um >= 0):
            raise ConfigError(f"dose_um is {self.dose_um}", do="write a dose of 0 or more, in micromolar")
        if self.role is WellRole.SAMPLE and (self.compound is None) != (self.dose_um is None):
            missing = "compound" if self.compound is None else "dose_um"
            raise ConfigError(
                f"a treated sample needs a compound and a dose; {missing} is empty", do=f"write {missing}"
            )


def _check_label(name: str, label: str | None) -> None:
    """A name that a table, a file and a terminal all show as it is."""
    if label is None:
        return
    if not label or label != label.strip() or any(unicodedata.category(c) in ("Cc", "Cs") for c in label):
        raise ConfigError(
            f"{name} is {label!r}", do=f"write {name} without line breaks and outer blanks, or leave it out"
        )


@dataclass(frozen=True, slots=True)
class PlateWell:
    """One row of the plate map. `paths` is keyed by channel ("488", "561") or by "" for one file with all channels."""

    well: WellId
    treatment: Treatment
    paths: Mapping[str, Path] = field(default_factory=lambda: MappingProxyType({}))
    pixel_um: float | None = None
    z_step_um: float | None = None

    def __post_init__(self) -> None:
        if "" in self.paths and len(self.paths) > 1:
            do = "keep path, or path_488 and path_561"
            raise ConfigError("both path and a path per channel are given", where=str(self.well), do=do)
        if not set(self.paths) <= {"", *CHANNELS}:
            raise ConfigError(f"paths are for {sorted(self.paths)}", where=str(self.well), do=f"use {CHANNELS} or ''")
        for name in ("pixel_um", "z_step_um"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ConfigError(
                    f"{name} is {value}", where=str(self.well), do="write a length in micrometres above 0"
                )


@dataclass(frozen=True, slots=True)
class PlateMap:
    """A plate's name and its wells, in the map's order; each well once.

    Iterating gives the wells; `plate_map[WellId.parse("A01")]` gives one.
    """

    name: str
    wells: tuple[PlateWell, ...]

    def __post_init__(self) -> None:
        check_plate_name(self.name)
        seen: set[WellId] = set()
        for entry in self.wells:
            if entry.well in seen:
                raise ConfigError(f"well {entry.well} stands twice in plate {self.name}", do="keep one row for it")
            seen.add(entry.well)
        if not self.wells:
            raise ConfigError(f"plate {self.name} has no wells", do="write at least one row")

    def __iter__(self) -> Iterator[PlateWell]:
        return iter(self.wells)

    def __len__(self) -> int:
        return len(self.wells)

    def __getitem__(self, well: WellId) -> PlateWell:
        for entry in self.wells:
            if entry.well == well:
                return entry
        raise ConfigError(f"plate {self.name} has no well {well}", do="choose one that its plate map names")

    def imaged(self) -> tuple[PlateWell, ...]:
        """The wells to image: all but the empty ones; controls first, so that later wells can be related to them."""
        order = {WellRole.NEGATIVE_CONTROL: 0, WellRole.POSITIVE_CONTROL: 0}
        wells = [entry for entry in self.wells if entry.treatment.role is not WellRole.EMPTY]
        return tuple(sorted(wells, key=lambda entry: order.get(entry.treatment.role, 1)))


def check_plate_name(name: str) -> str:
    """Return a plate name that is also a safe folder name on every system; ConfigError otherwise."""
    if not _NAME.fullmatch(name) or name.endswith(".") or name.split(".")[0].upper() in _WINDOWS_RESERVED:
        raise ConfigError(f"{name!r} is not a plate name", do="use 1 to 64 letters, digits, '-', '_' or '.'")
    return name


_WINDOWS_RESERVED = {"CON", "PRN", "AUX", "NUL", *(f"{d}{n}" for d in ("COM", "LPT") for n in range(1, 10))}

_COLUMNS = (
    "well",
    "path",
    *(f"path_{c}" for c in CHANNELS),
    "role",
    "compound",
    "dose_um",
    "patient",
    "pixel_um",
    "z_step_um",
)


def read_plate_map(path: Path, name: str | None = None) -> PlateMap:
    """Read a plate map CSV; the plate is called `name`, else the file's stem. ConfigError names the line and column."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            _check_header(path, reader.fieldnames or ())
            wells = tuple(_read_row(path, reader.line_num, row) for row in reader if not _is_blank(row))
    except OSError as error:
        raise ConfigError(
            f"cannot read the plate map: {error.strerror}", where=str(path), do="check the path"
        ) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"not a CSV in UTF-8: {error}", where=str(path), do="save the map as CSV (UTF-8)") from error
    try:
        return PlateMap(name or _name_of(path), wells)
    except ConfigError as error:
        raise ConfigError(error.what, where=str(path), do=error.do) from error


def _name_of(path: Path) -> str:
    """The file's stem, as far as a plate may be called that."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", path.stem).lstrip("_.-")[:64].rstrip(".") or "plate"


def _is_blank(row: Mapping[str | None, str | list[str] | None]) -> bool:
    """A line of nothing but commas, as spreadsheets leave behind."""
    return not any(value.strip() for value in row.values() if isinstance(value, str)) and None not in row


def write_plate_map(path: Path, wells: Iterable[PlateWell]) -> None:
    """Write a plate map that `read_plate_map` reads back; paths are written relative to the map where they can be."""
    wells = tuple(wells)
    used = ["well", *(f"path_{k}" if k else "path" for k in dict.fromkeys(k for w in wells for k in w.paths))]
    used += ["role", "compound", "dose_um", "patient"]
    used += [name for name in ("pixel_um", "z_step_um") if any(getattr(w, name) is not None for w in wells)]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(used)
        writer.writerows([_cell(path, entry, column) for column in used] for entry in wells)


def _cell(map_path: Path, entry: PlateWell, column: str) -> str:
    if column == "path" or column.startswith("path_"):
        file = entry.paths.get(column[5:])
        if file is None:
            return ""
        here = map_path.parent
        return (file.relative_to(here) if file.is_relative_to(here) else file).as_posix()
    owner = entry.treatment if hasattr(entry.treatment, column) else entry
    value = getattr(owner, column)
    return "" if value is None else repr(value) if isinstance(value, float) else str(value)


def _check_header(path: Path, found: Iterable[str]) -> None:
    names = [_column(name) for name in found]
    if len(names) == 1 and re.search(r"[;\t]", names[0]):
        raise ConfigError(
            "its columns are not separated by commas", where=f"{path}, line 1", do="save it as CSV (comma)"
        )
    for name in names:
        if name not in _COLUMNS:
            raise ConfigError(f"unknown column {name!r}", where=f"{path}, line 1", do=f"use {', '.join(_COLUMNS)}")
    for name in ("well", "role"):
        if name not in names:
            raise ConfigError(f"the column {name!r} is missing", where=f"{path}, line 1", do=f"add {name}")
    if len(set(names)) < len(names):
        raise ConfigError("a column stands twice", where=f"{path}, line 1", do="keep each column once")


def _column(name: str | None) -> str:
    return (name or "").strip().lower()


def _read_row(path: Path, line: int, row: Mapping[str | None, str | None]) -> PlateWell:
    where = f"{path}, line {line}"
    if None in row:
        raise ConfigError("more cells than columns", where=where, do="quote cells that hold a comma")
    cells = {_column(key): (value or "").strip() for key, value in row.items()}
    try:
        role = WellRole(cells["role"].lower().replace(" ", "_"))
    except ValueError:
        raise ConfigError(f"role is {cells['role']!r}", where=where, do=f"write one of {', '.join(WellRole)}") from None
    dose, pixel, step = (_number(where, cells, name) for name in ("dose_um", "pixel_um", "z_step_um"))
    columns = {"": "path", **{channel: f"path_{channel}" for channel in CHANNELS}}
    paths = {
        key: path.parent / cells[column].replace("\\", "/") for key, column in columns.items() if cells.get(column)
    }
    try:
        treatment = Treatment(role, cells.get("compound") or None, dose, cells.get("patient") or None)
        return PlateWell(WellId.parse(cells["well"]), treatment, MappingProxyType(paths), pixel, step)
    except ConfigError as error:
        raise ConfigError(error.what, where=where, do=error.do) from error


def _number(where: str, cells: Mapping[str, str], column: str) -> float | None:
    text = cells.get(column, "")
    try:
        return float(text.replace("_", "?")) if text else None  # Python alone reads 1_0 as 10
    except ValueError:
        raise ConfigError(f"{column} is {text!r}", where=where, do="write a number with a decimal point") from None
