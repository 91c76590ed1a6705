"""Treatments and the plate map: which well holds which compound, dose, control role and patient."""

import math
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType

from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.stack import CHANNELS
from spheroidd.protocols.well import WellId
from spheroidd.protocols.well_imaging import WellImaging

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
    """One row of the plate map. `paths` is keyed by channel ("488", "561") or by "" for one file with all channels.

    `annotations` are the map's further columns by their names: kept, and understood by nobody. Those that say how the
    well is imaged stand among them as they were written; `imaging` is what they mean to a source.
    """

    well: WellId
    treatment: Treatment
    paths: Mapping[str, Path] = field(default_factory=lambda: MappingProxyType({}))
    pixel_um: float | None = None
    z_step_um: float | None = None
    annotations: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    imaging: WellImaging = field(default_factory=WellImaging)

    def __post_init__(self) -> None:
        check_paths(self.paths, str(self.well))
        for name in ("pixel_um", "z_step_um"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ConfigError(
                    f"{name} is {value}", where=str(self.well), do="write a length in micrometres above 0"
                )


def check_paths(paths: Mapping[str, Path], where: str = "") -> None:
    """ConfigError where a well's files are given for both channels at once and each by itself, or for no channel."""
    if "" in paths and len(paths) > 1:
        do = "keep path, or path_488 and path_561"
        raise ConfigError("both path and a path per channel are given", where=where, do=do)
    if not set(paths) <= {"", *CHANNELS}:
        raise ConfigError(f"paths are for {sorted(paths)}", where=where, do=f"use {CHANNELS} or ''")


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
