"""The catalog's rows of a plate's wells: the map as columns, back as a map's wells, and what differs between two."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from spheroidd.daemon.catalog.rows import annotations, dump, treatment
from spheroidd.protocols.plate import PlateMap, PlateWell
from spheroidd.protocols.well import WellId

_TREATMENT = ("role", "compound", "dose_um", "patient")


def well_rows(plate_map: PlateMap) -> list[dict[str, object]]:
    """A map as rows, which keep its order; paths become absolute."""
    return [well_row(plate_map.name, ordinal, entry) for ordinal, entry in enumerate(plate_map)]


def plate_well(row: Mapping[str, Any]) -> PlateWell:
    """The inverse of `well_rows`, for one of them."""
    paths = MappingProxyType({channel: Path(path) for channel, path in json.loads(row["paths_json"]).items()})
    well, pixel_um, z_step_um = WellId.parse(row["well"]), row["pixel_um"], row["z_step_um"]
    return PlateWell(well, treatment(row), paths, pixel_um, z_step_um, annotations(row))


def same_treatments(known: Iterable[Mapping[str, Any]], given: Iterable[Mapping[str, Any]]) -> bool:
    """Whether two plates' rows are the same wells with the same treatments: then `map_differences` finds none."""
    one, other = ({tuple(row[name] for name in ("well", *_TREATMENT)) for row in rows} for rows in (known, given))
    return one == other


def map_differences(known: PlateMap, given: PlateMap) -> list[str]:
    """What differs between two maps of a plate, in words: wells and their treatments, not paths or voxels."""
    old = {entry.well: entry.treatment for entry in known}
    new = {entry.well: entry.treatment for entry in given}
    differences = [f"{well} is gone" for well in sorted(old.keys() - new.keys())]
    differences += [f"{well} is new" for well in sorted(new.keys() - old.keys())]
    differences += [
        f"{well}: {name} {getattr(old[well], name)} -> {getattr(new[well], name)}"
        for well in sorted(old.keys() & new.keys())
        for name in _TREATMENT
        if getattr(old[well], name) != getattr(new[well], name)
    ]
    return differences


def annotation_differences(known: PlateMap, given: PlateMap) -> list[str]:
    """What differs in the further columns of two maps, in words; of wells that both have."""
    old = {entry.well: entry.annotations for entry in known}
    return [
        f"{entry.well}: {name} {was.get(name)} -> {entry.annotations.get(name)}"
        for entry in given
        for was in [old.get(entry.well, entry.annotations)]
        for name in dict.fromkeys((*was, *entry.annotations))
        if was.get(name) != entry.annotations.get(name)
    ]


def well_row(plate: str, ordinal: int, entry: PlateWell) -> dict[str, object]:
    """One of them."""
    return {
        "plate": plate,
        "well": str(entry.well),
        "ordinal": ordinal,
        "role": entry.treatment.role.value,
        "compound": entry.treatment.compound,
        "dose_um": entry.treatment.dose_um,
        "patient": entry.treatment.patient,
        "paths_json": dump({channel: str(path.absolute()) for channel, path in entry.paths.items()}),
        "pixel_um": entry.pixel_um,
        "z_step_um": entry.z_step_um,
        "annotations_json": dump(dict(entry.annotations)) if entry.annotations else None,
    }
