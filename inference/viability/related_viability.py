"""Viability out of measurements: pure functions, no file, no clock. Unknown stays None and says why; it is never 0.

- V_count = N_live / (N_live + N_dead), 0 to 1, with its 90 % interval (`count_interval`).
- V_control = 100 * live volume / median live volume of the plate's untreated controls, percent. It may exceed 100 and
  is never clipped: clipping before a dose-response fit would bend the upper plateau.
- V_score = the regressor's estimate of the MTT viability, percent of the same controls, with its 90 % interval.
- V_norm = 100 * (live - median killed) / (median untreated - median killed), percent: optional.

Controls come from the same plate and the same model. A control well is related to the median of all controls, itself
included, so that the controls' V_control shows their spread around 100.
"""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypedDict, runtime_checkable

from spheroidd.inference.viability.count_interval import count_interval
from spheroidd.protocols.plate import WellRole
from spheroidd.protocols.results import Related, StackMeasurement, WellStatus
from spheroidd.protocols.stack import StackKey
from spheroidd.protocols.trust import Trust, TrustFlag, failed_reason, trust_of

NO_CONTROL_WELL = "the plate has no untreated control"
NO_CONTROL_YET = "no untreated control of the plate is scored yet"
NO_CONTROL_LEFT = "no untreated control of the plate could be scored"
NO_CONTROL_INCLUDED = "every untreated control of the plate is excluded"
NO_CONTROL_TRUSTED = "the images of every untreated control of the plate failed"
NO_LIVE_CONTROL = "no live volume in the plate's controls"
NO_LIVE_CHANNEL = "the stack has no live channel"


class Regressor(Protocol):
    """Estimates the MTT viability from depth profiles of live volume; see `regressor.ViabilityRegressor`."""

    def predict(
        self, profile_um3: Sequence[float], z_step_um: float, control_profiles_um3: Sequence[Sequence[float]]
    ) -> tuple[float, float, float] | None:
        """Return (score, low, high) in percent, or None where the controls hold no live volume."""
        ...


@runtime_checkable
class ManyRegressor(Regressor, Protocol):
    """One that takes the wells of a plate together, for a fraction of their time apart."""

    def predict_many(
        self,
        wells: Sequence[tuple[Sequence[float], float]],
        control_profiles_um3: Sequence[Sequence[float]],
    ) -> list[tuple[float, float, float] | None]:
        """What `predict` returns, to the last bit, of each (profile_um3, z_step_um)."""
        ...


@dataclass(frozen=True, slots=True)
class PlateStack:
    """What is known of one stack of the plate.

    `settled` says that nothing more will come: it is scored, failed or incomplete, and not to be scored again.
    `measurement` is None until it is scored, and for good where it never will be. `excluded` says that a person took
    the well out: it is related to the controls like any other, but is none itself. `flags` are what its images were
    judged to be, None where they were not: a stack that failed is no control and has no viability.
    """

    key: StackKey
    role: WellRole
    z_step_um: float
    settled: bool
    measurement: StackMeasurement | None = None
    excluded: bool = False
    flags: tuple[TrustFlag, ...] | None = None

    @property
    def trust(self) -> Trust | None:
        """What the flags come to."""
        return None if self.flags is None else trust_of(self.flags)


def v_count(n_live: int | None, n_dead: int | None) -> float | None:
    """N_live / (N_live + N_dead), 0 to 1; None where either is unknown or there is no cell at all."""
    if n_live is None or n_dead is None or n_live + n_dead == 0:
        return None
    return n_live / (n_live + n_dead)


def v_control(live_um3: float, controls_um3: Sequence[float]) -> float | None:
    """Percent of the untreated controls' median live volume; None where there is no control or its median is 0.

    A median so small that the percentage passes every float is no live volume either.
    """
    median = statistics.median(controls_um3) if controls_um3 else 0.0
    percent = 100 * live_um3 / median if median > 0 else math.inf
    return percent if math.isfinite(percent) else None


class _Judged(TypedDict):
    trust: Trust | None
    trust_flags: tuple[TrustFlag, ...] | None


class _Counted(_Judged):
    v_count_lo: float | None
    v_count_hi: float | None
    v_count_reason: str | None


class ControlProfiles(tuple[tuple[float, ...], ...]):
    """The controls' depth profiles, equal only to themselves: what follows is found once, not for each row."""

    __slots__ = ()
    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other

    def __ne__(self, other: object) -> bool:
        return self is not other


class _Comparable:
    """The measurements by one model that a row is related to."""

    def __init__(self, measurements: Sequence[StackMeasurement]) -> None:
        self.measurements = measurements
        self.median_um3 = statistics.median(m.live_um3 for m in measurements if m.live_um3 is not None)
        self.profiles = ControlProfiles(m.live_um3_by_z for m in measurements)


class PlateControls:
    """What the rows of one plate are related to; made once of all its stacks, then asked for each row.

    `stacks` are all stacks of the plate, judged, the controls that were not scored included: as long as one of those is
    not settled, every row stays provisional. The answers depend on the given stacks only, not on their order.
    """

    def __init__(self, stacks: Iterable[PlateStack]) -> None:
        untreated = [stack for stack in stacks if stack.role is WellRole.NEGATIVE_CONTROL]
        included = sorted((stack for stack in untreated if not stack.excluded), key=lambda stack: stack.key)
        controls = [stack for stack in included if stack.trust is not Trust.FAIL]
        self.settled = all(stack.settled for stack in included)  # one that failed may be scored again
        without = NO_CONTROL_TRUSTED if included else NO_CONTROL_INCLUDED if untreated else NO_CONTROL_WELL
        self._missing = (NO_CONTROL_LEFT if self.settled else NO_CONTROL_YET) if controls else without
        by_model: dict[str, list[StackMeasurement]] = {}
        for stack in controls:
            if stack.measurement is not None and stack.measurement.live_um3 is not None:
                by_model.setdefault(stack.measurement.model_sha256, []).append(stack.measurement)
        self._comparable = {model: _Comparable(found) for model, found in by_model.items()}

    def same_as(self, other: "PlateControls") -> bool:
        """Whether every row is related as it would be to the others: the same measurements, not only equal ones."""
        if (self.settled, self._missing) != (other.settled, other._missing):
            return False
        pairs = ((other._comparable.get(model), one) for model, one in self._comparable.items())
        return len(self._comparable) == len(other._comparable) and all(
            theirs is not None
            and len(theirs.measurements) == len(ours.measurements)
            and all(a is b for a, b in zip(theirs.measurements, ours.measurements, strict=True))
            for theirs, ours in pairs
        )

    def relate(self, stack: PlateStack, measurement: StackMeasurement, regressor: Regressor | None = None) -> Related:
        """What a scored stack is beside these controls."""
        return self.relate_many([(stack, measurement)], regressor)[0]

    def relate_many(
        self, rows: Sequence[tuple[PlateStack, StackMeasurement]], regressor: Regressor | None = None
    ) -> list[Related]:
        """What some scored stacks are beside these controls, each as by itself."""
        found = [self._without_score(*row) for row in rows]
        wanted = [number for number, one in enumerate(found) if one.v_control is not None] if regressor else []
        by_model: dict[str, list[int]] = {}
        for number in wanted:
            by_model.setdefault(rows[number][1].model_sha256, []).append(number)
        for model, numbers in by_model.items():
            wells = [(rows[n][1].live_um3_by_z, rows[n][0].z_step_um) for n in numbers]
            scores = _scores(regressor, wells, self._comparable[model].profiles)
            for number, score in zip(numbers, scores, strict=True):
                if score is not None:
                    v_score, low, high = score
                    found[number] = replace(found[number], v_score=v_score, v_score_lo=low, v_score_hi=high)
        return found

    def _without_score(self, stack: PlateStack, measurement: StackMeasurement) -> Related:
        status = WellStatus.FINAL if self.settled and stack.settled else WellStatus.PROVISIONAL
        judged: _Judged = {"trust": stack.trust, "trust_flags": stack.flags}
        if stack.flags is not None and stack.trust is Trust.FAIL:
            return Related(status, failed_reason(stack.flags), **judged)
        sure = count_interval(measurement, stack.flags or ())
        counted: _Counted = {**judged, "v_count_lo": sure.low, "v_count_hi": sure.high, "v_count_reason": sure.reason}
        if measurement.live_um3 is None:
            return Related(status, NO_LIVE_CHANNEL, **counted)
        comparable = self._comparable.get(measurement.model_sha256)
        if comparable is None:
            return Related(status, self._missing, **counted)
        percent = v_control(measurement.live_um3, (comparable.median_um3,))
        if percent is None:
            return Related(status, NO_LIVE_CONTROL, **counted)
        return Related(status, None, percent, **counted)


def _scores(
    regressor: Regressor | None, wells: Sequence[tuple[Sequence[float], float]], controls: ControlProfiles
) -> list[tuple[float, float, float] | None]:
    if isinstance(regressor, ManyRegressor):
        return regressor.predict_many(wells, controls)
    return [regressor.predict(*well, controls) if regressor else None for well in wells]


def relate(stacks: Iterable[PlateStack], regressor: Regressor | None = None) -> dict[StackKey, Related]:
    """Relate every scored stack to the plate's untreated controls that the same model scored; see PlateControls."""
    stacks = tuple(stacks)
    controls = PlateControls(stacks)
    return {
        stack.key: controls.relate(stack, stack.measurement, regressor)
        for stack in stacks
        if stack.measurement is not None
    }
