"""The inference worker: one child process that scores one stack at a time, and the thread that keeps it alive.

A worker may die (out of memory, a CUDA fault) at any moment. Nothing is lost by it: what it was scoring is on disk,
the catalog says so, and the next worker starts that stack again. Acquisition does not notice.
"""

import contextlib
import multiprocessing
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import psutil

from spheroidd.acquisition.channel import Channel, ChannelClosedError
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.scoring.messages import Scored, ScoreJob
from spheroidd.protocols.errors import SpheroiddError, StackError
from spheroidd.protocols.ports import Segmenter
from spheroidd.protocols.stack import StackKey

RESTART_PAUSE_S = 1.0  # a worker that dies at once must not be restarted in a busy loop
LEAVE_S = 3.0
ORPHAN_CHECK_S = 0.5


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """What a worker process needs to start: plain values, because they cross into a spawned process."""

    data_dir: Path
    model: str | None
    device: str
    threads: int | None
    precision: str = "auto"


@dataclass(frozen=True, slots=True)
class WorkerReady:
    """The model is loaded and the kernels are compiled."""

    pid: int
    model_sha256: str


@dataclass(frozen=True, slots=True)
class WorkerBroken:
    """No worker can start: the model does not load on this device. Restarting would not help."""

    error: SpheroiddError


@dataclass(frozen=True, slots=True)
class WorkerLost:
    """The process died; `key` is what it was scoring, None where it was idle or still starting."""

    key: StackKey | None
    exit_code: int | None


@dataclass(frozen=True, slots=True)
class ScoringFailed:
    """A job ended with an error that a person can read."""

    key: StackKey
    error: SpheroiddError


@dataclass(frozen=True, slots=True)
class ScoringAbandoned:
    """The stack ended incomplete, or the job was cancelled."""

    key: StackKey


WorkerEvent = WorkerReady | WorkerBroken | WorkerLost | Scored | ScoringFailed | ScoringAbandoned


class Worker:
    """Owns the child process from a thread of its own; `emit` is called from that thread."""

    def __init__(self, settings: WorkerSettings, emit: Callable[[WorkerEvent], None]) -> None:
        self._settings, self._emit = settings, emit
        self._jobs: Channel[ScoreJob] = Channel(capacity=1)  # main submits only to an idle worker
        self._stop = threading.Event()
        self._context = multiprocessing.get_context("spawn")
        self._thread = threading.Thread(target=self._run, name="worker-link", daemon=True)
        self.pid: int | None = None

    def start(self) -> None:
        """Start the process; WorkerReady follows."""
        self._thread.start()

    def submit(self, job: ScoreJob) -> None:
        """Hand over the next job; its end comes as an event that names the same stack."""
        self._jobs.put(job)

    def stop(self) -> None:
        """End the process now, whatever it is doing, and join the thread."""
        self._stop.set()
        self._jobs.close()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            parent_end, child_end = self._context.Pipe()
            process = self._context.Process(
                target=_worker_main, args=(self._settings, child_end), name="spheroidd-worker", daemon=True
            )
            process.start()
            child_end.close()
            self.pid = process.pid
            key = self._serve(parent_end)
            parent_end.close()  # an idle worker ends by itself when nobody can give it work any more
            process.join(timeout=LEAVE_S if key is None else 0)
            process.kill()
            process.join()
            if not self._stop.is_set():
                self._emit(WorkerLost(key, process.exitcode))
                self._stop.wait(RESTART_PAUSE_S)

    def _serve(self, link: Connection) -> StackKey | None:
        """Pass jobs and answers until the process is gone or must go; the stack it was scoring then."""
        key: StackKey | None = None
        try:
            self._answer(link)
            while True:
                try:
                    job = self._jobs.get(timeout=0.2)
                except TimeoutError:
                    if link.poll():
                        self._answer(link)  # an idle worker says nothing: this raises EOFError when it died
                    continue
                key = job.key
                link.send(job)
                self._answer(link)
                key = None
        except (EOFError, OSError, ChannelClosedError):
            return key

    def _answer(self, link: Connection) -> None:
        while not link.poll(0.1):
            if self._stop.is_set():
                raise EOFError
        self._emit(link.recv())


def _worker_main(settings: WorkerSettings, link: Connection) -> None:
    """The child process: load the model once, then score what comes until the parent is gone."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides when we end
    threading.Thread(target=_exit_with_parent, name="orphan-check", daemon=True).start()
    _yield_to_acquisition()
    from spheroidd.acquisition.store.shard import lock_without_a_name
    from spheroidd.daemon.scoring.score_stack import warm_up
    from spheroidd.inference.segmentation.segmenter import load_segmenter

    lock_without_a_name()  # before anything decodes a shard
    try:
        segmenter = load_segmenter(settings.model, settings.device, settings.threads, settings.precision)
        warm_up(segmenter)
        ready: WorkerEvent = WorkerReady(psutil.Process().pid, segmenter.sha256)
    except SpheroiddError as error:
        ready = WorkerBroken(error)
    # The daemon may be gone at any of these; then there is nobody left to tell, and nothing that is not on disk.
    with contextlib.suppress(EOFError, BrokenPipeError), Catalog.read_only(settings.data_dir) as catalog:
        link.send(ready)
        while isinstance(ready, WorkerReady):
            link.send(_outcome(link.recv(), settings.data_dir, catalog, segmenter))


def _outcome(job: ScoreJob, data_dir: Path, catalog: Catalog, segmenter: Segmenter) -> WorkerEvent:
    from spheroidd.daemon.scoring.score_stack import score_stack

    try:
        return score_stack(job, data_dir, catalog, segmenter) or ScoringAbandoned(job.key)
    except SpheroiddError as error:
        return ScoringFailed(job.key, error)
    except (ArithmeticError, LookupError, TypeError, ValueError, RuntimeError, AssertionError) as error:
        what = f"scoring stopped: {type(error).__name__}: {error}"
        do = "report this with the log; the raw stack is safe and can be scored again with `spheroidd score`"
        return ScoringFailed(job.key, StackError(what, where=str(job.key), do=do))


def _exit_with_parent() -> None:
    """A killed daemon must not leave a worker behind that holds memory and half-written labels."""
    import os

    parent = psutil.Process().parent()
    while parent is not None and parent.is_running() and parent.status() != psutil.STATUS_ZOMBIE:
        time.sleep(ORPHAN_CHECK_S)
    os._exit(1)


def _yield_to_acquisition() -> None:
    process = psutil.Process()
    # 10, not 5: with 5 it took 0.6 of the 3.8 CPU seconds that two cores had in a burst. It catches up in the pause.
    process.nice(psutil.BELOW_NORMAL_PRIORITY_CLASS if psutil.WINDOWS else 10)
