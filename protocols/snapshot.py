"""A single image outside a run: what is asked of an instrument, and what comes of it."""

import math
from dataclasses import dataclass

from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.pixels import Pixels
from spheroidd.protocols.well import WellId

LONGEST_MS = 10_000.0  # a longer exposure would hold up whoever wants the instrument next


@dataclass(frozen=True, slots=True)
class SnapOrder:
    """One image of a channel. None leaves a thing as the plan has it (`exposure_ms`), or where it stands (the others).

    `field` is the number of the well's field; `z_um` is in the focus stage's own coordinates.
    """

    channel: str
    exposure_ms: float | None = None
    well: WellId | None = None
    field: int = 0
    z_um: float | None = None

    def __post_init__(self) -> None:
        if self.exposure_ms is not None and not 0 < self.exposure_ms <= LONGEST_MS:
            do = f"write milliseconds above 0, {LONGEST_MS:g} at most"
            raise ConfigError(f"exposure_ms is {self.exposure_ms:g}", where="snap", do=do)
        if self.z_um is not None and not math.isfinite(self.z_um):
            raise ConfigError(f"z_um is {self.z_um}", where="snap", do="write micrometres of the focus stage")
        if self.field < 0:
            raise ConfigError(f"field is {self.field}", where="snap", do="write 0 for a well's first field")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An image (y, x), and how it was taken: where the stages stood, in which well if in any, how long it was exposed.

    `ceiling_adu` is the largest count that the camera can give: a pixel that holds it is saturated. What the instrument
    does not say is None.
    """

    pixels: Pixels
    channel: str
    exposure_ms: float | None
    x_um: float
    y_um: float
    z_um: float
    well: WellId | None
    pixel_um: float
    ceiling_adu: int
    taken_s: float
