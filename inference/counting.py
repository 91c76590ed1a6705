"""Masks and densities into volumes and object counts, slab by slab: the only module that knows what one cell is.

Coordinates are micrometres from the outer corner of voxel (0, 0, 0), so voxel i is centred on (i + 0.5) * spacing.
An object is a peak of the density inside the mask, or a piece of mask without a peak that is too big to be noise.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

Spacing = tuple[float, float, float]  # (z, y, x) in micrometres

DENSITY_SIGMA_UM = 2.0
"""The project's fixed convention: in a density every cell is a Gaussian of this sigma and of mass 1."""

_REACH = 4.0  # sigmas: 0.02 % of a cell's mass lies beyond and is put back by normalising
_MASK_THRESHOLD = 0.5
_BIN_UM = 1.0  # half the density's sigma, so that binning moves no peak
_MAX_BINS = 1 << 24  # 200 MB for the four maps; a larger field gets coarser bins
_SMOOTH_UM = 1.0  # widens the peak by 12 %, and takes most of a network's voxel noise
_PEAK_FRACTION = 0.3  # of a lone cell's peak: a cell that the network doubts still counts, a tail does not
_MIN_DISTANCE_UM = 3.0  # the closest nuclei of a dense spheroid are 5 um apart
_MIN_OBJECT_UM3 = 60.0  # half the volume of the smallest (condensed) nucleus


def density_target(
    points_um: NDArray[np.floating[Any]], shape: tuple[int, ...], spacing_um: Spacing
) -> NDArray[np.float32]:
    """The density (z, y, x) of cells at `points_um` (n, 3), in cells per um3; what a density head is trained on.

    Each cell is a Gaussian of `DENSITY_SIGMA_UM`, integrated over each voxel, whose mass in unbounded space is exactly
    1: `density.sum() * voxel_um3` is the number of cells, less the parts of cells that reach out of the volume.
    """
    target = np.zeros(shape, np.float32)
    for point in np.asarray(points_um, np.float64).reshape(-1, 3):
        windows, profiles = zip(
            *(_profile(at, n, step) for at, n, step in zip(point, shape, spacing_um, strict=True)), strict=True
        )
        target[windows] += np.einsum("i,j,k->ijk", *profiles).astype(np.float32)
    return target


def _profile(at_um: float, n: int, step_um: float) -> tuple[slice, NDArray[np.float64]]:
    """Where along one axis of n voxels a Gaussian lies, and its mean over each of those voxels, per micrometre."""
    first = math.floor((at_um - _REACH * DENSITY_SIGMA_UM) / step_um)
    stop = math.ceil((at_um + _REACH * DENSITY_SIGMA_UM) / step_um)
    edges = np.arange(first, stop + 1) * step_um
    mass = np.diff(special.ndtr((edges - at_um) / DENSITY_SIGMA_UM))
    low, high = min(max(first, 0), n), max(min(stop, n), 0)
    high = max(low, high)
    return slice(low, high), (mass / mass.sum() / step_um)[low - first : high - first]
