"""When a plate was last verified: an event in the audit trail, so that a report can say it and nobody can forge it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spheroidd.daemon.catalog.audit_chain import Action
from spheroidd.daemon.catalog.connection import CATALOG_NAME
from spheroidd.daemon.catalog.reader import CatalogReader
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.verification.findings import Kind, Report
from spheroidd.protocols.errors import SpheroiddError

MOST_TOLD = 20  # findings in words in an event: the report of the pass has them all
_OF_CATALOG = (Kind.CATALOG, Kind.ROW, Kind.AUDIT, Kind.LEDGER)


@dataclass(frozen=True, slots=True)
class Verified:
    """The newest pass over a plate. `slices` were acknowledged then; `slices_now` are by now."""

    at_utc: str
    who: str
    by: str  # "verify" or "scrub"
    slices: int
    slices_now: int
    damage: int
    findings: int
    told: tuple[str, ...]

    def __str__(self) -> str:
        found = "intact" if not self.findings else f"{self.damage} damaged, {self.findings - self.damage} to look at"
        since = "" if self.slices == self.slices_now else f"; {self.slices_now - self.slices} slices arrived since"
        return f"{self.at_utc} by {self.who} ({self.by}): {self.slices} slices, {found}{since}"


def last_verified(catalog: CatalogReader, plate: str) -> Verified | None:
    """The newest pass over a plate; None where there was none."""
    rows = catalog.query(_NEWEST, {"plate": plate, "action": Action.VERIFIED.value})
    if not rows:
        return None
    new = json.loads(rows[0]["new_json"])
    now = catalog.query("SELECT count(*) AS n FROM slices WHERE plate = :plate", {"plate": plate})[0]["n"]
    return Verified(
        rows[0]["at_utc"],
        rows[0]["who"],
        new["by"],
        new["slices"],
        now,
        new["damage"],
        new["findings"],
        tuple(new["told"]),
    )


def record(
    catalog: Catalog, report: Report, by: str, who: str | None = None, slices: Mapping[str, int] | None = None
) -> None:
    """Enter a pass into the trail, an event for each plate, in one short transaction.

    `slices` says how many of each plate were verified; without it all that are acknowledged.
    """
    with catalog.transaction():
        for plate in catalog.plates() if slices is None else slices:
            told = _told(catalog, plate, report, by)
            told |= {} if slices is None else {"slices": slices[plate]}
            catalog.append_event(Action.VERIFIED, plate=plate, new=told, who=who)


def _told(catalog: CatalogReader, plate: str, report: Report, by: str) -> dict[str, Any]:
    mine = [finding for finding in report.findings if finding.plate in (plate, None)]
    return {
        "by": by,
        "slices": catalog.query("SELECT count(*) AS n FROM slices WHERE plate = :plate", {"plate": plate})[0]["n"],
        "damage": sum(finding.kind.is_damage for finding in mine),
        "findings": len(mine),
        "deep": report.deep,
        "told": [str(finding) for finding in mine[:MOST_TOLD]],
    }


def record_beside(data_dir: Path, report: Report, who: str | None = None) -> str:
    """The same beside a daemon, where it is safe to write; else why nothing was written, in words, and "" where it was.

    A catalog that is damaged is left as it is: a write might make it worse.
    """
    if (refusal := not_to_be_written(report)) is not None:
        return f"this pass is not in the audit trail: {refusal}"
    try:
        with Catalog.create_or_open(data_dir) as catalog:
            record(catalog, report, "verify", who)
    except SpheroiddError as error:
        return f"this pass is not in the audit trail: {error.what}"
    return ""


def not_to_be_written(report: Report) -> str | None:
    """Why nothing should be written to a catalog in which this was found; None where it may be."""
    if any(finding.kind in _OF_CATALOG for finding in report.findings):
        return f"{CATALOG_NAME} is damaged, and is left as it is"
    if any(finding.kind is Kind.UNSEALED for finding in report.findings):
        return f"an older program wrote {CATALOG_NAME}"
    return None


_NEWEST = """SELECT at_utc, who, new_json FROM audit WHERE plate = :plate AND action = :action
ORDER BY seq DESC LIMIT 1"""
