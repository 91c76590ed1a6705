"""Which stack of a well counts, where it was imaged more than once.

A well that is imaged again keeps its first images and their row. Of the stacks of one place in the well, a field, one
is current: the one that a person chose, or the newest that has all of its slices; only where none has, the newest of
all. A stack that a person excluded is current only where there is no other, and then its well has no figure that
counts. Only current stacks stand in results, controls, curves, quality, reports, exports and views; every stack stays
in the tables `stacks` and `results`, in the images and in the audit trail.

Stacks are numbered through: with n fields a well's stacks 0 to n-1 are its fields, n to 2n-1 the same fields again.
"""

import sqlite3

from spheroidd.daemon.catalog.rows import Exclusion, stack_key
from spheroidd.protocols.stack import StackKey

_OF_FIELD = "stacks.stack % max(coalesce(plates.n_fields, fewest.n), 1)"
_DECIDED = "('stack excluded', 'stack included', 'stack chosen')"

VIEWS = {
    "stack_decisions": f"""
  SELECT plate, well, json_extract(new_json, '$.stack') AS stack, action, json_extract(new_json, '$.newest') AS newest,
    at_utc, who, reason, seq
  FROM audit WHERE action IN {_DECIDED}""",
    "excluded_stacks": """
  SELECT plate, well, stack, at_utc AS excluded_at_utc, who AS excluded_by, reason AS exclusion_reason
  FROM stack_decisions AS newest
  WHERE action = 'stack excluded' AND seq = (SELECT max(seq) FROM stack_decisions AS one
    WHERE one.plate = newest.plate AND one.well = newest.well AND one.stack = newest.stack)""",
    # A choice holds among the stacks there were when it was made: a later one was imaged because somebody wanted it.
    "current_stacks": f"""
  SELECT plate, well, stack FROM (
    SELECT stacks.plate, stacks.well, stacks.stack, row_number() OVER (
      PARTITION BY stacks.plate, stacks.well, {_OF_FIELD}
      ORDER BY excluded_stacks.plate IS NOT NULL, stacks.state NOT IN ('stored', 'scoring', 'scored'),
        coalesce(stacks.stack > chosen.newest, 0) DESC, coalesce(stacks.stack = chosen.stack, 0) DESC,
        stacks.stack DESC) AS place
    FROM stacks JOIN plates USING (plate)
    JOIN (SELECT plate, min(n) AS n FROM (SELECT plate, well, count(*) AS n FROM stacks GROUP BY plate, well)
      GROUP BY plate) AS fewest USING (plate)
    LEFT JOIN excluded_stacks ON excluded_stacks.plate = stacks.plate AND excluded_stacks.well = stacks.well
      AND excluded_stacks.stack = stacks.stack
    LEFT JOIN stack_decisions AS chosen ON chosen.plate = stacks.plate AND chosen.well = stacks.well
      AND chosen.action = 'stack chosen' AND chosen.seq = (SELECT max(seq) FROM stack_decisions AS one
        WHERE one.plate = stacks.plate AND one.well = stacks.well AND one.action = 'stack chosen'
          AND one.stack % max(coalesce(plates.n_fields, fewest.n), 1) = {_OF_FIELD})
  ) WHERE place = 1""",
}
"""Each view's SELECT by its name. `n_fields` is NULL in catalogs of before: what every well has are its fields."""


def current(connection: sqlite3.Connection, plate: str | None) -> set[StackKey]:
    """The stacks that count, of a plate or of all."""
    rows = connection.execute("SELECT * FROM current_stacks WHERE :plate IS NULL OR plate = :plate", {"plate": plate})
    return {stack_key(row) for row in rows}


def excluded(connection: sqlite3.Connection, plate: str | None) -> dict[StackKey, Exclusion]:
    """The stacks that a person excluded, of a plate or of all."""
    rows = connection.execute("SELECT * FROM excluded_stacks WHERE :plate IS NULL OR plate = :plate", {"plate": plate})
    return {
        stack_key(row): Exclusion(
            row["well"],
            f"stack {row['stack']}: {row['exclusion_reason']}",
            row["excluded_by"],
            row["excluded_at_utc"],
            row["plate"],
        )
        for row in rows
    }


def wells_without(connection: sqlite3.Connection, plate: str) -> dict[str, Exclusion]:
    """The wells of a plate of which every current stack is excluded, by name."""
    out = excluded(connection, plate)
    found: dict[str, Exclusion] = {}
    if not out:
        return found
    keys = sorted(current(connection, plate))
    for key in keys:
        if key in out and all(other in out for other in keys if other.well == key.well):
            found.setdefault(str(key.well), out[key])
    return found
