"""What stands around a run: who orders, who pushes slices, who is told. Each has a form that does nothing."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from spheroidd.daemon.pipeline.orders import Inbox
from spheroidd.daemon.scoring.pool import WorkerLost
from spheroidd.protocols.errors import RefusedError, SpheroiddError


class Inlet(Protocol):
    """Where programs push slices into a run, seen from main; `acquisition.sources.push.PushInlet` is one."""

    @property
    def pushes(self) -> bool:
        """Whether another program decides what is imaged."""
        ...

    def told(self, event: object) -> None:
        """An event was committed; never blocks."""
        ...

    def finish(self) -> None:
        """No more stacks will be pushed; RefusedError where none ever were."""
        ...


class NoInlet:
    """The inlet of a run that takes its slices from an instrument."""

    pushes = False

    def told(self, event: object) -> None:
        """See Inlet."""

    def finish(self) -> None:
        """See Inlet."""
        raise RefusedError("this plate's slices are not pushed", do="abort the plate to end it early")


class Monitor(Protocol):
    """What main reports to while it runs a plate; `daemon.monitoring.monitor.RunMonitor` is one."""

    def record(self, *, acquiring: bool) -> None:
        """Inside the transaction of a heartbeat; may be called again."""
        ...

    def worker_lost(self, event: WorkerLost) -> None:
        """Inside the transaction that commits the loss."""
        ...

    def after_commit(self, batch: Sequence[object]) -> None:
        """These events were committed."""
        ...

    def after_heartbeat(self, state: str) -> None:
        """A heartbeat was committed."""
        ...

    def catalog_unwritable(self, error: SpheroiddError, state: str) -> None:
        """The catalog cannot be written for now, and what the run's state is because of it."""
        ...

    def dying(self, error: SpheroiddError) -> None:
        """The run ends because a part of it broke."""
        ...


class NoMonitor:
    """Keeps nothing and tells nobody."""

    def record(self, *, acquiring: bool) -> None:
        """See Monitor."""

    def worker_lost(self, event: WorkerLost) -> None:
        """See Monitor."""

    def after_commit(self, batch: Sequence[object]) -> None:
        """See Monitor."""

    def after_heartbeat(self, state: str) -> None:
        """See Monitor."""

    def catalog_unwritable(self, error: SpheroiddError, state: str) -> None:
        """See Monitor."""

    def dying(self, error: SpheroiddError) -> None:
        """See Monitor."""


@dataclass(frozen=True, slots=True)
class RunContext:
    """Through what a run is driven and watched from outside; by itself nobody orders, pushes or watches.

    `on_stop` is called where a person stops the run, by a signal or an order.
    """

    orders: Inbox = field(default_factory=Inbox)
    inlet: Inlet = field(default_factory=NoInlet)
    monitor: Monitor = field(default_factory=NoMonitor)
    on_stop: Callable[[], None] = lambda: None
