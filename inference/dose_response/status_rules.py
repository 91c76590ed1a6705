"""When an IC50 may be told: the rules that turn a fit into a status, a sentence, and numbers or none.

An effect counts if the F-test against a constant finds it and it spans at least 30 % of the control within the doses
that were tested (30 points where the control is 100). Then each IC50 stands for itself: inside the doses with limits at
most tenfold apart it is `ok`. Inside, with wider limits, it is `approximate` as long as the interval stays within the
doses; where the wide interval runs past the lowest or the highest dose nobody can say that the IC50 is inside, and it
is censored there, as is an estimate outside. Where it runs past both, the effect is `unplaced`. So it is where the
curve would be censored at an end although half of the control is passed within the doses: an IC50 is above the highest
dose only if more than half of the control is left there, fitted and seen.

Two cases need more, because noise can draw a plateau that was never seen. Where the response stays above half of the
control at every dose, the relative IC50 hangs on the lower plateau: then its 99.9 % limits must lie within the doses
as well. Where nobody gave or measured the control (the full effect, of a rising curve), everything hangs on the upper
one: then the F-test must be beyond doubt and the 99 % limits within the doses.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

from spheroidd.protocols.dose import ALPHA, CurveStatus
from spheroidd.protocols.phrase import phrase

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
    at the highest dose, `seen_end` the mean response there. `full_scale` is the response that counts as 100 %.
    `control_known` says that it was given or measured in untreated wells; `kept` is the largest share of it left at any
    dose (of the effect: still missing). `half_gone` says that no untreated well was seen and that the lowest dose
    already has half of the effect. `n` values were fitted.
    """

    p_effect: float | None
    fitted_start: float
    fitted_end: float
    seen_end: float
    full_scale: float
    control_known: bool
    kept: float
    increasing: bool
    n: int
    half_gone: bool = False

    @property
    def half_left(self) -> bool:
        """Whether half of the effect is not reached at the highest dose, by the fit and by the data."""
        half = self.full_scale / 2
        ends = self.fitted_end, self.seen_end
        return max(ends) < half if self.increasing else min(ends) > half

    @property
    def change(self) -> float:
        """The fitted effect, above 0 where it goes the way it should."""
        change = self.fitted_end - self.fitted_start
        return change if self.increasing else -change

    @property
    def share(self) -> float:
        """The fitted effect as a share of the full one; NaN where nothing can be related to it."""
        return self.change / self.full_scale if self.full_scale > 0 else math.nan


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


class Doses(NamedTuple):
    """The lowest and the highest dose above 0, and their unit; None where nobody said it."""

    lowest: float
    highest: float
    unit: str | None

    def holds(self, dose: float) -> bool:
        """Whether a dose lies among them."""
        return self.lowest <= dose <= self.highest

    def said(self, dose: float | None) -> str:
        """A dose with the unit; "open" for a limit that is not known."""
        if dose is None:
            return phrase("open")
        return f"{dose:.3g} {self.unit}" if self.unit else f"{dose:.3g}"

    def limits(self, low: float | None, high: float | None) -> str:
        """Both ends of an interval."""
        first = self.said(low) if low is None or high is None else f"{low:.3g}"
        return phrase("limits", low=first, high=self.said(high))


class Verdict(NamedTuple):
    """A status and why."""

    status: CurveStatus
    reason: str


def without_ic50(effect: Effect) -> Verdict | None:
    """Why there can be no IC50 whatever its interval, or None where one may be looked for."""
    if effect.control_known and effect.kept <= DEAD:
        dead = phrase("all-dead", percent=f"{100 * effect.kept:.0f}")
        return Verdict(CurveStatus.ALL_DEAD, phrase("all-affected") if effect.increasing else dead)
    opposite = phrase("falls" if effect.increasing else "rises")
    if effect.p_effect is not None and effect.p_effect <= ALPHA and effect.share <= -SPAN:
        return Verdict(CurveStatus.INACTIVE, opposite)  # before what the lowest dose seems to have
    if effect.half_gone:
        return Verdict(CurveStatus.CENSORED_LOW, phrase("half-gone"))
    if effect.p_effect is None:
        return Verdict(CurveStatus.INACTIVE, phrase("all-the-same"))
    if effect.p_effect > ALPHA:
        return Verdict(CurveStatus.INACTIVE, _with_unknown(phrase("no-effect", test=_test(effect)), effect))
    if not effect.control_known and effect.p_effect > BEYOND_DOUBT:
        return Verdict(
            CurveStatus.INACTIVE, _with_unknown(phrase("doubtful-effect", p=f"{effect.p_effect:.2g}"), effect)
        )
    if effect.change < 0:
        return Verdict(CurveStatus.INACTIVE, opposite)
    share = effect.share
    if not share >= SPAN:
        least = f"{100 * SPAN:.0f}"
        why = phrase("unrelated-effect", least=least)
        if math.isfinite(share):
            why = phrase("small-effect", percent=f"{100 * share:.0f}", least=least)
        if effect.control_known and not effect.half_left:  # most of it lies outside of the doses
            return Verdict(CurveStatus.UNPLACED, phrase("half-not-left", what=why))
        return Verdict(CurveStatus.INACTIVE, why)
    return None


def _test(effect: Effect) -> str:
    """The test that showed none; where the fit has one all the same, that these values cannot tell."""
    found = {"p": f"{effect.p_effect:.2g}", "n": str(effect.n)}
    share = abs(effect.share)
    if not (effect.control_known and SPAN <= share <= 1):
        return phrase("test", **found)
    return phrase("test-too-few", **found, percent=f"{100 * share:.0f}")


def _with_unknown(what: str, effect: Effect) -> str:
    if effect.control_known:
        return what
    return phrase("no-full-effect" if effect.increasing else "no-untreated", what=what)


def place(ic50: Interval, doses: Doses) -> Verdict:
    """The status of one IC50 for itself."""
    lowest, highest = doses.lowest, doses.highest
    if ic50.estimate < lowest:
        return Verdict(CurveStatus.CENSORED_LOW, phrase("below-lowest", dose=doses.said(lowest)))
    if ic50.estimate > highest:
        return Verdict(CurveStatus.CENSORED_HIGH, phrase("above-highest", dose=doses.said(highest)))
    low, high = ic50.low or 0.0, ic50.high or math.inf
    if high <= TENFOLD * low and ic50.sure_low and ic50.sure_high:
        limits = doses.limits(low, high)
        return Verdict(CurveStatus.OK, phrase("known", dose=doses.said(ic50.estimate), limits=limits))
    past_low = low < lowest or not ic50.sure_low
    past_high = high > highest or not ic50.sure_high
    if past_low and past_high:
        return Verdict(CurveStatus.UNPLACED, phrase("any-dose"))
    if past_high:
        return Verdict(CurveStatus.CENSORED_HIGH, phrase("not-below-highest", dose=doses.said(highest)))
    if past_low:
        return Verdict(CurveStatus.CENSORED_LOW, phrase("not-above-lowest", dose=doses.said(lowest)))
    fold = f"{high / low:.0f}"
    return Verdict(CurveStatus.APPROXIMATE, phrase("known-to-fold", fold=fold, limits=doses.limits(low, high)))


def together(relative: Interval, absolute: Interval | None, doses: Doses, effect: Effect) -> Verdict:
    """The curve's status from its two IC50s; `absolute` is None where half of the control is never passed.

    The relative one leads; where it cannot be told and the absolute one can, the curve has that one's status.
    """
    of_absolute = absolute and place(absolute, doses)
    of_relative = _relative(place(relative, doses), absolute, doses, effect)
    if of_relative.status in NUMBERED:
        if of_absolute is None:
            never = "ic50-never-rises" if effect.increasing else "ic50-never-falls"
            return Verdict(of_relative.status, phrase(never, what=of_relative.reason))
        if of_absolute.status in NUMBERED:
            return Verdict(of_relative.status, phrase("ic50", what=of_relative.reason))
        beside = phrase("ic50-relative", what=of_relative.reason, other=of_absolute.reason)
        return Verdict(of_relative.status, beside)
    if of_absolute is not None and of_absolute.status in NUMBERED:
        said = phrase("ic50-absolute", what=of_absolute.reason, other=of_relative.reason)
        return Verdict(of_absolute.status, said)
    if of_relative.status is CurveStatus.UNPLACED and absolute is not None and doses.holds(absolute.estimate):
        limits = doses.limits(absolute.low, absolute.high)
        half = "half-reached" if effect.increasing else "half-passed"
        return Verdict(CurveStatus.UNPLACED, phrase(half, limits=limits))
    return Verdict(of_relative.status, phrase("ic50", what=of_relative.reason))


def _relative(alone: Verdict, absolute: Interval | None, doses: Doses, effect: Effect) -> Verdict:
    """What may be said of the relative IC50 beside where half of the control is passed."""
    too_high = alone.status is CurveStatus.CENSORED_HIGH and not effect.half_left
    passed = absolute is not None and doses.holds(absolute.estimate)
    too_low = alone.status is CurveStatus.CENSORED_LOW and passed and effect.control_known
    if not (too_high or too_low):
        return alone
    plateau = "upper-unknown" if too_low != effect.increasing else "lower-unknown"
    return Verdict(CurveStatus.UNPLACED, phrase(plateau))
