"""From cells to light on the camera: dyes that do not reach the middle, light lost on the way, blur, haze, bleeding.

All intensities are camera counts above the offset until `Optics.expected` divides by the gain. Channel 0 is 488 nm
(calcein), channel 1 is 561 nm (propidium iodide).
"""

import math
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from spheroidd.sim_emulator.camera import GAIN_ADU_PER_E
from spheroidd.sim_emulator.draws import Draws, Floats
from spheroidd.sim_emulator.phantom import Cells, CellState, Phantom, Shape
from spheroidd.sim_emulator.plate import WellSpec
from spheroidd.sim_emulator.presets import Preset
from spheroidd.sim_emulator.raster import F32, compiled
from spheroidd.sim_emulator.realism import Conditions

NUCLEUS_CALCEIN = 0.7  # the nucleus is so bright in calcein, relative to the body
BODY_PI = 0.05  # the dead cell's body in PI (RNA), relative to its nucleus
AUTO_561 = 0.4  # autofluorescence in 561, relative to 488
RED_REACH = 1.15  # 561 nm light reaches so much deeper
_Share = TypeVar("_Share", float, Floats)
HAZE_GRID_UM, HAZE_MARGIN_UM = 4.0, 40.0
HALO_UM = 40.0  # sigma of what is scattered far around
WIDEST_UM, WIDEST = 100.0, 3.0  # below this depth, or this many times as wide, focus gets no wider


def emission(spec: WellSpec, cells: Cells) -> Floats:
    """What each cell emits (n, 4): body 488, nucleus 488, body 561, nucleus 561, in counts at full light."""
    below = np.maximum(cells.depth_um, 0)
    calcein = spec.calcein_adu * cells.calcein * np.exp(-below / spec.calcein_lp_um)
    pi = spec.pi_adu * cells.pi * np.exp(-below / spec.pi_lp_um)
    auto = spec.autofluorescence * spec.calcein_adu
    green = np.stack([calcein, NUCLEUS_CALCEIN * calcein], 1)
    own = spec.red_drug * spec.pi_adu * np.exp(-below / spec.pi_lp_um) * (cells.state != CellState.DEBRIS)
    red = np.stack([BODY_PI * pi, pi + own], 1)
    glow = np.array([auto, 0.6 * auto])
    return np.concatenate([green + spec.bleed_pi * red + glow, red + spec.bleed_calcein * green + AUTO_561 * glow], 1)


@dataclass(frozen=True, slots=True)
class Drift:
    """The stage creeps while the stack is taken: a straight line with a small wobble, micrometres."""

    creep_um: tuple[float, float]
    wobble_um: float
    phase: float

    @classmethod
    def drawn(cls, draws: Draws, scale: float = 1.0) -> "Drift":
        """Up to 0.6 um, times `scale`, over a stack, along y and x."""
        creep = scale * draws.uniform("creep y", -0.6, 0.6), scale * draws.uniform("creep x", -0.6, 0.6)
        return cls(creep, draws.uniform("wobble", 0.0, 0.1), draws.uniform("wobble phase", 0, 2 * math.pi))

    def at(self, share: _Share) -> tuple[_Share, _Share]:
        """Where the field has moved (y, x) after that share of the stack; a number or an array."""
        wave = self.wobble_um * np.sin(9 * share + self.phase)
        return self.creep_um[0] * share + wave, self.creep_um[1] * share - wave


@dataclass(frozen=True, slots=True)
class Sight:
    """How light fades below the spheroid's surface in one channel: min(1, rising * exp(-z/length)), not below floor."""

    rising: F32  # (y, x): exp(surface height / length)
    floor: F32  # (y, x): what is left above the spheroid
    length_um: float

    @classmethod
    def through(cls, low_um: Floats, chord_um: Floats, length_um: float) -> "Sight":
        """Straight up through a spheroid that each pixel's ray enters at `low_um` and leaves `chord_um` above."""
        rising, floor = np.exp(low_um / length_um), np.exp(-chord_um / length_um)
        return cls(rising.astype(np.float32), floor.astype(np.float32), length_um)

    def at_points(self, shape: Shape, points: Floats) -> Floats:
        """The share of light that is left at points (n, 3)."""
        low, chord = _entry_um(shape, points[:, 1], points[:, 2])
        left: Floats = np.exp(-np.clip(points[:, 0] - low, 0, chord) / self.length_um)
        return left


def _entry_um(shape: Shape, y_um: Floats, x_um: Floats) -> tuple[Floats, Floats]:
    """Where a vertical ray enters the spheroid, and how long it stays inside (0 beside it)."""
    radius = shape.radius_um
    out = y_um**2 + x_um**2
    half = np.sqrt(np.maximum(radius**2 - out, 0))
    around = shape.surface_um(np.stack([-half, y_um, x_um], -1))
    half = np.sqrt(np.maximum(around**2 - out, 0))
    return shape.height_um - half, 2 * half


@dataclass(frozen=True, slots=True)
class Haze:
    """Light from out of focus on a coarse grid (channel, z, y, x), counts."""

    grid: F32
    origin_um: Floats

    @classmethod
    def of(
        cls, phantom: Phantom, shine: Floats, sights: tuple[Sight, Sight], low_um: Floats, high_um: Floats
    ) -> "Haze":
        """Blur every cell near the box over tens of micrometres."""
        half, here = np.float32(phantom.spec.haze / 2), phantom.spec.conditions
        origin, top = low_um - HAZE_MARGIN_UM, high_um + HAZE_MARGIN_UM
        shape = tuple(int(n) for n in np.ceil((top - origin) / HAZE_GRID_UM).astype(int) + 2)
        near = phantom.painted.within(origin, top)
        cells, shine = phantom.painted.take(near), shine[near]
        volume = 4 / 3 * np.pi * np.stack([0.7 * cells.radius_um**3, cells.nucleus_radius_um**3], 1)
        volume[:, 0] = np.maximum(volume[:, 0] - volume[:, 1], 0.3 * volume[:, 0])
        grid = np.zeros((2, *shape), np.float32)
        place = (cells.centre_um - origin) / HAZE_GRID_UM
        for channel in range(2):
            light = sights[channel].at_points(phantom.shape, cells.centre_um)
            total = (shine[:, 2 * channel : 2 * channel + 2] * volume).sum(1) * light / HAZE_GRID_UM**3
            sharp = _splat(place, total, shape)
            for blur_um in here.blurs_um:
                grid[channel] += half * _blurred(sharp, blur_um)
            if here.scatters:
                away = _scattered(here, phantom.shape, cells.centre_um, total)
                for amount, blur_um in zip(away, (*here.blurs_um, (HALO_UM, HALO_UM)), strict=True):
                    grid[channel] += _blurred(_splat(place, amount, shape), blur_um)
        return cls(grid, origin)

    def plane(self, channel: int, z_um: float) -> F32:
        """The coarse plane (y, x) at that height."""
        at = min(max((z_um - self.origin_um[0]) / HAZE_GRID_UM, 0.0), self.grid.shape[1] - 1.001)
        low = int(at)
        share = np.float32(at - low)
        mixed: F32 = self.grid[channel, low] * (1 - share) + self.grid[channel, low + 1] * share
        return mixed


def _scattered(here: Conditions, shape: Shape, centre_um: Floats, light: Floats) -> tuple[Floats, Floats, Floats]:
    """What leaves focus of each cell's light (n,): into the narrow blur, into the wide one, and far around.

    The deeper a cell lies, the more of it goes into the wide blur. Nothing is lost.
    """
    ballistic = Sight.through(np.zeros(1), np.zeros(1), here.ballistic_um).at_points(shape, centre_um)
    away = light * (1 - (1 - here.hazy) * ballistic)
    near = 0.25 + 0.5 * ballistic
    return (1 - here.halo) * near * away, (1 - here.halo) * (1 - near) * away, here.halo * away


def _blurred(sharp: Floats, blur_um: tuple[float, float]) -> F32:
    z_um, xy_um = blur_um
    sigma = tuple(s / HAZE_GRID_UM for s in (z_um, xy_um, xy_um))
    return np.asarray(gaussian_filter(sharp, sigma, truncate=3), np.float32)


def _splat(place: Floats, amount: Floats, shape: tuple[int, ...]) -> Floats:
    """Spread amounts at fractional grid places over the eight nearest grid points."""
    low = np.floor(place).astype(np.int64)
    share = place - low
    grid = np.zeros(int(np.prod(shape)))
    for corner in range(8):
        step = np.array([corner >> 2, (corner >> 1) & 1, corner & 1])
        weight = np.where(step == 1, share, 1 - share).prod(1) * amount
        index = np.ravel_multi_index(tuple((low + step).T), shape)
        grid += np.bincount(index, weight, len(grid))
    return grid.reshape(shape)


@dataclass(frozen=True, slots=True)
class Widening:
    """How focus gets wider below tissue: a second, wider blur is mixed in, the more the deeper a pixel lies."""

    low_um: Floats
    chord_um: Floats
    length_um: float
    widest: float
    weights: F32
    taps: tuple[F32, F32]

    def share(self, z_um: float) -> F32:
        """How much of the wide blur there is (y, x) at that height, so that variances add up."""
        deep = np.clip(z_um - self.low_um, 0, self.chord_um)
        wide = np.minimum(1 + deep / self.length_um, self.widest)
        return np.asarray((wide**2 - 1) / (self.widest**2 - 1), np.float32)


@dataclass(slots=True)
class Optics:
    """One field of one well: turns sharp planes into expected photoelectrons.

    `sharp` planes are given as a ring of `2 * reach + 1` planes (slot, channel, y, x).
    """

    preset: Preset
    spec: WellSpec
    sights: tuple[Sight, Sight]
    haze: Haze
    widening: Widening | None
    shade: F32 | None  # of the light (y, x), where the field is not lit evenly
    y_um: Floats
    x_um: Floats
    _shape: Shape
    reach: int
    weights: F32
    _taps: tuple[F32, F32]
    _rough: F32
    _blurred: F32
    _row: F32

    @classmethod
    def of(cls, phantom: Phantom, shine: Floats, preset: Preset, y_um: Floats, x_um: Floats) -> "Optics":
        """The optics over pixels at y_um (height,) and x_um (width,)."""
        spec = phantom.spec
        yy, xx = np.meshgrid(y_um, x_um, indexing="ij")
        entry = _entry_um(phantom.shape, yy, xx)
        here = spec.conditions
        lengths = spec.light_um, RED_REACH * spec.light_um
        lit = Sight.through(*entry, lengths[0]), Sight.through(*entry, lengths[1])
        both_ways = [_both(length, here.ballistic_um) for length in lengths]
        sights = Sight.through(*entry, both_ways[0]), Sight.through(*entry, both_ways[1])
        low = np.array([preset.field_z_um, y_um[0], x_um[0]])
        haze = Haze.of(phantom, shine, lit, low, low + np.array(preset.extent_um))
        weights, taps = _lens(preset, 1.0)
        widening = _widening(here, preset, entry)
        if widening is not None:
            weights = np.pad(weights, (len(widening.weights) - len(weights)) // 2)
        rough, blurred = np.empty((2, preset.height, preset.width), np.float32)
        longest = max(len(t) for t in (*taps, *(widening.taps if widening else ())))
        row = np.empty(preset.width + 2 * longest, np.float32)
        shade, reach = _shade(spec, preset), len(weights) // 2
        return cls(
            preset,
            spec,
            sights,
            haze,
            widening,
            shade,
            y_um,
            x_um,
            phantom.shape,
            reach,
            weights,
            taps,
            rough,
            blurred,
            row,
        )

    def expected(self, ring: F32, slots: NDArray[np.int64], channel: int, z: int, out: F32) -> None:
        """Expected photoelectrons (y, x) of slice z; `slots` lists the ring's planes from z - reach to z + reach."""
        _focus(ring, slots, self.weights, channel, self._taps[channel], self._rough, self._row, self._blurred)
        if self.widening is not None:
            wide = np.empty_like(self._blurred)
            _focus(
                ring, slots, self.widening.weights, channel, self.widening.taps[channel], self._rough, self._row, wide
            )
            self._blurred += self.widening.share(self._z_um(z)) * (wide - self._blurred)
        self.seen(self._blurred, channel, z, 1.0, out)

    def in_focus(self, ring: F32, slots: NDArray[np.int64], channel: int) -> F32:
        """A slice (y, x) as it is before the lens blurs it along y and x."""
        out = np.empty_like(self._blurred)
        _focus(ring, slots, self.weights, channel, np.ones(1, np.float32), self._rough, self._row, out)
        return out

    def taps(self, channel: int) -> F32:
        """The lens's blur along y and x."""
        return self._taps[channel]

    def seen(self, blurred: F32, channel: int, z: int, share: float, out: F32) -> None:
        """Expected photoelectrons (y, x) of what is in focus, with haze and background, times a share of the light."""
        z_um, hazy = self._z_um(z), self.spec.conditions.hazy
        if hazy > 0:
            blurred = blurred * np.float32(1 - hazy)
        sight = self.sights[channel]
        haze = self.haze.plane(channel, z_um)
        rows = (self.y_um - self.haze.origin_um[1]) / HAZE_GRID_UM
        columns = (self.x_um - self.haze.origin_um[2]) / HAZE_GRID_UM
        bleached = (1 - self.spec.bleaching) ** (z / self.preset.n_z)
        background = self.spec.background_adu * (1.0, 0.7)[channel]
        _gather(
            blurred,
            sight.rising,
            sight.floor,
            np.float32(math.exp(-z_um / sight.length_um)),
            haze,
            rows.astype(np.float32),
            columns.astype(np.float32),
            np.float32(background),
            np.float32(share * bleached / GAIN_ADU_PER_E),
            out,
        )
        if self.shade is not None:
            out *= self.shade

    def known(self, z: int) -> NDArray[np.bool_]:
        """Where (y, x) less tissue lies below a slice than cells can be told apart through."""
        yy, xx = np.meshgrid(self.y_um, self.x_um, indexing="ij")
        low, chord = _entry_um(self._shape, yy, xx)
        return np.asarray(np.clip(self._z_um(z) - low, 0, chord) <= self.spec.conditions.known_um)

    def _z_um(self, z: int) -> float:
        return self.preset.field_z_um + z * self.preset.z_step_um


def _both(light_um: float, ballistic_um: float) -> float:
    """The length after which light that fades on its way in, and leaves focus on its way out, is down to 1/e."""
    return light_um if math.isinf(ballistic_um) else 1 / (1 / light_um + 1 / ballistic_um)


def _lens(preset: Preset, wide: float) -> tuple[F32, tuple[F32, F32]]:
    """The weights of the blur along z, and of both channels' along y and x."""
    green, red = (gaussian_taps(wide * grow * preset.sigma_xy_um / preset.pixel_um) for grow in (1.0, RED_REACH))
    return gaussian_taps(wide * preset.sigma_z_um / preset.z_step_um), (green, red)


def _widening(here: Conditions, preset: Preset, entry: tuple[Floats, Floats]) -> Widening | None:
    if math.isinf(here.widening_um):
        return None
    widest = min(1 + WIDEST_UM / here.widening_um, WIDEST)
    return Widening(*entry, here.widening_um, widest, *_lens(preset, widest))


def _shade(spec: WellSpec, preset: Preset) -> F32 | None:
    """How the field is lit (y, x): brighter towards one side, and with the shadows that a light sheet throws."""
    here = spec.conditions
    if here.uneven == 0 and here.stripes == 0:
        return None
    draws = Draws.of(spec.seed, "light", here.uneven, here.stripes)
    y, x = np.meshgrid(np.linspace(-0.5, 0.5, preset.height), np.linspace(-0.5, 0.5, preset.width), indexing="ij")
    toward = draws.uniform("towards", 0, 2 * math.pi)
    light = 1 + here.uneven * (y * math.sin(toward) + x * math.cos(toward))
    for number in range(4):
        place, width = draws.uniform(f"stripe {number}", -0.5, 0.5), draws.log_uniform(f"width {number}", 0.01, 0.1)
        light *= 1 - here.stripes * draws.uniform(f"shadow {number}") * np.exp(-(((y - place) / width) ** 2))
    return np.asarray(light, np.float32)


def gaussian_taps(sigma: float) -> F32:
    """Weights of a Gaussian over whole steps, to 2.5 sigma, with sum 1."""
    reach = math.ceil(2.5 * sigma) if sigma > 0.2 else 0
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / max(sigma, 1e-6)) ** 2)
    return np.asarray(weights / weights.sum(), np.float32)


@compiled
def _focus(
    ring: F32, slots: NDArray[np.int64], weights: F32, channel: int, taps: F32, rough: F32, row: F32, out: F32
) -> None:
    """Blur along z (over the ring), then along y, then along x; edges are repeated."""
    height, width = out.shape
    half = len(taps) // 2
    for j in range(height):
        for i in range(width):
            rough[j, i] = 0
        for s in range(len(slots)):
            weight, plane = weights[s], slots[s]
            for i in range(width):
                rough[j, i] += weight * ring[plane, channel, j, i]
    for j in range(height):
        for i in range(width):
            row[half + i] = 0
            out[j, i] = 0
        for t in range(len(taps)):
            source = min(max(j + t - half, 0), height - 1)
            tap = taps[t]
            for i in range(width):
                row[half + i] += tap * rough[source, i]
        for i in range(half):
            row[i] = row[half]
            row[half + width + i] = row[half + width - 1]
        for t in range(len(taps)):
            tap = taps[t]
            for i in range(width):
                out[j, i] += tap * row[i + t]


@compiled
def _gather(
    blurred: F32,
    rising: F32,
    floor: F32,
    falling: float,
    haze: F32,
    rows: F32,
    columns: F32,
    background: float,
    scale: float,
    out: F32,
) -> None:
    """Light left at each pixel times what is in focus, plus haze between its grid points, plus the medium's own."""
    height, width = out.shape
    one = np.float32(1)
    for j in range(height):
        top = int(rows[j])
        down = rows[j] - np.float32(top)
        for i in range(width):
            left = int(columns[i])
            across = columns[i] - np.float32(left)
            upper = haze[top, left] * (one - across) + haze[top, left + 1] * across
            lower = haze[top + 1, left] * (one - across) + haze[top + 1, left + 1] * across
            light = max(min(rising[j, i] * falling, one), floor[j, i])
            total = blurred[j, i] * light + upper * (one - down) + lower * down + background
            out[j, i] = total * scale
