"""The plates that wait for their turn, in the catalog: so the queue survives the daemon. Only main writes it.

A plate is waiting, running or finished. One that is held is passed over until it is released. Whether the daemon goes
on to the next plate by itself stands beside them: a daemon that was started again never does until a person says so.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from spheroidd.daemon.catalog.reader import CatalogReader
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.protocols.errors import MissingError, RefusedError

WAITING, RUNNING, FINISHED = "waiting", "running", "finished"


@dataclass(frozen=True, slots=True)
class QueuedPlate:
    """One plate of the queue; times are seconds since 1970, `verdict` one line about a plate that is finished."""

    plate: str
    state: str
    held: bool
    submitted_s: float
    submitted_by: str
    n_wells: int | None
    started_s: float | None
    ended_s: float | None
    verdict: str | None


@dataclass(frozen=True, slots=True)
class QueueRun:
    """Whether the next plate is started when one has ended, and why not."""

    goes_on: bool
    why: str


def queued_plates(catalog: CatalogReader) -> list[QueuedPlate]:
    """Those that run, that wait in their order, and that are finished, the latest first."""
    rows = catalog.query("""
        SELECT plate, state, held, submitted_s, submitted_by, n_wells, started_s, ended_s, verdict FROM plate_queue
        ORDER BY state = 'running' DESC, state = 'waiting' DESC,
          CASE state WHEN 'waiting' THEN place ELSE -ended_s END, place""")
    return [QueuedPlate(**{**row, "held": bool(row["held"])}) for row in rows]


def queue_run(catalog: CatalogReader) -> QueueRun:
    """Whether the daemon goes on by itself."""
    rows = catalog.query("SELECT goes_on, why FROM queue_run")
    return QueueRun(bool(rows[0]["goes_on"]), rows[0]["why"]) if rows else QueueRun(False, "")


class PlateQueue:
    """The queue as main changes it."""

    def __init__(self, catalog: Catalog, now: Callable[[], float] = time.time) -> None:
        self._catalog, self._now = catalog, now

    def take_up(self, submitted: Sequence[str]) -> None:
        """A daemon begins: what the one before was in the middle of is the next, and nothing starts by itself.

        `submitted` are the plates that were handed in; one that never ran and is not in the queue waits from now on.
        """
        known = {one.plate for one in queued_plates(self._catalog)} | set(self._catalog.plates())
        for plate in submitted:
            if plate not in known:
                self.add(plate, "", None)
        running = [one.plate for one in queued_plates(self._catalog) if one.state == RUNNING]
        with self._catalog.transaction():
            self._set("UPDATE plate_queue SET state = 'waiting' WHERE state = 'running'")
            if running:
                self.arrange(running)
            if self.run.goes_on:
                self.go_on(False, "the daemon was started again")

    @property
    def run(self) -> QueueRun:
        """Whether the next plate is started when one has ended."""
        return queue_run(self._catalog)

    def go_on(self, goes_on: bool, why: str) -> None:
        """Say whether it is, and why not."""
        self._set("REPLACE INTO queue_run (id, goes_on, why) VALUES (1, :goes_on, :why)", goes_on=goes_on, why=why)

    def add(self, plate: str, who: str, n_wells: int | None) -> None:
        """At the end of those that wait; one that waits or runs keeps its place."""
        known = {one.plate: one for one in queued_plates(self._catalog)}.get(plate)
        if known is not None and known.state != FINISHED:
            sql = "UPDATE plate_queue SET n_wells = :n, submitted_by = :who WHERE plate = :plate"
            self._set(sql, n=n_wells, who=who, plate=plate)
            return
        self._set(
            """REPLACE INTO plate_queue (plate, place, state, submitted_s, submitted_by, n_wells)
            VALUES (:plate, (SELECT 1 + coalesce(max(place), 0) FROM plate_queue), 'waiting', :now, :who, :n)""",
            **{"plate": plate, "now": self._now(), "who": who, "n": n_wells},
        )

    def arrange(self, plates: Sequence[str]) -> None:
        """These come first, in this order; the others follow as they were."""
        waiting = [one.plate for one in queued_plates(self._catalog) if one.state == WAITING]
        for plate in plates:
            if plate not in waiting:
                self._known(plate)
                raise RefusedError(f"plate {plate} does not wait", do=f"those that do: {', '.join(waiting) or 'none'}")
        first = list(dict.fromkeys(plates))
        with self._catalog.transaction():
            for place, plate in enumerate([*first, *(one for one in waiting if one not in first)], start=1):
                self._set("UPDATE plate_queue SET place = :place WHERE plate = :plate", place=place, plate=plate)

    def hold(self, plate: str, held: bool) -> None:
        """Pass it over until it is released."""
        if self._known(plate).state != WAITING:
            raise RefusedError(f"plate {plate} does not wait", do="hold one that waits")
        self._set("UPDATE plate_queue SET held = :held WHERE plate = :plate", held=held, plate=plate)

    def remove(self, plate: str) -> None:
        """Take it out of the list; what was imaged of it stays."""
        if self._known(plate).state == RUNNING:
            raise RefusedError(f"plate {plate} is being run", do="abort it, or wait for its end")
        self._set("DELETE FROM plate_queue WHERE plate = :plate", plate=plate)

    def next(self) -> str | None:
        """The first that waits and is not held."""
        ready = (one.plate for one in queued_plates(self._catalog) if one.state == WAITING and not one.held)
        return next(ready, None)

    def started(self, plate: str) -> None:
        """It runs; where it was never submitted here, nothing."""
        self._set(
            """UPDATE plate_queue SET state = 'running', held = 0, started_s = coalesce(started_s, :now),
            ended_s = NULL, verdict = NULL WHERE plate = :plate""",
            **{"now": self._now(), "plate": plate},
        )

    def ended(self, plate: str, verdict: str | None) -> None:
        """It is finished with a verdict; without one it was stopped in the middle, and is the next again."""
        if verdict is None:
            self._set("UPDATE plate_queue SET state = 'waiting' WHERE plate = :plate", plate=plate)
            if any(one.plate == plate for one in queued_plates(self._catalog)):
                self.arrange([plate])
            return
        values = {"verdict": verdict, "now": self._now(), "plate": plate}
        sql = "UPDATE plate_queue SET state = 'finished', verdict = :verdict, ended_s = :now WHERE plate = :plate"
        self._set(sql, **values)

    def _known(self, plate: str) -> QueuedPlate:
        found = {one.plate: one for one in queued_plates(self._catalog)}
        if plate not in found:
            do = f"submit it first; there are: {', '.join(found) or 'none'}"
            raise MissingError(f"plate {plate} is not in the queue", do=do)
        return found[plate]

    def _set(self, sql: str, **values: Any) -> None:
        with self._catalog.transaction():
            self._catalog.connection.execute(sql, values)
