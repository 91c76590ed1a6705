"""The catalog: SQLite's own check, the digest of every row, the audit trail, the ledger's rules, origins of rows."""

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from spheroidd.daemon.catalog import audit_verification, row_digests, scored_from
from spheroidd.daemon.catalog.audit_trail import events
from spheroidd.daemon.catalog.reader import CatalogReader
from spheroidd.daemon.verification.findings import Finding, Kind
from spheroidd.protocols.errors import SpheroiddError

MOST_ROWS = 200  # findings of one sort: beyond these a number says enough


@dataclass(frozen=True, slots=True)
class CatalogState:
    """What the catalog's checks gave: how many rows with a digest and events of the trail, and what is wrong."""

    rows: int
    events: int
    findings: tuple[Finding, ...]

    @property
    def damaged(self) -> bool:
        """Whether nothing more should be written to it."""
        return any(finding.kind.is_damage for finding in self.findings)


def check_catalog(catalog: CatalogReader) -> CatalogState:
    """All of it, at one moment. What cannot be read is a finding, and no exception."""
    found: list[Finding] = []
    counts = {"rows": 0, "events": 0}

    def count() -> Iterator[Finding]:
        counts["rows"] = catalog.query("SELECT coalesce(sum(n), 0) AS n FROM row_digests")[0]["n"]
        counts["events"] = len(events(catalog))
        yield from ()

    checks: tuple[Callable[[], Iterator[Finding]], ...] = (
        lambda: _integrity(catalog),
        lambda: _rows(catalog),
        lambda: _audit(catalog),
        lambda: _ledger(catalog),
        lambda: _origins(catalog),
        count,
    )
    for check in checks:
        try:
            found += check()
        except (sqlite3.Error, SpheroiddError, ValueError, KeyError, TypeError, AttributeError) as error:
            # A damaged file gives wrong types, texts that are no JSON, names that are none: all of that is this.
            finding = Finding(Kind.CATALOG, f"it cannot be read: {error}", path=catalog.path.name)
            found += [] if finding in found else [finding]
    return CatalogState(counts["rows"], counts["events"], tuple(found))


def _integrity(catalog: CatalogReader) -> Iterator[Finding]:
    for row in catalog.query("PRAGMA integrity_check"):
        if row["integrity_check"] != "ok":
            yield Finding(Kind.CATALOG, f"SQLite: {row['integrity_check']}", path=catalog.path.name)
    for row in catalog.query("PRAGMA foreign_key_check"):
        yield Finding(Kind.CATALOG, f"a row of {row['table']} belongs to nothing in {row['parent']}")


def _rows(catalog: CatalogReader) -> Iterator[Finding]:
    if not row_digests.is_sealed(catalog.connection):
        yield Finding(
            Kind.UNSEALED, "rows have no digests: an older program wrote this catalog", path=catalog.path.name
        )
        return
    with catalog.snapshot():
        others = row_digests.other_rows(catalog.connection)
    for other in others[:MOST_ROWS]:
        yield row_finding(other)
    if others[MOST_ROWS:]:
        yield Finding(Kind.ROW, f"{len(others) - MOST_ROWS} more rows are not as they were written")


def row_finding(other: row_digests.OtherRow) -> Finding:
    """What a row that is not as it was written is told as."""
    key = other.key
    at = dict(zip(("plate", "well", "stack"), key, strict=False)) if other.table in _BY_PLACE else {}
    of = "" if len(key) <= len(at) else f" {'/'.join(str(part) for part in key[len(at) :])}"
    return Finding(Kind.ROW, f"{_BY_PLACE.get(other.table, other.table)}{of}: {other.what}", **at)  # type: ignore[arg-type]


_BY_PLACE = {
    "plates": "plate's settings and limits",
    "wells": "plate map",
    "stacks": "stack's plan and state",
    "slices": "ledger of slices",
    "blocks": "blocks",
    "results": "result of model",
    "scored_from": "origin of the result of model",
    "histograms": "histogram of channel",
    "stack_quality": "quality of the images",
    "channel_quality": "quality of channel",
    "mtt_references": "MTT reference",
    "focus": "focus",
}


def _audit(catalog: CatalogReader) -> Iterator[Finding]:
    for problem in audit_verification.verify(catalog).problems:
        yield Finding(Kind.AUDIT, problem)


def _ledger(catalog: CatalogReader) -> Iterator[Finding]:
    with catalog.snapshot():
        for stack in catalog.stacks():
            at = (stack.key.plate, str(stack.key.well), stack.key.stack)
            for problem in catalog.ledger_problems(stack):
                yield Finding(Kind.LEDGER, problem, *at)


def _origins(catalog: CatalogReader) -> Iterator[Finding]:
    """Each row was measured from the images that the ledger has."""
    with catalog.snapshot():
        for plate in catalog.plates():
            for (key, model), origin in scored_from.of_plate(catalog.connection, plate).items():
                if origin.images_sha256 != scored_from.images_digest(catalog.acknowledged(key)):
                    what = f"the result of model {model[:12]} was measured from other images than the ledger has"
                    yield Finding(Kind.ORIGIN, what, plate, str(key.well), key.stack)
