"""The catalog: what was promised, acknowledged, stored, scored and what failed, in one SQLite file.

One process writes it, in one thread. WAL with synchronous=FULL: what a commit returned from survives a power cut.
Every write may be given again; the same facts in any order make the same rows.
"""

import itertools
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, Self

from spheroidd.daemon.catalog import audit_chain as audit
from spheroidd.daemon.catalog import evidence_rows, image_profile_rows, result_rows, scored_from, sim_rows
from spheroidd.daemon.catalog.connection import BUSY_S, open_to_write
from spheroidd.daemon.catalog.plate_rows import map_differences, same_treatments, well_row, well_rows
from spheroidd.daemon.catalog.reader import CatalogReader
from spheroidd.daemon.catalog.rows import (
    OF_STACK,
    ResultChange,
    RunState,
    StackState,
    dump,
    dump_limits,
    dump_plan,
    geometry_differences,
    parameters,
)
from spheroidd.daemon.catalog.scored_from import ScoredFrom
from spheroidd.daemon.catalog.statements import change, insert, upsert
from spheroidd.daemon.catalog.transaction import transaction, translated
from spheroidd.protocols.errors import ConfigError, RowRefusedError, SpheroiddError, StackError, StorageError
from spheroidd.protocols.events import SliceDurable
from spheroidd.protocols.evidence import MaskEvidence, StackLight
from spheroidd.protocols.faults import FaultCode
from spheroidd.protocols.focus import FocusFound
from spheroidd.protocols.plate import PlateMap
from spheroidd.protocols.results import Limits, Related, StackMeasurement, StackProfile, WellStatus
from spheroidd.protocols.sim_pattern import PatternEstimate, SliceModulation
from spheroidd.protocols.stack import Block, RawIndex, StackKey, StackPlan
from spheroidd.protocols.stack_end import Ending, StackEnd

__all__ = ["Catalog", "CatalogReader", "RunState", "StackState"]


class Catalog(CatalogReader):
    """The writer, or with `read_only` a reader whose writes are refused by SQLite itself."""

    def __init__(self, connection: sqlite3.Connection, path: Path, now: Callable[[], float]) -> None:
        super().__init__(connection, path, now)
        self._rollbacks = 0
        self._decisions = 0  # appended by this writer
        self._asked: tuple[tuple[int, ...], int] = (), 0
        self._half: BaseException | None = None  # what ended a part of the transaction under way that had written
        self._changed: dict[StackKey, int] = {}  # the number of its last change, in the order of these numbers

    @classmethod
    def create_or_open(cls, data_dir: Path, *, now: Callable[[], float] = time.time, busy_s: float = BUSY_S) -> Self:
        """Open the catalog of a data directory for writing; directory and catalog are made where missing.

        ConfigError where the directory cannot be made or holds another kind of catalog; StorageError where the disk
        refuses.
        """
        return cls(*open_to_write(data_dir, now, busy_s), now)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All writes inside become durable together, or none does. Inside another one it is a savepoint.

        StorageError where the disk is full or fails, or another process holds the file for longer than it should.
        """
        before, self._half = self._half, None
        try:
            with translated(self.path), transaction(self._connection):
                yield
                if self._half is not None:
                    raise self._half
        except BaseException:
            self._rollbacks += 1
            raise
        finally:
            self._half = before

    @contextmanager
    def _part(self) -> Iterator[None]:
        """The writes of one act: a transaction, or inside another one a part of it without a savepoint, which takes
        twice as long as a write. Where such a part fails after it wrote, nothing of that other one stays.
        """
        if not self._connection.in_transaction:
            with self.transaction():
                yield
            return
        before = self._connection.total_changes
        try:
            with translated(self.path):
                yield
        except BaseException as error:
            self._rollbacks += 1
            if self._connection.total_changes != before:
                self._half = error
            raise

    @property
    def rollbacks(self) -> int:
        """How often something written was taken back: then what is remembered of it has to be read anew."""
        return self._rollbacks

    def stacks_changed(self, after: int) -> tuple[int, list[StackKey]]:
        """The stacks that were planned or changed their state by this writer since the cursor `after`, and the new
        cursor.
        """
        found = list(itertools.takewhile(lambda key: self._changed[key] > after, reversed(self._changed)))
        return (self._changed[found[0]] if found else after), found

    def _note_change(self, key: StackKey) -> None:
        number = next(reversed(self._changed.values()), 0) + 1
        self._changed.pop(key, None)
        self._changed[key] = number

    @contextmanager
    def _one_write(self) -> Iterator[None]:
        """For a single statement that writes, which SQLite does wholly or not at all: no savepoint inside another."""
        if not self._connection.in_transaction:
            with self.transaction():
                yield
            return
        try:
            with translated(self.path):
                yield
        except BaseException:
            self._rollbacks += 1
            raise

    def _write(self, sql: str, values: Mapping[str, object]) -> int:
        with self._one_write():
            return self._execute(sql, values)

    def _execute(self, sql: str, values: Mapping[str, object]) -> int:
        try:
            return self._connection.execute(sql, {name: _storable(value) for name, value in values.items()}).rowcount
        except OverflowError as error:
            raise RowRefusedError(f"a number is too large: {error}", where=str(self.path)) from error

    def last_decision(self, after: int = 0) -> int:
        """As `CatalogReader.last_decision`; asked again only where somebody wrote since, which SQLite itself counts."""
        with translated(self.path):
            (version,) = self._connection.execute("PRAGMA data_version").fetchone()
        state = (version, self._decisions, self._rollbacks, after)
        if self._asked[0] != state:
            self._asked = state, super().last_decision(after)
        return self._asked[1]

    def append_event(
        self,
        action: audit.Action,
        *,
        plate: str | None = None,
        well: str | None = None,
        old: Mapping[str, Any] | None = None,
        new: Mapping[str, Any] | None = None,
        reason: str | None = None,
        who: str | None = None,
    ) -> audit.AuditEvent:
        """Add an event to the audit trail, in the transaction of the act it tells of; `who` is by default this user."""
        self._decisions += action in audit.DECISIONS
        with self._one_write():
            return audit.append(
                self._connection,
                action,
                at_s=self._now(),
                plate=plate,
                well=well,
                old=old,
                new=new,
                reason=reason,
                who=who,
            )

    # Plates

    def register_plate(self, plate_map: PlateMap, config_json: str, *, n_fields: int = 1) -> None:
        """Write a plate and its wells down; again is harmless, and keeps the newest configuration and paths.

        `n_fields` is how many places of a well are imaged: further stacks of a well are those places again.

        ConfigError where the name stands for a plate with other wells or treatments, or differs from another plate's
        in upper and lower case only.
        """
        with self.transaction():
            known, rows = plate_map.name in self.plates(), well_rows(plate_map)
            known_rows = {row["well"]: row for row in self._rows("SELECT * FROM wells WHERE plate = :plate", rows[0])}
            old = audit.plate_state(self._connection, plate_map.name) if known else None
            settings = self.plate_config(plate_map.name) if known else config_json
            if known:
                if not same_treatments(known_rows.values(), rows):
                    self._check_same_plate(plate_map)
                values = {"config_json": config_json, "n_fields": n_fields}
                if values != {"config_json": settings, "n_fields": self.n_fields(plate_map.name)}:
                    change(self._connection, "plates", {"plate": plate_map.name}, values)
            else:
                self._check_new_name(plate_map.name)
                row = {
                    "plate": plate_map.name,
                    "created_s": self._now(),
                    "config_json": config_json,
                    "n_fields": n_fields,
                }
                insert(self._connection, "plates", row)
            changed = [well for well in rows if known_rows.get(well["well"]) != well]
            if changed:
                upsert(self._connection, "wells", changed, ("plate", "well"))
            new = audit.plate_state(self._connection, plate_map.name)
            if new != old:
                action = audit.Action.PLATE_CHANGED if old else audit.Action.PLATE_REGISTERED
                was, now = audit.settings_changed(settings, config_json)
                told = {**new, "wells": len(rows), **({"settings": now} if old else {})}
                self.append_event(action, plate=plate_map.name, old=old and {**old, "settings": was}, new=told)

    def relabel_wells(self, plate_map: PlateMap, reason: str, who: str | None = None) -> audit.AuditEvent:
        """Give the wells of a registered plate the treatments of another map, and the order in it.

        An event for each well whose treatment changes keeps the old one. Paths and voxel sizes stay as they were.
        """
        plate = plate_map.name
        with self.transaction():
            known = {entry.well: entry for entry in self.plate_map(plate)}
            old = audit.plate_state(self._connection, plate)
            for row, entry in zip(well_rows(plate_map), plate_map, strict=True):
                before = known.get(entry.well)
                if before is not None:
                    kept = replace(entry, paths=before.paths, pixel_um=before.pixel_um, z_step_um=before.z_step_um)
                    row = {**well_row(plate, 0, kept), "ordinal": row["ordinal"]}
                upsert(self._connection, "wells", [row], ("plate", "well"))
                if before is None or before.treatment != entry.treatment:
                    self.append_event(
                        audit.Action.WELL_RELABELLED,
                        plate=plate,
                        well=str(entry.well),
                        old=asdict(before.treatment) if before else None,
                        new=asdict(entry.treatment),
                        reason=reason,
                        who=who,
                    )
            new = {**audit.plate_state(self._connection, plate), "wells": len(plate_map)}
            return self.append_event(
                audit.Action.PLATE_RELABELLED, plate=plate, old=old, new=new, reason=reason, who=who
            )

    def _check_new_name(self, name: str) -> None:
        """Two such names are one folder of images on Windows and macOS, and one plate to whoever reads them."""
        alike = next((known for known in self.plates() if known.casefold() == name.casefold()), None)
        if alike is not None:
            what = f"plate {name} differs from plate {alike} of this directory in upper and lower case only"
            do = f"call it {alike} to go on with that plate, or give another name or data directory"
            raise ConfigError(what, where=str(self.path), do=do)

    def _check_same_plate(self, plate_map: PlateMap) -> None:
        differences = map_differences(self.plate_map(plate_map.name), plate_map)
        if differences:
            listed = "; ".join(differences[:5]) + (f"; and {len(differences) - 5} more" if differences[5:] else "")
            what = f"plate {plate_map.name} was run with another map: {listed}"
            raise ConfigError(what, where=str(self.path), do="restore the map, or give the plate another name")

    def lock_limits(self, plate: str, limits: Mapping[str, Limits]) -> None:
        """Fix the plate's intensity limits; ConfigError where others are locked already."""
        with self.transaction():
            locked = self.locked_limits(plate)
            if locked is not None and locked != dict(limits):
                what = f"plate {plate} is locked to other intensity limits"
                do = "remove [inference.limits] or give the plate another name: its rows would not be comparable"
                raise ConfigError(what, where=str(self.path), do=do)
            values = {"plate": plate, "limits": dump_limits(limits)}
            if not self._write("UPDATE plates SET limits_json = :limits WHERE plate = :plate", values):
                raise ConfigError(f"there is no plate {plate!r}", where=str(self.path), do="register it first")
            if locked is None:
                self.append_event(audit.Action.LIMITS_LOCKED, plate=plate, new=_limits_told(limits))

    def move_limits(self, plate: str, limits: Mapping[str, Limits], reason: str) -> None:
        """Replace the plate's limits, which the wells measured since have moved; the same again changes nothing.

        Rows that were scored with other limits have to be scored again. ConfigError where none are locked.
        """
        with self.transaction():
            old = self.locked_limits(plate)
            if old is None:
                raise ConfigError(f"plate {plate} has no intensity limits", where=str(self.path), do="lock them first")
            if old != dict(limits):
                values = {"plate": plate, "limits": dump_limits(limits)}
                self._write("UPDATE plates SET limits_json = :limits WHERE plate = :plate", values)
                self.append_event(
                    audit.Action.LIMITS_MOVED,
                    plate=plate,
                    old=_limits_told(old),
                    new=_limits_told(limits),
                    reason=reason,
                )

    # Stacks and their ledger

    def expect(self, plan: StackPlan) -> None:
        """Write a promised stack down as queued; again is harmless. ConfigError for another geometry."""
        with self.transaction():
            row = {**parameters(plan.key), "plan": dump_plan(plan), "n": plan.n_slices}
            if self._write(_EXPECT, row):
                self._note_change(plan.key)
                return
            differences = geometry_differences(self.plan(plan.key), plan)
            if differences:
                what = f"the stack was planned with another geometry: {', '.join(differences)}"
                raise ConfigError(what, where=str(plan.key), do="restore the geometry, or give the plate another name")

    def acknowledge(self, event: SliceDurable, acked_s: float) -> None:
        """Enter a durable slice into the ledger; again is harmless.

        StorageError where the slice is acknowledged with other bytes. Ask `transaction` to commit many at once.
        """
        values = {
            **parameters(event.key),
            "channel": event.index.channel,
            "z": self._plane(event),
            "crc32c": event.crc32c,
            "acquired_s": event.acquired_s,
            "acked_s": acked_s,
            "metadata": dump(dict(event.metadata)),
        }
        if self._write(_ACKNOWLEDGE, values):
            return
        known = self._rows(_KNOWN_CRC, values)[0]["crc32c"]
        if known != event.crc32c:
            what = f"{event.index} has crc32c {event.crc32c:08x} and was acknowledged with {known:08x}"
            do = "check the disk: acknowledged bytes never change"
            raise StorageError(what, where=str(event.key), do=do)

    def _plane(self, event: SliceDurable) -> int:
        """What the ledger counts an image by: its z, or of a raw frame its number within its channel."""
        return self.plan(event.key).plane_of(event.index) if isinstance(event.index, RawIndex) else event.index.z

    def block_stored(self, block: Block) -> None:
        """Announce a block to readers; again is harmless."""
        extent = {"channel": block.channel, "z_start": block.z_start, "z_stop": block.z_stop}
        self._write(_BLOCK, {**parameters(block.key), **extent})

    def set_stack_state(self, key: StackKey, state: StackState, reason: str | None = None) -> None:
        """Write down how far a stack has come, and why. ACQUIRING sets opened_s, the end of acquisition sealed_s, and
        SCORING counts an attempt. ConfigError for an unplanned stack, StackError for SCORED without a measurement and
        for a state that says that it ended, but not how: that is `end_stack`'s.
        """
        if state in (StackState.FAILED, StackState.INCOMPLETE):
            raise StackError(f"it is not said how it ended as {state}", where=str(key), do="call end_stack")
        with self._part():
            row = self.stack(key)
            measured = self._rows(_MEASURED, parameters(key))
            if state is StackState.SCORED and not (row.complete and measured):
                raise StackError("it has no measurement", where=str(key), do="score the stack first")
            if state is StackState.STORED and not row.complete:
                missing = row.plan.n_slices - row.n_slices_acked
                raise StackError(f"{missing} slices are missing", where=str(key), do="mark it incomplete")
            self._set_state(key, state, None, reason, None)

    def end_stack(self, key: StackKey, ending: Ending) -> None:
        """Write down that a stack has no viability, and how it ended. ConfigError for an unplanned stack."""
        state = StackState.FAILED if ending.how is StackEnd.FAILED else StackState.INCOMPLETE
        with self._part():
            self.stack(key)
            self._set_state(key, state, ending.how, ending.what, ending.do or None)

    def _set_state(
        self, key: StackKey, state: StackState, ended: StackEnd | None, reason: str | None, todo: str | None
    ) -> None:
        values = {"state": state, "ended": ended, "reason": reason, "todo": todo, "now": self._now()}
        self._write(_SET_STATE, {**parameters(key), **values})
        self._note_change(key)

    # Results

    def record_measurement(
        self, key: StackKey, measurement: StackMeasurement, latency_s: float | None, reason: str = "scored"
    ) -> bool:
        """Write a stack's measurement as a provisional row and the stack as scored; True where the row is new or other.

        The same measurement again changes nothing, not even what it was related to; another one is logged.
        StackError where the ledger lacks slices: such a stack gets no viability.
        """
        with self._part():
            stack = self.stack(key)
            if not stack.complete:
                what = f"{stack.n_slices_acked} of {stack.plan.n_slices} slices are acknowledged"
                raise StackError(what, where=str(key), do="image the missing slices before scoring")
            now_s = self._now()
            rows = result_rows.put_measurement(self._connection, key, measurement, latency_s=latency_s, now_s=now_s)
            if rows is not None:
                self._log_change(key, *rows, reason)
            self._set_state(key, StackState.SCORED, None, None, None)
            return rows is not None

    def update_related(self, key: StackKey, model_sha256: str, related: Related, reason: str) -> bool:
        """Write what a measurement is beside its controls; True where that changed the row. Every change is logged
        with `reason`. ConfigError where there is no such row.
        """
        if related.status not in (WellStatus.PROVISIONAL, WellStatus.FINAL):
            raise ConfigError(f"a result cannot be {related.status}", where=str(key), do="say provisional or final")
        with self._part():
            rows = result_rows.put_related(self._connection, key, model_sha256, related)
            if rows is not None:
                self._log_change(key, *rows, reason)
            return rows is not None

    def put_origin(self, key: StackKey, model_sha256: str, origin: ScoredFrom) -> None:
        """Keep of which images and masks a result is; again replaces it."""
        with self._part():
            scored_from.put(self._connection, key, model_sha256, origin)

    def put_stack_light(self, key: StackKey, light: StackLight) -> None:
        """Keep how bright a stack is; again replaces it. ConfigError where none was planned."""
        with self._part():
            self.plan(key)
            evidence_rows.put_light(self._connection, key, light, self._now())

    def put_patterns(self, key: StackKey, found: Mapping[str, PatternEstimate]) -> None:
        """Keep what a stack's raw frames say of their patterns; what was kept of it before stays."""
        with self._part():
            self.plan(key)
            sim_rows.put_patterns(self._connection, key, found, self._now())

    def put_sim_slices(self, key: StackKey, made: Sequence[SliceModulation]) -> None:
        """Keep how a stack's slices were made of raw frames; again replaces it."""
        with self._part():
            self.plan(key)
            sim_rows.put_slices(self._connection, key, made, self._now())

    def put_mask_evidence(self, key: StackKey, model_sha256: str, found: MaskEvidence) -> None:
        """Keep what one model's masks of a stack look like; again replaces it. ConfigError where none was planned."""
        with self._part():
            self.plan(key)
            evidence_rows.put_masks(self._connection, key, model_sha256, found, self._now())

    def put_focus(self, found: FocusFound) -> None:
        """Keep where a stack's focus was found; a later search replaces an earlier one."""
        from spheroidd.daemon.catalog import focus_rows

        with self.transaction():
            focus_rows.put(self._connection, found, self._now())

    def put_stack_profile(self, key: StackKey, profile: StackProfile) -> None:
        """Keep what a stack's images say of themselves; again is harmless. ConfigError where none was planned."""
        with self._part():
            self.plan(key)
            image_profile_rows.put(self._connection, key, profile, self._now())

    def _log_change(self, key: StackKey, old: dict[str, Any] | None, new: dict[str, Any], reason: str) -> None:
        entry = ResultChange(self._now(), key, new["model_sha256"], old, new, reason)
        change, sha256 = result_rows.put_change(self._connection, entry)
        self.append_event(
            audit.Action.RESULT_NEW if old is None else audit.Action.RESULT_CHANGED,
            plate=key.plate,
            well=str(key.well),
            new={"result_change": change, "sha256": sha256},
            reason=reason,
        )

    # The run

    def raise_fault(self, code: FaultCode, error: SpheroiddError, key: StackKey | None = None) -> None:
        """Write down what a person must know. A fault that stands keeps its time and takes the newest words."""
        values = {
            "code": code,
            "key": str(key or ""),
            "kind": type(error).__name__,
            "what": error.what,
            "location": error.where,
            "todo": error.do,
            "now": self._now(),
        }
        self._write(_RAISE_FAULT, values)

    def clear_fault(self, code: FaultCode, key: StackKey | None = None) -> None:
        """End a fault; harmless where none stands."""
        self._write(_CLEAR_FAULT, {"code": code, "key": str(key or ""), "now": self._now()})

    def set_run_state(self, state: RunState) -> None:
        """Replace what the daemon says of itself."""
        names = [field.name for field in fields(RunState)]
        columns, slots = ", ".join(names), ", ".join(f":{name}" for name in names)
        self._write(f"REPLACE INTO run_state (id, {columns}) VALUES (1, {slots})", asdict(state))


def _limits_told(limits: Mapping[str, Limits]) -> dict[str, Any]:
    """Limits as the audit trail names them."""
    new = {channel: asdict(value) for channel, value in limits.items()}
    return {"limits": new, "limits_sha256": audit.sha256_of(dump_limits(limits))}


def _storable(value: object) -> object:
    """Text with what UTF-8 cannot say, such as the bytes of an odd file name, escaped."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


_EXPECT = """
INSERT INTO stacks (plate, well, stack, plan_json, n_slices, state)
VALUES (:plate, :well, :stack, :plan, :n, 'queued') ON CONFLICT DO NOTHING
"""
_ACKNOWLEDGE = """
INSERT INTO slices (plate, well, stack, channel, z, crc32c, acquired_s, acked_s, metadata_json)
VALUES (:plate, :well, :stack, :channel, :z, :crc32c, :acquired_s, :acked_s, :metadata) ON CONFLICT DO NOTHING
"""
_KNOWN_CRC = f"SELECT crc32c FROM slices WHERE {OF_STACK} AND channel = :channel AND z = :z"
_BLOCK = """
INSERT INTO blocks (plate, well, stack, channel, z_start, z_stop)
VALUES (:plate, :well, :stack, :channel, :z_start, :z_stop) ON CONFLICT DO NOTHING
"""
_SET_STATE = f"""
UPDATE stacks SET state = :state, ended = :ended, reason = :reason, todo = :todo,
  opened_s = CASE WHEN :state = 'acquiring' THEN coalesce(opened_s, :now) ELSE opened_s END,
  sealed_s = CASE WHEN :state IN ('stored', 'incomplete') THEN coalesce(sealed_s, :now) ELSE sealed_s END,
  attempts = attempts + (:state = 'scoring')
WHERE {OF_STACK}
"""
_MEASURED = f"SELECT 1 FROM results WHERE {OF_STACK} LIMIT 1"
_RAISE_FAULT = """
INSERT INTO faults (code, key, kind, what, location, todo, raised_s)
VALUES (:code, :key, :kind, :what, :location, :todo, :now)
ON CONFLICT (code, key) WHERE cleared_s IS NULL
DO UPDATE SET kind = excluded.kind, what = excluded.what, location = excluded.location, todo = excluded.todo
"""
_CLEAR_FAULT = "UPDATE faults SET cleared_s = :now WHERE code = :code AND key = :key AND cleared_s IS NULL"
