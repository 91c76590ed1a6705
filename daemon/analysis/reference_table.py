"""MTT references for people and for programs: what an import did, and every well's beside its image's viability."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from spheroidd.daemon.analysis.results_table import UNKNOWN, describe
from spheroidd.daemon.catalog.lookup import the_plate
from spheroidd.daemon.catalog.reader import CatalogReader
from spheroidd.daemon.catalog.references import Import, references_of
from spheroidd.inference.viability.mtt import MttReference
from spheroidd.protocols.plate import Treatment


@dataclass(frozen=True, slots=True)
class ReferenceRow:
    """A well's reference with its treatment and the newest network's v_score, percent."""

    plate: str
    reference: MttReference
    treatment: Treatment
    v_score: float | None


def rows(catalog: CatalogReader, plate: str | None) -> list[ReferenceRow]:
    """Every well of a plate that has a reference or the reason for none; of all plates without a name."""
    plates = [the_plate(catalog, plate)] if plate else catalog.plates()
    found = []
    for name in plates:
        treatments = {str(entry.well): entry.treatment for entry in catalog.plate_map(name)}
        scores = {row.result.well: row.result.v_score for row in reversed(catalog.result_rows(name))}
        for well, reference in references_of(catalog, name).items():
            found.append(ReferenceRow(name, reference, treatments[well], scores.get(well)))
    return found


def to_json(found: Sequence[ReferenceRow]) -> str:
    """A JSON list with one object for each well."""
    return json.dumps([_record(row) for row in found], indent=1, allow_nan=False)


def _record(row: ReferenceRow) -> dict[str, Any]:
    reference = row.reference
    return {
        "plate": row.plate,
        "well": str(reference.well),
        "od": reference.od,
        "viability_percent": reference.viability_percent,
        "reason": reference.reason,
        "v_score_percent": row.v_score,
    }


def to_screen(found: Sequence[ReferenceRow]) -> Table:
    """The wells with their reading, its percentage, and the images' score."""
    table = Table(title=f"{len(found)} MTT references", box=None, pad_edge=False, header_style="bold")
    for name in ("plate", "well", "treatment"):
        table.add_column(name)
    for name in ("OD", "MTT", "V score"):
        table.add_column(name, justify="right")
    table.add_column("reason")
    for row in found:
        one = row.reference
        percent = UNKNOWN if one.viability_percent is None else f"{one.viability_percent:.1f} %"
        score = UNKNOWN if row.v_score is None else f"{row.v_score:.1f} %"
        od = UNKNOWN if one.od is None else f"{one.od:.4f}"
        table.add_row(row.plate, str(one.well), describe(row.treatment), od, percent, score, one.reason or "")
    return table


def import_json(done: Import) -> str:
    """What an import did, as one JSON object."""
    known, missing = _counts(done)
    told = {
        "plate": done.plate,
        "block": done.found.block,
        "blank_od": done.found.blank_od,
        "control_od": done.found.control_od,
        "reference_nm": done.found.reference_nm,
        "blanks": done.found.n_blanks,
        "controls": done.found.n_controls,
        "references": known,
        "missing": missing,
        "audit_event": done.event.seq,
    }
    return json.dumps(told, indent=1, allow_nan=False)


def import_words(done: Import) -> str:
    """The same in a few lines."""
    found, (known, missing) = done.found, _counts(done)
    lines = [f"Plate {done.plate}: {known} MTT references from block {found.block!r} (audit event {done.event.seq})"]
    if found.blank_od is not None:
        blank = f"median of {found.n_blanks} wells" if found.n_blanks else "as given"
        lines.append(
            f"Blank {found.blank_od:.4f} ({blank}), untreated {found.control_od:.4f} (median of {found.n_controls})"
        )
    if found.reference_nm is not None:
        lines.append(f"The reading at {found.reference_nm} nm, the reference wavelength, was subtracted in every well")
    if missing:
        told = ", ".join(f"{well}: {reason}" for well, reason in list(missing.items())[:8])
        lines.append(f"{len(missing)} wells have none: {told}{', ...' if len(missing) > 8 else ''}")
    return "\n".join(lines)


def _counts(done: Import) -> tuple[int, dict[str, str]]:
    missing = {str(one.well): one.reason for one in done.found.references if one.reason is not None}
    return len(done.found.references) - len(missing), missing
