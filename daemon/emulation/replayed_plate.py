"""A plate that was run before, as a recording that can be replayed; and the faults it is to be replayed with."""

import tomllib
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from spheroidd.acquisition.images.raw_stack import is_stored_raw
from spheroidd.acquisition.store import ngff
from spheroidd.acquisition.store.kept_raw import was_dropped
from spheroidd.daemon.catalog.reader import CatalogReader
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.plate import PlateMap
from spheroidd.protocols.plate_map.file import write_plate_map
from spheroidd.protocols.regular_file import read_regular_text
from spheroidd.protocols.stack import StackKey
from spheroidd.protocols.toml_text import parse_toml
from spheroidd.protocols.well import WellId


def map_of_run(recorded: Path, data: Path, plate: str | None = None) -> Path:
    """Write a plate map into `data`, called as the plate, whose paths lead to the stacks that a run has stored.

    To their raw frames where it kept some.

    Of a well with several stacks the last whole one is meant. ConfigError where several plates were run and none is
    named, or where a run would be replayed into itself.
    """
    if recorded.resolve() == data.resolve():
        do = "name another directory"
        raise ConfigError("a run cannot be replayed into its own data directory", where=str(data), do=do)
    plate_map, stacks = stored_stacks(recorded, plate)
    name = plate_map.name
    wells = [
        replace(entry, paths=_path(recorded, stacks.get(entry.well, StackKey(name, entry.well)), raw=True))
        for entry in plate_map
    ]
    try:
        data.mkdir(parents=True, exist_ok=True)
        write_plate_map(path := data / f"{name}.csv", wells)
    except OSError as error:
        do = "choose a directory you may write to"
        raise ConfigError(f"cannot write the plate map: {error.strerror}", where=str(data), do=do) from error
    return path


def recorded_map(recorded: Path, plate: str | None = None) -> PlateMap:
    """The map of a plate that was run, its paths those of the stacks that it has stored whole; ConfigError as above."""
    plate_map, stacks = stored_stacks(recorded, plate, whole=True)
    none = MappingProxyType[str, Path]({})
    wells = tuple(
        replace(entry, paths=_path(recorded, stacks[entry.well]) if entry.well in stacks else none)
        for entry in plate_map
    )
    return PlateMap(plate_map.name, wells)


def stored_stacks(
    recorded: Path, plate: str | None = None, *, whole: bool = False
) -> tuple[PlateMap, dict[WellId, StackKey]]:
    """A run's plate map and the last stack of each well, the last whole one where there is one.

    ConfigError where several plates were run and none is named.
    """
    with CatalogReader.read_only(recorded) as catalog:
        names = catalog.plates()
        name = names[0] if len(names) == 1 else plate
        if name is None or name not in names:
            do = f"name one with --name: {', '.join(names) or 'there is none'}"
            raise ConfigError(f"{len(names)} plates were run here", where=str(recorded), do=do)
        plate_map, rows = catalog.plate_map(name), catalog.stacks(name)
    stacks = sorted(rows, key=lambda row: (row.complete, row.key.stack))
    return PlateMap(name, plate_map.wells), {row.key.well: row.key for row in stacks if row.complete or not whole}


def _path(recorded: Path, key: StackKey, *, raw: bool = False) -> MappingProxyType[str, Path]:
    """Where a stored stack lies: with `raw` its raw frames, where they were kept."""
    frames = ngff.raw_path(recorded.resolve(), key)
    kept = raw and is_stored_raw(frames) and not was_dropped(frames)
    return MappingProxyType({"": frames if kept else ngff.image_path(recorded.resolve(), key)})


def read_faults(path: Path) -> Any:
    """The list `faults` of a TOML file; what stands in it is checked with the source's settings."""
    try:
        found = parse_toml(read_regular_text(path))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(
            f"cannot be read: {error}", where=str(path), do="write a TOML file with [[faults]]"
        ) from error
    if set(found) != {"faults"}:
        do = "write [[faults]] and nothing beside them"
        raise ConfigError(f"it holds {sorted(found) or 'nothing'}", where=str(path), do=do)
    return found["faults"]
