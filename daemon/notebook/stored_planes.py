"""Stored planes as something that dask slices: whoever computes a part reads the shards of that part, and checks them.

Nothing here asks the catalog, so parts may be computed in any thread or process: what the ledger had acknowledged is
given when the array is made.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spheroidd.acquisition.store import ngff
from spheroidd.acquisition.store.shard import ShardGrid, check_planes, decode_shard
from spheroidd.protocols.errors import StackError, StorageError

Held = Mapping[int, int]
"""{z: crc32c of the plane at full resolution}: what may be read of a channel."""


@dataclass(frozen=True, slots=True)
class StoredPlanes:
    """Planes (lead, z, y, x) of an array on disk; `z` names those on its axis, `held` by `lead` those that are there.

    `lead` are the folders before a shard's number: a channel's for an image, none for a label, which has one entry.
    A plane that is not held raises StackError when it is computed, or is NaN with `unknown_is_nan` (float32 then).
    """

    array: Path  # of the pyramid level
    grid: ShardGrid
    level: int
    lead: tuple[tuple[int, ...], ...]
    names: tuple[str, ...]
    z: tuple[int, ...]
    held: tuple[Held, ...]
    unknown_is_nan: bool
    where: str

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(lead, z, y, x)."""
        return len(self.lead), len(self.z), self.grid.height, self.grid.width

    @property
    def ndim(self) -> int:
        """Always 4."""
        return 4

    @property
    def dtype(self) -> np.dtype[Any]:
        """As stored; float32, which holds every uint16, where NaN is needed."""
        return np.dtype(np.float32) if self.unknown_is_nan else self.grid.dtype

    def __getitem__(self, index: tuple[Any, ...]) -> NDArray[Any]:
        """The part that basic indices of all four axes choose."""
        n_lead, n_z, height, width = self.shape
        leads, places = (np.atleast_1d(np.arange(n)[at]) for n, at in zip((n_lead, n_z), index[:2], strict=True))
        out = np.empty((len(leads), len(places), height, width), self.dtype)
        for row, lead in enumerate(leads):
            self._fill(out[row], int(lead), [self.z[place] for place in places])
        whole = (slice(None), slice(None), *index[2:])
        part: NDArray[Any] = out[whole]
        axes = [axis for axis in (0, 1) if isinstance(index[axis], int | np.integer)]
        return part.squeeze(tuple(axes)) if axes else part

    def _fill(self, out: NDArray[Any], lead: int, wanted: list[int]) -> None:
        held, grid = self.held[lead], self.grid
        absent = [z for z in wanted if z not in held]
        if absent and not self.unknown_is_nan:
            name = f"channel {self.names[lead]}: " if self.names[lead] else ""
            what = f"{name}{len(absent)} of {len(wanted)} slices are not committed, the first is z {absent[0]}"
            do = 'refresh the plate once they are there, or ask for missing="drop" or missing="nan"'
            raise StackError(what, where=self.where, do=do)
        by_shard: dict[int, list[int]] = {}
        for at, z in enumerate(wanted):
            if z in held:
                by_shard.setdefault(z // grid.depth, []).append(at)
        for at in (at for at, z in enumerate(wanted) if z not in held):
            out[at] = np.nan
        for shard, rows in by_shard.items():
            at_z = [wanted[at] % grid.depth for at in rows]
            first, last = min(at_z), max(at_z) + 1
            path = ngff.shard_path(self.array, *self.lead[lead], shard)
            try:
                header, planes = decode_shard(path, grid, first, last)
            except OSError as error:
                raise StorageError(f"cannot be read: {error}", where=str(path), do="check the disk") from error
            if self.level == 0:  # checksums are of the planes at full resolution
                check_planes(header, planes, first, path)
            for at, z in zip(rows, at_z, strict=True):
                if header.crcs.get(wanted[at]) != held[wanted[at]]:
                    what = f"slice {wanted[at]} is another image than when the plate was opened"
                    raise StackError(what, where=str(path), do="refresh the plate; `spheroidd verify` says more")
                out[at] = planes[z - first]
