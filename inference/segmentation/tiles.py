"""How an axis is cut into tiles with halo. The only module that knows where a tile begins."""

import math
from itertools import pairwise
from typing import NamedTuple

from spheroidd.protocols.errors import ModelError

GRID = 8  # tiles begin and end on multiples of it: the pooling grids of a network of up to 4 levels then agree


class Tile(NamedTuple):
    """One axis of a tile: voxels [start, stop) are seen, [core_start, core_stop) are kept; stop may pass the end."""

    start: int
    stop: int
    core_start: int
    core_stop: int


def tile_axis(length: int, longest: int, halo: int) -> tuple[Tile, ...]:
    """Cut `length` voxels into the fewest tiles of one even size, at most `longest`, with `halo` voxels of context.

    Starts and sizes are multiples of GRID; the last tile may reach up to GRID - 1 voxels beyond the end. Cores touch
    and cover the axis once.
    """
    halo = _up(halo)
    padded = _up(length)
    if longest // GRID * GRID <= 2 * halo:
        what = f"tiles of {longest} voxels leave nothing between two halos of {halo}"
        raise ModelError(what, do=f"use tiles of at least {2 * halo + GRID}")
    if padded <= longest:
        return (Tile(0, padded, 0, length),)
    step = longest // GRID * GRID - 2 * halo
    n = math.ceil((padded - 2 * halo) / step)
    size = _up(math.ceil((padded - 2 * halo) / n)) + 2 * halo
    starts = [min(i * (size - 2 * halo), padded - size) for i in range(n)]
    # Neighbours share the middle of their overlap: both then have at least a halo of context on that side.
    cuts = [0, *((a + size + b) // 2 for a, b in pairwise(starts)), length]
    return tuple(Tile(s, s + size, a, b) for s, (a, b) in zip(starts, pairwise(cuts), strict=True))


def _up(value: int) -> int:
    return -(-value // GRID) * GRID
