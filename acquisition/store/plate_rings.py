"""The rings of a plate, one for each size of plane and depth of shard, and which of their groups of slots are free."""

import shutil
from collections.abc import Callable, Set
from pathlib import Path

from spheroidd.acquisition.disk.durable_file import storage_errors
from spheroidd.acquisition.store.growing_stack import GrowingStack
from spheroidd.acquisition.store.leftovers import RING_END
from spheroidd.acquisition.store.ring_file import Ring
from spheroidd.acquisition.store.shard import ShardCodec
from spheroidd.acquisition.store.stack_files import ShardRoom, StackFiles, unsealed_stacks

RING_SLOTS = 48  # at least: two shards filling, two being written, two that ride out a slow disk
RING_BYTES = 256 << 20  # as many as fit, 209 at 800x800: half a stack may come faster than its shards are written
MANY_SLOTS = 256
# One thread writes shards while the ring has room. Letting them wait until half of it is taken made pushes faster and
# the writer by itself slower, because the processor idled while the disk synced.


class PlateRings:
    """Makes a ring when its first stack comes; `recover` finds out what a stack has in Zarr.

    The groups are guarded by the store's lock; rings are made and closed by the thread that frames come from.
    """

    def __init__(
        self,
        root: Path,
        plate: str,
        codec: ShardCodec,
        n_slots: int | None,
        recover: Callable[[GrowingStack], None],
    ) -> None:
        self._root, self._plate, self._codec = root, plate, codec
        self._n_slots, self._recover = n_slots, recover
        self._rings: dict[tuple[int, int], Ring] = {}  # by the size of a plane and the planes in a shard
        self._free: dict[Ring, set[int]] = {}

    def of(self, files: StackFiles) -> Ring:
        """The ring for planes of this size; what a stopped run left in it is first brought to Zarr, then it is free."""
        size = plane_bytes, depth = files.plane_bytes, files.depth
        if size not in self._rings:
            slots = self._n_slots or _slots_for(plane_bytes, self._root)
            folder = self._root / f"{self._plate}{RING_END}"
            ring = Ring(folder, plane_bytes, depth, max(2 if files.plan.raw is None else 4, slots // depth))
            try:
                for left in unsealed_stacks(self._root, self._plate, self._codec):
                    if (left.plane_bytes, left.depth) == size:
                        self._rescue(GrowingStack(left, ring))
            except BaseException:
                ring.close()
                raise
            self._rings[size] = ring
            self._free = {**self._free, ring: set(range(ring.n_groups))}  # anew: another thread may go through it
        return self._rings[size]

    def take_group(self, ring: Ring) -> int | None:
        """A free group, the caller's until it is given back; None where there is none."""
        free = self._free[ring]
        if not free:
            return None
        group = min(free)  # the same few over and over, which stay in the system's memory
        free.remove(group)
        return group

    def give_back(self, ring: Ring, group: int) -> None:
        """Let a group's room be used again."""
        self._free[ring].add(group)

    def are_short(self) -> bool:
        """Whether any ring has little room left."""
        return any(3 * len(free) < ring.n_groups for ring, free in self._free.items())

    def remove(self, needed: Set[Ring]) -> None:
        """Delete the rings, once closed, that hold nothing for the next start."""
        for ring in self._rings.values():
            if ring not in needed:
                ring.remove()

    def close(self) -> None:
        """Let the files go; may be called twice."""
        for ring in self._rings.values():
            ring.close()

    def _rescue(self, stack: GrowingStack) -> None:
        if not stack.left_in_ring():
            return
        self._recover(stack)
        room = ShardRoom(stack.files.grids)
        for shard in stack.left_in_ring():
            stack.stored[shard.place] = stack.store(shard, room, with_pyramid=False)


def _slots_for(plane_bytes: int, root: Path) -> int:
    """How many planes the ring holds where nobody says it: it takes no more than an eighth of a disk that is short."""
    with storage_errors(root):
        n_bytes = min(RING_BYTES, shutil.disk_usage(root).free // 8)
    return max(RING_SLOTS, min(n_bytes // plane_bytes, MANY_SLOTS))
