"""The counted objects of a stack beside its masks: a label image with a number for each, and the table of them.

`labels/live_objects` and `labels/dead_objects` are at the sampling at which objects are counted, about 1 um, and lie on
the image by their own scale and translation. `tables/live_features` and `tables/dead_features` have a row for each
number. Like masks they are finished in a scratch folder and put into their place by one process alone.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spheroidd.acquisition.disk.durable_file import storage_errors, sync_tree
from spheroidd.acquisition.store import ngff
from spheroidd.acquisition.store.labels import FinishedLabel, new_scratch
from spheroidd.acquisition.store.tables import FILE, Table, table_attributes
from spheroidd.protocols.stack import StackKey, StackPlan

CHUNK = (16, 256, 256)  # 4 MB before compression, of which a viewer shows one
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
    import zarr  # a third of a second, where objects are wanted

    label = FinishedLabel(plan.key, name + OBJECTS, "")
    folder = new_scratch(root, plan.key, label.name)
    with storage_errors(folder):
        array = zarr.create_array(
            folder / "0",
            shape=labels.shape,
            dtype=np.int32,
            chunks=tuple(min(part, max(size, 1)) for part, size in zip(CHUNK, labels.shape, strict=True)),
            dimension_names=["z", "y", "x"],
        )
        array[...] = labels
        n = int(labels.max(initial=0))
        ngff.write_group(folder, ngff.objects_attributes(plan, label.name, spacing_um, {**attributes, "n": n}))
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


def _cell(value: object) -> object:
    if isinstance(value, bool):
        return int(value)
    return None if isinstance(value, float) and not np.isfinite(value) else value
