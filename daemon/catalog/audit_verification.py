"""Verifies the audit trail: every hash of the chain, and every number in the catalog that the trail vouches for.

What is found, and how:

- an altered event: its hash is not the one that its fields give;
- an altered event with a new hash of its own: the next event names another hash as its predecessor's;
- deleted events: a gap in the numbers; at the end, SQLite's own counter has passed the last number;
- an inserted event: it is no link between its neighbours;
- a number changed behind the trail's back (a result row, an entry of `result_changes`, a plate's map, configuration
  or limits): it is not what the newest event about it says;
- a tail that was cut off, or a trail written anew from some event on, with all traces removed: only an anchor shows
  that, a hash that was printed outside the catalog.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spheroidd.daemon.catalog import audit_chain as audit
from spheroidd.daemon.catalog import references
from spheroidd.daemon.catalog.audit_chain import Action, AuditEvent, Head
from spheroidd.daemon.catalog.audit_trail import events, parse_head
from spheroidd.daemon.catalog.reader import CatalogReader
from spheroidd.daemon.catalog.rows import dump

if TYPE_CHECKING:
    from rich.console import Group

TRIGGERS = ("audit_keep", "audit_fixed", "audit_next", "result_changes_keep", "result_changes_fixed")


@dataclass(frozen=True, slots=True)
class AuditCheck:
    """The verdict: `problems` in words, the event's number first where there is one; `head` is the anchor of now."""

    intact: bool
    events: int
    head: Head
    problems: tuple[str, ...]


def verify(catalog: CatalogReader, anchor: str | None = None) -> AuditCheck:
    """Check the trail and what it vouches for, at one moment; ConfigError for an `anchor` that is none."""
    given = None if anchor is None else parse_head(anchor)
    with catalog.snapshot():
        trail = events(catalog)
        problems = [*_chain(trail), *_tail(catalog, trail), *_anchor(trail, given), *_tables(catalog, trail)]
    last = trail[-1] if trail else None
    head = Head(last.seq, last.sha256) if last else Head(0, "")
    return AuditCheck(not problems, len(trail), head, tuple(problems))


def _chain(trail: list[AuditEvent]) -> Iterator[str]:
    if trail and (trail[0].seq, trail[0].prev_sha256) != (1, ""):
        yield f"event {trail[0].seq} stands first: {_numbers(1, trail[0].seq - 1)} before it missing"
    for event in trail:
        if event.sha256 != audit.digest(event):
            yield f"event {event.seq} ({event.action}, {event.at_utc}) was altered: its hash does not fit its contents"
    for before, event in pairwise(trail):
        if event.seq != before.seq + 1:
            yield f"{_numbers(before.seq + 1, event.seq - 1)} missing, between {before.seq} and {event.seq}"
        elif event.prev_sha256 != before.sha256:
            what = f"the chain breaks between events {before.seq} and {event.seq}"
            yield f"{what}: {event.seq} follows another event than the one that stands before it now"


def _numbers(first: int, last: int) -> str:
    return f"event {first} is" if first == last else f"events {first} to {last} are"


def _tail(catalog: CatalogReader, trail: list[AuditEvent]) -> Iterator[str]:
    """SQLite never uses a number twice, and remembers the last one."""
    rows = catalog.query("SELECT seq FROM sqlite_sequence WHERE name = 'audit'") if trail else []
    last, used = (trail[-1].seq if trail else 0), (rows[0]["seq"] if rows else 0)
    if used > last:
        yield f"{_numbers(last + 1, used)} missing at the end: the trail was cut off"
    if not trail:
        yield "there is no audit trail: the catalog is from before there were any, or its events were deleted"
    found = {row["name"] for row in catalog.query("SELECT name FROM sqlite_master WHERE type = 'trigger'")}
    for name in TRIGGERS:
        if trail and name not in found:
            yield f"the trigger {name} is gone, which refuses changes of the history"


def _anchor(trail: list[AuditEvent], given: tuple[int | None, str] | None) -> Iterator[str]:
    if given is None:
        return
    number, digits = given
    here = next((event for event in trail if event.sha256.startswith(digits)), None)
    if here is None:
        last = trail[-1].seq if trail else 0
        where = f"event {number}" if number is not None else "an event"
        what = "was cut off or written anew" if number is None or number > last else "was written anew"
        yield f"{where} with the hash {digits[:12]} of the given head is not there: the trail {what} since"
    elif number is not None and here.seq != number:
        yield f"event {here.seq} has the hash of the given head, which says it is event {number}"


def _tables(catalog: CatalogReader, trail: list[AuditEvent]) -> Iterator[str]:
    if not trail:
        return
    start = _new(trail[0]) if trail[0].action == Action.TRAIL_STARTED else {}
    yield from _changes(catalog, trail, start)
    yield from _results(catalog)
    yield from _plates(catalog, trail, start)
    yield from _references(catalog, trail)


def _references(catalog: CatalogReader, trail: list[AuditEvent]) -> Iterator[str]:
    """Each plate's MTT references are those of its newest import."""
    told = {event.plate: event for event in trail if event.action == Action.REFERENCES_IMPORTED and event.plate}
    found = {row["plate"] for row in catalog.query("SELECT DISTINCT plate FROM mtt_references")}
    for plate in sorted(found - told.keys()):
        yield f"plate {plate}: its MTT references have no event in the trail"
    for plate, event in told.items():
        if references.state(catalog, str(plate)) != _new(event).get("references_sha256"):
            yield f"plate {plate}: its MTT references are not those that event {event.seq} tells of"


def _changes(catalog: CatalogReader, trail: list[AuditEvent], start: Mapping[str, Any]) -> Iterator[str]:
    """Each entry of `result_changes` has its event, and is as it was then."""
    found = audit.change_digests(catalog.connection)
    told = {
        new["result_change"]: (event, new["sha256"])
        for event in trail
        if event.action in (Action.RESULT_NEW, Action.RESULT_CHANGED)
        for new in [_new(event)]
        if "result_change" in new
    }
    sealed = int(start.get("result_changes", 0))
    older = {change: digits for change, digits in found.items() if change <= sealed}
    if sealed and audit.sha256_of(dump(sorted(older.items()))) != start.get("result_changes_sha256"):
        yield f"result_changes 1 to {sealed}, from before the trail, are not what event 1 sealed"
    for change, digits in found.items():
        if change > sealed and change not in told:
            yield f"result_changes {change} has no event in the trail"
        elif change in told and told[change][1] != digits:
            yield f"result_changes {change} was altered: event {told[change][0].seq} names another hash"
    for change, (event, _) in told.items():
        if change not in found:
            yield f"result_changes {change} is missing, which event {event.seq} tells of"


def _results(catalog: CatalogReader) -> Iterator[str]:
    """Each result row is what the newest entry of its history says."""
    names = ("plate", "well", "stack", "model_sha256")
    newest = {
        tuple(row[name] for name in names): json.loads(row["new_json"])
        for row in catalog.query("SELECT * FROM result_changes ORDER BY id")
    }
    rows = {tuple(row[name] for name in names): row for row in catalog.query("SELECT * FROM results")}
    for key, row in rows.items():
        where = f"result {key[0]}/{key[1]}/{key[2]} of model {key[3][:12]}"
        if key not in newest:
            yield f"{where} has no history"
            continue
        other = [name for name, value in row.items() if value != newest[key].get(name)]
        if other:
            yield f"{where} was altered: {', '.join(other)} differ from the newest entry of its history"
    for key in newest.keys() - rows.keys():
        yield f"result {key[0]}/{key[1]}/{key[2]} of model {key[3][:12]} is missing, which its history tells of"


def _plates(catalog: CatalogReader, trail: list[AuditEvent], start: Mapping[str, Any]) -> Iterator[str]:
    """Each plate's map, configuration and limits are those of the newest event about them."""
    told: dict[str, dict[str, Any]] = {plate: dict(state) for plate, state in start.get("plates", {}).items()}
    for event in trail:
        if event.plate and event.action in _OF_PLATE:
            state = {name: value for name, value in _new(event).items() if name in _WORDS}
            told.setdefault(event.plate, {}).update(state)
    found = {plate: audit.plate_state(catalog.connection, plate) for plate in catalog.plates()}
    for plate in told.keys() - found.keys():
        yield f"plate {plate} is missing, which the trail tells of"
    for plate, state in found.items():
        if plate not in told:
            yield f"plate {plate} has no event in the trail"
            continue
        for name, word in _WORDS.items():
            if state[name] != told[plate].get(name):
                yield f"plate {plate}: {word} not those that the trail tells of"


_OF_PLATE = (
    Action.PLATE_REGISTERED,
    Action.PLATE_CHANGED,
    Action.PLATE_RELABELLED,
    Action.LIMITS_LOCKED,
    Action.LIMITS_MOVED,
)
_WORDS = {
    "map_sha256": "the wells of its map are",
    "config_sha256": "the settings of its configuration are",
    "limits_sha256": "its intensity limits are",
}


def _new(event: AuditEvent) -> dict[str, Any]:
    """What an event says, as far as it can be read: an altered event is told of elsewhere."""
    try:
        values = json.loads(event.new_json or "{}")
    except ValueError:
        return {}
    return values if isinstance(values, dict) else {}


def to_json(check: AuditCheck) -> str:
    """One JSON object; `head` as it is printed."""
    return json.dumps({**asdict(check), "head": str(check.head)})


def to_screen(check: AuditCheck, data_dir: Path) -> "Group":
    """The same for a person, with what to do."""
    from rich.console import Group
    from rich.text import Text

    lines = [Text(f"{data_dir}: {check.events} events, head {check.head}", overflow="fold")]
    lines += [Text(f"! {problem}", style="red", overflow="fold") for problem in check.problems]
    if check.intact:
        lines.append(Text("The audit trail is intact.", style="green"))
    else:
        lines.append(Text("Numbers from this catalog cannot be vouched for: compare it with a copy from before."))
    return Group(*lines)
