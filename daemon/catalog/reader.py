"""The questions that can be asked of a catalog. Plain sqlite3: a table is printed without importing anything heavy."""

import json
import sqlite3
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Set
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from spheroidd.daemon.catalog import (
    current_stacks,
    evidence_rows,
    image_profile_rows,
    result_rows,
    sim_rows,
    soundness,
)
from spheroidd.daemon.catalog.audit_chain import DECISIONS
from spheroidd.daemon.catalog.connection import BUSY_S, open_to_read
from spheroidd.daemon.catalog.plate_rows import plate_well
from spheroidd.daemon.catalog.rows import (
    OF_STACK,
    Exclusion,
    Fault,
    MeasurementRow,
    ResultChange,
    ResultRow,
    RowStanding,
    RunState,
    ScoredWith,
    StackRow,
    StackState,
    load_limits,
    load_plan,
    parameters,
    stack_key,
)
from spheroidd.daemon.catalog.transaction import translated
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.evidence import MaskEvidence, StackLight
from spheroidd.protocols.focus import FocusFound
from spheroidd.protocols.plate import PlateMap
from spheroidd.protocols.results import Limits, Normalisation, StackMeasurement, StackProfile, WellResult
from spheroidd.protocols.sim_pattern import KeepRaw, PatternEstimate, SliceModulation
from spheroidd.protocols.stack import Block, SliceIndex, StackKey, StackPlan
from spheroidd.protocols.stack_end import StackEnd
from spheroidd.protocols.well import WellId

Row = Mapping[str, Any]


class CatalogReader:
    """Reads a catalog over a connection of its own; use it in the thread that opened it."""

    def __init__(self, connection: sqlite3.Connection, path: Path, now: Callable[[], float]) -> None:
        self._connection, self.path, self._now = connection, path, now
        connection.row_factory = sqlite3.Row

    @classmethod
    def read_only(cls, data_dir: Path, *, busy_s: float = BUSY_S) -> Self:
        """Open an existing catalog for reading, a daemon running or not; ConfigError where there is none."""
        return cls(*open_to_read(data_dir, busy_s), time.time)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let the file go; may be called twice."""
        self._connection.close()

    def _rows(self, sql: str, arguments: Mapping[str, object] = MappingProxyType({})) -> list[dict[str, Any]]:
        with translated(self.path):
            return [dict(row) for row in self._connection.execute(sql, dict(arguments))]

    @property
    def connection(self) -> sqlite3.Connection:
        """The connection, for readers that stand in files of their own; writing is for `Catalog` alone."""
        return self._connection

    def query(self, sql: str, arguments: Mapping[str, object] = MappingProxyType({})) -> list[dict[str, Any]]:
        """The rows of any SELECT, for readers that stand in files of their own."""
        return self._rows(sql, arguments)

    def plain_rows(self, sql: str) -> list[tuple[Any, ...]]:
        """The rows of a SELECT as tuples: of a whole plate they take a fifth of the time of those with names."""
        cursor = self._connection.cursor()
        cursor.row_factory = None
        with translated(self.path):
            return cursor.execute(sql).fetchall()

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """All reads inside see the catalog as it is at the first of them, whatever a daemon writes meanwhile."""
        with translated(self.path):
            self._connection.execute("BEGIN")
        try:
            yield
        finally:
            self._connection.execute("ROLLBACK")

    # Plates

    def plates(self) -> list[str]:
        """The names of the plates, oldest first."""
        return [row["plate"] for row in self._rows("SELECT plate FROM plates ORDER BY created_s, plate")]

    def plate_map(self, plate: str) -> PlateMap:
        """The map a plate was registered with; ConfigError for a plate that was not."""
        rows = self._rows("SELECT * FROM wells WHERE plate = :plate ORDER BY ordinal", {"plate": plate})
        if not rows:
            raise ConfigError(f"there is no plate {plate!r}", where=str(self.path), do=f"choose of {self.plates()}")
        return PlateMap(plate, tuple(plate_well(row) for row in rows))

    def plate_config(self, plate: str) -> str:
        """The configuration (JSON) that a plate was last run with."""
        rows = self._rows("SELECT config_json FROM plates WHERE plate = :plate", {"plate": plate})
        if not rows:
            raise ConfigError(f"there is no plate {plate!r}", where=str(self.path), do=f"choose of {self.plates()}")
        return str(rows[0]["config_json"])

    def plate_inference(self, plate: str) -> dict[str, Any]:
        """The [inference] table of that configuration."""
        return dict(json.loads(self.plate_config(plate)).get("inference", {}))

    def keep_raw(self, plate: str) -> KeepRaw:
        """How long that configuration keeps raw frames."""
        return KeepRaw(json.loads(self.plate_config(plate)).get("store", {}).get("keep_raw", KeepRaw.ALL))

    def locked_limits(self, plate: str) -> dict[str, Limits] | None:
        """The plate's intensity limits per channel; None as long as none are locked."""
        rows = self._rows("SELECT limits_json FROM plates WHERE plate = :plate", {"plate": plate})
        return load_limits(rows[0]["limits_json"]) if rows and rows[0]["limits_json"] else None

    # Stacks and their ledger

    def stacks(self, plate: str | None = None) -> list[StackRow]:
        """Every planned stack, by plate, in the map's order of wells."""
        return [_stack_row(row) for row in self._rows(_STACKS, {"plate": plate})]

    def stack(self, key: StackKey) -> StackRow:
        """One planned stack; ConfigError where none was planned."""
        rows = self._rows(f"SELECT * FROM stacks WHERE {OF_STACK}", parameters(key))
        if not rows:
            raise ConfigError(
                f"no stack {key} was planned", where=str(self.path), do="`spheroidd results` lists those that were"
            )
        return _stack_row(rows[0])

    def slices_of(self, plate: str) -> tuple[int, int]:
        """How many slices the planned stacks of a plate have, and how many of them are acknowledged."""
        sql = """SELECT coalesce(sum(n_slices), 0) AS planned, coalesce(sum(n_acked), 0) AS acked
                 FROM stacks WHERE plate = :plate"""
        row = self._rows(sql, {"plate": plate})[0]
        return int(row["planned"]), int(row["acked"])

    def plan(self, key: StackKey) -> StackPlan:
        """A stack's promised geometry; ConfigError where none was planned."""
        rows = self._rows(f"SELECT plan_json FROM stacks WHERE {OF_STACK}", parameters(key))
        if not rows:
            raise ConfigError(
                f"no stack {key} was planned", where=str(self.path), do="`spheroidd results` lists those that were"
            )
        return load_plan(key, rows[0]["plan_json"])

    def plan_to_come(self, plate: str) -> StackPlan | None:
        """The geometry of a stack of a plate that is still to be scored, else of any; None where none is planned."""
        sql = "SELECT * FROM stacks WHERE plate = :plate ORDER BY state IN ('scored', 'failed', 'incomplete') LIMIT 1"
        rows = self._rows(sql, {"plate": plate})
        return load_plan(stack_key(rows[0]), rows[0]["plan_json"]) if rows else None

    def state(self, key: StackKey) -> StackState:
        """Where a stack is on its way; ConfigError where none was planned."""
        return self.stack(key).state

    def acknowledged(self, key: StackKey) -> dict[SliceIndex, int]:
        """The ledger of a stack: every acknowledged camera image and its crc32c; nothing of one that is not planned."""
        rows = self._rows(f"SELECT channel, z, crc32c FROM slices WHERE {OF_STACK}", parameters(key))
        if not rows:
            return {}
        plan = self.plan(key)
        return {plan.index_at(row["channel"], row["z"]): row["crc32c"] for row in rows}

    def blocks(self, key: StackKey, after: int = 0) -> list[tuple[int, Block]]:
        """The blocks announced since the cursor `after`, oldest first, each with its cursor; each block comes once."""
        sql = f"SELECT * FROM blocks WHERE {OF_STACK} AND id > :after ORDER BY id"
        rows = self._rows(sql, {**parameters(key), "after": after})
        return [(row["id"], Block(key, row["channel"], row["z_start"], row["z_stop"])) for row in rows]

    # Results

    def measurements(self, plate: str, model_sha256: str, *, all_stacks: bool = False) -> list[MeasurementRow]:
        """The measurements of a plate by one model that count, in the map's order of wells; see `current_stacks`.

        `all_stacks` gives those of earlier and excluded stacks of a well too.
        """
        with translated(self.path):
            return result_rows.measurements(self._connection, plate, model_sha256, all_stacks=all_stacks)

    def measurement(self, key: StackKey, model_sha256: str) -> StackMeasurement | None:
        """The measurement of one stack by one model; None where there is none."""
        with translated(self.path):
            return result_rows.measurement(self._connection, key, model_sha256)

    def measured(self, plate: str, model_sha256: str) -> list[StackKey]:
        """The stacks of a plate that one model has measured."""
        sql = "SELECT plate, well, stack FROM results WHERE plate = :plate AND model_sha256 = :model"
        return [stack_key(row) for row in self._rows(sql, {"plate": plate, "model": model_sha256})]

    def models(self, plate: str | None = None) -> list[str]:
        """The digests of the models that have rows, the latest used first."""
        sql = """SELECT model_sha256 FROM results WHERE :plate IS NULL OR plate = :plate
                 GROUP BY model_sha256 ORDER BY max(measured_s) DESC, model_sha256"""
        return [row["model_sha256"] for row in self._rows(sql, {"plate": plate})]

    def results(
        self, plate: str | None = None, model_sha256: str | None = None, *, all_stacks: bool = False
    ) -> list[WellResult]:
        """One result for each current stack of every imaged well; see `result_rows`."""
        return [row.result for row in self.result_rows(plate, model_sha256, all_stacks=all_stacks)]

    def result_rows(
        self, plate: str | None = None, model_sha256: str | None = None, *, all_stacks: bool = False
    ) -> list[ResultRow]:
        """One row for each current stack of every imaged well, in the map's order, by one model or the stack's latest.

        Where there is no measurement the state of the stack stands with its reason, and every figure is None.
        `all_stacks` gives a row for each planned stack; which of them are current, `current_stacks` says.
        """
        with translated(self.path):
            return result_rows.results(self._connection, plate, model_sha256, all_stacks=all_stacks)

    def rows_under_way(self, plate: str | None = None) -> list[ResultRow]:
        """The same, and the repeats that are still to come or failed after what counts: what a person watches."""
        keys = {standing.key for standing in self.standings(plate)}
        return [row for row in self.result_rows(plate, all_stacks=True) if row.key in keys]

    def results_changed(self, plate: str, after: int) -> tuple[int, list[StackKey]]:
        """The stacks of a plate whose rows changed since the cursor `after`, and the new cursor."""
        sql = "SELECT id, plate, well, stack FROM result_changes WHERE id > :after"
        rows = self._rows(sql, {"after": after})
        return max((row["id"] for row in rows), default=after), [stack_key(r) for r in rows if r["plate"] == plate]

    def standings(self, plate: str | None = None, only: Collection[StackKey] | None = None) -> list[RowStanding]:
        """How each row under way stands, without its figures: a fraction of what reading the rows costs.

        With `only` of these stacks, whether or not another one of their well counts.
        """
        with translated(self.path):
            found = result_rows.standings(self._connection, plate, only)
        if only is not None or not self._imaged_again(plate):
            return found
        current = self.current_stacks(plate)
        newest: dict[tuple[str, WellId], int] = {}
        for key in current:
            newest[key.plate, key.well] = max(key.stack, newest.get((key.plate, key.well), 0))
        return [one for one in found if _is_news(one, current, newest)]

    def _imaged_again(self, plate: str | None) -> bool:
        """Whether some place of a well may have more than one stack: else all of them are current."""
        sql = """SELECT EXISTS (SELECT 1 FROM stacks JOIN plates USING (plate)
                 WHERE (:plate IS NULL OR plate = :plate) AND (n_fields IS NULL OR stack >= n_fields)) AS again"""
        return bool(self._rows(sql, {"plate": plate})[0]["again"])

    def rows_of(self, keys: Collection[StackKey]) -> list[ResultRow]:
        """The rows of some stacks, in the map's order."""
        with translated(self.path):
            return result_rows.results(self._connection, None, None, all_stacks=True, only=keys)

    def current_stacks(self, plate: str | None = None) -> set[StackKey]:
        """The stacks that count, of a plate or of all: one of those of each place that was imaged more than once."""
        with translated(self.path):
            return current_stacks.current(self._connection, plate)

    def excluded_stacks(self, plate: str | None = None) -> dict[StackKey, Exclusion]:
        """The stacks that a person excluded, of a plate or of all."""
        with translated(self.path):
            return current_stacks.excluded(self._connection, plate)

    def wells_left_out(self, plate: str) -> dict[str, Exclusion]:
        """The wells of a plate that enter no figure, by name: excluded themselves, or with every stack that counts."""
        with translated(self.path):
            return current_stacks.wells_without(self._connection, plate) | self.excluded_wells(plate)

    def n_fields(self, plate: str) -> int:
        """How many places of a well are imaged: its stacks from this number on are the same places again."""
        rows = self._rows("SELECT n_fields FROM plates WHERE plate = :plate", {"plate": plate})
        return max(1, rows[0]["n_fields"] or 1) if rows else 1

    def excluded_wells(self, plate: str) -> dict[str, Exclusion]:
        """The wells of a plate that a person excluded, by name ("B03")."""
        with translated(self.path):
            return result_rows.excluded_wells(self._connection, plate)

    def last_decision(self, after: int = 0) -> int:
        """The number of the newest event by which a person changed what counts; `after` where none came since.

        What was asked once need not be asked of the whole trail again.
        """
        names = ", ".join(f"'{action}'" for action in DECISIONS)
        sql = f"SELECT max(seq) AS seq FROM audit WHERE seq > :after AND action IN ({names})"
        return self._rows(sql, {"after": after})[0]["seq"] or after

    def result_changes(self, key: StackKey | None = None) -> list[ResultChange]:
        """The history of every result row, or of one stack's, oldest first."""
        with translated(self.path):
            return result_rows.changes(self._connection, key)

    def scored_with(self, plate: str, model_sha256: str) -> dict[StackKey, ScoredWith]:
        """What each stack was scored with by one model."""
        sql = """SELECT plate, well, stack, limits_json, normalisation, cell_diameter_um FROM results
                 WHERE plate = :plate AND model_sha256 = :model"""
        return {
            stack_key(row): ScoredWith(
                load_limits(row["limits_json"]) if row["normalisation"] == Normalisation.PLATE else None,
                row["cell_diameter_um"],
            )
            for row in self._rows(sql, {"plate": plate, "model": model_sha256})
        }

    def stack_lights(self, plate: str) -> dict[StackKey, StackLight]:
        """How bright each stack of a plate is; one that was not measured is not among them."""
        with translated(self.path):
            return evidence_rows.lights(self._connection, plate)

    def stack_light(self, key: StackKey) -> StackLight | None:
        """How bright one stack is; None where it was not measured."""
        with translated(self.path):
            return evidence_rows.lights(self._connection, key.plate, key).get(key)

    def stack_profile(self, key: StackKey) -> StackProfile | None:
        """What one stack's images say of themselves; None where they were not measured."""
        with translated(self.path):
            return image_profile_rows.profiles(self._connection, key.plate, key).get(key)

    def masks_of(self, key: StackKey, model_sha256: str) -> MaskEvidence | None:
        """What one model's masks of one stack look like; None where that is not known."""
        with translated(self.path):
            return evidence_rows.masks(self._connection, key.plate, model_sha256, key).get(key)

    def sim_patterns(self, plate: str) -> dict[StackKey, dict[str, PatternEstimate]]:
        """The patterns that were found in a plate's raw frames, by stack and channel, the first first."""
        with translated(self.path):
            return sim_rows.patterns(self._connection, plate)

    def given_patterns(self, plate: str) -> dict[str, PatternEstimate]:
        """The patterns that were known before a plate was imaged, by channel."""
        return sim_rows.given(self.plate_config(plate))

    def sim_slices(self, plate: str) -> dict[StackKey, tuple[SliceModulation, ...]]:
        """How each slice of a plate's stacks was made of raw frames; other stacks are not among them."""
        with translated(self.path):
            return sim_rows.slices(self._connection, plate)

    def is_widefield(self, key: StackKey) -> bool:
        """Whether a stack of raw frames was made without a pattern; see `sim_rows`."""
        with translated(self.path):
            return sim_rows.is_widefield(self._connection, key)

    def mask_evidence(self, plate: str, model_sha256: str) -> dict[StackKey, MaskEvidence]:
        """What one model's masks of a plate's stacks look like; of rows of an older version nothing is known."""
        with translated(self.path):
            return evidence_rows.masks(self._connection, plate, model_sha256)

    def focus_map(self, plate: str) -> list[FocusFound]:
        """Where the focus of a plate's stacks was found, in the order in which it was looked for."""
        from spheroidd.daemon.catalog import focus_rows

        with translated(self.path):
            return focus_rows.of_plate(self._connection, plate)

    def stack_profiles(self, plate: str) -> dict[StackKey, StackProfile]:
        """What the images of a plate's stacks say of themselves; a stack that was not measured is not among them."""
        with translated(self.path):
            return image_profile_rows.profiles(self._connection, plate)

    def repeated_slices(self, plate: str) -> dict[StackKey, tuple[SliceIndex, ...]]:
        """The slices of a plate whose bytes are those of the slice below them or of the other channel."""
        with translated(self.path):
            found = image_profile_rows.repeated(self._connection, plate)
        plans = {key: self.plan(key) for key in found}
        return {key: tuple(plans[key].index_at(*index) for index in slices) for key, slices in found.items()}

    # The run

    def faults(self, open_only: bool = True) -> list[Fault]:
        """Faults, oldest first: those that stand, or all there ever were."""
        where = "WHERE cleared_s IS NULL" if open_only else ""
        rows = self._rows(f"SELECT * FROM faults {where} ORDER BY id")
        return [
            Fault(r["code"], r["key"], r["kind"], r["what"], r["location"], r["todo"], r["raised_s"], r["cleared_s"])
            for r in rows
        ]

    def run_state(self) -> RunState | None:
        """What the last daemon said of itself; None before the first run."""
        rows = self._rows("SELECT * FROM run_state")
        return RunState(**{name: rows[0][name] for name in RunState.__slots__}) if rows else None

    def verify(self) -> list[str]:
        """Check the file and the ledger's rules; what is wrong, in words, and nothing where all is well."""
        return soundness.problems_of(self)

    def ledger_problems(self, stack: StackRow) -> list[str]:
        """Where a stack's rows break the ledger's rules, in words."""
        promised = set(stack.plan.indices())
        found = self.acknowledged(stack.key)
        problems = [f"{index} is in the ledger but not in the plan" for index in found.keys() - promised]
        missing = len(promised - found.keys())
        if stack.n_slices_acked != len(found):
            problems.append(f"{stack.n_slices_acked} slices are counted where the ledger has {len(found)}")
        if missing and stack.state in (StackState.STORED, StackState.SCORING, StackState.SCORED):
            problems.append(f"it is {stack.state} although {missing} slices are missing")
        for _, block in self.blocks(stack.key):
            each = stack.plan.frames_per_slice
            planes = range(block.z_start * each, block.z_stop * each)
            if not {stack.plan.index_at(block.channel, plane) for plane in planes} <= promised:
                problems.append(f"{block} is not in the plan")
        scored = self._rows(f"SELECT count(*) AS n FROM results WHERE {OF_STACK}", parameters(stack.key))[0]["n"]
        if stack.state is StackState.SCORED and not scored:
            problems.append("it is scored but has no result")
        if scored and missing:
            problems.append(f"it has a result although {missing} slices are missing")
        return problems


_STACKS = """
SELECT stacks.* FROM stacks JOIN wells USING (plate, well) JOIN plates USING (plate)
WHERE :plate IS NULL OR plate = :plate
ORDER BY plates.created_s, plate, wells.ordinal, stack
"""


def _is_news(one: RowStanding, current: Set[StackKey], newest: Mapping[tuple[str, WellId], int]) -> bool:
    if one.key in current or not one.n_slices_expected or one.status.is_to_come:
        return True
    return one.status.went_wrong and one.key.stack > newest.get((one.key.plate, one.key.well), -1)


def _stack_row(row: Row) -> StackRow:
    key = stack_key(row)
    return StackRow(
        key,
        load_plan(key, row["plan_json"]),
        StackState(row["state"]),
        StackEnd(row["ended"]) if row["ended"] else None,
        row["reason"],
        row["todo"],
        row["opened_s"],
        row["last_acked_s"],
        row["sealed_s"],
        row["attempts"],
        row["n_acked"],
    )
