"""Masks and densities into volumes and object counts, slab by slab: the only module that knows what one cell is.

Coordinates are micrometres from the outer corner of voxel (0, 0, 0), so voxel i is centred on (i + 0.5) * spacing.
An object is a peak of the density inside the mask, or a piece of mask without a peak that is too big to be noise.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, special
from skimage.segmentation import watershed

from spheroidd.protocols.errors import ConfigError, StackError
from spheroidd.protocols.ports import Prediction
from spheroidd.protocols.results import USUAL_CELL_UM, Limits, Normalisation, Precision, StackMeasurement
from spheroidd.protocols.stack import DEAD_CHANNEL, LIVE_CHANNEL, StackPlan

Spacing = tuple[float, float, float]  # (z, y, x) in micrometres

DENSITY_SIGMA_UM = 2.0
"""The project's fixed convention: in a density every cell is a Gaussian of this sigma and of mass 1."""

_REACH = 4.0  # sigmas: 0.02 % of a cell's mass lies beyond and is put back by normalising
_MASK_THRESHOLD = 0.5
_BIN_UM = 1.0  # half the density's sigma, so that binning moves no peak
_MAX_BINS = 1 << 24  # 200 MB for the four maps; a larger field gets coarser bins
_SMOOTH_UM = 1.0  # widens the peak by 12 %, and takes most of a network's voxel noise
_PEAK_FRACTION = 0.3  # of a lone cell's peak: a cell that the network doubts still counts, a tail does not
_TAIL_FRACTION = 0.02  # what is left of a density 5.6 um from a cell's centre, the radius of a nucleus
_MIN_DISTANCE_UM = 3.0  # the closest nuclei of a dense spheroid are 5 um apart
_BORDER_BASELINE_UM = 2.0  # one sigma: far enough to beat the noise, near enough to stay within one cell
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


def find_markers(
    probability: NDArray[np.floating[Any]], density: NDArray[np.floating[Any]], spacing_um: Spacing
) -> NDArray[np.intp]:
    """The voxels (n, 3) where a cell's density peaks inside the mask (probability >= 0.5); both maps (z, y, x).

    A peak on the volume's border counts only where the density says that the cell's centre lies inside.
    """
    smooth = _smooth(density, spacing_um)
    size = [2 * max(1, round(_MIN_DISTANCE_UM / step)) + 1 for step in spacing_um]
    tops = (smooth == ndimage.maximum_filter(smooth, size, mode="nearest")) & (probability >= _MASK_THRESHOLD)
    tops &= smooth > _PEAK_FRACTION * lone_peak(spacing_um)
    # A cell centred between voxels has a flat top: neighbours of equal height are one peak.
    tied = ndimage.label(tops, ndimage.generate_binary_structure(3, 3))[0][tops]
    peaks = np.argwhere(tops)[np.unique(tied, return_index=True)[1]]
    centred: NDArray[np.intp] = peaks[_centred_inside(density, peaks, spacing_um)]
    return centred


def _smooth(density: NDArray[np.floating[Any]], spacing_um: Spacing) -> NDArray[np.float32]:
    smooth: NDArray[np.float32] = ndimage.gaussian_filter(
        density.astype(np.float32, copy=False), [_SMOOTH_UM / step for step in spacing_um], mode="nearest", truncate=3.0
    )
    return smooth


def _sigmas_um(spacing_um: Spacing) -> list[float]:
    """Sigma of a lone cell along each axis after smoothing and binning."""
    return [math.sqrt(DENSITY_SIGMA_UM**2 + _SMOOTH_UM**2 + step**2 / 12) for step in spacing_um]


def lone_peak(spacing_um: Spacing) -> float:
    """Height of a lone cell's peak in a smoothed map, cells per um3."""
    return math.prod(1 / (math.sqrt(2 * math.pi) * sigma) for sigma in _sigmas_um(spacing_um))


def _centred_inside(
    density: NDArray[np.floating[Any]], peaks: NDArray[np.intp], spacing_um: Spacing
) -> NDArray[np.bool_]:
    """Which peaks are not the tail of a cell that is centred beyond the border.

    Along a line, the logarithm of a Gaussian's ratio at two places tells where its centre lies. The two planes are
    smoothed only within themselves, because smoothing across the border would bend what is measured here.
    """
    inside = np.ones(len(peaks), bool)
    for axis, (step, n) in enumerate(zip(spacing_um, density.shape, strict=True)):
        baseline = min(max(1, round(_BORDER_BASELINE_UM / step)), n - 1)
        sides = [_SMOOTH_UM / other for at, other in enumerate(spacing_um) if at != axis]
        for border, inward in ((0, baseline), (n - 1, n - 1 - baseline)):
            here = peaks[:, axis] == border
            if border == inward or not here.any():
                continue
            columns = tuple(np.delete(peaks[here], axis, 1).T)
            outer, inner = (
                ndimage.gaussian_filter(density.take(z, axis).astype(np.float64), sides, mode="nearest")[columns]
                for z in (border, inward)
            )
            length_um = baseline * step
            variance = DENSITY_SIGMA_UM**2 + step**2 / 12
            beyond_um = variance * np.log(outer / np.maximum(inner, 1e-12)) / length_um - length_um / 2
            inside[here] &= beyond_um <= step / 2
    return inside


def split_objects(
    probability: NDArray[np.floating[Any]], density: NDArray[np.floating[Any]], spacing_um: Spacing
) -> NDArray[np.int32]:
    """Label the objects of the mask 1..n (z, y, x), 0 elsewhere; n is what `count_objects` says of the same maps.

    Touching cells are split by a watershed of the density from its peaks. A piece of mask without a peak is one
    object, or none where it is smaller than a cell.
    """
    mask = probability >= _MASK_THRESHOLD
    peaks = find_markers(probability, density, spacing_um)
    pieces, lone = _lone_pieces(mask, density, peaks, spacing_um)
    markers = np.zeros(mask.shape, np.int32)
    markers[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    labels = watershed(-_smooth(density, spacing_um), markers, mask=mask)  # type: ignore[no-untyped-call]
    new_label = np.zeros(pieces.max(initial=0) + 1, np.int32)
    new_label[lone] = np.arange(len(peaks) + 1, len(peaks) + len(lone) + 1)
    return np.where(labels > 0, labels, new_label[pieces]).astype(np.int32)


def count_objects(
    probability: NDArray[np.floating[Any]], density: NDArray[np.floating[Any]], spacing_um: Spacing
) -> int:
    """How many objects the maps (z, y, x) hold: peaks of the density, and lone pieces of mask."""
    peaks = find_markers(probability, density, spacing_um)
    return len(peaks) + len(_lone_pieces(probability >= _MASK_THRESHOLD, density, peaks, spacing_um)[1])


def _lone_pieces(
    mask: NDArray[np.bool_], density: NDArray[np.floating[Any]], peaks: NDArray[np.intp], spacing_um: Spacing
) -> tuple[NDArray[np.int32], NDArray[np.intp]]:
    """The connected pieces of the mask, labelled, and which of them are a cell although they hold no peak.

    Those are big enough, and not the rim of a cell centred beyond the border: such a rim has the tail of a density.
    """
    pieces, n = ndimage.label(mask, ndimage.generate_binary_structure(3, 1), output=np.int32)
    lone = np.bincount(pieces.ravel(), minlength=n + 1) * math.prod(spacing_um) >= _MIN_OBJECT_UM3
    lone[0] = False
    lone[pieces[tuple(peaks.T)]] = False
    for axis, size in enumerate(mask.shape):
        for border in (0, size - 1):
            face = pieces.take(border, axis)
            lone[face[density.take(border, axis) > _TAIL_FRACTION * lone_peak(spacing_um)]] = False
    return pieces, np.flatnonzero(lone)


class StackCounter:
    """Adds up one stack's volumes and objects while it is scored; fed slab by slab, in any order.

    A slab that is scored again is fed again and takes the place of what was there. It keeps the volume of each slice
    and, of the model's output, maps binned to about 1 um (one z-plane in each bin is sampled: the density is smooth),
    so its size does not depend on the model's spacing.

    `model_shape` is the model volume's (z, y, x) and `model_spacing_um` its voxel size (z, y, x), both as the model
    sees them: of cells that are `cell_um` wide it is shown as many voxels as it knows of cells of `USUAL_CELL_UM`.
    """

    def __init__(
        self,
        plan: StackPlan,
        *,
        model_shape: tuple[int, int, int],
        model_spacing_um: Spacing,
        cell_um: float | None = None,
    ) -> None:
        self._plan, self._cell_um = plan, cell_um
        self._volumes = {channel: np.full(plan.n_z, np.nan) for channel in plan.channels}
        self._shape, self._factors = model_shape, _bin_factors(model_shape, model_spacing_um)
        bins = tuple(-(-n // factor) for n, factor in zip(model_shape, self._factors, strict=True))
        self._bin_um: Spacing = tuple(step * f for step, f in zip(model_spacing_um, self._factors, strict=True))  # type: ignore[assignment]
        # Half precision holds a probability to 0.0005 and a density to 0.1 %, at half the memory.
        self._probability = {channel: np.zeros(bins, np.float16) for channel in plan.channels}
        self._density = {channel: np.zeros(bins, np.float16) for channel in plan.channels}
        self._seen = np.zeros(bins[0], bool)
        self._numbered: dict[str, int] = {}  # objects of the channels whose label volume was made

    def add_masks(self, z_start: int, live: NDArray[np.bool_] | None, dead: NDArray[np.bool_] | None) -> None:
        """Take the masks of whole slices, (z, y, x) at the stack's own sampling; None for a channel it has not."""
        for channel, mask in ((LIVE_CHANNEL, live), (DEAD_CHANNEL, dead)):
            if mask is None or channel not in self._volumes:
                continue
            _check_slab(mask.shape, z_start, (self._plan.n_z, self._plan.height, self._plan.width), str(self._plan.key))
            counts = [np.count_nonzero(plane) for plane in mask]
            self._volumes[channel][z_start : z_start + len(mask)] = np.array(counts) * self._plan.voxel_um3

    def add_density(self, z_start: int, prediction: Prediction) -> None:
        """Take the model's output for whole planes from z_start on, (z, y, x) at the model's spacing."""
        _check_slab(prediction.live.shape, z_start, self._shape, str(self._plan.key))
        step = self._factors[0]
        middles = np.arange(self._seen.size) * step + step // 2
        middles[-1] = min(middles[-1], self._shape[0] - 1)
        inside = np.flatnonzero((middles >= z_start) & (middles < z_start + len(prediction.live)))
        maps = {
            LIVE_CHANNEL: (prediction.live, prediction.live_density),
            DEAD_CHANNEL: (prediction.dead, prediction.dead_density),
        }
        for channel in self._plan.channels:
            probability, density = maps[channel]
            for at in inside:
                z = middles[at] - z_start
                self._probability[channel][at] = self._binned(probability[z])
                self._density[channel][at] = self._binned(density[z])
        self._seen[inside] = True
        self._numbered.clear()

    def _binned(self, plane: NDArray[np.float32]) -> NDArray[np.float32]:
        _, y, x = self._factors
        if y == x == 1:
            return plane
        height, width = plane.shape
        plane = np.pad(plane, ((0, -height % y), (0, -width % x)), mode="edge")
        mean: NDArray[np.float32] = plane.reshape(plane.shape[0] // y, y, -1, x).mean((1, 3))
        return mean

    def volumes_by_z(self, channel: str) -> NDArray[np.float64] | None:
        """The volume (um3) of each slice, None where the stack lacks the channel; StackError where slices lack."""
        volumes = self._volumes.get(channel)
        if volumes is not None and np.isnan(volumes).any():
            what = f"{np.isnan(volumes).sum()} of {volumes.size} slices of channel {channel} were never segmented"
            raise StackError(what, where=str(self._plan.key), do="score the stack again")
        return volumes

    def count(self, channel: str) -> int | None:
        """The number of objects; None where the stack lacks the channel; StackError where planes are lacking."""
        if channel not in self._density:
            return None
        if not self._seen.all():
            what = f"the model's output is missing for {(~self._seen).sum()} of {self._seen.size} depths"
            raise StackError(what, where=str(self._plan.key), do="score the stack again")
        if channel in self._numbered:
            return self._numbered[channel]
        return count_objects(self._probability[channel], self._density[channel], self._bin_um)

    def objects(self, channel: str) -> tuple[NDArray[np.int32], Spacing] | None:
        """The label volume (z, y, x) of `split_objects` and its true voxel size, for pictures and exports."""
        if channel not in self._density:
            return None
        labels = split_objects(self._probability[channel], self._density[channel], self._bin_um)
        self._numbered[channel] = int(labels.max(initial=0))
        z, y, x = (step * magnified(self._cell_um) for step in self._bin_um)
        return labels, (z, y, x)

    def measure(
        self,
        *,
        limits: Mapping[str, Limits],
        normalisation: Normalisation,
        model_sha256: str,
        precision: Precision,
        cpu_s: float,
        quantiles: Mapping[str, Mapping[str, float]],
        depth_seen_um: float | None = None,
        foreign_score: float | None = None,
    ) -> StackMeasurement:
        """The finished measurement, once every slice was fed; StackError where one was not."""
        live, dead = self.volumes_by_z(LIVE_CHANNEL), self.volumes_by_z(DEAD_CHANNEL)
        return StackMeasurement(
            live_um3=None if live is None else float(live.sum()),
            dead_um3=None if dead is None else float(dead.sum()),
            n_live=self.count(LIVE_CHANNEL),
            n_dead=self.count(DEAD_CHANNEL),
            live_um3_by_z=() if live is None else tuple(live.tolist()),
            limits=dict(limits),
            normalisation=normalisation,
            model_sha256=model_sha256,
            precision=precision,
            cpu_s=cpu_s,
            quantiles={channel: dict(values) for channel, values in quantiles.items()},
            depth_seen_um=depth_seen_um,
            foreign_score=foreign_score,
            cell_diameter_um=self._cell_um,
        )


def magnified(cell_um: float | None) -> float:
    """How many times wider cells are than those that networks learn from; 1 where nobody stated it."""
    return 1.0 if cell_um is None else cell_um / USUAL_CELL_UM


def _bin_factors(shape: tuple[int, int, int], spacing_um: Spacing) -> tuple[int, int, int]:
    """How many voxels make one bin along each axis: about 1 um, more where the field is so large that it must be."""
    bin_um = _BIN_UM
    while True:
        z, y, x = (max(1, round(bin_um / step)) for step in spacing_um)
        if math.prod(-(-n // f) for n, f in zip(shape, (z, y, x), strict=True)) <= _MAX_BINS:
            return z, y, x
        bin_um *= 1.25


def _check_slab(shape: tuple[int, ...], z_start: int, whole: tuple[int, int, int], where: str) -> None:
    if len(shape) != 3 or shape[1:] != whole[1:] or not 0 <= z_start <= z_start + shape[0] <= whole[0]:
        what = f"a slab of {shape} at z {z_start} does not fit into {whole}"
        raise ConfigError(what, where=where, do="feed whole planes (z, y, x) of the volume that was announced")
