"""The slices that lie in the ring and are not yet durable, in the order in which they came."""

from collections.abc import Iterator
from dataclasses import dataclass

from spheroidd.acquisition.store.growing_stack import GrowingShard, GrowingStack, pixels_of
from spheroidd.protocols.events import SliceDurable
from spheroidd.protocols.stack import Frame


@dataclass(frozen=True, slots=True)
class PendingSlice:
    """A frame in the ring, its shard and its crc32c."""

    shard: GrowingShard
    frame: Frame
    crc: int

    def event(self) -> SliceDurable:
        """What to say of it once it is durable."""
        frame = self.frame
        return SliceDurable(frame.key, frame.index, self.crc, frame.acquired_s, frame.metadata)


class PendingSlices:
    """Bounded by the ring's slots. Plain state: the store's lock guards it, and only `sync` is called without it."""

    def __init__(self) -> None:
        self._slices: list[PendingSlice] = []
        self.coming = False  # a frame is on its way into the ring
        self._failed = self._write_again = False

    def __len__(self) -> int:
        return len(self._slices)

    def add(self, pending: PendingSlice) -> None:
        """Take what was written to the ring."""
        self._slices.append(pending)

    def are_of(self, stack: GrowingStack) -> bool:
        """Whether any is of this stack."""
        return any(pending.shard.stack is stack for pending in self._slices)

    def can_sync(self) -> bool:
        """Whether there is something to make durable, and the last attempt did not fail."""
        return bool(self._slices) and not self._failed

    def need_disk(self) -> bool:
        """Whether slices are on their way to the disk, or will be in a moment."""
        return self.coming or self.can_sync()

    def batch(self) -> list[PendingSlice]:
        """All that there are now."""
        return list(self._slices)

    def sync(self, batch: list[PendingSlice]) -> None:
        """Make a batch durable; a failing disk raises OSError."""
        if self._write_again:  # after a failed sync the system may have dropped the pages that it could not write
            for pending in batch:
                pending.shard.stack.write_to_ring(pending.shard, pending.frame, pixels_of(pending.frame), pending.crc)
        for ring in {pending.shard.stack.ring for pending in batch}:
            ring.sync()
        self._write_again = False

    def fail(self) -> None:
        """The sync failed: wait until `retry`."""
        self._failed = True

    def retry(self) -> None:
        """Have what failed written and synced once more."""
        if self._failed:
            self._failed, self._write_again = False, True

    def conclude(self, batch: list[PendingSlice]) -> Iterator[GrowingShard]:
        """Strike off a batch that is durable; gives the shards that are whole with it."""
        del self._slices[: len(batch)]
        for pending in batch:
            shard, index = pending.shard, pending.frame.index
            shard.stack.durable[index] = shard.crcs[shard.stack.plan.plane_of(index)] = pending.crc
            if shard.stack.is_whole(shard):
                yield shard
