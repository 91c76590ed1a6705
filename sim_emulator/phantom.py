"""A tumour spheroid made of cells: where each one is, how large, in what state, and how brightly it could shine.

Coordinates are micrometres (z, y, x): the spheroid's lowest point is near z = 0, its axis is y = x = 0. Cells sit on a
turned and bent close-packed lattice with jitter and holes, so neighbours touch without order to be seen; each takes the
part of space nearest to it in its own stretched metric (`raster.py`), so none is a sphere.
"""

import math
from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from spheroidd.sim_emulator.draws import Draws, Floats
from spheroidd.sim_emulator.plate import DrugMode, WellSpec
from spheroidd.sim_emulator.realism import TYPICAL_CELL_UM

_CLOSEST_UM = 6.0  # two cells nearer than this would be one
N_WAVES = 12  # of the smooth bend that makes cell borders wavy


class CellState(IntEnum):
    """What a cell is; DEBRIS is no cell and in no mask."""

    LIVE = 0
    DEAD = 1
    DOUBLE_POSITIVE = 2  # the membrane has just given way: counts as dead
    DOUBLE_NEGATIVE = 3  # neither dye shows it: counts as nothing
    DEBRIS = 4


@dataclass(frozen=True, slots=True)
class Shape:
    """The spheroid's surface: a sphere with a few gentle bumps, lying on the ground z = 0."""

    radius_um: float
    height_um: float  # of the centre above the lowest point
    axes: Floats  # (bumps, 3) unit vectors
    waves: Floats  # (bumps, 3): amplitude, frequency, phase

    @classmethod
    def drawn(cls, diameter_um: float, draws: Draws) -> "Shape":
        """A surface of that mean diameter."""
        axes = draws.normals("bump axes", 5, 3)
        axes = _unit(axes)
        unit = draws.uniforms("bumps", 5, 3)
        waves = np.stack([0.005 + 0.015 * unit[:, 0], 1.5 + 3 * unit[:, 1], 2 * np.pi * unit[:, 2]], 1)
        floating = cls(diameter_um / 2, 0.0, axes, waves)
        down = draws.normals("downwards", 2000, 3) * [1.0, 0.5, 0.5]
        down[:, 0] = -np.abs(down[:, 0])
        lowest = floating.surface_um(down) * down[:, 0] / np.sqrt((down**2).sum(1))
        return cls(diameter_um / 2, -float(lowest.min()), axes, waves)

    @property
    def centre_um(self) -> Floats:
        """The centre (z, y, x)."""
        return np.array([self.height_um, 0.0, 0.0])

    def surface_um(self, offset: Floats) -> Floats:
        """The surface's distance from the centre in the direction of each `offset` (n, 3) from the centre."""
        length = np.maximum(np.sqrt((offset**2).sum(-1, keepdims=True)), 1e-9)
        cosine = (offset / length) @ self.axes.T
        bumps = (self.waves[:, 0] * np.sin(self.waves[:, 1] * cosine * 2 + self.waves[:, 2])).sum(-1)
        return np.asarray(self.radius_um * (1 + bumps))

    def depth_um(self, points: Floats) -> Floats:
        """How far below the surface points (n, 3) lie; negative outside."""
        offset = points - self.centre_um
        return np.asarray(self.surface_um(offset) - np.sqrt((offset**2).sum(-1)))


@dataclass(frozen=True, slots=True)
class Bend:
    """A smooth displacement field of sine waves, about 1 um strong: p -> p + bend(p)."""

    wave: Floats  # (N_WAVES, 3): radians per um along z, y, x
    phase: Floats  # (N_WAVES,)
    push: Floats  # (N_WAVES, 3): um along z, y, x

    @classmethod
    def drawn(cls, draws: Draws) -> "Bend":
        """Waves of 8 to 18 um."""
        direction, push = (_unit(draws.normals(name, N_WAVES, 3)) for name in ("bend direction", "bend push"))
        unit = draws.uniforms("bend", N_WAVES, 2)
        wave = direction * (2 * np.pi / (8 + 10 * unit[:, :1]))
        return cls(wave, 2 * np.pi * unit[:, 1], 0.45 * push)

    def at(self, points: Floats) -> Floats:
        """The displacement (n, 3) at points (n, 3)."""
        moved: Floats = np.sin(points @ self.wave.T + self.phase) @ self.push
        return moved

    @property
    def reach_um(self) -> Floats:
        """The largest displacement along each axis."""
        reach: Floats = np.abs(self.push).sum(0)
        return reach


@dataclass(frozen=True, slots=True)
class Cells:
    """Cells, one per row; `take` gives some of them. Radii in micrometres; brightness 1 is the well's typical cell."""

    ids: NDArray[np.uint32]  # from 1; debris has numbers too, but no label
    centre_um: Floats  # (n, 3) of the body
    radius_um: Floats  # the body's, before neighbours cut into it
    stretch: Floats  # (n, 3, 3): metric d @ stretch @ d, the unit matrix for a sphere
    nucleus_um: Floats  # (n, 3): the nucleus' place relative to the body's centre
    nucleus_radius_um: Floats
    state: NDArray[np.uint8]
    depth_um: Floats
    calcein: Floats  # in the body, before dye penetration
    pi: Floats  # in the nucleus, before dye penetration

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, which: NDArray[np.bool_]) -> "Cells":
        """The cells where `which` is true."""
        return Cells(*(getattr(self, name)[which] for name in self.__slots__))

    def within(self, low_um: Floats, high_um: Floats) -> NDArray[np.bool_]:
        """Which cells have their centre in the box."""
        return np.asarray(((self.centre_um >= low_um) & (self.centre_um < high_um)).all(1))


@dataclass(frozen=True, slots=True)
class Phantom:
    """One well's spheroid, whole: its surface, its bend and all its cells (debris included)."""

    spec: WellSpec
    shape: Shape
    bend: Bend
    cells: Cells
    pieces: Cells  # of dead nuclei that broke up, each with the id of its cell; only ever painted

    @property
    def painted(self) -> Cells:
        """What shines: cells, debris, and the pieces of nuclei."""
        return _together(self.cells, self.pieces) if len(self.pieces) else self.cells


def grow(spec: WellSpec) -> Phantom:
    """Make the spheroid that `spec` describes."""
    shape, bend = Shape.drawn(spec.diameter_um, spec.draws), Bend.drawn(spec.draws)
    points = _sites(spec, shape)
    depth = shape.depth_um(points)
    state, late = _states(spec, points, depth)
    if spec.mode is DrugMode.SHEDDING:
        points, depth = _shed(spec, shape, points, depth, state)
    cells = _bodies(spec, points, depth, state, late)
    if spec.mode is DrugMode.SHEDDING:
        cells = _with_debris(spec, shape, cells)
    cells = _with_crumbs(spec, cells)
    cells, pieces = _broken_up(spec, cells)
    return Phantom(spec, shape, bend, cells, pieces)


def live_fraction(state: NDArray[np.uint8]) -> float:
    """Live cells among live and dead ones (double positive counts as dead, double negative as neither); NaN if none."""
    n_live, n_dead = count_states(state)
    return n_live / (n_live + n_dead) if n_live + n_dead else math.nan


def count_states(state: NDArray[np.uint8]) -> tuple[int, int]:
    """How many live and dead cells there are."""
    n_dead = int(((state == CellState.DEAD) | (state == CellState.DOUBLE_POSITIVE)).sum())
    return int((state == CellState.LIVE).sum()), n_dead


def _sites(spec: WellSpec, shape: Shape) -> Floats:
    """Cell centres (n, 3): a face-centred cubic lattice, turned, bent over long distances, jittered, with holes."""
    draws, scale = spec.draws, spec.conditions.cell_um / TYPICAL_CELL_UM
    edge = (4 / spec.sites_per_um3) ** (1 / 3)  # four sites to a cube
    n = math.ceil(shape.radius_um * 1.15 / edge) + 1
    grid = np.stack(np.meshgrid(*3 * (np.arange(-n, n + 1.0),), indexing="ij"), -1).reshape(-1, 1, 3)
    face = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    lattice = ((grid + face) * edge).reshape(-1, 3)
    near = (lattice**2).sum(1) < (shape.radius_um * 1.15 + edge) ** 2
    lattice = lattice[near]
    turn = _rotation(draws.normals("turn", 4))
    points = lattice @ turn.T
    wave = _unit(draws.normals("long wave", 4, 3)) * 2 * np.pi / (70 + 70 * draws.uniforms("long length", 4, 1))
    phase, push = 2 * np.pi * draws.uniforms("long phase", 4), 2.2 * _unit(draws.normals("long push", 4, 3))
    points = points + np.sin(points @ wave.T + phase) @ push
    jitter = draws.normals("jitter", len(points), 3)
    reach = scale * 2.3 * draws.uniforms("jitter reach", len(points), 1) ** (1 / 3)
    points = points + _unit(jitter) * reach + shape.centre_um
    gone = (draws.uniforms("holes", len(points)) < 0.07) | (shape.depth_um(points) <= scale * 4.5)
    if spec.conditions.filled < 1:
        gone |= _empty(draws, points, spec.conditions.filled)
    crowded = cKDTree(points).query_pairs(scale * _CLOSEST_UM, output_type="ndarray")
    gone[crowded.max(1)] = True
    kept: Floats = points[~gone]
    return kept


def _empty(draws: Draws, points: Floats, filled: float) -> NDArray[np.bool_]:
    """Where nothing grows in a loose culture: islands of cells are left, and single ones."""
    waves = _unit(draws.normals("islands", 6, 3)) * 2 * np.pi / (40 + 80 * draws.uniforms("islands length", 6, 1))
    height = np.sin(points @ waves.T + 2 * np.pi * draws.uniforms("islands phase", 6)).sum(1)
    height += 0.8 * draws.normals("single cells", len(points))
    return np.asarray(height > np.quantile(height, filled)) if len(points) else np.zeros(0, bool)


def _unit(vectors: Floats) -> Floats:
    """Vectors (n, 3) at length 1."""
    return np.asarray(vectors / np.sqrt((vectors**2).sum(1, keepdims=True)))


def _states(spec: WellSpec, points: Floats, depth: Floats) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Each cell's state, and whether a dead one is late (its nucleus condensed)."""
    draws, n = spec.draws, len(points)
    core = (depth > spec.rim_um) & (draws.uniforms("core", n) < 0.92) if spec.necrotic else np.zeros(n, bool)
    rank = np.empty(n)
    rank[np.argsort(depth, kind="stable")] = np.arange(n) / max(n, 1)
    chance = draws.uniforms("fate", n)
    patch = np.sin(points @ (draws.normals("patch", 3, 3) * 0.05).T + draws.uniforms("patch phase", 3) * 6.28).sum(1)
    place = {DrugMode.RIM_IN: rank, DrugMode.CORE_OUT: 1 - rank}.get(spec.mode)
    score = chance + 0.03 * patch if place is None else 0.45 * chance + 0.55 * place + 0.03 * patch
    state = np.full(n, CellState.LIVE, np.uint8)
    rest = np.flatnonzero(~core)
    doomed = rest[np.argsort(score[rest], kind="stable")][: round((1 - spec.v_target) * len(rest))]
    state[doomed] = CellState.DEAD
    state[core] = CellState.DEAD
    # The cells that died last still hold some calcein.
    n_double = min(round(spec.double_positive * n), len(doomed) // 2)
    state[doomed[len(doomed) - n_double :]] = CellState.DOUBLE_POSITIVE
    state[draws.uniforms("double negative cells", n) < spec.double_negative] = CellState.DOUBLE_NEGATIVE
    late = (draws.uniforms("late", n) < 0.35 + 0.3 * (1 - spec.v_target)) | core
    return state, late


def _bodies(spec: WellSpec, points: Floats, depth: Floats, state: NDArray[np.uint8], late: NDArray[np.bool_]) -> Cells:
    draws, n, here = spec.draws, len(points), spec.conditions
    scale = here.cell_um / TYPICAL_CELL_UM
    if here.size_spread is None:
        radius = np.clip(6.3 + 0.45 * draws.normals("radius", n), 5.5, 7.0) * scale
    else:
        radius = 6.3 * scale * np.exp(here.size_spread * np.clip(draws.normals("radius", n), -2, 2))
    dead = state == CellState.DEAD
    radius = np.where(dead, radius * 0.93, radius)
    least, more = here.nucleus_share
    nucleus = radius * (least + more * draws.uniforms("nucleus size", n)) ** (1 / 3)
    nucleus = np.where(late & dead, 0.75 * nucleus, nucleus)
    toward = draws.normals("nucleus place", n, 3) * 0.45 * scale
    calcein = np.exp(here.cell_spread[0] * draws.normals("calcein cells", n))
    fade = np.select([state == CellState.LIVE, state == CellState.DOUBLE_POSITIVE], [1.0, 0.35], 0.02)
    pi = np.exp(here.cell_spread[1] * draws.normals("pi cells", n)) * np.where(late, 1.35, 1.0)
    glow = np.select([dead, state == CellState.DOUBLE_POSITIVE], [1.0, 0.6], 0.004)
    if here.ghosts > 0:
        ghost = dead & (draws.uniforms("ghosts", n) < here.ghosts)
        glow = np.where(ghost, 0.1 + 0.2 * draws.uniforms("ghost light", n), glow)
    return Cells(
        ids=np.arange(1, n + 1, dtype=np.uint32),
        centre_um=points,
        radius_um=radius,
        stretch=_stretches(draws, n),
        nucleus_um=toward,
        nucleus_radius_um=nucleus,
        state=state,
        depth_um=depth,
        calcein=np.clip(calcein, 0.3, 3.0) * fade,
        pi=np.clip(pi, 0.3, 3.0) * glow,
    )


def _stretches(draws: Draws, n: int) -> Floats:
    """Metrics (n, 3, 3) of ellipsoids with axes of about 0.8 to 1.25 and the volume of the sphere."""
    log_axes = 0.11 * draws.normals("stretch", n, 3)
    axes = np.exp(log_axes - log_axes.mean(1, keepdims=True))
    turn = _rotation(draws.normals("stretch turn", n, 4))
    metric: Floats = np.einsum("nij,nj,nkj->nik", turn, 1 / axes**2, turn)
    return metric


def _rotation(quaternion: Floats) -> Floats:
    """Rotation matrices (..., 3, 3) from quaternions (..., 4) of any length; normal components turn evenly."""
    w, x, y, z = np.moveaxis(quaternion / np.sqrt((quaternion**2).sum(-1, keepdims=True)), -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, -1) for row in rows], -2)


def _shed(
    spec: WellSpec, shape: Shape, points: Floats, depth: Floats, state: NDArray[np.uint8]
) -> tuple[Floats, Floats]:
    """Move dead cells of the rim to the bottom of the well around the spheroid."""
    draws = spec.draws
    chance = draws.uniforms("shed", len(points))
    gone = np.flatnonzero((state == CellState.DEAD) & (depth < 25) & (chance < 0.5))
    angle = 2 * np.pi * draws.uniforms("shed angle", len(gone))
    out = shape.radius_um * (0.45 + 0.75 * draws.uniforms("shed out", len(gone)))
    height = (
        shape.height_um - np.sqrt(np.maximum(shape.radius_um**2 - out**2, 0)) - 9 * draws.uniforms("fall", len(gone))
    )
    points, depth = points.copy(), depth.copy()
    place = np.stack([np.where(out < shape.radius_um, height, 5.0), out * np.sin(angle), out * np.cos(angle)], 1)
    points[gone] = place
    # What still touches the spheroid from inside is pushed out along the ray from its centre.
    inside = shape.depth_um(points[gone]) > -8
    ray = _unit(points[gone] - shape.centre_um)
    clear = shape.surface_um(ray) + 8 + 35 * draws.uniforms("shed clear", len(gone)) ** 2
    moved = shape.centre_um + ray * clear[:, None]
    points[gone] = np.where(inside[:, None], moved, points[gone])
    depth[gone] = 0.0
    return points, depth


def _with_debris(spec: WellSpec, shape: Shape, cells: Cells) -> Cells:
    """Add crumbs of dead cells in a layer under and around the spheroid."""
    draws = spec.draws
    n = round(spec.effect * 0.0012 * np.pi * shape.radius_um**2 * 12)
    if n == 0:
        return cells
    ray = draws.normals("debris ray", n, 3)
    ray[:, 0] = -np.abs(ray[:, 0])
    ray = _unit(ray)
    points = shape.centre_um + ray * (shape.surface_um(ray) + 3 + 15 * draws.uniforms("debris out", n))[:, None]
    size = 0.8 + 1.6 * draws.uniforms("debris size", n)
    crumbs = Cells(
        ids=np.arange(len(cells) + 1, len(cells) + n + 1, dtype=np.uint32),
        centre_um=points,
        radius_um=size,
        stretch=_stretches(Draws.of(draws.scope, "debris"), n),
        nucleus_um=np.zeros((n, 3)),
        nucleus_radius_um=0.8 * size,
        state=np.full(n, CellState.DEBRIS, np.uint8),
        depth_um=np.zeros(n),
        calcein=0.25 * draws.uniforms("debris calcein", n) ** 3,
        pi=0.7 * draws.uniforms("debris pi", n) ** 2,
    )
    return _together(cells, crumbs)


def _with_crumbs(spec: WellSpec, cells: Cells) -> Cells:
    """Add debris between the cells of a spheroid: some of it takes calcein, too."""
    draws = Draws.of(spec.draws.scope, "crumbs inside")
    dead = np.flatnonzero(cells.state == CellState.DEAD)
    n = round(spec.conditions.crumbs_inside * len(dead))
    if n == 0:
        return cells
    by = dead[(draws.uniforms("beside", n) * len(dead)).astype(np.int64)]
    away = _unit(draws.normals("ray", n, 3)) * cells.radius_um[by, None] * (0.6 + 0.6 * draws.uniforms("out", n, 1))
    size = 0.6 + 1.9 * draws.uniforms("size", n)
    crumbs = Cells(
        ids=np.arange(cells.ids.max() + 1, cells.ids.max() + n + 1, dtype=np.uint32),
        centre_um=cells.centre_um[by] + away,
        radius_um=size,
        stretch=_stretches(draws, n),
        nucleus_um=np.zeros((n, 3)),
        nucleus_radius_um=0.8 * size,
        state=np.full(n, CellState.DEBRIS, np.uint8),
        depth_um=cells.depth_um[by],
        calcein=0.6 * draws.uniforms("calcein", n) ** 2,
        pi=draws.uniforms("pi", n) ** 2,
    )
    return _together(cells, crumbs)


def _broken_up(spec: WellSpec, cells: Cells) -> tuple[Cells, Cells]:
    """The cells with the first piece of each broken nucleus in its place, and the other pieces."""
    draws, share = Draws.of(spec.draws.scope, "pieces"), spec.conditions.fragmented
    broken = np.flatnonzero((cells.state == CellState.DEAD) & (draws.uniforms("which", len(cells)) < share))
    if len(broken) == 0:
        return cells, cells.take(np.zeros(len(cells), bool))
    scale = spec.conditions.cell_um / TYPICAL_CELL_UM
    more = (1 + 7 * draws.uniforms("how many", len(broken))).astype(np.int64)
    of = np.repeat(broken, more)
    largest = np.minimum(4.0 * scale, cells.nucleus_radius_um)
    size = 1.0 + (np.maximum(largest[of], 1.0) - 1.0) * draws.uniforms("size", len(of))
    room = np.maximum(cells.radius_um[of] - size, 0)[:, None]
    away = _unit(draws.normals("ray", len(of), 3)) * room * (0.4 + 0.6 * draws.uniforms("out", len(of), 1))
    pieces = Cells(
        ids=cells.ids[of],
        centre_um=cells.centre_um[of] + away,
        radius_um=size,
        stretch=np.broadcast_to(np.eye(3), (len(of), 3, 3)).copy(),
        nucleus_um=np.zeros((len(of), 3)),
        nucleus_radius_um=0.95 * size,
        state=cells.state[of],
        depth_um=cells.depth_um[of],
        calcein=cells.calcein[of],
        pi=cells.pi[of],
    )
    radius = cells.nucleus_radius_um.copy()
    radius[broken] = 1.0 + (np.maximum(largest[broken], 1.0) - 1.0) * draws.uniforms("first", len(broken))
    return replace(cells, nucleus_radius_um=radius), pieces


def _together(cells: Cells, more: Cells) -> Cells:
    return Cells(*(np.concatenate([getattr(cells, name), getattr(more, name)]) for name in Cells.__slots__))
