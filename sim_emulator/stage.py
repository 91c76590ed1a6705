"""Where the emulated microscope's stages stand for each image, and for how long its camera exposes.

As an instrument would write it beside its pixels: where the stages were sent, without the drift that the image shows.
"""

from dataclasses import dataclass

from spheroidd.protocols.stack import SliceIndex, StackPlan
from spheroidd.protocols.well import WellId
from spheroidd.sim_emulator.presets import Preset

PITCH_UM = 9000.0  # from well to well
OPEN_SHARE = 0.5  # of an image's time is exposure; the rest goes into reading out and moving
UNTIMED_MS = 100.0  # what counts as the exposure of a plate whose images take no time


@dataclass(frozen=True, slots=True)
class Taken:
    """How one image was taken; no exposure where the preset takes no time."""

    x_um: float
    y_um: float
    z_um: float
    exposure_ms: float | None
    elapsed_s: float

    @property
    def facts(self) -> dict[str, float | str]:
        """The same as a frame's metadata."""
        said: dict[str, float | str] = {"x_um": self.x_um, "y_um": self.y_um, "z_um": self.z_um}
        if self.exposure_ms is not None:
            said["exposure_ms"] = self.exposure_ms
        return {**said, "instrument_elapsed_s": self.elapsed_s}


def stage_um(preset: Preset, well: WellId) -> tuple[float, float]:
    """Where (x, y) a well's field is; A01's centre is at 0."""
    return well.column * PITCH_UM + preset.field_x_um, well.row * PITCH_UM + preset.field_y_um


def taken(preset: Preset, plan: StackPlan, index: SliceIndex) -> Taken:
    """How an image of a plan is taken: a z-step's channels share its period."""
    each_s = preset.slice_period_s / len(plan.channels)
    number = index.z * len(plan.channels) + plan.channels.index(index.channel)
    x_um, y_um = stage_um(preset, plan.key.well)
    z_um = preset.field_z_um + index.z * plan.z_step_um
    exposure_ms = round(1000 * OPEN_SHARE * each_s, 6)
    return Taken(x_um, y_um, round(z_um, 6), exposure_ms or None, round(number * each_s, 6))
