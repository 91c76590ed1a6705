"""Plate readers' files: blocks, missing readings, blanks, and percent of the untreated wells."""

import pytest

from spheroidd.inference.viability.mtt import (
    Blank,
    MttPlate,
    ReaderBlock,
    Unit,
    choose_block,
    relate_to_controls,
)
from spheroidd.inference.viability.plate_reader_files import read_reader_file
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.plate import PlateMap, PlateWell, Treatment, WellRole
from spheroidd.protocols.well import WellId
from tests.places import REAL_DATA

W = WellId.parse
REAL = REAL_DATA / "plate_reader" / "spectramax.txt"


def plate(**roles: WellRole) -> PlateMap:
    return PlateMap("P1", tuple(PlateWell(W(well), Treatment(role)) for well, role in roles.items()))


MAP = plate(
    A01=WellRole.NEGATIVE_CONTROL,
    A02=WellRole.NEGATIVE_CONTROL,
    A03=WellRole.SAMPLE,
    A04=WellRole.SAMPLE,
    B01=WellRole.EMPTY,
    B02=WellRole.EMPTY,
)


@pytest.mark.skipif(not REAL.is_file(), reason="the plate reader's export is not here")
def test_a_real_export_has_its_blocks() -> None:
    blocks = {block.name: block for block in read_reader_file(REAL)}
    assert list(blocks) == ["Plate#1", "Group#2", "Group#1"]
    whole = blocks["Plate#1"]
    assert len(whole.values) == 96
    assert (whole.values[W("A1")], whole.values[W("H1")], whole.values[W("A7")]) == (1.3864, -0.0047, -0.0871)
    assert len(blocks["Group#2"].values) == 32
    assert blocks["Group#1"].values[W("G2")] == 0.015


@pytest.mark.skipif(not REAL.is_file(), reason="the plate reader's export is not here")
def test_the_block_is_asked_for_only_where_several_fit() -> None:
    blocks = read_reader_file(REAL)
    elsewhere = plate(A01=WellRole.NEGATIVE_CONTROL, A12=WellRole.SAMPLE)
    assert choose_block(blocks, elsewhere, None, "here").name == "Plate#1"
    inside = plate(A01=WellRole.NEGATIVE_CONTROL, B02=WellRole.SAMPLE)
    with pytest.raises(ConfigError, match="2 blocks cover") as caught:
        choose_block(blocks, inside, None, "here")
    assert "'Plate#1', 'Group#1'" in caught.value.do
    assert choose_block(blocks, inside, "group#1", "here").name == "Group#1"
    with pytest.raises(ConfigError, match="0 blocks are called"):
        choose_block(blocks, inside, "Plate#9", "here")


def block(unit: Unit = Unit.OD, **values: float) -> ReaderBlock:
    return ReaderBlock("P", unit, {W(well): value for well, value in values.items()}, {W("A04"): "Error"})


def percent(found: MttPlate) -> dict[str, float | None]:
    return {str(one.well): one.viability_percent for one in found.references}


def test_viability_is_percent_of_the_untreated_above_the_blank() -> None:
    found = relate_to_controls(block(A01=1.1, A02=0.9, A03=0.05, B01=0.08, B02=0.12), MAP, Blank())
    assert (found.blank_od, found.control_od, found.n_blanks, found.n_controls) == (0.1, 1.0, 2, 2)
    values = percent(found)
    assert values.pop("A04") is None
    assert values == pytest.approx({"A01": 100 / 0.9, "A02": 80 / 0.9, "A03": -5 / 0.9})
    assert found.references[-1].reason == "Error"


def test_an_excluded_control_is_related_but_is_none() -> None:
    found = relate_to_controls(block(A01=1.1, A02=0.6), MAP, Blank.parse("0.1"), excluded=[W("A01")])
    assert (found.n_controls, percent(found)["A01"]) == (1, 200)


def test_percentages_are_taken_as_they_are() -> None:
    found = relate_to_controls(block(Unit.PERCENT, A01=101.0, A03=-2.0), MAP, Blank())
    assert percent(found) == {"A01": 101.0, "A02": None, "A03": -2.0, "A04": None}
    assert found.references[1].reason == "not in the file"


@pytest.mark.parametrize(
    ("values", "blank", "message"),
    [
        ({"A01": 1.0}, None, "no reading of a blank"),
        ({"A01": 1.0}, "H1", "H01"),
        ({"A03": 1.0}, "none", "no untreated well"),
        ({"A01": 0.1}, "0.1", "the untreated wells read 0.1, the blank 0.1"),
        ({"A01": -0.1}, "none", "the untreated wells read -0.1"),
    ],
)
def test_what_cannot_be_related_is_refused(values: dict[str, float], blank: str | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        relate_to_controls(block(**values), MAP, Blank.parse(blank))


@pytest.mark.parametrize("unit", Unit)
def test_killed_wells_that_read_more_than_untreated_ones_are_refused(unit: Unit) -> None:
    controls = plate(A01=WellRole.NEGATIVE_CONTROL, A02=WellRole.POSITIVE_CONTROL, A03=WellRole.SAMPLE)
    with pytest.raises(ConfigError, match="the killed wells read 99, the untreated ones 2") as caught:
        relate_to_controls(block(unit, A01=2.0, A02=99.0, A03=50.0), controls, Blank(od=0.0))
    assert "orientation" in caught.value.do
    found = relate_to_controls(block(unit, A01=99.0, A02=2.0, A03=50.0), controls, Blank(od=0.0))
    assert percent(found)["A03"] == pytest.approx(50.0, abs=1)


def test_no_reading_at_all_is_refused() -> None:
    with pytest.raises(ConfigError, match="no imaged well"):
        relate_to_controls(block(Unit.PERCENT, H01=1.0), MAP, Blank())


@pytest.mark.parametrize("text", ["nan", "inf", "ZZ9", ""])
def test_a_blank_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        Blank.parse(text)
