"""What the store's shard threads have to do, and in which order: shards, late pyramids, counts that readers see."""

import time

from spheroidd.acquisition.store.growing_stack import GrowingShard, GrowingStack, LatePyramid

ATTRIBUTES_EVERY_S = 0.5  # the committed count that readers see is renewed no more often: each time costs two syncs

Task = GrowingShard | LatePyramid | GrowingStack
"""A shard to bring to Zarr, a pyramid to make up, or a stack whose committed count is old."""


class ShardTasks:
    """Plain state: the store's lock guards it, nothing here waits."""

    def __init__(self) -> None:
        self._shards: list[GrowingShard] = []  # bounded by the ring's groups
        self._late: list[LatePyramid] = []  # bounded by the open stacks' shards
        self._failed: list[GrowingShard | LatePyramid] = []  # until `retry`
        self._outdated: dict[GrowingStack, None] = {}  # the committed counts that readers see are old
        self._next_attributes_s = 0.0
        self._running = 0

    def add_shard(self, shard: GrowingShard) -> None:
        """Have a shard brought to Zarr."""
        self._shards.append(shard)

    def add_late(self, late: LatePyramid) -> None:
        """Have a pyramid made up once there is time."""
        self._late.append(late)

    def outdate(self, stack: GrowingStack) -> None:
        """Have a stack's committed count renewed."""
        self._outdated[stack] = None

    def forget(self, stack: GrowingStack) -> None:
        """Do not renew a stack's count: its last word was said."""
        self._outdated.pop(stack, None)

    def outdated(self) -> list[GrowingStack]:
        """The stacks whose committed counts are old."""
        return list(self._outdated)

    def are_done(self) -> bool:
        """Whether nothing is under way or waits, but for outdated counts."""
        return not (self._shards or self._late or self._running)

    def are_under_way(self) -> bool:
        """Whether a shard waits, or a task of any kind runs."""
        return bool(self._shards or self._running)

    def can_begin(self, *, short: bool, awaited: bool) -> bool:
        """Whether a thread may take a task: where the ring is `short` of room or somebody waits, beside others.

        One at a time while the ring has room: a second one would take the slices' processor and their disk.
        """
        late = self._late and (awaited or not short)
        return bool(self._shards or self._attributes_due() or late) and (short or awaited or not self._running)

    def due_in_s(self) -> float | None:
        """When a count is to be renewed; None where none is, or it is overdue."""
        wait_s = self._next_attributes_s - time.monotonic()
        return wait_s if self._outdated and wait_s > 0 else None

    def begin(self) -> Task:
        """The next task, which runs until `end`."""
        self._running += 1
        if not self._attributes_due():
            return (self._shards or self._late).pop(0)
        self._next_attributes_s = time.monotonic() + ATTRIBUTES_EVERY_S
        stack = next(iter(self._outdated))
        del self._outdated[stack]
        return stack

    def end(self) -> None:
        """A task is over, well or not."""
        self._running -= 1

    def fail(self, task: Task) -> None:
        """The disk refused a task: it is put aside until `retry`. A count is renewed with the next shard anyway."""
        if not isinstance(task, GrowingStack):
            self._failed.append(task)

    def retry(self) -> None:
        """Have what failed done once more."""
        self._shards += (task for task in self._failed if isinstance(task, GrowingShard))
        self._late += (task for task in self._failed if isinstance(task, LatePyramid))
        self._failed.clear()

    def _attributes_due(self) -> bool:
        return bool(self._outdated) and time.monotonic() >= self._next_attributes_s
