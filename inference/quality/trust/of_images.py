"""Rules over a stack's own images: there is structure above the camera's noise, the channels differ, it is in focus."""

import math

from spheroidd.inference.quality.stack_quality import STACK_LIMITS
from spheroidd.inference.quality.trust.evidence import Flags, RowEvidence, Seen, TrustLimits
from spheroidd.protocols.evidence import StackLight
from spheroidd.protocols.stack import CHANNELS, DEAD_CHANNEL, LIVE_CHANNEL
from spheroidd.protocols.trust import TrustFlag


def without_pattern(row: RowEvidence, limits: TrustLimits) -> Flags:
    """Raw frames whose pattern is nowhere to be found make widefield images, which are less sharp than the plate's."""
    if row.seen.widefield:
        yield TrustFlag.WIDEFIELD


def foreign(row: RowEvidence, limits: TrustLimits) -> Flags:
    """The network answers to anything; its own features say whether the images are of the kind that it knows.

    What shows most is told: in images that are unlike all that it knows cells mostly look of another width, too. How
    wide a few cells look is chance: the limit of it is as much wider as a mean over so few errs more.
    """
    if (row.measurement.foreign_score or 0.0) <= limits.foreign:
        return
    looks = row.seen.masks.looks if row.seen.masks else None
    if looks is None:
        yield TrustFlag.FOREIGN
        return
    counted = (row.measurement.n_live or 0) + (row.measurement.n_dead or 0)
    off = looks.width_off / math.sqrt(max(1.0, limits.cells_for_width / max(counted, 1)))
    if max(looks.unlike, off) <= limits.foreign:
        return
    if looks.unlike >= off:
        yield TrustFlag.FOREIGN
    else:
        yield TrustFlag.CELLS_SMALL if looks.width < 1 else TrustFlag.CELLS_LARGE


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
    if is_blurred(row.seen, limits):
        yield TrustFlag.OUT_OF_FOCUS


def is_blurred(seen: Seen, limits: TrustLimits) -> bool:
    """Whether a stack is out of focus by itself: in its sharper channel, at the lag that its pixels allow."""
    channels = seen.profile.channels.values() if seen.profile else ()
    detail = [one.detail for one in channels if one.detail is not None]
    if detail:
        return max(detail) < _least(seen.lag_um, limits.detail_per_um2, limits.detail_um)
    sharp = [one.sharpness for one in channels if one.sharpness is not None]
    return bool(sharp) and max(sharp) < _least(seen.lag_um, limits.sharp_per_um2, limits.sharp_um)


def _least(lag_um: float, per_um2: float, longest_um: float) -> float:
    """It grows with the square of the lag, and no further than structures can differ."""
    square = lag_um**2
    return per_um2 * square / (1 + square / longest_um**2)
