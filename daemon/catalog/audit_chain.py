"""The audit trail: who did what to the numbers, when and why, as a chain of hashes that shows every later change.

Each event's `sha256` is taken over the event's own fields and the hash of the event before it (`digest` says exactly
how), so an event cannot be altered, removed or slipped in without breaking every hash that follows. Triggers refuse
UPDATE and DELETE; `audit_check` finds what somebody did in spite of them. Events are appended inside the transaction
of the act they tell of: both become durable, or neither does.

What the chain alone cannot show is a tail that was cut off, or a whole chain that was written anew. That is what an
anchor is for: the hash of the last event, printed into every export and report (`Head`), and given back to
`spheroidd audit verify --head`.
"""

import getpass
import hashlib
import json
import os
import sqlite3
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from typing import Any

from spheroidd.daemon.catalog.rows import dump
from spheroidd.daemon.catalog.transaction import transaction
from spheroidd.protocols.errors import ConfigError

USER_VARIABLE = "SPHEROIDD_USER"  # whose name the trail carries, where the account's would say nothing ("lab")


class Action(StrEnum):
    """What can happen to a number."""

    TRAIL_STARTED = "trail started"
    DEMO_STARTED = "demonstration started"  # in the first catalog of its directory: `spheroidd demo` may replace it
    PLATE_REGISTERED = "plate registered"
    PLATE_CHANGED = "plate registered again"  # with another configuration, or other voxel sizes
    RUN_STARTED = "run started"
    RUN_RESUMED = "run resumed"
    RESCORE_STARTED = "re-score started"
    LIMITS_LOCKED = "limits locked"
    LIMITS_MOVED = "limits moved"  # a well was brighter than those before it
    CELL_WIDTH_FOUND = "cell width found"  # by a plate's own rows, where the settings leave it to them
    CELL_WIDTH_KEPT = "cell width kept"  # they were asked, and it fits or cannot be told
    RESULT_NEW = "result new"
    RESULT_CHANGED = "result changed"
    WELL_EXCLUDED = "well excluded"
    WELL_INCLUDED = "well included"
    STACK_EXCLUDED = "stack excluded"  # of a well that was imaged more than once
    STACK_INCLUDED = "stack included"
    STACK_CHOSEN = "stack chosen"  # counts, though a newer one is there
    PLATE_RELABELLED = "plate relabelled"  # its map was corrected after the run
    WELL_RELABELLED = "well relabelled"
    REFERENCES_IMPORTED = "references imported"
    EXPORT_WRITTEN = "export written"
    REPORT_WRITTEN = "report written"
    RESTORED = "restored"  # this directory was written from a moment of a backup
    VERIFIED = "verified"  # images, masks, rows and files against what was written
    ORDERED = "ordered"  # over the service: pause, abort, skip, ...
    VIEW_BEGUN = "live view begun"  # somebody looks through the instrument before a run
    VIEW_ENDED = "live view ended"  # with the images that were taken, and the light that fell on each well


DECISIONS = (
    Action.WELL_EXCLUDED,
    Action.WELL_INCLUDED,
    Action.STACK_EXCLUDED,
    Action.STACK_INCLUDED,
    Action.STACK_CHOSEN,
)
"""By these a person changes which wells and stacks count."""


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One event. `at_utc` is ISO 8601; `old_json` and `new_json` are JSON as text, so that a hash needs no parser."""

    seq: int
    at_utc: str
    who: str
    action: str
    plate: str | None
    well: str | None
    old_json: str | None
    new_json: str | None
    reason: str | None
    prev_sha256: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Head:
    """The end of the trail at some moment: how many events there were, and the hash of the last; "12:9f3a..."."""

    seq: int
    sha256: str

    def __str__(self) -> str:
        return f"{self.seq}:{self.sha256}"


def digest(event: AuditEvent) -> str:
    """The hash that an event ought to have.

    sha256 over the UTF-8 of a JSON object of all its fields but `sha256`, keys sorted, separators "," and ":",
    everything beyond ASCII escaped.
    """
    fields = {name: getattr(event, name) for name in AuditEvent.__slots__ if name != "sha256"}
    return sha256_of(dump(fields))


def sha256_of(text: str) -> str:
    """The hash of a text's UTF-8 (which a lone surrogate does not have: it is escaped)."""
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()


def whoami() -> str:
    """The person at work: $SPHEROIDD_USER, else the account's name, else its number."""
    given = os.environ.get(USER_VARIABLE, "").strip()
    if given:
        return given
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # an account without a name, as in a container; ImportError on Windows
        return f"uid {os.getuid()}" if hasattr(os, "getuid") else "unknown"


def utc(seconds: float) -> str:
    """Seconds since 1970 as ISO 8601 in UTC, to the millisecond."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def append(
    connection: sqlite3.Connection,
    action: Action,
    *,
    at_s: float,
    plate: str | None = None,
    well: str | None = None,
    old: Mapping[str, Any] | None = None,
    new: Mapping[str, Any] | None = None,
    reason: str | None = None,
    who: str | None = None,
) -> AuditEvent:
    """Add an event to the end of the trail, inside the caller's transaction; see `Catalog.append_event`.

    The transaction must have begun IMMEDIATE, so that nobody else can append between reading the head and writing.
    """
    if not connection.in_transaction:
        raise RuntimeError("an audit event belongs into the transaction of the act it tells of")
    used, last = getattr(connection, "trail_end", None) or _trail_end(connection)
    event = AuditEvent(
        seq=used + 1,
        at_utc=utc(at_s),
        who=_at_work(connection) if who is None else given_who(who),
        action=action.value,
        plate=plate,
        well=well,
        old_json=None if old is None else dump(dict(old)),
        new_json=None if new is None else dump(dict(new)),
        reason=reason,
        prev_sha256=last,
        sha256="",
    )
    values = {name: getattr(event, name) for name in AuditEvent.__slots__} | {"sha256": digest(event)}
    connection.execute(_APPEND, values)
    if hasattr(connection, "trail_end"):
        connection.trail_end = (event.seq, values["sha256"])
    return AuditEvent(**values)


def _at_work(connection: sqlite3.Connection) -> str:
    """This user; the system is asked once a transaction, however many events it has."""
    known: str | None = getattr(connection, "person", None)
    if known is None:
        known = given_who(None)
        if hasattr(connection, "person"):
            connection.person = known
    return known


def _trail_end(connection: sqlite3.Connection) -> tuple[int, str]:
    """The last number that was used, and the hash of the last event ("" without any).

    Numbers are never used twice: after events were cut off in spite of the triggers, a gap remains.
    """
    last = connection.execute("SELECT seq, sha256 FROM audit ORDER BY seq DESC LIMIT 1").fetchone()
    used = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'audit'").fetchone()
    return max(last[0] if last else 0, used[0] if used else 0), last[1] if last else ""


def start_trail(connection: sqlite3.Connection, at_s: float) -> None:
    """Write the first event, where there is none: it seals what the catalog held before it had a trail."""
    if connection.execute("SELECT 1 FROM audit LIMIT 1").fetchone():
        return
    with transaction(connection):
        if not connection.execute("SELECT 1 FROM audit LIMIT 1").fetchone():  # another process may have been quicker
            append(connection, Action.TRAIL_STARTED, at_s=at_s, new=_what_was_before(connection))


def _what_was_before(connection: sqlite3.Connection) -> dict[str, Any]:
    plates = [row[0] for row in connection.execute("SELECT plate FROM plates ORDER BY plate")]
    changes = change_digests(connection)
    return {
        "plates": {plate: plate_state(connection, plate) for plate in plates},
        "result_changes": max(changes, default=0),
        "result_changes_sha256": sha256_of(dump(sorted(changes.items()))),
    }


def plate_state(connection: sqlite3.Connection, plate: str) -> dict[str, Any]:
    """The hashes of what a plate's numbers rest on: its configuration, its map and its locked limits (or None)."""
    config, limits = connection.execute(
        "SELECT config_json, limits_json FROM plates WHERE plate = ?", (plate,)
    ).fetchone()
    columns = "well, role, compound, dose_um, patient, pixel_um, z_step_um"
    wells = connection.execute(f"SELECT {columns} FROM wells WHERE plate = ? ORDER BY ordinal", (plate,))
    return {
        "config_sha256": sha256_of(config),
        "map_sha256": sha256_of(dump([list(row) for row in wells])),
        "limits_sha256": None if limits is None else sha256_of(limits),
    }


def settings_changed(old_json: str, new_json: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What differs between two configurations: old and new values by key ("inference.model"), None where it was not.

    >>> settings_changed('{"a": {"b": 1, "c": 2}}', '{"a": {"b": 1, "c": 3}}')
    ({'a.c': 2}, {'a.c': 3})
    """
    old, new = (dict(_flat(json.loads(text))) for text in (old_json, new_json))
    keys = [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]
    return {key: old.get(key) for key in keys}, {key: new.get(key) for key in keys}


def _flat(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def change_digests(connection: sqlite3.Connection) -> dict[int, str]:
    """The hash of each entry of `result_changes` by its id: how the trail names an entry."""
    rows = connection.execute(f"SELECT id, {', '.join(CHANGE_COLUMNS)} FROM result_changes ORDER BY id")
    return {row[0]: change_digest(tuple(row)) for row in rows}


def change_digest(entry: Sequence[object]) -> str:
    """The hash of an entry: of its id and the values of `CHANGE_COLUMNS`, as SQLite keeps them."""
    return sha256_of(dump(list(entry)))


CHANGE_COLUMNS = ("changed_s", "plate", "well", "stack", "model_sha256", "old_json", "new_json", "reason")
_APPEND = (
    f"INSERT INTO audit ({', '.join(AuditEvent.__slots__)}) VALUES ({', '.join(f':{n}' for n in AuditEvent.__slots__)})"
)


@lru_cache(maxsize=64)  # the same person stands in event after event
def _one_line(name: str, text: str) -> str:
    """A name or a reason as the trail keeps it; ConfigError where it says nothing, or cannot be shown."""
    words = " ".join(text.split())
    if not words:
        raise ConfigError(f"{name} is empty", do=f"write {name} in a few words")
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in words):
        raise ConfigError(f"{name} is {words!r}", do=f"write {name} without control characters")
    return words


def given_who(who: str | None) -> str:
    """The person that an event names: who was given, else this user; ConfigError for a name that cannot be shown."""
    return _one_line("who", whoami() if who is None else who)


def given_reason(text: str) -> str:
    """A person's reason, in one line; ConfigError where it says nothing."""
    return _one_line("the reason", text)
