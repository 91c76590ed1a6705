"""What shows of a row only beside the other stacks of its plate, and what is usual there."""

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

from spheroidd.inference.quality.trust.evidence import LIMITS, Flags, RowEvidence, TrustLimits
from spheroidd.inference.quality.trust.of_cells import sizes
from spheroidd.protocols.plate import WellRole
from spheroidd.protocols.stack import CHANNELS, LIVE_CHANNEL
from spheroidd.protocols.trust import TrustFlag

_NO_PICTURE = frozenset((TrustFlag.CAMERA_NOISE, TrustFlag.CHANNEL_FLAT))
"""With these nothing that another stack shows says more."""


@dataclass(frozen=True, slots=True)
class RowFigures:
    """What a row adds to its plate's levels and is judged by beside them: figures of its own, which do not change as
    long as the row does not. A plate of 1536 wells asks for them some hundred times.
    """

    role: WellRole
    n_cells: int
    live_adu: float | None
    sharpness: Mapping[str, float]
    sizes: tuple[float | None, float | None]
    v_count: float | None
    images: tuple[float | None, ...] = ()  # what no other images have, to every digit
    brightness: float | None = None  # in windows of the limits, in the better channel
    none_dead: bool = False  # not one dead cell, and 561 shows what 488 shows

    @classmethod
    def of(cls, row: RowEvidence, limits: TrustLimits = LIMITS) -> Self:
        """The figures of one row."""
        sharp = {channel: value for channel in CHANNELS if (value := _sharpness(row, channel)) is not None}
        adu = _adu(row, LIVE_CHANNEL) if row.seen.profile else None
        many = (_many(row, 0, limits), _many(row, 1, limits))
        return cls(
            row.role,
            _n_cells(row),
            adu,
            sharp,
            many,
            row.measurement.v_count,
            _images(row),
            _brightness(row),
            _none_dead(row, limits),
        )


@dataclass(frozen=True, slots=True)
class PlateLevels:
    """What is usual on a plate: medians over the rows that are sound by themselves; None where too few say it.

    `upper` and `lower` are the V count of untreated and of killed wells, of all rows that are not excluded.
    """

    compared: bool = False  # there are enough sound rows to compare with
    live_adu: float | None = None
    n_cells: float = 0.0
    sharpness: Mapping[str, float] = field(default_factory=dict)
    sizes: tuple[float | None, float | None] = (None, None)
    upper: float | None = None
    lower: float = 0.0
    twice: frozenset[tuple[float | None, ...]] = frozenset()  # images that several rows have

    @classmethod
    def of(cls, sound: Sequence[RowFigures], rows: Sequence[RowFigures], limits: TrustLimits = LIMITS) -> Self:
        """The levels of a plate: `rows` are those that are not excluded, `sound` those of them without own flags."""
        adu = [row.live_adu for row in sound if row.role is WellRole.NEGATIVE_CONTROL and row.live_adu is not None]
        sharp = {channel: [row.sharpness[channel] for row in sound if channel in row.sharpness] for channel in CHANNELS}
        usual = [[size for row in sound if (size := row.sizes[which]) is not None] for which in (0, 1)]
        live, dead = (statistics.median(found) if len(found) >= limits.compared else None for found in usual)
        alive = {
            role: [row.v_count for row in rows if row.role is role and row.v_count is not None]
            for role in (WellRole.NEGATIVE_CONTROL, WellRole.POSITIVE_CONTROL)
        }
        untreated, killed = alive[WellRole.NEGATIVE_CONTROL], alive[WellRole.POSITIVE_CONTROL]
        return cls(
            compared=len(sound) >= limits.compared,
            live_adu=statistics.median(adu) if adu else None,
            n_cells=statistics.median(row.n_cells for row in sound) if sound else 0.0,
            sharpness={c: statistics.median(found) for c, found in sharp.items() if len(found) >= limits.compared},
            sizes=(live, dead),
            upper=statistics.median(untreated) if untreated else None,
            lower=statistics.median(killed) if killed else 0.0,
            twice=frozenset(one for one, n in Counter(row.images for row in rows).items() if one and n > 1),
        )


def beside_plate(
    row: RowFigures, own: frozenset[TrustFlag], levels: PlateLevels, limits: TrustLimits = LIMITS
) -> Flags:
    """What shows of a row only beside the other stacks of the plate; of an excluded one nothing is to be asked.

    `own` are the flags that it has by itself: where its images say nothing, there is nothing to compare.
    """
    if not own & _NO_PICTURE:
        yield from _dim(row, levels, limits)
        yield from _without_dead(row, levels, limits)
        yield from _blunt(row, levels, limits)
        yield from _odd_sizes(row, levels, limits)
        if row.images in levels.twice:
            yield TrustFlag.REPEATED_SLICE
    yield from _controls(row, levels, limits)


def _dim(row: RowFigures, levels: PlateLevels, limits: TrustLimits) -> Flags:
    """Darker than the plate in both channels; or without calcein where untreated wells have much of it."""
    if levels.compared and row.brightness is not None and row.brightness < limits.dim:
        yield TrustFlag.TOO_DIM
    usual = levels.live_adu
    if usual is not None and row.live_adu is not None and row.live_adu < limits.live_contrast * usual:
        yield TrustFlag.LIVE_DYE_ABSENT


def _without_dead(row: RowFigures, levels: PlateLevels, limits: TrustLimits) -> Flags:
    """Few cells, none of them dead, and 561 shows what 488 shows: the dead ones were not stained."""
    if levels.compared and row.none_dead and 0 < row.n_cells < limits.few_cells * levels.n_cells:
        yield TrustFlag.DEAD_DYE_ABSENT


def _blunt(row: RowFigures, levels: PlateLevels, limits: TrustLimits) -> Flags:
    """Blurred beside the plate's other stacks, in the channel where it does best."""
    ratios = [row.sharpness[channel] / usual for channel, usual in levels.sharpness.items() if channel in row.sharpness]
    if ratios and max(ratios) < limits.sharp:
        yield TrustFlag.OUT_OF_FOCUS


def _odd_sizes(row: RowFigures, levels: PlateLevels, limits: TrustLimits) -> Flags:
    """Cells of another size than the plate's."""
    for size, middle in zip(row.sizes, levels.sizes, strict=True):
        if middle is None or size is None:
            continue
        if not limits.beside_plate[0] <= size / middle <= limits.beside_plate[1]:
            yield TrustFlag.OBJECT_SIZE


def _controls(row: RowFigures, levels: PlateLevels, limits: TrustLimits) -> Flags:
    """Untreated wells are more alive than killed ones: each control lies on its own side of the middle between them.

    Where the sides are exchanged, every figure of the plate that rests on controls is in doubt.
    """
    if levels.upper is None:
        return
    if levels.upper < limits.untreated_alive or levels.upper <= levels.lower:
        yield TrustFlag.CONTROLS_WRONG_SIDE
        return
    alive, middle = row.v_count, (levels.upper + levels.lower) / 2
    if alive is None:
        return
    below = row.role is WellRole.NEGATIVE_CONTROL and alive < middle
    if below or (row.role is WellRole.POSITIVE_CONTROL and alive > middle):
        yield TrustFlag.CONTROLS_WRONG_SIDE


def _images(row: RowEvidence) -> tuple[float | None, ...]:
    """Figures of a stack's light that two stacks have alike only where a file was copied: noise never repeats."""
    light = row.seen.light
    if light is None or light.correlation is None:
        return ()
    channels = (light.channels[name] for name in sorted(light.channels))
    return light.correlation, light.bleed, light.shade, *(value for one in channels for value in (one.low, one.noise))


def _brightness(row: RowEvidence) -> float | None:
    """Of the better channel, in windows of the limits it was scored with; None where that is not known."""
    light = row.seen.light
    parts = [
        (light.channels[channel].high - light.channels[channel].low) / (used.high - used.low)
        for channel, used in row.measurement.limits.items()
        if light is not None and channel in light.channels and used.high > used.low
    ]
    return max(parts, default=None)


def _none_dead(row: RowEvidence, limits: TrustLimits) -> bool:
    light = row.seen.light
    alike = light is not None and (light.correlation or 0.0) > limits.no_dead_beside
    return alike and row.measurement.n_dead == 0


def _n_cells(row: RowEvidence) -> int:
    return (row.measurement.n_live or 0) + (row.measurement.n_dead or 0)


def _adu(row: RowEvidence, channel: str) -> float:
    found = row.seen.profile.channels.get(channel) if row.seen.profile else None
    return found.contrast_adu if found else 0.0


def _sharpness(row: RowEvidence, channel: str) -> float | None:
    found = row.seen.profile.channels.get(channel) if row.seen.profile else None
    return found.sharpness if found else None


def _many(row: RowEvidence, which: int, limits: TrustLimits) -> float | None:
    n = (row.measurement.n_live, row.measurement.n_dead)[which] if row.seen.masks else None
    return sizes(row.measurement)[which] if n is not None and n >= 2 * limits.enough else None
