"""The plate's limits: what is dead does not clip, what is an accident does not stretch, and order says nothing."""

import itertools

import pytest

from spheroidd.inference.preprocessing.plate_limits import STEP, WellLight, clipped, plate_limits
from spheroidd.protocols.evidence import ChannelLight, StackLight
from spheroidd.protocols.plate import WellRole
from spheroidd.protocols.results import Limits

UNTREATED, KILLED, SAMPLE = WellRole.NEGATIVE_CONTROL, WellRole.POSITIVE_CONTROL, WellRole.SAMPLE


def well(role: WellRole, high_561: float, *, bleed: float | None = 1.0, saturated: float = 0.0) -> WellLight:
    """Peaks are twice the 98th percentile in untreated wells; calcein is the same in all but killed ones."""
    live = ChannelLight(110.0, 150.0 if role is KILLED else 1110.0, 2000.0, 0.0)
    dead = ChannelLight(110.0, high_561, 110.0 + 2 * (high_561 - 110.0), saturated)
    return WellLight(role, StackLight({"488": live, "561": dead}, bleed))


LIVING = [well(UNTREATED, high, bleed=0.1) for high in (300.0, 310.0, 320.0)]  # bleed-through asks for 510
DYING = [well(SAMPLE, high) for high in (500.0, 800.0, 1000.0)]


def window(limits: Limits) -> float:
    return limits.high - limits.low


@pytest.mark.parametrize(
    ("wells", "expected"),
    [
        pytest.param(LIVING, 400.0, id="no dead cell anywhere: four times the bleed-through"),
        pytest.param([*LIVING, *DYING], 890.0, id="dying wells without a killed one: the brightest"),
        pytest.param([*LIVING, well(SAMPLE, 900.0)], 790.0, id="a single dying well"),
        pytest.param([*LIVING, *[well(KILLED, 1200.0)] * 2], 1090.0, id="killed wells alone"),
        pytest.param([*LIVING, *DYING, well(SAMPLE, 9000.0)], 890.0, id="one lamp among dying wells"),
        pytest.param([*LIVING, *DYING, *[well(SAMPLE, 9000.0)] * 2], 890.0, id="two replicates of a bright dye"),
        pytest.param([*LIVING, *[well(SAMPLE, 2000.0)] * 3], 1890.0, id="more than a few are what the plate is like"),
        pytest.param([*LIVING, well(SAMPLE, 900.0, saturated=0.5)], 400.0, id="a saturated well says nothing"),
        pytest.param([*LIVING, well(UNTREATED, 120.0, bleed=None)], 400.0, id="one blank untreated well"),
    ],
)
def test_561_ends_at_the_brightest_well_that_can_be_believed(wells: list[WellLight], expected: float) -> None:
    found = plate_limits(wells)["561"]
    assert window(found) == pytest.approx(expected, rel=STEP / 2 + 1e-3)
    assert found.low == 110.0


def test_the_map_is_fixed_in_the_window() -> None:
    """The data's own mean and sd follow the number of dead cells, and the network then sees another picture."""
    few, many = plate_limits([*LIVING, well(SAMPLE, 900.0)]), plate_limits([*LIVING, *[well(SAMPLE, 900.0)] * 40])
    assert few == many
    assert (few["561"].mean - 110) / window(few["561"]) == pytest.approx(0.20)
    assert 1000.0 / few["488"].sd == pytest.approx(3.4)
    assert window(few["488"]) == pytest.approx(1400.0)


def test_488_comes_from_untreated_wells_alone() -> None:
    bright = WellLight(SAMPLE, StackLight({"488": ChannelLight(200.0, 9999.0, 9999.0, 0.0)}, None))
    assert plate_limits([*LIVING, bright])["488"] == plate_limits(LIVING)["488"]


def test_limits_do_not_depend_on_the_order_of_wells() -> None:
    wells = [*LIVING[:2], *DYING, well(SAMPLE, 5000.0)]
    found = [plate_limits(order) for order in itertools.islice(itertools.permutations(wells), 0, 720, 71)]
    assert all(one == found[0] for one in found)


def test_without_untreated_wells_all_stand_in_for_them() -> None:
    found = plate_limits([well(KILLED, 900.0), well(SAMPLE, 500.0)])
    assert found["488"].high == pytest.approx(110 + 1.4 * 1000)


def test_a_stack_of_one_channel_and_no_stack_at_all() -> None:
    only = WellLight(UNTREATED, StackLight({"561": ChannelLight(10.0, 20.0, 30.0, 0.0)}, None))
    assert plate_limits([only]).keys() == {"561"}
    assert plate_limits([]) == {}


def test_an_empty_window_gives_no_signal() -> None:
    zeros = WellLight(UNTREATED, StackLight({"488": ChannelLight(0.0, 0.0, 0.0, 0.0)}, None))
    assert plate_limits([zeros])["488"] == Limits(0.0, 0.0, 0.0, 0.0)


def test_how_far_a_well_is_beyond_its_limits_is_counted_from_the_background() -> None:
    limits = {"561": Limits(100.0, 300.0, 140.0, 40.0), "488": Limits(5.0, 5.0, 5.0, 0.0)}
    assert clipped({"561": {"0.98": 500.0}, "488": {"0.98": 9.0}}, limits) == {"561": 2.0}
