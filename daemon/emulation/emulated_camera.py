"""Micro-Manager's core with the emulator for a camera: everything real but the light.

The stages, the engine, the shutter and the timing are the core's own; a picture shows what the emulated or recorded
plate has where the stages really stand, in the channel that is really set. Only the composing layer may know both.
"""

import multiprocessing
from collections.abc import Iterable, MutableSequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from spheroidd.acquisition.plates.plan_settings import Positive
from spheroidd.acquisition.sources.micromanager.settings import MicroManagerSettings
from spheroidd.acquisition.sources.micromanager.source import MicroManagerSource
from spheroidd.daemon.emulation.camera_over_plate import CameraOverPlate, PhantomView, RecordingView, View
from spheroidd.daemon.emulation.open_recording import open_recording
from spheroidd.daemon.system.clock import SystemClock
from spheroidd.protocols.errors import ConfigError, StackError
from spheroidd.protocols.plate import PlateMap, PlateWell, Treatment
from spheroidd.protocols.ports import Clock
from spheroidd.protocols.well import WellId
from spheroidd.sim_emulator.faults import Fault, FaultReel
from spheroidd.sim_emulator.source import EmulatorSettings, EmulatorSource
from spheroidd.sim_emulator.stripes import StripeSettings

MAX_UNEVEN_UM = 50.0


class EmulatedCamera(BaseModel):
    """Which emulated plate lies under the microscope; the stack's geometry is the microscope's own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    preset: Literal["unit", "demo", "sim", "screen", "whole"] = "unit"
    seed: int = Field(default=0, ge=0)
    tilt_um: tuple[float, float] | None = None
    """How much higher each next column, and each next row, of the plate lies. With it, even (0, 0), what lies below and
    above the stack can be seen too, so that a focus can be looked for; the picture is that of the nearest slice."""
    uneven_um: float = Field(default=0.0, ge=0, le=MAX_UNEVEN_UM, allow_inf_nan=False)
    """How far single wells lie above or below that plane, at most."""
    stripes: StripeSettings | None = Field(
        default=None,
        description="the pattern of the light where the microscope's [source.raw] asks for raw frames; its angles, "
        "phases and order are those of [source.raw], and without a word the rest is the emulator's own",
    )
    recording: Path | None = None
    """A recorded plate in the emulated one's place: a plate map with paths, the data directory of a plate that was run,
    or one stack, which then lies in every well. Its first slice lies at z_start_um, its field in the well's middle."""
    recorded_exposure_ms: dict[Literal["488", "561"], Positive] = Field(
        default={},
        description="the exposures at which the recording's pixels are shown as they are; without a word those that "
        "its files say, else those of [source.channels]",
    )
    faults: tuple[Fault, ...] = Field(
        default=(), description="what the camera does wrong, by well, channel and z: [[source.emulated_camera.faults]]"
    )

    @field_validator("faults")
    @classmethod
    def _can_happen(cls, faults: tuple[Fault, ...]) -> tuple[Fault, ...]:
        if any(fault.kind == "short" for fault in faults):
            raise ValueError("a camera knows no stacks, so none ends 'short'; write 'drop'")
        return faults

    def lift_um(self, well: WellId) -> float:
        """How much higher a well lies than a level plate would have it."""
        column_um, row_um = self.tilt_um or (0.0, 0.0)
        drawn = np.random.default_rng((self.seed, well.row, well.column)).uniform(-1, 1)
        return float(column_um * well.column + row_um * well.row + self.uneven_um * drawn)


class MicroManagerRunSettings(MicroManagerSettings):
    """Image a plate with a microscope that Micro-Manager drives, or try that out with an emulated camera."""

    emulated_camera: EmulatedCamera | None = None
    """The emulator in place of the camera's pictures: to learn and to test; leave it out for a real plate."""

    @model_validator(mode="after")
    def _has_a_pattern(self) -> Self:
        camera, raw = self.emulated_camera, self.raw
        if camera is None:
            return self
        if camera.stripes is not None:
            own = camera.stripes.n_angles, camera.stripes.n_phases, camera.stripes.order
            if raw is None or own != (raw.angles, raw.phases, raw.order):
                raise ValueError("emulated_camera.stripes is another pattern than [source.raw]; make them agree")
        if raw is not None and camera.recording is not None:
            raise ValueError("emulated_camera.recording shows slices and no raw frames; leave it out, or [source.raw]")
        return self


class MicroManagerRun(MicroManagerSource):
    """The `micromanager` source as a run composes it."""

    Settings: ClassVar[type[MicroManagerSettings]] = MicroManagerRunSettings

    def __init__(
        self, settings: MicroManagerRunSettings, plate_map: PlateMap | None, plate_name: str, clock: Clock
    ) -> None:
        attach, self._camera = None, settings.emulated_camera
        if self._camera is not None and plate_map is not None:
            wells = tuple((entry.well, entry.treatment) for entry in plate_map)  # a plate map cannot be pickled
            happened = multiprocessing.get_context("spawn").RawArray("l", max(1, len(self._camera.faults)))
            attach = partial(attach_camera, settings, self._camera, plate_map.name, wells, happened)
        super().__init__(settings, plate_map, plate_name, clock, attach=attach)

    def check(self) -> None:
        """As the source's; ConfigError as well where the recording cannot be read, or is no picture of this camera."""
        if self._camera is not None and self._camera.recording is not None:
            check_recording(self._camera.recording, self._settings.dtype)
        super().check()


def check_recording(path: Path, dtype: str) -> None:
    """Raise ConfigError where a stack of the recording cannot be read, or has more bits than the camera's images."""
    with closing(open_recording(path)) as recording:
        try:
            recording.check()
        except StackError as error:
            do = f"{error.do}, or take the well out of the recording's plate map"
            raise ConfigError(error.what, where=error.where, do=do) from error
        if (held := recording.geometry.camera.dtype) != dtype and dtype == "uint8":
            what = f"the recording {path} holds {held}, the settings say {dtype}"
            raise ConfigError(what, where="source.dtype", do=f'write dtype = "{held}"')


def emulated_plate(settings: MicroManagerSettings, camera: EmulatedCamera, plate_map: PlateMap) -> EmulatorSource:
    """The plate under the microscope, as a source of its own: what the microscope's frames must equal."""
    geometry = {name: getattr(settings, name) for name in ("n_z", "height", "width", "pixel_um", "z_step_um")}
    raw, stripes = settings.raw, camera.stripes
    if raw is not None and stripes is None:
        stripes = StripeSettings(n_angles=raw.angles, n_phases=raw.phases, order=raw.order)
    emulated = EmulatorSettings(preset=camera.preset, seed=camera.seed, pace="fast", raw=stripes, **geometry)
    return EmulatorSource(emulated, plate_map, plate_map.name, SystemClock())


def attach_camera(
    settings: MicroManagerSettings,
    camera: EmulatedCamera,
    plate_name: str,
    wells: Iterable[tuple[WellId, Treatment]],
    happened: MutableSequence[int],
    core: Any,
) -> None:
    """Put the emulator behind the core's camera, in snapshots and in hardware sequences.

    `happened` counts the faults; it is shared with the process that comes after a lost one.
    """
    view: View
    if camera.recording is not None:
        view = RecordingView(settings, open_recording(camera.recording), camera)
    else:
        plate_map = PlateMap(plate_name, tuple(PlateWell(well, treatment) for well, treatment in wells))
        view = PhantomView(settings, emulated_plate(settings, camera, plate_map), camera)
    CameraOverPlate(settings, view, core, FaultReel(camera.faults, happened)).attach()
