"""What a plate reader wrote: readings per well, and viability in percent of the plate's untreated wells.

A file holds one block or several (plates, wavelengths, repeated readings, groups of samples). A cell that is no number
("Error", "OVRFLW", nothing) is a missing reading with the reader's own word for it; it is never 0. Readings may be
negative: a blank was subtracted already, or the well is as empty as the blank. Nothing is clipped.
"""

import math
import statistics
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.plate import PlateMap, WellRole
from spheroidd.protocols.well import WellId

NOT_READ = "not in the file"
_FRACTION = 2.0  # no assay reads untreated wells as low in percent, and none as high in parts of 1


class Unit(StrEnum):
    """What a block's numbers are."""

    OD = "od"  # optical density, before or after a blank was subtracted
    PERCENT = "percent"  # viability in percent of the untreated wells, computed elsewhere


@dataclass(frozen=True, slots=True)
class ReaderBlock:
    """One table of a reader's file. `missing` holds the wells that it names without a number, and its word for it.

    `wavelength_nm` is the absorbance's, where the file says it. `reference_nm` is a reference wavelength that was
    subtracted from it here; the block stands beside `parts`, the names of the two that it was made of.
    """

    name: str
    unit: Unit
    values: Mapping[WellId, float]
    missing: Mapping[WellId, str]
    wavelength_nm: int | None = None
    reference_nm: int | None = None
    parts: tuple[str, ...] = ()

    def covers(self, wells: Iterable[WellId]) -> bool:
        """Whether it names every one of these wells, with a number or without."""
        return all(well in self.values or well in self.missing for well in wells)


@dataclass(frozen=True, slots=True)
class MttReference:
    """What the assay says of a well: percent of the untreated median, or the reason why it says nothing."""

    well: WellId
    od: float | None
    viability_percent: float | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class MttPlate:
    """A plate's references and what they were computed with (None for percentages that came as such).

    `reference_nm` is the reference wavelength that was subtracted from every reading, in nanometres.
    """

    block: str
    blank_od: float | None
    control_od: float | None
    n_blanks: int
    n_controls: int
    references: tuple[MttReference, ...]
    reference_nm: int | None = None


@dataclass(frozen=True, slots=True)
class Blank:
    """How the blank is known: from these wells, or as a number; by default from the map's empty wells."""

    wells: tuple[WellId, ...] = ()
    od: float | None = None

    @classmethod
    def parse(cls, text: str | None) -> "Blank":
        """ "H11,H12", "0.047", "none" (0: subtracted already), or None for the map's empty wells.

        >>> Blank.parse("none").od, Blank.parse("0.05").od, str(Blank.parse("h1").wells[0])
        (0.0, 0.05, 'H01')
        """
        if text is None:
            return cls()
        if text.strip().lower() == "none":
            return cls(od=0.0)
        try:
            od = float(text)
        except ValueError:
            return cls(wells=tuple(WellId.parse(part) for part in text.split(",")))
        if not math.isfinite(od):
            raise ConfigError(f"the blank is {text!r}", do="give an optical density, wells, or none")
        return cls(od=od)


def choose_block(blocks: Iterable[ReaderBlock], plate_map: PlateMap, name: str | None, where: str) -> ReaderBlock:
    """The block of that name; without a name, the only one that covers every imaged well, or the file's only block.

    Where a reference wavelength was subtracted, that block stands for the two that it was made of.
    ConfigError lists the blocks where none or several could be meant.
    """
    blocks = tuple(blocks)
    known = _listed(f"{block.name!r} ({len(block.values)} wells)" for block in blocks) or "none"
    if name is not None:
        chosen = [block for block in blocks if block.name.lower() == name.strip().lower()]
        if len(chosen) != 1:
            raise ConfigError(f"{len(chosen)} blocks are called {name!r}", where=where, do=f"the blocks are: {known}")
        return chosen[0]
    wells = [entry.well for entry in plate_map.imaged()]
    fitting = [block for block in blocks if block.covers(wells)]
    used = {part for block in fitting for part in block.parts}
    fitting = [block for block in fitting if block.name not in used]
    if not fitting and len(blocks) == 1 and any(blocks[0].covers([well]) for well in wells):
        return blocks[0]  # part of the plate was read: nothing else can be meant, and each well that lacks is told
    if len(fitting) == 1:
        return fitting[0]
    what = f"{len(fitting) or 'no'} blocks cover the wells of plate {plate_map.name}"
    fit = _listed(repr(block.name) for block in fitting)
    do = f"say which with --block: {fit}" if fitting else f"give --block, or the right file; the blocks are: {known}"
    raise ConfigError(what, where=where, do=do)


def _listed(words: Iterable[str], longest: int = 16) -> str:
    words = list(words)
    more = f" and {len(words) - longest} more" if len(words) > longest else ""
    return ", ".join(words[:longest]) + more


def relate_to_controls(
    block: ReaderBlock, plate_map: PlateMap, blank: Blank, *, excluded: Collection[WellId] = (), where: str = ""
) -> MttPlate:
    """Every imaged well in percent: 100 (od - blank) / (median untreated od - blank).

    `excluded` wells are related but are no controls. The blank is the median of its wells. Percentages that came as
    such are taken as they are. ConfigError where no blank or no control can be had, or the controls do not stand out.
    """
    wells = [entry.well for entry in plate_map.imaged()]
    _check_killed(block, plate_map, excluded, where)
    if block.unit is Unit.PERCENT:
        references = tuple(_reference(block, well, block.values.get(well), None) for well in wells)
        _check_percent(block, plate_map, excluded, where)
        return MttPlate(block.name, None, None, 0, 0, _some(references, where))
    blanks = _blanks(block, plate_map, blank, where)
    blank_od = blank.od if blank.od is not None else statistics.median(blanks)
    controls = _controls(block, plate_map, excluded)
    if not controls:
        do = "check the plate map and the block: viability is percent of the untreated wells"
        raise ConfigError(f"block {block.name!r} has no untreated well of plate {plate_map.name}", where=where, do=do)
    control_od = statistics.median(controls)
    span = control_od - blank_od
    if not span > 0:
        what = f"the untreated wells read {control_od:g}, the blank {blank_od:g}"
        raise ConfigError(what, where=where, do="check the block, the plate's orientation and the blank")
    references = tuple(
        _reference(block, well, None if od is None else 100 * (od - blank_od) / span, od)
        for well in wells
        for od in [block.values.get(well)]
    )
    return MttPlate(
        block.name, blank_od, control_od, len(blanks), len(controls), _some(references, where), block.reference_nm
    )


def _controls(
    block: ReaderBlock,
    plate_map: PlateMap,
    excluded: Collection[WellId],
    role: WellRole = WellRole.NEGATIVE_CONTROL,
) -> list[float]:
    wells = {entry.well for entry in plate_map if entry.treatment.role is role}
    return [block.values[well] for well in sorted(wells - set(excluded)) if well in block.values]


def _check_killed(block: ReaderBlock, plate_map: PlateMap, excluded: Collection[WellId], where: str) -> None:
    """Dead cells reduce nothing: where they read as much as untreated ones, the plate lay turned, or it is another."""
    untreated = _controls(block, plate_map, excluded)
    killed = _controls(block, plate_map, excluded, WellRole.POSITIVE_CONTROL)
    if untreated and killed and statistics.median(killed) >= statistics.median(untreated):
        what = (
            f"the killed wells read {statistics.median(killed):g}, the untreated ones {statistics.median(untreated):g}"
        )
        raise ConfigError(what, where=where, do="check the plate's orientation in the reader, the block and the map")


def _check_percent(block: ReaderBlock, plate_map: PlateMap, excluded: Collection[WellId], where: str) -> None:
    """Percent of the untreated wells is about 100 in those wells; about 1 there means that fractions were given."""
    controls = _controls(block, plate_map, excluded)
    if controls and statistics.median(controls) <= _FRACTION:
        what = f"the untreated wells have {statistics.median(controls):g} percent, where 100 is expected"
        raise ConfigError(what, where=where, do="give percent, not fractions, of the untreated wells")


def _blanks(block: ReaderBlock, plate_map: PlateMap, blank: Blank, where: str) -> list[float]:
    if blank.od is not None:
        return []
    empty = [entry.well for entry in plate_map if entry.treatment.role is WellRole.EMPTY]
    values = [block.values[well] for well in blank.wells or empty if well in block.values]
    if not values:
        named = ", ".join(map(str, blank.wells)) or "the map has no empty well that was read"
        do = "give --blank: wells without cells (H11,H12), an optical density, or none where it is subtracted already"
        raise ConfigError(f"there is no reading of a blank ({named})", where=where, do=do)
    return values


def _reference(block: ReaderBlock, well: WellId, percent: float | None, od: float | None) -> MttReference:
    reason = None if percent is not None else block.missing.get(well, NOT_READ) or "empty cell"
    return MttReference(well, od, percent, reason)


def _some(references: tuple[MttReference, ...], where: str) -> tuple[MttReference, ...]:
    if all(reference.viability_percent is None for reference in references):
        do = "check the block and the plate map: they have no well in common that was read"
        raise ConfigError("no imaged well has a reading", where=where, do=do)
    return references
