"""What an assay said of a plate's wells, beside what the images say: imported from a plate reader's file, audited.

A second import replaces the first; the trail keeps the hash of both, the file's hash, the block, the blank and the
controls' reading. `audit verify` holds the rows to the newest import's hash.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from spheroidd.daemon.catalog.audit_chain import Action, AuditEvent, sha256_of
from spheroidd.daemon.catalog.lookup import the_plate
from spheroidd.daemon.catalog.reader import CatalogReader
from spheroidd.daemon.catalog.rows import dump
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.inference.viability.mtt import Blank, MttPlate, MttReference, choose_block, relate_to_controls
from spheroidd.inference.viability.plate_reader_files import read_reader_file
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.well import WellId


@dataclass(frozen=True, slots=True)
class Import:
    """What an import wrote: the plate, its references, and the event that tells of it."""

    plate: str
    found: MttPlate
    event: AuditEvent


def import_references(
    data_dir: Path,
    file: Path,
    *,
    plate: str | None = None,
    block: str | None = None,
    blank: Blank | None = None,
    who: str | None = None,
) -> Import:
    """Read a plate reader's file and keep it as the plate's MTT references; an older import is replaced.

    A daemon may run meanwhile: this is one short transaction. ConfigError says what does not fit: the plate, the
    block, the blank, the controls.
    """
    CatalogReader.read_only(data_dir).close()  # says so where nothing was ever run here: opening to write makes one
    blocks = read_reader_file(file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    with Catalog.create_or_open(data_dir) as catalog:
        name = the_plate(catalog, plate)
        plate_map = catalog.plate_map(name)
        excluded = [WellId.parse(well) for well in catalog.excluded_wells(name)]
        chosen = choose_block(blocks, plate_map, block, str(file))
        found = relate_to_controls(chosen, plate_map, blank or Blank(), excluded=excluded, where=str(file))
        facts = {
            "file": file.name,
            "file_sha256": digest,
            "block": found.block,
            "unit": chosen.unit.value,
            "blank_od": found.blank_od,
            "control_od": found.control_od,
            "wavelength_nm": chosen.wavelength_nm,
            "reference_nm": chosen.reference_nm,
        }
        with catalog.transaction():
            event = put_references(catalog, name, found.references, facts, who=who)
    return Import(name, found, event)


def put_references(
    catalog: Catalog,
    plate: str,
    references: tuple[MttReference, ...],
    facts: Mapping[str, Any] = MappingProxyType({}),
    *,
    who: str | None = None,
) -> AuditEvent:
    """Keep these as the plate's references; `facts` about where they come from go into the audit trail."""
    with catalog.transaction():
        old = {"references_sha256": state(catalog, plate)} if references_of(catalog, plate) else None
        new = {"references": len(references), "references_sha256": _digest(references), **facts}
        event = catalog.append_event(Action.REFERENCES_IMPORTED, plate=plate, old=old, new=new, who=who)
        catalog.connection.execute("DELETE FROM mtt_references WHERE plate = ?", (plate,))
        rows = [(plate, str(r.well), r.od, r.viability_percent, r.reason, event.seq) for r in references]
        catalog.connection.executemany("INSERT INTO mtt_references VALUES (?, ?, ?, ?, ?, ?)", rows)
    return event


def references_of(catalog: CatalogReader, plate: str) -> dict[str, MttReference]:
    """A plate's references by well name ("B03"); empty where none were imported."""
    rows = catalog.query("SELECT * FROM mtt_references WHERE plate = :plate ORDER BY well", {"plate": plate})
    return {
        row["well"]: MttReference(WellId.parse(row["well"]), row["od"], row["viability_percent"], row["reason"])
        for row in rows
    }


def state(catalog: CatalogReader, plate: str) -> str:
    """The hash of a plate's references, as the audit trail names it."""
    return _digest(tuple(references_of(catalog, plate).values()))


def _digest(references: tuple[MttReference, ...]) -> str:
    rows = [[str(r.well), r.od, r.viability_percent, r.reason] for r in references]
    return sha256_of(dump(sorted(rows, key=lambda row: str(row[0]))))


def known_references(catalog: CatalogReader, plate: str) -> dict[str, float]:
    """The percentages of the wells that have one; ConfigError where nothing was imported for this plate."""
    found = references_of(catalog, plate)
    if not found:
        do = "import the plate reader's file: spheroidd reference import DATA FILE"
        raise ConfigError(f"plate {plate} has no MTT references", where=str(catalog.path), do=do)
    return {well: r.viability_percent for well, r in found.items() if r.viability_percent is not None}
