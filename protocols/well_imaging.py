"""What a plate map says of how a well is imaged, in place of what the instrument's settings say of all wells."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.stack import CHANNELS

EXPOSURE, Z_START = "exposure_ms", "z_start_um"
EXPOSURES = {"": EXPOSURE, **{channel: f"{EXPOSURE}_{channel}" for channel in CHANNELS}}
IMAGING_COLUMNS = (*EXPOSURES.values(), Z_START)
SHORTEST_MS, LONGEST_MS = 0.01, 60_000.0  # no camera that takes stacks is quicker; a slice of a minute is no slice
FARTHEST_UM = 20_000.0  # focus drives travel 10 mm, some stages 20; beyond lies a slip, or another unit


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
        said = {EXPOSURES[channel]: value for channel, value in self.exposure_ms.items()}
        for fault in imaging_faults({**said, Z_START: self.z_start_um}):
            raise fault

    def exposure_of(self, channel: str) -> float | None:
        """The channel's exposure, None where the map says none."""
        return self.exposure_ms.get(channel, self.exposure_ms.get(""))

    @property
    def columns(self) -> Iterator[str]:
        """The columns of the map that say something of it."""
        yield from (EXPOSURES[channel] for channel in self.exposure_ms)
        if self.z_start_um is not None:
            yield Z_START


def imaging_faults(numbers: Mapping[str, float | None]) -> Iterator[ConfigError]:
    """What of the map's columns no instrument can do, each for itself; other columns are passed over.

    >>> [fault.what for fault in imaging_faults({"exposure_ms": 1e9, "exposure_ms_561": -3.0, "z_start_um": None})]
    ['exposure_ms is 1e+09', 'exposure_ms_561 is -3']
    """
    for name, value in numbers.items():
        if value is None:
            continue
        if name in EXPOSURES.values() and not SHORTEST_MS <= value <= LONGEST_MS:  # NaN neither
            yield ConfigError(f"{name} is {value:g}", do=f"write milliseconds, {SHORTEST_MS:g} to {LONGEST_MS:.0f}")
        if name == Z_START and not abs(value) <= FARTHEST_UM:
            do = f"write micrometres of the focus stage, -{FARTHEST_UM:.0f} to {FARTHEST_UM:.0f}"
            yield ConfigError(f"{name} is {value:g}", do=do)


def imaging_of(numbers: Mapping[str, float | None]) -> WellImaging:
    """A well's imaging by the map's columns; ConfigError for what no instrument can do."""
    exposures = {channel: value for channel, name in EXPOSURES.items() if (value := numbers[name]) is not None}
    return WellImaging(MappingProxyType(exposures), numbers[Z_START])
