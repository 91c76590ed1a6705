"""What a plate map says of how a well is imaged, in place of what the instrument's settings say of all wells."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.stack import CHANNELS

EXPOSURE, Z_START = "exposure_ms", "z_start_um"
EXPOSURES = {"": EXPOSURE, **{channel: f"{EXPOSURE}_{channel}" for channel in CHANNELS}}
IMAGING_COLUMNS = (*EXPOSURES.values(), Z_START)


@dataclass(frozen=True, slots=True)
class WellImaging:
    """A well's own exposures, in milliseconds by channel ("" for those that have none of their own), and the focus
    position of its first slice, in micrometres of the focus stage.

    >>> WellImaging({"": 50.0, "561": 80.0}).exposure_of("488")
    50.0
    """

    exposure_ms: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    z_start_um: float | None = None

    def __post_init__(self) -> None:
        for channel, value in self.exposure_ms.items():
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(f"{EXPOSURES[channel]} is {value:g}", do="write milliseconds above 0")
        if self.z_start_um is not None and not math.isfinite(self.z_start_um):
            raise ConfigError(f"{Z_START} is {self.z_start_um}", do="write micrometres of the focus stage")

    def exposure_of(self, channel: str) -> float | None:
        """The channel's exposure, None where the map says none."""
        return self.exposure_ms.get(channel, self.exposure_ms.get(""))

    @property
    def columns(self) -> Iterator[str]:
        """The columns of the map that say something of it."""
        yield from (EXPOSURES[channel] for channel in self.exposure_ms)
        if self.z_start_um is not None:
            yield Z_START


def imaging_of(numbers: Mapping[str, float | None]) -> WellImaging:
    """A well's imaging by the map's columns; ConfigError for what no instrument can do."""
    exposures = {channel: value for channel, name in EXPOSURES.items() if (value := numbers[name]) is not None}
    return WellImaging(MappingProxyType(exposures), numbers[Z_START])
