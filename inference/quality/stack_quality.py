"""Flags on stacks, from what their own slices showed and from the other stacks of the plate. Pure functions.

Clipping, hot pixels, moves, dark and repeated slices are faults on any plate. Focus, an empty field and bleaching are
judged beside the plate's own stacks, because what is sharp or fades depends on sample and objective: such a flag says
"unlike the others", and where half the plate is out of focus nothing is flagged.

Bleaching cannot be told from depth in one stack: light fades on its way, and cells lie unevenly. What is judged is the
slope of log brightness over depth, mean of the channels, beside the plate's median. Live and dead cells exchange light
between the channels, so their mean varies least (sd 0.25 to 0.3 on emulated plates): a stack must lose about 60 % more
than the others to stand out. A plate that bleaches as a whole is not seen.

On an emulated plate of 59 healthy stacks nothing was flagged. Of 8 stacks each, made worse: blur of 0.5 / 0.7 / 1.0 um
(sigma; 0.22 as it should be) was found in 3 / 5 / 8, bleaching of 60 / 75 / 90 % (the plate's: 15 %) in 2 / 7 / 8.
"""

import itertools
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from spheroidd.inference.quality.control_statistics import robust_sd
from spheroidd.protocols.phrase import phrase
from spheroidd.protocols.quality import QualityFlag, Verdict
from spheroidd.protocols.results import ChannelProfile, StackProfile
from spheroidd.protocols.stack import SliceIndex, StackKey


@dataclass(frozen=True, slots=True)
class StackLimits:
    """What a healthy stack keeps within."""

    saturated_warn: float = 0.001  # of the pixels
    saturated_fail: float = 0.05
    hot_share: float = 0.001
    drift_um: float = 4.0  # for each 100 um of depth, or in a shallower stack: a third of a cell's width
    jump_um: float = 2.0
    slice_ratio: float = 0.5  # brightness of a slice over that of the one beside it
    lost_slices_fail: float = 0.05  # dark, flashed or repeated, of the stack
    sharpness_warn: float = 0.6  # of the plate's median
    sharpness_fail: float = 0.35
    sharpness_z: float = 3.0
    contrast: float = 0.3  # of the plate's median, in every channel
    bleached_left: float = 0.5  # of the light that the plate's median stack keeps from first to last slice
    bleached_z: float = 3.5
    bleached_spread: float = 0.25  # of the slopes, where the plate's own stacks happen to agree better
    min_stacks: int = 6  # to be compared with each other


STACK_LIMITS = StackLimits()
FAINT = 0.02  # of the brightest slice: steps below that are noise


@dataclass(frozen=True, slots=True)
class StackEvidence:
    """One stack's profile, how deep it is, and the slices whose bytes are those of the slice before (or of the other
    channel).
    """

    key: StackKey
    profile: StackProfile
    depth_um: float
    repeated: tuple[SliceIndex, ...] = ()


def judge_stacks(stacks: Sequence[StackEvidence], limits: StackLimits = STACK_LIMITS) -> tuple[QualityFlag, ...]:
    """All flags of one plate's stacks, by well, each naming one well. The order of `stacks` does not matter."""
    stacks = sorted(stacks, key=lambda one: one.key)
    flags = [flag for one in stacks for flag in _alone(one, limits)]
    if 0 < len(stacks) < limits.min_stacks:
        what = phrase("images-not-compared", n=str(len(stacks)), least=str(limits.min_stacks))
        flags.append(QualityFlag("images-not-compared", Verdict.UNKNOWN, (), what, phrase("do-look-at-images")))
    else:
        contrast = _best_ratio(stacks, lambda seen: seen.contrast_adu)
        empty = [one for one in stacks if contrast.get(one.key, 0.0) < limits.contrast]
        full = [one for one in stacks if contrast.get(one.key, 0.0) >= limits.contrast]
        flags += [_empty(one, contrast.get(one.key, 0.0)) for one in empty]
        flags += [*_out_of_focus(full, limits), *_bleached(full, limits)]
    return tuple(flags)


# -- a stack by itself -------------------------------------------------------------------------------------------------


def _alone(one: StackEvidence, limits: StackLimits) -> Iterator[QualityFlag]:
    profile = one.profile
    for channel, seen in profile.channels.items():
        if seen.saturated_share >= limits.saturated_warn:
            verdict = Verdict.FAIL if seen.saturated_share >= limits.saturated_fail else Verdict.WARN
            what = phrase("stack-saturated", percent=f"{100 * seen.saturated_share:.2g}", channel=channel)
            yield _flag("saturated", verdict, one, what, phrase("do-lower-exposure"))
        if seen.hot_share >= limits.hot_share:
            what = phrase("stack-hot-pixels", percent=f"{100 * seen.hot_share:.2g}", channel=channel)
            yield _flag("hot-pixels", Verdict.WARN, one, what, phrase("do-calibrate-camera"))
        yield from _lost_slices(one, channel, seen, limits)
    if one.repeated:
        first, count = one.repeated[0], len(one.repeated)
        n_slices = sum(len(seen.mean_adu_by_z) for seen in profile.channels.values())
        what = phrase("stack-repeated", n=str(count), channel=first.channel, z=str(first.z))
        verdict = Verdict.FAIL if count > limits.lost_slices_fail * n_slices else Verdict.WARN
        yield _flag("repeated-slices", verdict, one, what, phrase("do-check-trigger"))
    if profile.jump_um is not None and profile.jump_um >= limits.jump_um:
        what = phrase("stack-moved", um=f"{profile.jump_um:.1f}", z=str(profile.jump_z))
        yield _flag("moved", Verdict.WARN, one, what, phrase("do-look-for-bump"))
    elif profile.drift_um is not None and profile.drift_um >= limits.drift_um * max(1.0, one.depth_um / 100):
        what = phrase("stack-drifted", um=f"{profile.drift_um:.1f}")
        yield _flag("drifted", Verdict.WARN, one, what, phrase("do-let-settle"))


def _lost_slices(one: StackEvidence, channel: str, seen: ChannelProfile, limits: StackLimits) -> Iterator[QualityFlag]:
    dark, bright = odd_slices(seen, limits.slice_ratio)
    for code, found, word, do in (
        ("dark-slices", dark, "dark", "do-check-shutter"),
        ("bright-slices", bright, "bright", "do-stray-light"),
    ):
        if found:
            share = len(found) / len(seen.mean_adu_by_z)
            verdict = Verdict.FAIL if share > limits.lost_slices_fail else Verdict.WARN
            if len(found) == 1:
                what = phrase(f"slice-{word}", channel=channel, z=str(found[0]))
            else:
                ends = {"first": str(found[0]), "last": str(found[-1])}
                what = phrase(f"slices-{word}", channel=channel, n=str(len(found)), **ends)
            yield _flag(code, verdict, one, what, phrase(do))


def odd_slices(seen: ChannelProfile, ratio: float = STACK_LIMITS.slice_ratio) -> tuple[list[int], list[int]]:
    """The slices that are dark and those that are bright, going by sudden steps in brightness above the floor.

    Where brightness falls below `ratio` of the last slice's, slices are dark until it rises as much; from the longest
    run without such a step outwards. Entering a spheroid is no such step: there the slices before and after change by
    half as much at least, and in the same direction.
    """
    light = np.maximum(np.array(seen.mean_adu_by_z) - seen.floor_adu, 0.5)
    steps = np.diff(np.log(light))
    padded = np.pad(steps, 1)
    same_way = np.maximum(np.sign(steps) * padded[:-2], np.sign(steps) * padded[2:])
    seen_at_all = np.maximum(light[:-1], light[1:]) > FAINT * light.max()
    sudden = (np.abs(steps) > -math.log(ratio)) & (same_way < np.abs(steps) / 2) & seen_at_all
    edges = [0, *(np.flatnonzero(sudden) + 1).tolist(), len(light)]
    runs = list(itertools.pairwise(edges))
    longest = max(range(len(runs)), key=lambda i: runs[i][1] - runs[i][0])
    state = [0] * len(runs)  # -1 dark, 0 as it should be, 1 bright
    for i in range(longest + 1, len(runs)):
        state[i] = max(-1, min(1, state[i - 1] + (1 if steps[runs[i][0] - 1] > 0 else -1)))
    for i in range(longest - 1, -1, -1):
        state[i] = max(-1, min(1, state[i + 1] + (1 if steps[runs[i][1] - 1] < 0 else -1)))
    dark, bright = (
        [z for run, s in zip(runs, state, strict=True) if s == sign for z in range(*run)] for sign in (-1, 1)
    )
    return dark, bright


# -- a stack beside the others of its plate ----------------------------------------------------------------------------


def _out_of_focus(stacks: Sequence[StackEvidence], limits: StackLimits) -> Iterator[QualityFlag]:
    """Blur is in every channel; a channel without stained cells has no sharpness to speak of."""
    ratios = _best_ratio(stacks, lambda seen: seen.sharpness)
    spread = max(0.1, robust_sd([math.log(ratio) for ratio in ratios.values()])) if ratios else 0.0
    middle = statistics.median(math.log(ratio) for ratio in ratios.values()) if ratios else 0.0
    for one in stacks:
        ratio = ratios.get(one.key)
        if ratio is None or ratio >= limits.sharpness_warn:
            continue
        if (math.log(ratio) - middle) / spread <= -limits.sharpness_z:
            verdict = Verdict.FAIL if ratio < limits.sharpness_fail else Verdict.WARN
            what = phrase("stack-blurred", ratio=f"{ratio:.2f}")
            yield _flag("out-of-focus", verdict, one, what, phrase("do-image-well-again"))


def _empty(one: StackEvidence, ratio: float) -> QualityFlag:
    what = phrase("stack-empty", ratio=f"{ratio:.2f}")
    return _flag("empty-field", Verdict.FAIL, one, what, phrase("do-check-field"))


def _best_ratio(
    stacks: Sequence[StackEvidence], figure: Callable[[ChannelProfile], float | None]
) -> dict[StackKey, float]:
    """Each stack's figure over the plate's median in that channel, of the channel where it does best."""
    by_channel: dict[str, dict[StackKey, float]] = {}
    for one in stacks:
        for channel, seen in one.profile.channels.items():
            value = figure(seen)
            if value is not None:
                by_channel.setdefault(channel, {})[one.key] = max(value, 1e-6)
    best: dict[StackKey, float] = {}
    for values in by_channel.values():
        middle = statistics.median(values.values())
        for key, value in values.items():
            best[key] = max(best.get(key, 0.0), value / middle)
    return best


def _bleached(stacks: Sequence[StackEvidence], limits: StackLimits) -> Iterator[QualityFlag]:
    slopes = {one.key: slope for one in stacks if (slope := _slope(one.profile.channels, limits)) is not None}
    if len(slopes) < limits.min_stacks:
        return
    middle, spread = statistics.median(slopes.values()), max(limits.bleached_spread, robust_sd(list(slopes.values())))
    for one in stacks:
        excess = slopes.get(one.key, middle) - middle
        if excess <= math.log(limits.bleached_left) and excess / spread <= -limits.bleached_z:
            what = phrase("stack-bleached", percent=f"{100 * math.exp(excess):.0f}")
            yield _flag("bleached", Verdict.WARN, one, what, phrase("do-less-light"))


def _slope(channels: Mapping[str, ChannelProfile], limits: StackLimits) -> float | None:
    """How much log brightness changes from the first slice to the last, mean of the channels; a straight line's."""
    slopes = []
    for seen in channels.values():
        lost = {z for found in odd_slices(seen, limits.slice_ratio) for z in found}
        kept = [z for z in range(len(seen.mean_adu_by_z)) if z not in lost]
        if len(kept) < 5:
            return None
        light = np.maximum(np.array(seen.mean_adu_by_z)[kept] - seen.floor_adu, 0.5)
        slopes.append(float(np.polyfit(np.array(kept) / len(seen.mean_adu_by_z), np.log(light), 1)[0]))
    return statistics.fmean(slopes) if slopes else None


def _flag(code: str, verdict: Verdict, one: StackEvidence, what: str, do: str) -> QualityFlag:
    well, stack = str(one.key.well), one.key.stack
    of = (
        phrase("of-stack", well=well, stack=str(stack), what=what) if stack else phrase("of-well", well=well, what=what)
    )
    return QualityFlag(code, verdict, (well,), of, do)
