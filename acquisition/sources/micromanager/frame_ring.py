"""The bounded ring of shared memory through which frames leave an instrument's process.

The instrument's process writes, its parent reads, in the same order; the numbers of what was written travel beside
it. A semaphore counts the free slots, so that a reader that falls behind holds the writer up, and nothing is ever
written over. Neither side has to trust the other to stay alive: the ring dies with the reader.
"""

import multiprocessing
from dataclasses import dataclass, field
from multiprocessing.shared_memory import SharedMemory
from multiprocessing.synchronize import Semaphore

import numpy as np
from numpy.typing import NDArray

from spheroidd.protocols.errors import ConfigError, InstrumentError
from spheroidd.protocols.pixels import Pixels

MAX_SLOTS = 64


class FrameRing:
    """The reader's end, which owns the memory: `slots` slots of `slot_bytes` each.

    >>> ring = FrameRing(slots=2, slot_bytes=8)
    >>> writer = ring.writer()
    >>> writer.reserve(timeout_s=1.0), writer.write(np.arange(4, dtype=np.uint16).reshape(2, 2))
    (True, 0)
    >>> ring.take(0, (2, 2), "uint16").tolist()
    [[0, 1], [2, 3]]
    >>> writer.close(); ring.close()
    """

    def __init__(self, slots: int, slot_bytes: int) -> None:
        if slots < 1 or slot_bytes < 1:
            raise ValueError(f"a ring needs at least one slot of one byte, not {slots} of {slot_bytes}")
        self.slots, self.slot_bytes = slots, slot_bytes
        try:
            self._memory = SharedMemory(create=True, size=slots * slot_bytes)
        except OSError as error:
            what = f"{slots * slot_bytes / 1e6:.0f} MB of shared memory cannot be had: {error.strerror}"
            raise ConfigError(what, where="source.ring_mb", do="lower ring_mb, or free memory (/dev/shm)") from error
        self._free = multiprocessing.get_context("spawn").Semaphore(slots)
        self._next = 0
        self._closed = False

    @classmethod
    def of_size(cls, megabytes: float, slot_bytes: int) -> "FrameRing":
        """As many slots as the megabytes hold, 2 at least and 64 at most."""
        return cls(min(max(int(megabytes * 1e6) // slot_bytes, 2), MAX_SLOTS), slot_bytes)

    def writer(self) -> "RingWriter":
        """The other end, to be given to the process that writes, as an argument when it is started."""
        return RingWriter(self._memory.name, self.slots, self.slot_bytes, self._free)

    def take(self, number: int, shape: tuple[int, int], dtype: str) -> Pixels:
        """A copy of frame `number` (y, x), whose slot becomes free; InstrumentError where it is not the next one."""
        n_bytes = shape[0] * shape[1] * np.dtype(dtype).itemsize
        if number != self._next or not 0 < n_bytes <= self.slot_bytes:
            what = f"frame {number} of {n_bytes} bytes was announced where number {self._next} was due"
            raise InstrumentError(what, where="frame ring", do="start the run again; report it if it happens twice")
        pixels = np.empty(shape, dtype)
        slot = _slot(self._memory, number % self.slots, self.slot_bytes)
        pixels.reshape(-1).view(np.uint8)[:] = slot[:n_bytes]
        del slot  # a view that lives on would keep the memory mapped
        self.discard(number)
        return pixels

    def discard(self, number: int) -> None:
        """Free the slot of frame `number`, whatever is in it."""
        self._next = number + 1
        self._free.release()

    def close(self) -> None:
        """Give the memory back; may be called twice. What was taken stays valid."""
        if not self._closed:
            self._closed = True
            self._memory.close()
            self._memory.unlink()


@dataclass(slots=True)
class RingWriter:
    """The writer's end; opens the memory when it first writes."""

    name: str
    slots: int
    slot_bytes: int
    free: Semaphore
    _written: int = 0
    _memory: SharedMemory | None = field(default=None, repr=False)

    def reserve(self, timeout_s: float) -> bool:
        """Wait for a free slot, before the frame that will fill it is exposed; False where none came free in time."""
        return self.free.acquire(timeout=timeout_s)

    def write(self, pixels: Pixels) -> int:
        """Put a frame into the slot that was reserved; its number, for the reader's `take`."""
        if pixels.nbytes > self.slot_bytes:
            raise ValueError(f"a frame of {pixels.nbytes} bytes does not fit into a slot of {self.slot_bytes}")
        if self._memory is None:
            self._memory = SharedMemory(name=self.name)
        slot = _slot(self._memory, self._written % self.slots, self.slot_bytes)
        slot[: pixels.nbytes] = np.ascontiguousarray(pixels).reshape(-1).view(np.uint8)
        del slot
        self._written += 1
        return self._written - 1

    def close(self) -> None:
        """Let the memory go; the reader's end decides when it ends."""
        if self._memory is not None:
            self._memory.close()
            self._memory = None


def _slot(memory: SharedMemory, slot: int, slot_bytes: int) -> NDArray[np.uint8]:
    return np.ndarray((slot_bytes,), np.uint8, memory.buf, slot * slot_bytes)
