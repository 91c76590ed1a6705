"""Runs `spheroidd` with one call of the operating system or of SQLite going wrong, in the daemon or in its worker.

`FAULT=daemon:ledger-commit:kill-after:7:1 python -m tests.faults.interposed run plate.toml` kills the daemon after its
seventh commit of the ledger. The parts: which process, the point, what happens there, at which call, and how often.
What happens: `kill-before`, `kill-after`, `short` (half of it is written), `clock=SECONDS` (from then on the wall clock
is that far off) or the name of an errno. `FAULT_FIRED` names a file that is made just before it happens.
"""

import errno
import os
import signal
import sqlite3
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from spheroidd.acquisition.disk import durable_file
from spheroidd.acquisition.store import ring_file
from spheroidd.protocols import durable

# Where each call is looked up. The ledger's are SQLite's own, see `Ledger`.
POINTS: dict[str, tuple[tuple[Any, str], ...]] = {
    "ring-write": ((os, "pwritev"),),
    "ring-sync": ((ring_file, "sync_data"),),
    "shard-write": ((durable_file, "write_some"),),
    "shard-sync": ((durable_file, "sync_data"),),
    "shard-rename": ((durable_file, "replace_path"),),
    "shard-names": ((durable_file, "sync_directory"),),
    "file-sync": ((durable, "sync_data"),),
    "file-rename": ((durable, "replace_path"),),
    "ledger-begin": (),
    "ledger-commit": (),
}
TRUE_S = time.time
SQL = {"BEGIN IMMEDIATE": "ledger-begin", "COMMIT": "ledger-commit"}
SQLITE = {"ENOSPC": ("SQLITE_FULL", "database or disk is full"), "EROFS": ("SQLITE_READONLY", "attempt to write")}


class Trigger:
    """Counts the calls of one point, and does what was asked for at its time."""

    def __init__(self, what: str, first: int, times: int) -> None:
        self.what, self.first, self.last = what, first, first + times
        self.count = 0

    def around(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """The call, or what happens in its place."""
        self.count += 1
        if not self.first <= self.count < self.last:
            return call(*args, **kwargs)
        Path(os.environ["FAULT_FIRED"]).touch()
        if self.what == "kill-before":
            _end()
        if self.what == "short":
            return call(args[0], args[1][: max(1, len(args[1]) // 2)], **kwargs)
        if self.what.startswith("clock="):
            _set_clock(float(self.what.removeprefix("clock=")))
        elif self.what != "kill-after":
            number = getattr(errno, self.what)
            raise OSError(number, os.strerror(number))
        result = call(*args, **kwargs)
        if self.what == "kill-after":
            _end()
        return result


class Ledger(sqlite3.Connection):
    """A connection whose transactions pass by the trigger."""

    trigger: Trigger
    point: str

    def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:  # type: ignore[override]
        """As SQLite's own, with its errors where an errno was asked for."""
        if SQL.get(sql) != self.point:
            return super().execute(sql, *args)
        try:
            return self.trigger.around(super().execute, sql, *args)  # type: ignore[no-any-return]
        except OSError as error:
            name, text = SQLITE.get(self.trigger.what, ("SQLITE_IOERR_WRITE", "disk I/O error"))
            refused = sqlite3.OperationalError(text)
            refused.sqlite_errorname = name
            raise refused from error


def _end() -> None:
    if os.name == "posix":
        os.kill(os.getpid(), signal.SIGKILL)
    os._exit(9)


def _set_clock(seconds: float) -> None:
    """For all but gRPC, whose core has the system's clock beside Python's: two that differ let its start wait a day."""
    before_s = time.time

    def now_s() -> float:
        asking = str(sys._getframe(1).f_globals.get("__name__"))
        return TRUE_S() if asking.startswith("grpc") else before_s() + seconds

    time.time = now_s


def interpose(fault: str, process: str) -> None:
    """Put the fault in its place, where it is one of this process."""
    where, point, what, first, times = fault.split(":")
    if where != process:
        return
    trigger = Trigger(what, int(first), int(times))
    for module, name in POINTS[point]:
        true = getattr(module, name)
        setattr(module, name, lambda *args, true=true, **kwargs: trigger.around(true, *args, **kwargs))
    if point in SQL.values():
        Ledger.trigger, Ledger.point = trigger, point
        connect = sqlite3.connect
        sqlite3.connect = lambda *args, **kwargs: connect(*args, **{**kwargs, "factory": Ledger})


if __name__ in ("__main__", "__mp_main__") and "FAULT" in os.environ:  # the worker imports this as its main module too
    interpose(os.environ["FAULT"], "daemon" if __name__ == "__main__" else "worker")

if __name__ == "__main__":
    from spheroidd.daemon.cli import main

    main()
