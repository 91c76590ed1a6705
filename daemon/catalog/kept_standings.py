"""How every row stands, kept between one look and the next: only what changed since is read again."""

from collections import Counter
from collections.abc import Collection
from itertools import takewhile

from spheroidd.daemon.catalog.audit_chain import Action
from spheroidd.daemon.catalog.reader import CatalogReader
from spheroidd.daemon.catalog.rows import ResultRow, RowStanding, stack_key
from spheroidd.protocols.results import WellResult
from spheroidd.protocols.stack import StackKey

# Of these the rows themselves say what they changed. Any other event may concern each row.
_OF_ROWS = (
    Action.RESULT_NEW,
    Action.RESULT_CHANGED,
    Action.LIMITS_LOCKED,
    Action.LIMITS_MOVED,
    Action.CELL_WIDTH_FOUND,
    Action.CELL_WIDTH_KEPT,
    Action.EXPORT_WRITTEN,
    Action.REPORT_WRITTEN,
    Action.VERIFIED,
    Action.VIEW_BEGUN,
    Action.VIEW_ENDED,
)
_STACKS = "SELECT plate, well, stack, state, ended, reason, todo, n_slices, n_acked FROM stacks"
_CHANGED = "SELECT id, plate, well, stack FROM result_changes WHERE id > :after"
_NOW = f"""
SELECT (SELECT count(*) FROM plates) AS plates, (SELECT count(*) FROM wells) AS wells,
  (SELECT coalesce(max(seq), 0) FROM audit) AS last,
  (SELECT max(seq) FROM audit WHERE seq > :after
    AND action NOT IN ({", ".join(f"'{action}'" for action in _OF_ROWS)})) AS seq"""


class KeptStandings:
    """`CatalogReader.standings` and `rows_of` for who asks again and again, of one catalog.

    A look costs what changed since the one before, beside one pass over the states of the stacks. What has changed is
    found before it is read, so that a change in between is read now and once more by the next look.
    """

    def __init__(self) -> None:
        self._stacks: list[tuple[object, ...]] = []
        self._counts: tuple[int, int] | None = None
        self._seq, self._change = 0, 0
        self._standings: dict[StackKey, RowStanding] = {}
        self._rows: dict[StackKey, ResultRow] = {}
        self._bare: dict[StackKey, WellResult] = {}
        self._readings = 0
        self._changed: dict[StackKey, int] = {}  # since the last of them; the number of a row's newest change, in order

    @property
    def readings(self) -> int:
        """How often everything was read: in between, no map, no exclusion and no other stack of a well has changed."""
        return self._readings

    def look(self, catalog: CatalogReader) -> list[RowStanding]:
        """What `catalog.standings()` gives."""
        (now,) = catalog.query(_NOW, {"after": self._seq})
        changes = catalog.query(_CHANGED, {"after": self._change})
        stacks = catalog.plain_rows(_STACKS)  # in the order of their keys
        counts = (now["plates"], now["wells"])
        moved = [row for row, before in zip(stacks, self._stacks, strict=False) if row != before]
        changed = {_key(*row[:3]) for row in moved} | {stack_key(row) for row in changes}
        same = now["seq"] is None and counts == self._counts and len(stacks) == len(self._stacks)
        if not same or (changed and not self._alone(catalog, changed, stacks)):
            self._standings = {one.key: one for one in catalog.standings()}
            self._rows.clear()
            self._bare.clear()
            self._readings += 1
            self._changed.clear()
        elif changed:
            self._standings |= {one.key: one for one in catalog.standings(only=changed)}
            for key in changed:
                self._rows.pop(key, None)
                self._bare.pop(key, None)
                number = next(reversed(self._changed.values()), 0) + 1
                self._changed.pop(key, None)
                self._changed[key] = number
        self._stacks, self._counts, self._seq = stacks, counts, now["last"]
        self._change = max((row["id"] for row in changes), default=self._change)
        return list(self._standings.values())

    def rows_of(self, catalog: CatalogReader, keys: Collection[StackKey]) -> list[ResultRow]:
        """What `catalog.rows_of(keys)` gives of keys that the last look found."""
        if missing := [key for key in keys if key not in self._rows]:
            self._rows |= {row.key: row for row in catalog.rows_of(missing)}
        return [self._rows[key] for key in self._standings if key in keys and key in self._rows]

    def rows_of_plate(
        self, catalog: CatalogReader, plate: str, after: int | None = None
    ) -> tuple[int, list[ResultRow]]:
        """What `catalog.rows_under_way(plate)` gives, as of the last look, and a cursor. With `after`, a cursor of the
        same reading, only those rows that changed since.
        """
        keys = self._standings.keys() if after is None else self._changed_since(after)
        cursor = next(reversed(self._changed.values()), 0)
        return cursor, self.rows_told(catalog, [self._standings[key] for key in keys if key.plate == plate])

    def rows_told(self, catalog: CatalogReader, told: Collection[RowStanding]) -> list[ResultRow]:
        """The rows of some of the last look's standings, in their order."""
        if missing := [one.key for one in told if one.key not in self._rows]:
            self._rows |= {row.key: row for row in catalog.rows_of(missing)}
        return [row for one in told if (row := self._rows.get(one.key)) is not None]

    def bare(self, one: RowStanding) -> WellResult:
        """`one.bare` of a standing of the last look."""
        found = self._bare.get(one.key)
        if found is None:
            found = self._bare[one.key] = one.bare
        return found

    def _changed_since(self, after: int) -> list[StackKey]:
        return list(takewhile(lambda key: self._changed[key] > after, reversed(self._changed)))

    def _alone(self, catalog: CatalogReader, changed: set[StackKey], stacks: list[tuple[object, ...]]) -> bool:
        """Whether these change no other row: which stack counts is decided among all that one place has."""
        wells = {(key.plate, str(key.well)) for key in changed}
        in_well = Counter(row[:2] for row in stacks if row[:2] in wells)
        places = {plate: catalog.n_fields(plate) for plate in {key.plate for key in changed}}
        return all(key in self._standings and in_well[key.plate, str(key.well)] <= places[key.plate] for key in changed)


def _key(plate: object, well: object, stack: object) -> StackKey:
    return stack_key({"plate": plate, "well": well, "stack": stack})
