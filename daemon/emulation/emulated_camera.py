"""Micro-Manager's core with the emulator for a camera: everything real but the light.

The stages, the engine, the shutter and the timing are the core's own; a picture shows what the emulated plate has
where the stages really stand, in the channel that is really set. Only the composing layer may know both sides.
"""

import math
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from spheroidd.acquisition.sources.micromanager.settings import MicroManagerSettings
from spheroidd.acquisition.sources.micromanager.source import MicroManagerSource
from spheroidd.daemon.system.clock import SystemClock
from spheroidd.protocols.pixels import Pixels
from spheroidd.protocols.plate import PlateMap, PlateWell, Treatment
from spheroidd.protocols.ports import Clock
from spheroidd.protocols.well import WellId
from spheroidd.sim_emulator.scene import Scene
from spheroidd.sim_emulator.source import EmulatorSettings, EmulatorSource

DARK_ADU = 100
MAX_UNEVEN_UM = 50.0
BEYOND_UM = 100.0  # what can be seen below and above the stack: a plate that lies as far off is not found


class EmulatedCamera(BaseModel):
    """Which emulated plate lies under the microscope; the stack's geometry is the microscope's own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    preset: Literal["unit", "demo", "screen", "whole"] = "unit"
    seed: int = Field(default=0, ge=0)
    tilt_um: tuple[float, float] | None = None
    """How much higher each next column, and each next row, of the plate lies. With it, even (0, 0), what lies below and
    above the stack can be seen too, so that a focus can be looked for; the picture is that of the nearest slice."""
    uneven_um: float = Field(default=0.0, ge=0, le=MAX_UNEVEN_UM, allow_inf_nan=False)
    """How far single wells lie above or below that plane, at most."""

    def lift_um(self, well: WellId) -> float:
        """How much higher a well lies than a level plate would have it."""
        column_um, row_um = self.tilt_um or (0.0, 0.0)
        drawn = np.random.default_rng((self.seed, well.row, well.column)).uniform(-1, 1)
        return float(column_um * well.column + row_um * well.row + self.uneven_um * drawn)


class MicroManagerRunSettings(MicroManagerSettings):
    """Image a plate with a microscope that Micro-Manager drives, or try that out with an emulated camera."""

    emulated_camera: EmulatedCamera | None = None
    """The emulator in place of the camera's pictures: to learn and to test; leave it out for a real plate."""


class MicroManagerRun(MicroManagerSource):
    """The `micromanager` source as a run composes it."""

    Settings: ClassVar[type[MicroManagerSettings]] = MicroManagerRunSettings

    def __init__(
        self, settings: MicroManagerRunSettings, plate_map: PlateMap | None, plate_name: str, clock: Clock
    ) -> None:
        attach = None
        if settings.emulated_camera is not None and plate_map is not None:
            wells = tuple((entry.well, entry.treatment) for entry in plate_map)  # a plate map cannot be pickled
            attach = partial(attach_camera, settings, settings.emulated_camera, plate_map.name, wells)
        super().__init__(settings, plate_map, plate_name, clock, attach=attach)


def emulated_plate(settings: MicroManagerSettings, camera: EmulatedCamera, plate_map: PlateMap) -> EmulatorSource:
    """The plate under the microscope, as a source of its own: what the microscope's frames must equal."""
    geometry = {name: getattr(settings, name) for name in ("n_z", "height", "width", "pixel_um", "z_step_um")}
    emulated = EmulatorSettings(preset=camera.preset, seed=camera.seed, pace="fast", **geometry)
    return EmulatorSource(emulated, plate_map, plate_map.name, SystemClock())


def attach_camera(
    settings: MicroManagerSettings,
    camera: EmulatedCamera,
    plate_name: str,
    wells: Iterable[tuple[WellId, Treatment]],
    core: Any,
) -> None:
    """Put the emulator behind the core's camera, in snapshots and in hardware sequences."""
    plate_map = PlateMap(plate_name, tuple(PlateWell(well, treatment) for well, treatment in wells))
    CameraOverPlate(settings, emulated_plate(settings, camera, plate_map), core, camera).attach()


class CameraOverPlate:
    """Renders what the stages stand over; a dark frame where that is no slice of a well."""

    def __init__(
        self, settings: MicroManagerSettings, plate: EmulatorSource, core: Any, camera: EmulatedCamera | None = None
    ) -> None:
        self._settings, self._plate, self._core = settings, plate, core
        self._camera = camera or EmulatedCamera()
        self._scene: tuple[tuple[WellId, int], Scene] | None = None
        self._around: tuple[tuple[WellId, int], Scene] | None = None
        self._sequence_um: list[float] = []

    def attach(self) -> None:
        """Replace what the engine takes images from."""
        core = self._core
        load_sequence, pop_image = core.load_stage_sequence, core.pop_next_tagged_image

        def loaded(stage: str, positions_um: Any) -> None:
            self._sequence_um = [float(z_um) for z_um in positions_um]
            load_sequence(stage, positions_um)

        def popped() -> Any:
            image = pop_image()
            image.pix = self._render(self._sequence_um[int(image.tags["ImageNumber"])])
            return image

        core.get_image = lambda *_: self._render(float(core.get_position()))
        core.load_stage_sequence, core.pop_next_tagged_image = loaded, popped

    def _render(self, z_um: float) -> Pixels:
        s, core = self._settings, self._core
        site = s.site_at(float(core.get_x_position()), float(core.get_y_position()))
        preset = core.get_current_config(s.channel_group)
        channel = next((name for name, lit in s.channels.items() if lit.preset == preset), None)
        wells = {entry.well for entry in self._plate.plate_map}
        if site is None or channel is None or site[0] not in wells:
            return self._dark()
        below_um = z_um - self._camera.lift_um(site[0])
        z = round((below_um - s.z_start_um) / s.z_step_um)
        if self._camera.tilt_um is not None:
            return self._at_any_depth(site, channel, z)
        if not (0 <= z < s.n_z and abs(s.z_um(z) - below_um) <= s.z_tolerance_um):
            return self._dark()
        return self._stack(site).image(channel, z)

    def _at_any_depth(self, site: tuple[WellId, int], channel: str, z: int) -> Pixels:
        """Slice z of the stack, or of what lies around it: below 0 or above the last."""
        if 0 <= z < self._settings.n_z:
            return self._stack(site).image(channel, z)
        preset, beyond = self._plate.preset, math.ceil(BEYOND_UM / self._settings.z_step_um)
        if not -beyond <= z < preset.n_z + beyond:
            return self._dark()
        if self._around is None or self._around[0] != site:
            low_um = preset.field_z_um - beyond * preset.z_step_um
            field = replace(preset, field_z_um=low_um, n_z=preset.n_z + 2 * beyond)
            self._around = site, Scene.of(self._plate.spec(site[0]), field, stack=site[1])
        return self._around[1].image(channel, z + beyond)

    def _stack(self, site: tuple[WellId, int]) -> Scene:
        if self._scene is None or self._scene[0] != site:
            self._scene = site, self._plate.scene(*site)
        return self._scene[1]

    def _dark(self) -> Pixels:
        return np.full((self._settings.height, self._settings.width), DARK_ADU, self._settings.dtype)
