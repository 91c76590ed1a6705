"""Plate readers' files: every reading stands in the well that its labels say, and unknown layouts are refused."""

import math
from pathlib import Path

import openpyxl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spheroidd.inference.viability.mtt import Blank, Unit, choose_block, relate_to_controls
from spheroidd.inference.viability.plate_reader_files import read_reader_file
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.plate import PlateMap, PlateWell, Treatment, WellRole
from spheroidd.protocols.well import WellId

W = WellId.parse


# -- SoftMax Pro ----------------------------------------------------------------------------------------------------

HEAD = (
    "Plate:\t{name}\t1.3\t{format}\tEndpoint\tAbsorbance\tRaw\tFALSE\t1\t\t\t\t\t\t{n}\t{waves}\t1\t2\t96\t1\t2\tNone"
)


def export(tmp_path: Path, *blocks: str) -> Path:
    path = tmp_path / "export.txt"
    path.write_bytes(("##BLOCKS= 9\r\n" + "~End\r\n".join(blocks) + "~End\r\n").encode("latin-1"))
    return path


def picture(*rows: str, name: str = "P", waves: str = "570", form: str = "PlateFormat") -> str:
    head = HEAD.format(name=name, format=form, n=len(waves.split()), waves=waves)
    return "\r\n".join([head, "\tTemperature(\xb0C)" + "\t1\t2\t" * len(waves.split()), *rows, ""]) + "\r\n"


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
        "P 570-690 reading 1",
        "P 570-690 reading 2",
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
        ("Plate:\tP\t1.3\tPlateFormat\r\n", "no line of columns above its cells"),
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
        ("Well;Viability_percent\nA01;0,5\nA2;\nB1;Error\n", Unit.PERCENT),
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
        ("", "it is empty"),
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


def partial(n_waves: int = 1, first: int = 3, columns: int = 8, row: int = 3, rows: int = 4) -> str:
    """A picture as SoftMax Pro writes it of part of a plate: all of its columns and rows, most cells empty."""
    waves = "570 690 260"[: 4 * n_waves].strip()
    head = f"Plate:\tP\t1.3\tPlateFormat\tEndpoint\tAbsorbance\tRaw\tFALSE\t1\t\t\t\t\t\t{n_waves}\t{waves} "
    lines = [f"{head}\t{first}\t{columns}\t96\t{row}\t{rows}\t\t"]
    labels = "\t".join(str(n) for n in range(1, 13))
    lines.append("\tTemperature(\xb0C)" + f"\t{labels}\t" * n_waves)
    for y in range(8):
        inside = 2 <= y < 6
        sets = [[f"{w}.{y}{x:02d}5" if inside and 2 <= x < 10 else "" for x in range(12)] for w in range(n_waves)]
        lines.append(("\t0" if y == 2 else "\t") + "".join("\t" + "\t".join(cells) + "\t" for cells in sets))
    return "\r\n".join([*lines, "\t", ""])


@pytest.mark.parametrize("n_waves", [1, 3])
def test_part_of_a_plate_stands_under_its_own_labels(tmp_path: Path, n_waves: int) -> None:
    blocks = read_reader_file(export(tmp_path, partial(n_waves)))[:n_waves]
    for w, block in enumerate(blocks):
        assert len(block.values) == 32
        assert block.values[W("C03")] == float(f"{w}.2025")
        assert block.values[W("F10")] == float(f"{w}.5095")
        assert not block.missing


@pytest.mark.parametrize("said", [{"first": 1}, {"row": 1}, {"columns": 6}, {"rows": 3}], ids=str)
def test_counts_that_disagree_with_the_labels_are_refused(tmp_path: Path, said: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="its labels put a reading in"):
        read_reader_file(export(tmp_path, partial(**said)))


@pytest.mark.parametrize("number", ["1" * 5000, "\u00b2", "-1"], ids=["endless", "superscript", "negative"])
def test_a_count_that_is_none_is_left_to_the_labels(tmp_path: Path, number: str) -> None:
    text = partial(1).replace("\t8\t", f"\t{number}\t")
    assert number in text
    assert len(read_reader_file(export(tmp_path, text))[0].values) == 32


FLUORESCENCE = (
    "Plate:\tP\t1.3\tTimeFormat\tEndpoint\tFluorescence\tFALSE\tRaw\tFALSE\t1\t\t\t\t\t\t2\t535 610 "
    "\t2\t2\t96\t485 550 \tManual\t\t\t\t6\t\t\t\t1\t1\t485 550 \t\t"
)


def test_wavelengths_below_each_other_and_what_was_reduced_from_them(tmp_path: Path) -> None:
    raw = "\tTemperature(\xb0C)\tA1\tA2\tA3\r\n\t0\t\t10\t20\r\n\r\n\t0\t\t30\t40\r\n\r\n"
    table = f"{raw}\t\tA1\tA2\tA3\r\n\t\t \t1.5\t2\r\n"
    blocks = read_reader_file(export(tmp_path, f"{FLUORESCENCE}\r\n{table}"))
    assert [(block.name, dict(block.values)) for block in blocks] == [
        ("P 535", {W("A2"): 10, W("A3"): 20}),
        ("P 610", {W("A2"): 30, W("A3"): 40}),
        ("P reduced", {W("A2"): 1.5, W("A3"): 2}),
    ]


# -- the others -----------------------------------------------------------------------------------------------------

COLUMNS = "1,2,3,4,5,6,7,8,9,10,11,12"


def picture_of(shift: float = 0.0, sep: str = ",", side: str = "", decimal: str = ".") -> str:
    """An 8 x 12 picture whose cells tell where they are: C07 is 0.307 + shift."""
    lines = []
    for y, letter in enumerate("ABCDEFGH", start=1):
        cells = [f"{y / 10 + x / 1000 + shift:.4f}".replace(".", decimal) for x in range(1, 13)]
        lines.append(sep.join([letter, *cells, *([side] if side else [])]))
    return "\n".join(lines) + "\n"


def tabs(text: str) -> str:
    return text.replace(",", "\t")


MARS = (
    "User: USER,Path: C:\\Program Files\\BMG,Test run no.: 4,,\nTest name: MTT,Date: 29/02/2026,Time: 14:34:46\n\n"
    "ID1: plate 1,ID2:\nAbsorbance\n\n"
    f"Raw Data (570 1)\n\n,{COLUMNS},\n{picture_of()}\nRaw Data (690 2)\n\n,{COLUMNS},\n{picture_of(-0.1)}\n"
)
GEN5 = (
    "\n\nSoftware Version\t3.12.08\n\nPlate Number\tPlate 1\nRead\tAbsorbance Endpoint\n\tWavelengths:  570, 690\n\n"
    f"Layout\n\t{tabs(COLUMNS)}\nA\t"
    + "\t".join(["SPL1"] * 12)
    + "\tWell ID\n\t"
    + "\t".join(["100"] * 12)
    + "\tConc/Dil\n\n"
    f"Results\n\t{tabs(COLUMNS)}\n"
    + "".join(
        f"{one}\n\t{other}\n"
        for one, other in zip(
            picture_of(0, "\t", "570").splitlines(),
            (line[2:] for line in picture_of(-0.1, "\t", "690").splitlines()),
            strict=True,
        )
    )
)
ENVISION = (
    "Plate information\nPlate,Repeat,Barcode,Measured height\n1,1,,14.35\n\n"
    "Background information\nPlate,Label,Result\n1,A570,0\n\n"
    f"Results for A570(1) - channel 1 (A)\n,{COLUMNS.replace('1,2,3', '01,02,03')},\n{picture_of()}\n"
    "Background information\nPlate,Label,Result\n1,A690,0\n\n"
    f"Results for A690(1) - channel 1 (A)\n,{COLUMNS},\n{picture_of(-0.1)}\n"
    f"Basic assay information\nAssay ID: ,,,,101\n\nPlatemap:\nPlate,,,,1\nGroup,,,,1\n\n,{COLUMNS},\n"
    + "".join(f"{letter},{','.join('1' * 12)}\n" for letter in "ABCDEFGH")
)
ICONTROL = "".join(
    f"{'Application: Tecan i-control' if nm == 570 else ''}\nLabel: {label}\nMode\t\t\t\tAbsorbance\n"
    f"Wavelength\t\t\t\t{nm}\tnm\nNumber of Flashes\t\t\t\t25\nStart Time:\t1/2/2026\n\n"
    f"\tTemperature: 24.5 C\n<>\t{tabs(COLUMNS)}\n{picture_of(shift, chr(9))}\n\n"
    for label, nm, shift in (("Label1", 570, 0), ("Label2", 690, -0.1))
)
MAGELLAN = (
    "Well positions;Layout;Label1;Label2;Label1=570\n;;0s;0s;Label2=690\n;;24.8 C;25.1 C;\n"
    + "".join(
        f"{letter}{x};SM1_1;{y / 10 + x / 1000:.3f};{y / 10 + x / 1000 - 0.1:.3f};\n".replace(".", ",")
        for y, letter in enumerate("ABCDEFGH", start=1)
        for x in range(1, 13)
    )
    + "Date: 2026-07-06;;;;\n"
)
MARS_LIST = (
    "User: U\tPath: C\tTest run no.: 4\nTest name: MTT\n\nWell Row\tWell Col\tContent\tRaw Data (570)\tRaw Data (690)\n"
    + "".join(
        f"{letter}\t{x}\tSample X{x}\t{y / 10 + x / 1000:.3f}\t{y / 10 + x / 1000 - 0.1:.3f}\n"
        for y, letter in enumerate("ABCDEFGH", start=1)
        for x in range(1, 13)
    )
)


@pytest.mark.parametrize(
    "text",
    [MARS, GEN5, ENVISION, ICONTROL, MAGELLAN, MARS_LIST],
    ids=["MARS", "GEN5", "ENVISION", "ICONTROL", "MAGELLAN", "LIST"],
)
def test_every_reader_gives_wells_by_their_labels_and_subtracts_the_reference(tmp_path: Path, text: str) -> None:
    path = tmp_path / "reader.txt"
    path.write_bytes(text.encode("utf-16"))
    blocks = read_reader_file(path)
    assert [(block.wavelength_nm, block.reference_nm, len(block.values)) for block in blocks] == [
        (570, None, 96),
        (690, None, 96),
        (570, 690, 96),
    ]
    measured, reference, difference = blocks
    assert (measured.values[W("C7")], measured.values[W("H12")]) == pytest.approx((0.307, 0.812))
    assert reference.values[W("C7")] == pytest.approx(0.207)
    assert {round(value, 6) for value in difference.values.values()} == {0.1}
    everything = PlateMap("P", tuple(PlateWell(well, Treatment(WellRole.NEGATIVE_CONTROL)) for well in measured.values))
    assert choose_block(blocks, everything, None, "") == difference
    assert choose_block(blocks, everything, measured.name, "") == measured
    assert relate_to_controls(difference, everything, Blank(od=0)).reference_nm == 690


def test_a_workbook_is_read_like_a_text(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.append(["Application: Tecan i-control"])
    sheet.append(["Measurement wavelength", None, None, None, 570, "nm"])
    sheet.append([])
    sheet.append(["<>", *range(3, 7)])
    for y, letter in enumerate("CD", start=3):
        sheet.append([letter, *(1 + y / 10 + x / 1000 for x in range(3, 7))])
    sheet["B5"] = "OVER"
    book.save(tmp_path / "a.xlsx")
    (block,) = read_reader_file(tmp_path / "a.xlsx")
    assert block.wavelength_nm == 570
    assert block.missing == {W("C3"): "OVER"}
    assert block.values[W("D6")] == pytest.approx(1.406)
    assert W("A1") not in block.values


def test_a_formula_that_was_never_computed_is_told(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    book.active.append(["well", "od"])
    book.active.append(["A1", "=1+1"])
    book.save(tmp_path / "a.xlsx")
    with pytest.raises(ConfigError, match=r"cell B2 holds a formula that was never computed"):
        read_reader_file(tmp_path / "a.xlsx")


def test_kinetics_have_a_block_for_each_reading(tmp_path: Path) -> None:
    rows = "0:00:22\t30.0\t-0.066\t0.5\n0:04:22\t30.0\t0.1\t0.6\n0:00:00\t\t\t\n"
    text = f"Software Version\t3.1\n600\n\nTime\tT 600\tA1\tA2\n{rows}"
    (tmp_path / "a.txt").write_text(text)
    assert [(block.name, block.values[W("A2")]) for block in read_reader_file(tmp_path / "a.txt")] == [
        ("600 reading 1", 0.5),
        ("600 reading 2", 0.6),
    ]
    (tmp_path / "b.txt").write_text("Tecan\n\nCycle Nr.\t1\t2\nTime [s]\t0\t60\nA1\t0.11\t0.12\nB1\t0.21\t0.22\n")
    assert [(block.name, block.values[W("B1")]) for block in read_reader_file(tmp_path / "b.txt")] == [
        ("Tecan cycle 1", 0.21),
        ("Tecan cycle 2", 0.22),
    ]


def test_a_column_of_numbers_is_decided_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("well\tvalue\nC05\t1,234,567\nC06\t987,654\nC07\t12,345\nC08\t987\n")
    assert list(read_reader_file(path)[0].values.values()) == [1234567, 987654, 12345, 987]
    path.write_text('well,od\nC05,"12,345"\nC06,"11,980"\nC07,"1,050"\nC08,987\n')
    with pytest.raises(ConfigError, match=r"well C05: '12,345' in column 'od' could be 12345 or 12.345"):
        read_reader_file(path)
    path.write_text("well;od\nC05;1.050\nC06;2.000\n")
    with pytest.raises(ConfigError, match=r"could be 1050 or 1.050"):
        read_reader_file(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Plate information\n\n0.1,0.2,0.3\n0.2,0.3,0.4\n", "3 lines that begin with 'Plate information'; '0.1"),
        ("sample,result\nx,1\n", "no picture of a plate, no column of wells"),
        ("<html><table></table></html>", "this is a web page"),
        ("<?xml version='1.0'?><Experiment/>", "this is XML"),
    ],
)
def test_an_unknown_layout_is_refused_with_what_was_seen(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        read_reader_file(tmp_path / "a.txt")
    assert caught.value.do


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (",1,2\nA,0.1,0.2\n,,\nC,0.3,0.4\n", "line 4: row C of a plate stands where no column numbers"),
        (",1,2\nB,0.3,0.4\nA,0.1,0.2\n", "line 3: row A of a plate stands where"),
        (",2,1\nA,0.1,0.2\n", "line 2: row A of a plate stands where"),
        (",1,2,,1,2\nA,0.1,0.2,,1.1,1.2\n", "a picture of a plate has no row letters of its own"),
        ("well,viability\nA1,0.95\nA2,0.02\n", "goes up to 0.95, which could be percent or shares of 1"),
    ],
    ids=["a line between", "upwards", "columns downwards", "no letters", "shares"],
)
def test_what_would_be_half_a_plate_or_a_hundredth_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_reader_file(tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("text", "readings"),
    [
        (",1,2,Mean,SD\nA,0.1,0.2,0.15,0.05\nB,0.3,0.4,0.35,0.05\n", {"A01": 0.1, "A02": 0.2, "B01": 0.3, "B02": 0.4}),
        ("Concentration (uM)\n,1,2\nA,1,2\n\nOD\n,1,2\nA,0.1,0.2\n", {"A01": 0.1, "A02": 0.2}),
        (",1,2,4\nA,0.1,0.2,0.4\n", {"A01": 0.1, "A02": 0.2, "A04": 0.4}),
        ("well,viability\nA1,95%\nA2,0.5%\n", {"A01": 95.0, "A02": 0.5}),
        ("well,viability_percent\nA1,0.95\n", {"A01": 0.95}),
        ("Name,Abs\nWell,A1,A2\nMean,0.1,0.2\nStDev,0.01,0.02\n", {"A01": 0.1, "A02": 0.2}),
    ],
    ids=["a mean of each row", "doses", "columns left out", "percent in the cells", "percent in the title", "Spark's"],
)
def test_labels_and_signs_are_read_as_they_stand(tmp_path: Path, text: str, readings: dict[str, float]) -> None:
    (tmp_path / "a.csv").write_text(text)
    (block,) = read_reader_file(tmp_path / "a.csv")
    assert {str(well): value for well, value in block.values.items()} == readings


def test_a_reference_is_no_measurement_and_names_of_a_persons_own_hinder_no_difference(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Measurement Wavelength 1: 570\nReference wavelength: 655\n\t1\t2\nA\t0.5\t0.6\n")
    (block,) = read_reader_file(tmp_path / "a.txt")
    assert (block.wavelength_nm, "eference" in block.name) == (570, False)
    part = "Name\t{}\nWavelength\t{}\nNumber of flashes\t10\n\n<>\t1\t2\nA\t{}\t{}\n\n"
    (tmp_path / "b.txt").write_text(part.format("MTT", 570, 0.5, 0.6) + part.format("dirt", 690, 0.1, 0.2))
    *_, difference = read_reader_file(tmp_path / "b.txt")
    assert (difference.parts, list(difference.values.values())) == (("MTT", "dirt"), pytest.approx([0.4, 0.4]))


def test_a_row_that_stands_twice_in_a_picture_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(",1,2\nA,0.1,0.2,x\nA,0.1,0.2,x\n")
    with pytest.raises(ConfigError, match="row A stands twice"):
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
