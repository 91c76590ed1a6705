"""What a recorded plate is made to suffer when it is streamed again: faults as data, for tests and for trying out.

    [[source.faults]]
    kind = "drop"
    well = "B03"
    channel = "561"
    z = 17

Without `well`, `channel` or `z` a fault meets every one.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator

from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.pixels import Pixels
from spheroidd.protocols.ports import Clock
from spheroidd.protocols.stack import SliceIndex, StackKey
from spheroidd.protocols.well import WellId

DAMAGED_ROWS = 8


class ReplayFault(BaseModel):
    """Something that goes wrong when the replay comes to a slice.

    drop: it does not come. duplicate: it comes twice. reorder: it comes `later` slices later. stall: it comes `seconds`
    late. corrupt: some of its pixels are others than those recorded. short: the stack ends before it, without a word.
    A fault happens `times` times in a source's life.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["drop", "duplicate", "reorder", "stall", "corrupt", "short"]
    well: str | None = None
    channel: Literal["488", "561"] | None = None
    z: int | None = Field(default=None, ge=0)
    seconds: float = Field(default=5.0, ge=0, allow_inf_nan=False)
    later: int = Field(default=3, ge=1)
    times: int = Field(default=1_000_000, ge=1)

    @field_validator("well")
    @classmethod
    def _is_a_well(cls, text: str | None) -> str | None:
        try:
            return None if text is None else str(WellId.parse(text))
        except ConfigError as error:
            raise ValueError(str(error)) from error

    def meets(self, key: StackKey, index: SliceIndex) -> bool:
        """Whether it is meant for this slice."""
        return (
            self.well in (None, str(key.well)) and self.channel in (None, index.channel) and self.z in (None, index.z)
        )


class FaultyReel:
    """Hands slices on as the faults have it; remembers how often each has happened."""

    def __init__(self, faults: Iterable[ReplayFault], clock: Clock) -> None:
        self._faults, self._clock = tuple(faults), clock
        self._happened = [0] * len(self._faults)

    def play(
        self, key: StackKey, order: Iterable[SliceIndex], read: Callable[[SliceIndex], Pixels]
    ) -> Iterator[tuple[SliceIndex, Pixels]]:
        """The slices of `order` with their pixels as `read` gives them, or what the faults make of that."""
        held: list[tuple[int, SliceIndex, Pixels]] = []  # (how many slices go before it, slice)
        for index in order:
            faults = list(self._due(key, index))
            kinds = {fault.kind for fault in faults}
            if "short" in kinds:
                return
            for fault in faults:
                if fault.kind == "stall":
                    self._clock.sleep(fault.seconds)
            pixels = read(index)
            if "corrupt" in kinds:
                pixels = damaged(pixels)
            late = max((fault.later for fault in faults if fault.kind == "reorder"), default=0)
            if "drop" not in kinds and not late:
                yield from [(index, pixels)] * (2 if "duplicate" in kinds else 1)
            held = [(left - 1, which, what) for left, which, what in held]
            yield from ((which, what) for left, which, what in held if left == 0)
            held = [waiting for waiting in held if waiting[0] > 0]
            if late and "drop" not in kinds:
                held.append((late, index, pixels))
        yield from ((which, what) for _, which, what in held)

    def _due(self, key: StackKey, index: SliceIndex) -> Iterator[ReplayFault]:
        for n, fault in enumerate(self._faults):
            if fault.meets(key, index) and self._happened[n] < fault.times:
                self._happened[n] += 1
                yield fault


def damaged(pixels: Pixels) -> Pixels:
    """A copy with the lowest bit of its first rows turned over: what no eye sees and every checksum does."""
    spoilt = np.array(pixels)
    spoilt[:DAMAGED_ROWS] ^= 1
    return spoilt
