"""`spheroidd plan`: the dry run of a plate, what it refuses and how it says so, what it learns of past runs."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from spheroidd.acquisition.plates.labware_formats import plate_format
from spheroidd.daemon.catalog.reader import CatalogReader
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.cli import console as cli
from spheroidd.daemon.config.model import load_config, to_toml
from spheroidd.daemon.planning.time_estimate import GUESSED_OVERHEAD_S, Figure, LearntTimes, learn, reckon
from spheroidd.protocols.events import SliceDurable
from spheroidd.protocols.plate import PlateMap, PlateWell, Treatment, WellRole
from spheroidd.protocols.sim_pattern import ChannelOptics, SimPattern
from spheroidd.protocols.stack import StackKey, StackPlan
from spheroidd.protocols.well import WellId
from tests.places import EXAMPLES

PLAN = """\
[data]
dir = "data"

[plate]
name = "P1"
map = "map.csv"

[store]
min_free_gb = 0.0

[source]
kind = "micromanager"
micromanager_dir = "test-adapters"
config = "none.cfg"
n_z = 10
height = 100
width = 100
pixel_um = 1.0
z_step_um = 2.0
z_start_um = 50.0
slice_period_s = 0.5
x_limits_um = [0, 130000]
y_limits_um = [0, 90000]
z_limits_um = [0, 100]
retract_z_um = 0

[source.plan]
labware = "Akura_96_spheroid_microplate"
fields_um = [[-150, 0], [150, 0]]

[source.plan.taught]
A01 = [14000, 11000]
H12 = [113000, 74000]

[source.channels]
488 = { preset = "FITC", exposure_ms = 20 }
561 = { preset = "Cy3", exposure_ms = 20 }
"""

MAP = """\
well,role,compound,dose_um
B12,sample,C,1
A01,negative_control,,
B01,sample,C,2
H12,positive_control,,
"""


def spheroidd(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def written(folder: Path, changes: dict[str, str] | None = None, plate_map: str = MAP) -> Path:
    text = PLAN
    for old, new in (changes or {}).items():
        assert old in text
        text = text.replace(old, new)
    (folder / "map.csv").write_text(plate_map, encoding="utf-8")
    path = folder / "plan.toml"
    path.write_text(text, encoding="utf-8")
    return path


def checks(result: Result) -> dict[str, dict[str, Any]]:
    return {check["name"]: check for check in json.loads(result.stdout)["checks"]}


def test_a_good_plan_is_checked_without_an_instrument(tmp_path: Path) -> None:
    result = spheroidd("plan", "check", written(tmp_path), "--json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert {check["verdict"] for check in found["checks"]} == {"pass"}
    assert [(stop["well"], stop["stack"]) for stop in found["stops"]] == [
        (well, field) for well in ("A01", "H12", "B12", "B01") for field in (0, 1)
    ]
    assert found["stops"][0]["x_um"] == pytest.approx(14000 - 150)
    assert found["stops"][-1]["y_um"] == pytest.approx(20000)
    assert found["calibration"]["mirrored"] is False
    assert found["calibration"]["residuals_um"] == pytest.approx({"A01": 0, "H12": 0}, abs=1e-6)
    assert found["format"]["name"] == "Akura_96_spheroid_microplate"
    assert found["time"]["total_s"] == pytest.approx(8 * 20 * 0.25 + 8 * GUESSED_OVERHEAD_S)
    assert not (tmp_path / "data").exists()


def test_a_person_sees_the_map_with_turns_and_every_check(tmp_path: Path) -> None:
    result = spheroidd("plan", "check", written(tmp_path))
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].split() == [str(column) for column in range(1, 13)]
    assert lines[1].split() == ["A", "1", *["."] * 11]
    assert lines[2].split() == ["B", "4", *["."] * 10, "3"]
    assert lines[8].split() == ["H", *["."] * 11, "2"]
    assert "a guess" in result.stdout
    assert "The plan can be run." in result.stdout


PLAN_TABLES = PLAN[PLAN.index("[source.plan]") : PLAN.index("[source.channels]")]
FAULTS: dict[str, tuple[dict[str, str], str, list[str]]] = {
    # name: (what is changed, the key whose line is named, what is said)
    "position beyond x": ({"[0, 130000]": "[0, 110000]"}, "x_limits_um", ["source.x_limits_um", "well H12, field 0"]),
    "position beyond y": ({"[0, 90000]": "[20000, 90000]"}, "y_limits_um", ["source.y_limits_um", "well A01, field 0"]),
    "one field beyond x": ({"[0, 130000]": "[13900, 130000]"}, "x_limits_um", ["well A01, field 0", "(2 of 8"]),
    "field out of the well": ({"[150, 0]": "[450, 0]"}, "fields_um", ["source.plan.fields_um", "field 1 at (450, 0)"]),
    "field at the wall": ({"[150, 0]": "[0, 449]"}, "fields_um", ["reaches", "round wells of 1000 um"]),
    "grid out of the well": (
        {"fields_um = [[-150, 0], [150, 0]]": "field_grid = { rows = 3, columns = 3, step_um = [400, 400] }"},
        "field_grid",
        ["source.plan.field_grid", "field 0 at (-400, -400)"],
    ),
    "unknown labware": ({"Akura_96": "Acura_96"}, "labware", ["source.plan.labware", "write Akura_96_spheroid"]),
    "labware file that is not there": (
        {'labware = "Akura_96_spheroid_microplate"': 'labware_file = "mine.json"'},
        "labware_file",
        ["mine.json", "cannot be read"],
    ),
    "taught wells contradict": (
        {"H12 = [113000, 74000]": "H12 = [113000, 74000]\nA12 = [113000, 11500]"},
        "[source.plan.taught]",
        ["source.plan.taught", "contradict each other", "A12 by"],
    ),
    "another plate was taught": ({"[113000, 74000]": "[63500, 42500]"}, "[source.plan.taught]", ["times as far apart"]),
    "taught in one row": ({"H12 = [113000, 74000]": "A12 = [113000, 11000]"}, "[source.plan.taught]", ["third well"]),
    "one well taught": ({"H12 = [113000, 74000]\n": ""}, "[source.plan.taught]", ["one well cannot tell"]),
    "a well taught twice": ({"H12 =": "a1 ="}, "[source.plan.taught]", ["A01 and a1 are the same well"]),
    "a taught well that is none": ({"H12 =": "H123 ="}, "[source.plan.taught]", ["'H123' is not a well"]),
    "a taught well beside the plate": ({"H12 =": "P12 ="}, "[source.plan.taught]", ["there is no well P12"]),
    "z beyond its limits": ({"n_z = 10": "n_z = 30"}, "[source]", ["the last slice is at 108 um"]),
    "an order that is none": (
        {"[source.plan]\n": '[source.plan]\norder = "spiral"\n'},
        "order",
        ["source.plan.order", "serpentine-rows"],
    ),
    "a key that is none": ({"[source.plan]\n": "[source.plan]\nwells = 3\n"}, "wells", ["there is no such key"]),
    "two ways to say the plate": (
        {"[source.plan]\n": '[source.plan]\nlabware_file = "x.json"\n'},
        "[source.plan]",
        ["labware and labware_file is given"],
    ),
    "plan and corner": ({"n_z = 10": "n_z = 10\na01_um = [0, 0]"}, "[source]", ["remove a01_um and pitch_um"]),
    "no wells": (
        {PLAN[PLAN.index("[source.plan]") : PLAN.index("[source.channels]")]: ""},
        "[source]",
        ["[source.plan]"],
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_wrong_plan_is_refused_with_key_line_and_advice(tmp_path: Path, name: str) -> None:
    changes, key, said = FAULTS[name]
    path = written(tmp_path, changes)
    result = spheroidd("plan", "check", path)
    assert result.exit_code == 2
    lines = path.read_text(encoding="utf-8").splitlines()
    line = next(n for n, text in enumerate(lines, start=1) if text == key or text.startswith(f"{key} ="))
    assert f"{path}, line {line}: " in result.stderr
    for words in said:
        assert words in result.stderr


def test_a_well_beside_the_plate_is_the_maps_fault(tmp_path: Path) -> None:
    result = spheroidd("plan", "check", written(tmp_path, plate_map=MAP + "P24,sample,C,1\n"))
    assert result.exit_code == 2
    assert "there is no well P24: the plate ends at H12" in result.stderr


def test_a_disk_too_small_for_the_plate_ends_as_a_run_would(tmp_path: Path) -> None:
    result = spheroidd("plan", "check", written(tmp_path, {"min_free_gb = 0.0": "min_free_gb = 1e9"}), "--json")
    assert result.exit_code == 4
    assert checks(result)["disk space"]["verdict"] == "fail"
    assert json.loads(result.stdout)["exit_code"] == 4


def test_wells_taught_close_together_are_warned_of(tmp_path: Path) -> None:
    result = spheroidd("plan", "check", written(tmp_path, {"H12 = [113000, 74000]": "B03 = [32000, 20000]"}), "--json")
    assert result.exit_code == 0
    calibration = checks(result)["calibration"]
    assert calibration["verdict"] == "warn"
    assert "H12 lies" in calibration["what"]


@pytest.mark.parametrize(("range_um", "verdict"), [(60, "pass"), (80, "warn")])
def test_an_autofocus_moves_the_stack_and_takes_its_time(tmp_path: Path, range_um: int, verdict: str) -> None:
    """The stack is 18 um high and expected at 50 um of 0 to 100."""
    keys = {"range_um": range_um, "near_range_um": 40, "coarse_um": 4, "fine_um": 1}
    table = "\n".join(["[source.autofocus]", *(f"{key} = {value}" for key, value in keys.items()), "[source.plan]\n"])
    result = spheroidd("plan", "check", written(tmp_path, {"[source.plan]\n": table}), "--json")
    assert result.exit_code == 0
    assert checks(result)["z"]["verdict"] == verdict
    looked_s = (40 / 4 + 3 * 4) * 0.25
    assert json.loads(result.stdout)["time"]["next_well_s"]["seconds"] == pytest.approx(GUESSED_OVERHEAD_S + looked_s)


def test_a_file_of_ones_own_is_found_beside_the_configuration(tmp_path: Path) -> None:
    import labware

    own = labware.load_labware()["SBS_384_well_plate"]
    (tmp_path / "mine.json").write_text(own.model_dump_json(by_alias=True, exclude_none=True), encoding="utf-8")
    path = written(tmp_path, {'labware = "Akura_96_spheroid_microplate"': 'labware_file = "mine.json"',
                              "[113000, 74000]": "[63500, 42500]"})  # fmt: skip
    result = spheroidd("plan", "check", path, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["format"]["pitch_um"] == list(plate_format("384").pitch_um)


def test_a_configuration_with_a_plan_comes_back_from_its_own_words(tmp_path: Path) -> None:
    config = load_config(written(tmp_path))
    again = tmp_path / "again.toml"
    again.write_text(to_toml(config), encoding="utf-8")
    assert load_config(again) == config


def test_other_sources_have_turns_but_no_positions(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text('[data]\ndir = "data"\n[source]\nkind = "emulator"\npreset = "unit"\n', encoding="utf-8")
    result = spheroidd("plan", "check", path, "--json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert found["format"] is None
    assert found["travel_mm"] is None
    assert {stop["x_um"] for stop in found["stops"]} == {None}
    assert len(found["stops"]) == len({stop["well"] for stop in found["stops"]})
    assert spheroidd("plan", "check", path).exit_code == 0


def test_a_source_that_watches_says_that_nobody_knows(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "map.csv").write_text(MAP, encoding="utf-8")
    path = tmp_path / "run.toml"
    path.write_text(
        '[data]\ndir = "data"\n[plate]\nmap = "map.csv"\n[source]\nkind = "matrix-screener"\nfolder = "in"\n', "utf-8"
    )
    result = spheroidd("plan", "check", path)
    assert result.exit_code == 0, result.output
    assert "does not say how many" in result.stdout
    assert "only while it runs" in spheroidd("plan", "show", path).stdout


def test_show_lists_every_stack_in_its_turn(tmp_path: Path) -> None:
    rows = [line.split() for line in spheroidd("plan", "show", written(tmp_path)).stdout.splitlines()]
    assert rows[1] == ["1", "A01", "0", "13850.0", "11000.0"]
    assert rows[-1] == ["8", "B01", "1", "14150.0", "20000.0"]


def test_formats_are_listed_and_searched() -> None:
    everything = json.loads(spheroidd("plan", "formats", "--json").stdout)
    assert {one["plate"]["rows"] * one["plate"]["columns"] for one in everything} >= {6, 1536}
    found = spheroidd("plan", "formats", "SPHEROID").stdout
    assert "Akura_384_spheroid_microplate" in found
    assert "Greiner" not in found
    assert "no plate of the catalogue" in spheroidd("plan", "formats", "moon").stdout


@pytest.mark.parametrize("changes", [{}, {"[0, 130000]": "[0, 110000]"}], ids=["good", "out of reach"])
def test_the_picture_shows_every_well_and_the_way(tmp_path: Path, changes: dict[str, str]) -> None:
    name = tmp_path / "way & <well>.svg"
    spheroidd("plan", "check", written(tmp_path, changes), "--svg", name)
    root = ET.parse(name).getroot()  # of our own making
    space = "{http://www.w3.org/2000/svg}"
    circles = root.findall(f"{space}circle")
    (way,) = root.findall(f"{space}polyline")
    assert len(way.attrib["points"].split()) == 8
    assert sum(circle.get("r") == "0.500" for circle in circles) == 96
    assert any(circle.get("stroke") == "#c62828" for circle in circles) is bool(changes)
    assert ("red: beyond" in "".join(root.itertext())) is bool(changes)


def test_a_picture_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    result = spheroidd("plan", "check", written(tmp_path), "--svg", tmp_path / "no" / "way.svg")
    assert result.exit_code == 2
    assert "cannot be written" in result.stderr


@pytest.mark.parametrize("columns", [40, 200])
def test_a_large_plate_fits_a_narrow_terminal(tmp_path: Path, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spheroidd.daemon.cli.app.WIDTH", columns)
    rows = [f"{WellId(row, column)},sample,C,1" for row in range(32) for column in range(48)]
    path = written(
        tmp_path,
        {"Akura_96_spheroid_microplate": "1536", "[113000, 74000]": "[38750, 26750]"},
        "\n".join(["well,role,compound,dose_um", *rows]),
    )  # fmt: skip
    lines = spheroidd("plan", "check", path).stdout.splitlines()
    assert lines[0] == " A S" + "o" * 47
    assert lines[31] == "AF E" + "o" * 47


# What past runs teach.


def ledger(folder: Path, stacks: list[tuple[str, int, float, float]], **changed: Any) -> None:
    """A data directory in which each stack (well, stack, first slice at, seconds a slice) was acknowledged so."""
    keys = [StackKey("old", WellId.parse(well), stack) for well, stack, _, _ in stacks]
    entries = tuple(PlateWell(well, Treatment(WellRole.SAMPLE)) for well in dict.fromkeys(key.well for key in keys))
    with Catalog.create_or_open(folder) as catalog:
        catalog.register_plate(PlateMap("old", entries), "{}")
        for key, (_, _, first_s, period_s) in zip(keys, stacks, strict=True):
            plan = stack_plan(key, **changed)
            catalog.expect(plan)
            for number, index in enumerate(plan.indices()):
                catalog.acknowledge(SliceDurable(key, index, 1, 0.0), first_s + number * period_s)


def stack_plan(key: StackKey, **changed: Any) -> StackPlan:
    geometry = {"n_z": 10, "height": 100, "width": 100, "pixel_um": 1.0, "z_step_um": 2.0, "slice_period_s": 0.5}
    return StackPlan(key, ("488", "561"), **geometry | changed)


#      19 gaps of 0.3 s in each stack; 2.0 s to a field and 5.0 s to a well beyond one slice's time
PAST = [
    ("A01", 0, 100.0, 0.3),
    ("A01", 1, 100.0 + 19 * 0.3 + 2.3, 0.3),
    ("B01", 0, 200.0, 0.3),
    ("B01", 1, 200.0 + 19 * 0.3 + 2.3, 0.3),
    ("C01", 0, 200.0 + 38 * 0.3 + 2.3 + 5.3, 0.3),
    ("D01", 0, 200.0 + 57 * 0.3 + 2.3 + 10.6, 0.3),
    ("E01", 0, 90000.0, 0.3),  # the next morning
]


def test_times_are_the_medians_of_like_stacks_of_the_past(tmp_path: Path) -> None:
    ledger(tmp_path, PAST)
    with CatalogReader.read_only(tmp_path) as catalog:
        found = learn(catalog, stack_plan(StackKey("new", WellId(0, 0)), n_z=50))
    assert found.slice_s is not None
    assert found.slice_s.seconds == pytest.approx(0.3)
    assert found.slice_s.n_measured == 7
    assert found.next_field_s is not None
    assert found.next_field_s.seconds == pytest.approx(2.0)
    assert found.next_well_s is not None
    assert found.next_well_s.n_measured == 4
    # Two of 5 s, one of over a minute, and the night: their median is of the two in the middle.
    assert found.next_well_s.seconds == pytest.approx((5.0 + (200 - 100 - 38 * 0.3 - 2.3 - 0.3)) / 2)


RAW_FRAMES = SimPattern(3, 3, optics=(ChannelOptics("488", 515, 0.5), ChannelOptics("561", 617, 0.5)))


@pytest.mark.parametrize(
    "changed",
    [{"height": 200}, {"dtype": "uint8"}, {"slice_period_s": 0.6}, {"slice_period_s": None}, {"raw": RAW_FRAMES}],
    ids=["height", "dtype", "period", "no period", "raw frames"],
)
def test_other_stacks_teach_nothing(tmp_path: Path, changed: dict[str, Any]) -> None:
    ledger(tmp_path, PAST)
    with CatalogReader.read_only(tmp_path) as catalog:
        assert learn(catalog, stack_plan(StackKey("new", WellId(0, 0)), **changed)) == LearntTimes()


def test_an_interrupted_stack_teaches_nothing(tmp_path: Path) -> None:
    ledger(tmp_path, PAST[:1])
    key = StackKey("old", WellId(0, 0), 5)
    with Catalog.create_or_open(tmp_path) as catalog:
        plan = stack_plan(key)
        catalog.expect(plan)
        for index in list(plan.indices())[:7]:
            catalog.acknowledge(SliceDurable(key, index, 1, 0.0), 5000.0)
    with CatalogReader.read_only(tmp_path) as catalog:
        found = learn(catalog, plan)
    assert found.slice_s is not None
    assert found.slice_s.n_measured == 1
    assert found.next_field_s is None


def test_the_plan_is_reckoned_with_what_was_measured_and_says_so(tmp_path: Path) -> None:
    ledger(tmp_path / "past", PAST)
    path = written(tmp_path)
    result = spheroidd("plan", "check", path, "--past", tmp_path / "past", "--json")
    time = json.loads(result.stdout)["time"]
    assert time["slice_s"]["n_measured"] == 7
    assert (time["n_slices"], time["n_moves_to_wells"], time["n_moves_to_fields"]) == (160, 4, 4)
    expected = 160 * 0.3 + 4 * time["next_well_s"]["seconds"] + 4 * 2.0
    assert time["total_s"] == pytest.approx(expected)
    assert "measured: 7 stacks" in checks(result)["time"]["what"]


def test_its_own_data_directory_teaches_too(tmp_path: Path) -> None:
    ledger(tmp_path / "data", PAST)
    assert "measured" in checks(spheroidd("plan", "check", written(tmp_path), "--json"))["time"]["what"]


def test_a_past_that_is_none_is_refused(tmp_path: Path) -> None:
    result = spheroidd("plan", "check", written(tmp_path), "--past", tmp_path)
    assert result.exit_code == 2
    assert "no plate was ever run here" in result.stderr


def test_without_a_period_and_a_past_nobody_knows_the_time() -> None:
    plans = [stack_plan(StackKey("p", WellId(0, 0)), slice_period_s=None)]
    assert reckon(plans, LearntTimes()).total_s is None
    assert reckon([], LearntTimes()).total_s is None
    figure = Figure(2.0, 3, "measured")
    assert reckon(plans, LearntTimes(figure, figure)).total_s == 20 * 2.0 + 2.0


def test_raw_frames_share_their_slices_period() -> None:
    key = StackKey("p", WellId(0, 0))
    of_slices, of_frames = (reckon([stack_plan(key, raw=raw)], LearntTimes()) for raw in (None, RAW_FRAMES))
    assert of_frames.total_s == pytest.approx(of_slices.total_s)


@pytest.mark.parametrize("name", ["plan-96.toml", "micromanager-demo.toml"])
def test_the_examples_are_good_plans(name: str) -> None:
    result = spheroidd("plan", "check", EXAMPLES / name, "--json")
    assert result.exit_code == 0, result.output
    assert "fail" not in {check["verdict"] for check in json.loads(result.stdout)["checks"]}
