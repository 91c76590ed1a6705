"""What was found where a well's focus was looked for: a row of the plate's focus map."""

from dataclasses import dataclass
from enum import StrEnum

from spheroidd.protocols.stack import StackKey


class FocusStatus(StrEnum):
    """How a stack came to its focus."""

    FOUND = "found"  # in its own images
    NEIGHBOURS = "neighbours"  # not found in them: taken from the wells around
    FAILED = "failed"  # the stack was not taken


@dataclass(frozen=True, slots=True)
class FocusFound:
    """A stack's focus. Lengths are micrometres in the stages' own coordinates.

    `curve` holds (z, focus measure) of every image that was looked at, upwards; `first_z_um` is where the stack's first
    slice lies; `predicted_z_um` what the wells around said before, None where there were none. An `outlier` lies
    further from that than the settings allow. `reason` says why the focus was not found, "" where it was.
    """

    key: StackKey
    status: FocusStatus
    channel: str
    x_um: float
    y_um: float
    focus_z_um: float | None
    first_z_um: float | None
    predicted_z_um: float | None
    outlier: bool
    curve: tuple[tuple[float, float], ...]
    reason: str = ""
