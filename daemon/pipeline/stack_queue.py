"""The stacks of a run that are still to be taken, in the order in which they will be.

The source thread looks at the next one and waits for main's decision; main may meanwhile change the order. So a stack
leaves the queue only by a decision, and no change of the order can lose one or take one twice.
"""

import threading
from collections.abc import Iterable, Iterator, Sequence, Set

from spheroidd.acquisition.channel import ChannelClosedError
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.stack import StackKey, StackPlan
from spheroidd.protocols.well import WellId


class PlanQueue:
    """Thread-safe. A source that gives a Sequence takes its wells one at a time, in any order; from one that learns of
    its stacks as they come, each is fetched when it is next.

    `begin_at` is the well to begin with: those before it come last. `besides` are stacks that the source does not name,
    because they were ordered in an earlier run and not taken to their end. `done` are those that need nothing more: of
    a source that gives a Sequence they are not asked for at all.
    """

    def __init__(
        self,
        plans: Iterable[StackPlan],
        *,
        begin_at: WellId | None = None,
        besides: Sequence[StackPlan] = (),
        done: Set[StackKey] = frozenset(),
    ) -> None:
        """Take over what the source promises; ConfigError where it cannot begin at the well that is asked for."""
        self._lock = threading.Lock()
        self._ahead: list[StackPlan] = []  # what was ordered: repeats, and wells that were brought forward
        self._planned: list[StackPlan] = []
        self._later: Iterator[StackPlan] | None = None
        self._ended = False
        if isinstance(plans, Sequence):
            named = {plan.key for plan in plans}
            every = _rotated([*plans, *(plan for plan in besides if plan.key not in named)], begin_at)
            self._planned = [plan for plan in every if plan.key not in done]
            return
        if begin_at is not None:
            what = f"this source takes its wells as they come and cannot begin at {begin_at}"
            raise ConfigError(what, where="--from-well", do="leave it out")
        self._later = iter(plans)

    def head(self) -> StackPlan | None:
        """The next stack, which stays in the queue; None at the end, after which nothing can be added. May wait long
        for a source that learns of its stacks as they come.
        """
        with self._lock:
            if self._ahead or self._planned:
                return (self._ahead or self._planned)[0]
        fetched = next(self._later, None) if self._later is not None else None
        with self._lock:
            if fetched is not None:
                self._planned.append(fetched)
            self._ended = not (self._ahead or self._planned)
            return None if self._ended else (self._ahead or self._planned)[0]

    def settle(self, key: StackKey) -> bool:
        """Take a stack out, because it was decided over; False, and nothing done, where another one is next by now."""
        with self._lock:
            queue = self._ahead or self._planned
            if not queue or queue[0].key != key:
                return False
            del queue[0]
            return True

    def repeat(self, plan: StackPlan) -> None:
        """Put a further stack of a well before those that are planned; ChannelClosedError once it is too late."""
        with self._lock:
            if self._ended:
                raise ChannelClosedError("every stack of the plate was decided over")
            self._ahead.append(plan)

    @property
    def takes_any_order(self) -> bool:
        """Whether the source lets its wells be taken in any order."""
        return self._later is None

    def to_come(self) -> set[WellId]:
        """The wells of which a stack waits here."""
        with self._lock:
            return {plan.key.well for plan in (*self._ahead, *self._planned)}

    def bring_forward(self, wells: Sequence[WellId]) -> None:
        """Put the stacks of these wells before all others, in this order; wells of which none waits are left alone."""
        with self._lock:
            waiting = [*self._ahead, *self._planned]
            chosen = [plan for well in dict.fromkeys(wells) for plan in waiting if plan.key.well == well]
            keys = {plan.key for plan in chosen}
            self._planned = [plan for plan in self._planned if plan.key not in keys]
            self._ahead = chosen + [plan for plan in self._ahead if plan.key not in keys]


def _rotated(plans: list[StackPlan], begin_at: WellId | None) -> list[StackPlan]:
    """The plans with those before a well put last; ConfigError where the well has none."""
    if begin_at is None:
        return plans
    at = next((n for n, plan in enumerate(plans) if plan.key.well == begin_at), None)
    if at is None:
        do = "name a well of the plate map that is not empty"
        raise ConfigError(f"no stack of well {begin_at} is planned", where="--from-well", do=do)
    return plans[at:] + plans[:at]
