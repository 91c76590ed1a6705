"""The image that is made of a stack's raw frames: an ordinary stack on disk, that says that it is computed.

It is no part of the ledger, which holds what the camera gave: like a mask it can be made again from that. So it is
written shard after shard over whatever is there, each shard atomically, and is whole once `finish` has said so.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from spheroidd.acquisition.disk.durable_file import storage_errors
from spheroidd.acquisition.store import ngff
from spheroidd.acquisition.store.shard import IMAGE_CODEC, SLAB_Z, crc32c, rows_of
from spheroidd.acquisition.store.stack_files import ShardRoom, StackFiles
from spheroidd.protocols.errors import StorageError
from spheroidd.protocols.pixels import Pixels
from spheroidd.protocols.plate import PlateMap
from spheroidd.protocols.stack import StackKey, StackPlan


class ComputedImage:
    """Takes the slices of each channel in z order. Raises StorageError where the disk refuses."""

    def __init__(self, root: Path, plate_map: PlateMap, plan: StackPlan) -> None:
        self._plan = replace(plan, raw=None)
        with storage_errors(root):
            self._files = StackFiles.open(root, plate_map, self._plan, IMAGE_CODEC, SLAB_Z)
            self._files.write_attributes(dict.fromkeys(plan.channels, 0), complete=False, sealed=False, windows={})
        self._room = ShardRoom(self._files.grids)
        self._waiting: dict[str, list[Pixels]] = {channel: [] for channel in plan.channels}
        self._written = dict.fromkeys(plan.channels, 0)

    def append(self, channel: str, slices: Pixels) -> None:
        """Take the next slices (z, y, x) of a channel."""
        waiting = self._waiting[channel]
        waiting += list(slices)
        while len(waiting) >= self._next(channel):
            if not waiting:
                return
            self._write(channel)

    def finish(self, facts: Mapping[str, Any]) -> None:
        """Every slice was given: say that it is whole, and how it was computed."""
        with storage_errors(self._files.image):
            self._files.sync_pyramid()
            self._files.write_attributes(
                self._written, complete=True, sealed=True, windows=self._files.display_windows(), computed=facts
            )

    def _next(self, channel: str) -> int:
        return min(self._files.depth, self._plan.n_z - self._written[channel])

    def _write(self, channel: str) -> None:
        waiting, depth, z_start = self._waiting[channel], self._files.depth, self._written[channel]
        taken = waiting[: self._next(channel)]
        del waiting[: len(taken)]
        planes = np.zeros((depth, self._plan.height, self._plan.width), self._plan.dtype)
        planes[: len(taken)] = taken
        crcs = {z_start + n: crc32c(plane) for n, plane in enumerate(taken)}
        place = self._plan.channels.index(channel), z_start // depth
        with storage_errors(self._files.image):
            self._files.write_shard(*place, crcs, rows_of(planes))
            if self._room.levels:
                self._room.halving(planes, self._room.levels[0])
            self._files.write_pyramid(*place, crcs, self._room)
        self._written[channel] += len(taken)


def is_computed(root: Path, key: StackKey) -> bool:
    """Whether a whole computed image of the stack is there."""
    try:
        own = ngff.read_attributes(ngff.image_path(root, key)).get(ngff.OWN, {})
    except StorageError:
        return False
    return bool(own.get("sealed")) and "computed" in own
