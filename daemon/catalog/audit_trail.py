"""The audit trail read back: its events and its head, for programs and for people; and files that were handed out."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spheroidd.daemon.catalog.audit_chain import Action, AuditEvent, Head
from spheroidd.daemon.catalog.reader import CatalogReader
from spheroidd.protocols.errors import ConfigError, StorageError
from spheroidd.protocols.well import WellId

if TYPE_CHECKING:
    from rich.table import Table

    from spheroidd.daemon.catalog.writer import Catalog

_COLUMNS = ", ".join(AuditEvent.__slots__)
_CHUNK = 1 << 20


def events(
    catalog: CatalogReader, *, plate: str | None = None, well: str | None = None, last: int | None = None
) -> list[AuditEvent]:
    """The events, oldest first: all, one plate's, one well's, or the newest `last` of those."""
    name = None if well is None else str(WellId.parse(well))
    sql = f"""SELECT {_COLUMNS} FROM audit
              WHERE (:plate IS NULL OR plate = :plate) AND (:well IS NULL OR well = :well)
              ORDER BY seq DESC LIMIT :last"""
    rows = catalog.query(sql, {"plate": plate, "well": name, "last": -1 if last is None else last})
    return [AuditEvent(**row) for row in reversed(rows)]


def head(catalog: CatalogReader) -> Head:
    """The end of the trail now; number 0 and no hash where there is no trail."""
    rows = catalog.query("SELECT seq, sha256 FROM audit ORDER BY seq DESC LIMIT 1")
    return Head(rows[0]["seq"], rows[0]["sha256"]) if rows else Head(0, "")


def parse_head(text: str) -> tuple[int | None, str]:
    """An anchor as it is printed, "12:9f3a...", or its hash alone; at least 12 digits of the hash."""
    number, _, digits = text.strip().lower().rpartition(":")
    valid = set(digits) <= set("0123456789abcdef") and 12 <= len(digits) <= 64 and (number.isdigit() or not number)
    if not valid:
        do = 'copy "audit head" from an export or report: the number of events, a colon, the hash'
        raise ConfigError(f"{text!r} is no head of an audit trail", where="--head", do=do)
    return (int(number) if number else None), digits


def file_sha256(path: Path) -> str:
    """The hash of a file's bytes; StorageError where it cannot be read."""
    found = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                found.update(chunk)
    except OSError as error:
        raise StorageError(f"cannot read it back: {error.strerror}", where=str(path), do="check the disk") from error
    return found.hexdigest()


def record_files(
    catalog: "Catalog",
    action: Action,
    files: Sequence[Path],
    *,
    plates: Sequence[str],
    facts: Mapping[str, Any] | None = None,
    who: str | None = None,
) -> AuditEvent:
    """Enter files that were handed out, an export or a report, with their hashes; the event's hash is the new anchor.

    Safe beside a running daemon: one short transaction. `facts` are further plain values worth keeping.
    """
    handed = [{"name": file.name, "bytes": file.stat().st_size, "sha256": file_sha256(file)} for file in files]
    new = {"files": handed, "plates": list(plates), **(facts or {})}
    return catalog.append_event(action, plate=plates[0] if len(plates) == 1 else None, new=new, who=who)


def to_json(found: Sequence[AuditEvent]) -> str:
    """A JSON list with one object for each event, `old` and `new` as JSON values."""
    return json.dumps([_record(event) for event in found], indent=1, allow_nan=False)


def _record(event: AuditEvent) -> dict[str, Any]:
    fields = {name: getattr(event, name) for name in AuditEvent.__slots__}
    for name in ("old", "new"):
        text = fields.pop(f"{name}_json")
        fields[name] = None if text is None else json.loads(text)
    return fields


def to_screen(found: Sequence[AuditEvent]) -> "Table":
    """The same for a person."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("event", "when (UTC)", "who", "what", "where", "old", "new", "reason", "hash"):
        wide = name in ("old", "new", "reason")
        table.add_column(name, justify="right" if name == "event" else "left", no_wrap=not wide, overflow="fold")
    for event in found:
        place = " ".join(part for part in (event.plate, event.well) if part)
        words = (event.at_utc, event.who, event.action, place, _short(event.old_json), _short(event.new_json))
        cells = [str(event.seq), *words, event.reason or "", event.sha256[:12]]
        table.add_row(*(Text(cell) for cell in cells))
    return table


def _short(text: str | None) -> str:
    """The plain values of an event, hashes by their first digits; what is nested shows in the JSON."""
    if text is None:
        return ""
    values = json.loads(text)
    parts = [f"{key} {_word(value)}" for key, value in values.items() if not isinstance(value, dict | list)]
    parts += [file["name"] for file in values.get("files", [])]
    return ", ".join(parts)


def _word(value: object) -> str:
    text = "none" if value is None else str(value)
    return text[:12] if len(text) == 64 else text
