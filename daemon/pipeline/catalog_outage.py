"""A time in which the catalog cannot be written: how long main waits for it, and in which words it is told."""

import time

from spheroidd.protocols.errors import NoRoomError, StorageError

RETRY_S = 1.0
PATIENCE_S = 300.0  # a backup that holds the file, a share that hangs, a cable that is put back
STOPPING_PATIENCE_S = (
    5.0  # a person waits for the end; what is durable and not in the ledger is found at the next start
)
FULL, FAILS = "storage full", "storage fails"  # the run's state meanwhile


def state_of(error: StorageError) -> str:
    """The run's state while the disk refuses so."""
    return FULL if isinstance(error, NoRoomError) else FAILS


class CatalogOutage:
    """One such time, from the first refusal on. A full disk is waited for as long as nobody stops the run."""

    def __init__(self) -> None:
        self._waited_since_s = time.monotonic()
        self._stopping_since_s: float | None = None

    def refused(self, error: StorageError, *, stopping: bool) -> None:
        """The catalog refused once more; raises `error` where it is not to be tried again."""
        now_s = time.monotonic()
        if stopping and self._stopping_since_s is None:
            self._stopping_since_s = now_s
        if isinstance(error, NoRoomError):
            self._waited_since_s = now_s
        if now_s - self._waited_since_s > PATIENCE_S:
            raise error
        if self._stopping_since_s is not None and now_s - self._stopping_since_s > STOPPING_PATIENCE_S:
            raise error
