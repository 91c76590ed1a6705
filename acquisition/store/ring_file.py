"""The ring: a preallocated file that makes each slice durable at once, until its shard is written.

It is the store's only pixel buffer. Its room is handed out in groups, one group of slots for the planes of one shard;
a slot is a header page (stack id, channel, z, length, crc32c) and then the plane. Nothing in it is ever erased:
a slot whose stack id is unknown, or whose checksum is wrong, holds nothing.
"""

import contextlib
import os
import struct
import threading
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spheroidd.acquisition.disk.durable_file import make_directories, write_all, write_durably
from spheroidd.acquisition.store.shard import crc32c
from spheroidd.protocols.durable import sync_data
from spheroidd.protocols.pixels import Pixels

PAGE = 4096
_MAGIC = b"sphring1"
_HEADER = struct.Struct("<8s16sIIQI")  # magic, stack id, channel number, z, payload bytes, payload crc32c
_BINARY = getattr(os, "O_BINARY", 0)


@dataclass(frozen=True, slots=True)
class RingSlice:
    """A slice found in the ring: whose it is, where it lies, and its verified crc32c."""

    stack_id: bytes
    channel: int
    z: int
    crc32c: int
    group: int
    slot: int


class Ring:
    """Groups of `depth` slots for planes of `plane_bytes`: the ring file that is there, else a new one of `n_groups`.

    Not for two writing threads at once. A failing disk raises OSError.
    """

    def __init__(self, folder: Path, plane_bytes: int, depth: int, n_groups: int) -> None:
        self.plane_bytes, self.depth = plane_bytes, depth
        self.slot_bytes = PAGE + -(-plane_bytes // PAGE) * PAGE
        self.path = folder / f"{plane_bytes}x{depth}.ring"
        self._seek = threading.Lock()  # only where the system cannot read and write at an offset
        if not self.path.exists():
            _preallocate(self.path, self.slot_bytes * depth * n_groups)
        self.n_groups = self.path.stat().st_size // (self.slot_bytes * depth)
        self._fd = os.open(self.path, os.O_RDWR | _BINARY)

    def write(self, group: int, slot: int, stack_id: bytes, channel: int, z: int, pixels: Pixels, crc: int) -> None:
        """Put a plane into a slot; durable after the next `sync`."""
        head = _HEADER.pack(_MAGIC, stack_id, channel, z, pixels.nbytes, crc)
        head = (head + struct.pack("<I", crc32c(head))).ljust(PAGE, b"\0")
        self._write_at(self._offset(group, slot), head, _bytes(pixels))

    def sync(self) -> None:
        """Make everything written so far durable."""
        sync_data(self._fd)

    def read_rows(self, group: int, slot: int, first_byte: int, out: Pixels) -> None:
        """Fill a C-contiguous array with a plane's bytes from `first_byte` on."""
        self._read_at(self._offset(group, slot) + PAGE + first_byte, _bytes(out))

    def scan(self, stack_id: bytes) -> Iterator[RingSlice]:
        """Every slice of a stack in the ring whose header and pixels match their checksums."""
        plane = np.empty(self.plane_bytes, np.uint8)
        head = np.empty(_HEADER.size + 4, np.uint8)
        for group in range(self.n_groups):
            for slot in range(self.depth):
                self._read_at(self._offset(group, slot), _bytes(head))
                found = self._parse(head, group, slot)
                if found is not None and found.stack_id == stack_id:
                    self.read_rows(group, slot, 0, plane)
                    if crc32c(plane) == found.crc32c:
                        yield found

    def close(self) -> None:
        """Let the file go; may be called twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def remove(self) -> None:
        """Delete a closed ring that nobody needs any more, and its folder where it was the last."""
        self.path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # another ring lies beside it
            self.path.parent.rmdir()

    def _parse(self, head: NDArray[np.uint8], group: int, slot: int) -> RingSlice | None:
        raw = head.tobytes()
        magic, stack_id, channel, z, n_bytes, crc = _HEADER.unpack_from(raw)
        whole = struct.unpack_from("<I", raw, _HEADER.size)[0] == crc32c(raw[: _HEADER.size])
        if magic != _MAGIC or not whole or n_bytes != self.plane_bytes:
            return None
        return RingSlice(stack_id, channel, z, crc, group, slot)

    def _offset(self, group: int, slot: int) -> int:
        return (group * self.depth + slot) * self.slot_bytes

    def _write_at(self, offset: int, head: bytes, body: memoryview) -> None:
        if hasattr(os, "pwritev"):
            written = os.pwritev(self._fd, [head, body], offset) - len(head)
            while written < len(body):  # a signal or a nearly full disk cuts a write short
                if written < 0:
                    raise OSError(f"only {written + len(head)} bytes of a slot's header were taken")
                written += os.pwrite(self._fd, body[written:], offset + len(head) + written)
        else:
            with self._seek:
                os.lseek(self._fd, offset, os.SEEK_SET)
                write_all(self._fd, head)
                write_all(self._fd, bytes(body))

    def _read_at(self, offset: int, out: memoryview) -> None:
        if hasattr(os, "preadv"):
            got = os.preadv(self._fd, [out], offset)
        else:
            with self._seek:
                os.lseek(self._fd, offset, os.SEEK_SET)
                data = os.read(self._fd, len(out))
            got = len(data)
            out[:got] = data
        if got != len(out):
            raise OSError(f"{self.path} gave {got} of {len(out)} bytes")


def copy_held(source: Path, target: Path, stack_ids: Collection[bytes]) -> None:
    """Write a ring that holds these stacks' slices alone to `target`, while the daemon may be writing to `source`.

    A slot that is being written comes over torn, and holds nothing there: its checksum says so. OSError where either
    disk fails, ValueError where the file's name is not a ring's.
    """
    plane_bytes, depth = (int(part) for part in source.name.removesuffix(".ring").split("x"))
    slot_bytes = PAGE + -(-plane_bytes // PAGE) * PAGE
    with source.open("rb", buffering=0) as ring, target.open("wb") as copy:
        n_slots = os.fstat(ring.fileno()).st_size // (slot_bytes * depth) * depth
        copy.truncate(n_slots * slot_bytes)
        for slot in range(n_slots):
            ring.seek(slot * slot_bytes)
            head = ring.read(_HEADER.size)
            if len(head) == _HEADER.size and head.startswith(_MAGIC) and _HEADER.unpack(head)[1] in stack_ids:
                copy.seek(slot * slot_bytes)
                copy.write(head + ring.read(slot_bytes - len(head)))


def _bytes(array: NDArray[Any]) -> memoryview:
    """A C-contiguous array's own bytes, not a copy."""
    return array.reshape(-1).view(np.uint8).data


def _preallocate(path: Path, size: int) -> None:
    """Write zeros rather than only reserve room: the first use of reserved room would make each sync slower."""
    make_directories(path.parent.parent, [path.parent])
    step = 1 << 20
    write_durably(path, (bytes(min(step, size - start)) for start in range(0, size, step)))
