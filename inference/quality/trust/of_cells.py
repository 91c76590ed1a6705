"""Rules over what was found in a stack: there are cells, as large as cells are, and as long in depth as sideways."""

import math

from spheroidd.inference.quality.trust.evidence import LIMITS, Flags, RowEvidence, TrustLimits
from spheroidd.inference.quality.trust.of_images import is_blurred
from spheroidd.protocols.results import USUAL_CELL_UM, Limits, StackMeasurement
from spheroidd.protocols.stack import DEAD_CHANNEL, LIVE_CHANNEL
from spheroidd.protocols.trust import TrustFlag


def nothing_found(row: RowEvidence, limits: TrustLimits) -> Flags:
    """No cell was found; or there is volume, and next to no cell in it.

    Many cells that run into one another, as in a blurred core, are cells: their size asks somebody to look.
    """
    measured = row.measurement
    body_um3 = limits.body_um3 * _times(measured) ** 3
    known = [n for n in (measured.n_live, measured.n_dead) if n is not None]
    if known and sum(known) == 0:
        yield TrustFlag.NO_CELL
    for n, volume in ((measured.n_live, measured.live_um3), (measured.n_dead, measured.dead_um3)):
        if row.seen.masks is None or n is None or volume is None or n >= limits.many:
            continue
        if volume > body_um3 * max(n, 1):
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
    if fits and (small or large) and live_fits and dead_fits and not is_blurred(row.seen, limits):
        yield TrustFlag.CHANNELS_EXCHANGED
        return
    for n, size, physical in ((n_live, live, limits.live_um3), (n_dead, dead, limits.dead_um3)):
        if n >= limits.enough and _beyond(size, n, physical, limits):
            yield TrustFlag.OBJECT_SIZE
    shape = row.seen.masks.masks.get(DEAD_CHANNEL)
    narrow_um = limits.dead_chord_um * _times(row.measurement)
    if n_dead >= limits.enough and shape and shape.chord_x_um and shape.chord_x_um < narrow_um:
        yield TrustFlag.OBJECT_SIZE


def _beyond(size: float | None, n: int, physical: tuple[float, float], limits: TrustLimits) -> bool:
    """Whether the mean volume of n objects lies outside of a range by more than two of its standard errors."""
    if size is None:
        return False
    room = 1 + 2 * limits.spread / math.sqrt(n)
    return size * room < physical[0] or size > room * physical[1]


def sizes(measured: StackMeasurement) -> tuple[float | None, float | None]:
    """The mean volume of a live and of a dead object, um3, as if cells were as wide as the usual ones."""
    pairs = ((measured.live_um3, measured.n_live), (measured.dead_um3, measured.n_dead))
    times = _times(measured) ** 3
    live, dead = (volume / n / times if volume is not None and n else None for volume, n in pairs)
    return live, dead


def _times(measured: StackMeasurement) -> float:
    """How many times wider cells were stated to be than the usual ones, to which all thresholds belong."""
    return (measured.cell_diameter_um or USUAL_CELL_UM) / USUAL_CELL_UM


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
