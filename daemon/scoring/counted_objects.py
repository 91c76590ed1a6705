"""The objects that were counted, one by one: a label image with a number for each, and a table of what they are."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spheroidd.acquisition.store.labels import FinishedLabel
from spheroidd.acquisition.store.object_labels import finish_features, finish_objects
from spheroidd.acquisition.store.shard import SLAB_Z
from spheroidd.inference.segmentation.object_features import ObjectFeatures, object_features
from spheroidd.inference.segmentation.objects import Spacing, StackCounter
from spheroidd.protocols.pixels import Pixels
from spheroidd.protocols.stack import DEAD_CHANNEL, LIVE_CHANNEL, Block, StackPlan

LABELS = {"live": LIVE_CHANNEL, "dead": DEAD_CHANNEL}
Read = Callable[[Block], Pixels]


def objects_of(
    plan: StackPlan, images: Path, counter: StackCounter, model_sha256: str, read: Read | None
) -> tuple[FinishedLabel, ...]:
    """Write the objects of each channel and their tables; they wait for main to put them into their place.

    Without `read`, which gives the slices of a block, the tables say nothing of brightness.
    """
    made: list[FinishedLabel] = []
    light: dict[str, Pixels] = {}
    for name, channel in LABELS.items():
        found = counter.objects(channel)
        if found is None:
            continue
        labels, spacing_um = found
        if read is not None and not light:
            light = {other: _sampled(plan, read, other, labels.shape, spacing_um) for other in plan.channels}
        features = object_features(labels, spacing_um, {other: one.__getitem__ for other, one in light.items()})
        made.append(finish_objects(images, plan, name, labels, spacing_um, {"model_sha256": model_sha256}))
        made.append(finish_features(images, plan.key, name, _columns(features)))
    return tuple(made)


def _columns(features: ObjectFeatures) -> Mapping[str, NDArray[Any]]:
    return {
        "label": features.labels,
        "volume_um3": features.volume_um3.round(2),
        "z_um": features.z_um.round(2),
        "y_um": features.y_um.round(2),
        "x_um": features.x_um.round(2),
        **{f"mean_{channel}": values.round(1) for channel, values in features.means.items()},
        "touches_border": features.touches_border,
    }


def _sampled(plan: StackPlan, read: Read, channel: str, shape: tuple[int, int, int], spacing_um: Spacing) -> Pixels:
    """The pixel at the centre of each voxel of the labels (z, y, x): a sample of the pixels that an object has."""
    z, y, x = (
        np.minimum(((np.arange(n) + 0.5) * step / own_um).astype(int), size - 1)
        for n, step, own_um, size in zip(
            shape,
            spacing_um,
            (plan.z_step_um, plan.pixel_um, plan.pixel_um),
            (plan.n_z, plan.height, plan.width),
            strict=True,
        )
    )
    sampled: Pixels = np.empty(shape, plan.dtype)
    for start in range(0, plan.n_z, SLAB_Z):  # a slab is decompressed whole, however few of its slices are wanted
        stop = min(start + SLAB_Z, plan.n_z)
        wanted = np.flatnonzero((z >= start) & (z < stop))
        if wanted.size:
            slab = read(Block(plan.key, channel, start, stop))
            sampled[wanted] = slab[np.ix_(z[wanted] - start, y, x)]
    return sampled
