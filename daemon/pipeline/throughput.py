"""How fast a run goes and how long it will take: what `status` shows about a second later."""

import os
import statistics
import time
from collections import deque
from dataclasses import dataclass, field
from importlib.metadata import version

from spheroidd.daemon.catalog.rows import RunState
from spheroidd.protocols.stack import StackKey, StackPlan

WINDOW_S = 60.0  # the rate is taken over the last minute
CYCLES = 16  # stacks, each with the way to the next, over which the time left is reckoned


@dataclass(slots=True)
class Throughput:
    """Counts acknowledged slices; one run's life long."""

    slices_total: int
    slices_done: int
    state: str = "starting"
    worker: str = "starting"
    current: StackKey | None = None
    plate: str | None = None
    _started_s: float = field(default_factory=time.time)
    _recent: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=4096))
    _cycles: deque[float] = field(default_factory=lambda: deque(maxlen=CYCLES))
    _at_work: StackKey | None = None
    _begun_s: float = 0.0
    _in_cycle: int = 0

    def acknowledged(self, n_slices: int, now_s: float) -> None:
        """That many slices were committed just now."""
        if self.current != self._at_work:  # the first slice of a stack
            if self._at_work is not None and self._in_cycle:
                self._cycles.append((now_s - self._begun_s) / self._in_cycle)
            self._at_work, self._begun_s, self._in_cycle = self.current, now_s, 0
        self._in_cycle += n_slices
        self.slices_done += n_slices
        self._recent.append((now_s, n_slices))

    def planned(self, plan: StackPlan) -> None:
        """A stack that was not promised at the start."""
        self.slices_total += plan.n_slices

    def slices_per_s(self, now_s: float) -> float | None:
        """Mean rate over the last minute; None before the first slice."""
        while self._recent and self._recent[0][0] < now_s - WINDOW_S:
            self._recent.popleft()
        if not self._recent:
            return None
        return sum(n for _, n in self._recent) / max(now_s - self._recent[0][0], 1.0)

    def seconds_left(self, now_s: float) -> float | None:
        """With the way from stack to stack, as soon as one was gone; None before the first slice.

        A cycle goes from a stack's first slice to the next one's; the median of the last ones leaves a pause out.
        """
        left = self.slices_total - self.slices_done
        if self._cycles:
            return left * statistics.median(self._cycles)
        rate = self.slices_per_s(now_s)
        return left / rate if rate else None

    def run_state(self, now_s: float) -> RunState:
        """What the daemon says of itself now."""
        return RunState(
            version=version("spheroidd"),
            pid=os.getpid(),
            state=self.state,
            started_s=self._started_s,
            heartbeat_s=now_s,
            worker=self.worker,
            plate=self.plate,
            well=str(self.current.well) if self.current else None,
            stack=self.current.stack if self.current else None,
            slices_done=self.slices_done,
            slices_total=self.slices_total,
            slices_per_s=self.slices_per_s(now_s),
            eta_s=self.seconds_left(now_s),
        )
