"""The stacks of the plate at work, and which of them count, remembered by main: asking costs nothing on a large plate.

Only main writes stacks, so what was read once is read again only where the catalog's writer says that it changed, or
that a transaction was taken back. Decisions of persons may come from other processes: they are looked for by number.
"""

from collections import Counter
from collections.abc import Mapping

from spheroidd.daemon.catalog.rows import Exclusion, StackRow, StackState
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.protocols.stack import StackKey
from spheroidd.protocols.well import WellId

OVER = (StackState.FAILED, StackState.INCOMPLETE)
SETTLED = (*OVER, StackState.SCORED)


class PlateStacks:
    """What the catalog says of a plate's stacks; `look` brings it up to date."""

    def __init__(self, catalog: Catalog, plate: str) -> None:
        self._catalog, self._plate = catalog, plate
        self.rows: dict[StackKey, StackRow] = {}
        self.unsettled: set[StackKey] = set()  # something may still come of them
        self.to_score: set[StackKey] = set()  # neither over nor still to be imaged; scored ones are among them
        self.excluded: Mapping[str, Exclusion] = {}  # wells, by name
        self.left_out: Mapping[str, Exclusion] = {}  # and those of which every stack that counts is excluded
        self.current: set[StackKey] = set()
        self.counting: frozenset[StackKey] = frozenset()
        self._in_well: Counter[WellId] = Counter()
        self._cursor, self._rollbacks, self._decision = 0, -1, -1
        self._n_fields = 1
        self.look()

    @property
    def uncounted(self) -> set[StackKey]:
        """The stacks that do not count; see `current_stacks`."""
        return self.rows.keys() - self.counting

    def look(self) -> set[StackKey]:
        """Read what changed; which stacks that were."""
        if self._catalog.rollbacks != self._rollbacks:
            return self._read_all()
        self._cursor, changed = self._catalog.stacks_changed(self._cursor)
        changed = [key for key in changed if key.plate == self._plate]
        new = {key for key in changed if key not in self.rows}
        for key in changed:
            self._put(self._catalog.stack(key))
        decision = self._catalog.last_decision(self._decision)
        if decision != self._decision or any(self._in_well[key.well] > self._n_fields for key in changed):
            self._decision = decision
            self._read_counting()
        elif new:
            self.current |= new
            self.counting |= new
        return set(changed)

    def _read_all(self) -> set[StackKey]:
        self._rollbacks = self._catalog.rollbacks
        self._cursor, _ = self._catalog.stacks_changed(self._cursor)
        self.rows, self.unsettled, self.to_score = {}, set(), set()
        self._in_well.clear()
        for row in self._catalog.stacks(self._plate):
            self._put(row)
        self._n_fields = self._catalog.n_fields(self._plate)
        self._decision = self._catalog.last_decision(0)
        self._read_counting()
        return set(self.rows)

    def _put(self, row: StackRow) -> None:
        if row.key not in self.rows:
            self._in_well[row.key.well] += 1
        self.rows[row.key] = row
        _in(self.unsettled, row.key, row.state not in SETTLED)
        _in(self.to_score, row.key, row.state not in (*OVER, StackState.QUEUED))

    def _read_counting(self) -> None:
        self.current = self._catalog.current_stacks(self._plate)
        self.counting = frozenset(self.current - self._catalog.excluded_stacks(self._plate).keys())
        self.excluded = self._catalog.excluded_wells(self._plate)
        self.left_out = self._catalog.wells_left_out(self._plate)


def _in(found: set[StackKey], key: StackKey, holds: bool) -> None:
    found.add(key) if holds else found.discard(key)
