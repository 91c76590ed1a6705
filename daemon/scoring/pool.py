"""Who scores: the port between main and its workers, and everything that workers say to main.

Work may be done more than once: a worker may die, and its job is given out again. A row is written once, because only
main writes rows and puts masks into their place, and takes one answer for a job. `worker.Worker` is the pool of one
process beside the daemon; `ray_pool.RayPool` has one on each GPU of a cluster.
"""

from dataclasses import dataclass
from typing import Protocol

from spheroidd.daemon.scoring.messages import PatternsFound, Scored, ScoreJob
from spheroidd.protocols.errors import SpheroiddError
from spheroidd.protocols.stack import StackKey


@dataclass(frozen=True, slots=True)
class WorkerReady:
    """A worker has its model loaded and its kernels compiled. `worker` is its number within the pool."""

    pid: int
    model_sha256: str
    worker: int = 0


@dataclass(frozen=True, slots=True)
class WorkerBroken:
    """No worker can start: the model does not load on this device. Restarting would not help."""

    error: SpheroiddError


@dataclass(frozen=True, slots=True)
class WorkerLost:
    """The process died, or gave no sign of life for `hung_s` seconds and was killed; `key` is what it was scoring, None
    where it was idle or still starting. `with_its_node`: its computer left the cluster, which is no fault of the stack.
    """

    key: StackKey | None
    exit_code: int | None
    hung_s: float | None = None
    worker: int = 0
    with_its_node: bool = False

    @property
    def how(self) -> str:
        """How it ended, to be read behind "the inference worker"."""
        if self.with_its_node:
            return "left the cluster with its node"
        if self.hung_s is not None:
            return f"gave no sign of life for {self.hung_s:.0f} s and was killed"
        return "died" if self.exit_code is None else f"died (exit code {self.exit_code})"


@dataclass(frozen=True, slots=True)
class ScoringFailed:
    """A job ended with an error that a person can read."""

    key: StackKey
    error: SpheroiddError


@dataclass(frozen=True, slots=True)
class ScoringAbandoned:
    """The stack ended incomplete, or the job was cancelled."""

    key: StackKey


WorkerEvent = WorkerReady | WorkerBroken | WorkerLost | Scored | PatternsFound | ScoringFailed | ScoringAbandoned


class ScoringPool(Protocol):
    """Workers that score stacks. WorkerEvents come through the callable that the pool was made with, in any thread.

    A worker that says WorkerReady takes one job at a time until it says WorkerLost. Each job ends with one event that
    names its stack: Scored, ScoringFailed, ScoringAbandoned or WorkerLost.
    """

    @property
    def follows_growing(self) -> bool:
        """Whether a stack can be scored while its slices still arrive."""

    @property
    def ahead(self) -> int:
        """How many jobs it takes beyond one for each ready worker: a worker need not wait for main to give it more."""

    def start(self) -> None:
        """Start the workers; one WorkerReady follows for each."""

    def submit(self, job: ScoreJob) -> None:
        """Hand over a job; the caller gives out no more of them than `ahead` allows, and none before a worker is ready.

        Called by main only.
        """

    def stop(self) -> None:
        """End the workers now, whatever they are doing; no event follows."""
