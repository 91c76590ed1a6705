"""One stack: every slice against the ledger, every coarser level against the full resolution, shard by shard."""

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from spheroidd.acquisition.store import ngff
from spheroidd.acquisition.store.image_folder import within
from spheroidd.acquisition.store.ring_file import Ring
from spheroidd.acquisition.store.shard import (
    IMAGE_CODEC,
    SLAB_Z,
    Halving,
    ShardGrid,
    ShardHeader,
    crc32c,
    decode_shard,
)
from spheroidd.acquisition.store.stack_files import StackFiles
from spheroidd.daemon.verification.findings import Finding, Kind
from spheroidd.protocols.errors import StorageError
from spheroidd.protocols.pixels import Pixels
from spheroidd.protocols.stack import SliceIndex, StackKey, StackPlan


@dataclass(slots=True)
class Checked:
    """What one piece of work looked at and found. `seen` are the crc32c of the slices that could be decoded."""

    findings: list[Finding] = field(default_factory=list)
    seen: dict[SliceIndex, int] = field(default_factory=dict)
    slices: int = 0
    shards: int = 0
    pixel_bytes: int = 0
    file_bytes: int = 0


Work = Callable[[], Checked]


class StackOnDisk:
    """A stack's files as the catalog's plan says that they are, whatever their own metadata say."""

    def __init__(self, data_dir: Path, plan: StackPlan) -> None:
        self.data_dir, self.plan, self.key = data_dir, plan, plan.key
        self.image = ngff.stored_path(data_dir, plan)
        self.own = _own(self.image)
        depth = self.own.get("slab_z", SLAB_Z)
        shapes = ngff.stored_shapes(plan)
        grids = tuple(_grid(self.image / str(level), plan, *shape, depth) for level, shape in enumerate(shapes))
        self.files = StackFiles(plan, self.image, _stack_id(self.own), grids, IMAGE_CODEC)

    @property
    def sealed(self) -> bool:
        """Whether the store has brought it to its end; a stack without metadata is taken to be."""
        return self.own.get("sealed") is not False

    def finding(self, kind: Kind, what: str, path: Path | None = None, **place: Any) -> Finding:
        """A finding about this stack."""
        return finding_of(self.key, self.data_dir, kind, what, path, **place)


def finding_of(key: StackKey, data_dir: Path, kind: Kind, what: str, path: Path | None = None, **place: Any) -> Finding:
    """A finding about a stack; `path` lies in the data directory."""
    place_of = None if path is None else within(data_dir, path)
    return Finding(kind, what, key.plate, str(key.well), key.stack, path=place_of, **place)


def _own(image: Path) -> dict[str, Any]:
    """The stack's own attributes; what is damaged is told of by the check of the metadata."""
    try:
        own = ngff.read_attributes(image).get(ngff.OWN, {})
    except (OSError, StorageError, TypeError, ValueError):
        return {}
    known = own if isinstance(own, dict) else {}
    depth = known.get("slab_z")
    return known if isinstance(depth, int) and 1 <= depth <= 64 else {**known, "slab_z": SLAB_Z}


def _stack_id(own: Mapping[str, Any]) -> bytes:
    try:
        return bytes.fromhex(own["stack_id"])
    except (KeyError, TypeError, ValueError):
        return b""


def _grid(array: Path, plan: StackPlan, height: int, width: int, depth: int) -> ShardGrid:
    """How an array is cut: as its metadata say where they fit the plan, else as this program does it."""
    usual = ShardGrid.fit(height, width, np.dtype(plan.dtype), depth)
    try:
        found = ngff.grid_from(array)
    except (OSError, StorageError):
        return usual
    same = (found.height, found.width, found.dtype, found.depth) == (height, width, usual.dtype, depth)
    whole = found.tile_y > 0 and found.tile_x > 0
    return found if same and whole else usual


def image_work(stack: StackOnDisk, ledger: Mapping[SliceIndex, int]) -> Iterator[Work]:
    """The pieces of work, a shard each, that together check every acknowledged slice of a stack."""
    for channel, name in enumerate(stack.plan.channels):
        for number in range(stack.files.n_shards):
            named = ((plane, stack.plan.index_at(name, plane)) for plane in stack.files.planes(number))
            held = {plane: ledger[index] for plane, index in named if index in ledger}
            if held:
                yield _ShardWork(stack, channel, name, number, held)


@dataclass(frozen=True, slots=True)
class _ShardWork:
    stack: StackOnDisk
    channel: int
    name: str
    number: int
    held: Mapping[int, int]

    def __call__(self) -> Checked:
        found = Checked(slices=len(self.held))
        files = self.stack.files
        path = files.shard(0, self.channel, self.number)
        decoded = self._decode(path, 0, found)
        if decoded is None and not found.findings:
            decoded = self._not_there(path, found)
        good = decoded is not None and self._compare(path, *decoded, found)
        self._set_aside(path, found)
        if self.stack.sealed:
            self._check_levels(decoded[1] if decoded is not None and good else None, found)
        return found

    def _decode(self, path: Path, level: int, found: Checked) -> tuple[ShardHeader, Pixels] | None:
        """A shard, or None and, where it is there, a finding."""
        grid = self.stack.files.grids[level]
        where = {"channel": self.name, "z": self._range(), "level": level}
        try:
            header, planes = decode_shard(path, grid)
            found.file_bytes += path.stat().st_size
        except FileNotFoundError:
            return None
        except OSError as error:
            what = f"cannot be read: {error.strerror or error}"
            found.findings.append(self.stack.finding(Kind.UNREADABLE, what, path, **where))
            return None
        except (StorageError, ValueError, MemoryError) as error:
            what = error.what if isinstance(error, StorageError) else f"the shard is damaged: {error}"
            found.findings.append(self.stack.finding(Kind.DAMAGED_SHARD, what, path, **where))
            return None
        found.shards += 1
        if level == 0:
            found.pixel_bytes += len(self.held) * self.stack.files.plane_bytes
        return header, planes

    def _range(self) -> tuple[int, int]:
        return min(self.held), max(self.held)

    def _not_there(self, path: Path, found: Checked) -> tuple[ShardHeader, Pixels] | None:
        """No such file: of a stack that still grows the ring has the slices, or the file has come meanwhile."""
        if not self.stack.sealed:
            lost = self._not_in_ring(self.held)
            if not lost:
                found.findings.append(self._waiting(len(self.held)))
                return None
            if path.exists():
                return self._decode(path, 0, found)
        what = f"{len(self.held)} acknowledged slices are gone with their file"
        found.findings.append(
            self.stack.finding(Kind.MISSING_SHARD, what, path, channel=self.name, z=self._range(), level=0)
        )
        return None

    def _waiting(self, n: int) -> Finding:
        what = f"{n} acknowledged slices are in the ring and not yet in Zarr"
        return self.stack.finding(Kind.WAITING, what, channel=self.name, z=self._range())

    def _not_in_ring(self, wanted: Mapping[int, int]) -> set[int]:
        """The slices that the ring has not got, or not with the ledger's bytes."""
        plane_bytes, depth = self.stack.files.plane_bytes, self.stack.files.depth
        folder = self.stack.data_dir / f"{self.stack.key.plate}.ring"
        left = set(wanted)
        if not self.stack.files.stack_id or not (folder / f"{plane_bytes}x{depth}.ring").exists():
            return left
        try:
            ring = Ring(folder, plane_bytes, depth, 1)
            try:
                for one in ring.scan(self.stack.files.stack_id):
                    if one.channel == self.channel and wanted.get(one.z) == one.crc32c:
                        left.discard(one.z)
            finally:
                ring.close()
        except OSError:
            pass  # it went away: the slices are in Zarr by now, or lost, which the caller finds out
        return left

    def _compare(self, path: Path, header: ShardHeader, planes: Pixels, found: Checked) -> bool:
        """Each acknowledged slice against the ledger; whether all are as they were acknowledged."""
        wrong: dict[int, tuple[Kind, str]] = {}
        first = self.number * self.stack.files.depth
        absent = {z: crc for z, crc in self.held.items() if z not in header.crcs}
        if absent and not self.stack.sealed and not self._not_in_ring(absent):
            found.findings.append(self._waiting(len(absent)))
            absent = {}
        stack_id = self.stack.files.stack_id
        other = ", in a file of another stack" if stack_id and header.stack_id != stack_id else ""
        for z, crc in self.held.items():
            if z in absent:
                wrong[z] = Kind.MISSING_SHARD, "the file is there, and acknowledged slices are not in it"
            elif z in header.crcs:
                seen = crc32c(planes[z - first])
                found.seen[self.stack.plan.index_at(self.name, z)] = seen
                if seen == crc:
                    continue
                if header.crcs[z] == crc:
                    wrong[z] = Kind.DAMAGED_SHARD, "the pixels are not those that were acknowledged: bits have changed"
                else:
                    wrong[z] = Kind.OTHER_PIXELS, f"other pixels than were acknowledged{other}"
        runs = groupby(sorted(wrong), key=lambda z: wrong[z])
        for (kind, what), zs in runs:
            held = list(zs)
            place = {"channel": self.name, "z": (held[0], held[-1]), "level": 0}
            found.findings.append(self.stack.finding(kind, what, path, **place))
        if not wrong and other:
            what = "the file belongs to another stack, with the same pixels"
            found.findings.append(
                self.stack.finding(Kind.OTHER_PIXELS, what, path, channel=self.name, z=self._range(), level=0)
            )
        return not wrong and not absent

    def _set_aside(self, path: Path, found: Checked) -> None:
        for aside in sorted(path.parent.glob(f"{path.name}.damaged-*")):
            what = "a damaged file was set aside, and its slices were taken again"
            found.findings.append(
                self.stack.finding(Kind.SET_ASIDE, what, aside, channel=self.name, z=self._range(), level=0)
            )

    def _check_levels(self, planes: Pixels | None, found: Checked) -> None:
        """The coarser levels against the full resolution; where that is damaged, only whether they decode."""
        for level in range(1, len(self.stack.files.grids)):
            path = self.stack.files.shard(level, self.channel, self.number)
            n_before = len(found.findings)
            decoded = self._decode(path, level, found)
            if planes is not None:
                planes = _half(planes)
            place = {"channel": self.name, "z": self._range(), "level": level}
            if decoded is None:
                if len(found.findings) == n_before:
                    found.findings.append(self.stack.finding(Kind.MISSING_SHARD, "the file is gone", path, **place))
            elif planes is not None and not np.array_equal(decoded[1], planes):
                what = "not what follows from the full resolution"
                found.findings.append(self.stack.finding(Kind.PYRAMID, what, path, **place))


_room = threading.local()


def _half(planes: Pixels) -> Pixels:
    """The 2x2 means of planes, as the store makes them, in memory that each thread asks for once."""
    rooms: dict[tuple[Any, ...], tuple[Halving, Pixels]] = _room.__dict__.setdefault("rooms", {})
    place = (planes.shape, planes.dtype.str)
    if place not in rooms:
        n_z, height, width = planes.shape
        if len(rooms) > 16:  # a directory with stacks of many sizes must not keep memory for all of them
            rooms.clear()
        out = np.empty((n_z, (height + 1) // 2, (width + 1) // 2), planes.dtype)
        rooms[place] = Halving(width, planes.dtype), out
    halving, out = rooms[place]
    halving(planes, out)
    return out
