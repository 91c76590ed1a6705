"""The plates that came to their end, each with a verdict in one line: the outbox of the notices that say so."""

from dataclasses import dataclass

from spheroidd.daemon.catalog.reader import CatalogReader
from spheroidd.daemon.catalog.writer import Catalog


@dataclass(frozen=True, slots=True)
class PlateEnd:
    """One end of a plate; it has several where it was run again and a row changed."""

    id: int
    plate: str
    began_s: float
    ended_s: float
    verdict: str


def record_end(catalog: Catalog, plate: str, verdict: str, began_s: float, ended_s: float) -> None:
    """Write an end down; nothing where no row of the plate has changed since its last one."""
    values = {"plate": plate, "verdict": verdict, "began": began_s, "ended": ended_s}
    with catalog.transaction():
        catalog.connection.execute(_RECORD, values)


def next_end(catalog: CatalogReader, after: int, since_s: float) -> PlateEnd | None:
    """The oldest end after one of this number, not older than `since_s`; None where there is none."""
    sql = """SELECT id, plate, began_s, ended_s, verdict FROM plate_ends
        WHERE id > :after AND ended_s >= :since ORDER BY id LIMIT 1"""
    rows = catalog.query(sql, {"after": after, "since": since_s})
    return PlateEnd(**rows[0]) if rows else None


_RECORD = """
INSERT INTO plate_ends (plate, began_s, ended_s, verdict, change)
SELECT :plate, :began, :ended, :verdict, change
FROM (SELECT coalesce(max(id), 0) AS change FROM result_changes WHERE plate = :plate)
WHERE change > (SELECT coalesce(max(change), -1) FROM plate_ends WHERE plate = :plate)
"""
