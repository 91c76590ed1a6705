"""What stands in for scoring where `bench.cluster` looks at the pool alone: workers that sleep."""

import os
import random
import time
from dataclasses import dataclass

from spheroidd.daemon.catalog.rows import StackState
from spheroidd.daemon.scoring.messages import ScoreJob, StoredLedger
from spheroidd.daemon.scoring.pool import ScoringAbandoned, WorkerBroken, WorkerEvent, WorkerReady
from spheroidd.daemon.scoring.ray_actor import RayWorker
from spheroidd.protocols.stack import CHANNELS, Block, SliceIndex, StackKey, StackPlan

STACK_S, CV, FASTER = 8.0, 0.25, 100.0


def seconds_of(key: StackKey) -> float:
    """How long a stack takes, compressed; 1 % take five times as long."""
    own = random.Random(str(key))
    seconds = max(0.2 * STACK_S, own.gauss(STACK_S, CV * STACK_S)) / FASTER
    return seconds * (5.0 if own.random() < 0.01 else 1.0)


@dataclass(frozen=True, slots=True)
class Slept(ScoringAbandoned):
    """What a worker that slept says: from when to when, by the computer's clock that all its processes share."""

    pid: int
    began_s: float
    ended_s: float


class SleepingWorker(RayWorker):
    """The pool's actor without a model."""

    def load(self) -> tuple[str, WorkerReady | WorkerBroken]:
        """See RayWorker."""
        return self.where(), WorkerReady(os.getpid(), "none")

    def score(self, job: ScoreJob, ledger: StoredLedger) -> WorkerEvent:
        """Sleep as long as the stack takes; what comes back says when."""
        began_s = time.monotonic()
        time.sleep(seconds_of(job.key))
        return Slept(job.key, os.getpid(), began_s, time.monotonic())


class NoLedger:
    """The lines of a stack of 200 slices and two channels, as many as a real one has."""

    def plan(self, key: StackKey) -> StackPlan:
        """See StackLedger."""
        return StackPlan(key, CHANNELS, 200, 800, 800, 0.125, 0.5)

    def state(self, key: StackKey) -> StackState:
        """See StackLedger."""
        return StackState.STORED

    def acknowledged(self, key: StackKey) -> dict[SliceIndex, int]:
        """See StackLedger."""
        return {SliceIndex(channel, z): z for channel in CHANNELS for z in range(200)}

    def blocks(self, key: StackKey, after: int = 0) -> list[tuple[int, Block]]:
        """See StackLedger."""
        return [(n, Block(key, channel, 0, 200)) for n, channel in enumerate(CHANNELS, start=1) if n > after]
