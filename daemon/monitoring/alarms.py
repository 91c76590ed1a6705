"""What a person must know of now: alarms are the catalog's open faults, each with one beginning and one end.

Some faults are raised where they happen (an instrument that gave up, a full disk). The others follow from the state
alone: `alarm_conditions` finds them, and `settle` writes them down, in main's transaction. Both may be done again at
any time, after a crash too: the same state makes the same alarms.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from spheroidd.daemon.catalog.reader import CatalogReader
from spheroidd.daemon.catalog.rows import RunState
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.monitoring.status import unwritten_faults
from spheroidd.daemon.system.lock import is_locked
from spheroidd.protocols.errors import SpheroiddError
from spheroidd.protocols.faults import EndedBy, FaultCode, Severity, known, severity
from spheroidd.protocols.stack import StackKey

UNDELIVERED = MappingProxyType(
    {"webhook": FaultCode.WEBHOOK_UNDELIVERED, "email": FaultCode.EMAIL_UNDELIVERED}
)  # by receiver
STEADY_S = 60.0  # a worker that has lived so long has come back

Place = tuple[FaultCode, StackKey | None]  # a fault's code and key: one of them stands at a time


@dataclass(frozen=True, slots=True)
class Alarm:
    """An open fault, for whoever shows it. `key` names a stack or is empty; `severity` is critical or warning."""

    id: int
    code: str
    key: str
    severity: Severity
    what: str
    where: str
    do: str
    raised_s: float


def open_alarms(catalog: CatalogReader) -> list[Alarm]:
    """What stands now, critical alarms first, the oldest of each first."""
    rows = catalog.query("SELECT * FROM faults WHERE cleared_s IS NULL ORDER BY id")
    found = [
        Alarm(r["id"], r["code"], r["key"], severity(r["code"]), r["what"], r["location"], r["todo"], r["raised_s"])
        for r in rows
    ]
    return sorted(found, key=lambda alarm: alarm.severity is not Severity.CRITICAL)


def alarms_now(data_dir: Path, catalog: CatalogReader) -> list[Alarm]:
    """`open_alarms`, and what the daemon cannot write down there: seen from here, as `status` sees it."""
    found = [
        Alarm(0, fault.code, fault.key, severity(fault.code), fault.what, fault.where, fault.do, fault.raised_s)
        for fault in unwritten_faults(data_dir, running=bool(is_locked(data_dir)), now_s=time.time())
    ]
    return [*found, *open_alarms(catalog)]


def settle(catalog: Catalog, wanted: Mapping[Place, SpheroiddError], now_s: float) -> None:
    """Raise what is not open yet, and end what is over. Writes nothing where nothing changed."""
    stands = {(row["code"], row["key"]): row for row in catalog.query("SELECT * FROM faults WHERE cleared_s IS NULL")}
    wanted_places = {(str(code), str(key or "")) for code, key in wanted}
    with catalog.transaction():
        for (code, key), error in wanted.items():
            row = stands.get((code, str(key or "")))
            if row is None or (row["what"], row["location"], row["todo"]) != (error.what, error.where, error.do):
                catalog.raise_fault(code, error, key)
        run = catalog.run_state()
        for (text, name), row in stands.items():
            row_code = known(text)
            if row_code is None:  # a newer or an outside program's own
                continue
            gone = row_code.ended_by is EndedBy.LOOK and (text, name) not in wanted_places
            if gone or (row_code.ended_by is EndedBy.EVENT and _is_over(catalog, row_code, row, run, now_s)):
                catalog.clear_fault(row_code, _key(name))


def _is_over(
    catalog: CatalogReader, code: FaultCode, row: Mapping[str, Any], run: RunState | None, now_s: float
) -> bool:
    """Whether a fault that was raised where it happened, and that nobody there can end, is over."""
    if run is None or run.state == "starting":
        return False
    match code:
        case FaultCode.DAEMON_KILLED | FaultCode.DAEMON_BROKEN:
            return True  # it runs again
        case FaultCode.WORKER_RESTARTED:
            steady = run.worker != "starting" and now_s - float(row["raised_s"]) > STEADY_S
            return steady or run.state in ("stopped", "idle")
        case FaultCode.INSTRUMENT if row["key"]:
            return catalog.stack(StackKey.parse(row["key"])).complete
        case FaultCode.NO_PLATE_LIMITS:
            return catalog.locked_limits(row["location"]) is not None
    return False


def _key(name: str) -> StackKey | None:
    return StackKey.parse(name) if name else None
