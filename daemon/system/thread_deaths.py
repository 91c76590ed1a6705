"""No thread of the daemon dies unseen: an error that nobody caught in one ends the daemon, with the thread's name."""

import logging
import threading
from types import TracebackType
from typing import Self

from spheroidd.protocols.errors import DaemonError

_log = logging.getLogger(__name__)


class ThreadDeaths:
    """A context manager: from entering to leaving, a thread that dies of an error is logged and kept for main."""

    def __init__(self) -> None:
        self._first: DaemonError | None = None
        self._before = threading.excepthook

    def __enter__(self) -> Self:
        self._before = threading.excepthook
        threading.excepthook = self._died
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        threading.excepthook = self._before

    def check(self) -> None:
        """For main, now and then: DaemonError where a thread has died since the last call."""
        first, self._first = self._first, None
        if first is not None:
            raise first

    def _died(self, given: threading.ExceptHookArgs) -> None:
        if given.exc_value is not None and not isinstance(given.exc_value, SystemExit):
            name = given.thread.name if given.thread is not None else "unknown"
            self._first = self._first or death(name, given.exc_value)


def death(name: str, error: BaseException) -> DaemonError:
    """What the daemon ends with whose thread `name` died of `error`; the traceback goes to the log."""
    _log.critical("the %s thread broke, and the daemon ends", name, exc_info=error)
    do = "report it with `spheroidd support-bundle`; what was acknowledged is kept, and a new start goes on"
    found = DaemonError(f"the {name} thread broke: {error!r}", where=f"thread {name}", do=do)
    found.__cause__ = error
    return found
