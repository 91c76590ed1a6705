"""How long a file may take to be read: a share that hangs, or a file made to be slow, holds no plate up.

What reads runs in a thread of its own. One that is over its time is left behind and told to stop: in Python's own steps
it does, in a call of the system that never returns it stays there, and does nothing when that call returns after all.
"""

import contextlib
import ctypes
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from spheroidd.acquisition.channel import Channel, ChannelClosedError
from spheroidd.protocols.errors import InstrumentError, SpheroiddError, StackError

T = TypeVar("T")
BUDGET_S = 60.0
SLOW_BYTES_PER_S = 5e6  # what a share gives at the least: a large file is given more time
FOLDER_TIMES = 10.0  # a folder of files is given so many times a file's time
MAX_LEFT = 8  # readers that hang; then it is the share, and not a file
MAX_LETTERS = 500


class _Job(Generic[T]):
    """One call, and what came of it."""

    def __init__(self, work: Callable[[], T]) -> None:
        self.work = work
        self.done: Channel[tuple[T | None, BaseException | None]] = Channel(capacity=1)
        self.given_up = False

    def carry_out(self) -> None:
        found: T | None = None
        error: BaseException | None = None
        try:
            found = self.work()
        except BaseException as met:
            error = met
        if self.given_up:
            _close(found)
        else:
            self.done.put((found, error))


class ReadingTime:
    """Reads for one thread at a time. `budget_s` is the time for one small file, or for one plane of a large one."""

    def __init__(self, budget_s: float = BUDGET_S) -> None:
        self._budget_s = budget_s
        self._jobs: Channel[_Job[object]] | None = None
        self._thread: threading.Thread | None = None
        self._left: list[threading.Thread] = []
        self._too_slow: dict[Path, tuple[int, int] | None] = {}  # with size and time: tried again once changed

    def read(self, work: Callable[[], T], path: Path, *, whole: bool = False) -> T:
        """What `work` gives; with `whole` it reads a whole file or folder, which takes longer the larger it is.

        Raises what `work` raises, as StackError where it is no error of the system or of ours. StackError where it
        takes too long, InstrumentError where too much does: the disk or the share does not answer.
        """
        seconds = self._seconds(path, whole=whole)
        if path in self._too_slow and self._too_slow[path] == _state(path):
            raise self._over_time(path, seconds)
        job = _Job(work)
        self._hand_over(job)
        try:
            found, error = job.done.get(timeout=seconds)
        except TimeoutError:
            self._leave(job)
            self._too_slow[path] = _state(path)
            raise self._over_time(path, seconds) from None
        if error is None:
            return found  # type: ignore[return-value]
        if isinstance(error, SpheroiddError | OSError) or not isinstance(error, Exception):
            raise error
        what = f"cannot be read: {type(error).__name__} {error}"[:MAX_LETTERS]
        raise StackError(what, where=str(path), do="copy it again, or record the well again") from error

    def close(self) -> None:
        """Let the thread go; it may be used again."""
        if self._jobs is not None:
            self._jobs.close()
            self._jobs = self._thread = None

    def _over_time(self, path: Path, seconds: float) -> StackError:
        do = "copy it again; raise source.read_budget_s where the disk or the share is that slow"
        return StackError(f"it could not be read within {seconds:.3g} s", where=str(path), do=do)

    def _seconds(self, path: Path, *, whole: bool) -> float:
        if not whole:
            return self._budget_s
        file = next((one for one in (path, *path.parents) if one.exists()), path)  # it may name a part of a LIF
        if file.is_dir():
            return self._budget_s * FOLDER_TIMES
        return self._budget_s + (file.stat().st_size if file.exists() else 0) / SLOW_BYTES_PER_S

    def _hand_over(self, job: "_Job[T]") -> None:
        if self._jobs is None:
            self._left = [thread for thread in self._left if thread.is_alive()]
            if len(self._left) >= MAX_LEFT:
                what = f"{len(self._left)} files could not be read, and none of them lets its reader go"
                raise InstrumentError(what, do="check the disk or the share; the run goes on with what is missing")
            jobs: Channel[_Job[object]] = Channel(capacity=1)
            self._thread = threading.Thread(target=_carry_out, args=(jobs,), name="file-reader", daemon=True)
            self._jobs = jobs
            self._thread.start()
        self._jobs.put(job)  # type: ignore[arg-type]

    def _leave(self, job: "_Job[T]") -> None:
        """Leave the thread behind with the job it has."""
        job.given_up = True
        with contextlib.suppress(TimeoutError):
            _close(job.done.get(timeout=0)[0])  # it came at the last moment
        thread = self._thread
        self.close()
        if thread is not None and thread.ident is not None and thread.is_alive():
            self._left.append(thread)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit))


def _state(path: Path) -> tuple[int, int] | None:
    """What tells one state of a file from another; None where there is no such file."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def _carry_out(jobs: Channel[_Job[object]]) -> None:
    with contextlib.suppress(ChannelClosedError, SystemExit):
        while True:
            jobs.get().carry_out()


def _close(found: object) -> None:
    """Close what nobody will use."""
    close = getattr(found, "close", None)
    if callable(close):
        with contextlib.suppress(Exception):
            close()
