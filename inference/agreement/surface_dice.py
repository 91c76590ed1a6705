"""Surface Dice: how much of two masks' surfaces lies within a tolerance of each other (Nikolov et al. 2018, 2021).

Dice weighs volume, and so forgives a border that is one voxel off on a large object; this figure asks about the
border. A surface voxel is one of the mask that touches background across a face. The field's own border is no surface:
where a spheroid leaves the field, both masks end at the same plane, which says nothing about them.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from spheroidd.inference.preprocessing.resample import Spacing
from spheroidd.protocols.errors import ConfigError

_SLAB_VOXELS = 1 << 23  # of distances at a time: 64 MB in float64, where a whole screen stack would take a GB
_FACES = ndimage.generate_binary_structure(3, 1)


@dataclass(frozen=True, slots=True)
class SurfaceAgreement:
    """`dice` 0 to 1 at `tolerance_um`; 1 where both masks are empty, 0 where one is."""

    dice: float
    tolerance_um: float


def surface_agreement(
    mask: NDArray[np.bool_], truth: NDArray[np.bool_], spacing_um: Spacing, tolerance_um: float
) -> SurfaceAgreement:
    """The share of both surfaces' voxels that lie within `tolerance_um` of the other's, of two masks (z, y, x).

    ConfigError for volumes that are not of one shape and bool, or a tolerance below 0.
    """
    if mask.shape != truth.shape or mask.dtype != bool or truth.dtype != bool or mask.ndim != 3:
        what = f"a mask {mask.dtype} {mask.shape} and a truth {truth.dtype} {truth.shape} cannot be compared"
        raise ConfigError(what, do="give the truth as bool at the stack's own sampling")
    if not (math.isfinite(tolerance_um) and tolerance_um >= 0):
        raise ConfigError(f"the tolerance is {tolerance_um} um", do="give micrometres, 0 or more")
    if not mask.any() or not truth.any():
        return SurfaceAgreement(float(mask.any() == truth.any()), tolerance_um)
    near = total = 0
    for one, other, core in _slabs(mask, truth, spacing_um, tolerance_um):
        for surface, beside in ((one, other), (other, one)):
            inside = surface[core]
            n = int(np.count_nonzero(inside))
            total += n
            if n and beside.any():
                distance_um = ndimage.distance_transform_edt(~beside, sampling=spacing_um)[core]
                near += int(np.count_nonzero(distance_um[inside] <= tolerance_um * (1 + 1e-9)))
    # Masks that fill the field have no surface at all: nothing was to be found, and nothing was.
    return SurfaceAgreement(near / total if total else 1.0, tolerance_um)


def _slabs(
    mask: NDArray[np.bool_], truth: NDArray[np.bool_], spacing_um: Spacing, tolerance_um: float
) -> Iterator[tuple[NDArray[np.bool_], NDArray[np.bool_], slice]]:
    """Surfaces slab by slab, each with as many planes around its core as the tolerance reaches.

    Whatever is further away than the tolerance counts as far, however far it is, so the halo makes slabs exact.
    """
    n_z, height, width = mask.shape
    reach = math.ceil(tolerance_um / spacing_um[0] - 1e-9) + 1  # one more for the surface's own neighbours
    step = max(1, _SLAB_VOXELS // (height * width) - 2 * reach)
    for start in range(0, n_z, step):
        stop = min(start + step, n_z)
        low, high = max(0, start - reach), min(n_z, stop + reach)
        yield _surface(mask, low, high), _surface(truth, low, high), slice(start - low, stop - low)


def _surface(mask: NDArray[np.bool_], low: int, high: int) -> NDArray[np.bool_]:
    """The surface voxels of planes low to high, judged with the planes beside them."""
    below, above = max(0, low - 1), min(len(mask), high + 1)
    part = mask[below:above]
    surface: NDArray[np.bool_] = part & ~ndimage.binary_erosion(part, _FACES, border_value=1)
    return surface[low - below : high - below]
