"""B5 and B6: plate maps and other tables as labs have them, and what plate readers write."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import openpyxl
import pytest

from tests.cases.case import Case, Driven, Outcome, Step, one_line, spheroidd, write_map, written
from tests.cases.files import ome
from tests.inference.viability import test_plate_reader_files as readers

MAPS, TABLES, READERS = "B6 plate maps", "B5 numbers in tables", "B5 plate readers"
LETTERS = "ABCDEFGH"


def wells(**expected: tuple[str, str | None, float | None]) -> Callable[[Path, str], str]:
    """`map check --json` gives these wells: role, compound and dose in micromolar."""

    def check(_: Path, printed: str) -> str:
        found = {one["well"]: (one["role"], one["compound"], one["dose_um"]) for one in json.loads(printed)["wells"]}
        wrong = {
            well: found.get(well)
            for well, said in expected.items()
            if found.get(well, ("",))[:2] != said[:2] or found[well][2] != pytest.approx(said[2])
        }
        return f"found {wrong}" if wrong else ""

    return check


def notes(**expected: Mapping[str, str]) -> Callable[[Path, str], str]:
    """These annotations of wells are kept."""

    def check(_: Path, printed: str) -> str:
        found = {one["well"]: one["annotations"] for one in json.loads(printed)["wells"]}
        return "" if all(found.get(well) == dict(said) for well, said in expected.items()) else f"found {found}"

    return check


def reads(
    name: str, content: str | bytes, check: Callable[[Path, str], str], file: str = "m.csv", options: str = ""
) -> Case:
    """A map that is read."""
    step = Step(f"map check {file} --json {options}", check=check)
    return Case(MAPS, name, written(file, content), (step,), quick=name.endswith("cp1252") or name == "an 8 x 12 grid")


def refuses(name: str, content: str | bytes, *words: str, options: str = "") -> Case:
    """A map that is refused with these words."""
    return Case(MAPS, name, written("m.csv", content), (Step(f"map check m.csv {options}", 2, words),))


LIST = "well;role;compound;dose_um\nA1;DMSO;;\nA2;killed;;\nB1;;X;0,5\nB2;;X;12,5\n"
SAME = wells(A01=("negative_control", None, None), A02=("positive_control", None, None), B01=("sample", "X", 0.5), B02=("sample", "X", 12.5))  # fmt: skip


def grid(title: str, cells: Sequence[Sequence[object]], columns: int) -> str:
    """One block of a grid, between commas."""
    head = ",".join([title, *map(str, range(1, columns + 1))])
    lines = [",".join([letter, *map(str, row)]) for letter, row in zip(LETTERS + "IJKLMNOP", cells, strict=False)]
    return "\n".join([head, *lines, "", ""])


def plate_of(rows: int, columns: int) -> str:
    """Two grids: roles, and doses that rise along the rows; the first column is untreated, the last killed."""
    role = [["DMSO", *["drug"] * (columns - 2), "killed"] for _ in range(rows)]
    compound = [["", *[f"K{y + 1}"] * (columns - 2), ""] for y in range(rows)]
    dose = [["", *(x / 10 for x in range(1, columns - 1)), ""] for _ in range(rows)]
    return "".join(
        grid(title, cells, columns) for title, cells in (("role", role), ("compound", compound), ("dose (uM)", dose))
    )


def workbook(folder: Path) -> None:
    """A list on one sheet."""
    book = openpyxl.Workbook()
    for row in (("well", "role", "compound", "dose (nM)"), ("A1", "vehicle", None, None), ("B1", None, "X", 500.0)):
        book.active.append(row)
    book.save(folder / "m.xlsx")


def sheets(folder: Path) -> None:
    """A grid of 16 x 24 a sheet."""
    book = openpyxl.Workbook()
    for title, cell in (
        ("role", lambda y, x: "DMSO" if x == 1 else "sample"),
        ("compound", lambda y, x: None if x == 1 else "X"),
        ("dose_um", lambda y, x: None if x == 1 else x * 0.1),
    ):
        sheet = book.create_sheet(title)
        sheet.append([None, *range(1, 25)])
        for y in range(16):
            sheet.append(["ABCDEFGHIJKLMNOP"[y], *(cell(y, x) for x in range(1, 25))])
    del book["Sheet"]
    book.save(folder / "m.xlsx")


def maps() -> Iterator[Case]:
    """What is read, and what is refused with all that is wrong."""
    for encoding in ("utf-8", "utf-8-sig", "cp1252", "utf-16", "utf-16-le"):
        yield reads(f"semicolons and decimal commas in {encoding}", LIST.encode(encoding), SAME)
    yield reads("tabs", LIST.replace(";", "\t"), SAME)
    yield reads("Excel's sep=;", "sep=;\n" + LIST, SAME)
    yield reads(
        "µM in a header of Windows",
        "well;role;compound;Dose (µM)\nA1;DMSO;;\nB1;;X;0,5\n".encode("cp1252"),
        wells(B01=("sample", "X", 0.5)),
    )
    yield reads(
        "nM in the header", "well,role,compound,dose_nM\nA1,vehicle,,\nB1,,X,500\n", wells(B01=("sample", "X", 0.5))
    )
    yield reads(
        "a unit in each cell",
        "well,role,compound,dose\nA1,untreated,,\nB1,,X,500 nM\nB2,,X,2 uM\n",
        wells(B01=("sample", "X", 0.5), B02=("sample", "X", 2.0)),
    )
    yield reads(
        "row and column apart",
        "row,column,role,compound,dose_um\nA,1,DMSO,,\nAF,48,,X,3\n",
        wells(A01=("negative_control", None, None), AF48=("sample", "X", 3.0)),
    )
    yield reads(
        "an 8 x 12 grid",
        plate_of(8, 12),
        wells(A01=("negative_control", None, None), C05=("sample", "K3", 0.4), H12=("positive_control", None, None)),
    )
    yield reads(
        "a 16 x 24 grid", plate_of(16, 24), wells(P02=("sample", "K16", 0.1), P24=("positive_control", None, None))
    )
    yield reads(
        "further columns are kept",
        "well,role,compound,dose_um,lot,seeded by\nA1,DMSO,,,7,eve\nB1,,X,1,8,\n",
        notes(A01={"lot": "7", "seeded by": "eve"}, B01={"lot": "8"}),
    )
    yield reads(
        "staurosporine by --role",
        "well,role,compound,dose_um\nA1,DMSO,,\nA2,staurosporine,,\nB1,,X,1\n",
        wells(A02=("positive_control", None, None)),
        options="--role staurosporine=positive_control",
    )
    yield Case(
        MAPS,
        "a workbook with a list",
        workbook,
        (Step("map check m.xlsx --json", check=wells(A01=("negative_control", None, None), B01=("sample", "X", 0.5))),),
    )
    yield Case(
        MAPS,
        "a workbook with a 16 x 24 grid a sheet",
        sheets,
        (Step("map check m.xlsx --json", check=wells(P24=("sample", "X", 2.4), A01=("negative_control", None, None))),),
    )
    yield refuses("log doses", "well,role,compound,log dose\nA1,DMSO,,\nB1,,X,-6\n", "holds logarithms")
    yield refuses("a dose in a mass", "well,role,compound,dose (ug/ml)\nA1,DMSO,,\nB1,,X,5\n", "ug/ml")
    yield refuses("a dose without a unit", "well,role,compound,dose\nA1,DMSO,,\nB1,,X,5\n", "unit")
    yield refuses("1,500 alone", 'well,role,compound,dose_nM\nA1,DMSO,,\nB1,,X,"1,500"\n', "could be 1500 or 1.500")
    yield refuses(
        "a well twice, and a dose below 0",
        "well,role,compound,dose_um\nA1,DMSO,,\na01,,X,1\nB2,,X,-2\n",
        "stands twice",
        "dose_um is -2",
        "2 things",
    )
    yield refuses("a role that is two things", "well,role\nA1,control\nA2,sample\n", "control")
    yield refuses("a word nobody knows", "well,role\nA1,DMSO\nA2,staurosporin\n", "staurosporin", "plate.roles")
    yield refuses("a row AG", "well,role\nA1,DMSO\nAG1,sample\n", "'AG1' is on no plate")
    yield refuses("nearly a known column", "well,role,compund,dose_um\nA1,DMSO,,\nB1,sample,X,1\n", "compund")


# -- numbers -----------------------------------------------------------------------------------------------------------

CURVE = {0.0: 100, 10.0: 97, 30.0: 92, 100.0: 77, 300.0: 52, 1000.0: 25, 3000.0: 10, 10000.0: 4}
_WRITTEN: dict[str, Callable[[float], str]] = {
    "1234.5": lambda dose: f"{dose:.1f}",
    "1.234,5": lambda dose: f"{dose:,.1f}".translate(str.maketrans(",.", ".,")),
    "1,234.5": lambda dose: f"{dose:,.1f}",
    "1 234,5": lambda dose: f"{dose:,.1f}".translate(str.maketrans(",.", " ,")),
    "1'234.5": lambda dose: f"{dose:,.1f}".replace(",", "'"),
    "1,234": lambda dose: f"{dose:,.0f}",
    "1.234": lambda dose: f"{dose:,.0f}".replace(",", "."),
    "1e3": lambda dose: f"{dose:.1e}",
}


def doses(style: str, header: str = "dose (nM)", separator: str = "\t") -> str:
    """The same curve, doses written in one style."""
    lines = [f"{_WRITTEN[style](dose)}{separator}{response}" for dose, response in CURVE.items()]
    return "\n".join([f"{header}{separator}v", *lines, ""])


def ic50(low: float, high: float, unit: str | None) -> Callable[[Path, str], str]:
    """`fit --json` gives one IC50 between these, in this unit."""

    def check(_: Path, printed: str) -> str:
        (found,) = json.loads(printed)
        ok = found["dose_unit"] == unit and found["ic50_abs"] is not None and low <= found["ic50_abs"] <= high
        return "" if ok else f"IC50 {found['ic50_abs']} {found['dose_unit']}"

    return check


FIT = "fit t.tsv --dose 'dose (nM)' --response v"


def tables() -> Iterator[Case]:
    """Doses in every style of writing numbers; units that are carried through."""
    for style in _WRITTEN:
        make = written("t.tsv", doses(style))
        if style in ("1,234", "1.234"):
            yield Case(
                TABLES, f"doses as {style} and nothing that decides", make, (Step(FIT, 2, ("could be 1000 or 1.000",)),)
            )
        else:
            yield Case(
                TABLES,
                f"doses as {style}",
                make,
                (Step(f"{FIT} --json", check=ic50(280, 360, "nM")),),
                quick=style == "1.234,5",
            )
    yield Case(
        TABLES,
        "doses in uM between semicolons",
        written("t.tsv", doses("1.234,5", "dose_um", ";")),
        (Step("fit t.tsv --dose dose_um --response v --json", check=ic50(280, 360, "uM")),),
    )
    yield Case(
        TABLES,
        "a dose column without a unit",
        written("t.tsv", doses("1e3", "dose")),
        (Step("fit t.tsv --dose dose --response v", 0, ("names no unit",)),),
    )
    yield Case(
        TABLES,
        "doses as logarithms",
        written("t.tsv", "logdose\tv\n-8\t100\n-7\t90\n-6\t50\n-5\t10\n"),
        (Step("fit t.tsv --dose logdose --response v", 2, ("logarithms",)),),
    )
    yield Case(
        TABLES,
        "doses in log10 M",
        written("t.tsv", "dose (log10 M)\tv\n-8\t100\n-7\t90\n-6\t50\n-5\t10\n"),
        (Step("fit t.tsv --dose 'dose (log10 M)' --response v", 2, ("logarithms",)),),
    )
    yield Case(
        TABLES,
        "a column of two kinds of numbers",
        written("t.tsv", "dose (nM)\tv\n0,5\t100\n1.5\t90\n3,5\t50\n"),
        (Step(FIT, 2, ("1.5",)),),
    )


# -- plate readers -----------------------------------------------------------------------------------------------------


def plate_and(name: str, content: str | bytes) -> Callable[[Path], None]:
    """A plate of four wells that was run, and a reader's file."""

    def make(folder: Path) -> None:
        rows = []
        for well, role, dose in (
            ("C05", "negative_control", ""),
            ("C06", "sample", 1),
            ("C07", "sample", 2),
            ("C08", "sample", 4),
        ):
            said = ome()(folder, well)
            rows.append({"well": well, "role": role, "compound": "X" if dose else "", "dose_um": dose, **said})
        write_map(folder / "map.csv", rows)
        done = spheroidd(folder, "replay map.csv d --name p")
        if done.returncode not in (0, 1):  # 1: its images are noise, and that is said
            raise RuntimeError(one_line(done.stdout + done.stderr))
        written(name, content)(folder)

    return make


def readings(**expected: float) -> Callable[[Path, str], str]:
    """`reference list --json` gives these densities."""

    def check(folder: Path, _: str) -> str:
        found = {row["well"]: row["od"] for row in json.loads(spheroidd(folder, "reference list d --json").stdout)}
        return "" if found == pytest.approx(expected) else f"found {found}"

    return check


DIFFERENCE = readings(C05=0.1, C06=0.1, C07=0.1, C08=0.1)
RAW = readings(C05=0.305, C06=0.306, C07=0.307, C08=0.308)
GERMAN = "Well;OD\nC05;1.234,5\nC06;987,0\nC07;12,5\nC08;1,0\n"


def reader_files() -> Iterator[tuple[str, str | bytes, tuple[Step, ...]]]:
    """What a reader wrote, and the commands."""
    take = "reference import d r.txt --blank none"
    for name in ("MARS", "GEN5", "ENVISION", "ICONTROL", "MAGELLAN", "MARS_LIST"):
        text: str = getattr(readers, name)
        yield f"{name}: 570 less 690 nm", text.encode("utf-16"), (Step(take, 0, ("690",), (), DIFFERENCE),)
    yield "MARS: 570 nm alone", readers.MARS, (Step(f"{take} --block 'Raw Data (570 1)'", 0, (), (), RAW),)
    partial = ("##BLOCKS= 1\r\n" + readers.partial() + "~End\r\n").encode("utf-16")
    yield (
        "SoftMax Pro, part of a plate",
        partial,
        (Step(take, 0, (), (), readings(C05=0.2045, C06=0.2055, C07=0.2065, C08=0.2075)),),
    )
    yield (
        "a spreadsheet with 1.234,5",
        GERMAN,
        (Step(take, 0, (), (), readings(C05=1234.5, C06=987.0, C07=12.5, C08=1.0)),),
    )
    yield (
        "a spreadsheet with 12,345 between commas",
        'well,od\nC05,"12,345"\nC06,"11,980"\nC07,987\nC08,5\n',
        (Step(take, 2, ("could be 12345 or 12.345",)),),
    )
    yield "a layout nobody knows", "sample,result\nx,1\n", (Step(take, 2, ("no picture of a plate",)),)
    yield (
        "a picture with a row twice",
        ",5,6,7,8\nC,1,2,3,4\nC,1,2,3,4\n",
        (Step(take, 2, ("2 blocks cover the wells",)),),
    )


def reader_cases() -> Iterator[Driven]:
    """One plate for all of them."""
    yield Readers()


class Readers:
    """Files of readers, imported into the same plate one after the other."""

    kind, name = READERS, "readers"

    def outcomes(self, folder: Path) -> Iterator[Outcome]:
        """One line a file."""
        plate_and("none.txt", "")(folder)
        for name, content, steps in reader_files():
            yield from Case(READERS, name, lambda at, text=content: written("r.txt", text)(at), steps).outcomes(folder)


def cases() -> Iterator[Driven]:
    """All of them."""
    yield from maps()
    yield from tables()
    yield from reader_cases()
