"""What a source's settings say of raw frames: the pattern that a plan promises, stated and never guessed."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.sim_pattern import Beams, ChannelOptics, RawOrder, SimPattern

ChannelName = Literal["488", "561"]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class RawSettings(BaseModel):
    """Raw frames of structured illumination: how many, in which order, through which lens."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    angles: int = Field(default=3, ge=1, le=9)
    phases: int = Field(default=5, ge=3, le=15)
    order: RawOrder = ("z", "angle", "phase")
    """The axes of the frames, slowest first, as they come or lie in a file."""
    beams: Beams = Beams.TWO
    na: Positive
    emission_nm: dict[ChannelName, Positive] = Field(min_length=1)
    """The light that the camera sees, by channel."""
    psf_sigma_um: dict[ChannelName, Positive] = {}
    """Sigma of a Gaussian point spread, by channel; an ideal lens where nothing is said."""
    otf_table: dict[ChannelName, tuple[float, ...]] = {}
    """A measured OTF instead, by channel: values at equal steps of |k| from 0 (1) to the cutoff, without the pixel."""
    offset_adu: float = Field(default=0.0, allow_inf_nan=False)
    """What the camera adds to every pixel."""
    angles_deg: tuple[float, ...] | None = None
    """Directions of the stripes that must be found: 0 along x, 90 down the rows."""
    period_um: dict[ChannelName, Positive] = {}
    """Period of order 1 by channel, where it is known."""
    reversed_steps: bool = False
    flip_y: bool = False

    @model_validator(mode="after")
    def _is_a_pattern(self) -> "RawSettings":
        try:
            self.pattern()
        except ConfigError as error:
            raise ValueError(f"{error.what}; {error.do}") from error
        return self

    def pattern(self) -> SimPattern:
        """What a plan promises of the frames."""
        optics = (
            ChannelOptics.stated(channel, nm, self.na, self.psf_sigma_um.get(channel), self.otf_table.get(channel, ()))
            for channel, nm in self.emission_nm.items()
        )
        return SimPattern(
            self.angles,
            self.phases,
            self.order,
            self.beams,
            -1 if self.reversed_steps else 1,
            self.flip_y,
            self.offset_adu,
            self.angles_deg,
            tuple(self.period_um.items()),
            tuple(optics),
        )
