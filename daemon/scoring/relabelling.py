"""A plate map that was wrong, corrected after the run: `spheroidd relabel`.

What a well holds (role, compound, dose, patient) is changed in the catalog, with an event for each well that keeps the
old label, and every row is related anew to the controls as they are labelled now; curves, quality and reports follow,
because they are read from there. Images and measurements stay as they are. Limits that rest on controls follow, and
rows that were scored with others are provisional until `spheroidd score`.
"""

import contextlib
import json
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from spheroidd.acquisition.store import ngff
from spheroidd.acquisition.store.image_folder import images_root
from spheroidd.acquisition.store.tables import write_conditions
from spheroidd.daemon.catalog.audit_chain import Action, AuditEvent, given_reason
from spheroidd.daemon.catalog.audit_trail import events
from spheroidd.daemon.catalog.lookup import the_plate
from spheroidd.daemon.catalog.map_files import other_files
from spheroidd.daemon.catalog.plate_rows import annotation_differences, map_differences
from spheroidd.daemon.catalog.reader import CatalogReader
from spheroidd.daemon.catalog.references import put_references, references_of
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.scoring.exclusions import alone, relating
from spheroidd.daemon.scoring.limits_of_plate import CONTROLS, follow_labels
from spheroidd.inference.viability.mtt import MttReference, Unit
from spheroidd.protocols.errors import ConfigError, MissingError
from spheroidd.protocols.plate import PlateMap, Treatment, WellRole
from spheroidd.protocols.plate_map.file import read_plate_map
from spheroidd.protocols.well import WellId

IMPORT_AGAIN = "the plate was relabelled since: import the plate reader's file again"


@dataclass(frozen=True, slots=True)
class Relabelled:
    """What was changed, in words; what a person should know; and the event (None for a look without a change)."""

    plate: str
    changes: tuple[str, ...]
    notes: tuple[str, ...]
    event: AuditEvent | None


def relabel(
    data_dir: Path,
    map_file: Path,
    reason: str,
    *,
    plate: str | None = None,
    who: str | None = None,
    dry_run: bool = False,
) -> Relabelled:
    """Give a plate's wells the labels of a corrected map and relate its rows anew; all of it in one transaction.

    ConfigError where the map leaves wells out or changes nothing, there is no reason, or a daemon has the directory.
    """
    CatalogReader.read_only(data_dir).close()  # says so where nothing was ever run here: opening to write makes one
    why = given_reason(reason)
    with contextlib.ExitStack() as held:
        if not alone(held, data_dir):
            do = "stop it first: it relates rows to the map that it began with"
            raise ConfigError("a daemon runs on this data directory", where=str(data_dir), do=do)
        catalog = held.enter_context(Catalog.create_or_open(data_dir))
        name = the_plate(catalog, plate)
        words = dict(json.loads(catalog.plate_config(name)).get("plate", {}).get("roles", {}))
        roles = {word: WellRole(role) for word, role in words.items()}
        return relabel_open(
            data_dir, catalog, read_plate_map(map_file, name, roles), why, str(map_file), who=who, dry_run=dry_run
        )


def relabel_well(
    data_dir: Path, catalog: Catalog, plate: str, well: WellId, treatment: Treatment, reason: str, *, who: str
) -> Relabelled:
    """The same for one well, for whoever holds the data directory's lock and runs no plate."""
    old = catalog.plate_map(plate)
    if well not in {entry.well for entry in old}:
        raise MissingError(f"plate {plate} has no well {well}", do="choose one of its plate map")
    entries = tuple(replace(entry, treatment=treatment) if entry.well == well else entry for entry in old)
    new = PlateMap(old.name, entries)
    return relabel_open(data_dir, catalog, new, given_reason(reason), f"well {well}", who=who)


def relabel_open(
    data_dir: Path,
    catalog: Catalog,
    new: PlateMap,
    why: str,
    where: str,
    *,
    who: str | None = None,
    dry_run: bool = False,
) -> Relabelled:
    """The same with a map that was read and a catalog that is open; `where` is what errors name."""
    name = new.name
    old = catalog.plate_map(name)
    _check_files(catalog, old, new, where)
    changes = _changes(old, new, where)
    notes = _notes(catalog, old, new)
    if dry_run:
        return Relabelled(name, changes, tuple(notes), None)
    with catalog.transaction():
        event = catalog.relabel_wells(new, why, who=who)
        _relate_references(catalog, name, old, new, who)
        if _rests_on_controls(catalog, old, new):
            notes.append(_limits_note(catalog, new, why))
        scheduler = relating(catalog, name)
        if scheduler is not None:
            scheduler.relate_again(f"plate relabelled: {why}")
    ngff.write_treatments(images_root(data_dir), new)
    write_conditions(images_root(data_dir), new)
    return Relabelled(name, changes, tuple(notes), event)


def _check_files(catalog: CatalogReader, old: PlateMap, new: PlateMap, where: str) -> None:
    """A label says what is in a well; which images it has was settled when they were stored."""
    stored = {row.key.well for row in catalog.stacks(new.name) if row.n_slices_acked}
    for well, before, path in other_files(old, new, stored):
        what = f"{well} was imaged from {before}, and the map names {path}"
        do = "give each well its own file; where the files were mixed up, replay them under another plate name"
        raise ConfigError(what, where=where, do=do)


def _changes(old: PlateMap, new: PlateMap, where: str) -> tuple[str, ...]:
    gone = sorted({entry.well for entry in old} - {entry.well for entry in new})
    if gone:
        listed = ", ".join(map(str, gone[:8])) + (", ..." if gone[8:] else "")
        do = "give the whole map; a well that holds nothing has the role empty"
        raise ConfigError(f"it leaves out wells of plate {old.name}: {listed}", where=where, do=do)
    changes = [*map_differences(old, new), *annotation_differences(old, new)]
    if not changes:
        do = "check that this is the corrected file: nothing was changed"
        raise ConfigError(f"it says of every well what plate {old.name} says already", where=where, do=do)
    return tuple(changes)


def _notes(catalog: CatalogReader, old: PlateMap, new: PlateMap) -> list[str]:
    """What does not follow by itself."""
    notes = []
    if references_of(catalog, old.name) and not _blank_is_known(old, new):
        notes.append(f"the MTT references rest on other blanks now: {IMPORT_AGAIN}")
    return notes


def _rests_on_controls(catalog: CatalogReader, old: PlateMap, new: PlateMap) -> bool:
    """The plate has limits, and other controls than it had."""
    if catalog.locked_limits(old.name) is None:
        return False
    return any(_wells(old, role) != _wells(new, role) for role in CONTROLS)


def _limits_note(catalog: Catalog, new: PlateMap, why: str) -> str:
    """Let the limits follow the labels, and say what that means for the rows."""
    before = catalog.locked_limits(new.name)
    if not follow_labels(catalog, new, f"plate relabelled: {why}"):
        said = "the intensity limits stay those that were locked from the control wells as they were labelled"
        return f"{said}; run the images again under another plate name (spheroidd replay) for others"
    if catalog.locked_limits(new.name) == before:
        return "the intensity limits come out as they were"
    return "the intensity limits follow the new controls: rows are provisional until `spheroidd score`"


def _wells(plate_map: PlateMap, *roles: WellRole) -> set[str]:
    return {str(entry.well) for entry in plate_map if entry.treatment.role in roles}


def _blank_is_known(old: PlateMap, new: PlateMap) -> bool:
    return _wells(old, WellRole.EMPTY) == _wells(new, WellRole.EMPTY)


def _relate_references(catalog: Catalog, plate: str, old: PlateMap, new: PlateMap, who: str | None) -> None:
    """MTT references are percent of the untreated wells too. Where the blank may be another one, none is known."""
    found = references_of(catalog, plate)
    facts = _import_of(catalog, plate)
    if not found or facts.get("unit") != Unit.OD.value:
        return
    if not _blank_is_known(old, new):
        related = tuple(_unknown(one) for one in found.values())
    elif _wells(old, WellRole.NEGATIVE_CONTROL) == _wells(new, WellRole.NEGATIVE_CONTROL):
        return
    else:
        out = catalog.wells_left_out(plate)
        controls = [
            one.od
            for well in sorted(_wells(new, WellRole.NEGATIVE_CONTROL) - out.keys())
            if (one := found.get(well)) is not None and one.od is not None
        ]
        blank = float(facts["blank_od"])
        span = statistics.median(controls) - blank if controls else 0.0
        related = tuple(_percent(one, blank, span) if span > 0 else _unknown(one) for one in found.values())
        facts = {**facts, "control_od": statistics.median(controls) if controls else None}
    put_references(catalog, plate, related, {**facts, "relabelled": True}, who=who)


def _import_of(catalog: CatalogReader, plate: str) -> Mapping[str, Any]:
    """What the newest import of references said of its file."""
    told = [event for event in events(catalog, plate=plate) if event.action == Action.REFERENCES_IMPORTED]
    new = json.loads(told[-1].new_json or "{}") if told else {}
    return {name: value for name, value in new.items() if name not in ("references", "references_sha256")}


def _percent(one: MttReference, blank: float, span: float) -> MttReference:
    if one.od is None:
        return one
    return MttReference(one.well, one.od, 100 * (one.od - blank) / span, None)


def _unknown(one: MttReference) -> MttReference:
    return MttReference(one.well, one.od, None, one.reason or IMPORT_AGAIN)
