"""Plate maps as labs have them: a list (a row a well) or grids (a picture of the plate for each variable).

Text or workbook, see `tables.sheets`. A list has the columns
`well,path[,path_488,path_561],role,compound,dose_um,patient` and, optionally, `pixel_um,z_step_um` and how each well
is imaged (`well_imaging`); a grid's title names its variable. Paths are needed for replay only and are relative to
the map; "/" and "\\" both separate folders, because maps travel between Windows and Linux. Other columns are kept as
annotations. Whatever is wrong is told at once, each with its line.
"""

import csv
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.plate import PlateMap, PlateWell, Treatment, WellRole, check_paths
from spheroidd.protocols.plate_map.columns import TO_UM, MapColumn, split_unit
from spheroidd.protocols.plate_map.role_words import RoleWords
from spheroidd.protocols.plate_map.tables import MapTable, Record, map_tables
from spheroidd.protocols.stack import CHANNELS, LARGEST_UM, SMALLEST_UM
from spheroidd.protocols.tables.cells import guarded
from spheroidd.protocols.tables.numbers import NumberStyle, number_style
from spheroidd.protocols.tables.sheets import Sheet, read_sheets
from spheroidd.protocols.well import WellId
from spheroidd.protocols.well_imaging import IMAGING_COLUMNS, imaging_faults, imaging_of

Made = TypeVar("Made")
_MOST_TOLD = 40
_LENGTHS = ("pixel_um", "z_step_um")
_NUMBERS = ("dose_um", *_LENGTHS, *IMAGING_COLUMNS)


def read_plate_map(path: Path, name: str | None = None, roles: Mapping[str, WellRole] | None = None) -> PlateMap:
    """Read a plate map; the plate is called `name`, else the file's stem. `roles` are a lab's own words for roles.

    ConfigError names everything that is wrong, each with its line and column.
    """
    try:
        sheets = read_sheets(path)
    except ConfigError as error:
        raise ConfigError(f"cannot read the plate map: {error.what}", where=error.where, do=error.do) from error
    return _understood(path, sheets, name, tuple((roles or {}).items()))


@lru_cache(maxsize=2)  # a run's map is read to check it, and again to run it: 0.2 s of 1,536 wells each time
def _understood(
    path: Path, sheets: tuple[Sheet, ...], name: str | None, roles: tuple[tuple[str, WellRole], ...]
) -> PlateMap:
    """What the cells of a map mean."""
    faults: list[ConfigError] = []
    table = map_tables(path, sheets, faults)
    _raise(path, faults)
    wells = _wells(path, table, RoleWords(dict(roles)), faults)
    _raise(path, faults)
    try:
        return PlateMap(name or _name_of(path), wells)
    except ConfigError as error:
        raise ConfigError(error.what, where=str(path), do=error.do) from error


def _raise(path: Path, faults: Sequence[ConfigError]) -> None:
    if len(faults) == 1:
        raise faults[0]
    if faults:
        told = [f"\n  {fault.where.removeprefix(f'{path}, ')}: {fault.what}; {fault.do}" for fault in faults]
        more = [f"\n  and {len(told) - _MOST_TOLD} more"] if len(told) > _MOST_TOLD else []
        what = f"{len(told)} things are wrong in it:{''.join([*told[:_MOST_TOLD], *more])}"
        raise ConfigError(what, where=str(path), do="correct them; `spheroidd map check` looks again")


def _name_of(path: Path) -> str:
    """The file's stem, as far as a plate may be called that."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", path.stem).lstrip("_.-")[:64].rstrip(".") or "plate"


def _wells(path: Path, table: MapTable, words: RoleWords, faults: list[ConfigError]) -> tuple[PlateWell, ...]:
    numbers = {name: _numbers(table, name, faults) for name in _NUMBERS}
    _check_second_doses(table, numbers["dose_um"], faults)
    wells: list[PlateWell] = []
    seen: dict[WellId, Record] = {}
    for n, record in enumerate(table.records):
        entry = _well(path, record, {name: found[n] for name, found in numbers.items()}, words, seen, faults)
        if entry is not None:
            wells.append(entry)
    _check_untreated(wells, seen, faults)
    for name in ("compound", "patient"):
        _check_spelling(name, [getattr(well.treatment, name) for well in wells], table.where, faults)
    return tuple(wells)


def _check_spelling(name: str, said: Sequence[str | None], where: str, faults: list[ConfigError]) -> None:
    """One name in two spellings would be two compounds, with half of a curve each."""
    spellings: dict[str, dict[str, None]] = {}
    for text in filter(None, said):
        spellings.setdefault(" ".join(text.casefold().split()), {})[text] = None
    for known in spellings.values():
        if len(known) > 1:
            listed = " and ".join(map(repr, list(known)[:3]))
            what = f"{name} is {listed}, which differ only in their letters' case or blanks"
            faults.append(ConfigError(what, where=where, do="write it the same everywhere"))


def _check_second_doses(table: MapTable, doses: Sequence[float | None], faults: list[ConfigError]) -> None:
    """Another column that says the dose as well must say the same."""
    for column in table.further:
        if column.name != "dose_um" or column.to_um is None:
            continue
        cells = [_known(record.annotations.get(column.title, ""), _NO_NUMBER) for record in table.records]
        first, again = table.columns["dose_um"].title, _column_numbers(table, column, cells, faults)
        for record, dose, other in zip(table.records, doses, again, strict=True):
            if dose is None or other is None or dose is _UNREAD or other is _UNREAD:
                continue
            if not math.isclose(dose, other, rel_tol=0.01):
                what = f"{first!r} says {dose:g} uM and {column.title!r} says {other:g} uM"
                faults.append(ConfigError(what, where=record.where, do="correct one of the two, or take it out"))


def _check_untreated(wells: Sequence[PlateWell], records: Mapping[WellId, Record], faults: list[ConfigError]) -> None:
    """An untreated well holds no dose of what other wells are treated with: one of the two is a slip."""
    given = {w.treatment.compound for w in wells if w.treatment.role is WellRole.SAMPLE and w.treatment.dose_um}
    for entry in wells:
        said = entry.treatment
        if said.role is WellRole.NEGATIVE_CONTROL and said.dose_um and said.compound in given:
            what = f"well {entry.well} is untreated and holds {said.dose_um:g} uM of {said.compound}, as samples do"
            do = "write the role sample, or leave its compound and dose empty"
            faults.append(ConfigError(what, where=records[entry.well].where, do=do))


def _well(
    path: Path,
    record: Record,
    own: Mapping[str, float | None],
    words: RoleWords,
    seen: dict[WellId, Record],
    faults: list[ConfigError],
) -> PlateWell | None:
    """A record's well, noted in `seen`; None where anything of it is wrong, all of which is told."""
    cells = {name: text if name in _NAMES else _known(text) for name, text in record.cells.items()}
    numbers = {name: None if value is _UNREAD else value for name, value in own.items()}
    wrong = [*imaging_faults(numbers), *_length_faults(numbers)]

    def tried(make: Callable[[], Made]) -> Made | None:
        try:
            return make()
        except ConfigError as error:
            wrong.append(error)
            return None

    well = tried(lambda: WellId.parse(cells["well"]))
    if well is not None and seen.setdefault(well, record) is not record:
        wrong.append(ConfigError(f"well {well} stands twice", do="keep one row for it"))
    treatment = tried(lambda: _treatment(cells, own["dose_um"], words))
    paths = tried(lambda: _paths(path, cells))
    faults += (ConfigError(one.what, where=record.where, do=one.do) for one in wrong)
    unread = any(value is _UNREAD for value in own.values())  # told already
    if wrong or unread or well is None or treatment is None or paths is None:
        return None
    imaging = imaging_of(numbers)
    noted = {title: text for title, text in record.annotations.items() if text}
    noted |= {name: cells[name] for name in imaging.columns}
    lengths = (numbers["pixel_um"], numbers["z_step_um"])
    return PlateWell(well, treatment, paths, *lengths, MappingProxyType(noted), imaging)


def _paths(path: Path, cells: Mapping[str, str]) -> Mapping[str, Path]:
    """A well's files by channel."""
    columns = {"": "path", **{channel: f"path_{channel}" for channel in CHANNELS}}
    paths = {
        key: path.parent / cells[column].replace("\\", "/") for key, column in columns.items() if cells.get(column)
    }
    check_paths(paths)
    return MappingProxyType(paths)


def _length_faults(numbers: Mapping[str, float | None]) -> Iterator[ConfigError]:
    """Lengths that no stack may have."""
    for name in _LENGTHS:
        value = numbers[name]
        if value is not None and not SMALLEST_UM <= value <= LARGEST_UM:
            do = f"write a length in micrometres, {SMALLEST_UM:g} to {LARGEST_UM:.0f}"
            yield ConfigError(f"{name} is {value:g}", do=do)


def _treatment(cells: Mapping[str, str], dose: float | None, words: RoleWords) -> Treatment:
    """What was done to a well; of one whose dose could not be read only the role's word is looked at."""
    word, compound, patient = cells.get("role", ""), cells.get("compound") or None, cells.get("patient") or None
    if dose is _UNREAD:
        return Treatment(words.role(word) if word else WellRole.EMPTY, patient=patient)
    role, compound = _role(word, compound, dose, words)
    return Treatment(role, compound, dose, patient)


def _role(word: str, compound: str | None, dose: float | None, words: RoleWords) -> tuple[WellRole, str | None]:
    """The role, and the compound unless it only said the role: what a role column says, else what the rest says."""
    said = words.find(compound) if compound else None
    if word:
        role = words.role(word)
        if {role, said} == {WellRole.NEGATIVE_CONTROL, WellRole.POSITIVE_CONTROL}:
            what = f"its role {word!r} is {role}, and its compound {compound!r} is one of a {said}"
            raise ConfigError(what, do="correct one of the two, or leave the compound empty")
        return role, compound
    if said is WellRole.EMPTY:
        return said, None
    if said is not None and said is not WellRole.SAMPLE:
        return said, compound
    if compound and dose:
        return WellRole.SAMPLE, compound
    if compound and dose == 0:
        do = "write its role: negative_control where dose 0 is an untreated well, else sample"
        raise ConfigError(f"{compound} at dose 0 has no role", do=do)
    return words.role(word), compound


_UNREAD = float("nan")
_NAMES = ("well", "path", *(f"path_{channel}" for channel in CHANNELS))
_NO_WORD = ("na", "n/a", "#n/a", "nan")  # R, pandas and workbooks write so where a cell is empty
_NO_NUMBER = (*_NO_WORD, "-", "\u2013", "none", "null", ".")


def _known(text: str, missing: Sequence[str] = _NO_WORD) -> str:
    return "" if text.strip().casefold() in missing else text


def _numbers(table: MapTable, name: str, faults: list[ConfigError]) -> list[float | None]:
    """A column's numbers in its own unit's terms, None for an empty cell; what cannot be read is told and `_UNREAD`."""
    column = table.columns.get(name)
    if column is None:
        return [None] * len(table.records)
    cells = [_known(record.cells.get(name, ""), _NO_NUMBER) for record in table.records]
    return _column_numbers(table, column, cells, faults)


def _column_numbers(
    table: MapTable, column: MapColumn, cells: list[str], faults: list[ConfigError]
) -> list[float | None]:
    factors = [1.0 if column.to_um is None else column.to_um] * len(cells)
    if column.name == "dose_um" and column.to_um is None:
        split = [split_unit(cell) if cell else None for cell in cells]
        if any(cell and part is None and not _is_zero(cell) for cell, part in zip(cells, split, strict=True)):
            what = f"the column {column.title!r} says no unit"
            do = f"call it dose_um (micromolar), or one of {', '.join(f'dose_{unit}' for unit in TO_UM)}"
            faults.append(ConfigError(what, where=table.where, do=do))
            return [_UNREAD] * len(cells)
        factors = [part[1] if part else 1.0 for part in split]
        cells = [part[0] if part else cell for part, cell in zip(split, cells, strict=True)]
    try:
        style = number_style(cells, column=column.title, line=lambda i: table.records[i].where, points=table.points)
    except ConfigError as error:
        faults.append(error)
        return [_UNREAD] * len(cells)
    return [
        _number(column, table.records[n], cell, factors[n], style, faults) if cell else None
        for n, cell in enumerate(cells)
    ]


def _is_zero(cell: str) -> bool:
    return re.fullmatch(r"0*([.,]0*)?", cell) is not None


def _number(
    column: MapColumn, record: Record, cell: str, factor: float, style: NumberStyle, faults: list[ConfigError]
) -> float:
    value = style.read(cell)
    if value is None:
        do = "write a number with a decimal point"
        faults.append(ConfigError(f"{column.title} is {cell!r}", where=record.where, do=do))
        return _UNREAD
    return value if factor == 1.0 else float(f"{value * factor:.12g}")  # 300 nM are .3 uM, not .30000000000000004


def write_plate_map(path: Path, wells: Iterable[PlateWell]) -> None:
    """Write a list that `read_plate_map` reads back, CSV in UTF-8; paths are relative to the map where they can be."""
    wells = tuple(wells)
    used = ["well", *(f"path_{k}" if k else "path" for k in dict.fromkeys(k for w in wells for k in w.paths))]
    used += ["role", "compound", "dose_um", "patient"]
    used += [name for name in _LENGTHS if any(getattr(w, name) is not None for w in wells)]
    more = list(dict.fromkeys(title for w in wells for title in w.annotations))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(map(guarded, [*used, *more]))
        for entry in wells:
            cells = [_cell(path, entry, column) for column in used]
            cells += [entry.annotations.get(title, "") for title in more]
            writer.writerow(map(guarded, cells))


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
