"""Micro-Manager's core with the emulator for a camera: everything real but the light.

The stages, the engine, the shutter and the timing are the core's own; a picture shows what the emulated plate has
where the stages really stand, in the channel that is really set. Only the composing layer may know both sides.
"""

from collections.abc import Iterable
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from spheroidd.acquisition.micromanager import MicroManagerSource
from spheroidd.acquisition.micromanager_settings import MicroManagerSettings
from spheroidd.daemon.clock import SystemClock
from spheroidd.protocols.plate import PlateMap, PlateWell, Treatment
from spheroidd.protocols.ports import Clock
from spheroidd.protocols.stack import Pixels
from spheroidd.protocols.well import WellId
from spheroidd.sim_emulator.scene import Scene
from spheroidd.sim_emulator.source import EmulatorSettings, EmulatorSource

DARK_ADU = 100


class EmulatedCamera(BaseModel):
    """Which emulated plate lies under the microscope; the stack's geometry is the microscope's own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    preset: Literal["unit", "demo", "screen", "whole"] = "unit"
    seed: int = Field(default=0, ge=0)


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
    CameraOverPlate(settings, emulated_plate(settings, camera, plate_map), core).attach()


class CameraOverPlate:
    """Renders what the stages stand over; a dark frame where that is no slice of a well."""

    def __init__(self, settings: MicroManagerSettings, plate: EmulatorSource, core: Any) -> None:
        self._settings, self._plate, self._core = settings, plate, core
        self._scene: tuple[tuple[WellId, int], Scene] | None = None
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
        z = round((z_um - s.z_start_um) / s.z_step_um)
        site = s.site_at(float(core.get_x_position()), float(core.get_y_position()))
        preset = core.get_current_config(s.channel_group)
        channel = next((name for name, lit in s.channels.items() if lit.preset == preset), None)
        on_slice = 0 <= z < s.n_z and abs(s.z_um(z) - z_um) <= s.z_tolerance_um
        wells = {entry.well for entry in self._plate.plate_map}
        if site is None or channel is None or not on_slice or site[0] not in wells:
            return np.full((s.height, s.width), DARK_ADU, s.dtype)
        if self._scene is None or self._scene[0] != site:
            self._scene = site, self._plate.scene(*site)
        return self._scene[1].image(channel, z)
