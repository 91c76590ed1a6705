"""What is told: a notice when an alarm begins, one when it ends, and one when a plate has ended, in order.

The catalog is the outbox: its faults are durable and numbered. What was delivered to one receiver stands in a small
file of its own (`DeliveryCursor`), which is written after the delivery. So a crash at any moment loses nothing, and at
worst delivers the last notification once more, under the same id.
"""

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from spheroidd.daemon.catalog.audit_chain import utc
from spheroidd.daemon.catalog.plate_ends import PlateEnd, next_end
from spheroidd.daemon.catalog.reader import CatalogReader
from spheroidd.daemon.monitoring.alarms import UNDELIVERED
from spheroidd.protocols.durable import write_atomically
from spheroidd.protocols.errors import SpheroiddError, StorageError
from spheroidd.protocols.faults import FaultCode, severity
from spheroidd.protocols.json_text import parse_json

FINISHED, PLATE_FINISHED, NOTICE = "finished", "plate-finished", "notice"


@dataclass(frozen=True, slots=True)
class Notification:
    """One thing to tell. `id` is the same however often it is told; `event` is "raised", "ended" or "finished".

    "finished" is of a plate: `what` is its verdict, `raised_s` when it began, `fault` the number of its end.
    """

    id: str
    event: str
    fault: int
    code: str
    severity: str
    what: str
    where: str
    do: str
    at_s: float
    raised_s: float
    plate: str = ""
    well: str = ""
    stack: int | None = None

    def subject(self) -> str:
        """One line for a person."""
        state = {"ended": "over", FINISHED: "finished"}.get(self.event, self.severity)
        return " ".join(f"spheroidd {state}: {self.where and self.where + ': '}{self.what}".split())

    def payload(self, data_dir: Path) -> dict[str, Any]:
        """What a program is sent. `alarm` joins the end to its beginning; `text` is what chat programs show."""
        do = f" To do: {self.do}." if self.do and self.event == "raised" else ""
        return {
            "id": self.id,
            "alarm": self.id.rpartition("-")[0],
            "event": self.event,
            "code": self.code,
            "severity": self.severity,
            "plate": self.plate or None,
            "well": self.well or None,
            "stack": self.stack,
            "where": self.where,
            "what": self.what,
            "do": self.do,
            "at_utc": utc(self.at_s),
            "raised_utc": utc(self.raised_s),
            "host": platform.node(),
            "data_dir": str(data_dir.absolute()),
            "text": f"{self.subject()}.{do}",
        }


@dataclass(frozen=True, slots=True)
class DeliveryCursor:
    """What a receiver was told: the beginnings of all faults up to `upto`, and the ends of all but the `open` ones.

    Faults that were over before `since_s`, when it was first told anything, are old news.
    """

    since_s: float
    upto: int = 0
    open: tuple[int, ...] = ()
    finished: int = 0  # the ends of plates up to this one

    def after(self, notice: Notification) -> "DeliveryCursor":
        """The same with one notice more."""
        if notice.event == FINISHED:
            return replace(self, finished=notice.fault)
        if notice.event == "raised":
            return replace(self, upto=notice.fault, open=(*self.open, notice.fault))
        return replace(self, open=tuple(fault for fault in self.open if fault != notice.fault))


def next_notice(catalog: CatalogReader, data_dir: Path, told: DeliveryCursor, receiver: str) -> Notification | None:
    """The oldest notice that was not told yet; None where there is none.

    A receiver is not told that it could not be told.
    """
    own = UNDELIVERED.get(receiver, "")
    marks = {"upto": told.upto, "since": told.since_s, "own": own}
    raised = catalog.query(_RAISED, marks)
    ended = catalog.query(_ENDED, {"open": json.dumps(told.open)})
    over = next_end(catalog, told.finished, told.since_s)
    found = [_notice(row, "ended", data_dir) for row in ended[:1]]
    found += [_notice(row, "raised", data_dir) for row in raised[:1]]
    found += [_end_notice(over, data_dir)] if over is not None else []
    return min(found, key=lambda notice: notice.at_s, default=None)


def _end_notice(end: PlateEnd, data_dir: Path) -> Notification:
    name = f"{_home(data_dir)}-plate{end.id}-{round(1000 * end.ended_s)}-{FINISHED}"
    where, at = f"plate {end.plate}", (end.ended_s, end.began_s)
    return Notification(name, FINISHED, end.id, PLATE_FINISHED, NOTICE, end.verdict, where, "", *at, plate=end.plate)


def notice_without_catalog(
    error: SpheroiddError, event: str, data_dir: Path, raised_s: float, at_s: float
) -> Notification:
    """A notice that the catalog itself cannot be written: the one thing that cannot stand in it."""
    name = f"{_home(data_dir)}-catalog-{round(1000 * raised_s)}-{event}"
    code = FaultCode.STORAGE_CATALOG
    return Notification(
        name, event, 0, code, code.severity, error.what, error.where or str(data_dir), error.do, at_s, raised_s
    )


def _notice(row: Mapping[str, Any], event: str, data_dir: Path) -> Notification:
    plate, well, stack = row["key"].rsplit("/", 2) if row["key"].count("/") >= 2 else ("", "", "")
    at_s = row["raised_s"] if event == "raised" else row["cleared_s"]
    return Notification(
        id=f"{_home(data_dir)}-{row['id']}-{round(1000 * row['raised_s'])}-{event}",
        event=event,
        fault=row["id"],
        code=row["code"],
        severity=severity(row["code"]),
        what=row["what"],
        where=row["location"],
        do=row["todo"],
        at_s=at_s,
        raised_s=row["raised_s"],
        plate=plate,
        well=well,
        stack=int(stack) if stack.isdecimal() else None,
    )


def _home(data_dir: Path) -> str:
    """A short name of this data directory on this computer."""
    return hashlib.sha256(f"{platform.node()}\0{data_dir.absolute()}".encode("utf-8", "replace")).hexdigest()[:8]


class DeliveryState:
    """Keeps what a receiver was told, in `data_dir/alarms-told-<receiver>.json`. One thread's own."""

    def __init__(self, data_dir: Path, receiver: str, now_s: float) -> None:
        self._path = data_dir / f"alarms-told-{receiver}.json"
        self.told = self._read() or DeliveryCursor(now_s)

    def keep(self, told: DeliveryCursor) -> None:
        """Make it durable. StorageError where the disk refuses; it is known here all the same."""
        self.told = told
        text = json.dumps(asdict(told))
        try:
            write_atomically(self._path, text.encode())
        except OSError as error:
            do = "make room; the receiver may get something twice after a restart"
            raise StorageError(f"cannot be written: {error.strerror}", where=str(self._path), do=do) from error

    def _read(self) -> DeliveryCursor | None:
        """None for a receiver that was never told anything, or a file that a person has edited badly."""
        try:
            found = parse_json(self._path.read_text(encoding="utf-8"))
            return DeliveryCursor(
                float(found["since_s"]),
                int(found["upto"]),
                tuple(int(fault) for fault in found["open"]),
                int(found.get("finished", 0)),  # a file of before ends were told has none
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None


_RAISED = """
SELECT * FROM faults WHERE id > :upto AND (cleared_s IS NULL OR cleared_s >= :since) AND code <> :own
ORDER BY id LIMIT 1
"""
_ENDED = """
SELECT * FROM faults WHERE id IN (SELECT value FROM json_each(:open)) AND cleared_s IS NOT NULL
ORDER BY cleared_s, id LIMIT 1
"""
