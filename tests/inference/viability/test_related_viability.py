"""V_control and V_score: related to the same plate's controls, never clipped, never a zero for what is unknown."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spheroidd.inference.viability.related_viability import PlateStack, relate, v_control, v_count
from spheroidd.protocols.plate import WellRole
from spheroidd.protocols.results import Normalisation, Related, StackMeasurement, WellStatus
from spheroidd.protocols.stack import StackKey
from spheroidd.protocols.well import WellId

SAMPLE, CONTROL, KILLED = WellRole.SAMPLE, WellRole.NEGATIVE_CONTROL, WellRole.POSITIVE_CONTROL
FINAL, PROVISIONAL = WellStatus.FINAL, WellStatus.PROVISIONAL


def measured(live_um3, model="m") -> StackMeasurement:
    by_z = () if live_um3 is None else (live_um3 / 4,) * 4
    return StackMeasurement(live_um3, 1.0, 1, 1, by_z, {}, Normalisation.STACK, model, 0.0, {})


def stack(column, role, live_um3="none", *, settled=True, model="m") -> PlateStack:
    measurement = None if live_um3 == "none" else measured(live_um3, model)
    return PlateStack(StackKey("p", WellId(0, column)), role, 0.5, settled, measurement)


def related(*stacks, regressor=None) -> list[Related]:
    found = relate(stacks, regressor)
    return [found[key] for key in sorted(found)]


class Fixed:
    """A regressor that answers with what it was given."""

    def predict(self, profile_um3, z_step_um, control_profiles_um3):
        return sum(profile_um3), z_step_um, len(control_profiles_um3)


@pytest.mark.parametrize(
    ("n_live", "n_dead", "v"), [(3, 1, 0.75), (0, 4, 0.0), (0, 0, None), (None, 1, None), (1, None, None)]
)
def test_v_count(n_live, n_dead, v):
    assert v_count(n_live, n_dead) == v


@pytest.mark.parametrize(
    ("live", "controls", "v"),
    [
        (50, [100], 50.0),
        (50, [80, 100, 900], 50.0),
        (250, [100], 250.0),
        (0, [100], 0.0),
        (50, [], None),
        (50, [0, 0], None),
    ],
)
def test_v_control(live, controls, v):
    assert v_control(live, controls) == v


def test_wells_are_percent_of_the_controls_median_the_controls_too():
    rows = related(stack(1, CONTROL, 80), stack(2, CONTROL, 100), stack(3, CONTROL, 900), stack(4, SAMPLE, 150))
    assert [row.v_control for row in rows] == [80, 100, 900, 150]
    assert {(row.status, row.reason) for row in rows} == {(FINAL, None)}


def test_rows_are_provisional_until_every_control_is_settled():
    scored = [stack(1, CONTROL, 100), stack(4, SAMPLE, 50)]
    for unsettled in (stack(2, CONTROL, settled=False), stack(2, CONTROL, 120, settled=False)):
        assert {row.status for row in related(*scored, unsettled)} == {PROVISIONAL}
    for settled in (stack(2, CONTROL), stack(2, KILLED, settled=False), stack(2, SAMPLE, settled=False)):
        assert {row.status for row in related(*scored, settled)} == {FINAL}


def test_a_control_that_arrives_changes_the_rows():
    early = related(stack(1, CONTROL, 100), stack(2, CONTROL, settled=False), stack(4, SAMPLE, 50))
    late = related(stack(1, CONTROL, 100), stack(2, CONTROL, 300), stack(4, SAMPLE, 50))
    assert (early[-1].v_control, early[-1].status) == (50, PROVISIONAL)
    assert (late[-1].v_control, late[-1].status) == (25, FINAL)


@pytest.mark.parametrize(
    ("stacks", "status", "reason"),
    [
        ([stack(4, SAMPLE, 50)], FINAL, "no untreated control"),
        ([stack(4, SAMPLE, 50), stack(1, KILLED, 5)], FINAL, "no untreated control"),
        ([stack(4, SAMPLE, 50), stack(1, CONTROL, settled=False)], PROVISIONAL, "scored yet"),
        ([stack(4, SAMPLE, 50), stack(1, CONTROL)], FINAL, "could be scored"),
        ([stack(4, SAMPLE, 50), stack(1, CONTROL, 100, model="other")], FINAL, "could be scored"),
        (
            [stack(4, SAMPLE, 50), stack(1, CONTROL, 0.0), stack(2, CONTROL, 0.0)],
            FINAL,
            "no live volume in the plate's",
        ),
        ([stack(4, SAMPLE, None), stack(1, CONTROL, 100)], FINAL, "no live channel"),
        ([stack(4, SAMPLE, 50), stack(1, CONTROL, None)], FINAL, "could be scored"),
    ],
)
def test_what_cannot_be_related_says_why_and_has_no_number(stacks, status, reason):
    row = relate(stacks, Fixed())[stacks[0].key]
    assert (row.status, row.v_control, row.v_score, row.v_score_lo, row.v_score_hi) == (status, *[None] * 4)
    assert reason in row.reason


def test_the_score_comes_from_the_regressor_with_the_same_controls():
    rows = related(stack(1, CONTROL, 100), stack(2, CONTROL, 60, model="old"), stack(4, SAMPLE, 50), regressor=Fixed())
    assert (rows[-1].v_score, rows[-1].v_score_lo, rows[-1].v_score_hi) == (50, 0.5, 1)


def test_a_regressor_without_an_answer_leaves_the_score_unknown():
    class Silent:
        def predict(self, *_):
            return None

    rows = related(stack(1, CONTROL, 100), stack(4, SAMPLE, 50), regressor=Silent())
    assert (rows[-1].v_control, rows[-1].v_score, rows[-1].v_score_lo) == (50, None, None)


def test_unscored_stacks_get_no_row():
    assert related(stack(1, CONTROL), stack(4, SAMPLE, settled=False)) == []


stacks = st.lists(
    st.tuples(
        st.sampled_from([SAMPLE, CONTROL, KILLED]), st.just("none") | st.none() | st.floats(0, 1e9), st.booleans()
    ),
    max_size=8,
).map(lambda rows: [stack(n, *row[:2], settled=row[2]) for n, row in enumerate(rows)])


@settings(deadline=None)
@given(stacks=stacks, data=st.data())
def test_any_plate_is_related_whatever_the_order(stacks, data):
    found = relate(stacks)
    assert found == relate(data.draw(st.permutations(stacks)))
    assert set(found) == {s.key for s in stacks if s.measurement is not None}
    for row in found.values():
        assert (row.v_control is None) == (row.reason is not None)
        assert row.v_control is None or (math.isfinite(row.v_control) and row.v_control >= 0)
