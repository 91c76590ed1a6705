"""One field of one well under the microscope: slices and their truth, one at a time, in any order.

Slices are rendered when asked for; memory holds the cells and a ring of sharp planes as deep as the focus, no volume.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spheroidd.sim_emulator.camera import GAIN_ADU_PER_E, READ_NOISE_E, Camera
from spheroidd.sim_emulator.draws import Draws, Floats
from spheroidd.sim_emulator.look import PLAIN, Look
from spheroidd.sim_emulator.optics import Drift, Optics, emission
from spheroidd.sim_emulator.phantom import Cells, CellState, Phantom, count_states, grow, live_fraction
from spheroidd.sim_emulator.plate import WellSpec
from spheroidd.sim_emulator.presets import Preset
from spheroidd.sim_emulator.raster import F32, Canvas, Table, texture
from spheroidd.sim_emulator.truth import CELL_COLUMNS, PlaneTruth, WellTruth

_MARGIN_UM = 10.0  # cells this far outside still reach into the field
_ESTIMATE_VOXELS = 6e5  # for volumes in `well_truth`


@dataclass(slots=True)
class Scene:
    """A well's spheroid in a preset's field. `swapped` puts calcein into 561 and PI into 488."""

    phantom: Phantom
    preset: Preset
    swapped: bool
    drift: Drift
    _canvas: Canvas
    _optics: Optics
    _camera: Camera
    _noise: Draws
    _ring: F32
    _held: NDArray[np.int64]
    _expected: F32

    @classmethod
    def of(cls, spec: WellSpec, preset: Preset, *, stack: int = 0, swapped: bool = False) -> "Scene":
        """Grow the spheroid and set the microscope up over it; `stack` counts the images taken of the well."""
        phantom = grow(spec)
        y_um, x_um = axes(preset)
        painted = phantom.painted
        shine = emission(spec, painted)
        near = _near(painted, preset)
        table = Table.of(painted.take(near), phantom.bend, shine[near])
        grain = texture(Draws.of(spec.seed, "grain"))
        canvas = Canvas.blank(table, phantom.bend, grain, preset.height, preset.width, preset.pixel_um)
        optics = Optics.of(phantom, shine, preset, y_um, x_um)
        depth = 2 * optics.reach + 1
        return cls(
            phantom,
            preset,
            swapped,
            _drift(spec, stack),
            canvas,
            optics,
            Camera.drawn(preset.height, preset.width, Draws.of(spec.seed, "camera")),
            Draws.of(spec.draws.scope, "noise", stack),
            np.empty((depth, 2, preset.height, preset.width), np.float32),
            np.full(depth, np.iinfo(np.int64).min),
            np.empty((preset.height, preset.width), np.float32),
        )

    def expected_e(self, channel: str, z: int) -> F32:
        """Expected photoelectrons (y, x) of one slice, without noise; valid until the next call."""
        self._optics.expected(self._ring, self._painted(z), self.dye(channel), z, self._expected)
        return self._expected

    def dye(self, channel: str) -> int:
        """Which dye a channel shows: 0 calcein, 1 propidium iodide."""
        return int(channel == "561") ^ int(self.swapped)

    def in_focus(self, channel: str, z: int) -> F32:
        """A slice's light (y, x) before the lens blurs it along y and x, and before it is lost on the way."""
        return self._optics.in_focus(self._ring, self._painted(z), self.dye(channel))

    def lens(self, channel: str) -> F32:
        """The weights of the lens's blur in pixels."""
        return self._optics.taps(self.dye(channel))

    def noise_key(self, name: str) -> int:
        """What the noise of the image of that name is drawn from."""
        return self._noise.key(name)

    def _painted(self, z: int) -> NDArray[np.int64]:
        """The ring's places of the sharp planes around a slice, painted where they are not there yet."""
        depth = len(self._held)
        planes = np.arange(z - self._optics.reach, z + self._optics.reach + 1)
        for plane in planes:
            if self._held[plane % depth] != plane:
                self._aim(int(plane))
                self._canvas.paint(self._ring[plane % depth])
                self._held[plane % depth] = plane
        return planes % depth

    def image(self, channel: str, z: int, look: Look = PLAIN) -> NDArray[np.uint16]:
        """One camera image (y, x); the same bytes whenever and in whatever order it is asked for."""
        light = self.expected_e(channel, z)
        if not look.plain:
            light = look.of_light(light, self.preset.pixel_um)
        return self._camera.expose(light, self._noise.key(f"{channel} {z}"))

    def plane_truth(self, z: int) -> PlaneTruth:
        """The true masks and cell numbers (y, x) of one slice."""
        shape = (self.preset.height, self.preset.width)
        live, dead, ids = np.empty(shape, bool), np.empty(shape, bool), np.empty(shape, np.uint32)
        self._aim(z)
        self._canvas.label(live, dead, ids)
        return PlaneTruth(live, dead, ids)

    def known(self, z: int) -> NDArray[np.bool_]:
        """Where (y, x) enough of a slice's light stays in focus for anybody to tell cells apart."""
        return self._optics.known(z)

    def planes_truth(self) -> Iterator[PlaneTruth]:
        """The truth of every slice in turn."""
        return (self.plane_truth(z) for z in range(self.preset.n_z))

    def _aim(self, z: int) -> None:
        preset = self.preset
        move_y, move_x = self.drift.at(z / preset.n_z)
        y_um, x_um = axes(preset)
        self._canvas.aim(preset.field_z_um + z * preset.z_step_um, y_um[0] + move_y, x_um[0] + move_x)

    def cells(self) -> NDArray[np.void]:
        """Every cell whose body can reach into the field, one row each; columns in `truth.CELL_COLUMNS`.

        Positions count from the centre of the stack's first voxel, in micrometres, drift included.
        """
        phantom = self.phantom
        near = _near(phantom.cells, self.preset) & (phantom.cells.state != CellState.DEBRIS)
        cells = phantom.cells.take(near)
        place, in_fov = _in_stack(cells, self.preset, self.drift)
        rows = np.zeros(len(cells), CELL_COLUMNS)
        rows["id"], rows["state"] = cells.ids, cells.state
        rows["z_um"], rows["y_um"], rows["x_um"] = place.T
        rows["body_radius_um"], rows["nucleus_radius_um"] = cells.radius_um, cells.nucleus_radius_um
        rows["depth_um"] = cells.depth_um
        rows["in_fov"] = in_fov
        rows["visible_488"], rows["visible_561"] = self._visible(near).T
        return rows

    def _visible(self, near: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Whether a cell's own light is above twice one pixel's noise in each channel (n, 2)."""
        spec = self.phantom.spec
        cells = self.phantom.cells.take(near)
        below = np.maximum(cells.depth_um, 0)
        own = np.stack(
            [
                spec.calcein_adu * cells.calcein * np.exp(-below / spec.calcein_lp_um),
                spec.pi_adu * cells.pi * np.exp(-below / spec.pi_lp_um),
            ],
            1,
        )
        light = np.stack([s.at_points(self.phantom.shape, cells.centre_um) for s in self._optics.sights], 1)
        signal = own * light / GAIN_ADU_PER_E
        back = (spec.background_adu + spec.autofluorescence * spec.calcein_adu * light) / GAIN_ADU_PER_E
        seen: NDArray[np.bool_] = signal > 2 * np.sqrt(back + READ_NOISE_E**2)
        return seen[:, ::-1] if self.swapped else seen


def well_truth(spec: WellSpec, preset: Preset, stack: int = 0) -> WellTruth:
    """The per-well row of the truth. Counts are exact; the volumes are sampled at about a micrometre (within 1 %)."""
    phantom, drift = grow(spec), _drift(spec, stack)
    _, in_fov = _in_stack(phantom.cells, preset, drift)
    inside = phantom.cells.state[in_fov]
    n_live, n_dead = count_states(inside)
    live_um3, dead_um3 = _volumes(phantom, preset, drift)
    treatment = spec.treatment
    return WellTruth(
        well=str(spec.well),
        role=treatment.role.value,
        compound=treatment.compound,
        dose_um=treatment.dose_um,
        patient=treatment.patient,
        mode=spec.mode.value,
        ic50_um=spec.ic50_um,
        v_true_fov=live_fraction(inside),
        v_true_whole=live_fraction(phantom.cells.state),
        live_um3_true=live_um3,
        dead_um3_true=dead_um3,
        n_live=n_live,
        n_dead=n_dead,
        diameter_um=spec.diameter_um,
        seed=spec.seed,
        known_um=spec.conditions.known_um if spec.conditions.scatters else None,
    )


def _in_stack(cells: Cells, preset: Preset, drift: Drift) -> tuple[Floats, NDArray[np.bool_]]:
    """Where cells are in the stack, from the centre of its first voxel and with its drift, and whether inside it."""
    y_um, x_um = axes(preset)
    place = cells.centre_um - np.array([preset.field_z_um, y_um[0], x_um[0]])
    extent = np.array(preset.extent_um)
    place[:, 1:] -= np.stack(drift.at(np.clip(place[:, 0] / extent[0], 0, 1)), 1)
    low = -0.5 * np.array([preset.z_step_um, preset.pixel_um, preset.pixel_um])
    return place, np.asarray(((place >= low) & (place < low + extent)).all(1))


def _volumes(phantom: Phantom, preset: Preset, drift: Drift) -> tuple[float, float]:
    """Live and dead volume in the field, from a coarse raster."""
    extent = np.array(preset.extent_um)
    pitch = max(0.5, float((extent.prod() / _ESTIMATE_VOXELS) ** (1 / 3)))
    n_z, height, width = (max(1, round(e / pitch)) for e in extent)
    # Pixels are square: the raster's last row and column may pass the field's edge by a part of a pixel.
    y_um, x_um = axes(preset)
    low = np.array([preset.field_z_um, y_um[0], x_um[0]])
    low += -0.5 * np.array([preset.z_step_um, preset.pixel_um, preset.pixel_um]) + [0, pitch / 2, pitch / 2]
    cells = phantom.painted.take(_near(phantom.painted, preset))
    table = Table.of(cells, phantom.bend, np.zeros((len(cells), 4)))
    canvas = Canvas.blank(table, phantom.bend, np.empty((0, 0, 0), np.float32), height, width, pitch)
    live, dead = np.empty((2, height, width), bool)
    ids = np.empty((height, width), np.uint32)
    count = np.zeros(2)
    for z in range(n_z):
        share = (z + 0.5) / n_z
        move_y, move_x = drift.at(share)
        canvas.aim(low[0] + share * extent[0], low[1] + move_y, low[2] + move_x)
        canvas.label(live, dead, ids)
        count += live.sum(), dead.sum()
    volume = count / (n_z * height * width) * extent.prod()
    return float(volume[0]), float(volume[1])


def axes(preset: Preset) -> tuple[Floats, Floats]:
    """The pixels' centres along y and x, before drift."""
    y = preset.field_y_um + (np.arange(preset.height) - (preset.height - 1) / 2) * preset.pixel_um
    x = preset.field_x_um + (np.arange(preset.width) - (preset.width - 1) / 2) * preset.pixel_um
    return np.asarray(y, np.float64), np.asarray(x, np.float64)


def _drift(spec: WellSpec, stack: int) -> Drift:
    return Drift.drawn(Draws.of(spec.draws.scope, "drift", stack), spec.conditions.creep)


def _near(cells: Cells, preset: Preset) -> NDArray[np.bool_]:
    y_um, x_um = axes(preset)
    low = np.array([preset.field_z_um, y_um[0], x_um[0]])
    high = low + np.array(preset.extent_um)
    focus = 2.5 * preset.sigma_z_um + preset.z_step_um
    margin = np.array([_MARGIN_UM + focus, _MARGIN_UM, _MARGIN_UM])
    return cells.within(low - margin, high + margin)
