"""Whether an estimate may be used: what each peak, and all angles together, must show; the words where they do not."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from spheroidd.inference.reconstruction.frame_phases import BandFit
from spheroidd.inference.reconstruction.peak_search import OWN_LOBES, Peak
from spheroidd.protocols.sim_pattern import AngleEstimate, Beams, SimPattern

MOST_CHANCE = 25.0  # peak over median: with nothing there the largest of a ring is 10 to 20
SAME_DIRECTION_DEG = 5.0
STEP_TOLERANCE_DEG = 12.0  # of the angles' steps from 180 / n
FREQUENCY_TOLERANCE = 0.02  # between the angles
SECOND_SHARE = 0.15  # of the first peak: a second one this high is another pattern
STATED_ANGLE_DEG = 5.0
MOST_MODULATION = 1.15
UNEVEN_STEP_DEG = 15.0
UNEVEN_LIGHT = 0.03


def order_verdict(peak: Peak, fit: BandFit) -> tuple[bool, str]:
    """Whether one order of one angle may be used, and the words."""
    if peak.ratio <= MOST_CHANCE:
        seen = f"the highest peak is {peak.ratio:.0f} times the median of the ring"
        return False, f"no stripes found: {seen}, and chance alone reaches 20 (above {MOST_CHANCE:.0f} counts)"
    if peak.at_edge:
        return (
            False,
            "the peak lies on the edge of the searched ring: the stripes may lie outside it; state their period",
        )
    if not fit.modulation > 3 * fit.modulation_sd:
        spread = f"{fit.modulation:.2f} +- {fit.modulation_sd:.2f}"
        return False, f"its modulation cannot be distinguished from none ({spread})"
    return True, f"found, modulation {fit.modulation:.2f}"


def judge(
    pattern: SimPattern,
    angles: Sequence[AngleEstimate],
    peaks: Sequence[tuple[Peak, ...]],
    beyond: Sequence[tuple[Peak, ...]],
) -> tuple[list[str], list[str]]:
    """What speaks against the whole, and what is worth knowing but changes no image; `peaks` by angle and order.

    `beyond` are those of the orders that the stated beams do not make.
    """
    doubts: list[str] = []
    notes: list[str] = []
    known = [one for one in angles if one.trusted]
    doubts += _directions(pattern, known)
    lengths = [one.frequency_per_um for one in known]
    if lengths and max(lengths) > (1 + FREQUENCY_TOLERANCE) * min(lengths):
        each = ", ".join(f"{1000 / length:.1f}" for length in lengths)
        doubts.append(f"the periods of the angles differ by more than {FREQUENCY_TOLERANCE:.0%}: {each} nm")
    for one, of_orders, of_others in zip(angles, peaks, beyond, strict=True):
        doubts += _second_peaks(one, of_orders)
        against, remark = _other_orders(one, pattern, of_orders, of_others)
        doubts += against
        notes += remark
        against, remark = _steps(one, pattern)
        doubts += against
        notes += remark
        for order in one.orders:
            if order.trusted and (order.modulation or 0) > MOST_MODULATION:
                what = f"angle {one.angle} order {order.order}: modulation {order.modulation:.2f} is above 1"
                notes.append(f"{what}: the OTF is not that of this lens, or the offset is too high")
    if pattern.angles_deg is not None and len(known) == len(angles):
        against, remark = _stated(pattern, angles)
        doubts += against
        notes += remark
    return doubts, notes


def _directions(pattern: SimPattern, known: Sequence[AngleEstimate]) -> list[str]:
    """Angles that are alike or do not step evenly say that the frames are not in the stated order."""
    if len(known) < 2:
        return []
    each = ", ".join(f"{undirected(one.angle_deg):.1f}" for one in known)
    order = "-".join(pattern.order)
    pairs = [apart_deg(a.angle_deg, b.angle_deg) for i, a in enumerate(known) for b in known[i + 1 :]]
    if min(pairs) < SAME_DIRECTION_DEG:
        what = f"angles have the same direction ({each} degrees)"
        return [f"{what}: the frames do not lie in the order {order}, or the numbers of angles and phases are swapped"]
    if pattern.angles_deg is None and len(known) == pattern.n_angles:
        step = 180 / pattern.n_angles
        turned = sorted(undirected(one.angle_deg) for one in known)
        steps = [b - a for a, b in zip(turned, [*turned[1:], turned[0] + 180], strict=True)]
        if max(abs(one - step) for one in steps) > STEP_TOLERANCE_DEG:
            what = f"the directions {each} degrees do not step by about {step:.0f}"
            return [f"{what}: state angles_deg if the instrument has them so"]
    return []


def _second_peaks(one: AngleEstimate, peaks: tuple[Peak, ...]) -> list[str]:
    """A second pattern among the frames of one angle."""
    doubts = []
    for order, peak in zip(one.orders, peaks, strict=True):
        if not order.trusted or peak.second_ratio < max(MOST_CHANCE, SECOND_SHARE * peak.ratio):
            continue
        second = math.degrees(math.atan2(*peak.second_yx))
        own = math.degrees(math.atan2(*peak.frequency_yx))
        if apart_deg(second, own) < SAME_DIRECTION_DEG:
            what = f"angle {one.angle}: the stripes appear in both senses"
            doubts.append(
                f"{what}: its phases do not step as stated (a frame doubled, a pattern stuck, or another order)"
            )
        else:
            both = f"{undirected(own):.0f} and {undirected(second):.0f} degrees"
            what = f"angle {one.angle}: its frames hold stripes of {both}"
            doubts.append(f"{what}: they are not frames of one angle; state the order of the frames")
    return doubts


def _other_orders(
    one: AngleEstimate, pattern: SimPattern, peaks: tuple[Peak, ...], beyond: tuple[Peak, ...]
) -> tuple[list[str], list[str]]:
    """Stripes that step at another pace than the stated beams' do: of a third beam, or of other directions."""
    notes: list[str] = []
    others: list[float] = []
    least = max(MOST_CHANCE, SECOND_SHARE * max(peak.ratio for peak in peaks))
    for order, peak in enumerate(beyond, start=len(peaks) + 1):
        if not one.trusted or peak.ratio < least:
            continue
        if not any(_is_multiple(peak.frequency_yx, one.frequency_yx, times) for times in range(1, order + 1)):
            others.append(math.degrees(math.atan2(*peak.frequency_yx)))
        elif pattern.beams is Beams.TWO and _is_multiple(peak.frequency_yx, one.frequency_yx, 2):
            what = f"angle {one.angle}: its frames hold stripes of half the period too, as three beams make them"
            notes.append(f"{what}; read with three beams the image is sharper")
    if not others:
        return [], notes
    each = " and ".join(f"{undirected(angle):.0f}" for angle in (one.angle_deg, *others))
    what = f"angle {one.angle}: its frames hold stripes of {each} degrees, which step at different paces"
    why = "a pattern of several directions at once (hexagonal) is not reconstructed; else state the order of the frames"
    return [f"{what}: {why}"], notes


def _is_multiple(peak_yx: tuple[float, float], frequency_yx: tuple[float, float], times: int) -> bool:
    """Whether a peak lies at so many times a frequency or its negative, or among the lobes around that."""
    length = times * math.hypot(*frequency_yx)
    return any(
        math.hypot(peak_yx[0] - sign * times * frequency_yx[0], peak_yx[1] - sign * times * frequency_yx[1])
        < OWN_LOBES * length
        for sign in (1, -1)
    )


def _steps(one: AngleEstimate, pattern: SimPattern) -> tuple[list[str], list[str]]:
    """Phases that were measured and do not step evenly: used as they are, but worth knowing; of few others, a doubt."""
    if not one.phases_measured:
        return [], []
    step = pattern.step_sign * 360 / pattern.n_phases
    taken = [(b - a + 180) % 360 - 180 for a, b in zip(one.phases_deg, one.phases_deg[1:], strict=False)]
    same = [n for n, turn in enumerate(taken) if abs(turn) < UNEVEN_STEP_DEG]
    if 2 * len(same) > len(taken):
        what = f"angle {one.angle}: {len(same)} of its {len(taken)} steps change no phase"
        return [f"{what}: they are not {pattern.n_phases} phases of one angle, or the pattern was stuck"], []
    if same:
        pairs = " and ".join(f"{n} and {n + 1}" for n in same)
        why = "the pattern was stuck, or a frame arrived twice"
        return [], [f"angle {one.angle}: phases {pairs} are the same: {why}; the image is made of the others as well"]
    off = [(turn - step + 180) % 360 - 180 for turn in taken]
    worst = max(range(len(off)), key=lambda n: abs(off[n]), default=0)
    if not off or abs(off[worst]) < UNEVEN_STEP_DEG:
        return [], []
    between = f"the step from {worst} to {worst + 1} is off by {off[worst]:.0f} degrees"
    return [], [f"angle {one.angle}: its phases do not step evenly ({between}); they are used as they were measured"]


def uneven_light(brightness: NDArray[np.float64]) -> list[str]:
    """Frames (angle, phase) with more or less light than their angle's others: evened out, but worth knowing."""
    return [
        f"angle {angle} phase {phase} has {abs(share - 1):.0%} {'more' if share > 1 else 'less'} light than its "
        "angle's other frames: evened out"
        for angle, of_angle in enumerate(brightness.tolist())
        for phase, share in enumerate(of_angle)
        if abs(share - 1) > UNEVEN_LIGHT
    ]


def _stated(pattern: SimPattern, angles: Sequence[AngleEstimate]) -> tuple[list[str], list[str]]:
    """The found directions against the stated ones, and which setting would explain a difference."""
    flip = -1 if pattern.flip_y else 1
    stated = [flip * angle for angle in pattern.angles_deg or ()]
    own = [one.angle_deg for one in angles]
    if _agree(own, stated, 360):
        return [], []
    if _agree(own, stated, 180):
        words = (
            f"the phases step against the stated sign; no image changes, but step_sign should be {-pattern.step_sign}"
        )
        return [], [words]
    each = f"{_listed(own)} degrees were found and {_listed(stated)} stated"
    if _agree(own, [-angle for angle in stated], 180):
        setting = "false" if pattern.flip_y else "true"
        return [f"{each}: the rows run the other way; write flip_y = {setting}"], []
    turned = sorted(undirected(angle) for angle in own)
    if all(abs(a - b) < STATED_ANGLE_DEG for a, b in zip(turned, sorted(map(undirected, stated)), strict=True)):
        return [f"{each}: the angles come in another order than stated"], []
    return [f"{each}: this is another pattern, or another order of the frames"], []


def _agree(own: Sequence[float], stated: Sequence[float], turn: float) -> bool:
    return all(abs((a - b + turn / 2) % turn - turn / 2) < STATED_ANGLE_DEG for a, b in zip(own, stated, strict=True))


def _listed(angles: Sequence[float]) -> str:
    return ", ".join(f"{angle:.1f}" for angle in angles)


def undirected(angle_deg: float) -> float:
    """A direction without a sense, -90 to 90."""
    return (angle_deg + 90) % 180 - 90


def apart_deg(one_deg: float, other_deg: float) -> float:
    """Between two directions without a sense, 0 to 90."""
    return abs((one_deg - other_deg + 90) % 180 - 90)
