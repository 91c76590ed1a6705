"""What the store knows of a stack while it grows. Plain state: the store's lock guards it, nothing here waits."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from spheroidd.acquisition.store.ring_file import Ring
from spheroidd.acquisition.store.shard import Rows, halving_rows, merged_rows
from spheroidd.acquisition.store.stack_files import SlabRoom, StackFiles
from spheroidd.protocols.stack import Block, Frame, Pixels, SliceIndex, StackPlan

Place = tuple[int, int]
"""(channel number, slab number)."""


@dataclass(eq=False, slots=True)
class GrowingSlab:
    """A slab that has a group of the ring; `crcs` ({z: crc32c}) are the planes that lie there durably."""

    stack: "GrowingStack"
    place: Place
    group: int
    crcs: dict[int, int] = field(default_factory=dict)
    queued: bool = False  # on its way to Zarr; takes no further plane

    def rows(self, strip: Pixels) -> Rows:
        """Give the slab's planes out of the ring by way of `strip`; planes that are not there come as zeros."""
        grid, ring = self.stack.files.grids[0], self.stack.ring
        line = grid.width * grid.dtype.itemsize
        held = {z % grid.depth for z in self.crcs}
        absent = [plane for plane in range(grid.depth) if plane not in held]

        def rows(start: int, stop: int) -> Pixels:
            for z in self.crcs:
                plane = z % grid.depth
                ring.read_rows(self.group, plane, start * line, strip[plane, : stop - start])
            strip[absent] = 0  # a thread's strip is used again for the next slab
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
    filling: dict[Place, GrowingSlab] = field(default_factory=dict)
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
        return self.plan.channels.index(index.channel), index.z // self.files.depth

    def is_whole(self, slab: GrowingSlab) -> bool:
        """Whether the ring and Zarr together hold every plane of a slab, durably."""
        held = slab.crcs.keys() | self.stored.get(slab.place, {}).keys()
        return held.issuperset(self.files.planes(slab.place[1]))

    def is_being_written(self) -> bool:
        """Whether anything of it is on its way to Zarr."""
        return bool(self.late) or any(slab.queued for slab in self.filling.values())

    def write_to_ring(self, slab: GrowingSlab, frame: Frame, pixels: Pixels, crc: int) -> None:
        """Put a frame into its slot."""
        channel, z = slab.place[0], frame.index.z
        self.ring.write(slab.group, z % self.files.depth, self.files.stack_id, channel, z, pixels, crc)

    def announce(self, *, also_partial: bool) -> Iterator[Block]:
        """The blocks that can be read and were not announced: slab by slab, each channel's without a gap from z 0.

        The whole planes at the start of a slab that has gaps count only with `also_partial`.
        """
        for channel, name in enumerate(self.plan.channels):
            while (start := self.announced[channel]) < self.plan.n_z:
                slab = start // self.files.depth
                stored = self.stored.get((channel, slab), {})
                limit = self.files.planes(slab).stop
                stop = next((z for z in range(start, limit) if z not in stored), limit)
                if stop == start or (stop < limit and not also_partial):
                    break
                yield Block(self.plan.key, name, start, stop)
                self.announced[channel] = stop

    def store(self, slab: GrowingSlab, room: SlabRoom, *, with_pyramid: bool) -> dict[int, int]:
        """Write a slab to Zarr durably, together with the planes that Zarr has of it: {z: crc32c} of them all.

        With the pyramid, its first level is left in `room`.
        """
        files, stored = self.files, self.stored.get(slab.place, {})
        crcs = {**slab.crcs, **stored}
        rows = slab.rows(room.strip)
        if stored:
            rows = merged_rows(rows, files.read_slab(*slab.place)[1], {z % files.depth for z in stored})
        if with_pyramid and room.levels:
            rows = halving_rows(rows, room.halving, room.levels[0])
        files.write_slab(*slab.place, crcs, rows)
        return crcs

    def left_in_ring(self) -> list[GrowingSlab]:
        """What a stopped run left of this stack in the ring and not in Zarr."""
        slabs: dict[tuple[Place, int], GrowingSlab] = {}
        for found in self.ring.scan(self.files.stack_id):
            if found.channel >= len(self.plan.channels) or found.z >= self.plan.n_z:
                continue
            index = SliceIndex(self.plan.channels[found.channel], found.z)
            if index not in self.durable:
                place = self.place(index)
                slab = slabs.setdefault((place, found.group), GrowingSlab(self, place, found.group))
                slab.crcs[found.z] = found.crc32c
        return list(slabs.values())


@dataclass(eq=False, frozen=True, slots=True)
class LatePyramid:
    """The coarser levels of a slab that is in Zarr: put off while frames came too fast."""

    stack: GrowingStack
    place: Place

    def make(self, room: SlabRoom) -> dict[int, int]:
        """Write them from what Zarr holds; gives the slab's {z: crc32c} as they were before it was read."""
        files, crcs = self.stack.files, self.stack.stored[self.place]
        if room.levels:
            room.halving(files.read_slab(*self.place)[1], room.levels[0])
        files.write_pyramid(*self.place, crcs, room)
        return crcs


def pixels_of(frame: Frame) -> Pixels:
    """A frame's pixels as they lie on disk: C-contiguous, little-endian; the same array where it is so already."""
    return np.ascontiguousarray(frame.pixels, frame.pixels.dtype.newbyteorder("<"))
