"""The catalog's rows of results: a measurement as columns, what it was related to, their history, and all of it back.

`Catalog.record_measurement`, `Catalog.update_related` and the readers of results in `CatalogReader` are their callers.
"""

import json
import sqlite3
from collections.abc import Collection, Mapping
from dataclasses import fields
from enum import Enum
from functools import cache
from typing import Any, get_args, get_type_hints

from spheroidd.daemon.catalog.audit_chain import CHANGE_COLUMNS, change_digest
from spheroidd.daemon.catalog.current_stacks import current, excluded
from spheroidd.daemon.catalog.rows import (
    OF_STACK,
    Exclusion,
    MeasurementRow,
    ResultChange,
    ResultRow,
    RowStanding,
    StackState,
    annotations,
    dump,
    dump_limits,
    in_words,
    load_limits,
    parameters,
    stack_key,
    treatment,
)
from spheroidd.daemon.catalog.statements import change, put
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.result_columns import STORED, Origin, ResultColumn, from_stored, of, stored
from spheroidd.protocols.results import Related, StackMeasurement, WellResult, WellStatus
from spheroidd.protocols.stack import StackKey
from spheroidd.protocols.stack_end import StackEnd
from spheroidd.protocols.trust import Trust

Row = Mapping[str, Any]


def put_measurement(
    connection: sqlite3.Connection,
    key: StackKey,
    measurement: StackMeasurement,
    *,
    latency_s: float | None,
    now_s: float,
) -> tuple[dict[str, Any] | None, dict[str, Any]] | None:
    """Write a measurement as a provisional row inside the caller's transaction: the row before and after.

    None, and nothing is written, where the row says the same already but for the time that it took.
    """
    old = _row_of(connection, key, measurement.model_sha256)
    new = _columns(measurement)
    if old is not None and all(old[name] == value for name, value in new.items() if name not in _FOLLOWING):
        return None
    row = {
        **parameters(key),
        **_related_columns(Related(WellStatus.PROVISIONAL)),
        **new,
        "model_sha256": measurement.model_sha256,
        "cpu_s": measurement.cpu_s,
        "latency_s": latency_s,
        "measured_s": now_s,
    }
    put(connection, "results", row, _PRIMARY_KEY)
    return old, row


def put_related(
    connection: sqlite3.Connection, key: StackKey, model_sha256: str, related: Related
) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Write what a measurement is beside its controls inside the caller's transaction: the row before and after.

    None where it says so already. ConfigError where there is no such row.
    """
    old = _row_of(connection, key, model_sha256)
    if old is None:
        what = f"there is no result of model {model_sha256[:12]}"
        raise ConfigError(what, where=str(key), do="record its measurement first")
    new = _related_columns(related) | _following(old, withheld=related.trust is Trust.FAIL)
    if all(old[name] == value for name, value in new.items()):
        return None
    place = zip(_PRIMARY_KEY, (key.plate, str(key.well), key.stack, model_sha256), strict=True)
    change(connection, "results", dict(place), new)
    return old, {**old, **new}


def _following(old: Row, *, withheld: bool) -> dict[str, Any]:
    """The columns that follow from a row's measurement: as they stand there, read anew only where they do not."""
    if withheld:
        return dict.fromkeys(_FOLLOWING)
    if all(old[name] is not None for name in _FOLLOWING):
        return {name: old[name] for name in _FOLLOWING}
    measured = _measurement(old)
    return {name: getattr(measured, name) for name in _FOLLOWING}


def put_change(connection: sqlite3.Connection, entered: ResultChange) -> tuple[int, str]:
    """Add an entry to the history of results inside the caller's transaction; gives its id, and its hash."""
    entry = {
        **parameters(entered.key),
        "changed_s": float(entered.changed_s),  # as SQLite gives it back
        "model_sha256": entered.model_sha256,
        "old_json": None if entered.old is None else dump(entered.old),
        "new_json": dump(entered.new),
        "reason": entered.reason,
    }
    number = int(connection.execute(_CHANGE, entry).lastrowid or 0)
    return number, change_digest((number, *(entry[name] for name in CHANGE_COLUMNS)))


def measurements(
    connection: sqlite3.Connection, plate: str, model_sha256: str, *, all_stacks: bool
) -> list[MeasurementRow]:
    """See `CatalogReader.measurements`."""
    rows = connection.execute(_MEASUREMENTS, {"plate": plate, "model": model_sha256})
    found = [MeasurementRow(stack_key(row), treatment(row), _measurement(row), _related(row)) for row in rows]
    kept = None if all_stacks else current(connection, plate) - excluded(connection, plate).keys()
    return [row for row in found if kept is None or row.key in kept]


def measurement(connection: sqlite3.Connection, key: StackKey, model_sha256: str) -> StackMeasurement | None:
    """See `CatalogReader.measurement`."""
    sql = f"SELECT * FROM results WHERE {OF_STACK} AND model_sha256 = :model"
    row = connection.execute(sql, {**parameters(key), "model": model_sha256}).fetchone()
    return None if row is None else _measurement(row)


def standings(
    connection: sqlite3.Connection, plate: str | None, only: Collection[StackKey] | None = None
) -> list[RowStanding]:
    """See `CatalogReader.standings`; of all stacks."""
    values = {"plate": plate, "model": None, "only": _listed(only or ())}
    rows = connection.execute(_STANDINGS if only is None else _SOME_STANDINGS, values)
    return [
        RowStanding(
            stack_key(row),
            WellStatus(row["status"] if row["status"] is not None else _unmeasured(row)[0]),
            Trust(row["trust"]) if row["trust"] is not None else None,
            row["n_slices"],
            row["n_acked"],
            row["v_control"],
            _flags(row["trust_flags"]),
        )
        for row in rows
    ]


@cache
def _flags(stored_list: str | None) -> tuple[str, ...] | None:
    """Of a plate's rows few differ."""
    return None if stored_list is None else tuple(json.loads(stored_list))


def results(
    connection: sqlite3.Connection,
    plate: str | None,
    model_sha256: str | None,
    *,
    all_stacks: bool,
    only: Collection[StackKey] | None = None,
) -> list[ResultRow]:
    """See `CatalogReader.result_rows` and `rows_of`."""
    values: dict[str, Any] = {"plate": plate, "model": model_sha256}
    if only is None:
        rows = connection.execute(_RESULTS, values).fetchall()
    else:
        values["only"] = _listed(only)
        rows = connection.execute(_SOME_RESULTS, values).fetchall()
    kept = None if all_stacks else current(connection, plate)
    out = excluded(connection, plate)
    return [
        ResultRow(_result(row), treatment(row), _exclusion(row) or out.get(stack_key(row)), annotations(row))
        for row in rows
        if kept is None or row["state"] is None or stack_key(row) in kept
    ]


def _listed(keys: Collection[StackKey]) -> str:
    return dump([[key.plate, str(key.well), key.stack] for key in keys])


def excluded_wells(connection: sqlite3.Connection, plate: str) -> dict[str, Exclusion]:
    """See `CatalogReader.excluded_wells`."""
    rows = connection.execute("SELECT * FROM excluded_wells WHERE plate = ? ORDER BY well", (plate,))
    return {row["well"]: found for row in rows for found in [_exclusion(row)] if found}


def changes(connection: sqlite3.Connection, key: StackKey | None) -> list[ResultChange]:
    """See `CatalogReader.result_changes`."""
    where = OF_STACK if key else "1"
    sql = f"SELECT * FROM result_changes WHERE {where} ORDER BY id"
    return [_change(row) for row in connection.execute(sql, parameters(key) if key else {})]


def _row_of(connection: sqlite3.Connection, key: StackKey, model_sha256: str) -> dict[str, Any] | None:
    sql = f"SELECT * FROM results WHERE {OF_STACK} AND model_sha256 = :model"
    row = connection.execute(sql, {**parameters(key), "model": model_sha256}).fetchone()
    return None if row is None else dict(row)


def _columns(measurement: StackMeasurement) -> dict[str, Any]:
    """A measurement but for the time it took."""
    return {
        **{column.name: stored(getattr(measurement, column.name)) for column in of(Origin.MEASURED)},
        "live_um3_by_z_json": dump(list(measurement.live_um3_by_z)),
        "limits_json": dump_limits(measurement.limits),
        "quantiles_json": dump(measurement.quantiles),
    }


def _related_columns(related: Related) -> dict[str, Any]:
    return {column.name: stored(getattr(related, column.name)) for column in of(Origin.RELATED)}


def _related(row: Row) -> Related:
    return Related(**_loaded(Related, row, of(Origin.RELATED)))


def _measurement(row: Row) -> StackMeasurement:
    return StackMeasurement(
        live_um3_by_z=tuple(json.loads(row["live_um3_by_z_json"])),
        limits=load_limits(row["limits_json"]),
        model_sha256=row["model_sha256"],
        cpu_s=row["cpu_s"],
        quantiles=json.loads(row["quantiles_json"]),
        **_loaded(StackMeasurement, row, tuple(c for c in of(Origin.MEASURED) if c.name not in _FOLLOWING)),
    )


def _loaded(noun: type, row: Row, columns: tuple[ResultColumn, ...]) -> dict[str, Any]:
    """The columns of a row as the attributes of `noun`: a text that stands for an enumeration becomes its member."""
    words = _enumerations(noun)
    values = {column.name: from_stored(column.kind, row[column.name]) for column in columns}
    values |= {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
    return {n: words[n](value) if n in words and value is not None else value for n, value in values.items()}


@cache
def _enumerations(noun: type) -> dict[str, type[Enum]]:
    """The attributes of a noun that are of an enumeration, or of one or None."""
    return {
        name: kind
        for name, hint in get_type_hints(noun).items()
        for kind in (hint, *get_args(hint))
        if isinstance(kind, type) and issubclass(kind, Enum)
    }


def _result(row: Row) -> WellResult:
    measured = row["status"] is not None
    status, reason = (row["status"], row["reason"]) if measured else _unmeasured(row)
    return WellResult(
        plate=row["plate"],
        well=row["well"],
        stack=row["stack"],
        status=WellStatus(status),
        reason=reason,
        n_slices_expected=row["n_slices"],
        n_slices_acked=row["n_acked"],
        **_loaded(WellResult, row, _FIGURES),
    )


def _exclusion(row: Row) -> Exclusion | None:
    if row["exclusion_reason"] is None:
        return None
    return Exclusion(row["well"], row["exclusion_reason"], row["excluded_by"], row["excluded_at_utc"], row["plate"])


def _unmeasured(row: Row) -> tuple[str, str | None]:
    if row["ended"]:
        return StackEnd(row["ended"]).status, in_words(row["stack_reason"], row["todo"])
    state = StackState(row["state"] or StackState.QUEUED)
    if state is StackState.SCORED:  # by another model than the one asked for
        return WellStatus.STORED, "not scored by this model"
    return state.value, row["stack_reason"] or _WAITING.get(state)


def _change(row: Row) -> ResultChange:
    old = json.loads(row["old_json"]) if row["old_json"] else None
    new = json.loads(row["new_json"])
    return ResultChange(row["changed_s"], stack_key(row), row["model_sha256"], old, new, row["reason"])


_WAITING = {
    StackState.QUEUED: "not imaged yet",
    StackState.ACQUIRING: "its slices are arriving",
    StackState.STORED: "waits for the model",
    StackState.SCORING: "the model is at work",
}
_FIGURES = tuple(column for column in STORED if column.name not in ("status", "reason"))  # those the stack may give
_FOLLOWING = {column.name for column in of(Origin.MEASURED)} - {field.name for field in fields(StackMeasurement)}
"""Measured columns that are properties: they follow from the fields, and are withheld where the images failed."""
_PRIMARY_KEY = ("plate", "well", "stack", "model_sha256")
_CHANGE = """
INSERT INTO result_changes (plate, well, stack, changed_s, model_sha256, old_json, new_json, reason)
VALUES (:plate, :well, :stack, :changed_s, :model_sha256, :old_json, :new_json, :reason)
"""
_MEASUREMENTS = """
SELECT * FROM results JOIN wells USING (plate, well)
WHERE plate = :plate AND model_sha256 = :model ORDER BY wells.ordinal, stack
"""

# A stack that ended badly shows no figures, whatever an earlier model once said of it, unless that model is asked for
# by name; a stack with missing slices never does.
_SELECTED = """
SELECT {columns}
FROM {tables}
LEFT JOIN excluded_wells ON excluded_wells.plate = wells.plate AND excluded_wells.well = wells.well
LEFT JOIN results ON results.plate = stacks.plate AND results.well = stacks.well AND results.stack = stacks.stack
  AND stacks.state <> 'incomplete'
  AND CASE WHEN :model IS NULL
    THEN stacks.state = 'scored' AND NOT EXISTS (SELECT 1 FROM results AS later
      WHERE later.plate = stacks.plate AND later.well = stacks.well AND later.stack = stacks.stack
        AND later.model_sha256 <> results.model_sha256 AND (later.measured_s > results.measured_s
          OR later.measured_s = results.measured_s AND later.model_sha256 < results.model_sha256))
    ELSE results.model_sha256 = :model END
WHERE role <> 'empty' AND (:plate IS NULL OR wells.plate = :plate){where}
ORDER BY plates.created_s, wells.plate, wells.ordinal, stacks.stack
"""
_FROM = "plates JOIN wells USING (plate) LEFT JOIN stacks USING (plate, well)"
# What is asked for comes first, and each is looked up by its key; a well without a stack stands for its stack 0.
_FROM_ASKED = """(
  SELECT DISTINCT json_extract(value, '$[0]') AS plate, json_extract(value, '$[1]') AS well,
    json_extract(value, '$[2]') AS stack
  FROM json_each(:only)) AS asked
CROSS JOIN plates ON plates.plate = asked.plate
CROSS JOIN wells ON wells.plate = asked.plate AND wells.well = asked.well
LEFT JOIN stacks ON stacks.plate = asked.plate AND stacks.well = asked.well AND stacks.stack = asked.stack"""
_KEY = "wells.plate, wells.well, coalesce(stacks.stack, 0) AS stack"
_STANDS = """stacks.state, stacks.ended, stacks.reason AS stack_reason, stacks.todo,
  coalesce(stacks.n_slices, 0) AS n_slices, coalesce(stacks.n_acked, 0) AS n_acked"""
_COLUMNS = f"""{_KEY}, {_STANDS}, stacks.plan_json, role, compound, dose_um, patient, annotations_json,
  {", ".join(f"results.{column.name}" for column in STORED)}, excluded_at_utc, excluded_by, exclusion_reason"""
_STANDING = f"{_KEY}, {_STANDS}, results.status, results.trust, results.trust_flags, results.v_control"
_RESULTS = _SELECTED.format(columns=_COLUMNS, tables=_FROM, where="")
_STANDINGS = _SELECTED.format(columns=_STANDING, tables=_FROM, where="")
_SOME = """ AND (stacks.stack NOT NULL OR asked.stack = 0 AND NOT EXISTS (
  SELECT 1 FROM stacks AS any WHERE any.plate = asked.plate AND any.well = asked.well))"""
_SOME_STANDINGS = _SELECTED.format(columns=_STANDING, tables=_FROM_ASKED, where=_SOME)
_SOME_RESULTS = _SELECTED.format(columns=_COLUMNS, tables=_FROM_ASKED, where=_SOME)
