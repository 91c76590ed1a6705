"""What the catalog gives back: its rows as frozen objects, and their form in JSON."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from spheroidd.protocols.errors import RowRefusedError
from spheroidd.protocols.plate import Treatment, WellRole
from spheroidd.protocols.result_columns import ROW, Origin, plain
from spheroidd.protocols.results import Limits, Related, StackMeasurement, WellResult, WellStatus
from spheroidd.protocols.sim_pattern import pattern_from
from spheroidd.protocols.stack import StackKey, StackPlan
from spheroidd.protocols.stack_end import StackEnd
from spheroidd.protocols.trust import Trust
from spheroidd.protocols.well import WellId


class StackState(StrEnum):
    """How far a stack has come. What became of its viability (provisional, final) stands in its result row."""

    QUEUED = "queued"
    ACQUIRING = "acquiring"
    STORED = "stored"  # every promised slice is acknowledged and in Zarr
    SCORING = "scoring"
    SCORED = "scored"
    FAILED = "failed"
    INCOMPLETE = "incomplete"  # it ended with slices missing


@dataclass(frozen=True, slots=True)
class ScoredWith:
    """What a row was made with that may be another by now: the plate's limits (None where they were the stack's own),
    and how wide cells were taken to be (None: as usual).
    """

    limits: Mapping[str, Limits] | None
    cell_um: float | None


@dataclass(frozen=True, slots=True)
class StackRow:
    """A stack's plan and how far it has come. Times are seconds since 1970; attempts counts starts of scoring.

    `end` is None unless the state is failed or incomplete; `reason` is what happened, `todo` what to do about it.
    """

    key: StackKey
    plan: StackPlan
    state: StackState
    end: StackEnd | None
    reason: str | None
    todo: str | None
    opened_s: float | None
    last_acked_s: float | None
    sealed_s: float | None
    attempts: int
    n_slices_acked: int

    @property
    def complete(self) -> bool:
        """Every promised slice is acknowledged."""
        return self.n_slices_acked == self.plan.n_slices

    @property
    def whole(self) -> bool:
        """It needs no further frame and no seal."""
        return self.complete and self.sealed_s is not None and self.state is not StackState.FAILED


@dataclass(frozen=True, slots=True)
class MeasurementRow:
    """A stored measurement with the treatment of its well and what it was last related to."""

    key: StackKey
    treatment: Treatment
    measurement: StackMeasurement
    related: Related


@dataclass(frozen=True, slots=True)
class Exclusion:
    """A well that a person left out of every summary, why, who and when (ISO 8601, UTC)."""

    well: str
    reason: str
    who: str
    at_utc: str
    plate: str = ""


@dataclass(frozen=True, slots=True)
class ResultRow:
    """One line of the results: the result itself, the well's treatment, its exclusion where a person made one, and
    further columns of the plate map.
    """

    result: WellResult
    treatment: Treatment
    exclusion: Exclusion | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> StackKey:
        """The stack it is of."""
        return StackKey(self.result.plate, WellId.parse(self.result.well), self.result.stack)

    @property
    def to_look_at(self) -> bool:
        """Somebody must look at it: its images are doubtful or failed, and nobody took the well out."""
        return self.exclusion is None and self.result.trust in (Trust.CHECK, Trust.FAIL)

    @property
    def went_wrong(self) -> bool:
        """It could not be imaged, read or scored, and nobody took the well out."""
        return self.exclusion is None and self.result.status.went_wrong

    def values(self) -> dict[str, Any]:
        """The row as plain values by column, None for what is not known."""
        out = self.exclusion
        told = (out is not None, out and out.reason, out and out.who, out and out.at_utc)
        beside = {**dict(zip(_EXCLUSION, told, strict=True)), "annotations": plain(self.annotations) or None}
        return {
            column.name: beside[column.name]
            if column.name in beside
            else plain(getattr(self.treatment if column.origin is Origin.TREATMENT else self.result, column.name))
            for column in ROW
        }


@dataclass(frozen=True, slots=True)
class RowStanding:
    """How one line of the results stands, without its figures but for the one that is told while a plate runs."""

    key: StackKey
    status: WellStatus
    trust: Trust | None
    n_slices_expected: int
    n_slices_acked: int
    v_control: float | None
    trust_flags: tuple[str, ...] | None

    @property
    def bare(self) -> WellResult:
        """The row with what is known here, and None for all else."""
        counts = {"n_slices_expected": self.n_slices_expected, "n_slices_acked": self.n_slices_acked}
        trust = {"trust": self.trust, "trust_flags": self.trust_flags}
        return bare_result(self.key.plate, str(self.key.well), self.key.stack, self.status, **counts, **trust)


def bare_result(plate: str, well: str, stack: int, status: WellStatus, **more: Any) -> WellResult:
    """A row of which no more is known than is given."""
    return WellResult(**{**_BARE, "plate": plate, "well": well, "stack": stack, "status": status, **more})


_BARE: dict[str, Any] = dict.fromkeys(field.name for field in fields(WellResult)) | {
    "n_slices_expected": 0,
    "n_slices_acked": 0,
}


@dataclass(frozen=True, slots=True)
class ResultChange:
    """One entry of the history of results; `old` is None where the row was new."""

    changed_s: float
    key: StackKey
    model_sha256: str
    old: dict[str, Any] | None
    new: dict[str, Any]
    reason: str


@dataclass(frozen=True, slots=True)
class Fault:
    """Something a person must know of. `key` names the stack, or is empty; `kind` is the error's class."""

    code: str
    key: str
    kind: str
    what: str
    where: str
    do: str
    raised_s: float
    cleared_s: float | None


@dataclass(frozen=True, slots=True)
class RunState:
    """What the daemon says of itself about once a second. `worker` is a word such as "idle" or "scoring P1/A01/0"."""

    version: str
    pid: int
    state: str
    started_s: float
    heartbeat_s: float
    worker: str = "idle"
    plate: str | None = None
    well: str | None = None
    stack: int | None = None
    slices_done: int = 0
    slices_total: int = 0
    slices_per_s: float | None = None
    eta_s: float | None = None


_TEXT = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)


def dump(value: object) -> str:
    """One text for equal values: sorted keys, no blanks. RowRefusedError for NaN, infinity and what JSON cannot say."""
    try:
        return _TEXT.encode(value)
    except (TypeError, ValueError, RecursionError) as error:
        do = "correct what gave this value"
        raise RowRefusedError(f"a value cannot be written down: {error}", where="catalog", do=do) from error


def dump_plan(plan: StackPlan) -> str:
    """A plan's geometry; its key stands in the row's own columns."""
    fields = {name: getattr(plan, name) for name in _GEOMETRY}
    raw = {} if plan.raw is None else {"raw": asdict(plan.raw)}
    return dump({**fields, **raw, "channels": list(plan.channels), "slice_period_s": plan.slice_period_s})


def load_plan(key: StackKey, text: str) -> StackPlan:
    """The inverse of `dump_plan`."""
    return StackPlan(key, **_geometry(text))


@lru_cache(maxsize=64)  # a plate's stacks have the same, and each is asked for it often
def _geometry(text: str) -> Mapping[str, Any]:
    fields = json.loads(text)
    raw = {"raw": pattern_from(fields["raw"])} if "raw" in fields else {}
    return MappingProxyType({**fields, "channels": tuple(fields["channels"]), **raw})


def geometry_differences(one: StackPlan, other: StackPlan) -> list[str]:
    """What differs between two plans of a stack, in words; the pace is no part of the geometry."""
    names = (*_GEOMETRY, "channels", "raw")
    return [f"{n} {getattr(one, n)} -> {getattr(other, n)}" for n in names if getattr(one, n) != getattr(other, n)]


def dump_limits(limits: Mapping[str, Limits]) -> str:
    """Limits per channel."""
    return dump({channel: asdict(value) for channel, value in limits.items()})


def load_limits(text: str) -> dict[str, Limits]:
    """The inverse of `dump_limits`."""
    return {channel: Limits(**value) for channel, value in json.loads(text).items()}


STACK_STATUS = "CASE ended WHEN 'short' THEN 'incomplete' ELSE coalesce(ended, state) END"
"""A stack's state as the results name it: skipped, aborted and stopped ones by their own word."""


def in_words(reason: str | None, todo: str | None) -> str | None:
    """What happened and what to do about it, in one sentence; None where there is nothing to say."""
    return "; ".join(filter(None, (reason, todo))) or None


def stack_key(row: Mapping[str, Any]) -> StackKey:
    """The key in a row's columns plate, well and stack."""
    return _key(row["plate"], row["well"], row["stack"])


@lru_cache(maxsize=1 << 14)  # the keys of a plate are asked for again and again, and their wells' names are parsed
def _key(plate: str, well: str, stack: int) -> StackKey:
    return StackKey(plate, WellId.parse(well), stack)


def parameters(key: StackKey) -> dict[str, str | int]:
    """A key as the named parameters :plate, :well and :stack."""
    return {"plate": key.plate, "well": str(key.well), "stack": key.stack}


def treatment(row: Mapping[str, Any]) -> Treatment:
    """The treatment in a well's columns role, compound, dose_um and patient."""
    return Treatment(WellRole(row["role"]), row["compound"], row["dose_um"], row["patient"])


def annotations(row: Mapping[str, Any]) -> Mapping[str, str]:
    """What else the map says of a well, by the titles of its columns."""
    return MappingProxyType(dict(json.loads(row["annotations_json"] or "{}")))


OF_STACK = "plate = :plate AND well = :well AND stack = :stack"
"""The rows of one stack, given `parameters`."""
_EXCLUSION = ("excluded", "exclusion_reason", "excluded_by", "excluded_at_utc")
_GEOMETRY = ("n_z", "height", "width", "pixel_um", "z_step_um", "dtype")
