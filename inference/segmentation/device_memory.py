"""How much of a device's memory a stack's way takes at most, reckoned before it is begun.

What is reckoned is what torch hands out; a library's own scratch memory (cuDNN's workspace) and the context come on
top. A test counts the bytes of real stacks on the CPU against it.
"""

import math

from spheroidd.inference.preprocessing.device_stream import portion_of
from spheroidd.inference.preprocessing.resample import MASK_PLANES, Shape, Spacing, resampling_axis
from spheroidd.inference.segmentation.device_path import BATCH_VOXELS
from spheroidd.inference.segmentation.streaming import LONGEST_TILE_YX, LONGEST_TILE_Z
from spheroidd.inference.segmentation.tiles import tile_axis
from spheroidd.protocols.errors import StackError
from spheroidd.protocols.results import Precision
from spheroidd.protocols.stack import CHANNELS

FED = 8  # slices that come at once: a block of the store
MEDIAN_TIMES = 32  # bytes of the median's sorting network for each byte of its slices
NETWORK_BYTES = {Precision.FP32: 184, Precision.BF16: 104}  # of features for each voxel of a batch, 8 features wide
EDGE_BYTES = 80  # of a voxel at the network's spacing, while its boundary is looked for
PLANE_BYTES = 40  # of a pixel of the slices that get their masks at once
_BATCH_BYTES = 8 + 8 + 8 + 16  # its tiles, once more in the network's precision and joined, and what is said of them


def stack_bytes(
    shape: Shape,
    spacing_um: Spacing,
    model_spacing_um: Spacing,
    halo: int,
    precision: Precision,
    *,
    known_limits: bool,
    half_height: bool,
    base: int = 8,
) -> int:
    """The most bytes that a stack of `shape` (z, y, x) in two channels holds on its device at any time.

    Without `known_limits` every filtered slice stays there until the last one gave the limits, and for boundaries at
    `half_height` until its slab's are found. `halo` is the segmenter's, `base` the width of its network. Both spacings
    are micrometres along (z, y, x).
    """
    n_z, height, width = shape
    axes = zip(shape, spacing_um, model_spacing_um, strict=True)
    model = [len(resampling_axis(n, own, step).starts) for n, own, step in axes]
    plane, resampled = height * width, model[1] * model[2]
    recent = len(CHANNELS) * 2 * 2 * plane
    filtered = 0 if known_limits and not half_height else len(CHANNELS) * n_z * 2 * plane
    ready = len(CHANNELS) * n_z * 4 * resampled
    to_mask = len(CHANNELS) * model[0] * 4 * resampled
    portion = portion_of(shape)
    feeding = 2 * (FED + 2) * 2 * plane + (portion + 2) * (2 * MEDIAN_TIMES + 3 * 4) * plane
    row = max(tile.stop - tile.start for tile in tile_axis(model[0], LONGEST_TILE_Z, halo))
    sides = [tile_axis(n, LONGEST_TILE_YX, halo) for n in model[1:]]
    tile = row * math.prod(max(one.stop - one.start for one in side) for side in sides)
    at_once = tile * min(len(sides[0]) * len(sides[1]), max(1, BATCH_VOXELS // tile))
    inferring = row * resampled * (8 + 16) + at_once * (_BATCH_BYTES + NETWORK_BYTES[precision] * base // 8)
    masking = len(CHANNELS) * plane * (3 * 4 + 2 * MASK_PLANES)
    if half_height:
        slab = max(tile.core_stop - tile.core_start for tile in tile_axis(model[0], LONGEST_TILE_Z, halo))
        to_mask *= 2  # a slope and an offset
        masking = max(
            slab * resampled * EDGE_BYTES, portion * plane * PLANE_BYTES + 2 * len(CHANNELS) * MASK_PLANES * plane
        )
    return recent + filtered + ready + to_mask + max(feeding, inferring, masking)


def require_room(needed: int, there: int, where: str) -> None:
    """StackError where a device of `there` bytes cannot hold a stack that needs so many."""
    if needed > there:
        what = f"a stack of this size needs {needed / 1e9:.1f} GB of a GPU that has {there / 1e9:.1f} GB"
        raise StackError(what, where=where, do='set [inference] device = "cpu", or use the plate\'s limits')
