"""What a row is judged to be, and what that does to it and to the plate's controls."""

from dataclasses import replace

import pytest

from spheroidd.inference.quality.trust.row_trust import RowEvidence, judge, judge_related, relate_judged
from spheroidd.inference.viability.related_viability import NO_CONTROL_TRUSTED, PlateStack, relate
from spheroidd.protocols.plate import WellRole
from spheroidd.protocols.results import Limits, Normalisation, Precision, Related, StackMeasurement, WellStatus
from spheroidd.protocols.stack import CHANNELS, StackKey
from spheroidd.protocols.trust import Trust, TrustFlag
from spheroidd.protocols.well import WellId

SAMPLE, CONTROL = WellRole.SAMPLE, WellRole.NEGATIVE_CONTROL


def measured(live_um3: float = 1000.0, bright: float = 900.0, channel: str = "561") -> StackMeasurement:
    quantiles = {name: {"0.02": 100.0, "0.5": 200.0, "0.98": 900.0, "0.999": 1500.0} for name in CHANNELS}
    quantiles[channel] = {**quantiles[channel], "0.98": bright}
    return StackMeasurement(
        live_um3=live_um3,
        dead_um3=100.0,
        n_live=10,
        n_dead=5,
        live_um3_by_z=(live_um3,),
        limits={name: Limits(100.0, 1000.0, 300.0, 200.0) for name in CHANNELS},
        normalisation=Normalisation.PLATE,
        model_sha256="5f" * 32,
        cpu_s=1.0,
        quantiles=quantiles,
        precision=Precision.FP32,
    )


def stack(column: int, role: WellRole = SAMPLE, live_um3: float = 1000.0, bright: float = 900.0) -> PlateStack:
    return PlateStack(StackKey("P1", WellId(0, column)), role, 1.0, True, measured(live_um3, bright))


@pytest.mark.parametrize("channel", CHANNELS)
@pytest.mark.parametrize(
    ("bright", "flags"),
    [(900.0, ()), (1499.0, ()), (1500.0, ()), (1501.0, (TrustFlag.CLIPPED,)), (9000.0, (TrustFlag.CLIPPED,))],
)
def test_a_well_brighter_than_its_limits_is_clipped(channel: str, bright: float, flags: tuple[TrustFlag, ...]) -> None:
    assert judge(RowEvidence(StackKey("P1", WellId(0, 0)), SAMPLE, measured(bright=bright, channel=channel))) == flags


def test_a_measurement_without_quantiles_is_not_clipped() -> None:
    assert judge(RowEvidence(StackKey("P1", WellId(0, 0)), SAMPLE, replace(measured(), quantiles={}))) == ()


@pytest.mark.parametrize(
    ("v_control", "flags"), [(None, ()), (100.0, ()), (300.0, ()), (300.1, (TrustFlag.V_CONTROL_HIGH,))]
)
def test_three_times_the_controls_is_not_believed(v_control: float | None, flags: tuple[TrustFlag, ...]) -> None:
    assert judge_related(Related(WellStatus.FINAL, None, v_control)) == flags


def test_a_clipped_row_keeps_its_numbers_and_says_check() -> None:
    found = relate_judged([stack(0, CONTROL), stack(1, bright=1800.0), stack(2)])
    clipped, clean = (found[StackKey("P1", WellId(0, column))] for column in (1, 2))
    assert (clipped.trust, clipped.trust_flags, clipped.v_control) == (Trust.CHECK, ("clipped",), 100.0)
    assert (clean.trust, clean.trust_flags, clean.v_control) == (Trust.OK, (), 100.0)


def test_flags_of_the_row_and_of_its_relation_stand_together() -> None:
    found = relate_judged([stack(0, CONTROL), stack(1, live_um3=4000.0, bright=1800.0)])
    assert found[StackKey("P1", WellId(0, 1))].trust_flags == ("v-control-high", "clipped")


def test_a_failed_row_has_no_viability_and_says_why() -> None:
    failed = replace(stack(1), flags=(TrustFlag.NO_CELL, TrustFlag.CLIPPED))
    found = relate([stack(0, CONTROL), failed])[failed.key]
    assert (found.v_control, found.v_score, found.v_score_lo, found.v_score_hi) == (None,) * 4
    assert found.reason == "its images failed: no cell was found, neither living nor dead"
    assert (found.status, found.trust, found.trust_flags) == (WellStatus.FINAL, Trust.FAIL, ("no-cell", "clipped"))


def test_a_failed_control_is_no_control() -> None:
    controls = [stack(0, CONTROL, 1000.0), replace(stack(1, CONTROL, 10.0), flags=(TrustFlag.CAMERA_NOISE,))]
    sample = stack(2, live_um3=500.0)
    assert relate([*controls, sample])[sample.key].v_control == 50.0


def test_where_every_control_failed_the_reason_says_so() -> None:
    control, sample = replace(stack(0, CONTROL), flags=(TrustFlag.CAMERA_NOISE,)), stack(1)
    found = relate([control, sample])[sample.key]
    assert (found.v_control, found.reason) == (None, NO_CONTROL_TRUSTED)


@pytest.mark.parametrize(("settled", "status"), [(True, WellStatus.FINAL), (False, WellStatus.PROVISIONAL)])
def test_a_failed_control_that_may_be_scored_again_keeps_the_plate_provisional(
    settled: bool, status: WellStatus
) -> None:
    control = replace(stack(0, CONTROL), flags=(TrustFlag.CAMERA_NOISE,), settled=settled)
    sample = stack(1)
    assert relate([control, stack(2, CONTROL), sample])[sample.key].status is status
