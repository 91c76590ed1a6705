"""Cells into one plane: which cell owns each pixel, how brightly it shines, and what its true label is.

The only module that knows how a cell looks from inside. All arithmetic is float32 without reassociation, and only adds,
multiplies, divides and takes roots, so that a plane is the same on every machine.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from spheroidd.sim_emulator.draws import Draws
from spheroidd.sim_emulator.phantom import Bend, Cells, CellState

F32 = NDArray[np.float32]
_LIVE, _DEAD, _DOUBLE, _DEBRIS = (
    int(s) for s in (CellState.LIVE, CellState.DEAD, CellState.DOUBLE_POSITIVE, CellState.DEBRIS)
)
TEXTURE = 64  # voxels of 0.5 um, repeating
DIP_UM = 0.5  # over this distance two touching cells' dye falls off towards their common border


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile with numba, without fast-math, keeping the machine code beside the source."""
    jitted: Callable[..., Any] = numba.njit(cache=True, nogil=True, error_model="numpy")(function)
    return jitted


def inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """As `compiled`, written into each caller: a loop around a call is not turned into vector instructions."""
    jitted: Callable[..., Any] = numba.njit(inline="always", error_model="numpy")(function)
    return jitted


@dataclass(frozen=True, slots=True)
class Table:
    """The cells near a field, as float32 columns for the kernels, in order of id."""

    ids: NDArray[np.uint32]
    state: NDArray[np.uint8]
    centre: F32  # (n, 3), bent
    reach: F32  # (n, 3): half the size of the box that holds the body, its bend included
    metric: F32  # (n, 6): zz, yy, xx, zy, zx, yx; the body is where the quadratic form is below 1
    nucleus: F32  # (n, 3) relative to the bent centre
    size: F32  # (n, 2): body and nucleus radius
    shine: F32  # (n, 4): body 488, nucleus 488, body 561, nucleus 561

    @classmethod
    def of(cls, cells: Cells, bend: Bend, shine: NDArray[np.float64]) -> "Table":
        """Put cells and what they emit into columns."""
        metric = cells.stretch / cells.radius_um[:, None, None] ** 2
        half = np.sqrt(np.einsum("nii->ni", np.linalg.inv(metric))) if len(cells) else np.zeros((0, 3))
        six = np.stack([metric[:, i, j] for i, j in ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))], 1)
        return cls(
            ids=cells.ids,
            state=cells.state,
            centre=_f32(cells.centre_um + bend.at(cells.centre_um)),
            reach=_f32(half + bend.reach_um),
            metric=_f32(six),
            nucleus=_f32(cells.nucleus_um),
            size=_f32(np.stack([cells.radius_um, cells.nucleus_radius_um], 1)),
            shine=_f32(shine),
        )


def texture(draws: Draws) -> F32:
    """A cube of grain around 1 that repeats in all directions: cytoplasm and chromatin are not even."""
    grain = gaussian_filter(draws.normals("texture", TEXTURE, TEXTURE, TEXTURE), 1.2, mode="wrap")
    return _f32(np.clip(1 + 0.16 * grain / grain.std(), 0.5, 1.5))


@dataclass(slots=True)
class Canvas:
    """Buffers for planes of one size; `aim` fills them for one plane, `paint` and `label` read them."""

    table: Table
    bend: Bend
    grain: F32
    height: int
    width: int
    pixel_um: float
    _bent: F32
    _first: F32
    _second: F32
    _owner: NDArray[np.int32]

    @classmethod
    def blank(cls, table: Table, bend: Bend, grain: F32, height: int, width: int, pixel_um: float) -> "Canvas":
        """Buffers for planes (height, width)."""
        first, second = np.empty((2, height, width), np.float32)
        owner = np.empty((height, width), np.int32)
        bent = np.empty((3, height, width), np.float32)
        return cls(table, bend, grain, height, width, pixel_um, bent, first, second, owner)

    def aim(self, z_um: float, y_um: float, x_um: float) -> None:
        """Find every pixel's owner in the plane z whose first pixel's centre is at (y, x)."""
        rows = y_um + self.pixel_um * np.arange(self.height)
        columns = x_um + self.pixel_um * np.arange(self.width)
        wave = self.bend.wave
        down = wave[:, 0, None] * z_um + wave[:, 1, None] * rows + self.bend.phase[:, None]
        across = wave[:, 2, None] * columns
        tables = [_f32(t) for t in (np.sin(down), np.cos(down), np.sin(across), np.cos(across), self.bend.push)]
        _bend(*tables, np.float32(z_um), _f32(rows), _f32(columns), self._bent)
        t = self.table
        near = np.abs(t.centre[:, 0] - np.float32(z_um)) < t.reach[:, 0]
        _own(
            np.flatnonzero(near),
            t.centre,
            t.reach,
            t.metric,
            np.float32(y_um),
            np.float32(x_um),
            np.float32(self.pixel_um),
            self._bent,
            self._first,
            self._second,
            self._owner,
        )

    def paint(self, out: F32) -> None:
        """Emission of the aimed plane into `out` (2, height, width): 488 and 561."""
        t = self.table
        edge = np.float32(max(self.pixel_um, 0.3))
        _paint(
            self._bent,
            self._first,
            self._second,
            self._owner,
            t.centre,
            t.nucleus,
            t.size,
            t.shine,
            self.grain,
            edge,
            out,
        )

    def label(self, live: NDArray[np.bool_], dead: NDArray[np.bool_], ids: NDArray[np.uint32]) -> None:
        """Truth of the aimed plane: live bodies, dead nuclei, and the number of every cell's body."""
        t = self.table
        _label(self._bent, self._first, self._owner, t.centre, t.nucleus, t.size, t.state, t.ids, live, dead, ids)


def _f32(values: NDArray[np.floating[Any]]) -> F32:
    return np.ascontiguousarray(values, np.float32)


@compiled
def _bend(
    sin_y: F32, cos_y: F32, sin_x: F32, cos_x: F32, push: F32, z: float, rows: F32, columns: F32, out: F32
) -> None:
    """Where each pixel lies once the bend is undone: sin(a + b) from tables along rows and columns."""
    n_wave, height = sin_y.shape
    width = sin_x.shape[1]
    for j in range(height):
        for i in range(width):
            out[0, j, i] = z
            out[1, j, i] = rows[j]
            out[2, j, i] = columns[i]
        for k in range(n_wave):
            s, c = sin_y[k, j], cos_y[k, j]
            pz, py, px = push[k, 0], push[k, 1], push[k, 2]
            for i in range(width):
                wave = s * cos_x[k, i] + c * sin_x[k, i]
                out[0, j, i] += pz * wave
                out[1, j, i] += py * wave
                out[2, j, i] += px * wave


@compiled
def _own(
    near: NDArray[np.int64],
    centre: F32,
    reach: F32,
    metric: F32,
    y0: float,
    x0: float,
    pixel: float,
    bent: F32,
    first: F32,
    second: F32,
    owner: NDArray[np.int32],
) -> None:
    """The nearest cell of every pixel in the cells' own metrics, and the squared distances to the nearest two."""
    height, width = owner.shape
    far = np.float32(1e9)
    first[:] = far
    second[:] = far
    owner[:] = -1
    two = np.float32(2)
    for n in near:
        cz, cy, cx = centre[n, 0], centre[n, 1], centre[n, 2]
        mzz, myy, mxx = metric[n, 0], metric[n, 1], metric[n, 2]
        mzy, mzx, myx = two * metric[n, 3], two * metric[n, 4], two * metric[n, 5]
        top = max(0, math.ceil((cy - reach[n, 1] - y0) / pixel))
        bottom = min(height, math.floor((cy + reach[n, 1] - y0) / pixel) + 1)
        left = max(0, math.ceil((cx - reach[n, 2] - x0) / pixel))
        right = min(width, math.floor((cx + reach[n, 2] - x0) / pixel) + 1)
        for j in range(top, bottom):
            for i in range(left, right):
                dz, dy, dx = bent[0, j, i] - cz, bent[1, j, i] - cy, bent[2, j, i] - cx
                form = dz * (mzz * dz + mzy * dy + mzx * dx) + dy * (myy * dy + myx * dx) + mxx * dx * dx
                if form < first[j, i]:
                    second[j, i] = first[j, i]
                    first[j, i] = form
                    owner[j, i] = n
                elif form < second[j, i]:
                    second[j, i] = form


@compiled
def _paint(
    bent: F32,
    first: F32,
    second: F32,
    owner: NDArray[np.int32],
    centre: F32,
    nucleus: F32,
    size: F32,
    shine: F32,
    grain: F32,
    edge: float,
    out: F32,
) -> None:
    height, width = owner.shape
    one, half, zero = np.float32(1), np.float32(0.5), np.float32(0)
    dip, low, two = np.float32(DIP_UM), np.float32(0.45), np.float32(2)
    mask = TEXTURE - 1
    for j in range(height):
        for i in range(width):
            n = owner[j, i]
            a = zero
            b = zero
            if n >= 0 and first[j, i] < np.float32(1.5):
                z, y, x = bent[0, j, i], bent[1, j, i], bent[2, j, i]
                radius = size[n, 0]
                inner = np.sqrt(first[j, i])
                rim = min(one, max(zero, (one - inner) * radius / edge + half))
                gap = (np.sqrt(second[j, i]) - inner) * radius / dip
                rim *= low + (one - low) * min(one, gap)
                dz = z - centre[n, 0] - nucleus[n, 0]
                dy = y - centre[n, 1] - nucleus[n, 1]
                dx = x - centre[n, 2] - nucleus[n, 2]
                core = (size[n, 1] - np.sqrt(dz * dz + dy * dy + dx * dx)) / edge + half
                core = min(one, max(zero, core))
                iz, iy, ix = int(z * two + 4096), int(y * two + 4096), int(x * two + 4096)
                fine = grain[iz & mask, iy & mask, ix & mask]
                body = rim * fine
                # Chromatin is coarser than cytoplasm: the same grain, read at twice the scale and a shifted place.
                knot = grain[(iz >> 1) & mask, (iy >> 1) & mask, (ix >> 1) & mask]
                a = body * (shine[n, 0] + core * (shine[n, 1] - shine[n, 0]))
                b = body * (one - core) * shine[n, 2] + rim * core * knot * shine[n, 3]
            out[0, j, i] = a
            out[1, j, i] = b


@compiled
def _label(
    bent: F32,
    first: F32,
    owner: NDArray[np.int32],
    centre: F32,
    nucleus: F32,
    size: F32,
    state: NDArray[np.uint8],
    ids: NDArray[np.uint32],
    live: NDArray[np.bool_],
    dead: NDArray[np.bool_],
    cell_ids: NDArray[np.uint32],
) -> None:
    height, width = owner.shape
    for j in range(height):
        for i in range(width):
            n = owner[j, i]
            live[j, i] = False
            dead[j, i] = False
            cell_ids[j, i] = 0
            if n >= 0 and first[j, i] <= np.float32(1) and state[n] != _DEBRIS:
                cell_ids[j, i] = ids[n]
                if state[n] == _LIVE:
                    live[j, i] = True
                elif state[n] == _DEAD or state[n] == _DOUBLE:
                    dz = bent[0, j, i] - centre[n, 0] - nucleus[n, 0]
                    dy = bent[1, j, i] - centre[n, 1] - nucleus[n, 1]
                    dx = bent[2, j, i] - centre[n, 2] - nucleus[n, 2]
                    dead[j, i] = dz * dz + dy * dy + dx * dx <= size[n, 1] * size[n, 1]
