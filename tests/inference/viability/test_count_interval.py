"""The interval of V count: wider where images are foreign, and missing with a reason where nobody can say."""

from dataclasses import replace

import pytest

from spheroidd.inference.network.model_card import read_card
from spheroidd.inference.viability.count_interval import (
    DOUBTFUL,
    MEASURED,
    NOT_MEASURED,
    TOO_FOREIGN,
    CountErrors,
    CountInterval,
    count_interval,
)
from spheroidd.inference.viability.related_viability import PlateStack, relate
from spheroidd.protocols.plate import WellRole
from spheroidd.protocols.results import Normalisation, StackMeasurement
from spheroidd.protocols.stack import StackKey
from spheroidd.protocols.trust import TrustFlag
from spheroidd.protocols.well import WellId

SHIPPED = read_card().sha256
SURE = CountErrors(0.0, 1.0, 0.0, 5.0, 1.0)  # the error of counting alone


def measured(n_live: int | None, n_dead: int | None, foreign: float | None = 0.5, model: str = SHIPPED):
    made = StackMeasurement(1000.0, 500.0, n_live, n_dead, (), {}, Normalisation.PLATE, model, 0.0, {})
    return replace(made, foreign_score=foreign)


def test_of_counting_alone_it_is_a_binomial_s() -> None:
    low, high = SURE.around(700, 300, 1.0)
    sd = (0.7 * 0.3 / 1000) ** 0.5
    assert (low, high) == pytest.approx((0.7 - 1.645 * sd, 0.7 + 1.645 * sd), abs=0.002)


def test_it_is_wider_for_fewer_cells_and_in_foreign_images() -> None:
    errors = CountErrors(-0.1, 0.5, 0.1, 5.0, 1.0)
    widths = [
        high - low
        for low, high in (
            errors.around(300, 100, 0.5),
            errors.around(30, 10, 0.5),
            errors.around(30, 10, 3.0),
        )
    ]
    assert widths == sorted(widths)
    assert errors.around(30, 10, None) == errors.around(30, 10, 1.0)


def test_its_mean_error_moves_it_and_what_was_counted_stays_inside() -> None:
    errors = CountErrors(-0.4, 0.0, 0.1, 5.0, 1.0)
    low, high = errors.around(500, 500, 0.5)
    assert high == 0.5
    assert low < 0.4


@pytest.mark.parametrize(("n_live", "n_dead", "end"), [(60, 0, 1), (0, 60, 0), (1, 0, 1), (0, 1, 0)])
def test_where_one_kind_was_not_found_there_may_be_none(n_live: int, n_dead: int, end: int) -> None:
    found = count_interval(measured(n_live, n_dead), ())
    assert found.low is not None
    assert found.high is not None
    assert 0 <= found.low < found.high <= 1
    assert (found.low, found.high)[end] == end


@pytest.mark.parametrize(
    ("row", "flags", "reason"),
    [
        (measured(90, 10, model="another"), (), NOT_MEASURED),
        (measured(90, 10, MEASURED[SHIPPED].most_foreign + 0.1), (TrustFlag.FOREIGN,), TOO_FOREIGN),
        (measured(90, 0), (TrustFlag.DEAD_DYE_ABSENT,), DOUBTFUL),
        (measured(90, 10), (TrustFlag.FOREIGN, TrustFlag.CLIPPED), DOUBTFUL),
        (measured(0, 0), (), None),
        (measured(None, 10), (), None),
        (measured(10, None), (), None),
    ],
)
def test_where_nobody_can_say_there_is_none_and_a_reason(
    row: StackMeasurement, flags: tuple[TrustFlag, ...], reason: str | None
) -> None:
    assert count_interval(row, flags) == CountInterval(None, None, reason)


def test_doubts_that_it_was_measured_under_leave_it() -> None:
    healthy = count_interval(measured(90, 10), ())
    assert healthy.low is not None
    assert count_interval(measured(90, 10), (TrustFlag.FOREIGN, TrustFlag.OBJECT_SIZE)) == healthy


@pytest.mark.parametrize(
    ("flags", "given"), [((), True), ((TrustFlag.SATURATED,), False), ((TrustFlag.NO_CELL,), False)]
)
def test_a_row_has_it_or_the_reason_unless_its_images_failed(flags: tuple[TrustFlag, ...], given: bool) -> None:
    stack = PlateStack(StackKey("p", WellId(0, 0)), WellRole.SAMPLE, 1.0, True, measured(90, 10), flags=flags)
    (row,) = relate([stack]).values()
    assert (row.v_count_lo is not None) == (row.v_count_hi is not None) == given
    assert row.v_count_reason == (DOUBTFUL if flags == (TrustFlag.SATURATED,) else None)
    if row.v_count_lo is not None and row.v_count_hi is not None:
        assert row.v_count_lo < 0.9 < row.v_count_hi


def test_the_errors_of_the_network_that_ships_were_measured() -> None:
    assert SHIPPED in MEASURED
