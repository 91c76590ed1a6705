"""Plate maps: what is right is read back as it was written, and anything else is a ConfigError that says where."""

import csv
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.plate import (
    PlateMap,
    PlateWell,
    Treatment,
    WellRole,
    check_plate_name,
    read_plate_map,
    write_plate_map,
)
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
        ("well,role,dose\nA01,sample,1", "line 1: unknown column 'dose'.*dose_um"),
        ("well,role,role\nA01,sample,sample", "twice"),
        ("well;role\nA01;sample", "not separated by commas"),
        ("well\trole\nA01\tsample", "not separated by commas"),
        (f"{HEADER}\nA01,,sampel,,,,,", "line 2: role is 'sampel'; write one of sample, negative_control"),
        (f"{HEADER}\n1A,,sample,,,,,", "line 2: '1A' is not a well"),
        (f"{HEADER}\nA99,,sample,,,,,", "line 2: well row 0, column 98"),
        (f"{HEADER}\nA01,,sample,,,,,\n\nA02,,sample,x,1O,,,", "line 4: dose_um is '1O'; write a number"),
        (f"{HEADER}\nA01,,sample,x,1_0,,,", "dose_um is '1_0'"),
        (f"{HEADER}\nA01,,sample,x,-1,,,", "line 2: dose_um is -1.0"),
        (f"{HEADER}\nA01,,sample,x,inf,,,", "line 2: dose_um is inf"),
        (f"{HEADER}\nA01,,sample,x,nan,,,", "line 2: dose_um is nan"),
        (f"{HEADER}\nA01,,sample,x,,,,", "line 2: .*dose_um is empty"),
        (f"{HEADER}\nA01,,sample,,3,,,", "line 2: .*compound is empty"),
        (f'{HEADER}\nA01,,sample,"x\ny",3,,,', "compound is 'x.*without line breaks"),
        (f"{HEADER}\nA01,,sample,,,,0,", "pixel_um is 0.0"),
        (f"{HEADER}\nA01,,sample,,,,,two", "z_step_um is 'two'"),
        (f"{HEADER}\nA01,,sample,,,,,,,", "line 2: more cells than columns"),
        (f"{HEADER}\nA01,,sample,,,,,\na1,,sample,,,,,", "A01 stands twice"),
        (HEADER, "has no wells"),
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
    with pytest.raises(ConfigError, match="not a CSV in UTF-8"):
        read(tmp_path, "well,role,patient\nA01,sample,Müller", encoding="latin-1")
    with pytest.raises(ConfigError, match="not a CSV in UTF-8"):
        read(tmp_path, "well,role\nA01,sample", encoding="utf-16")


def test_what_spreadsheets_leave_behind_is_forgiven(tmp_path):
    text = "\ufeffWell, Role ,Dose_uM,compound\r\n a1 ,Negative control,,\r\n,,,\r\n\r\nB02,SAMPLE, 1.5 ,x\r\n,,,\r\n"
    first, second = read(tmp_path, text)
    assert (str(first.well), first.treatment.role) == ("A01", WellRole.NEGATIVE_CONTROL)
    assert (second.treatment.compound, second.treatment.dose_um) == ("x", 1.5)


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

numbers = st.floats(1e-6, 1e6)
labels = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=12).map(str.strip).filter(bool)
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
        dose = draw(st.floats(0, 1e6)) if treated else None
        keys = draw(st.sampled_from([(), ("",), ("488",), ("488", "561")]))
        paths = {key: Path("/plates") / draw(names) for key in keys}
        size = draw(st.none() | numbers)
        treatment = Treatment(role, compound, dose, draw(st.none() | labels))
        entries.append(PlateWell(well, treatment, paths, size, draw(st.none() | numbers)))
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
