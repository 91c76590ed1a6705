"""The catalog's rows of structured illumination: patterns as they were found, and how each slice was made.

`Catalog.put_patterns` and `put_sim_slices`, `CatalogReader.sim_patterns` and `sim_slices` call them.
"""

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache
from typing import TYPE_CHECKING

from spheroidd.daemon.catalog.rows import dump, parameters, stack_key
from spheroidd.protocols.sim_pattern import PatternEstimate, SliceModulation
from spheroidd.protocols.stack import StackKey

if TYPE_CHECKING:
    from pydantic import TypeAdapter

GIVEN = "given_patterns"  # key of a plate's configuration as it is kept
SCHEMA = """
CREATE TABLE sim_patterns (
  plate TEXT NOT NULL,
  well TEXT NOT NULL,
  stack INTEGER NOT NULL,
  channel TEXT NOT NULL,
  usable INTEGER NOT NULL,
  verdict TEXT NOT NULL,
  estimate_json TEXT NOT NULL,
  estimated_s REAL NOT NULL,
  PRIMARY KEY (plate, well, stack, channel),
  FOREIGN KEY (plate, well, stack) REFERENCES stacks
) STRICT, WITHOUT ROWID;
CREATE TABLE sim_slices (
  plate TEXT NOT NULL,
  well TEXT NOT NULL,
  stack INTEGER NOT NULL,
  slices_json TEXT NOT NULL,
  made_s REAL NOT NULL,
  PRIMARY KEY (plate, well, stack),
  FOREIGN KEY (plate, well, stack) REFERENCES stacks
) STRICT, WITHOUT ROWID;
"""


@cache
def _slices() -> "TypeAdapter[tuple[SliceModulation, ...]]":
    from pydantic import TypeAdapter  # `spheroidd status` reads no patterns

    return TypeAdapter(tuple[SliceModulation, ...])


def put_patterns(
    connection: sqlite3.Connection, key: StackKey, found: Mapping[str, PatternEstimate], now_s: float
) -> None:
    """Keep what a stack says of its patterns, inside the caller's transaction; the first that was kept stays."""
    for channel, one in found.items():
        values = {"channel": channel, "usable": one.usable, "verdict": one.verdict, "estimate": one.to_json()}
        connection.execute(_PUT_PATTERN, {**parameters(key), **values, "now": now_s})


def patterns(connection: sqlite3.Connection, plate: str) -> dict[StackKey, dict[str, PatternEstimate]]:
    """By stack and channel, in the order in which they were found."""
    found: dict[StackKey, dict[str, PatternEstimate]] = {}
    sql = "SELECT * FROM sim_patterns WHERE plate = ? ORDER BY estimated_s, well, stack, channel"
    for row in connection.execute(sql, (plate,)):
        found.setdefault(stack_key(row), {})[row["channel"]] = PatternEstimate.from_json(row["estimate_json"])
    return found


def with_given(config_json: str, given: Mapping[str, PatternEstimate]) -> str:
    """A plate's configuration with the patterns that it names: their files may be gone when the plate is scored."""
    found = json.loads(config_json)
    return json.dumps({**found, GIVEN: {channel: asdict(one) for channel, one in given.items()}})


def given(config_json: str) -> dict[str, PatternEstimate]:
    """The patterns in a plate's configuration, by channel."""
    found = json.loads(config_json).get(GIVEN, {})
    return {channel: PatternEstimate.from_json(json.dumps(one)) for channel, one in found.items()}


def put_slices(connection: sqlite3.Connection, key: StackKey, made: Sequence[SliceModulation], now_s: float) -> None:
    """Keep how a stack's slices were made, inside the caller's transaction; another replaces it."""
    values = {"slices": dump([asdict(one) for one in made]), "now": now_s}
    connection.execute(_PUT_SLICES, {**parameters(key), **values})


def slices(
    connection: sqlite3.Connection, plate: str, key: StackKey | None = None
) -> dict[StackKey, tuple[SliceModulation, ...]]:
    """How each slice of a plate's stacks, or of one of them, was made; one without raw frames is not among them."""
    sql = "SELECT * FROM sim_slices WHERE plate = :plate"
    values: dict[str, str | int] = {"plate": plate}
    if key is not None:
        sql, values = f"{sql} AND well = :well AND stack = :stack", parameters(key)
    rows = connection.execute(sql, values)
    return {stack_key(row): _slices().validate_python(json.loads(row["slices_json"])) for row in rows}


def is_widefield(connection: sqlite3.Connection, key: StackKey) -> bool:
    """Whether a stack of raw frames has no slice with live stripes, or a colour that was made without a pattern.

    What was made counts, not what is known by now: a pattern that another stack showed later changes no image.
    """
    made = slices(connection, key.plate, key).get(key, ())
    blind = {one.channel for one in made} - {one.channel for one in made if one.compared}
    return bool(made) and (bool(blind) or all(one.widefield for one in made))


_PUT_PATTERN = """
INSERT INTO sim_patterns (plate, well, stack, channel, usable, verdict, estimate_json, estimated_s)
VALUES (:plate, :well, :stack, :channel, :usable, :verdict, :estimate, :now) ON CONFLICT DO NOTHING
"""
_PUT_SLICES = """
REPLACE INTO sim_slices (plate, well, stack, slices_json, made_s) VALUES (:plate, :well, :stack, :slices, :now)
"""
