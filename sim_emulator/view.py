"""The emulated microscope outside a run: it goes to a well and a depth, and takes one image."""

import time
from collections.abc import Callable
from typing import Protocol

import numpy as np

from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.pixels import Pixels
from spheroidd.protocols.plate import PlateMap, WellRole
from spheroidd.protocols.snapshot import SnapOrder, Snapshot
from spheroidd.protocols.stack import RawIndex, SliceIndex, StackPlan
from spheroidd.protocols.well import WellId
from spheroidd.sim_emulator.look import Look
from spheroidd.sim_emulator.presets import Preset
from spheroidd.sim_emulator.stage import UNTIMED_MS, Taken

Camera = Callable[[SliceIndex, Look], Pixels]


class PlateUnder(Protocol):
    """The plate under the microscope; see `EmulatorSource`."""

    preset: Preset

    @property
    def plate_map(self) -> PlateMap:
        """What the wells hold."""
        ...

    @property
    def view_limits_um(self) -> tuple[float, float]:
        """The depth of the first slice and that of the last."""
        ...

    def plan(self, well: WellId, stack: int = 0) -> StackPlan:
        """The geometry of a well's stack."""
        ...

    def taken(self, plan: StackPlan, index: SliceIndex) -> Taken:
        """How an image is taken."""
        ...

    def camera_over(self, well: WellId, stack: int) -> Camera:
        """What gives a well's camera images."""
        ...


class EmulatedView:
    """Stands in the middle of its plate's first stack until it is sent elsewhere. It sees the planned depths alone."""

    def __init__(self, source: PlateUnder) -> None:
        self._source = source
        imaged = source.plate_map.imaged()
        if not imaged:
            raise ConfigError("every well is empty", where="emulator", do="give the plate map a well to image")
        self._well, self._field, self._z = imaged[0].well, 0, source.preset.n_z // 2
        self._camera: tuple[tuple[WellId, int], Camera] | None = None  # a well takes longer than an image of it

    def snap(self, order: SnapOrder) -> Snapshot:
        """See Snapping."""
        source, p = self._source, self._source.preset
        well, field = (self._well, self._field) if order.well is None else (order.well, order.field)
        plan = source.plan(_seen(source, well), field)
        if order.channel not in plan.channels:
            do = f"choose one of {', '.join(plan.channels)}"
            raise ConfigError(f"there is no channel {order.channel!r}", where="emulator", do=do)
        z = self._z if order.z_um is None else self._slice_at(order.z_um)
        if order.well is not None and order.z_um is None and well != self._well:
            z = p.n_z // 2
        index = SliceIndex(order.channel, z) if plan.raw is None else RawIndex(order.channel, z, 0, 0)
        how = source.taken(plan, index)
        planned_ms = how.exposure_ms or UNTIMED_MS
        exposure_ms = order.exposure_ms or planned_ms
        if self._camera is None or self._camera[0] != (well, field):
            self._camera = (well, field), source.camera_over(well, field)
        pixels = self._camera[1](index, Look(exposure_ms / planned_ms))
        self._well, self._field, self._z = well, field, z
        return Snapshot(
            pixels,
            order.channel,
            exposure_ms,
            how.x_um,
            how.y_um,
            how.z_um,
            well,
            plan.frame_pixel_um,
            int(np.iinfo(pixels.dtype).max),
            time.time(),
        )

    def _slice_at(self, z_um: float) -> int:
        low, high = self._source.view_limits_um
        p = self._source.preset
        if not low - p.z_step_um / 2 <= z_um <= high + p.z_step_um / 2:
            do = f"choose one from {low:g} to {high:g} um"
            raise ConfigError(f"the emulated plate has no image at z = {z_um:g} um", where="emulator", do=do)
        return min(p.n_z - 1, max(0, round((z_um - low) / p.z_step_um)))


def _seen(source: PlateUnder, well: WellId) -> WellId:
    if source.plate_map[well].treatment.role is WellRole.EMPTY:
        raise ConfigError(f"well {well} is empty", where="emulator", do="choose one that is imaged")
    return well
