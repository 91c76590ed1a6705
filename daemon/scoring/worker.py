"""The inference worker: one child process that scores one stack at a time, and the thread that keeps it alive.

A worker may die (out of memory, a CUDA fault) or hang (a driver, a network share) at any moment. Nothing is lost by
it: what it was scoring is on disk, the catalog says so, and the next worker starts that stack again; one that gives no
sign of life is killed first. Acquisition does not notice.
"""

import contextlib
import multiprocessing
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from spheroidd.acquisition.channel import Channel, ChannelClosedError
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.scoring.messages import ScoreJob, StackLedger
from spheroidd.daemon.scoring.pool import (
    ScoringAbandoned,
    ScoringFailed,
    WorkerBroken,
    WorkerEvent,
    WorkerLost,
    WorkerReady,
)
from spheroidd.daemon.system.malloc import keep_freed_memory
from spheroidd.protocols.errors import SpheroiddError, StackError
from spheroidd.protocols.ports import Segmenter
from spheroidd.protocols.stack import StackKey, StackPlan

if TYPE_CHECKING:
    from multiprocessing.sharedctypes import Synchronized

RESTART_PAUSE_S = 1.0  # a worker that dies at once must not be restarted in a busy loop
LEAVE_S = 3.0
ORPHAN_CHECK_S = 0.5
# A worker gives a sign of life with every slab, and with every look for slices that have not arrived. A slab of a
# screen stack takes 9.6 s on two cores; this is sixty of them, for larger fields and for a computer that does other
# things. While it starts it gives none, and never has less than START_S.
PATIENCE_S = 600.0
START_S = 180.0
SLEPT_S = 30.0  # nobody looked for so long: the computer slept, or the daemon was stopped, and the worker with it


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """What a worker process needs to start: plain values, because they cross into a spawned process.

    `plan` is a stack that is to come, where one is known: see `score_stack.warm_up`.
    """

    data_dir: Path
    model: str | None
    device: str
    threads: int | None
    precision: str = "auto"
    patience_s: float = PATIENCE_S
    plan: StackPlan | None = None


class Life:
    """Whether a worker that has something to do still gives signs of life, which it counts up in shared memory."""

    def __init__(self, beats: "Synchronized[int]", patience_s: float) -> None:
        self.beats, self.patience_s = beats, patience_s
        self.is_over = False
        self.begin()

    def begin(self) -> None:
        """It has something to do from now on."""
        self._last = self.beats.value
        self._since_s = self._seen_s = time.monotonic()

    def look(self) -> bool:
        """Whether the last sign is too long ago; to be asked often, so that a computer that slept is no hang."""
        now_s = time.monotonic()
        if self.beats.value != self._last or now_s - self._seen_s > SLEPT_S:
            self._last, self._since_s = self.beats.value, now_s
        self._seen_s = now_s
        self.is_over = now_s - self._since_s > self.patience_s
        return self.is_over


class Worker:
    """The embedded pool: owns the child process from a thread of its own; `emit` is called from that thread."""

    follows_growing = True
    ahead = 0

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
            self._life = Life(self._context.Value("Q", 0, lock=False), max(self._settings.patience_s, START_S))
            arguments = (self._settings, child_end, self._life.beats)
            process = self._context.Process(target=_worker_main, args=arguments, name="spheroidd-worker", daemon=True)
            process.start()
            child_end.close()
            self.pid = process.pid
            key = self._serve(parent_end)
            parent_end.close()  # an idle worker ends by itself when nobody can give it work any more
            process.join(timeout=LEAVE_S if key is None and not self._life.is_over else 0)
            process.kill()
            process.join()
            if not self._stop.is_set():
                self._emit(WorkerLost(key, process.exitcode, self._life.patience_s if self._life.is_over else None))
                self._stop.wait(RESTART_PAUSE_S)

    def _serve(self, link: Connection) -> StackKey | None:
        """Pass jobs and answers until the process is gone or must go; the stack it was scoring then."""
        key: StackKey | None = None
        try:
            self._answer(link)
            self._life.patience_s = self._settings.patience_s
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
        self._life.begin()
        while not link.poll(0.1):
            if self._stop.is_set() or self._life.look():
                raise EOFError
        self._emit(link.recv())


def _worker_main(settings: WorkerSettings, link: Connection, beats: "Synchronized[int]") -> None:
    """The child process: load the model once, then score what comes until the parent is gone."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides when we end
    threading.Thread(target=_exit_with_parent, name="orphan-check", daemon=True).start()
    _yield_to_acquisition()
    keep_freed_memory()  # a slice made of raw frames asks for its transforms' memory hundreds of times
    from spheroidd.acquisition.store.shard import lock_without_a_name
    from spheroidd.daemon.scoring.score_stack import warm_up
    from spheroidd.inference.segmentation.choice import open_segmenter

    def alive() -> None:
        beats.value += 1

    lock_without_a_name()  # before anything decodes a shard
    try:
        segmenter = open_segmenter(settings.model, settings.device, settings.threads, settings.precision)
        warm_up(segmenter, settings.plan)
        ready: WorkerEvent = WorkerReady(psutil.Process().pid, segmenter.sha256)
    except SpheroiddError as error:
        ready = WorkerBroken(error)
    # The daemon may be gone at any of these; then there is nobody left to tell, and nothing that is not on disk.
    with contextlib.suppress(EOFError, BrokenPipeError), Catalog.read_only(settings.data_dir) as catalog:
        link.send(ready)
        while isinstance(ready, WorkerReady):
            link.send(outcome(link.recv(), settings.data_dir, catalog, segmenter, alive))


def outcome(
    job: ScoreJob, images: Path, ledger: StackLedger, segmenter: Segmenter, alive: Callable[[], None] = lambda: None
) -> WorkerEvent:
    """Score a stack; whatever goes wrong comes back as words."""
    from spheroidd.daemon.scoring.score_stack import score_stack

    try:
        return score_stack(job, images, ledger, segmenter, alive) or ScoringAbandoned(job.key)
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
