"""How deep below a spheroid's surface cells can be told apart: to where nuclei still stand out of the haze around them.

Tissue scatters: light of a cell that leaves focus comes back as haze, so that deep down all is bright and nothing has
an edge. What is measured, in shells below the surface, is structure as wide as a nucleus over the light that it
stands in; what empty field shows of it, which is noise, is taken off.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

NARROW_UM, WIDE_UM = 1.5, 4.5  # sigmas: between them lies what is as wide as a nucleus
COARSEST_UM = 3.0  # where points lie further apart, a nucleus is one of them
ENOUGH_UM = 1.3  # where they lie closer together, two along each axis make one
TISSUE_UM, TISSUE_SHARE = 6.0, 0.2  # light smoothed so far, over the brightest: from there on it is tissue
SHELL_UM = 5.0
SURFACE_SHELLS = 3  # the edge of the tissue is structure by itself: so far down a channel without cells shows some
LEAST_POINTS = 200  # of a shell
CLEAR = 0.05  # structure over light; no weight is given in training to voxels with less of a cell's light in focus


def depth_seen_um(
    points: Mapping[str, Floats], step_um: tuple[float, float, float], floors: Mapping[str, float]
) -> float | None:
    """The depth below the surface, in micrometres, to which cells can be told apart in every channel that shows any.

    `points` (z, y, x) by channel, `step_um` apart; `floors` is the camera's level without light. Up to 15 um is the
    surface alone. None where nobody can say: points too far apart, a field without tissue or nothing beside it.
    """
    if max(step_um) > COARSEST_UM:
        return None
    points, step_um = _thinned(points, step_um)
    depth = depth_below_surface_um(points, step_um, floors)
    if depth is None:
        return None
    shells = (depth / SHELL_UM).astype(np.int64) + (depth > 0)
    reached = [_deepest_clear(values, shells, step_um, floors[channel]) for channel, values in points.items()]
    deeper = [shell for shell in reached if shell > SURFACE_SHELLS]
    shell = min(deeper) if deeper else max(reached)
    return float(min(shell * SHELL_UM, float(depth.max())))


def _thinned(
    points: Mapping[str, Floats], step_um: tuple[float, float, float]
) -> tuple[dict[str, Floats], tuple[float, float, float]]:
    """Means of two along every axis on which points lie close together: an eighth of the time."""
    found = dict(points)
    steps = list(step_um)
    for axis, step in enumerate(step_um):
        n = min(values.shape[axis] for values in found.values()) // 2
        if step <= ENOUGH_UM and n:
            pairs = {name: np.moveaxis(values, axis, 0)[: 2 * n] for name, values in found.items()}
            halved = {name: ((pair[::2] + pair[1::2]) / 2).astype(np.float32) for name, pair in pairs.items()}
            found = {name: np.moveaxis(values, 0, axis) for name, values in halved.items()}
            steps[axis] = 2 * step
    return found, (steps[0], steps[1], steps[2])


def depth_below_surface_um(
    points: Mapping[str, Floats], step_um: tuple[float, float, float], floors: Mapping[str, float]
) -> Floats | None:
    """How deep each point lies in tissue, 0 outside; None where all is tissue, or nothing."""
    from scipy import ndimage  # what reads profiles needs none of it

    light = np.zeros(next(iter(points.values())).shape, np.float32)
    for channel, values in points.items():
        above = values - np.float32(floors[channel])
        light += above / max(float(np.percentile(above, 99)), 1.0)
    wide = ndimage.gaussian_filter(light, [TISSUE_UM / step for step in step_um])
    tissue = ndimage.binary_fill_holes(wide > TISSUE_SHARE * np.percentile(wide, 99))  # a dark core is no surface
    if tissue.all() or not tissue.any():
        return None
    depth: Floats = ndimage.distance_transform_edt(tissue, step_um).astype(np.float32)
    return depth


def _deepest_clear(values: Floats, shells: NDArray[np.int64], step_um: tuple[float, float, float], floor: float) -> int:
    """The number of the deepest shell with structure; 0 where none has."""
    from scipy import ndimage

    narrow, wide = (ndimage.gaussian_filter(values, [by / step for step in step_um]) for by in (NARROW_UM, WIDE_UM))
    structure = (narrow - wide).ravel()
    flat, n = shells.ravel(), np.bincount(shells.ravel())
    square = np.bincount(flat, weights=structure**2) / np.maximum(n, 1)
    light = np.bincount(flat, weights=values.ravel() - floor) / np.maximum(n, 1)
    noise = float(np.median(structure[flat == 0] ** 2)) / 0.455  # median of a square over its mean, of normal values
    contrast = np.sqrt(np.maximum(square - noise, 0.0)) / np.maximum(light, 1.0)
    clear = np.flatnonzero((contrast >= CLEAR) & (n >= LEAST_POINTS) & (np.arange(len(n)) > 0))
    return int(clear[-1]) if clear.size else 0
