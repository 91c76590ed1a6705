"""One stack on disk: its folders, metadata, shards and pyramid. Knows no threads and no ring."""

import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spheroidd.acquisition.disk.disk_priority import RightOfWay
from spheroidd.acquisition.disk.durable_file import (
    make_directories,
    remove_partials,
    sync_tree,
    write_durably,
)
from spheroidd.acquisition.store import ngff
from spheroidd.acquisition.store.image_folder import images_root
from spheroidd.acquisition.store.shard import (
    Halving,
    Rows,
    ShardCodec,
    ShardGrid,
    ShardHeader,
    check_planes,
    decode_shard,
    encode_shard,
    rows_of,
)
from spheroidd.acquisition.store.tables import write_conditions
from spheroidd.protocols.durable import replace_path, sync_directory
from spheroidd.protocols.errors import StackError, StorageError
from spheroidd.protocols.pixels import Pixels
from spheroidd.protocols.plate import PlateMap
from spheroidd.protocols.stack import Block, StackKey, StackPlan
from spheroidd.protocols.well import WellId


@dataclass(frozen=True, slots=True)
class StackFiles:
    """The files of one stack. `stack_id` tells it from any other stack that ever had its name.

    Shards, pyramid and attributes are written in pieces that give way to slices where there is a `right_of_way`.
    """

    plan: StackPlan
    image: Path
    stack_id: bytes
    grids: tuple[ShardGrid, ...]  # one a pyramid level, the full one first
    codec: ShardCodec
    right_of_way: RightOfWay | None = None

    @classmethod
    def open(
        cls,
        root: Path,
        plate_map: PlateMap,
        plan: StackPlan,
        codec: ShardCodec,
        depth: int,
        right_of_way: RightOfWay | None = None,
    ) -> "StackFiles":
        """Take up the stack that is there, else create it durably. StorageError where another geometry is there."""
        plate_map[plan.key.well]
        image = ngff.stored_path(root, plan)
        depth = depth if plan.raw is None else plan.frames_per_slice
        if not (image / "zarr.json").exists():
            shapes = ngff.stored_shapes(plan)
            grids = tuple(ShardGrid.fit(y, x, np.dtype(plan.dtype), depth) for y, x in shapes)
            files = cls(plan, image, secrets.token_bytes(16), grids, codec, right_of_way)
            files._create(root)
        else:
            files = cls.existing(image, plan.key, codec, right_of_way)
            files.check_same(plan, depth)
        if plan.raw is None:
            ngff.list_stack(root, plate_map, plan.key)  # a crash may have come between the image and its listing
            write_conditions(root, plate_map)
        return files

    @classmethod
    def existing(
        cls, image: Path, key: StackKey, codec: ShardCodec, right_of_way: RightOfWay | None = None
    ) -> "StackFiles":
        """The stack that is there; StorageError where its metadata are damaged."""
        own = ngff.read_attributes(image).get(ngff.OWN, {})
        plan = ngff.plan_from(own, key, image)
        levels = range(len(ngff.stored_shapes(plan)))
        grids = tuple(ngff.grid_from(image / str(level)) for level in levels)
        return cls(plan, image, bytes.fromhex(own["stack_id"]), grids, codec, right_of_way)

    def _create(self, root: Path) -> None:
        # The image's zarr.json is written last: without it the stack does not exist, and is made anew.
        plan = self.plan
        places = ((c, k) for c in range(len(plan.channels)) for k in range(self.n_shards))
        levels = [self.image / str(level) for level in range(len(self.grids))]
        make_directories(images_root(root), [*levels, *(self.shard(0, *place).parent for place in places)])
        for level, grid in enumerate(self.grids):
            shape = (len(plan.channels), plan.n_planes, grid.height, grid.width)
            axes = ngff.IMAGE_AXES if plan.raw is None else ngff.RAW_AXES
            ngff.write_node(self.image / str(level), ngff.array_node(shape, grid, self.codec, axes))
        self.write_attributes(dict.fromkeys(plan.channels, 0), complete=False, sealed=False, windows={})

    def check_same(self, plan: StackPlan, depth: int | None = None) -> None:
        """StorageError where a plan's geometry is not the one this stack was made with."""
        for name in ("channels", "n_z", "height", "width", "pixel_um", "z_step_um", "dtype", "raw"):
            new, old = getattr(plan, name), getattr(self.plan, name)
            if new != old:
                what = f"the stack on disk has {name} {old}, the plan says {new}"
                do = "use the plan it was begun with, or another stack number"
                raise StorageError(what, where=str(self.image), do=do)
        if depth is not None and depth != self.depth:
            what = f"the stack on disk has shards of {self.depth} planes, not {depth}"
            raise StorageError(what, where=str(self.image), do="finish it with the setting that began it")

    @property
    def depth(self) -> int:
        """Planes in a shard."""
        return self.grids[0].depth

    @property
    def plane_bytes(self) -> int:
        """Size of one full-resolution plane."""
        return self.plan.n_bytes // self.plan.n_slices

    @property
    def n_shards(self) -> int:
        """Shards of one channel."""
        return -(-self.plan.n_planes // self.depth)

    def planes(self, shard: int) -> range:
        """The planes of a shard; fewer than `depth` at the stack's end."""
        return range(shard * self.depth, min((shard + 1) * self.depth, self.plan.n_planes))

    def shard(self, level: int, channel: int, shard: int) -> Path:
        """The file of a shard."""
        return ngff.shard_path(self.image / str(level), channel, shard)

    def write_attributes(
        self,
        committed: Mapping[str, int],
        *,
        complete: bool,
        sealed: bool,
        windows: Mapping[str, tuple[int, int]],
        computed: Mapping[str, Any] | None = None,
    ) -> None:
        """Say how far the stack has come: `committed` counts the planes from z 0 that can be read, by channel.

        `computed` says how an image came about that no camera gave.
        """
        own = {
            "stack_id": self.stack_id.hex(),
            "slab_z": self.depth,
            **ngff.plan_attributes(self.plan),
            "committed": dict(committed),
            "complete": complete,
            "sealed": sealed,
            **({} if computed is None else {"computed": dict(computed)}),
        }
        if self.plan.raw is None:
            attributes = ngff.image_attributes(self.plan, own, windows)
        else:
            attributes = {ngff.OWN: {**own, **ngff.raw_words(self.plan.raw)}}
        ngff.write_group(self.image, attributes, self.right_of_way)

    def write_shard(self, channel: int, shard: int, crcs: Mapping[int, int], rows: Rows) -> None:
        """Write a full-resolution shard, atomically and durably."""
        header = ShardHeader(self.stack_id, shard * self.depth, self.depth, crcs)
        parts = encode_shard(self.grids[0], self.codec, header, rows)
        path = self.shard(0, channel, shard)
        make_directories(self.image, [path.parent])  # a copy of the plate may have come without those that were empty
        write_durably(path, parts, right_of_way=self.right_of_way)

    def write_pyramid(self, channel: int, shard: int, crcs: Mapping[int, int], room: "ShardRoom") -> None:
        """Write the coarser levels of a shard, durable after `sync_pyramid`; the first one lies in `room.levels`."""
        header = ShardHeader(self.stack_id, shard * self.depth, self.depth, crcs)
        for level, planes in enumerate(room.levels, start=1):
            if level > 1:
                room.halving(room.levels[level - 2], planes)
            path = self.shard(level, channel, shard)
            path.parent.mkdir(parents=True, exist_ok=True)
            parts = encode_shard(self.grids[level], self.codec, header, rows_of(planes))
            write_durably(path, parts, sync=False, right_of_way=self.right_of_way)

    def sync_pyramid(self) -> None:
        """Make the coarser levels durable."""
        for level in range(1, len(self.grids)):
            sync_tree(self.image / str(level))

    def read_shard(self, channel: int, shard: int) -> tuple[ShardHeader, Pixels]:
        """A shard's header and all its planes (depth, y, x)."""
        return decode_shard(self.shard(0, channel, shard), self.grids[0])

    def recover(self, *, with_pyramid: bool = True) -> Iterator[tuple[int, int, dict[int, int]] | StorageError]:
        """Every full-resolution shard on disk as (channel, shard, {z: crc32c of its decoded pixels}).

        What interrupted writes left is removed; the pyramid of a stack that was not sealed is made anew. A damaged
        shard is yielded as an error and set aside, so that its slices can be taken again and nothing is overwritten.
        """
        remove_partials(self.image)
        room = ShardRoom(self.grids)
        sealed = ngff.read_attributes(self.image)[ngff.OWN]["sealed"]
        places = ((c, k) for c in range(len(self.plan.channels)) for k in range(self.n_shards))
        for channel, shard in places:
            path = self.shard(0, channel, shard)
            if not path.exists():
                continue
            try:
                header, planes = self.read_shard(channel, shard)
                self._verify(header, planes, path)
            except StorageError as error:
                replace_path(path, path.with_name(f"{path.name}.damaged-{secrets.token_hex(4)}"))
                sync_directory(path.parent)
                yield error
            else:
                if with_pyramid and not sealed and room.levels:
                    room.halving(planes, room.levels[0])
                    self.write_pyramid(channel, shard, header.crcs, room)
                yield channel, shard, dict(header.crcs)

    def _verify(self, header: ShardHeader, planes: Pixels, path: Path) -> None:
        if header.stack_id != self.stack_id:
            raise StorageError(
                "the shard belongs to another stack", where=str(path), do="restore the stack's own files"
            )
        check_planes(header, planes, 0, path)

    def display_windows(self) -> dict[str, tuple[int, int]]:
        """Display limits by channel: the 1st and 99.9th percentile of the middle shard's coarsest level."""
        windows: dict[str, tuple[int, int]] = {}
        if self.plan.raw is not None:
            return windows
        for number, name in enumerate(self.plan.channels):
            path = self.shard(len(self.grids) - 1, number, self.n_shards // 2)
            if path.exists():
                header, planes = decode_shard(path, self.grids[-1])
                held = planes[[z - header.z_start for z in header.crcs]]
                low, high = (int(value) for value in np.percentile(held, [1, 99.9]))
                windows[name] = (low, max(high, low + 1))
        return windows


class ShardRoom:
    """One thread's working memory for shards of one geometry: asked for once, because new memory costs as much time."""

    def __init__(self, grids: tuple[ShardGrid, ...]) -> None:
        full = grids[0]
        self.grids = grids
        self.strip: Pixels = np.zeros((full.depth, full.tile_y, full.width), full.dtype)  # one row of tiles
        self.levels: list[Pixels] = [np.zeros((grid.depth, grid.height, grid.width), grid.dtype) for grid in grids[1:]]
        self.halving = Halving(full.width, full.dtype)


def unsealed_stacks(root: Path, plate: str, codec: ShardCodec) -> Iterator[StackFiles]:
    """The stacks of a plate that a stopped run did not bring to an end."""
    plates = ngff.plate_path(root, plate), ngff.raw_plate_path(root, plate)
    for path in (path for folder in plates for path in sorted(folder.glob("*/*/*/zarr.json"))):
        if ngff.read_attributes(path.parent).get(ngff.OWN, {}).get("sealed") is False:
            row, column, stack = path.parts[-4:-1]
            yield StackFiles.existing(path.parent, StackKey(plate, WellId.parse(row + column), int(stack)), codec)


def read_plan(root: Path, key: StackKey) -> StackPlan:
    """The plan of a stack on disk; StorageError where there is none."""
    image = ngff.image_path(root, key)
    return ngff.plan_from(ngff.read_attributes(image).get(ngff.OWN, {}), key, image)


def read_block(root: Path, block: Block, acknowledged: Mapping[int, int] | None = None) -> Pixels:
    """The pixels (z, y, x) of a block that was announced, from any process.

    StorageError where a slice of it is not stored: zeros are never given for one that is missing. StackError where
    they are other images than those `acknowledged`, the ledger's {z: crc32c}: whole, and of another stack, say.
    """
    image = ngff.image_path(root, block.key)
    plan = read_plan(root, block.key)
    if block.channel not in plan.channels or not 0 <= block.z_start < block.z_stop <= plan.n_z:
        raise StorageError(f"the stack has no {block}", where=str(image), do="ask for slices of its plan")
    grid = ngff.grid_from(image / "0")
    channel = plan.channels.index(block.channel)
    shards = ngff.block_shards(block, grid.depth)
    parts = [_read_part(image, channel, grid, *shard, acknowledged) for shard in shards]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _read_part(
    image: Path,
    channel: int,
    grid: ShardGrid,
    shard: int,
    first: int,
    last: int,
    acknowledged: Mapping[int, int] | None,
) -> Pixels:
    path = ngff.shard_path(image / "0", channel, shard)
    try:
        header, planes = decode_shard(path, grid, first, last)
    except FileNotFoundError as error:
        what = f"slices {shard * grid.depth + first} to {shard * grid.depth + last - 1} are not stored"
        raise StorageError(what, where=str(path), do="read a block only once it was announced") from error
    except OSError as error:
        raise StorageError(f"cannot be read: {error}", where=str(path), do="check the disk") from error
    missing = set(range(shard * grid.depth + first, shard * grid.depth + last)) - set(header.crcs)
    if missing:
        raise StorageError(f"slices {sorted(missing)} are not stored", where=str(path), do="acquire them")
    check_planes(header, planes, first, path)
    if acknowledged is not None:
        held = range(shard * grid.depth + first, shard * grid.depth + last)
        others = [z for z in held if header.crcs[z] != acknowledged.get(z)]
        if others:
            what = f"slice {others[0]} is another image than the one that was acknowledged"
            raise StackError(
                what, where=str(path), do="`spheroidd verify` says what is damaged; restore it from a backup"
            )
    return planes


def read_raw(root: Path, block: Block, acknowledged: Mapping[int, int] | None = None) -> Pixels:
    """The raw frames (z, angle, phase, y, x) of a block that was announced, from any process; errors as `read_block`.

    `acknowledged` is the ledger by `StackPlan.plane_of`.
    """
    image = ngff.raw_path(root, block.key)
    plan = ngff.plan_from(ngff.read_attributes(image).get(ngff.OWN, {}), block.key, image)
    if plan.raw is None or block.channel not in plan.channels or not 0 <= block.z_start < block.z_stop <= plan.n_z:
        raise StorageError(f"the stack has no raw {block}", where=str(image), do="ask for slices of its plan")
    grid, channel, n = ngff.grid_from(image / "0"), plan.channels.index(block.channel), plan.raw.n_frames
    slices = [_read_part(image, channel, grid, z, 0, n, acknowledged) for z in range(block.z_start, block.z_stop)]
    return np.stack(slices).reshape(len(slices), plan.raw.n_angles, plan.raw.n_phases, *plan.frame_shape)


def read_stack(root: Path, key: StackKey) -> Pixels:
    """All pixels (channel, z, y, x) of a whole stack; StorageError where one slice is not stored."""
    plan = read_plan(root, key)
    return np.stack([read_block(root, Block(key, channel, 0, plan.n_z)) for channel in plan.channels])


def open_image(root: Path, key: StackKey) -> Any:
    """The full-resolution array (c, z, y, x) as a read-only `zarr.Array`. Slices that are missing read as zeros."""
    import zarr  # heavy, and only for those who want lazy slicing

    return zarr.open_array(ngff.image_path(root, key) / "0", mode="r")
