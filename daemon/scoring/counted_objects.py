"""The objects that were counted, one by one: a label image with a number for each, and a table of what they are."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spheroidd.acquisition.store.labels import FinishedLabel
from spheroidd.acquisition.store.object_labels import finish_features, finish_objects
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
    for name, channel in LABELS.items():
        found = counter.objects(channel)
        if found is None:
            continue
        labels, spacing_um = found
        planes = {}
        if read is not None:
            for other in plan.channels:
                planes[other] = partial(_sampled, plan, read, other, labels.shape, spacing_um)
        features = object_features(labels, spacing_um, planes)
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


def _sampled(
    plan: StackPlan, read: Read, channel: str, shape: tuple[int, int, int], spacing_um: Spacing, z: int
) -> NDArray[np.float64]:
    """The pixel at the centre of each voxel of one plane of labels: a sample of the pixels that an object has."""
    at = min(int((z + 0.5) * spacing_um[0] / plan.z_step_um), plan.n_z - 1)
    plane = read(Block(plan.key, channel, at, at + 1))[0]
    rows, columns = (
        np.minimum(((np.arange(n) + 0.5) * step / plan.pixel_um).astype(int), size - 1)
        for n, step, size in zip(shape[1:], spacing_um[1:], plane.shape, strict=True)
    )
    sampled: NDArray[np.float64] = plane[np.ix_(rows, columns)].astype(np.float64)
    return sampled
