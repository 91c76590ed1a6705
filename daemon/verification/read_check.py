"""What a report or an export says of what it read: its rows against their digests, and when images were verified."""

from collections.abc import Sequence
from dataclasses import dataclass

from spheroidd.daemon.catalog import row_digests
from spheroidd.daemon.catalog.reader import CatalogReader
from spheroidd.daemon.catalog.transaction import translated
from spheroidd.daemon.verification.catalog_check import row_finding
from spheroidd.daemon.verification.last_verified import last_verified

_READ = ("plates", "wells", "stacks", "slices", "results", "scored_from", "mtt_references", "channel_quality")
MOST_TOLD = 5


@dataclass(frozen=True, slots=True)
class RowsRead:
    """The rows of a plate that are not as they were written, in words, and what a provenance says of it."""

    rows: str
    images: str
    altered: tuple[str, ...]


def rows_read(catalog: CatalogReader, plate: str) -> RowsRead:
    """Check the rows that a plate's figures come from; call it in the snapshot that they are read in."""
    verified = last_verified(catalog, plate)
    images = "never verified (`spheroidd verify` does it)" if verified is None else str(verified)
    if not row_digests.is_sealed(catalog.connection):
        return RowsRead("not checked: an older program wrote the catalog", images, ())
    with translated(catalog.path):
        others = [other for other in row_digests.other_rows(catalog.connection, _READ) if other.key[0] == plate]
    altered = tuple(str(row_finding(other)) for other in others)
    if not altered:
        return RowsRead("as they were written, each by its digest", images, ())
    return RowsRead(f"NOT as they were written: {told(altered)}", images, altered)


def results_altered(catalog: CatalogReader, plate: str | None) -> tuple[str, ...]:
    """The result rows, of one plate or of all, that are not as the daemon wrote them; call it as `rows_read`."""
    with translated(catalog.path):
        if not row_digests.is_sealed(catalog.connection):
            return ()
        others = row_digests.other_rows(catalog.connection, ("results",))
    return tuple(str(row_finding(other)) for other in others if plate in (None, other.key[0]))


def told(altered: Sequence[str]) -> str:
    """The first of them in one line."""
    more = f"; and {len(altered) - MOST_TOLD} more" if altered[MOST_TOLD:] else ""
    return "; ".join(altered[:MOST_TOLD]) + more
