"""Plate readers' files: blocks, missing readings, blanks, and percent of the untreated wells."""

import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spheroidd.inference.viability.mtt import (
    Blank,
    MttPlate,
    ReaderBlock,
    Unit,
    choose_block,
    number,
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


HEAD = (
    "Plate:\t{name}\t1.3\t{format}\tEndpoint\tAbsorbance\tRaw\tFALSE\t1\t\t\t\t\t\t{n}\t{waves}\t1\t2\t96\t1\t2\tNone"
)


def export(tmp_path: Path, *blocks: str) -> Path:
    path = tmp_path / "export.txt"
    path.write_bytes(("##BLOCKS= 9\r\n" + "~End\r\n".join(blocks) + "~End\r\n").encode("latin-1"))
    return path


def picture(*rows: str, name: str = "P", waves: str = "570", form: str = "PlateFormat") -> str:
    head = HEAD.format(name=name, format=form, n=len(waves.split()), waves=waves)
    return "\r\n".join([head, "\tTemperature(\xb0C)\t1\t2", *rows, ""]) + "\r\n"


def test_a_cell_without_a_number_is_missing_and_never_zero(tmp_path: Path) -> None:
    (block,) = read_reader_file(export(tmp_path, picture("\t37.0\t0.5\tError", "\t\t\t-0.1")))
    assert block.values == {W("A1"): 0.5, W("B2"): -0.1}
    assert block.missing == {W("A2"): "Error", W("B1"): ""}


def test_wavelengths_and_readings_are_blocks_of_their_own(tmp_path: Path) -> None:
    rows = ("\t37.0\t1\t2\t\t5\t6", "\t\t3\t4\t\t7\t8", "", "\t37.1\t1,5\t2\t\t5\t6", "\t\t3\t4\t\t7\t8,5")
    blocks = read_reader_file(export(tmp_path, picture(*rows, waves="570 690")))
    assert [block.name for block in blocks] == [
        "P 570 reading 1",
        "P 690 reading 1",
        "P 570 reading 2",
        "P 690 reading 2",
    ]
    assert blocks[1].values == {W("A1"): 5, W("A2"): 6, W("B1"): 7, W("B2"): 8}
    assert (blocks[2].values[W("A1")], blocks[3].values[W("B2")]) == (1.5, 8.5)


def test_a_column_a_well_is_read_too(tmp_path: Path) -> None:
    head = HEAD.format(name="P", format="TimeFormat", n=1, waves="570")
    text = f"{head}\r\nTime\tTemperature(C)\tA1\tA2\tB1\r\n00:00\t37.0\t0.4\tOVRFLW\t0.2\r\n\r\n"
    (block,) = read_reader_file(export(tmp_path, text))
    assert (block.values, block.missing) == ({W("A1"): 0.4, W("B1"): 0.2}, {W("A2"): "OVRFLW"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (picture("\t37.0\t0.5\t0.4"), "promises 2 rows of cells and has 1"),
        (picture("\t37.0\t0.5\t1", "\t\t1\t1", form="Spectrum"), "format 'Spectrum'"),
        (picture("\t37.0\tError\tError", "\t\tError\tError"), "no reading"),
        ("Plate:\tP\t1.3\tPlateFormat\r\n", "field 17"),
        (picture("\t1\t1\t1", "\t\t1\t1") + "~End\r\n" + picture("\t1\t1\t1", "\t\t1\t1"), "two blocks are called"),
        ("Group:\tG\t1\r\nSample\tWells\tValues\r\nx\tA1\t1\r\n\tA01\t2\r\n", "stands twice"),
    ],
)
def test_a_broken_export_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        read_reader_file(export(tmp_path, text))
    assert "export.txt" in caught.value.where


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("well,od\nA01,0.5\na2,\nB1,Error\n", Unit.OD),
        ("Well;Viability\nA01;0,5\nA2;\nB1;Error\n", Unit.PERCENT),
        ("\ufeffwell\tOD\tnote\nA01\t0.5\tx\nA2\t\t\nB1\tError\t\n\t\t\n", Unit.OD),
    ],
)
def test_csv_with_a_well_and_a_reading(tmp_path: Path, text: str, unit: Unit) -> None:
    (tmp_path / "a.csv").write_text(text, encoding="utf-8")
    (block,) = read_reader_file(tmp_path / "a.csv")
    assert (block.unit, block.values) == (unit, {W("A1"): 0.5})
    assert block.missing == {W("A2"): "", W("B1"): "Error"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "columns are none"),
        ("well,size\nA1,2\n", "columns are well, size"),
        ("well,od,od\nA1,2,3\n", "columns are"),
        ("well,od\nZ99,2\n", "line 2"),
        ("well,od\nA1,2\nA01,3\n", "line 3: well A01 stands twice"),
        ("well,od\nA1,0,5\n", "more cells"),
        ("well,od\nA1,\n", "no reading"),
    ],
)
def test_a_broken_csv_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.csv").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        read_reader_file(tmp_path / "a.csv")


@given(st.binary(max_size=200) | st.text("Plate:\t1.\n~EndGroup,;wellodA", max_size=200).map(str.encode))
@settings(deadline=None)
def test_any_bytes_are_blocks_or_a_clear_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("wild") / "x.txt"
    path.write_bytes(data)
    try:
        blocks = read_reader_file(path)
    except ConfigError as error:
        told = error.do
    else:
        told = "read"
        assert all(math.isfinite(value) for block in blocks for value in block.values.values())
    assert told


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


def test_no_reading_at_all_is_refused() -> None:
    with pytest.raises(ConfigError, match="no imaged well"):
        relate_to_controls(block(Unit.PERCENT, H01=1.0), MAP, Blank())


@pytest.mark.parametrize("text", ["nan", "inf", "ZZ9", ""])
def test_a_blank_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        Blank.parse(text)


@given(st.text(max_size=8))
@settings(deadline=None)
def test_a_cell_is_a_finite_number_or_missing(text: str) -> None:
    value = number(text)
    assert value is None or math.isfinite(value)
