"""When an IC50 may be told: the rules that turn a fit into a status, a sentence, and numbers or none.

An effect counts if the F-test against a constant finds it and it spans at least 30 % of the control within the doses
that were tested (30 points where the control is 100). Then each IC50 stands for itself: inside the doses with limits at
most tenfold apart it is `ok`. Inside, with wider limits, it is `approximate` as long as the interval stays within the
doses; where the wide interval runs past the lowest or the highest dose nobody can say that the IC50 is inside, and it
is censored there, as is an estimate outside.

Two cases need more, because noise can draw a plateau that was never seen. Where the response stays above half of the
control at every dose, the relative IC50 hangs on the lower plateau: then its 99.9 % limits must lie within the doses
as well. Where nobody gave or measured the control (the full effect, of a rising curve), everything hangs on the upper
one: then the F-test must be beyond doubt and the 99 % limits within the doses.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

from spheroidd.protocols.dose import CurveStatus

ALPHA = 0.05  # of the F-test against a constant
BEYOND_DOUBT = 0.001  # the same, where there is no control
STRICT_WITHOUT_HALF = 0.999  # level of the limits that must lie within the doses where half of the control is kept
STRICT_WITHOUT_CONTROL = 0.99  # and where there is no control
SPAN = 0.30  # of the control
DEAD = 0.20  # of the control: no more than this at every dose is dead at every dose
TENFOLD = 10.0
NUMBERED = (CurveStatus.OK, CurveStatus.APPROXIMATE)


@dataclass(frozen=True, slots=True)
class Effect:
    """What the rules look at before any interval. Responses in the unit of the data, doses in micromolar.

    `fitted_start` is the curve without compound (at the lowest dose where no untreated well was given), `fitted_end`
    at the highest dose. `full_scale` is the response that counts as 100 %. `control_known` says that it was given or
    measured in untreated wells; `kept` is the largest share of it left at any dose (of the effect: still missing).
    `half_gone` says that no untreated well was seen and that the lowest dose already has half of the effect.
    """

    p_effect: float | None
    fitted_start: float
    fitted_end: float
    full_scale: float
    control_known: bool
    kept: float
    increasing: bool
    half_gone: bool = False


def strict_level(effect: Effect, *, relative: bool) -> float:
    """The level at which the limits must lie within the doses as well, or 0 where the usual ones are enough."""
    half = effect.full_scale / 2
    half_kept = effect.fitted_end < half if effect.increasing else effect.fitted_end > half
    if relative and half_kept:
        return STRICT_WITHOUT_HALF
    return 0.0 if effect.control_known else STRICT_WITHOUT_CONTROL


class Interval(NamedTuple):
    """A dose with its 95 % limits; a limit is None where the profile does not close."""

    estimate: float
    low: float | None
    high: float | None
    sure_low: bool = True  # where stricter limits are asked for, whether they stay above the lowest dose
    sure_high: bool = True  # and below the highest


class Verdict(NamedTuple):
    """A status and why."""

    status: CurveStatus
    reason: str


def without_ic50(effect: Effect) -> Verdict | None:
    """Why there can be no IC50 whatever its interval, or None where one may be looked for."""
    if effect.control_known and effect.kept <= DEAD:
        what = "the full effect" if effect.increasing else f"at most {100 * effect.kept:.0f} % of the control left"
        return Verdict(CurveStatus.ALL_DEAD, f"{what} at every dose: the IC50 lies below the lowest")
    if effect.half_gone:
        return Verdict(CurveStatus.CENSORED_LOW, "IC50 below the lowest dose, which already has half of the effect")
    if effect.p_effect is None:
        return Verdict(CurveStatus.INACTIVE, "all responses are the same")
    if effect.p_effect > ALPHA:
        return Verdict(CurveStatus.INACTIVE, f"no effect of the dose (p = {effect.p_effect:.2g}){_unknown(effect)}")
    if not effect.control_known and effect.p_effect > BEYOND_DOUBT:
        return Verdict(CurveStatus.INACTIVE, f"a doubtful effect (p = {effect.p_effect:.2g}){_unknown(effect)}")
    change = effect.fitted_end - effect.fitted_start
    if not effect.increasing:
        change = -change
    if change < 0:
        way, other = ("falls", "without") if effect.increasing else ("rises", "with")
        return Verdict(CurveStatus.INACTIVE, f"the response {way} with the dose; fit it {other} `increasing`")
    share = change / effect.full_scale if effect.full_scale > 0 else math.nan
    if not share >= SPAN:
        said = f"{100 * share:.0f} % of the control" if math.isfinite(share) else "nothing that can be related"
        return Verdict(CurveStatus.INACTIVE, f"the effect is {said}; below {100 * SPAN:.0f} % no IC50 is told")
    return None


def _unknown(effect: Effect) -> str:
    if effect.control_known:
        return ""
    missing = "full effect is known" if effect.increasing else "untreated control is known: all may be dead"
    return f", and no {missing}"


def place(ic50: Interval, lowest_um: float, highest_um: float) -> Verdict:
    """The status of one IC50 for itself."""
    if ic50.estimate < lowest_um:
        return Verdict(CurveStatus.CENSORED_LOW, f"below the lowest dose, {lowest_um:.3g} uM")
    if ic50.estimate > highest_um:
        return Verdict(CurveStatus.CENSORED_HIGH, f"above the highest dose, {highest_um:.3g} uM")
    low, high = ic50.low or 0.0, ic50.high or math.inf
    if high <= TENFOLD * low and ic50.sure_low and ic50.sure_high:
        return Verdict(CurveStatus.OK, f"{ic50.estimate:.3g} uM, 95 % limits {low:.3g} to {high:.3g} uM")
    past_low = low < lowest_um or not ic50.sure_low
    past_high = high > highest_um or not ic50.sure_high
    if past_low and past_high:
        return Verdict(CurveStatus.INACTIVE, "the effect cannot be placed: any dose tested could be the IC50")
    if past_high:
        return Verdict(CurveStatus.CENSORED_HIGH, f"not shown to lie below the highest dose, {highest_um:.3g} uM")
    if past_low:
        return Verdict(CurveStatus.CENSORED_LOW, f"not shown to lie above the lowest dose, {lowest_um:.3g} uM")
    return Verdict(CurveStatus.APPROXIMATE, f"known to {high / low:.0f}-fold only: {low:.3g} to {high:.3g} uM")


def together(relative: Verdict, absolute: Verdict | None, increasing: bool) -> Verdict:
    """The curve's status from those of its two IC50s; `absolute` is None where half of the control is never passed.

    The relative one leads; where it cannot be told and the absolute one can, the curve has that one's status.
    """
    if relative.status in NUMBERED:
        if absolute is None:
            beside = f"the response never {'rises' if increasing else 'falls'} to half of the control"
        elif absolute.status in NUMBERED:
            return Verdict(relative.status, f"IC50 {relative.reason}")
        else:
            beside = f"the absolute one is {absolute.reason}"
        return Verdict(relative.status, f"IC50 (relative) {relative.reason}; {beside}")
    if absolute is not None and absolute.status in NUMBERED:
        return Verdict(absolute.status, f"IC50 (absolute) {absolute.reason}; the relative one is {relative.reason}")
    return Verdict(relative.status, f"IC50 {relative.reason}")
