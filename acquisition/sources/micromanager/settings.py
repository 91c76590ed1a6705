"""What a Micro-Manager rig is told: where its core is, what a stack is, where the wells are, and where never to go.

Lengths are micrometres in the stages' own coordinates. The stages' limits are settings of ours because the engine
sends whatever it is given: there are no defaults for them.
"""

import math
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from spheroidd.acquisition.focus.autofocus import AutofocusSettings
from spheroidd.acquisition.plates.plan_settings import Finite, PlanSettings, Positive
from spheroidd.acquisition.plates.raw_settings import RawSettings
from spheroidd.protocols.acquisition_plan import AcquisitionPlan
from spheroidd.protocols.stack import CHANNELS, UPSAMPLING, RawIndex, SliceIndex, StackPlan
from spheroidd.protocols.well import WellId

Range = tuple[Finite, Finite]

MetadataKey = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
OWN_METADATA = {"x_um", "y_um", "z_um", "z_planned_um", "exposure_ms", "preset", "camera", "host_time_s"}

STALL_PERIODS = 3
OVERHEAD_S = 0.05  # an image's moves and readout, where nobody says how long a slice takes


class MicroManagerChannel(BaseModel):
    """How one channel is lit: a preset of the channel group, and the camera's exposure."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    preset: str = Field(min_length=1)
    exposure_ms: Positive


class MicroManagerSettings(BaseModel):
    """Image a plate with a microscope that Micro-Manager drives."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["micromanager"] = "micromanager"
    backend: Literal["python", "java"] = "python"
    """"python": load the core here; "java": talk to a Micro-Manager that is open (Tools > Options > Run server)."""
    micromanager_dir: Literal["test-adapters"] | Path | None = None
    """Micro-Manager's folder with the device adapters, or "test-adapters" for those of the package mm-test-adapters."""
    config: Path | None = None
    """Micro-Manager's hardware configuration (.cfg); only the Java backend can do without."""
    port: int = Field(default=4827, ge=1, le=65535)
    """Of the Java backend's server."""
    buffer_mb: int | None = Field(default=None, ge=16, le=65536)
    """The core's image buffer; without it as large as one channel's hardware sequence needs."""

    # The stack.
    n_z: int = Field(ge=1, le=100_000)
    height: int = Field(ge=1, le=65536)
    width: int = Field(ge=1, le=65536)
    dtype: Literal["uint8", "uint16"] = "uint16"
    pixel_um: Positive
    z_step_um: Positive
    z_start_um: Finite
    """The focus stage's position for the first slice; the others follow upwards by z_step_um."""
    slice_period_s: Positive | None = None
    """Seconds per z-step, all channels together; without it reckoned from the exposures. Three of them are a stall."""
    channel_group: str = Field(default="Channel", min_length=1)
    channels: dict[Literal["488", "561"], MicroManagerChannel] = Field(min_length=1)
    recorded: dict[MetadataKey, tuple[str, str]] = Field(
        default={},
        description="device properties that are read for every image and kept with it, such as "
        'laser_mw = ["Laser", "PowerSetpoint"]; during a hardware sequence only before its first image',
    )
    z_sequencing: bool = False
    """Let the hardware step through z: channel by channel, each in one go, for stages and cameras wired for it."""
    raw: RawSettings | None = Field(
        default=None,
        description="the camera takes raw frames of structured illumination: all angles and phases of a slice in one "
        "hardware sequence, whose exposures step a pattern that begins anew with each sequence. height, width and "
        "pixel_um are those of the slices: the camera has half as many pixels, twice as large",
    )

    # The plate: a catalogued one that lies where taught wells say, or a corner and a pitch.
    plan: PlanSettings | None = Field(
        default=None, description="plate, taught wells, order and fields; in place of a01_um and pitch_um"
    )
    a01_um: Range | None = None
    """Where the XY stage stands (x, y) when well A01 is centred."""
    pitch_um: Range = (9000.0, 9000.0)
    """From a column to the next in x, from a row to the next in y; negative where the stage counts the other way."""

    autofocus: AutofocusSettings | None = Field(
        default=None, description="look for each stack's focus; without it every stack begins at z_start_um"
    )

    # Safety.
    x_limits_um: Range
    y_limits_um: Range
    z_limits_um: Range
    retract_z_um: Finite
    """Where the focus stage goes before the XY stage moves."""
    xy_tolerance_um: Positive = 2.0
    z_tolerance_um: Positive = 0.5
    """How far a stage may stand from where it was sent."""
    move_timeout_s: Positive = 30.0
    start_timeout_s: Positive = 120.0
    """How long loading the configuration may take; some stages look for their home."""
    first_frame_s: Positive = 10.0
    """How long the first slice of a stack, or of a hardware sequence, may take."""
    min_stall_s: Positive = 1.0
    """A slice is not given up before, however short its period: the operating system may be busy that long."""
    ring_mb: float = Field(default=64.0, gt=0, le=4096)
    """Shared memory for frames on their way out of the core's process."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        for name in ("x_limits_um", "y_limits_um", "z_limits_um"):
            low, high = getattr(self, name)
            if not low < high:
                raise ValueError(f"{name} is [{low}, {high}]; write the lower limit first")
        low, high = self.z_limits_um
        for name, z_um in (
            ("retract_z_um", self.retract_z_um),
            ("z_start_um", self.z_start_um),
            ("the last slice", self.z_um(self.n_z - 1)),
        ):
            if not low <= z_um <= high:
                raise ValueError(f"{name} is at {z_um:g} um, outside z_limits_um [{low:g}, {high:g}]")
        if self.autofocus is not None and self.autofocus.channel not in self.channels:
            raise ValueError(
                f"autofocus.channel is {self.autofocus.channel}, and [source.channels] has no such channel"
            )
        if self.raw is not None:
            self._check_raw(self.raw)
        if 0 in self.pitch_um:
            raise ValueError("pitch_um is 0; write the distance of two wells")
        if taken := sorted(OWN_METADATA & self.recorded.keys()):
            raise ValueError(f"recorded.{taken[0]} has the name of what is kept anyway; choose another")
        if self.plan is None and self.a01_um is None:
            raise ValueError("nothing says where the wells are; write [source.plan] with taught wells, or a01_um")
        default_pitch = type(self).model_fields["pitch_um"].default
        if self.plan is not None and (self.a01_um is not None or self.pitch_um != default_pitch):
            raise ValueError("[source.plan] says where the wells are; remove a01_um and pitch_um, or the plan")
        if self.backend == "python" and (self.micromanager_dir is None or self.config is None):
            raise ValueError("the Python backend needs micromanager_dir and config")
        return self

    def _check_raw(self, raw: RawSettings) -> None:
        if raw.order[0] != "z":
            raise ValueError(f"raw.order begins with {raw.order[0]}; a sequence is one slice, so write z first")
        if self.height % UPSAMPLING or self.width % UPSAMPLING:
            raise ValueError(f"height and width are twice the camera's: {self.height} and {self.width} are not even")
        if unknown := set(self.channels) - set(raw.emission_nm):
            raise ValueError(f"raw.emission_nm says nothing of {min(unknown)}; write the light that the camera sees")

    @property
    def channel_names(self) -> tuple[str, ...]:
        """The channels in the order in which a z-step takes them."""
        return tuple(name for name in CHANNELS if name in self.channels)

    @property
    def period_s(self) -> float:
        """Seconds per z-step, given or reckoned."""
        images = self.frames_per_slice
        return self.slice_period_s or sum(images * c.exposure_ms / 1000 + OVERHEAD_S for c in self.channels.values())

    @property
    def stall_s(self) -> float:
        """How long to wait for a slice before the instrument counts as stalled."""
        return max(STALL_PERIODS * self.period_s, self.min_stall_s)

    @property
    def frames_per_slice(self) -> int:
        """Camera images of one slice and channel."""
        return self.raw.angles * self.raw.phases if self.raw else 1

    @property
    def frame_shape(self) -> tuple[int, int]:
        """A camera image's (y, x)."""
        step = UPSAMPLING if self.raw else 1
        return self.height // step, self.width // step

    @property
    def frame_pixel_um(self) -> float:
        """A camera image's pixel."""
        return self.pixel_um * UPSAMPLING if self.raw else self.pixel_um

    @property
    def frame_bytes(self) -> int:
        """One camera image's size."""
        return math.prod(self.frame_shape) * (2 if self.dtype == "uint16" else 1)

    @property
    def core_buffer_mb(self) -> int:
        """The core's image buffer: given, or a hardware sequence and a quarter more."""
        images = (self.n_z if self.z_sequencing else 1) * self.frames_per_slice
        longest = images * self.frame_bytes if images > 1 else 0
        return self.buffer_mb or max(64, int(1.25 * longest / 1e6))

    def z_um(self, z: int) -> float:
        """The focus stage's position for a slice."""
        return self.z_start_um + z * self.z_step_um

    @property
    def image_um(self) -> tuple[float, float]:
        """An image's width and height."""
        return self.width * self.pixel_um, self.height * self.pixel_um

    @cached_property
    def sites(self) -> AcquisitionPlan:
        """Where the wells and their fields are, and their order; ConfigError where [source.plan] cannot be right.

        Not made when the settings are read: it may need a file whose path is not absolute yet.
        """
        if self.plan is not None:
            return self.plan.build(self.image_um)
        assert self.a01_um is not None  # the validator saw to it
        return AcquisitionPlan.at_pitch(self.a01_um, self.pitch_um)

    def xy_um(self, well: WellId, field: int = 0) -> tuple[float, float]:
        """The XY stage's position for a field of a well, its centre where the well has only one."""
        return self.sites.xy_um(well, field)

    def site_at(self, x_um: float, y_um: float) -> tuple[WellId, int] | None:
        """The well and its field that are centred at a stage position, to the tolerance; None beside them."""
        return self.sites.site_at(x_um, y_um, self.xy_tolerance_um)

    def well_at(self, x_um: float, y_um: float) -> WellId | None:
        """The well of `site_at`."""
        site = self.site_at(x_um, y_um)
        return site[0] if site else None

    def slice_order(self, plan: StackPlan) -> list[SliceIndex]:
        """A stack's images as the instrument takes them: z by z, or channel by channel where the hardware steps."""
        if not self.z_sequencing:
            return [index for z in range(plan.n_z) for channel in plan.channels for index in _images(plan, channel, z)]
        return [index for channel in plan.channels for z in range(plan.n_z) for index in _images(plan, channel, z)]


def _images(plan: StackPlan, channel: str, z: int) -> list[SliceIndex]:
    """The camera images of one slice, in the stated order."""
    raw = plan.raw
    if raw is None:
        return [SliceIndex(channel, z)]
    numbers = range(z * raw.n_frames, (z + 1) * raw.n_frames)
    return [RawIndex(channel, *raw.frame_place(number, plan.n_z)) for number in numbers]
