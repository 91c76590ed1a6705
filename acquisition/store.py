"""The durable stack store: frames in, slices fsynced at once in the ring, slabs written to Zarr behind them.

Frames come from one thread. A `store-sync` thread makes what lies in the ring durable, many slices with one call when
they come fast, and reports each in order; `store-slab` threads compress whole slabs out of the ring into Zarr, and
only then is their room in the ring free again. What cannot be written stays where it is and is tried again with the
next call, so a full disk costs no restart.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from spheroidd.acquisition.durable_file import storage_errors
from spheroidd.acquisition.ring import Ring
from spheroidd.acquisition.slab import IMAGE_CODEC, SLAB_Z, Rows, SlabCodec, crc32c, halve
from spheroidd.acquisition.stack_files import StackFiles, read_block
from spheroidd.protocols.errors import SpheroiddError, StackError, StorageError
from spheroidd.protocols.events import BlockStored, Event, FaultRaised, SliceDurable, StackOpened, StackSealed
from spheroidd.protocols.plate import PlateMap
from spheroidd.protocols.stack import Block, Frame, Pixels, SliceIndex, StackKey, StackPlan

RING_SLOTS = 48  # 61 MB at 800x800: two slabs filling, two being written, two that ride out a slow disk


@dataclass(eq=False, slots=True)
class _Slab:
    """A slab on its way: the planes {z: crc32c} that lie in its ring group, and how far it has come."""

    stack: "_Stack"
    channel: int
    number: int
    group: int
    crcs: dict[int, int] = field(default_factory=dict)
    queued: bool = False
    failed: bool = False


@dataclass(eq=False, slots=True)
class _Stack:
    """What is known of an open stack. `accepted` may still be on its way; `durable` and `stored` ({z: crc}) are not."""

    files: StackFiles
    ring: Ring
    accepted: dict[SliceIndex, int] = field(default_factory=dict)
    durable: dict[SliceIndex, int] = field(default_factory=dict)
    stored: dict[tuple[int, int], dict[int, int]] = field(default_factory=dict)  # (channel, slab) -> on disk in Zarr
    filling: dict[tuple[int, int], _Slab] = field(default_factory=dict)  # (channel, slab) -> in the ring
    front: list[int] = field(default_factory=list)  # by channel: every plane below it was announced
    listed: dict[str, int] = field(default_factory=dict)  # the committed counts that the attributes say
    sealed: bool = False

    @property
    def plan(self) -> StackPlan:
        return self.files.plan

    def has_all(self, slab: _Slab) -> bool:
        """Whether the ring and the disk together hold every plane of a slab, durably."""
        stored = self.stored.get((slab.channel, slab.number), {})
        name = self.plan.channels[slab.channel]
        return all(z in stored or SliceIndex(name, z) in self.durable for z in self.files.planes(slab.number))

    def advance(self) -> list[Block]:
        """The blocks that can be read now and were not announced: each channel's follow each other without a gap."""
        blocks = []
        for channel, name in enumerate(self.plan.channels):
            while self.front[channel] < self.plan.n_z:
                start = self.front[channel]
                slab = start // self.files.depth
                stored = self.stored.get((channel, slab), {})
                stop = next((z for z in self.files.planes(slab) if z >= start and z not in stored), None)
                end = self.files.planes(slab).stop if stop is None else stop
                if end == start or (stop is not None and (channel, slab) in self.filling and not self.sealed):
                    break
                blocks.append(Block(self.plan.key, name, start, end))
                self.front[channel] = end
                if stop is not None:
                    break
        return blocks


class ZarrStackStore:
    """Stacks in an OME-NGFF plate under `root`, durable slice by slice. `emit` is called from several threads.

    `root/<plate>.ome.zarr` is the plate, `root/<plate>.ring` the ring. Per stack come StackOpened, then SliceDurable
    in the order of `append`, each BlockStored after its slices and in z order, and StackSealed last. Give
    `with_pyramid=False` only where nobody will look at the images.
    """

    def __init__(
        self,
        root: Path,
        plate_map: PlateMap,
        emit: Callable[[Event], None],
        *,
        codec: SlabCodec = IMAGE_CODEC,
        slab_z: int = SLAB_Z,
        ring_slots: int = RING_SLOTS,
        slab_threads: int = 2,
        with_pyramid: bool = True,
    ) -> None:
        self._root, self._plate_map, self._emit = root, plate_map, emit
        self._codec, self._slab_z, self._n_groups = codec, slab_z, max(2, ring_slots // slab_z)
        self._with_pyramid = with_pyramid
        self._stacks: dict[StackKey, _Stack] = {}
        self._rings: dict[int, Ring] = {}
        self._free: dict[Ring, list[int]] = {}
        self._pending: list[tuple[_Stack, _Slab, Frame, int]] = []  # in the ring, not yet durable; bounded by the ring
        self._syncing = False
        self._jobs: list[_Slab] = []  # bounded by the ring's groups
        self._working = 0
        self._failure: SpheroiddError | None = None
        self._sync_failed = False
        self._closed = False
        self._change = threading.Condition()
        self._announcing = threading.Lock()
        names = ["store-sync", *(f"store-slab-{n}" for n in range(slab_threads))]
        targets = [self._sync_loop, *[self._slab_loop] * slab_threads]
        self._threads = [threading.Thread(target=t, name=n, daemon=True) for t, n in zip(targets, names, strict=True)]
        for thread in self._threads:
            thread.start()

    def open(self, plan: StackPlan) -> Mapping[SliceIndex, int]:
        """Create or take up a stack; see the port. Emits StackOpened, then BlockStored for what can be read already."""
        if plan.key.plate != self._plate_map.name:
            what = f"stack {plan.key} does not belong to plate {self._plate_map.name}"
            raise StorageError(what, where=str(self._root), do="give the plate its own store")
        with self._change:
            stack = self._stacks.get(plan.key)
        if stack is not None and stack.plan == plan:
            with self._change:
                self._retry()
                self._settle(stack)
                stack.front = [0] * len(plan.channels)
                stack.sealed = False
        else:
            with storage_errors(self._root):
                stack = self._take_up(plan)
        self._emit(StackOpened(plan, dict(stack.durable)))
        self._announce(stack)
        return dict(stack.durable)

    def append(self, frame: Frame) -> None:
        """Take a frame; see the port. Blocks on a full ring; FaultRaised where a slice comes twice and differs."""
        stack = self._stack(frame.key)
        frame.check(stack.plan)
        pixels = np.ascontiguousarray(frame.pixels)
        crc = crc32c(pixels)
        channel, number = stack.plan.channels.index(frame.index.channel), frame.index.z // self._slab_z
        with self._change:
            self._retry()
            if frame.index in stack.accepted:
                held = stack.accepted[frame.index]
            else:
                held = None
                slab = stack.filling.get((channel, number)) or self._new_slab(stack, channel, number)
        if held is not None:
            self._refuse_second(frame, held, crc)
            return
        with storage_errors(stack.ring.path):
            stack.ring.write(
                slab.group, frame.index.z % self._slab_z, stack.files.stack_id, channel, frame.index.z, pixels, crc
            )
        with self._change:
            stack.accepted[frame.index] = crc
            stack.sealed = False
            self._pending.append((stack, slab, frame, crc))
            self._change.notify_all()

    def seal(self, key: StackKey) -> None:
        """Write out what is left of a stack, complete or not; see the port."""
        stack = self._stack(key)
        with self._change:
            if stack.sealed:
                return
            self._retry()
            self._wait_until(lambda: not any(entry[0] is stack for entry in self._pending))
            for slab in stack.filling.values():
                self._queue(slab)
            self._settle(stack)
            stack.sealed = True
        self._announce(stack)
        try:
            with storage_errors(stack.files.image):
                self._write_attributes(stack)
        except StorageError:
            stack.sealed = False
            raise
        self._emit(StackSealed(key))

    def read(self, block: Block) -> Pixels:
        """The pixels (z, y, x) of a block that was announced."""
        return read_block(self._root, block)

    def close(self) -> None:
        """Finish what was appended and stop the threads; what fails stays in the ring for the next start."""
        with self._change:
            if self._closed:
                return
            try:
                self._retry()
                self._wait_until(lambda: not self._pending and not self._jobs and not self._working)
            finally:
                self._closed = True
                self._change.notify_all()
        for thread in self._threads:
            thread.join()
        for ring in self._rings.values():
            ring.close()

    # -- taking up a stack

    def _take_up(self, plan: StackPlan) -> _Stack:
        files = StackFiles.open(self._root, self._plate_map, plan, self._codec, self._slab_z)
        stack = _Stack(files, self._ring(plan), front=[0] * len(plan.channels))
        for found in files.recover():
            if isinstance(found, StorageError):
                self._emit(FaultRaised("damaged-slab", found, plan.key))
                continue
            channel, number, crcs = found
            stack.stored[channel, number] = crcs
            stack.durable |= {SliceIndex(plan.channels[channel], z): crc for z, crc in crcs.items()}
        with self._change:
            self._adopt(stack)
            stack.accepted = dict(stack.durable)
            self._stacks[plan.key] = stack
            for slab in stack.filling.values():
                if stack.has_all(slab):
                    self._queue(slab)
        return stack

    def _adopt(self, stack: _Stack) -> None:
        """Take over the slices that a stopped run left in the ring, where they lie."""
        for found in stack.ring.scan():
            channels = stack.plan.channels
            if found.stack_id != stack.files.stack_id or found.channel >= len(channels):
                continue
            index = SliceIndex(channels[found.channel], found.z)
            place = found.channel, found.z // self._slab_z
            slab = stack.filling.get(place)
            if index in stack.durable or not (slab is None or slab.group == found.group):
                continue
            if slab is None:
                if found.group not in self._free[stack.ring]:
                    continue
                self._free[stack.ring].remove(found.group)
                slab = stack.filling[place] = _Slab(stack, *place, found.group)
            slab.crcs[found.z] = found.crc32c
            stack.durable[index] = found.crc32c

    def _ring(self, plan: StackPlan) -> Ring:
        plane_bytes = plan.n_bytes // plan.n_slices
        if plane_bytes not in self._rings:
            ring = Ring(self._root / f"{plan.key.plate}.ring", plane_bytes, self._slab_z, self._n_groups)
            self._rings[plane_bytes] = ring
            self._free[ring] = list(range(self._n_groups))
        return self._rings[plane_bytes]

    def _stack(self, key: StackKey) -> _Stack:
        with self._change:
            if self._closed:
                raise StorageError("the store is closed", where=str(self._root), do="open a new one")
            if key not in self._stacks:
                raise StackError("the stack is not open", where=str(key), do="open it before appending")
            return self._stacks[key]

    def _refuse_second(self, frame: Frame, held: int, crc: int) -> None:
        if crc != held:
            what = f"channel {frame.index.channel} z {frame.index.z} came twice with different pixels"
            error = StackError(what, where=str(frame.key), do="the first was kept; check what the instrument repeats")
            self._emit(FaultRaised("duplicate-slice", error, frame.key))

    # -- room in the ring (all with the lock held)

    def _new_slab(self, stack: _Stack, channel: int, number: int) -> _Slab:
        free = self._free[stack.ring]
        while not free:
            self._raise_failure()
            if not self._pending and not self._jobs and not self._working:
                self._queue(
                    self._fullest(stack.ring)
                )  # frames in a wild order: write a part of a slab, add to it later
            self._change.wait()
        slab = _Slab(stack, channel, number, free.pop())
        stack.filling[channel, number] = slab
        return slab

    def _fullest(self, ring: Ring) -> _Slab:
        slabs = [s for stack in self._stacks.values() if stack.ring is ring for s in stack.filling.values()]
        return max(slabs, key=lambda slab: len(slab.crcs))

    def _queue(self, slab: _Slab) -> None:
        if not slab.queued:
            slab.queued = True
            self._jobs.append(slab)
            self._change.notify_all()

    def _retry(self) -> None:
        """Raise what went wrong behind the scenes since the last call, and have it tried again."""
        if self._failure is None:
            return
        failure, self._failure = self._failure, None
        for stack in self._stacks.values():
            for slab in stack.filling.values():
                if slab.failed:
                    slab.failed = slab.queued = False
                    self._queue(slab)
        self._change.notify_all()
        raise failure

    def _raise_failure(self) -> None:
        if self._failure is not None:
            self._retry()

    def _wait_until(self, done: Callable[[], bool]) -> None:
        while not done():
            self._raise_failure()
            self._change.wait()
        self._raise_failure()

    def _settle(self, stack: _Stack) -> None:
        """Wait until nothing of a stack is on its way to Zarr."""
        self._wait_until(
            lambda: (
                not any(entry[0] is stack for entry in self._pending)
                and not any(slab.queued for slab in stack.filling.values())
            )
        )

    # -- the sync thread

    def _sync_loop(self) -> None:
        while True:
            with self._change:
                while (not self._pending or self._failure is not None) and not self._closed:
                    self._change.wait()
                if self._closed:
                    return
                batch, again = list(self._pending), self._sync_failed
            try:
                with storage_errors(self._root):
                    self._sync(batch, again)
            except StorageError as error:
                with self._change:
                    self._sync_failed, self._failure = True, error
                    self._change.notify_all()
                continue
            for stack, _, frame, crc in batch:
                self._emit(SliceDurable(stack.plan.key, frame.index, crc, frame.acquired_s, frame.metadata))
            with self._change:
                self._sync_failed = False
                del self._pending[: len(batch)]
                for stack, slab, frame, crc in batch:
                    stack.durable[frame.index] = slab.crcs[frame.index.z] = crc
                for slab in {entry[1] for entry in batch}:
                    if slab.stack.has_all(slab):
                        self._queue(slab)
                self._change.notify_all()

    def _sync(self, batch: list[tuple[_Stack, _Slab, Frame, int]], again: bool) -> None:
        if again:  # after a failed sync the system may have dropped the pages it could not write
            for stack, slab, frame, crc in batch:
                channel, z = stack.plan.channels.index(frame.index.channel), frame.index.z
                pixels = np.ascontiguousarray(frame.pixels)
                stack.ring.write(slab.group, z % self._slab_z, stack.files.stack_id, channel, z, pixels, crc)
        for ring in {entry[0].ring for entry in batch}:
            ring.sync()

    # -- the slab threads

    def _slab_loop(self) -> None:
        while True:
            with self._change:
                while not self._jobs and not self._closed:
                    self._change.wait()
                if not self._jobs:
                    return
                slab = self._jobs.pop(0)
                self._working += 1
            try:
                with storage_errors(slab.stack.files.image):
                    self._store(slab)
            except SpheroiddError as error:
                with self._change:
                    slab.failed, self._failure = True, error
            finally:
                with self._change:
                    self._working -= 1
                    self._change.notify_all()

    def _store(self, slab: _Slab) -> None:
        stack, place = slab.stack, (slab.channel, slab.number)
        files, stored = stack.files, stack.stored.get(place, {})
        crcs = {**slab.crcs, **stored}
        rows = self._ring_rows(slab)
        if stored:
            rows = _merged(rows, files.read_slab(*place)[1], {z % self._slab_z for z in stored})
        half = None
        if self._with_pyramid and len(files.grids) > 1:
            grid = files.grids[1]
            half = np.zeros((self._slab_z, grid.height, grid.width), grid.dtype)
            rows = _halving(rows, half)
        files.write_slab(*place, crcs, rows)
        with self._change:
            stack.stored[place] = crcs
        if half is not None:
            files.write_pyramid(*place, crcs, half)
        with self._change:
            del stack.filling[place]
            self._free[stack.ring].append(slab.group)
            self._change.notify_all()
        self._announce(stack)
        self._write_attributes(stack)

    def _ring_rows(self, slab: _Slab) -> Rows:
        grid, ring = slab.stack.files.grids[0], slab.stack.ring
        line = grid.width * grid.dtype.itemsize
        buffer = np.zeros((self._slab_z, grid.tile_y, grid.width), grid.dtype)

        def rows(start: int, stop: int) -> Pixels:
            for z in slab.crcs:
                ring.read_rows(slab.group, z % self._slab_z, start * line, buffer[z % self._slab_z, : stop - start])
            return buffer[:, : stop - start]

        return rows

    def _announce(self, stack: _Stack) -> None:
        with self._announcing:
            with self._change:
                blocks = stack.advance()
            for block in blocks:
                self._emit(BlockStored(block))

    def _write_attributes(self, stack: _Stack) -> None:
        with self._announcing:
            with self._change:
                committed = dict(zip(stack.plan.channels, stack.front, strict=True))
                complete, sealed = len(stack.durable) == stack.plan.n_slices, stack.sealed
            windows = stack.files.display_windows() if sealed and self._with_pyramid else {}
            stack.files.write_attributes(committed, complete=complete and sealed, sealed=sealed, windows=windows)


def _merged(rows: Rows, older: Pixels, held: set[int]) -> Rows:
    def merged(start: int, stop: int) -> Pixels:
        strip = rows(start, stop)
        for plane in held:
            strip[plane] = older[plane, start:stop]
        return strip

    return merged


def _halving(rows: Rows, half: Pixels) -> Rows:
    def halving(start: int, stop: int) -> Pixels:
        strip = rows(start, stop)
        half[:, start // 2 : (stop + 1) // 2] = halve(strip)
        return strip

    return halving
