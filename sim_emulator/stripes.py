"""Structured illumination under the emulated microscope: its pattern, its faults, and what is true of it.

A frame sees 1 + m cos(2 pi f.(r - centre) + phase) times the sample, which `striped_planes` makes. Haze and background
are not modulated; m dies with the depth.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from spheroidd.protocols.sim_pattern import ChannelOptics, OtfKind, RawOrder, SimPattern
from spheroidd.protocols.stack import CHANNELS, RawIndex

EMISSION_NM = {"488": 515.0, "561": 617.0}
NA = 0.5
ChannelName = Literal["488", "561"]


class PatternFault(BaseModel):
    """Something wrong with the pattern for as long as the source lives.

    unequal: every second phase is `degrees` late. stuck: phase `phase` repeats the one before it. order: frames come in
    `order` although the plan states another. reversed: the phase steps the other way. flipped: the rows of the images
    run the other way. turned: the directions are `degrees` off those stated. dead: there is no modulation. brighter:
    frame (angle, phase) has `degrees` per cent more light. Of one channel, or of both where none is named.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["unequal", "stuck", "order", "reversed", "flipped", "turned", "dead", "brighter"]
    channel: ChannelName | None = None
    degrees: float = Field(default=3.0, ge=-180, le=180)
    angle: int = Field(default=0, ge=0)
    phase: int = Field(default=1, ge=1)
    order: RawOrder = ("z", "phase", "angle")


class StripeSettings(BaseModel):
    """The emulated pattern. `share` is its frequency over the lens's cutoff of that colour."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_angles: int = Field(default=3, ge=1, le=9)
    n_phases: int = Field(default=5, ge=3, le=15)
    order: RawOrder = ("z", "angle", "phase")
    share: float = Field(default=0.9, gt=0.2, le=1)
    first_angle_deg: float = Field(default=12.0, ge=-180, le=180)
    modulation: float = Field(default=0.8, ge=0, le=1)
    fading_um: float = Field(default=15.0, gt=0)
    """The depth in which the modulation falls to 1/e."""
    dose: float = Field(default=1.0, gt=0)
    """The light of all frames of a slice together, over that of a slice that is taken without a pattern."""
    psf_sigma_um: float = Field(default=0.22, gt=0)
    """The lens's Gaussian point spread at 488 nm; what the plan states of it is what is true."""
    stated: bool = True
    """Whether the plan states the directions and the period, so that they can be contradicted."""
    faults: tuple[PatternFault, ...] = ()

    @model_validator(mode="after")
    def _inside(self) -> "StripeSettings":
        for fault in self.faults:
            if fault.angle >= self.n_angles or fault.phase >= self.n_phases:
                raise ValueError(f"a fault names angle {fault.angle} phase {fault.phase}, which the pattern has not")
        return self

    def angles_deg(self) -> tuple[float, ...]:
        """The directions as they are stated, -180 to 180."""
        return tuple((self.first_angle_deg + 180 * n / self.n_angles + 180) % 360 - 180 for n in range(self.n_angles))

    def promised(self) -> SimPattern:
        """What a plan says of the pattern."""
        from spheroidd.sim_emulator.camera import OFFSET_ADU  # settings are read without what draws images

        optics = tuple(ChannelOptics(c, EMISSION_NM[c], NA, OtfKind.GAUSSIAN, self.sigma_um(c)) for c in CHANNELS)
        period = tuple((c, 1 / self.frequency_per_um(c)) for c in CHANNELS) if self.stated else ()
        return SimPattern(
            self.n_angles,
            self.n_phases,
            self.order,
            offset_adu=OFFSET_ADU,
            angles_deg=self.angles_deg() if self.stated else None,
            period_um=period,
            optics=optics,
        )

    @property
    def share_of_light(self) -> float:
        """A frame's electrons in a camera pixel over those of a slice without a pattern in one of its pixels."""
        return 4 * self.dose / (self.n_angles * self.n_phases)

    def sigma_um(self, channel: str) -> float:
        """The point spread of a colour."""
        from spheroidd.sim_emulator.optics import RED_REACH

        return self.psf_sigma_um * (1.0, RED_REACH)[CHANNELS.index(channel)]

    def frequency_per_um(self, channel: str) -> float:
        """How many stripes there are in a micrometre."""
        return self.share * 2000 * NA / EMISSION_NM[channel]

    def truth(self, channel: str) -> "TruePattern":
        """What is true of a colour's pattern, its faults included."""
        angles = self.angles_deg()
        phases = [360 * n / self.n_phases for n in range(self.n_phases)]
        modulation, brightness = self.modulation, np.ones((self.n_angles, self.n_phases))
        for fault in (fault for fault in self.faults if fault.channel in (None, channel)):
            match fault.kind:
                case "unequal":
                    phases = [phase + fault.degrees * (n % 2) for n, phase in enumerate(phases)]
                case "stuck":
                    phases[fault.phase] = phases[fault.phase - 1]
                case "reversed":
                    phases = [-phase for phase in phases]
                case "turned":
                    angles = tuple(angle + fault.degrees for angle in angles)
                case "dead":
                    modulation = 0.0
                case "brighter":
                    brightness[fault.angle, fault.phase] *= 1 + fault.degrees / 100
                case _:
                    pass  # order and flip change which frame is which, not the light on the sample
        starts = [40.0 * n + 15.0 * CHANNELS.index(channel) for n in range(self.n_angles)]
        light = tuple(tuple(float(one) for one in row) for row in brightness)
        return TruePattern(
            channel,
            self.frequency_per_um(channel),
            tuple(angles),
            tuple(tuple(start + phase for phase in phases) for start in starts),
            modulation,
            self.fading_um,
            light,
        )

    def flipped(self, channel: str) -> bool:
        """Whether the images' rows run the other way."""
        return any(fault.kind == "flipped" and fault.channel in (None, channel) for fault in self.faults)

    def shown_in(self, index: RawIndex, n_z: int) -> RawIndex:
        """Which frame really comes under the name of another, where the instrument's order is not the one stated."""
        for fault in self.faults:
            if fault.kind == "order" and fault.channel in (None, index.channel):
                stated = SimPattern(self.n_angles, self.n_phases, self.order)
                number = stated.frame_number(index.z, index.angle, index.phase, n_z)
                return RawIndex(index.channel, *replace(stated, order=fault.order).frame_place(number, n_z))
        return index


@dataclass(frozen=True, slots=True)
class TruePattern:
    """A colour's pattern as it is: stripes a micrometre, and by angle their direction and each frame's phase at the
    field's centre; `brightness` is each frame's light over its share.
    """

    channel: str
    frequency_per_um: float
    angles_deg: tuple[float, ...]
    phases_deg: tuple[tuple[float, ...], ...]
    modulation: float
    fading_um: float
    brightness: tuple[tuple[float, ...], ...]

    def frequency_yx(self, angle: int) -> tuple[float, float]:
        """The frequency vector of an angle, stripes a micrometre."""
        turn = math.radians(self.angles_deg[angle])
        return self.frequency_per_um * math.sin(turn), self.frequency_per_um * math.cos(turn)

    def modulation_at(self, depth_um: float) -> float:
        """The modulation so deep in the sample."""
        return self.modulation * math.exp(-max(depth_um, 0.0) / self.fading_um)
