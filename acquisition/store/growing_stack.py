"""What the store knows of a stack while it grows. Plain state: the store's lock guards it, nothing here waits."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from spheroidd.acquisition.store.ring_file import Ring
from spheroidd.acquisition.store.shard import Rows, halving_rows, merged_rows
from spheroidd.acquisition.store.stack_files import ShardRoom, StackFiles
from spheroidd.protocols.pixels import Pixels
from spheroidd.protocols.stack import Block, Frame, SliceIndex, StackPlan

Place = tuple[int, int]
"""(channel number, shard number)."""


@dataclass(eq=False, slots=True)
class GrowingShard:
    """A shard that has a group of the ring; `crcs` ({plane: crc32c}) are the planes that lie there durably."""

    stack: "GrowingStack"
    place: Place
    group: int
    crcs: dict[int, int] = field(default_factory=dict)
    queued: bool = False  # on its way to Zarr; takes no further plane

    def rows(self, strip: Pixels) -> Rows:
        """Give the shard's planes out of the ring by way of `strip`; planes that are not there come as zeros."""
        grid, ring = self.stack.files.grids[0], self.stack.ring
        line = grid.width * grid.dtype.itemsize
        held = {z % grid.depth for z in self.crcs}
        absent = [plane for plane in range(grid.depth) if plane not in held]

        def rows(start: int, stop: int) -> Pixels:
            for z in self.crcs:
                plane = z % grid.depth
                ring.read_rows(self.group, plane, start * line, strip[plane, : stop - start])
            strip[absent] = 0  # a thread's strip is used again for the next shard
            return strip[:, : stop - start]

        return rows


@dataclass(eq=False, slots=True)
class GrowingStack:
    """An open stack: what was accepted, what of it is durable (in the ring or in Zarr), what is stored (in Zarr)."""

    files: StackFiles
    ring: Ring
    accepted: dict[SliceIndex, int] = field(default_factory=dict)
    durable: dict[SliceIndex, int] = field(default_factory=dict)
    stored: dict[Place, dict[int, int]] = field(default_factory=dict)
    filling: dict[Place, GrowingShard] = field(default_factory=dict)
    late: set[Place] = field(default_factory=set)  # stored, and their pyramids are still to come
    announced: list[int] = field(default_factory=list)  # by channel: every plane below this z was announced

    def __post_init__(self) -> None:
        self.announced = [0] * len(self.plan.channels)

    @property
    def plan(self) -> StackPlan:
        """The stack's geometry."""
        return self.files.plan

    def place(self, index: SliceIndex) -> Place:
        """Where a slice belongs."""
        return self.plan.channels.index(index.channel), self.plan.plane_of(index) // self.files.depth

    def is_whole(self, shard: GrowingShard) -> bool:
        """Whether the ring and Zarr together hold every plane of a shard, durably."""
        held = shard.crcs.keys() | self.stored.get(shard.place, {}).keys()
        return held.issuperset(self.files.planes(shard.place[1]))

    def is_being_written(self) -> bool:
        """Whether anything of it is on its way to Zarr."""
        return bool(self.late) or any(shard.queued for shard in self.filling.values())

    def write_to_ring(self, shard: GrowingShard, frame: Frame, pixels: Pixels, crc: int) -> None:
        """Put a frame into its slot."""
        channel, z = shard.place[0], self.plan.plane_of(frame.index)
        self.ring.write(shard.group, z % self.files.depth, self.files.stack_id, channel, z, pixels, crc)

    def announce(self, *, also_partial: bool) -> Iterator[Block]:
        """The blocks that can be read and were not announced: shard by shard, each channel's without a gap from z 0.

        The whole planes at the start of a shard that has gaps count only with `also_partial`. Of raw frames a shard
        holds one slice, which is whole or not announced.
        """
        per_slice = self.plan.frames_per_slice
        for channel, name in enumerate(self.plan.channels):
            while (start := self.announced[channel]) < self.plan.n_planes:
                shard = start // self.files.depth
                stored = self.stored.get((channel, shard), {})
                limit = self.files.planes(shard).stop
                stop = next((z for z in range(start, limit) if z not in stored), limit)
                if stop == start or (stop < limit and not (also_partial and per_slice == 1)):
                    break
                yield Block(self.plan.key, name, start // per_slice, stop // per_slice)
                self.announced[channel] = stop

    def store(self, shard: GrowingShard, room: ShardRoom, *, with_pyramid: bool) -> dict[int, int]:
        """Write a shard to Zarr durably, together with the planes that Zarr has of it: {z: crc32c} of them all.

        With the pyramid, its first level is left in `room`.
        """
        files, stored = self.files, self.stored.get(shard.place, {})
        crcs = {**shard.crcs, **stored}
        rows = shard.rows(room.strip)
        if stored:
            rows = merged_rows(rows, files.read_shard(*shard.place)[1], {z % files.depth for z in stored})
        if with_pyramid and room.levels:
            rows = halving_rows(rows, room.halving, room.levels[0])
        files.write_shard(*shard.place, crcs, rows)
        return crcs

    def left_in_ring(self) -> list[GrowingShard]:
        """What a stopped run left of this stack in the ring and not in Zarr."""
        shards: dict[tuple[Place, int], GrowingShard] = {}
        for found in self.ring.scan(self.files.stack_id):
            if found.channel >= len(self.plan.channels) or found.z >= self.plan.n_planes:
                continue
            index = self.plan.index_at(self.plan.channels[found.channel], found.z)
            if index not in self.durable:
                place = self.place(index)
                shard = shards.setdefault((place, found.group), GrowingShard(self, place, found.group))
                shard.crcs[found.z] = found.crc32c
        return list(shards.values())


@dataclass(eq=False, frozen=True, slots=True)
class LatePyramid:
    """The coarser levels of a shard that is in Zarr: put off while frames came too fast."""

    stack: GrowingStack
    place: Place

    def make(self, room: ShardRoom) -> dict[int, int]:
        """Write them from what Zarr holds; gives the shard's {z: crc32c} as they were before it was read."""
        files, crcs = self.stack.files, self.stack.stored[self.place]
        if room.levels:
            room.halving(files.read_shard(*self.place)[1], room.levels[0])
        files.write_pyramid(*self.place, crcs, room)
        return crcs


def pixels_of(frame: Frame) -> Pixels:
    """A frame's pixels as they lie on disk: C-contiguous, little-endian; the same array where it is so already."""
    return np.ascontiguousarray(frame.pixels, frame.pixels.dtype.newbyteorder("<"))
