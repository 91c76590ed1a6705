"""The counted objects of a stack beside its masks: a label image with a number for each, and the table of them.

`labels/live_objects` and `labels/dead_objects` are at the sampling at which objects are counted, about 1 um, and lie on
the image by their own scale and translation. `tables/live_features` and `tables/dead_features` have a row for each
number. Like masks they are finished in a scratch folder and put into their place by one process alone.
"""

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spheroidd.acquisition.disk.durable_file import storage_errors, sync_tree, write_durably
from spheroidd.acquisition.store import ngff
from spheroidd.acquisition.store.labels import FinishedLabel, new_scratch
from spheroidd.acquisition.store.shard import ShardCodec, ShardGrid, ShardHeader, crc32c, encode_shard, rows_of
from spheroidd.acquisition.store.tables import FILE, Table, table_attributes
from spheroidd.protocols.stack import StackKey, StackPlan

DEPTH = 16  # planes of a shard
CODEC = ShardCodec("zstd", 1, "shuffle")
OBJECTS, FEATURES = ngff.OBJECTS, ngff.FEATURES


def finish_objects(
    root: Path,
    plan: StackPlan,
    name: str,
    labels: NDArray[np.int32],
    spacing_um: tuple[float, float, float],
    attributes: Mapping[str, Any],
) -> FinishedLabel:
    """Write the objects (z, y, x) of one channel, "live" or "dead", durably; StorageError where the disk refuses."""
    label = FinishedLabel(plan.key, name + OBJECTS, "")
    folder = new_scratch(root, plan.key, label.name)
    with storage_errors(folder):
        _write(folder / "0", labels)
        n = int(labels.max(initial=0))
        ngff.write_group(folder, ngff.objects_attributes(plan, label.name, spacing_um, n, attributes))
        sync_tree(folder)
    return FinishedLabel(plan.key, label.name, folder.name)


def finish_features(root: Path, key: StackKey, name: str, columns: Mapping[str, NDArray[Any]]) -> FinishedLabel:
    """Write the table of the same objects durably: a row each, `columns` by name, of which the first is `label`."""
    cells = [[_cell(value) for value in column.tolist()] for column in columns.values()]
    region = {"path": f"../labels/{name}{OBJECTS}"}
    about = {"region": region, "instance_key": "label", "index_key": "label", "index_type": "int"}
    table = Table(name + FEATURES, "feature_table", tuple(columns), list(zip(*cells, strict=True)), about)
    folder = new_scratch(root, key, table.name)
    with storage_errors(folder):
        (folder / FILE).write_bytes(table.text())
        ngff.write_group(folder, table_attributes(table))
        sync_tree(folder)
    return FinishedLabel(key, table.name, folder.name)


def _write(array: Path, labels: NDArray[np.int32]) -> None:
    """The volume as an array of shards: a Zarr library takes a third of a second to load."""
    n_z, height, width = labels.shape
    grid = ShardGrid.fit(height, width, labels.dtype, DEPTH)
    ident = secrets.token_bytes(16)
    for number in range(-(-n_z // DEPTH)):
        first = number * DEPTH
        planes = np.zeros((DEPTH, height, width), np.uint32)
        held = labels[first : first + DEPTH]
        planes[: len(held)] = held
        header = ShardHeader(ident, first, DEPTH, {first + at: crc32c(plane) for at, plane in enumerate(held)})
        path = ngff.shard_path(array, number)
        path.parent.mkdir(parents=True)
        write_durably(path, encode_shard(grid, CODEC, header, rows_of(planes)), sync=False)
    ngff.write_node(array, ngff.array_node(labels.shape, grid, CODEC))


def _cell(value: object) -> object:
    if isinstance(value, bool):
        return int(value)
    return None if isinstance(value, float) and not np.isfinite(value) else value
