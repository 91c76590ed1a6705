"""Masks beside the image they were made from: `labels/<name>`, (z, y, x) of 0 and 1, all pyramid levels.

A label is written shard by shard into a folder beside the plate and moved into its place when it is whole, so a reader
sees the old label or the new one, never half of one. Whoever writes may be another process, or another computer that
shares the folder, than whoever moves: only one process moves, so that one that was thought dead takes no part.

Coarser levels take the maximum of 2x2: a small object never vanishes when one zooms out, and volumes are to be taken
from level 0 only.
"""

import contextlib
import hashlib
import secrets
import shutil
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from spheroidd.acquisition.disk.durable_file import (
    make_directories,
    storage_errors,
    sync_tree,
    write_durably,
)
from spheroidd.acquisition.store import ngff
from spheroidd.acquisition.store.image_folder import images_root
from spheroidd.acquisition.store.leftovers import LABELS_END
from spheroidd.acquisition.store.shard import (
    LABEL_CODEC,
    SLAB_Z,
    ShardGrid,
    ShardHeader,
    check_planes,
    crc32c,
    decode_shard,
    encode_shard,
    halve_mask,
    rows_of,
)
from spheroidd.acquisition.store.tables import list_tables
from spheroidd.protocols.durable import replace_path, sync_directory
from spheroidd.protocols.errors import StorageError
from spheroidd.protocols.pixels import Pixels
from spheroidd.protocols.stack import StackKey, StackPlan

_MKDIR_ATTEMPTS = 5  # another process may remove the empty scratch folder at any moment


@dataclass(frozen=True, slots=True)
class FinishedLabel:
    """A label, or the table of its objects, that is whole and durable, and not in its place yet.

    `folder` is its name in the scratch folder.
    """

    key: StackKey
    name: str
    folder: str


class LabelWriter:
    """Writes one label of a stack: `append` masks in z order, then `finish`, and `commit_label` puts it into its place.

    Used as a context manager it abandons what was not finished; `commit` is both steps in one. `attributes` (model
    digest and the like) must be what JSON can hold. Raises StorageError where the disk refuses; what was there before
    then stays.
    """

    def __init__(
        self, root: Path, key: StackKey, plan: StackPlan, name: str, attributes: Mapping[str, Any] | None = None
    ) -> None:
        if not name.isidentifier():
            raise ValueError(f"a label's name is one word, not {name!r}")
        self.name, self._plan, self._root, self._key = name, plan, root, key
        self._scratch, self._finished = _scratch(root, key), False
        self._folder = self._scratch / f"{key.well}-{key.stack}-{name}-{secrets.token_hex(4)}"
        self._id = secrets.token_bytes(16)
        shapes = ngff.level_shapes(plan.height, plan.width)
        self._grids = [ShardGrid.fit(y, x, np.dtype(np.uint8), SLAB_Z) for y, x in shapes]
        self._buffer = np.zeros((SLAB_Z, plan.height, plan.width), np.uint8)
        self._next_z = 0
        self._crcs: list[int] = []
        with storage_errors(self._folder):
            self._create(ngff.label_attributes(plan, name, attributes or {}))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.abandon()

    def append(self, z_start: int, mask: NDArray[np.bool_]) -> None:
        """Take the next planes (z, y, x) of the mask, bool, in z order without a gap."""
        if z_start != self._next_z or z_start + len(mask) > self._plan.n_z:
            raise ValueError(f"planes {z_start} to {z_start + len(mask)} came where plane {self._next_z} was due")
        if mask.shape[1:] != self._buffer.shape[1:]:
            raise ValueError(f"mask planes are {mask.shape[1:]}, the stack's are {self._buffer.shape[1:]}")
        done = 0
        while done < len(mask):
            first = self._next_z % SLAB_Z
            count = min(SLAB_Z - first, len(mask) - done)
            np.copyto(self._buffer[first : first + count], mask[done : done + count], casting="unsafe")
            done, self._next_z = done + count, self._next_z + count
            if self._next_z % SLAB_Z == 0 or self._next_z == self._plan.n_z:
                with storage_errors(self._folder):
                    self._write_shard((self._next_z - 1) // SLAB_Z)

    def finish(self) -> FinishedLabel:
        """Make the whole label durable; from now on it is the receiver's to commit or to remove."""
        if self._next_z != self._plan.n_z:
            raise ValueError(f"only {self._next_z} of {self._plan.n_z} planes were given")
        with storage_errors(self._folder):
            sync_tree(self._folder)
        self._finished = True
        return FinishedLabel(self._key, self.name, self._folder.name)

    def commit(self) -> None:
        """Finish the label and put it into its place, durably."""
        commit_label(self._root, self.finish())

    @property
    def sha256(self) -> str:
        """What the masks given so far are known by: `mask_digest` of their planes."""
        return mask_digest(self._crcs)

    def abandon(self) -> None:
        """Throw away what was not finished; nothing happens after `finish`."""
        if not self._finished:
            _remove(self._folder)

    def _create(self, attributes: Mapping[str, Any]) -> None:
        shards = range(-(-self._plan.n_z // SLAB_Z))
        levels = [self._folder / str(level) for level in range(len(self._grids))]
        _make_scratch(self._folder)
        for folder in (ngff.shard_path(array, k).parent for array in levels for k in shards):
            folder.mkdir(parents=True)
        for array, grid in zip(levels, self._grids, strict=True):
            ngff.write_node(array, ngff.array_node((self._plan.n_z, grid.height, grid.width), grid, LABEL_CODEC))
        ngff.write_group(self._folder, attributes)

    def _write_shard(self, shard: int) -> None:
        planes: Pixels = self._buffer
        planes[self._next_z - shard * SLAB_Z :] = 0
        header = ShardHeader(
            self._id,
            shard * SLAB_Z,
            SLAB_Z,
            {z: crc32c(planes[z % SLAB_Z]) for z in range(shard * SLAB_Z, self._next_z)},
        )
        self._crcs += [header.crcs[z] for z in sorted(header.crcs)]
        for level, grid in enumerate(self._grids):
            parts = encode_shard(grid, LABEL_CODEC, header, rows_of(planes))
            write_durably(ngff.shard_path(self._folder / str(level), shard), parts, sync=False)
            planes = halve_mask(planes) if level + 1 < len(self._grids) else planes


def commit_label(root: Path, label: FinishedLabel) -> None:
    """Put a finished label into its place, durably. StorageError where the disk refuses, or the label is gone."""
    scratch, target = _scratch(root, label.key), ngff.label_path(root, label.key, label.name)
    folder = scratch / label.folder
    older = scratch / f"{label.key.well}-{label.key.stack}-{label.name}-older"
    with storage_errors(target):
        if older.exists() and not target.exists():  # stopped between the two renames of a commit
            replace_path(older, target)
        if not folder.is_dir():
            raise StorageError("the finished mask is gone", where=str(folder), do="score the stack again")
        make_directories(target.parent.parent, [target.parent])
        if target.exists():
            _remove(older)
            replace_path(target, older)
        replace_path(folder, target)
        sync_directory(target.parent)
        if target.parent.name == ngff.TABLES:
            list_tables(target.parent.parent)
        else:
            ngff.list_label(target.parent.parent)
    _remove(older)


def remove_objects(root: Path, key: StackKey) -> None:
    """Remove the numbered objects of masks that are no more; nothing where there are none."""
    names = [kind + end for kind in ("live", "dead") for end in (ngff.OBJECTS, ngff.FEATURES)]
    there = [path for path in (ngff.label_path(root, key, name) for name in names) if path.exists()]
    for path in there:
        with storage_errors(path):
            _remove(path)
    image = ngff.image_path(root, key)
    if there:
        ngff.list_label(image)
    if (image / ngff.TABLES / "zarr.json").exists() and there:
        list_tables(image)


def discard_label(root: Path, label: FinishedLabel) -> None:
    """Remove a finished label that nobody is going to commit."""
    _remove(_scratch(root, label.key) / label.folder)


def _scratch(root: Path, key: StackKey) -> Path:
    return images_root(root) / f"{key.plate}{LABELS_END}"  # on the plate's own disk: a rename must not copy


def new_scratch(root: Path, key: StackKey, name: str) -> Path:
    """An empty folder in which a label, or the table of its objects, is made."""
    folder = _scratch(root, key) / f"{key.well}-{key.stack}-{name}-{secrets.token_hex(4)}"
    with storage_errors(folder):
        _make_scratch(folder)
    return folder


def _make_scratch(folder: Path) -> None:
    for attempt in range(_MKDIR_ATTEMPTS):
        try:
            folder.mkdir(parents=True)
        except FileNotFoundError:
            if attempt + 1 == _MKDIR_ATTEMPTS:
                raise
        else:
            return


def _remove(folder: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)
    with contextlib.suppress(OSError):  # not empty: another label is in work
        folder.parent.rmdir()


def mask_digest(crcs: Sequence[int]) -> str:
    """One hash of a label's masks: sha256 over the crc32c of each plane of level 0, in z order, little-endian."""
    return hashlib.sha256(struct.pack(f"<{len(crcs)}I", *crcs)).hexdigest()


def read_label(root: Path, key: StackKey, name: str) -> NDArray[np.bool_]:
    """A label's mask (z, y, x), bool, at the image's sampling; StorageError where there is none."""
    array = ngff.label_path(root, key, name) / "0"
    grid = ngff.grid_from(array)
    n_z = ngff.read_node(array)["shape"][0]
    out = np.empty((n_z, grid.height, grid.width), np.bool_)
    for shard in range(-(-n_z // grid.depth)):
        planes = out[shard * grid.depth : (shard + 1) * grid.depth]
        path = ngff.shard_path(array, shard)
        try:
            header, mask = decode_shard(path, grid, 0, len(planes))
        except OSError as error:
            raise StorageError(f"cannot be read: {error}", where=str(array), do="score the stack again") from error
        check_planes(header, mask, 0, path)
        planes[:] = mask
    return out


def label_attributes(root: Path, key: StackKey, name: str) -> dict[str, Any]:
    """What the label was written with (model digest and the like)."""
    return dict(ngff.read_attributes(ngff.label_path(root, key, name)).get(ngff.OWN, {}))
