"""A stack store in memory: the same port, the same events, nothing on disk. For tests and for trying things out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from spheroidd.acquisition.store.growing_stack import pixels_of
from spheroidd.acquisition.store.shard import SLAB_Z, crc32c
from spheroidd.protocols.errors import StackError, StorageError
from spheroidd.protocols.events import BlockStored, Event, FaultRaised, SliceDurable, StackSealed
from spheroidd.protocols.faults import FaultCode
from spheroidd.protocols.pixels import Pixels
from spheroidd.protocols.stack import Block, Frame, SliceIndex, StackKey, StackPlan


@dataclass(slots=True)
class _Stack:
    plan: StackPlan
    pixels: dict[SliceIndex, Pixels] = field(default_factory=dict)
    crcs: dict[SliceIndex, int] = field(default_factory=dict)
    front: dict[str, int] = field(default_factory=dict)
    sealed: bool = False


class MemoryStackStore:
    """Keeps every slice as the array it came in; single-threaded, and each event comes before `append` returns."""

    def __init__(self, emit: Callable[[Event], None], *, slab_z: int = SLAB_Z) -> None:
        self._emit, self._slab_z = emit, slab_z
        self._stacks: dict[StackKey, _Stack] = {}

    def open(self, plan: StackPlan) -> Mapping[SliceIndex, int]:
        """See the port."""
        stack = self._stacks.setdefault(plan.key, _Stack(plan))
        if stack.plan != plan:
            raise StorageError("the stack that is held has another geometry", where=str(plan.key), do="use its plan")
        stack.front = dict.fromkeys(plan.channels, 0)
        self._announce(stack)
        stack.sealed = False
        return dict(stack.crcs)

    def append(self, frame: Frame) -> None:
        """See the port."""
        stack = self._stack(frame.key)
        frame.check(stack.plan)
        pixels = pixels_of(frame)
        crc = crc32c(pixels)
        if frame.index in stack.crcs:
            if crc != stack.crcs[frame.index]:
                what = f"{frame.index} arrived twice with different pixels"
                error = StackError(
                    what, where=str(frame.key), do="the first was kept; check what the instrument repeats"
                )
                self._emit(FaultRaised(FaultCode.DUPLICATE_SLICE, error, frame.key))
            return
        stack.sealed = False
        stack.crcs[frame.index], stack.pixels[frame.index] = crc, pixels
        self._emit(SliceDurable(frame.key, frame.index, crc, frame.acquired_s, frame.metadata))
        self._announce(stack)

    def seal(self, key: StackKey) -> None:
        """See the port."""
        stack = self._stack(key)
        if not stack.sealed:
            stack.sealed = True
            self._announce(stack)
            self._emit(StackSealed(key))

    def read(self, block: Block) -> Pixels:
        """See the port."""
        stack = self._stack(block.key)
        each = stack.plan.frames_per_slice
        planes = range(block.z_start * each, block.z_stop * each)
        indices = [stack.plan.index_at(block.channel, plane) for plane in planes]
        missing = [index for index in indices if index not in stack.pixels]
        if missing or not indices:
            raise StorageError(f"slices {missing} are not stored", where=str(block.key), do="acquire them")
        return np.stack([stack.pixels[index] for index in indices])

    def close(self) -> None:
        """See the port."""

    def _stack(self, key: StackKey) -> _Stack:
        if key not in self._stacks:
            raise StackError("the stack is not open", where=str(key), do="open it before appending")
        return self._stacks[key]

    def _announce(self, stack: _Stack) -> None:
        plan, each = stack.plan, stack.plan.frames_per_slice
        depth = self._slab_z if each == 1 else each
        for channel in plan.channels:
            while (start := stack.front[channel]) < plan.n_planes:
                limit = min((start // depth + 1) * depth, plan.n_planes)
                planes = range(start, limit)
                stop = next((n for n in planes if plan.index_at(channel, n) not in stack.crcs), limit)
                if stop == start or (stop < limit and not (stack.sealed and each == 1)):
                    break
                self._emit(BlockStored(Block(plan.key, channel, start // each, stop // each)))
                stack.front[channel] = stop
