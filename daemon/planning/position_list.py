"""Micro-Manager's position lists (.pos): those of version 1.4, and the property maps of version 2."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.json_text import parse_json
from spheroidd.protocols.plate_format import Point
from spheroidd.protocols.regular_file import read_regular_text

MOST = 100_000
FARTHEST_UM = 1e6  # a metre: no stage under a microscope goes there
_DO = "save the list again from Micro-Manager's Stage Position List"


@dataclass(frozen=True, slots=True)
class Position:
    """Where the stages stood when somebody pressed Mark: the XY stage, and the focus stage where the list has one."""

    label: str
    xy_um: Point
    z_um: float | None


@dataclass(frozen=True, slots=True)
class _Stage:
    name: str
    places_um: tuple[float, ...]


def read_positions(path: Path) -> list[Position]:
    """The list's positions in their order; ConfigError says what of it is no position."""
    try:
        found: Any = parse_json(read_regular_text(path))
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", where=str(path), do="check the path") from error
    except ValueError as error:  # UnicodeDecodeError is one
        raise ConfigError(f"it is no position list: {str(error)[:200]}", where=str(path), do=_DO) from error
    try:
        entries = _entries(found)
        if not 1 <= len(entries) <= MOST:
            raise ConfigError(f"it has {len(entries)} positions", do=f"give a list of 1 to {MOST}")
        return [_position(entry, number) for number, entry in enumerate(entries)]
    except ConfigError as error:
        where = f"{path}, {error.where}" if error.where else str(path)
        raise ConfigError(error.what, where=where, do=error.do) from error


def _entries(found: Any) -> Sequence[Any]:
    if isinstance(found, Mapping):
        if isinstance(found.get("POSITIONS"), list):
            return list(found["POSITIONS"])
        tree = found.get("map")
        listed = tree.get("StagePositions") if isinstance(tree, Mapping) else None
        entries = listed.get("array") if isinstance(listed, Mapping) else None
        if isinstance(entries, list):
            return entries
    raise ConfigError("it is no position list of Micro-Manager 1.4 or 2", do=_DO)


def _position(entry: Any, number: int) -> Position:
    where = f"position {number + 1}"
    if not isinstance(entry, Mapping):
        raise ConfigError("it is no position", where=where, do=_DO)
    new = "DevicePositions" in entry
    names = ("Label", "DefaultXYStage", "DefaultZStage") if new else ("LABEL", "DEFAULT_XY_STAGE", "DEFAULT_Z_STAGE")
    label, xy_name, z_name = (_text(entry.get(name), new=new) for name in names)
    stages = _new_stages(entry) if new else _old_stages(entry)
    xy = _one([stage for stage in stages if len(stage.places_um) == 2], xy_name, "XY stage", where)
    z = _one([stage for stage in stages if len(stage.places_um) == 1], z_name, "focus stage", where)
    if xy is None:
        raise ConfigError("it has no XY stage", where=where, do="tick the XY stage when you save the list")
    return Position(label, (xy.places_um[0], xy.places_um[1]), z.places_um[0] if z else None)


def _one(stages: Sequence[_Stage], name: str, what: str, where: str) -> _Stage | None:
    """The stage that the list calls the default, else the only one; None where there is none."""
    named = [stage for stage in stages if stage.name == name]
    if len(named or stages) > 1:
        listed = " and ".join(stage.name for stage in stages[:3])
        do = "save the list with one of them ticked"
        raise ConfigError(f"{listed} could each be the {what}", where=where, do=do)
    chosen = named or stages
    return chosen[0] if chosen else None


def _new_stages(entry: Mapping[str, Any]) -> list[_Stage]:
    listed = entry["DevicePositions"]
    found = listed.get("array") if isinstance(listed, Mapping) else None
    stages = []
    for one in found if isinstance(found, list) else ():
        place = one.get("Position_um") if isinstance(one, Mapping) else None
        if isinstance(place, Mapping):
            stages.append(_Stage(_text(one.get("Device"), new=True), _numbers(place.get("array"))))
    return stages


def _old_stages(entry: Mapping[str, Any]) -> list[_Stage]:
    """A stage's one axis is called X there, too."""
    stages = []
    devices = entry.get("DEVICES")
    for one in devices if isinstance(devices, list) else ():
        if isinstance(one, Mapping) and one.get("AXES") in (1, 2):
            places = [one.get(axis) for axis in "XY"[: one["AXES"]]]
            stages.append(_Stage(_text(one.get("DEVICE"), new=False), _numbers(places)))
    return stages


def _numbers(given: Any) -> tuple[float, ...]:
    numbers = given if isinstance(given, list) else []
    if not all(
        isinstance(n, int | float) and not isinstance(n, bool) and -FARTHEST_UM <= n <= FARTHEST_UM for n in numbers
    ):
        raise ConfigError(f"{str(given)[:100]} is no place", do=_DO)
    return tuple(float(n) for n in numbers)


def _text(given: Any, *, new: bool) -> str:
    value = given.get("scalar") if new and isinstance(given, Mapping) else given
    return value if isinstance(value, str) else ""
