"""Viability out of measurements: pure functions, no file, no clock. Unknown stays None and says why; it is never 0.

- V_count = N_live / (N_live + N_dead), 0 to 1.
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
from dataclasses import dataclass
from typing import Protocol, TypedDict

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


def relate(stacks: Iterable[PlateStack], regressor: Regressor | None = None) -> dict[StackKey, Related]:
    """Relate every scored stack to the untreated controls of the plate that the same model scored.

    `stacks` are all stacks of one plate, the controls that were not scored included: as long as one of those is not
    settled, every row stays provisional. The answer depends on the given stacks only, not on their order.
    """
    stacks = tuple(stacks)
    untreated = [stack for stack in stacks if stack.role is WellRole.NEGATIVE_CONTROL]
    included = [stack for stack in untreated if not stack.excluded]
    controls = [stack for stack in included if stack.trust is not Trust.FAIL]
    settled = all(stack.settled for stack in included)  # one that failed may be scored again
    without = NO_CONTROL_TRUSTED if included else NO_CONTROL_INCLUDED if untreated else NO_CONTROL_WELL
    return {
        stack.key: _relate(stack, stack.measurement, controls, settled, without, regressor)
        for stack in stacks
        if stack.measurement is not None
    }


def _relate(
    stack: PlateStack,
    measurement: StackMeasurement,
    controls: Sequence[PlateStack],
    settled: bool,
    without: str,
    regressor: Regressor | None,
) -> Related:
    status = WellStatus.FINAL if settled and stack.settled else WellStatus.PROVISIONAL
    judged: _Judged = {"trust": stack.trust, "trust_flags": stack.flags}
    if stack.flags is not None and stack.trust is Trust.FAIL:
        return Related(status, failed_reason(stack.flags), **judged)
    if measurement.live_um3 is None:
        return Related(status, NO_LIVE_CHANNEL, **judged)
    comparable = [
        control.measurement
        for control in controls
        if control.measurement is not None
        and control.measurement.live_um3 is not None
        and control.measurement.model_sha256 == measurement.model_sha256
    ]
    if not comparable:
        missing = NO_CONTROL_LEFT if settled else NO_CONTROL_YET
        return Related(status, missing if controls else without, **judged)
    percent = v_control(measurement.live_um3, [c.live_um3 for c in comparable if c.live_um3 is not None])
    if percent is None:
        return Related(status, NO_LIVE_CONTROL, **judged)
    score = regressor and regressor.predict(
        measurement.live_um3_by_z, stack.z_step_um, [control.live_um3_by_z for control in comparable]
    )
    return Related(status, None, percent, *(score or (None, None, None)), **judged)
