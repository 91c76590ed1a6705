"""A plate from a template holds what was asked for, each kind of control on both sides, and is read as a plate map."""

from collections import Counter
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from spheroidd.daemon.cli import console as cli
from spheroidd.daemon.planning.plate_template import TEMPLATES, Content, Placement, new_plate
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.plate import PlateMap, WellRole
from spheroidd.protocols.plate_map.file import read_plate_map
from spheroidd.protocols.well import WellId

EDGES = [name for name, template in TEMPLATES.items() if template.placement is Placement.EDGES]
RANDOM = [name for name in TEMPLATES if name not in EDGES]


def spheroidd(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def wells_of(plate: PlateMap, role: WellRole) -> list[WellId]:
    return [entry.well for entry in plate if entry.treatment.role is role]


@pytest.mark.parametrize("template", TEMPLATES)
def test_what_is_written_is_read_back_as_the_same_plate(template: str, tmp_path: Path) -> None:
    out = tmp_path / "plate-9.csv"
    done = spheroidd("plate", "new", "--template", template, "-o", out)
    assert done.exit_code == 0, done.stderr
    made, _ = new_plate("plate-9", template, Content())
    assert read_plate_map(out) == made
    assert spheroidd("map", "check", out).exit_code == 0
    assert spheroidd("plate", "new", "--template", template, "-o", out).exit_code == 2


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_plate_has_every_series_and_control_of_its_template(template: str) -> None:
    plate, _ = new_plate("P1", template, Content())
    asked = TEMPLATES[template]
    doses = Counter((e.treatment.compound, e.treatment.dose_um) for e in plate if e.treatment.role is WellRole.SAMPLE)
    assert len(doses) == asked.compounds * asked.doses
    assert set(doses.values()) == {asked.replicates}
    assert len(wells_of(plate, WellRole.NEGATIVE_CONTROL)) == asked.untreated
    assert len(wells_of(plate, WellRole.POSITIVE_CONTROL)) == asked.killed
    assert len(plate) == asked.rows * asked.columns


@pytest.mark.parametrize("template", EDGES)
def test_each_kind_of_control_stands_on_both_sides_and_in_both_halves(template: str) -> None:
    plate, _ = new_plate("P1", template, Content())
    rows, columns = TEMPLATES[template].rows, TEMPLATES[template].columns
    for role in (WellRole.NEGATIVE_CONTROL, WellRole.POSITIVE_CONTROL):
        wells = wells_of(plate, role)
        assert Counter(well.column for well in wells) == {0: rows // 2, columns - 1: rows // 2}
        assert sum(well.row < rows // 2 for well in wells) == len(wells) // 2


@pytest.mark.parametrize("template", EDGES)
def test_a_dose_series_rises_along_a_row(template: str) -> None:
    plate, _ = new_plate("P1", template, Content(compounds=("A", "B"), doses=5, replicates=3, top_um=10, dilution=10))
    row = [entry.treatment for entry in plate if entry.well.row == 0 and 1 <= entry.well.column <= 5]
    assert [of.dose_um for of in row] == [0.001, 0.01, 0.1, 1.0, 10.0]
    assert {of.compound for of in row} == {"A"}


@pytest.mark.parametrize("template", RANDOM)
def test_random_places_differ_by_plate_and_can_be_drawn_again(template: str) -> None:
    one, seed = new_plate("P1", template, Content())
    again, _ = new_plate("P9", template, Content(seed=seed))
    other, _ = new_plate("P2", template, Content())
    assert one.wells == again.wells
    assert one.wells != other.wells


@pytest.mark.parametrize("template", RANDOM)
def test_random_controls_are_as_many_in_every_quarter(template: str) -> None:
    plate, _ = new_plate("P1", template, Content())
    asked = TEMPLATES[template]
    for role, n in ((WellRole.NEGATIVE_CONTROL, asked.untreated), (WellRole.POSITIVE_CONTROL, asked.killed)):
        quarters = Counter((2 * w.row >= asked.rows, 2 * w.column >= asked.columns) for w in wells_of(plate, role))
        assert set(quarters.values()) == {n // 4}
        assert len(quarters) == 4


def test_every_patient_gets_every_series_and_controls() -> None:
    content = Content(compounds=("A",), patients=("pt1", "pt2"), doses=5, replicates=2)
    plate, _ = new_plate("P1", "dose-response-96", content)
    found = Counter((entry.treatment.patient, entry.treatment.role.value) for entry in plate)
    assert {patient: found[patient, "sample"] for patient in ("pt1", "pt2")} == {"pt1": 10, "pt2": 10}
    assert {found[p, role] for p in ("pt1", "pt2") for role in ("negative_control", "positive_control")} == {4}


@pytest.mark.parametrize(
    ("template", "content", "words"),
    [
        ("dose-response-24", Content(), "there is no template 'dose-response-24'; use one of dose-response-96"),
        ("dose-response-96", Content(doses=11), "11 doses, and 10 columns between the controls"),
        ("dose-response-96", Content(replicates=3), "12 series of 10 doses, and 8 places for them"),
        ("dose-response-96", Content(killed=9), "17 controls, and 16 wells in the two columns of controls"),
        ("dose-response-96-randomised", Content(replicates=3), "136 wells, and 96 wells on the plate"),
        ("dose-response-96", Content(doses=0), "0 doses; give 1 or more"),
        ("dose-response-96", Content(untreated=-1), "-1 controls; give 0 or more"),
        ("dose-response-96", Content(dilution=1.0), "diluted 1.0 times; give a dose above 0 and a dilution above 1"),
        ("dose-response-96", Content(compounds=("A", "A")), "compound 'A' is given twice"),
        ("dose-response-96", Content(compounds=("A\n",)), "compound is"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(template: str, content: Content, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        new_plate("P1", template, content)


def test_a_plate_without_controls_is_written_and_said_so(tmp_path: Path) -> None:
    out = tmp_path / "P1.csv"
    done = spheroidd(
        "plate", "new", "--template", "dose-response-96-randomised", "--untreated", 0, "--killed", 0, "-o", out
    )
    assert done.exit_code == 0, done.stderr
    assert "no well is untreated" in done.stdout
    assert "places drawn with --seed" in done.stdout


def test_the_templates_are_listed_with_what_they_hold() -> None:
    listed = spheroidd("plate", "templates").stdout.splitlines()
    assert [line.partition(":")[0] for line in listed] == list(TEMPLATES)
    assert "4 compounds x 10 doses x 2, 8 untreated and 8 killed wells" in listed[0]
