"""Pictures of stacks for the page: the brightest of the slices so far, or one slice, in both colours, with outlines.

Nothing is read unless somebody looks. Of the stack under way each block is read once, as it is announced; of a stored
one the coarsest pyramid level that is still sharp on a screen. Pictures are there to be looked at, not measured.
"""

import io
import json
import statistics
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from spheroidd.acquisition.store import ngff
from spheroidd.acquisition.store.shard import ShardGrid, decode_shard
from spheroidd.acquisition.store.stack_files import read_raw
from spheroidd.daemon.catalog.reader import CatalogReader
from spheroidd.daemon.catalog.rows import StackRow
from spheroidd.protocols.errors import ConfigError, StorageError
from spheroidd.protocols.pixels import Pixels
from spheroidd.protocols.stack import DEAD_CHANNEL, LIVE_CHANNEL, Block, StackKey
from spheroidd.protocols.well import WellId

SIDE_PX = 480  # a picture's longer side, at least, where it is shown
GAMMA = 0.7
JPEG_QUALITY = 85
KEPT = 32  # finished pictures in memory, 40 kB each
# Green and magenta are told apart by all eyes, and where they meet the picture is white.
_TINTS = {LIVE_CHANNEL: (0.25, 1.0, 0.45), DEAD_CHANNEL: (1.0, 0.35, 0.85)}
_LABELS = {LIVE_CHANNEL: "live", DEAD_CHANNEL: "dead"}
_OUTLINES = {LIVE_CHANNEL: (235, 255, 240), DEAD_CHANNEL: (255, 214, 245)}
Planes = dict[str, Pixels]
Masks = dict[str, NDArray[np.bool_]]


@dataclass(frozen=True, slots=True)
class Picture:
    """A JPEG, of which stack, how many slices are in it, and a name that changes whenever it does."""

    jpeg: bytes
    key: StackKey
    n_slices: int
    tag: str


@dataclass(slots=True)
class _Growing:
    """The stack under way: the brightest of what was read so far, and up to where that is."""

    key: StackKey
    cursor: int = 0
    n_slices: int = 0
    brightest: Planes = field(default_factory=dict)


class LiveImages:
    """Makes pictures of one data directory's stacks. Safe for many threads, which take turns."""

    def __init__(self, data_dir: Path) -> None:
        self._root, self._lock = data_dir, threading.Lock()
        self._growing: _Growing | None = None
        self._newest: Picture | None = None
        self._kept: OrderedDict[str, Picture] = OrderedDict()

    def live(self, catalog: CatalogReader) -> Picture | None:
        """The stack under way, or the one before as long as nothing of it can be read; None before the first shard."""
        with self._lock:
            key = self._under_way(catalog)
            if key is None:
                return None
            if self._growing is None or self._growing.key != key:
                self._growing = _Growing(key)
            row = catalog.stack(key)
            self._read_new(catalog, row, self._growing)
            if self._growing.brightest:
                scored = self._has_masks(key)
                tag = f"{key}-{self._growing.cursor}-{'masks' if scored else 'live'}"
                self._newest = self._keep(tag, row, self._growing, catalog, scored)
            return self._newest

    def _keep(self, tag: str, row: StackRow, growing: _Growing, catalog: CatalogReader, scored: bool) -> Picture:
        if tag not in self._kept:
            masks = self._masks(row, None, 0) if scored else {}
            jpeg = paint(growing.brightest, self._limits(catalog, row.key.plate, growing.brightest), masks)
            self._put(Picture(jpeg, row.key, growing.n_slices, tag))
        return self._kept[tag]

    def of_stack(self, catalog: CatalogReader, key: StackKey, z: int | None, *, outlined: bool = True) -> Picture:
        """One slice of a stored stack, or with None the brightest of all; ConfigError, StorageError without any."""
        row = catalog.stack(key)
        if z is not None and not 0 <= z < row.plan.n_z:
            raise ConfigError(f"there is no slice {z}", where=str(key), do=f"choose 0 to {row.plan.n_z - 1}")
        with self._lock:
            outlined = outlined and self._has_masks(key)
            tag = f"{key}-{z}-{outlined}-{row.n_slices_acked}-{row.state}"
            if tag not in self._kept:
                level = _level(row) if row.sealed_s is not None else 0
                planes = self._planes(row, z, level)
                masks = self._masks(row, z, level) if outlined else {}
                jpeg = paint(planes, self._limits(catalog, key.plate, planes), masks)
                self._put(Picture(jpeg, key, row.n_slices_acked, tag))
            self._kept.move_to_end(tag)
            return self._kept[tag]

    def _put(self, picture: Picture) -> None:
        self._kept[picture.tag] = picture
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)

    def _under_way(self, catalog: CatalogReader) -> StackKey | None:
        sql = "SELECT plate, well, stack FROM stacks WHERE opened_s IS NOT NULL ORDER BY opened_s DESC LIMIT 1"
        rows = catalog.query(sql)
        return StackKey(rows[0]["plate"], WellId.parse(rows[0]["well"]), rows[0]["stack"]) if rows else None

    def _read_new(self, catalog: CatalogReader, row: StackRow, growing: _Growing) -> None:
        seen = self._raw_planes if row.plan.raw is not None else self._stored_planes
        for cursor, block in catalog.blocks(row.key, growing.cursor):
            for planes in seen(row, block):
                before = growing.brightest.get(block.channel)
                growing.brightest[block.channel] = planes if before is None else np.maximum(before, planes)
            growing.cursor = cursor
            growing.n_slices += block.z_stop - block.z_start

    def _stored_planes(self, row: StackRow, block: Block) -> Iterator[Pixels]:
        array = ngff.image_path(self._root, row.key) / "0"
        grid, channel = ngff.grid_from(array), row.plan.channels.index(block.channel)
        for shard, first, last in ngff.block_shards(block, grid.depth):
            yield _decode(ngff.shard_path(array, channel, shard), grid, first, last).max(axis=0)

    def _raw_planes(self, row: StackRow, block: Block) -> Iterator[Pixels]:
        """Of raw frames their mean, slice by slice: the stripes are gone in it."""
        frames = read_raw(self._root, block)
        yield frames.mean(axis=(1, 2)).max(axis=0).astype(frames.dtype)

    def _planes(self, row: StackRow, z: int | None, level: int) -> Planes:
        array = ngff.image_path(self._root, row.key) / str(level)
        grid = ngff.grid_from(array)
        found: Planes = {}
        for number, channel in enumerate(row.plan.channels):
            plane = _brightest(array, (number,), grid, row.plan.n_z, z)
            if plane is not None:
                found[channel] = plane
        if not found:
            raise StorageError("there is no slice to show yet", where=str(row.key), do="wait until some are stored")
        return found

    def _has_masks(self, key: StackKey) -> bool:
        return any((ngff.label_path(self._root, key, name) / "zarr.json").is_file() for name in _LABELS.values())

    def _masks(self, row: StackRow, z: int | None, level: int) -> Masks:
        found: Masks = {}
        for channel, name in _LABELS.items():
            array = ngff.label_path(self._root, row.key, name) / str(level)
            if array.is_dir():
                plane = _brightest(array, (), ngff.grid_from(array), row.plan.n_z, z)
                if plane is not None:
                    found[channel] = plane > 0
        return found

    def _limits(self, catalog: CatalogReader, plate: str, planes: Planes) -> dict[str, tuple[float, float]]:
        """The plate's display limits, so that a dead well looks dark beside a living one; at first this one's."""
        found = _plate_limits(catalog, plate)
        for channel, plane in planes.items():
            if channel not in found:
                low, high = np.percentile(plane, (1.0, 99.8))
                found[channel] = (float(low), float(high))
        return found


def _plate_limits(catalog: CatalogReader, plate: str) -> dict[str, tuple[float, float]]:
    """As the report's: the usual dark, and nearly the brightest stack's bright end."""
    sql = "SELECT DISTINCT quantiles_json FROM results WHERE plate = :plate"
    stacks = [json.loads(row["quantiles_json"]) for row in catalog.query(sql, {"plate": plate})]
    found = {}
    for channel in _TINTS:
        lows = [q[channel]["0.02"] for q in stacks if "0.02" in q.get(channel, {})]
        highs = sorted(q[channel]["0.999"] for q in stacks if "0.999" in q.get(channel, {}))
        if lows and highs:
            low = statistics.median(lows)
            found[channel] = (low, max(highs[round(0.9 * (len(highs) - 1))], low + 1))
    return found


def paint(planes: Planes, limits: Mapping[str, tuple[float, float]], masks: Masks) -> bytes:
    """A JPEG of the channels in their colours, added up, with the borders of the masks."""
    shape = next(iter(planes.values())).shape
    scale = max(1, -(-SIDE_PX // max(shape)))
    size = (shape[1] * scale, shape[0] * scale)
    rgb = np.zeros((size[1], size[0], 3), np.float32)
    for channel, plane in planes.items():
        low, high = limits[channel]
        shown = np.clip((plane.astype(np.float32) - low) / max(high - low, 1.0), 0, 1) ** GAMMA
        large = np.asarray(Image.fromarray(shown).resize(size, Image.Resampling.BICUBIC))
        rgb += np.clip(large, 0, 1)[..., None] * np.array(_TINTS[channel], np.float32)
    pixels = np.round(255 * np.clip(rgb, 0, 1)).astype(np.uint8)
    for channel, mask in masks.items():
        smooth = Image.fromarray(mask.astype(np.float32)).resize(size, Image.Resampling.BICUBIC)
        pixels[_border(np.asarray(smooth) > 0.5)] = _OUTLINES[channel]
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return out.getvalue()


def _border(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The pixels of a mask that have one beside them outside it."""
    padded = np.pad(mask, 1)
    inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    border: NDArray[np.bool_] = mask & ~inside
    return border


def _level(row: StackRow) -> int:
    shapes = ngff.level_shapes(row.plan.height, row.plan.width)
    return max(n for n, shape in enumerate(shapes) if n == 0 or max(shape) >= SIDE_PX)


def _brightest(array: Path, lead: tuple[int, ...], grid: ShardGrid, n_z: int, z: int | None) -> Pixels | None:
    """One plane, or the brightest of all there are; None where there is none."""
    shards = range(-(-n_z // grid.depth)) if z is None else [z // grid.depth]
    found: Pixels | None = None
    for shard in shards:
        path = ngff.shard_path(array, *lead, shard)
        if not path.is_file():
            continue
        first, last = (0, grid.depth) if z is None else (z % grid.depth, z % grid.depth + 1)
        plane = _decode(path, grid, first, last).max(axis=0)
        found = plane if found is None else np.maximum(found, plane)
    return found


def _decode(path: Path, grid: ShardGrid, first: int, last: int) -> Pixels:
    try:
        return decode_shard(path, grid, first, last)[1]
    except OSError as error:
        raise StorageError(f"cannot be read: {error}", where=str(path), do="check the disk") from error
