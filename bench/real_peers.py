"""What finds objects in one channel of a real volume without the project's networks: a threshold, a random forest."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.feature import peak_local_max
from skimage.filters import threshold_otsu
from skimage.segmentation import watershed
from sklearn.ensemble import RandomForestClassifier

from bench.real_volumes import Volume
from spheroidd.inference.preprocessing.intensity import Histogram, normalise
from spheroidd.inference.preprocessing.median import median3

Mask = NDArray[np.bool_]
Floats = NDArray[np.float32]
GROUND = 12.0  # voxels: much wider than a nucleus of any of these volumes
SIGMAS = (0.7, 1.6, 3.5)
LEAST_VOXELS = 20  # of an object


def otsu(volume: Volume) -> Mask:
    """After the networks' own median and limits: smoothed, less a wide background, cut at Otsu's threshold."""
    filtered = median3(volume.pixels)
    histogram = Histogram()
    histogram.add(filtered)
    even = normalise(filtered, histogram.limits())
    flat = ndimage.gaussian_filter(even, 1.0) - ndimage.gaussian_filter(even, GROUND)
    cut: Mask = flat > threshold_otsu(flat)
    return cut


def drawn_planes(n_z: int) -> Sequence[int]:
    """The three planes that somebody drew: at a quarter, in the middle, at three quarters."""
    return [n_z // 4, n_z // 2, 3 * n_z // 4]


def forest(volume: Volume) -> Mask:
    """Pixel classification as in ilastik: twelve filters, a random forest that learns from three true planes."""
    features, true = _filters(volume.pixels), volume.objects > 0
    drawn = drawn_planes(len(true))
    learner = RandomForestClassifier(100, min_samples_leaf=10, random_state=0, n_jobs=1)
    learner.fit(features[drawn].reshape(-1, features.shape[-1]), true[drawn].ravel())
    found: Mask = learner.predict(features.reshape(-1, features.shape[-1])).reshape(true.shape)
    return found


def _filters(pixels: NDArray[Any]) -> Floats:
    """Smoothed, its slope, its Laplacian and the mean beside it, at three widths each: (z, y, x, 12)."""
    image = pixels.astype(np.float32)
    parts = [
        part
        for sigma in SIGMAS
        for part in (
            ndimage.gaussian_filter(image, sigma),
            ndimage.gaussian_gradient_magnitude(image, sigma),
            ndimage.gaussian_laplace(image, sigma),
            ndimage.gaussian_filter(image, sigma) - ndimage.gaussian_filter(image, 3 * sigma),
        )
    ]
    return np.stack(parts, axis=-1)


def objects_of(mask: Mask, volume: Volume) -> NDArray[np.int32]:
    """A mask cut into objects: a watershed from the peaks of the distance to its edge, smoothed by a voxel."""
    step = (volume.z_step_um / volume.pixel_um, 1.0, 1.0)
    deep = ndimage.gaussian_filter(ndimage.distance_transform_edt(mask, step), [1 / by for by in step])
    peaks = peak_local_max(deep, min_distance=4, labels=mask.astype(int), exclude_border=False)
    markers = np.zeros(mask.shape, np.int32)
    markers[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    found: NDArray[np.int32] = watershed(-deep, markers, mask=mask)
    small = np.bincount(found.ravel()) < LEAST_VOXELS
    return np.where(small[found], 0, found)
