"""What makes a row doubtful: rules over what was measured of its stack alone, and of the other stacks of its plate.

A rule yields flags of `protocols.trust`, whose table says what each means. Most rules need no other stack, so that the
first well of a plate is judged as the last one is: there is structure above the camera's noise, cells were found, they
are as large as cells are and as long in depth as sideways, the channels differ. Where nothing is known of a stack,
because an older version scored it, its rules find nothing.

Thresholds lie between what healthy emulated wells show and what spoiled ones do; docs/trust.md has the figures.
"""

import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

from spheroidd.inference.quality.image_profile import LAG_UM, sharpness_lag
from spheroidd.inference.quality.stack_quality import STACK_LIMITS
from spheroidd.protocols.evidence import MaskEvidence, StackLight
from spheroidd.protocols.plate import WellRole
from spheroidd.protocols.results import Limits, StackMeasurement, StackProfile
from spheroidd.protocols.stack import CHANNELS, DEAD_CHANNEL, LIVE_CHANNEL, StackKey, StackPlan
from spheroidd.protocols.trust import TrustFlag


@dataclass(frozen=True, slots=True)
class TrustLimits:
    """What a row keeps within that can be believed. Volumes are um3 an object, the mask's volume over the count."""

    clipped: float = 1.5  # own 98th percentile over the limit it was scored with, as counts
    clipped_window: float = 1.7  # and above the lower limit, in windows
    structure: float = 2.0  # contrast over camera noise in the better channel
    structure_alone: float = 1.3  # and in one: dead wells of dim plates have 2 in 488, a channel without dye .9
    live_contrast: float = 0.03  # of the untreated wells': dead wells keep .06 and more of autofluorescence
    dim: float = 0.3  # brightness over the limits' window, in the better channel; healthy wells have .45 and more
    live_inside: float = 0.12  # how bright 488 is inside the live mask, in windows: living cells have .19 and more
    live_um3: tuple[float, float] = (350.0, 1300.0)
    dead_um3: tuple[float, float] = (105.0, 520.0)
    dead_chord_um: float = 3.5  # mean length sideways: dead nuclei have 3.9 and more, specks up to 3.4
    spread: float = 0.5  # sd of single volumes over their mean: nuclei break, and the field's faces cut cells
    exchanged_live_um3: float = 420.0  # "live cells" as small as nuclei
    exchanged_dead_um3: float = 480.0  # and "dead nuclei" as large as bodies
    beside_plate: tuple[float, float] = (0.55, 1.8)  # volume an object over the plate's median
    body_um3: float = 2500.0  # more in a mask for each object is no cell
    aspect: tuple[float, float] = (0.75, 1.5)  # length in depth over length sideways
    coarse_um: float = 2.0  # z-step from which on nuclei look longer than they are, as they lie between slices
    longer: float = 0.55  # by so much for each um more: dead ones have 1.65 at 3 um, 2.6 at 4
    enough: int = 10  # objects to judge their mean by
    some: int = 5
    same: float = 0.98  # correlation of two channels that hold the same image
    alike: float = 0.8  # and of those that show the same things: debris takes both dyes
    bleed: float = 0.25  # more than any filter lets through
    together: float = 0.6  # correlation of channels where dead cells do not lie below living ones
    both_dyes: float = 0.6  # brightness of 488 in the dead mask over that in the live one
    no_dead_alike: float = 0.985  # without a dead cell, 561 is nothing but bleed-through
    no_dead_beside: float = 0.9  # the same, where there are few cells altogether
    few_cells: float = 0.35  # of the plate's median count
    sharp_per_um2: float = 0.2  # sharpness over the square of its lag, as long as that is short
    sharp_um: float = 1.8  # at long lags structures differ no more than they can
    sharp: float = 0.6  # sharpness over the plate's median
    shade: float = 0.75  # small fields of few dead nuclei have .77 by chance
    compared: int = 4  # stacks that make a plate to compare with
    foreign: float = 1.0  # distance of the network's features over the largest of healthy emulated stacks
    untreated_alive: float = 0.3  # V count that untreated wells have at least


LIMITS = TrustLimits()


@dataclass(frozen=True, slots=True)
class Seen:
    """What was measured of a stack besides its counts; None where an older version scored it."""

    light: StackLight | None = None
    masks: MaskEvidence | None = None
    profile: StackProfile | None = None
    depth_um: float = 0.0
    z_step_um: float = 1.0
    lag_um: float = LAG_UM  # at which sharpness was measured
    widefield: bool = False  # made of raw frames, and no slice of it has a pattern

    @classmethod
    def of(
        cls,
        plan: StackPlan,
        *,
        light: StackLight | None,
        profile: StackProfile | None,
        masks: MaskEvidence | None = None,
        widefield: bool = False,
    ) -> Self:
        """What was seen of the stack with this plan."""
        depth_um, lag_um = plan.n_z * plan.z_step_um, sharpness_lag(plan) * plan.pixel_um
        return cls(light, masks, profile, depth_um, plan.z_step_um, lag_um, widefield)


@dataclass(frozen=True, slots=True)
class RowEvidence:
    """What is known of one scored stack when it is judged. One that is `excluded` is no measure for others."""

    key: StackKey
    role: WellRole
    measurement: StackMeasurement
    seen: Seen = field(default_factory=Seen)
    excluded: bool = False


Flags = Iterator[TrustFlag]
Rule = Callable[[RowEvidence, TrustLimits], Flags]


def without_pattern(row: RowEvidence, limits: TrustLimits) -> Flags:
    """Raw frames whose pattern is nowhere to be found make widefield images, which are less sharp than the plate's."""
    if row.seen.widefield:
        yield TrustFlag.WIDEFIELD


def foreign(row: RowEvidence, limits: TrustLimits) -> Flags:
    """The network answers to anything; its own features say whether the images are of the kind that it knows."""
    if (row.measurement.foreign_score or 0.0) > limits.foreign:
        yield TrustFlag.FOREIGN


# -- light -------------------------------------------------------------------------------------------------------------


def clipped(row: RowEvidence, limits: TrustLimits) -> Flags:
    """A channel is brighter than the limits it was scored with: what lies above them was cut off."""
    for channel, used in row.measurement.limits.items():
        own = row.measurement.quantiles.get(channel, {}).get("0.98", 0.0)
        beyond = (own - used.low) / (used.high - used.low) if used.high > used.low else 0.0
        if own > limits.clipped * used.high or beyond > limits.clipped_window:
            yield TrustFlag.CLIPPED


def structure(row: RowEvidence, limits: TrustLimits) -> Flags:
    """Each channel shows something above its camera's noise, or it holds no image."""
    light, profile = row.seen.light, row.seen.profile
    if light is None or profile is None:
        return
    shown = {channel: _contrast(row, channel) for channel in CHANNELS if channel in light.channels}
    flat = [channel for channel in shown if _constant(light, channel)]
    if flat:
        yield TrustFlag.CHANNEL_FLAT
    if len(flat) < len(shown) and shown and all(contrast <= 0 for contrast in shown.values()):
        yield TrustFlag.CAMERA_NOISE
    elif shown and max(shown.values()) < limits.structure:
        yield TrustFlag.TOO_DIM
    elif shown.get(LIVE_CHANNEL, math.inf) < limits.structure_alone:
        yield TrustFlag.LIVE_DYE_ABSENT
    elif shown.get(DEAD_CHANNEL, math.inf) < limits.structure_alone:
        yield TrustFlag.DEAD_DYE_ABSENT


def _contrast(row: RowEvidence, channel: str) -> float:
    """Contrast over camera noise; 0 where the channel is the same everywhere."""
    light, profile = row.seen.light, row.seen.profile
    if light is None or profile is None or channel not in profile.channels or _constant(light, channel):
        return 0.0
    return profile.channels[channel].contrast_adu / max(light.channels[channel].noise, 1.0)


def _constant(light: StackLight, channel: str) -> bool:
    one = light.channels[channel]
    return one.noise == 0 and one.high == one.low == one.peak


def saturated(row: RowEvidence, limits: TrustLimits) -> Flags:
    """Pixels stand at the camera's ceiling, and the channel is not simply the same everywhere."""
    light, profile = row.seen.light, row.seen.profile
    for channel, seen in profile.channels.items() if profile else ():
        flat = light is not None and channel in light.channels and _constant(light, channel)
        if seen.saturated_share >= STACK_LIMITS.saturated_warn and not flat:
            yield TrustFlag.SATURATED


def channels_alike(row: RowEvidence, limits: TrustLimits) -> Flags:
    """Two dyes show different cells. More light in common than a filter lets through is the same image, or debris."""
    light = row.seen.light
    if light is None or light.correlation is None:
        return
    # Through the filter or against it: PI leaks into 488 as calcein does into 561, and far less.
    much = light.bleed is not None and light.bleed > limits.bleed
    if much and light.correlation > limits.same:
        yield TrustFlag.CHANNELS_IDENTICAL
    elif much and light.correlation > limits.alike:
        yield TrustFlag.DEBRIS_ONLY


def dead_dye(row: RowEvidence, limits: TrustLimits) -> Flags:
    """Where not one dead cell is among many, and 561 shows what 488 shows, nothing was stained with PI."""
    light, measured = row.seen.light, row.measurement
    if light is None or light.correlation is None or measured.n_dead != 0 or not measured.n_live:
        return
    # Autofluorescence and dying cells of a healthy well still stand out of it: .976 at most.
    if light.correlation > limits.no_dead_alike:
        yield TrustFlag.DEAD_DYE_ABSENT


def moved(row: RowEvidence, limits: TrustLimits) -> Flags:
    """The sample jumped or drifted while it was imaged."""
    profile = row.seen.profile
    if profile is None:
        return
    jumped = profile.jump_um is not None and profile.jump_um >= STACK_LIMITS.jump_um
    drift_um = STACK_LIMITS.drift_um * max(1.0, row.seen.depth_um / 100)
    if jumped or (profile.drift_um is not None and profile.drift_um >= drift_um):
        yield TrustFlag.DRIFT


def shaded(row: RowEvidence, limits: TrustLimits) -> Flags:
    """All channels change at one straight edge."""
    light = row.seen.light
    if light is not None and light.shade is not None and light.shade < limits.shade:
        yield TrustFlag.SHADED


def repeated(row: RowEvidence, limits: TrustLimits) -> Flags:
    """A slice holds the bytes of another: a camera's noise never repeats."""
    if row.seen.light is not None and row.seen.light.repeated:
        yield TrustFlag.REPEATED_SLICE


def out_of_focus(row: RowEvidence, limits: TrustLimits) -> Flags:
    """Neighbours at the distance of a fine structure are as alike as those at half of it."""
    profile = row.seen.profile
    sharp = [one.sharpness for one in profile.channels.values() if one.sharpness is not None] if profile else []
    square = row.seen.lag_um**2
    if sharp and max(sharp) < limits.sharp_per_um2 * square / (1 + square / limits.sharp_um**2):
        yield TrustFlag.OUT_OF_FOCUS


# -- cells -------------------------------------------------------------------------------------------------------------


def nothing_found(row: RowEvidence, limits: TrustLimits) -> Flags:
    """No cell was found; or there is volume, and no cell in it."""
    measured = row.measurement
    known = [n for n in (measured.n_live, measured.n_dead) if n is not None]
    if known and sum(known) == 0:
        yield TrustFlag.NO_CELL
    for n, volume in ((measured.n_live, measured.live_um3), (measured.n_dead, measured.dead_um3)):
        if row.seen.masks and n is not None and volume is not None and volume > limits.body_um3 * max(n, 1):
            yield TrustFlag.VOLUME_WITHOUT_OBJECTS


def live_light(row: RowEvidence, limits: TrustLimits) -> Flags:
    """What is called live shines in 488."""
    inside = _inside(row, LIVE_CHANNEL, LIVE_CHANNEL)
    if inside is not None and (row.measurement.n_live or 0) >= limits.some and inside < limits.live_inside:
        yield TrustFlag.LIVE_DYE_ABSENT


def debris(row: RowEvidence, limits: TrustLimits) -> Flags:
    """Specks are smaller than nuclei, and take both dyes.

    Size alone says nothing: nuclei of killed cells shrink to an eighth of their volume. But no dead cell holds calcein.
    """
    together = row.seen.light is not None and (row.seen.light.correlation or 0.0) > limits.together
    if row.seen.masks is None or not together:
        return
    _, dead = sizes(row.measurement)
    n_live, n_dead = row.measurement.n_live or 0, row.measurement.n_dead or 0
    if n_dead >= limits.some and dead is not None and dead < limits.dead_um3[0] and n_live < limits.some:
        yield TrustFlag.DEBRIS_ONLY
    own, other = _inside(row, LIVE_CHANNEL, LIVE_CHANNEL), _inside(row, DEAD_CHANNEL, LIVE_CHANNEL)
    if own is None or other is None or min(n_live, n_dead) < limits.some:
        return
    if other > limits.both_dyes * own:
        yield TrustFlag.DEBRIS_ONLY


def cell_sizes(row: RowEvidence, limits: TrustLimits) -> Flags:
    """Cells are as large as cells are, and as long in depth as sideways; bodies are larger than nuclei."""
    if row.seen.masks is None:
        return
    aspect = mean_aspect(row, limits)
    longest = limits.aspect[1] + limits.longer * max(0.0, row.seen.z_step_um - limits.coarse_um)
    fits = aspect is None or limits.aspect[0] <= aspect <= longest
    if not fits:
        yield TrustFlag.PIXEL_SIZE
    live, dead = sizes(row.measurement)
    n_live, n_dead = row.measurement.n_live or 0, row.measurement.n_dead or 0
    small = n_live >= limits.some and _beyond(live, n_live, (limits.exchanged_live_um3, math.inf), limits)
    large = n_dead >= limits.some and _beyond(dead, n_dead, (0.0, limits.exchanged_dead_um3), limits)
    live_fits = n_live < limits.some or small
    dead_fits = n_dead < limits.some or large
    if fits and (small or large) and live_fits and dead_fits and not _blurred(row, limits):
        yield TrustFlag.CHANNELS_EXCHANGED
        return
    for n, size, physical in ((n_live, live, limits.live_um3), (n_dead, dead, limits.dead_um3)):
        if n >= limits.enough and _beyond(size, n, physical, limits):
            yield TrustFlag.OBJECT_SIZE
    shape = row.seen.masks.masks.get(DEAD_CHANNEL)
    if n_dead >= limits.enough and shape and shape.chord_x_um and shape.chord_x_um < limits.dead_chord_um:
        yield TrustFlag.OBJECT_SIZE


def _beyond(size: float | None, n: int, physical: tuple[float, float], limits: TrustLimits) -> bool:
    """Whether the mean volume of n objects lies outside of a range by more than two of its standard errors."""
    if size is None:
        return False
    room = 1 + 2 * limits.spread / math.sqrt(n)
    return size * room < physical[0] or size > room * physical[1]


def sizes(measured: StackMeasurement) -> tuple[float | None, float | None]:
    """The mean volume of a live and of a dead object, um3."""
    pairs = ((measured.live_um3, measured.n_live), (measured.dead_um3, measured.n_dead))
    live, dead = (volume / n if volume is not None and n else None for volume, n in pairs)
    return live, dead


def mean_aspect(row: RowEvidence, limits: TrustLimits = LIMITS) -> float | None:
    """How much longer cells are in depth than sideways: of dead nuclei, which stand apart, else of living bodies."""
    counts = {DEAD_CHANNEL: row.measurement.n_dead or 0, LIVE_CHANNEL: row.measurement.n_live or 0}
    for channel, n in counts.items():
        shape = row.seen.masks.masks.get(channel) if row.seen.masks else None
        if n >= limits.enough and shape and shape.chord_z_um and shape.chord_x_um:
            return shape.chord_z_um / shape.chord_x_um
    return None


def _inside(row: RowEvidence, mask: str, channel: str) -> float | None:
    """How bright a channel is inside a mask, in windows of the limits it was scored with."""
    shape = row.seen.masks.masks.get(mask) if row.seen.masks else None
    value, used = (shape.inside.get(channel) if shape else None), row.measurement.limits.get(channel)
    return None if value is None or used is None or used.high <= used.low else _window(value, used)


def _window(value: float, used: Limits) -> float:
    return (value - used.low) / (used.high - used.low)


def _blurred(row: RowEvidence, limits: TrustLimits) -> bool:
    return any(True for _ in out_of_focus(row, limits))


RULES: tuple[Rule, ...] = (
    *(clipped, structure, saturated, channels_alike, dead_dye, moved, shaded, repeated, out_of_focus),
    without_pattern,
    foreign,
    *(nothing_found, live_light, debris, cell_sizes),
)


_NO_PICTURE = frozenset((TrustFlag.CAMERA_NOISE, TrustFlag.CHANNEL_FLAT))
"""With these nothing that another stack shows says more."""


# -- beside the plate --------------------------------------------------------------------------------------------------


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


def flags_of(rows: Sequence[RowEvidence], limits: TrustLimits = LIMITS) -> dict[StackKey, frozenset[TrustFlag]]:
    """The flags of every scored row of a plate by one model: its own, and those that show beside the others."""
    own = {row.key: own_flags(row, limits) for row in rows}
    figures = {row.key: RowFigures.of(row, limits) for row in rows if not row.excluded}
    sound = [one for key, one in figures.items() if not own[key]]
    levels = PlateLevels.of(sound, list(figures.values()), limits)
    beside = {key: beside_plate(one, own[key], levels, limits) for key, one in figures.items()}
    return {key: flags.union(beside.get(key, ())) for key, flags in own.items()}


def own_flags(row: RowEvidence, limits: TrustLimits = LIMITS) -> frozenset[TrustFlag]:
    """The flags of one row by itself."""
    found = {flag for rule in RULES for flag in rule(row, limits)}
    if TrustFlag.PIXEL_SIZE in found:  # what is sharp is judged by micrometres, too
        found.discard(TrustFlag.OUT_OF_FOCUS)
    return frozenset(found)
