"""The durable stack store: frames in, slices fsynced at once in the ring, shards written to Zarr behind them.

Frames come from one thread. The `store-sync` thread makes what lies in the ring durable, many slices with one call
when they come fast, and reports each in order; the `store-shard` threads compress whole shards out of the ring into
Zarr, giving way to slices on the disk, and only then is their room in the ring free again. What cannot be written
stays where it is and is tried again with the next call, so a full disk costs no restart.
"""

import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from spheroidd.acquisition.disk.disk_priority import RightOfWay
from spheroidd.acquisition.disk.durable_file import storage_errors
from spheroidd.acquisition.store import ngff
from spheroidd.acquisition.store.growing_stack import GrowingShard, GrowingStack, LatePyramid, pixels_of
from spheroidd.acquisition.store.pending_slices import PendingSlice, PendingSlices
from spheroidd.acquisition.store.plate_rings import PlateRings
from spheroidd.acquisition.store.shard import IMAGE_CODEC, SLAB_Z, ShardCodec, crc32c
from spheroidd.acquisition.store.shard_queue import ShardTasks
from spheroidd.acquisition.store.stack_files import ShardRoom, StackFiles, read_block, read_raw
from spheroidd.protocols.errors import ConfigError, StackError, StorageError
from spheroidd.protocols.events import BlockStored, Event, FaultRaised, StackSealed
from spheroidd.protocols.faults import FaultCode
from spheroidd.protocols.pixels import Pixels
from spheroidd.protocols.plate import PlateMap
from spheroidd.protocols.stack import Block, Frame, SliceIndex, StackKey, StackPlan

MANY_PENDING = 8  # slices not yet durable: beyond these throughput counts, not how soon each one is


class ZarrStackStore:
    """Stacks in an OME-NGFF plate under `root`, durable slice by slice. `emit` is called from several threads.

    `root/<plate>.ome.zarr` is the plate, `root/<plate>.ring` the ring. Per stack come SliceDurable in the order of
    `append`, BlockStored after its slices and, per channel, in z order without a gap, and StackSealed last. Raw frames
    go into `root/<plate>.raw.zarr` by the same rules, the frames of one slice and channel to a shard.
    `ring_slots` planes may wait for their shard; without it as many as PlateRings finds room for. `with_pyramid=False`
    leaves the coarser levels empty: only where nobody will look at the images.
    """

    def __init__(
        self,
        root: Path,
        plate_map: PlateMap,
        emit: Callable[[Event], None],
        *,
        codec: ShardCodec = IMAGE_CODEC,
        slab_z: int = SLAB_Z,
        ring_slots: int | None = None,
        shard_threads: int = 2,
        with_pyramid: bool = True,
    ) -> None:
        self._root, self._plate_map, self._emit = root, plate_map, emit
        self._codec, self._slab_z, self._with_pyramid = codec, slab_z, with_pyramid
        self._stacks: dict[StackKey, GrowingStack] = {}
        self._sealed: set[StackKey] = set()
        self._rings = PlateRings(root, plate_map.name, codec, ring_slots, self._recover)
        self._pending, self._tasks = PendingSlices(), ShardTasks()
        self._failure: Exception | None = None  # what a thread met, until a caller was told
        self._closed = False
        self._awaited = self._catching_up = False  # why shards do not give way: a caller waits, frames come too fast
        self._short = False  # of room in the ring
        self._right_of_way = RightOfWay()
        self._change = threading.Condition()  # guards all of the above
        self._telling = threading.Lock()  # keeps blocks and attributes in order; taken before `_change`, never after
        loops = [
            ("store-sync", self._sync_loop),
            *((f"store-shard-{n}", self._shard_loop) for n in range(shard_threads)),
        ]
        self._threads = [threading.Thread(target=loop, name=name, daemon=True) for name, loop in loops]
        for thread in self._threads:
            thread.start()

    # -- the port

    def open(self, plan: StackPlan) -> Mapping[SliceIndex, int]:
        """Create or take up a stack; see the port. BlockStored comes again for what can be read already.

        A shard that does not hold what it was written with is set aside: FaultRaised "damaged-shard", and its slices
        are not among those returned. StorageError where the stack on disk has another geometry.
        """
        if plan.key.plate != self._plate_map.name:
            what = f"stack {plan.key} does not belong to plate {self._plate_map.name}"
            raise ConfigError(what, where=str(self._root), do="give each plate its own store")
        with self._change:
            self._tell_failure()
            stack = self._stacks.get(plan.key)
            if stack is not None:
                stack.files.check_same(plan)
                self._settle(stack)
                stack.announced = [0] * len(plan.channels)
        if stack is None:
            with storage_errors(self._root):
                stack = self._take_up(plan)
        self._announce(stack)
        if len(stack.durable) < plan.n_slices:  # it may have been sealed before, and now it grows again
            with storage_errors(stack.files.image):
                self._write_attributes(stack, sealed=False)
        return dict(stack.durable)

    def append(self, frame: Frame) -> None:
        """Take a frame; see the port. Blocks while the ring is full. A slice that the stack has already is left alone.

        FaultRaised "duplicate-slice" where its pixels differ from those held.
        """
        stack = self._stack(frame.key)
        frame.check(stack.plan)
        pixels = pixels_of(frame)
        crc = crc32c(pixels)
        with self._change:
            self._tell_failure()
            held = stack.accepted.get(frame.index)
            shard = self._room(stack, frame.index) if held is None else None
            self._pending.coming = shard is not None
            self._share_disk()
        if shard is None:
            if held != crc:
                self._emit(FaultRaised(FaultCode.DUPLICATE_SLICE, _second(frame), frame.key))
            return
        try:
            with storage_errors(stack.ring.path):
                stack.write_to_ring(shard, frame, pixels, crc)
            with self._change:
                stack.accepted[frame.index] = crc
                self._pending.add(PendingSlice(shard, frame, crc))
        finally:
            with self._change:
                self._pending.coming = False
                self._changed()

    def seal(self, key: StackKey) -> None:
        """Write out what is left of a stack, complete or not; see the port. It can be opened again and completed."""
        if key in self._sealed:
            return
        stack = self._stack(key)
        with self._change:
            self._tell_failure()
            self._wait_until(lambda: not self._pending.are_of(stack))
            for shard in stack.filling.values():
                self._queue(shard)
            self._settle(stack)
        self._announce(stack, also_partial=True)
        with storage_errors(stack.files.image):
            if self._with_pyramid:
                stack.files.sync_pyramid()
            self._write_attributes(stack, sealed=True)
        self._emit(StackSealed(key))

    def read(self, block: Block) -> Pixels:
        """The pixels (z, y, x) of a block that was announced; of raw frames (z * angle * phase, y, x)."""
        if not ngff.raw_path(self._root, block.key).exists():
            return read_block(self._root, block)
        frames = read_raw(self._root, block)
        return frames.reshape(-1, *frames.shape[-2:])

    def close(self) -> None:
        """Finish what was appended and stop the threads; what is not yet in Zarr waits in the ring for the next start.

        StorageError where it cannot be finished: the store stays open, and close may be tried again, or `abandon`.
        """
        with self._change:
            if self._closed:
                return
            self._tell_failure()
            self._wait_until(lambda: not self._pending and self._tasks.are_done())
            outdated = self._tasks.outdated()
        for stack in outdated:
            with storage_errors(stack.files.image):
                self._write_attributes(stack, sealed=False)
        self.abandon()
        self._rings.remove(needed={stack.ring for stack in self._stacks.values() if stack.filling})

    def abandon(self) -> None:
        """Stop at once, as a kill would: what was reported durable stays so, all else is lost. May be called twice."""
        with self._change:
            self._closed = True
            self._changed()
        for thread in self._threads:
            thread.join()
        self._rings.close()

    # -- taking up a stack

    def _take_up(self, plan: StackPlan) -> GrowingStack:
        files = StackFiles.open(self._root, self._plate_map, plan, self._codec, self._slab_z, self._right_of_way)
        stack = GrowingStack(files, self._rings.of(files))
        self._recover(stack)
        stack.accepted = dict(stack.durable)
        with self._change:
            self._stacks[plan.key] = stack
            self._sealed.discard(plan.key)
        return stack

    def _recover(self, stack: GrowingStack) -> None:
        """Find out what a stack has in Zarr."""
        plan = stack.plan
        for found in stack.files.recover(with_pyramid=self._with_pyramid):
            if isinstance(found, StorageError):
                self._emit(FaultRaised(FaultCode.DAMAGED_SHARD, found, plan.key))
                continue
            channel, number, crcs = found
            stack.stored[channel, number] = crcs
            stack.durable |= {plan.index_at(plan.channels[channel], plane): crc for plane, crc in crcs.items()}

    def _stack(self, key: StackKey) -> GrowingStack:
        with self._change:
            if self._closed:
                raise StorageError("the store is closed", where=str(self._root), do="make a new one")
            if key not in self._stacks:
                raise StackError("the stack is not open", where=str(key), do="open it first")
            return self._stacks[key]

    # -- room in the ring, work and failures: all with `_change` held

    def _room(self, stack: GrowingStack, index: SliceIndex) -> GrowingShard:
        """The shard that a slice goes into, with room in the ring; waits for another shard where there is none."""
        place = stack.place(index)
        while True:
            shard = stack.filling.get(place)
            if shard is not None and not shard.queued:
                return shard
            if shard is None and (group := self._rings.take_group(stack.ring)) is not None:
                shard = stack.filling[place] = GrowingShard(stack, place, group)
                return shard
            if shard is None and not (self._pending or self._tasks.are_under_way()):
                # Frames in a wild order: write what there is of the fullest shard now, the rest into it later.
                others = [
                    s for other in self._stacks.values() if other.ring is stack.ring for s in other.filling.values()
                ]
                self._queue(max(others, key=lambda other: len(other.crcs)))
            self._change.wait()
            self._tell_failure()

    def _queue(self, shard: GrowingShard) -> None:
        if not shard.queued:
            shard.queued = True
            self._tasks.add_shard(shard)
            self._changed()

    def _tell_failure(self) -> None:
        """Raise what a thread met since the last call, and have it tried again."""
        failure, self._failure = self._failure, None
        if failure is None:
            return
        self._pending.retry()
        self._tasks.retry()
        self._changed()
        raise failure

    def _wait_until(self, done: Callable[[], bool]) -> None:
        self._awaited = True
        try:
            self._changed()
            while not done():
                self._change.wait()
                self._tell_failure()
        finally:
            self._awaited = False

    def _changed(self) -> None:
        self._share_disk()
        self._change.notify_all()

    def _share_disk(self) -> None:
        """Slices have the disk first. Once frames come too fast for that, shards do not wait until all are written."""
        self._short = self._rings.are_short()
        too_fast = self._short or len(self._pending) > MANY_PENDING
        self._catching_up = too_fast or (self._catching_up and self._tasks.are_under_way())
        hurry = self._catching_up or self._awaited or self._closed
        self._right_of_way.signal(slices=self._pending.need_disk(), hurry=hurry)

    def _settle(self, stack: GrowingStack) -> None:
        """Wait until nothing of a stack is on its way."""
        self._wait_until(lambda: not (self._pending.are_of(stack) or stack.is_being_written()))

    # -- the sync thread

    def _sync_loop(self) -> None:
        while True:
            with self._change:
                while not self._pending.can_sync() and not self._closed:
                    self._change.wait()
                if self._closed:
                    return
                batch = self._pending.batch()
            try:
                with storage_errors(self._root):
                    self._sync(batch)
            except Exception as error:
                with self._change:
                    self._pending.fail()
                    self._failure = error
                    self._changed()

    def _sync(self, batch: list[PendingSlice]) -> None:
        self._pending.sync(batch)
        for pending in batch:
            self._emit(pending.event())
        with self._change:
            for shard in self._pending.conclude(batch):
                self._queue(shard)
            self._changed()

    # -- the shard threads

    def _shard_loop(self) -> None:
        room = None
        while True:
            with self._change:
                while not self._tasks.can_begin(short=self._short, awaited=self._awaited) and not self._closed:
                    self._change.wait(self._tasks.due_in_s())
                if self._closed:
                    return
                task = self._tasks.begin()
            try:
                files = task.files if isinstance(task, GrowingStack) else task.stack.files
                with storage_errors(files.image):
                    if isinstance(task, GrowingStack):
                        self._write_attributes(task, sealed=False)
                    else:
                        room = room if room and room.grids == files.grids else ShardRoom(files.grids)
                        self._store(task, room) if isinstance(task, GrowingShard) else self._make_up(task, room)
            except Exception as error:
                with self._change:
                    self._failure = error
                    self._tasks.fail(task)
            finally:
                with self._change:
                    self._tasks.end()
                    self._changed()

    def _store(self, shard: GrowingShard, room: ShardRoom) -> None:
        """Bring a shard to Zarr. Where the ring is short of room its pyramid comes later: the slices need the time."""
        # Coarser levels take a third of a shard's processor time and make nothing durable. More shard threads instead
        # were slower: beyond two they wait for the interpreter's lock.
        stack, now = shard.stack, self._with_pyramid and not self._short
        crcs = stack.store(shard, room, with_pyramid=now)
        with self._change:
            stack.stored[shard.place] = crcs
            if self._with_pyramid and not now:
                stack.late.add(shard.place)
                self._tasks.add_late(LatePyramid(stack, shard.place))
        self._announce(stack)
        if now:
            stack.files.write_pyramid(*shard.place, crcs, room)
        with self._change:
            del stack.filling[shard.place]
            self._rings.give_back(stack.ring, shard.group)
            self._tasks.outdate(stack)
            self._changed()

    def _make_up(self, task: LatePyramid, room: ShardRoom) -> None:
        """Write a pyramid that is late, and once more where its shard was completed meanwhile."""
        crcs = task.make(room)
        with self._change:
            if task.stack.stored[task.place] is crcs:
                task.stack.late.discard(task.place)
            else:
                self._tasks.add_late(task)
            self._changed()

    def _announce(self, stack: GrowingStack, *, also_partial: bool = False) -> None:
        with self._telling:
            with self._change:
                blocks = list(stack.announce(also_partial=also_partial))
            for block in blocks:
                self._emit(BlockStored(block))

    def _write_attributes(self, stack: GrowingStack, *, sealed: bool) -> None:
        windows = stack.files.display_windows() if sealed and self._with_pyramid else {}
        with self._telling:
            with self._change:
                if not sealed and self._stacks.get(stack.plan.key) is not stack:
                    return  # a shard thread came late: the last word was said
                whole = (planes // stack.plan.frames_per_slice for planes in stack.announced)
                committed = dict(zip(stack.plan.channels, whole, strict=True))
                complete = sealed and len(stack.durable) == stack.plan.n_slices
            stack.files.write_attributes(committed, complete=complete, sealed=sealed, windows=windows)
            if sealed:
                with self._change:
                    self._tasks.forget(stack)
                    self._sealed.add(self._stacks.pop(stack.plan.key).plan.key)


def _second(frame: Frame) -> StackError:
    what = f"{frame.index} arrived twice with different pixels"
    return StackError(what, where=str(frame.key), do="the first was kept; check what the instrument repeats")
