"""How fast a run goes and how long it will take: what `status` shows about a second later."""

import os
import statistics
import time
from collections import deque
from dataclasses import dataclass, field
from importlib.metadata import version

from spheroidd.daemon.catalog.rows import RunState
from spheroidd.protocols.stack import StackKey, StackPlan

WINDOW_S = 10.0  # what is said of now is not older, unless a slice itself takes longer
WINDOW_SLICES = 3.0
LONG_WAY = 2.0  # times the usual way from stack to stack: then something holds the run up
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
    _version: str = field(default_factory=lambda: version("spheroidd"))  # read from a file: once
    _recent: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=4096))
    _cycles: deque[float] = field(default_factory=lambda: deque(maxlen=CYCLES))
    _ways: deque[float] = field(default_factory=lambda: deque(maxlen=CYCLES))
    _first_s: float | None = None  # all times but `_started_s` by the clock that never jumps
    _last_s: float = 0.0
    _period_s: float = 0.0
    _at_work: StackKey | None = None
    _begun_s: float = 0.0
    _in_cycle: int = 0

    def acknowledged(self, n_slices: int, steady_s: float | None = None) -> None:
        """That many slices were committed just now (`steady_s`: a time of `time.monotonic`)."""
        now_s = time.monotonic() if steady_s is None else steady_s
        if self.current != self._at_work:  # the first slice of a stack
            if self._at_work is not None and self._in_cycle:
                self._cycles.append((now_s - self._begun_s) / self._in_cycle)
                self._ways.append(now_s - self._last_s)
            self._at_work, self._begun_s, self._in_cycle = self.current, now_s, 0
        self._in_cycle += n_slices
        self.slices_done += n_slices
        self._recent.append((now_s, n_slices))
        self._first_s = now_s if self._first_s is None else self._first_s
        self._last_s = now_s

    def opened(self, plan: StackPlan) -> None:
        """A stack is at work."""
        self.current, self._period_s = plan.key, plan.slice_period_s or 0.0

    def planned(self, plan: StackPlan) -> None:
        """A stack that was not promised at the start."""
        self.slices_total += plan.n_slices

    @property
    def _window_s(self) -> float:
        return max(WINDOW_S, WINDOW_SLICES * self._period_s)

    def slices_per_s(self, steady_s: float) -> float | None:
        """Mean rate over the last seconds, 0 where no slice came in them; None before the first slice."""
        while self._recent and self._recent[0][0] <= steady_s - self._window_s:
            self._recent.popleft()
        if self._first_s is None:
            return None
        return sum(n for _, n in self._recent) / min(self._window_s, max(steady_s - self._first_s, 1.0))

    def seconds_left(self, steady_s: float) -> float | None:
        """With the way from stack to stack, as soon as one was gone; None before the first slice, and while none comes
        for longer than the usual way takes.

        A cycle goes from a stack's first slice to the next one's; the median of the last ones leaves a pause out.
        """
        left = self.slices_total - self.slices_done
        usual_s = LONG_WAY * statistics.median(self._ways) if self._ways else 0.0
        if left and steady_s - self._last_s > max(self._window_s, usual_s):
            return None
        if self._cycles:
            return left * statistics.median(self._cycles)
        rate = self.slices_per_s(steady_s)
        return left / rate if rate else None

    def run_state(self, now_s: float, steady_s: float | None = None) -> RunState:
        """What the daemon says of itself now (`now_s`: since 1970); the time left only while nothing holds it up."""
        steady_s = time.monotonic() if steady_s is None else steady_s
        goes = self.state == "running" or not self.slices_total - self.slices_done
        return RunState(
            version=self._version,
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
            slices_per_s=self.slices_per_s(steady_s),
            eta_s=self.seconds_left(steady_s) if goes else None,
        )
