"""Plate maps: what is right is read back as it was written, and anything else is a ConfigError that says where."""

import csv
from pathlib import Path

import openpyxl
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.plate import PlateMap, PlateWell, Treatment, WellRole, check_plate_name
from spheroidd.protocols.plate_map.file import read_plate_map, write_plate_map
from spheroidd.protocols.well import MAX_COLUMNS, MAX_ROWS, WellId

HEADER = "well,path,role,compound,dose_um,patient,pixel_um,z_step_um"


def read(tmp_path, text, name="map.csv", encoding="utf-8") -> PlateMap:
    path = tmp_path / name
    path.write_bytes(text.encode(encoding))
    return read_plate_map(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: the column 'well' is missing"),
        ("well\nA01", "the column 'role' is missing"),
        ("well,role,dose\nA01,sample,1", "line 1: the column 'dose' says no unit; call it dose_um"),
        ("well,role,role\nA01,sample,sample", "twice"),
        ("well,role,pateint\nA01,sample,1", "line 1: unknown column 'pateint'; did you mean patient"),
        ("well,role,compund\nA01,sample,1", "line 1: unknown column 'compund'; did you mean compound"),
        ("well,role,log10 dose\nA01,sample,1", "the column 'log10 dose' holds logarithms"),
        ("well,role,dose (ug/ml)\nA01,sample,1", "is in ug/ml; doses are molar"),
        ("well,role,drug,treatment\nA01,sample,x,y", "a column stands twice: 'drug' and 'treatment'"),
        ("well,role\nA01,control", "role is 'control', which could be untreated or killed wells"),
        (
            "well,role\nA01,staurosporine",
            r"say what it means, in the configuration: \[plate.roles\] \"staurosporine\" =",
        ),
        (f"{HEADER}\nA01,,sample,x,1,5,,,", "line 2: more cells than columns"),
        ("well;role;compound;dose_um\nA1;sample;x;1.000\nA2;sample;x;3.000", "'1.000' .* could be 1000 or 1.000"),
        ("well;role;compound;dose_um\nA1;sample;x;1,5\nA2;sample;x;0.5", "two kinds of decimal sign"),
        ("well,compound,dose_um\nA01,x,0", "line 2: x at dose 0 has no role"),
        ("a,b\n1,2", "the column 'well' is missing; the first line says a, b"),
        (f"{HEADER}\nA01,,sampel,,,,,", "line 2: role is 'sampel'; write one of sample, negative_control"),
        (f"{HEADER}\n1A,,sample,,,,,", "line 2: '1A' is not a well"),
        (f"{HEADER}\nA99,,sample,,,,,", "line 2: 'A99' is on no plate; use A01 to AF48"),
        (f"{HEADER}\nA01,,sample,,,,,\n\nA02,,sample,x,1O,,,", "line 4: dose_um is '1O'; write a number"),
        (f"{HEADER}\nA01,,sample,x,1_0,,,", "dose_um is '1_0'"),
        (f"{HEADER}\nA01,,sample,x,-1,,,", "line 2: dose_um is -1.0"),
        (f"{HEADER}\nA01,,sample,x,inf,,,", "line 2: dose_um is 'inf'"),
        (f"{HEADER}\nA01,,sample,x,nan,,,", "line 2: .*dose_um is empty"),
        (f"{HEADER}\nA01,,sample,x,,,,", "line 2: .*dose_um is empty"),
        (f"{HEADER}\nA01,,sample,,3,,,", "line 2: .*compound is empty"),
        (f'{HEADER}\nA01,,sample,"x\ny",3,,,', "compound is 'x.*without line breaks"),
        (f"{HEADER}\nA01,,sample,,,,0,", "pixel_um is 0;"),
        (f"{HEADER}\nA01,,sample,,,,,two", "z_step_um is 'two'"),
        (f"{HEADER}\nA01,,sample,,,,,,,", "line 2: more cells than columns"),
        (f"{HEADER}\nA01,,sample,,,,,\na1,,sample,,,,,", "A01 stands twice"),
        (HEADER, "has no wells"),
        ("well,compound,dose_um\nA1,drug,1\nA2,Drug,2", "compound is 'drug' and 'Drug', which differ only"),
        ("well,role,patient\nA1,sample,P 1\nA2,sample,P  1", "patient is 'P 1' and 'P  1'"),
        ("well,role,pixel_nm\nA1,sample,500", "the column 'pixel_nm' looks like a pixel size in nm; write micrometres"),
        ("well,role,z step (nm)\nA1,sample,500", "looks like a z-step in nm; .*call it z_step_um"),
        ("well,role,Pixel size (µm)\nA1,sample,500", "looks like a pixel size in um"),
        (
            "well,role,compound\nA1,killed,DMSO",
            "role 'killed' is positive_control, and its compound 'DMSO' is one of a neg",
        ),
        ("well,role,compound\nA1,vehicle,Triton", "'vehicle' is negative_control, and its compound 'Triton' is one"),
        ("well,role,compound,dose_um,dose (nM)\nA1,sample,x,10,100", "line 2: 'dose_um' says 10 uM and .* says 0.1 uM"),
        (
            "well,role,compound,dose_um\nA1,untreated,x,5\nA2,sample,x,1",
            "line 2: well A01 is untreated and holds 5 uM of x, as samples do; write the role sample",
        ),
        ("well,path,path_488,role\nA01,a.tif,b.tif,sample", "line 2: both path and a path per channel"),
    ],
)
def test_a_wrong_map_is_refused_with_line_and_advice(tmp_path, text, message):
    with pytest.raises(ConfigError, match=r"map\.csv") as caught:
        read(tmp_path, text)
    assert caught.value.do
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        raise caught.value


def test_a_map_that_is_not_there_or_not_text_is_a_config_error(tmp_path):
    with pytest.raises(ConfigError, match="cannot read the plate map"):
        read_plate_map(tmp_path / "none.csv")
    with pytest.raises(ConfigError, match="cannot read the plate map"):
        read_plate_map(tmp_path)
    (tmp_path / "picture.csv").write_bytes(b"\x89PNG\0\0\0")
    with pytest.raises(ConfigError, match="cannot read the plate map: its text is of no known encoding"):
        read_plate_map(tmp_path / "picture.csv")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_any_encoding_and_separator_gives_the_same_map(tmp_path, encoding, separator):
    decimal = "." if separator == "," else ","
    lines = ["Well,Role,Drug,Dose (nM),Donor", "A1,DMSO,,,Müller", "B12,treated,Taxol,2500D5,Müller", "C1,blank,,,"]
    text = "\n".join(lines).replace(",", separator).replace("D", decimal, 0).replace("2500D5", f"2500{decimal}5")
    one, two, three = read(tmp_path, text, encoding=encoding)
    assert one.treatment == Treatment(WellRole.NEGATIVE_CONTROL, patient="Müller")
    assert (str(two.well), two.treatment) == ("B12", Treatment(WellRole.SAMPLE, "Taxol", 2.5005, "Müller"))
    assert three.treatment.role is WellRole.EMPTY


def test_a_workbook_is_a_map(tmp_path):
    book = openpyxl.Workbook()
    book.active.append(["Plate of Monday"])
    book.active.append(["well", "type", "compound", "dose_um", "cell line"])
    book.active.append(["A1", "vehicle", None, None, "MCF7"])
    book.active.append(["A2", "sample", "x", 0.1 + 0.2, "MCF7"])
    book.create_sheet("notes").append(["nothing here"])
    book.save(tmp_path / "map.xlsx")
    one, two = read_plate_map(tmp_path / "map.xlsx")
    assert one.treatment.role is WellRole.NEGATIVE_CONTROL
    assert two.treatment == Treatment(WellRole.SAMPLE, "x", 0.3)
    assert dict(two.annotations) == {"cell line": "MCF7"}


def test_everything_that_is_wrong_is_told_at_once(tmp_path):
    text = f"{HEADER}\nA01,,sampel,,,,,\n1A,,sample,,,,,\nA02,,sample,x,1O,,,\nA03,,sample,x,1,,,\na3,,sample,x,2,,,\n"
    with pytest.raises(ConfigError) as refused:
        read(tmp_path, text)
    told = str(refused.value).splitlines()
    assert told[0].endswith("map.csv: 4 things are wrong in it:")
    assert [line.strip().partition(": ")[0] for line in told[1:]] == ["line 4", "line 2", "line 3", "line 6"]
    assert "well A03 stands twice" in told[4]


def grid(title, cells, rows="ABCDEFGH", columns=12, corner=True, separator=","):
    """An 8 x 12 picture; `cells` by well."""
    head = separator.join([title if corner else "", *map(str, range(1, columns + 1))])
    lines = [head]
    for letter in rows:
        lines.append(separator.join([letter, *(str(cells.get(f"{letter}{x}", "")) for x in range(1, columns + 1))]))
    return ("" if corner else f"{title}\n") + "\n".join(lines) + "\n"


ROLES = {"A1": "DMSO", "B1": "untreated", "C1": "killed", "D1": "blank", "A2": "sample", "H12": "sample"}
COMPOUNDS, DOSES, LINES = {"A2": "x", "H12": "y z"}, {"A2": "0.5", "H12": "1000"}, {"A2": "MCF7"}


@pytest.mark.parametrize("corner", [True, False], ids=["in the corner", "above"])
@pytest.mark.parametrize("separator", [",", "\t", ";"])
def test_grids_are_a_block_for_each_variable(tmp_path, corner, separator):
    blocks = [("Role", ROLES), ("Compound", COMPOUNDS), ("Dose (uM)", DOSES), ("Cell line", LINES)]
    text = "\n".join(grid(title, cells, corner=corner, separator=separator) for title, cells in blocks)
    found = {str(entry.well): entry for entry in read(tmp_path, text)}
    assert {well: entry.treatment.role.value for well, entry in found.items()} == {
        "A01": "negative_control",
        "B01": "negative_control",
        "C01": "positive_control",
        "D01": "empty",
        "A02": "sample",
        "H12": "sample",
    }
    assert found["A02"].treatment == Treatment(WellRole.SAMPLE, "x", 0.5)
    assert found["H12"].treatment == Treatment(WellRole.SAMPLE, "y z", 1000.0)
    assert dict(found["A02"].annotations) == {"Cell line": "MCF7"}


def test_a_grid_of_384_or_1536_wells_and_blocks_side_by_side(tmp_path):
    rows = [WellId(row, 0).row_name for row in range(32)]
    text = grid("compound", {"AF48": "x", "P24": "dmso"}, rows, 48) + "\n" + grid("dose_nm", {"AF48": 250}, rows, 48)
    found = {str(entry.well): entry.treatment for entry in read(tmp_path, text)}
    assert found["AF48"] == Treatment(WellRole.SAMPLE, "x", 0.25)
    assert found["P24"].role is WellRole.NEGATIVE_CONTROL
    lines = zip(grid("role", ROLES).splitlines(), grid("patient", dict.fromkeys(ROLES, "p7")).splitlines(), strict=True)
    beside = read(tmp_path, "\n".join(f"{left},,{right}" for left, right in lines))
    assert {entry.treatment.patient for entry in beside} == {"p7"}
    assert len(beside) == len(ROLES)


def test_a_workbook_has_a_grid_for_each_sheet(tmp_path):
    book = openpyxl.Workbook()
    for n, (title, cells) in enumerate([("Compound", {"B2": "x", "B3": "DMSO"}), ("Dose nM", {"B2": 30})]):
        sheet = book.active if n == 0 else book.create_sheet()
        sheet.title = title
        for line in grid("", cells).splitlines():
            sheet.append([int(c) if c.isdigit() else c or None for c in line.split(",")])
    book.active.merge_cells("D3:F3")  # DMSO over B03 to B05
    book.save(tmp_path / "map.xlsx")
    found = {str(entry.well): entry.treatment for entry in read_plate_map(tmp_path / "map.xlsx")}
    assert found["B02"] == Treatment(WellRole.SAMPLE, "x", 0.03)
    assert {well for well, of in found.items() if of.role is WellRole.NEGATIVE_CONTROL} == {"B03", "B04", "B05"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            grid("role", {"A1": "boss", "C7": "chief"}),
            r"2 things are wrong.*line 2, well A01: role is 'boss'.*well C07",
        ),
        (grid("", {"A1": "sample"}), "a grid does not say which variable it is"),
        (grid("cell line", {"A1": "MCF7"}), "none of its grids is role or compound: 'cell line'"),
        (grid("role", {"A1": "sample"}) + grid("type", {"A1": "blank"}), "the grid 'type' stands twice"),
        (grid("compound", {"A1": "x"}), "well A01: role is ''"),
        (grid("role", {"A1": "sample"}) + grid("dose", {"A1": "3"}), "the column 'dose' says no unit"),
    ],
)
def test_a_grid_that_cannot_be_read_is_refused(tmp_path, text, message):
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        read(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("compound,1,2\nA,x,y\n,,\nC,x,y\n\ndose_um,1,2\nA,1,2\n", "line 4: row C of a plate stands where"),
        ("compound,1,2\nB,x,y\nA,x,y\n\ndose_um,1,2\nA,1,2\n", "line 3: row A of a plate stands where"),
        (",A,B,C\n1,DMSO,x,y\n2,DMSO,x,y\n", "line 1: row A of a plate stands where no column numbers stand above it"),
    ],
    ids=["a line between", "upwards", "turned round"],
)
def test_no_row_of_a_grid_is_lost(tmp_path, text, message):
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        read(tmp_path, text)


def test_a_grid_may_leave_columns_out(tmp_path):
    found = read(tmp_path, "compound,1,2,4\nA,x,y,DMSO\n\ndose_um,1,2,4\nA,1,2,0\n")
    assert [(str(w.well), w.treatment.role.value) for w in found] == [
        ("A01", "sample"),
        ("A02", "sample"),
        ("A04", "negative_control"),
    ]


@pytest.mark.parametrize("nothing", ["NA", "n/a", "#N/A", "NaN", "-"])
def test_words_for_nothing_are_nothing(tmp_path, nothing):
    word = nothing if nothing != "-" else ""
    found = read(tmp_path, f"well,role,compound,dose_um\nA1,untreated,{word},{nothing}\nA2,sample,x,1\n")
    assert found.wells[0].treatment == Treatment(WellRole.NEGATIVE_CONTROL)


def test_two_dose_columns_that_agree_are_one_and_the_second_is_kept(tmp_path):
    found = read(tmp_path, "well,role,compound,dose_um,dose (nM)\nA1,sample,x,0.1,100\n")
    assert (found.wells[0].treatment.dose_um, dict(found.wells[0].annotations)) == (0.1, {"dose (nM)": "100"})


def test_a_labs_own_words_come_before_those_of_the_field(tmp_path):
    path = tmp_path / "map.csv"
    path.write_text("well,role\nA01,Staurosporine\nA02,unknown\nA03,CONTROL\n")
    roles = {
        "staurosporine": WellRole.POSITIVE_CONTROL,
        "unknown": WellRole.EMPTY,
        "control": WellRole.NEGATIVE_CONTROL,
    }
    assert [entry.treatment.role for entry in read_plate_map(path, roles=roles)] == list(roles.values())


@pytest.mark.parametrize(
    ("column", "cell", "dose_um"),
    [
        ("dose_nm", "300", 0.3),
        ("Concentration [mM]", "0.5", 500),
        ("conc (M)", "1e-6", 1),
        ("Final conc. (µM)", "2", 2),
        ("dose", "10 nM", 0.01),
        ("dose", "3.3µM", 3.3),
    ],
)
def test_a_dose_column_says_its_unit_or_each_cell_does(tmp_path, column, cell, dose_um):
    (entry,) = read(tmp_path, f"well,role,compound,{column}\nA01,sample,x,{cell}\n")
    assert entry.treatment.dose_um == dose_um


def test_what_spreadsheets_leave_behind_is_forgiven(tmp_path):
    text = "\ufeffWell, Role ,Dose_uM,compound\r\n a1 ,Negative control,,\r\n,,,\r\n\r\nB02,SAMPLE, 1.5 ,x\r\n,,,\r\n"
    first, second = read(tmp_path, text)
    assert (str(first.well), first.treatment.role) == ("A01", WellRole.NEGATIVE_CONTROL)
    assert (second.treatment.compound, second.treatment.dose_um) == ("x", 1.5)


def test_a_map_is_understood_once_until_its_text_its_name_or_the_words_are_others(tmp_path):
    text = "well,role,compound,dose_um,patient\nA01,sample,drug,1,\n"
    first = read(tmp_path, text)
    assert read(tmp_path, text) is first
    assert read(tmp_path, text.replace(",1,", ",2,"))[WellId(0, 0)].treatment.dose_um == 2
    path = tmp_path / "map.csv"
    assert read_plate_map(path, "P7").name == "P7"
    path.write_text(text.replace("sample", "probe"), encoding="utf-8")
    assert read_plate_map(path, roles={"probe": WellRole.SAMPLE})[WellId(0, 0)].treatment.role is WellRole.SAMPLE
    with pytest.raises(ConfigError, match="probe"):
        read_plate_map(path)


def test_paths_are_relative_to_the_map_and_may_come_from_windows(tmp_path):
    one, two = read(tmp_path, "well,path,path_488,role\nA01,sub\\a.tif,,sample\nA02,,/data/b.tif,sample")
    assert dict(one.paths) == {"": tmp_path / "sub/a.tif"}
    assert dict(two.paths) == {"488": Path("/data/b.tif")}


def test_empty_wells_are_not_imaged_and_controls_come_first(tmp_path):
    roles = ["sample", "empty", "positive_control", "sample", "negative_control"]
    plate_map = read(tmp_path, "well,role\n" + "\n".join(f"A{n + 1},{role}" for n, role in enumerate(roles)))
    assert [str(entry.well) for entry in plate_map.imaged()] == ["A03", "A05", "A01", "A04"]
    assert len(plate_map) == 5
    assert plate_map[WellId.parse("A05")].treatment.role is WellRole.NEGATIVE_CONTROL
    with pytest.raises(ConfigError, match="no well H12"):
        plate_map[WellId.parse("H12")]


@pytest.mark.parametrize("stem", ["plate 1", "_x", "µ", ".hidden", "a" * 100, "x.y.", "7-ü_ok"])
def test_a_plate_takes_the_files_name_as_far_as_it_may(tmp_path, stem):
    name = read(tmp_path, "well,role\nA01,sample", f"{stem}.csv").name
    assert check_plate_name(name) == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "a\\b", "CON", "con.x", "lpt1", "a.", "a b", "ä", "x" * 65, "-a", "a\n"]
)
def test_names_that_are_no_folder_everywhere_are_refused(name):
    with pytest.raises(ConfigError, match="not a plate name"):
        check_plate_name(name)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Treatment(WellRole.SAMPLE, "", 1.0),
        lambda: Treatment(WellRole.SAMPLE, " x", 1.0),
        lambda: Treatment(WellRole.NEGATIVE_CONTROL, patient="a\x00"),
        lambda: PlateWell(WellId(0, 0), Treatment(WellRole.EMPTY), {"640": Path("x")}),
        lambda: PlateWell(WellId(0, 0), Treatment(WellRole.EMPTY), {"": Path("x"), "488": Path("y")}),
        lambda: PlateWell(WellId(0, 0), Treatment(WellRole.EMPTY), pixel_um=float("nan")),
        lambda: WellId(MAX_ROWS, 0),
        lambda: WellId(0, -1),
    ],
)
def test_the_nouns_refuse_nonsense(make):
    with pytest.raises(ConfigError):
        make()


# -- wild input ---------------------------------------------------------------------------------------------------

numbers = st.floats(1e-3, 1e4)
_NOTHING = ("", "na", "n/a", "#n/a", "nan")  # what an empty cell is called
labels = (
    st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=12)
    .map(str.strip)
    .filter(lambda text: text.casefold() not in _NOTHING)
)
names = st.text("abcXYZ0189 -_.,;'\"äµ", min_size=1, max_size=8).map(str.strip).filter(lambda s: s.strip("."))


@st.composite
def plate_wells(draw):
    wells = draw(
        st.lists(
            st.builds(WellId, st.integers(0, MAX_ROWS - 1), st.integers(0, MAX_COLUMNS - 1)),
            unique=True,
            min_size=1,
            max_size=6,
        )
    )
    entries = []
    for well in wells:
        role = draw(st.sampled_from(WellRole))
        treated = role is not WellRole.SAMPLE or draw(st.booleans())
        compound = draw(labels) if treated else None
        dose = draw(st.floats(0, 0 if role is WellRole.NEGATIVE_CONTROL else 1e6)) if treated else None
        keys = draw(st.sampled_from([(), ("",), ("488",), ("488", "561")]))
        paths = {key: Path("/plates") / draw(names) for key in keys}
        size = draw(st.none() | numbers)
        treatment = Treatment(role, compound, dose, draw(st.none() | labels))
        more = draw(st.sampled_from([{}, {"cell line": "MCF7; a"}]))
        entries.append(PlateWell(well, treatment, paths, size, draw(st.none() | numbers), more))
    said = [getattr(e.treatment, name) or "" for name in ("compound", "patient") for e in entries]
    assume(len({text.casefold() for text in said}) == len(set(said)))  # one in two spellings is refused
    return entries


@settings(deadline=None, max_examples=60)
@given(wells=plate_wells())
def test_what_is_written_is_read_back(tmp_path_factory, wells):
    path = tmp_path_factory.mktemp("maps") / "a.csv"
    write_plate_map(path, wells)
    assert list(read_plate_map(path)) == wells


nasty = ["A01", "H12", "sample", "empty", "", "1", "-1", "nan", "x.tif", '"', ",", "\n", "é", "\x00"]
cells = st.sampled_from(nasty) | st.text(max_size=5)
columns = HEADER.split(",")
rows = st.lists(cells, max_size=9)


@settings(deadline=None, max_examples=150)
@given(
    header=st.sampled_from([HEADER.split(","), ["well", "role"]])
    | st.lists(st.sampled_from(HEADER.split(",")), max_size=9),
    table=st.lists(rows, max_size=5),
)
def test_any_table_is_a_plate_map_or_a_config_error(tmp_path_factory, header, table):
    path = tmp_path_factory.mktemp("maps") / "a.csv"
    with path.open("w", newline="", encoding="utf-8", errors="ignore") as file:
        csv.writer(file).writerows([header, *table])
    assert _is_read_or_refused_by_name(path)


@settings(deadline=None, max_examples=150)
@given(content=st.binary(max_size=60) | st.text(max_size=60).map(lambda t: f"well,role\n{t}".encode("utf-8", "ignore")))
def test_any_bytes_are_a_plate_map_or_a_config_error(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("maps") / "a.csv"
    path.write_bytes(content)
    assert _is_read_or_refused_by_name(path)


def _is_read_or_refused_by_name(path):
    """Wells came, or a refusal that names the file and says what to do; any other error is raised."""
    try:
        return len(read_plate_map(path)) > 0
    except ConfigError as error:
        return str(path) in str(error) and bool(error.do)
