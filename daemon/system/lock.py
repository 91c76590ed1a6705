"""One daemon for one data directory, kept by a lock that the system takes back when the process dies."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from spheroidd.protocols.errors import ConfigError, TryLaterError

LOCK_NAME, PID_NAME = "daemon.lock", "daemon.pid"
PATIENCE_S = 0.5  # longer than `status` or `doctor` hold the lock to see whether it is free


@contextmanager
def acquire_lock(data_dir: Path) -> Iterator[None]:
    """Hold the data directory for this process; TryLaterError where another spheroidd has it."""
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        lock = FileLock(data_dir / LOCK_NAME)
        lock.acquire(timeout=PATIENCE_S, poll_interval=0.05)
    except Timeout:
        what = f"another spheroidd ({describe_holder(data_dir)}) runs on this data directory"
        raise TryLaterError(what, where=str(data_dir), do="stop it, or use another directory") from None
    except OSError as error:
        do = "choose a directory you may write to"
        raise ConfigError(f"cannot lock the data directory: {error.strerror}", where=str(data_dir), do=do) from error
    try:
        (data_dir / PID_NAME).write_text(str(os.getpid()), encoding="ascii")
        yield
    finally:
        (data_dir / PID_NAME).unlink(missing_ok=True)
        lock.release()


def is_locked(data_dir: Path) -> bool | None:
    """Whether a daemon holds the directory now; None where one may not look. Writes nothing where none ever did."""
    path = data_dir / LOCK_NAME
    if not path.exists():
        return False
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except OSError:  # to try a lock one must be allowed to write it
        return None
    lock.release()
    return False


def describe_holder(data_dir: Path) -> str:
    """ "pid 123", or "pid unknown" where the holder has not said it yet."""
    try:
        return f"pid {int((data_dir / PID_NAME).read_text(encoding='ascii'))}"
    except (OSError, ValueError):
        return "pid unknown"
