"""How long a network computes on a whole stack, from the seconds of one tile: a card tells it for any voxel size."""

import math
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from spheroidd.inference.segmentation.segmenter import UNetSegmenter
from spheroidd.inference.segmentation.streaming import LONGEST_TILE_YX, LONGEST_TILE_Z
from spheroidd.inference.segmentation.tiles import tile_axis

STACK_UM = 100.0  # each side of a `screen` stack
_SIDE = 64  # of what is measured, in voxels


def stack_seconds(segmenter: UNetSegmenter, halo: int) -> dict[str, float]:
    """CPU seconds of inference of a `screen` stack, halos included, from those of a part of one tile; the best of two.

    All threads count: process time is that of every core together.
    """
    sides = [math.ceil(STACK_UM / step) for step in segmenter.spacing_um]
    longest = (LONGEST_TILE_Z, LONGEST_TILE_YX, LONGEST_TILE_YX)
    rows = [tile_axis(n, most, halo) for n, most in zip(sides, longest, strict=True)]
    tile = [min(axis[0].stop - axis[0].start, _SIDE) for axis in rows]  # the time goes with the voxels
    region = np.random.default_rng(0).standard_normal((2, *tile), np.float32)
    seconds = []
    for _ in range(2):
        began_s = time.process_time()
        segmenter.predict(region)
        seconds.append(time.process_time() - began_s)
    per_voxel_s = min(seconds) / math.prod(tile)
    voxels = math.prod(sum(one.stop - one.start for one in axis) for axis in rows)
    return {
        "cpu_s_per_mvoxel": round(1e6 * per_voxel_s, 3),
        "mvoxels_with_halos": round(voxels / 1e6, 2),
        "cpu_s_per_screen_stack": round(per_voxel_s * voxels, 2),
        "measured_on_voxels": math.prod(tile),
    }


def tradeoff_row(segmenter: UNetSegmenter, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """A network's own row of its card's table: voxel size, width, Dice under the plate's limits, seconds.

    The Dice is the mean over the kinds of held-out plates; None where there were none.
    """
    settings = segmenter.card.settings
    groups = [one for name, one in metrics.items() if isinstance(one, Mapping) and "stack" not in name.split()]

    def dice(label: str) -> float | None:
        found = [float(one[f"{label}_dice_mean"]) for one in groups if f"{label}_dice_mean" in one]
        return round(sum(found) / len(found), 4) if found else None

    return {
        "network": segmenter.card.name,
        "spacing_um": list(settings.spacing_um),
        "base": settings.base,
        "levels": settings.levels,
        "live_dice": dice("live"),
        "dead_dice": dice("dead"),
        "cpu_s": stack_seconds(segmenter, segmenter.card.halo)["cpu_s_per_screen_stack"],
    }
