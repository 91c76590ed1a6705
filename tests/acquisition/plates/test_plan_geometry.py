"""Calibration from taught wells, the order over a plate, fields inside wells."""

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from spheroidd.protocols.acquisition_plan import AcquisitionPlan, WellOrder, ordered_wells, travel_um
from spheroidd.protocols.calibration import Calibration, calibrate
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.plate import PlateMap, PlateWell, Treatment, WellRole
from spheroidd.protocols.plate_format import PlateFormat, Point
from spheroidd.protocols.well import WellId

P96 = PlateFormat("p96", 8, 12, (9000.0, 9000.0), (1000.0, 1000.0))
SQUARE = PlateFormat("square", 8, 12, (9000.0, 9000.0), (1000.0, 600.0), round_wells=False)
SERPENTINES = [WellOrder.SERPENTINE_ROWS, WellOrder.SERPENTINE_COLUMNS]
WELLS = st.builds(WellId, st.integers(0, 7), st.integers(0, 11))
UM = st.floats(-2e5, 2e5)
HERE = Calibration(((1.0, 0.0), (0.0, 1.0)), (0.0, 0.0))


def wells(*names: str) -> list[WellId]:
    return [WellId.parse(name) for name in names]


def laid(rotation_deg: float, scale: float, mirrored: bool, offset_um: Point = (0.0, 0.0)) -> Calibration:
    """The plate turned, scaled and, with y against the rows, mirrored: the truth of a test."""
    turn = math.radians(rotation_deg)
    cos, sin, sign = scale * math.cos(turn), scale * math.sin(turn), -1 if mirrored else 1
    return Calibration(((cos, -sign * sin), (sin, sign * cos)), offset_um)


def taught(truth: Calibration, *names: str) -> dict[WellId, Point]:
    return {well: truth.stage_um(*P96.centre_um(well)) for well in wells(*names)}


def assert_same_places(found: Calibration, truth: Calibration, tolerance_um: float = 1e-3) -> None:
    for well in P96.wells():
        place = P96.centre_um(well)
        assert math.dist(found.stage_um(*place), truth.stage_um(*place)) < tolerance_um, well


@given(
    known=st.sets(WELLS, min_size=3, max_size=8),
    rotation_deg=st.floats(-180, 180),
    scale=st.floats(0.9905, 1.0095),
    mirrored=st.booleans(),
    x_um=UM,
    y_um=UM,
)
@settings(deadline=None)
def test_three_wells_beside_a_line_give_back_any_similarity(
    known: set[WellId], rotation_deg: float, scale: float, mirrored: bool, x_um: float, y_um: float
) -> None:
    places = np.array([P96.centre_um(well) for well in known])
    spread = np.linalg.svd(places - places.mean(axis=0), compute_uv=False)
    assume(spread[1] > 0.05 * spread[0])
    truth = laid(rotation_deg, scale, mirrored, (x_um, y_um))
    found = calibrate(P96, {well: truth.stage_um(*P96.centre_um(well)) for well in known})
    assert_same_places(found, truth)
    assert found.mirrored is mirrored
    assert found.scale == pytest.approx(scale)
    assert math.cos(math.radians(found.rotation_deg - rotation_deg)) == pytest.approx(1)
    assert found.worst_um < 1e-3


@given(pair=st.sets(WELLS, min_size=2, max_size=2), rotation_deg=st.floats(-180, 180), mirrored=st.booleans())
@settings(deadline=None)
def test_two_wells_and_the_word_mirrored_give_back_any_similarity(
    pair: set[WellId], rotation_deg: float, mirrored: bool
) -> None:
    truth = laid(rotation_deg, 1.0, mirrored, (5e3, -7e3))
    positions = {well: truth.stage_um(*P96.centre_um(well)) for well in pair}
    assert_same_places(calibrate(P96, positions, mirrored=mirrored), truth)


@pytest.mark.parametrize("rotation_deg", [-4.0, 0.0, 3.0, 176.5])
@pytest.mark.parametrize("mirrored", [False, True])
def test_two_wells_across_the_plate_tell_a_mirrored_axis_from_a_turned_plate(
    rotation_deg: float, mirrored: bool
) -> None:
    truth = laid(rotation_deg, 1.0, mirrored)
    assert_same_places(calibrate(P96, taught(truth, "A01", "H12")), truth)


@pytest.mark.parametrize("names", [("A01", "A12"), ("A01", "H01"), ("A01", "A06", "A12"), ("A01", "B12")])
def test_wells_on_one_line_leave_open_whether_an_axis_is_mirrored(names: tuple[str, ...]) -> None:
    truth = laid(1.0, 1.0, False)
    if names == ("A01", "B12"):
        truth = laid(-4.0, 1.0, False)  # mirrored and turned the other way would be as likely
        assert_same_places(calibrate(P96, taught(truth, *names), mirrored=False), truth)
        return
    with pytest.raises(ConfigError, match="do not tell whether an axis") as caught:
        calibrate(P96, taught(truth, *names))
    assert "mirrored = true or false" in caught.value.do
    assert_same_places(calibrate(P96, taught(truth, *names), mirrored=False), truth)


def test_a_plate_across_the_holder_needs_a_third_well() -> None:
    truth = laid(90.0, 1.0, False)
    with pytest.raises(ConfigError, match="do not tell"):
        calibrate(P96, taught(truth, "A01", "H12"))
    assert_same_places(calibrate(P96, taught(truth, "A01", "H12", "A12")), truth)


@given(st.lists(st.tuples(st.floats(-30, 30), st.floats(-30, 30)), min_size=4, max_size=4))
@settings(deadline=None)
def test_least_squares_is_no_worse_than_the_truth(noise: list[Point]) -> None:
    truth = laid(0.7, 1.0, True, (1e4, 8e4))
    exact = taught(truth, "A01", "A12", "H01", "H12")
    given_um = {w: (x + dx, y + dy) for (w, (x, y)), (dx, dy) in zip(exact.items(), noise, strict=True)}
    found = calibrate(P96, given_um)

    def error(one: Calibration) -> float:
        return sum(math.dist(one.stage_um(*P96.centre_um(w)), place) ** 2 for w, place in given_um.items())

    assert error(found) <= error(truth) + 1e-6
    residuals = [math.dist(found.stage_um(*P96.centre_um(w)), place) for w, place in given_um.items()]
    assert [r for _, r in found.residuals_um] == pytest.approx(residuals)


@pytest.mark.parametrize("scale", [0.989, 1.011])
def test_a_scale_that_is_off_by_more_than_a_percent_is_refused(scale: float) -> None:
    """That is less than what one confused well makes of the longest side of a 1536-well plate."""
    with pytest.raises(ConfigError, match=f"{scale} times as far apart"):
        calibrate(P96, taught(laid(3.0, scale, False), "A01", "A12", "H01"))


def test_an_affine_fit_gives_each_axis_its_own_scale() -> None:
    truth = Calibration(((1.004, 0.001), (-0.002, -0.997)), (3e3, 9e4))
    positions = taught(truth, "A01", "A12", "H01", "H12")
    assert_same_places(calibrate(P96, positions, fit="affine"), truth)
    with pytest.raises(ConfigError, match="contradict"):
        calibrate(P96, positions)


@given(x_um=UM, y_um=UM, rotation_deg=st.floats(-180, 180), mirrored=st.booleans())
def test_the_stage_leads_back_to_the_plate(x_um: float, y_um: float, rotation_deg: float, mirrored: bool) -> None:
    calibration = laid(rotation_deg, 1.003, mirrored, (4e4, -3e3))
    assert calibration.plate_um(*calibration.stage_um(x_um, y_um)) == pytest.approx((x_um, y_um), abs=1e-6)


GOOD = taught(laid(0.3, 1.0, True, (1e4, 8e4)), "A01", "A12", "H01")
A01, A12, H01 = GOOD


@pytest.mark.parametrize(
    ("positions", "options", "what"),
    [
        ({}, {}, "0 taught wells"),
        ({A01: (0.0, 0.0)}, {}, "1 taught well cannot"),
        ({A01: (0.0, 0.0), A12: (float("nan"), 0.0)}, {}, "no number of micrometres"),
        ({A01: (0.0, 0.0), A12: (1e308, -1e308)}, {}, "no number of micrometres"),
        (GOOD | {H01: (GOOD[H01][0] + 400, GOOD[H01][1])}, {}, "contradict each other: .*A01 by .*H01 by"),
        ({A01: GOOD[A01], A12: GOOD[H01], H01: GOOD[A12]}, {}, "contradict each other"),
        (GOOD, {"mirrored": False}, "contradict each other"),
        ({A01: (0.0, 0.0), WellId(7, 11): (90000.0, 63000.0)}, {}, "times as far apart"),  # column 11 and not 12
        ({A01: (5.0, 5.0), A12: (5.0, 5.0)}, {"mirrored": True}, "times as far apart"),
        ({A01: (5.0, 5.0), A12: (5.0, 5.0)}, {}, "0 times as far apart"),
        ({A01: (5.0, 5.0), A12: (9005.0, 5.0)}, {}, "0.09091 times as far apart"),
        ({A01: (0.0, 0.0), WellId(8, 0): (0.0, 72000.0)}, {}, "there is no well I01"),
        ({well: GOOD[well] for well in (A01, A12)}, {"fit": "affine"}, "needs three wells"),
        (GOOD, {"fit": "affine", "mirrored": False}, "say mirrored = true"),
    ],
    ids=str,
)
def test_taught_wells_that_cannot_be_right_are_refused(
    positions: dict[WellId, Point], options: dict[str, object], what: str
) -> None:
    with pytest.raises(ConfigError, match=what) as caught:
        calibrate(P96, positions, **options)  # type: ignore[arg-type]
    assert caught.value.do


@given(imaged=st.sets(WELLS, min_size=1), order=st.sampled_from(WellOrder))
def test_every_order_visits_every_well_once(imaged: set[WellId], order: WellOrder) -> None:
    way = ordered_wells(imaged, order)
    assert len(way) == len(imaged)
    assert set(way) == imaged


@given(
    imaged=st.sets(WELLS, min_size=1), order=st.sampled_from([WellOrder.SERPENTINE_ROWS, WellOrder.SERPENTINE_COLUMNS])
)
def test_a_serpentine_goes_from_neighbour_to_neighbour(imaged: set[WellId], order: WellOrder) -> None:
    """Within a line never over a well that is imaged later; to the next line by its nearer end."""
    rows = order is WellOrder.SERPENTINE_ROWS
    way = ordered_wells(imaged, order)
    lines = [well.row if rows else well.column for well in way]
    assert lines == sorted(lines)
    for before, after in pairwise(way):
        line = [w for w in imaged if (w.row == after.row if rows else w.column == after.column)]
        across = {w: abs((w.column - before.column) if rows else (w.row - before.row)) for w in line}
        if before in line:
            passed = [w for w in line if min(before, after) < w < max(before, after)]
            assert not passed
        else:
            assert across[after] == min(across[min(line)], across[max(line)])


@pytest.mark.parametrize(("rows", "columns"), [(2, 3), (8, 12), (16, 24), (32, 48)])
@pytest.mark.parametrize("order", SERPENTINES)
def test_over_a_whole_plate_a_serpentine_only_takes_steps_of_one_pitch(
    rows: int, columns: int, order: WellOrder
) -> None:
    plate = PlateFormat("x", rows, columns, (2250.0, 2250.0), (1700.0, 1700.0))
    way = [plate.centre_um(well) for well in ordered_wells(plate.wells(), order)]
    assert {math.dist(one, other) for one, other in pairwise(way)} == {2250.0}
    assert travel_um(way) == 2250.0 * (rows * columns - 1)


@pytest.mark.parametrize(
    ("start", "way"),
    [("A01", "A02 A03 B03 B02 C02 C03"), ("C01", "C02 C03 B03 B02 A02 A03"), ("B04", "A03 A02 B02 B03 C03 C02")],
)
def test_a_serpentine_begins_on_the_side_where_the_stage_stands(start: str, way: str) -> None:
    imaged = wells(*way.split())
    assert [str(w) for w in ordered_wells(imaged, WellOrder.SERPENTINE_ROWS, WellId.parse(start))] == way.split()


def plate_map(*entries: tuple[str, WellRole]) -> PlateMap:
    return PlateMap("p", tuple(PlateWell(WellId.parse(name), Treatment(role)) for name, role in entries))


MAP = plate_map(
    ("B02", WellRole.SAMPLE),
    ("A03", WellRole.POSITIVE_CONTROL),
    ("A01", WellRole.SAMPLE),
    ("B03", WellRole.NEGATIVE_CONTROL),
    ("A02", WellRole.EMPTY),
)


@pytest.mark.parametrize(
    ("order", "controls_first", "way"),
    [
        (WellOrder.MAP, True, "A03 B03 B02 A01"),
        (WellOrder.MAP, False, "B02 A03 A01 B03"),
        (WellOrder.ROWS, True, "A03 B03 A01 B02"),
        (WellOrder.ROWS, False, "A01 A03 B02 B03"),
        (WellOrder.COLUMNS, False, "A01 B02 A03 B03"),
        (WellOrder.SERPENTINE_ROWS, False, "A01 A03 B03 B02"),
    ],
)
def test_empty_wells_are_left_out_and_controls_come_first_where_wanted(
    order: WellOrder, controls_first: bool, way: str
) -> None:
    plan = AcquisitionPlan(P96, HERE, order, controls_first)
    assert [str(well) for well in plan.wells(MAP)] == way.split()


def test_a_map_with_a_well_beside_the_plate_is_refused() -> None:
    with pytest.raises(ConfigError, match="there is no well P24: the plate ends at H12"):
        AcquisitionPlan(P96, HERE).wells(plate_map(("P24", WellRole.SAMPLE)))


@given(well=WELLS, field=st.integers(0, 3), off_um=st.floats(-1.4, 1.4), mirrored=st.booleans())
def test_a_stage_position_leads_back_to_its_field(well: WellId, field: int, off_um: float, mirrored: bool) -> None:
    fields = ((-200.0, 0.0), (200.0, 0.0), (0.0, 150.0), (0.0, -150.0))
    plan = AcquisitionPlan(P96, laid(2.0, 1.0, mirrored, (1e4, 2e4)), fields_um=fields)
    x, y = plan.xy_um(well, field)
    assert plan.site_at(x + off_um, y - off_um, 1.5) == (well, field)
    assert plan.site_at(x + 20, y, 1.5) is None


@pytest.mark.parametrize(
    ("plate", "fields", "margin_um", "beyond"),
    [
        (P96, [(0.0, 0.0)], 0.0, None),
        (P96, [(370.0, 0.0)], 0.0, None),  # 500 um of radius, and a corner at (480, 20)
        (P96, [(380.0, 0.0)], 0.0, None),
        (P96, [(390.0, 0.0)], 0.0, "field 0 .* reaches"),
        (P96, [(0.0, 0.0), (380.0, 0.0)], 20.0, "field 1 .* reaches"),
        (P96, [(600.0, 0.0)], -300.0, None),
        (SQUARE, [(390.0, 280.0)], 0.0, None),
        (SQUARE, [(390.0, 281.0)], 0.0, "reaches 1 um too far out of the rectangular wells of 1000x600 um"),
        (SQUARE, [(-391.0, 0.0)], 0.0, "reaches 1 um"),
        (P96, [(0.0, 0.0), (0.0, 0.0)], 0.0, "field 1 is at the place of another"),
    ],
)
def test_fields_must_lie_inside_the_well(
    plate: PlateFormat, fields: Sequence[Point], margin_um: float, beyond: str | None
) -> None:
    plan = AcquisitionPlan(plate, HERE, fields_um=tuple(fields))
    if beyond is None:
        plan.check_fields((220.0, 40.0), margin_um)
        return
    with pytest.raises(ConfigError, match=beyond):
        plan.check_fields((220.0, 40.0), margin_um)


def test_a_field_is_as_the_camera_lies_and_not_as_the_plate_does() -> None:
    """Across the holder, an image that is wide for the stage is high for the plate."""
    across = AcquisitionPlan(SQUARE, laid(90.0, 1.0, False), fields_um=((0.0, 0.0),))
    across.check_fields((600.0, 1000.0))
    with pytest.raises(ConfigError, match="reaches 200 um"):
        across.check_fields((1000.0, 600.0))
