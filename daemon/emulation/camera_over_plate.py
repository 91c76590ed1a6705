"""What a camera sees from where the core's stages stand: of an emulated plate, or of a recorded one; and its faults."""

import math
import os
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

import numpy as np

from spheroidd.acquisition.sources.micromanager.settings import MicroManagerSettings
from spheroidd.protocols.pixels import Pixels
from spheroidd.protocols.stack import RawIndex, SliceIndex
from spheroidd.protocols.well import WellId
from spheroidd.sim_emulator.faults import Fault, FaultReel, look_of
from spheroidd.sim_emulator.look import PLAIN, Look
from spheroidd.sim_emulator.raw_camera import RawCamera
from spheroidd.sim_emulator.recorded.recording import CameraField, Place, Recording
from spheroidd.sim_emulator.scene import Scene
from spheroidd.sim_emulator.source import EmulatorSource
from spheroidd.sim_emulator.stripes import StripeSettings

Taking = Callable[[SliceIndex, Look], Pixels]
DARK_ADU = 100
BEYOND_UM = 100.0  # what can be seen below and above the stack: a plate that lies as far off is not found
LOST_EXIT = 70
SAME = 1e-6  # of an exposure: a core keeps them as text


class Pose(NamedTuple):
    """Where the stages stand, which channel is lit (None for none), for how long the camera exposes, and how often the
    pattern has stepped since the camera was started.
    """

    x_um: float
    y_um: float
    z_um: float
    channel: str | None
    exposure_ms: float
    step: int = 0


class Tilt(Protocol):
    """How a plate lies under the objective, and what is recorded of it; see `EmulatedCamera`."""

    tilt_um: tuple[float, float] | None
    recorded_exposure_ms: Any

    def lift_um(self, well: WellId) -> float:
        """How much higher a well lies than a level plate would have it."""
        ...


class View(Protocol):
    """What can be seen of a plate."""

    def image(self, pose: Pose, look: Look = PLAIN) -> Pixels:
        """What the camera sees (y, x)."""
        ...

    def slice_at(self, pose: Pose) -> tuple[WellId, SliceIndex] | None:
        """Which slice of which well is planned there; None where none is."""
        ...


class PhantomView:
    """The emulated plate; a dark frame where the stages stand at no slice of a well."""

    def __init__(self, settings: MicroManagerSettings, plate: EmulatorSource, camera: Tilt) -> None:
        self._settings, self._plate, self._camera = settings, plate, camera
        self._stack: tuple[tuple[WellId, int], Taking] | None = None
        self._around: tuple[tuple[WellId, int], Taking] | None = None

    def slice_at(self, pose: Pose) -> tuple[WellId, SliceIndex] | None:
        """See View."""
        site = self._settings.site_at(pose.x_um, pose.y_um)
        if site is None or pose.channel is None:
            return None
        return site[0], self._index(pose, self._z(site[0], pose.z_um))

    def _index(self, pose: Pose, z: int) -> SliceIndex:
        """Which image of slice z the pattern's step makes it."""
        channel, raw = pose.channel or "", self._settings.raw
        if raw is None:
            return SliceIndex(channel, z)
        pattern = raw.pattern()
        _, angle, phase = pattern.frame_place(pose.step % pattern.n_frames, 1)
        return RawIndex(channel, z, angle, phase)

    def image(self, pose: Pose, look: Look = PLAIN) -> Pixels:
        """See View."""
        s = self._settings
        site = s.site_at(pose.x_um, pose.y_um)
        wells = {entry.well for entry in self._plate.plate_map}
        if site is None or pose.channel is None or site[0] not in wells:
            return self._dark()
        z, look = self._z(site[0], pose.z_um), self._exposed(pose, look)
        if self._camera.tilt_um is not None:
            return self._at_any_depth(site, pose, z, look)
        below_um = pose.z_um - self._camera.lift_um(site[0])
        if not (0 <= z < s.n_z and abs(s.z_um(z) - below_um) <= s.z_tolerance_um):
            return self._dark()
        return self._in_stack(site)(self._index(pose, z), look)

    def _exposed(self, pose: Pose, look: Look) -> Look:
        """The plate is as bright as the settings' exposures have it; others change that."""
        planned_ms = self._settings.channels[pose.channel].exposure_ms  # type: ignore[index]
        factor = pose.exposure_ms / planned_ms
        return look if abs(factor - 1) < SAME else Look(factor * look.exposure, look.blur_um)

    def _z(self, well: WellId, z_um: float) -> int:
        return round((z_um - self._camera.lift_um(well) - self._settings.z_start_um) / self._settings.z_step_um)

    def _at_any_depth(self, site: tuple[WellId, int], pose: Pose, z: int, look: Look) -> Pixels:
        """Slice z of the stack, or of what lies around it: below 0 or above the last."""
        if 0 <= z < self._settings.n_z:
            return self._in_stack(site)(self._index(pose, z), look)
        preset, beyond = self._plate.preset, math.ceil(BEYOND_UM / self._settings.z_step_um)
        if not -beyond <= z < preset.n_z + beyond:
            return self._dark()
        if self._around is None or self._around[0] != site:
            low_um = preset.field_z_um - beyond * preset.z_step_um
            field = replace(preset, field_z_um=low_um, n_z=preset.n_z + 2 * beyond)
            self._around = site, self._taking(Scene.of(self._plate.spec(site[0]), field, stack=site[1]))
        return self._around[1](self._index(pose, z + beyond), look)

    def _in_stack(self, site: tuple[WellId, int]) -> Taking:
        if self._stack is None or self._stack[0] != site:
            self._stack = site, self._taking(self._plate.scene(*site))
        return self._stack[1]

    def _taking(self, scene: Scene) -> Taking:
        """What takes a scene's images: of slices, or raw frames where the microscope takes those."""
        if self._settings.raw is None:
            return lambda index, look: scene.image(index.channel, index.z, look)
        return RawCamera.over(scene, self._plate.settings.raw or StripeSettings()).image

    def _dark(self) -> Pixels:
        return np.full(self._settings.frame_shape, DARK_ADU, self._settings.dtype)


class RecordingView:
    """A recorded plate: its field lies in the middle of the well, its first slice where the settings begin.

    Offsets from the well's middle are the plate's: an image's columns run along the plate's columns.
    """

    def __init__(self, settings: MicroManagerSettings, recording: Recording, camera: Tilt) -> None:
        self._settings, self._recording, self._camera = settings, recording, camera
        self._field = CameraField(settings.height, settings.width, settings.pixel_um, settings.dtype)

    def slice_at(self, pose: Pose) -> tuple[WellId, SliceIndex] | None:
        """See View."""
        place = self._place(pose)
        if place.well is None or pose.channel is None:
            return None
        return place.well, SliceIndex(pose.channel, math.floor(place.z_um / self._settings.z_step_um + 0.5))

    def image(self, pose: Pose, look: Look = PLAIN) -> Pixels:
        """See View; without light it is the camera's own noise."""
        place, channel = self._place(pose), pose.channel
        if channel is None:
            return self._recording.image(place, self._field, self._settings.channel_names[0], Look(exposure=0.0))
        factor = pose.exposure_ms / self._recorded_ms(place.well, channel)
        factor = 1.0 if abs(factor - 1) < SAME else factor
        return self._recording.image(place, self._field, channel, Look(factor * look.exposure, look.blur_um))

    def _place(self, pose: Pose) -> Place:
        sites = self._settings.sites
        x_um, y_um = sites.calibration.plate_um(pose.x_um, pose.y_um)
        well = sites.plate.nearest(x_um, y_um)
        z_um = pose.z_um - self._settings.z_start_um
        if well is None:
            return Place(None, x_um, y_um, z_um)
        centre_x_um, centre_y_um = sites.plate.centre_um(well)
        return Place(well, x_um - centre_x_um, y_um - centre_y_um, z_um - self._camera.lift_um(well))

    def _recorded_ms(self, well: WellId | None, channel: str) -> float:
        said = self._camera.recorded_exposure_ms.get(channel)
        if said is None and well is not None:
            said = self._recording.exposure_ms(well, channel)
        return float(said or self._settings.channels[channel].exposure_ms)  # type: ignore[index]


class CameraOverPlate:
    """Takes the place of the core's own pictures, one at a time, in snapshots and in hardware sequences.

    Faults are of the camera: what it does not deliver, delivers late, twice (its last picture again), by half or badly.
    """

    def __init__(self, settings: MicroManagerSettings, view: View, core: Any, faults: FaultReel | None = None) -> None:
        self._settings, self._view, self._core = settings, view, core
        self._reel = faults or FaultReel(())
        self._due: list[Fault] = []
        self._last: Pixels | None = None
        self._sequence_um: list[float] = []  # empty where the stage stands still during a sequence

    def attach(self) -> None:
        """Replace what the engine takes images from."""
        core = self._core
        load_sequence, pop_image, snap = core.load_stage_sequence, core.pop_next_tagged_image, core.snap_image
        prepare = core.prepare_sequence_acquisition

        def prepared(camera: str) -> None:
            self._sequence_um = []
            prepare(camera)

        def loaded(stage: str, positions_um: Any) -> None:
            self._sequence_um = [float(z_um) for z_um in positions_um]
            load_sequence(stage, positions_um)

        def popped() -> Any:
            image = pop_image()
            pose = self._step(int(image.tags["ImageNumber"]))
            self._due = self._faults(pose)
            if any(fault.kind == "drop" for fault in self._due):
                image = pop_image()
                pose = self._step(int(image.tags["ImageNumber"]))
            image.pix = self._picture(pose)
            return image

        def snapped() -> None:
            self._due = self._faults(self._pose(float(core.get_position())))  # once for each exposure
            if any(fault.kind == "fail" for fault in self._due):
                raise RuntimeError("the camera was set to fail")
            snap()

        def got(*_: Any) -> Pixels:
            if any(fault.kind == "drop" for fault in self._due):
                raise RuntimeError("the camera was set to lose this image")
            return self._picture(self._pose(float(core.get_position())))

        core.snap_image, core.get_image = snapped, got
        core.load_stage_sequence, core.pop_next_tagged_image = loaded, popped
        core.prepare_sequence_acquisition = prepared

    def _step(self, number: int) -> Pose:
        """Where everything stands for an image of a hardware sequence."""
        z_um = self._sequence_um[number] if self._sequence_um else float(self._core.get_position())
        return self._pose(z_um)._replace(step=number)

    def _pose(self, z_um: float) -> Pose:
        s, core = self._settings, self._core
        preset = core.get_current_config(s.channel_group)
        channel = next((name for name, lit in s.channels.items() if lit.preset == preset), None)
        x_um, y_um = float(core.get_x_position()), float(core.get_y_position())
        return Pose(x_um, y_um, z_um, channel, float(core.get_exposure()))

    def _faults(self, pose: Pose) -> list[Fault]:
        there = self._view.slice_at(pose)
        return [] if there is None else self._reel.due(*there)

    def _picture(self, pose: Pose) -> Pixels:
        kinds = {fault.kind for fault in self._due}
        if "lost" in kinds:
            print("the camera was set to be lost", flush=True)
            os._exit(LOST_EXIT)  # as a driver does that crashes: nobody is told, and nothing is tidied up
        time.sleep(sum(fault.seconds for fault in self._due if fault.kind == "stall"))
        if "duplicate" in kinds and self._last is not None:
            return self._last.copy()
        self._last = self._view.image(pose, look_of(self._due))
        return self._last[: self._settings.frame_shape[0] // 2] if "cut" in kinds else self._last.copy()
