"""What was measured of a stack so that its row can be believed or doubted."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class ChannelLight:
    """How bright one channel of one stack is, in camera counts.

    `low`, `high` and `peak` are its 2nd, 98th and 99.8th percentiles after the 3x3x3 median. `saturated_share` is the
    part of raw pixels at the camera's ceiling, `noise` the sd of what differs between neighbouring raw pixels.
    """

    low: float
    high: float
    peak: float
    saturated_share: float
    noise: float = 0.0


@dataclass(frozen=True, slots=True)
class StackLight:
    """What one stack says of the plate's light, and its channels of each other.

    `bleed` is the 561 signal over the 488 signal where 488 is bright, None where the stack lacks a channel or 488 shows
    nothing: in a well of living cells it is the bleed-through of calcein into 561. `correlation` is Pearson's of the
    two channels, `shade` the ratio of brightness across the most sudden straight edge that both share (1: none).
    `repeated` counts the slices that hold the pixels of an earlier one.
    """

    channels: Mapping[str, ChannelLight]
    bleed: float | None
    correlation: float | None = None
    shade: float | None = None
    repeated: int = 0

    def to_json(self) -> dict[str, Any]:
        """Plain values, for the catalog."""
        return asdict(self)

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`."""
        channels = {name: ChannelLight(**one) for name, one in found["channels"].items()}
        return cls(channels, found["bleed"], found["correlation"], found["shade"], found.get("repeated", 0))


@dataclass(frozen=True, slots=True)
class MaskShape:
    """One mask of a stack: its mean length along z and along x (None without an edge), and how bright each channel is
    inside, in camera counts (None where the mask is empty).
    """

    chord_z_um: float | None
    chord_x_um: float | None
    inside: Mapping[str, float | None]


@dataclass(frozen=True, slots=True)
class StackLooks:
    """How a stack looks to its network beside those that it knows.

    `unlike` is the distance of its features over the largest of healthy stacks. `width` is how wide its cells look, in
    the width of those that the network was shown stacks of, and `width_off` how far that is from 1, over the largest of
    healthy stacks. Above 1 either is foreign.
    """

    unlike: float
    width: float
    width_off: float

    @property
    def foreign(self) -> float:
        """The larger of the two."""
        return max(self.unlike, self.width_off)


@dataclass(frozen=True, slots=True)
class MaskEvidence:
    """A network's masks beside the pixels: each mask's shape, by its channel, and how bright each channel is outside
    both. `looks` is None of networks without a reference, and where hardly a cell was found.
    """

    masks: Mapping[str, MaskShape]
    ground: Mapping[str, float | None]
    looks: StackLooks | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values, for the catalog."""
        return asdict(self)

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`."""
        masks, looks = {name: MaskShape(**one) for name, one in found["masks"].items()}, found.get("looks")
        return cls(masks, found["ground"], None if looks is None else StackLooks(**looks))
