"""What is known of each counted object: volume, position, brightness, and whether the volume's border cuts it."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spheroidd.inference.segmentation.objects import Spacing

Floats = NDArray[np.float64]
Planes = Callable[[int], NDArray[Any]]
"""The pixels (y, x) of a channel at the sampling of the labels, for one of their z."""


@dataclass(frozen=True, slots=True)
class ObjectFeatures:
    """Arrays that run in parallel, an entry an object, by rising label.

    Positions are centroids in micrometres from the outer corner of the stack's first voxel; means are of the camera's
    own counts, by channel.
    """

    labels: NDArray[np.int64]
    volume_um3: Floats
    z_um: Floats
    y_um: Floats
    x_um: Floats
    touches_border: NDArray[np.bool_]
    means: Mapping[str, Floats]


def object_features(
    labels: NDArray[np.int32], spacing_um: Spacing, planes: Mapping[str, Planes] | None = None
) -> ObjectFeatures:
    """Measure the objects 1..n of a label volume (z, y, x), 0 elsewhere; every number up to n is there."""
    n = int(labels.max(initial=0))
    places = np.nonzero(labels)
    ids = labels[places]
    sizes = np.bincount(ids, minlength=n + 1)[1:]
    z_um, y_um, x_um = (
        (np.bincount(ids, weights=place, minlength=n + 1)[1:] / sizes + 0.5) * step
        for place, step in zip(places, spacing_um, strict=True)
    )
    cut = np.zeros(n + 1, bool)
    for axis, size in enumerate(labels.shape):
        for border in (0, size - 1):
            cut[labels.take(border, axis)] = True
    means = {name: _means(labels, plane, sizes) for name, plane in (planes or {}).items()}
    volumes: Floats = sizes.astype(np.float64) * float(math.prod(spacing_um))
    return ObjectFeatures(np.arange(1, n + 1), volumes, z_um, y_um, x_um, cut[1:], means)


def _means(labels: NDArray[np.int32], plane: Planes, sizes: NDArray[np.intp]) -> Floats:
    sums = np.zeros(len(sizes) + 1)
    for z, ids in enumerate(labels):
        if ids.any():
            sums += np.bincount(ids.ravel(), weights=plane(z).ravel(), minlength=len(sums))
    found: Floats = sums[1:] / sizes
    return found
