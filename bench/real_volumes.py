"""The real volumes of the test data that have a truth: nuclei in one channel, each of them numbered."""

from collections.abc import Callable
from typing import Any, NamedTuple

import h5py
import numpy as np
import tifffile
from numpy.typing import NDArray
from scipy import ndimage

from bench.places import REAL_DATA

DATA = REAL_DATA / "nuclei_gt"


class Volume(NamedTuple):
    """A stack with its true objects (z, y, x), 0 the background; pixel_um and z_step_um as its authors give them."""

    pixels: NDArray[Any]
    objects: NDArray[np.integer[Any]]
    pixel_um: float
    z_step_um: float


def embryo8() -> Volume:
    """A mouse embryo of eight cells; its authors give a mask, whose nuclei do not touch."""
    nuclei, _ = ndimage.label(tifffile.imread(DATA / "embryo8_nsn.tif") > 0)
    return Volume(tifffile.imread(DATA / "embryo8_raw.tif"), nuclei, 0.8, 1.75)


def ovule(name: str) -> Volume:
    """Nuclei of a plant's ovule, noisy."""
    with h5py.File(DATA / f"{name}_mini.h5") as file:
        return Volume(file["raw"][:], file["label"][:], 0.127, 0.284)


def crop() -> Volume:
    """A dense crop without a voxel size: one at which its nuclei are about 9 um wide."""
    return Volume(tifffile.imread(DATA / "stardist_img3d.tif"), tifffile.imread(DATA / "stardist_mask3d.tif"), 0.8, 0.8)


VOLUMES: dict[str, Callable[[], Volume]] = {
    "embryo8": embryo8,
    "1135": lambda: ovule("1135"),
    "1136": lambda: ovule("1136"),
    "stardist": crop,
}
