"""`spheroidd map`: a plate map checked before the run and written in the plain form, whatever form it had."""

import json
from pathlib import Path

import openpyxl
import pytest
from typer.testing import CliRunner, Result

from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.cli import console as cli
from spheroidd.daemon.config.model import build_config
from spheroidd.protocols.plate import Treatment, WellRole
from spheroidd.protocols.plate_map.file import read_plate_map
from spheroidd.protocols.well import WellId
from tests.places import EXAMPLES

LIST = (
    "well;role;drug;Dose (nM);Zelllinie\nA1;DMSO;DMSO;;MCF7\nA2;vehicle;;;MCF7\nB1;stauro;;;\n"
    "C1;sample;Taxol;2,5;MCF7\n"
)


def spheroidd(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


@pytest.fixture
def german(tmp_path: Path) -> Path:
    path = tmp_path / "Platte 1.csv"
    path.write_bytes(LIST.encode("utf-16"))
    return path


def test_check_says_what_the_map_holds(german: Path) -> None:
    done = spheroidd("map", "check", german, "--role", "stauro=positive_control")
    assert done.exit_code == 0, done.stderr
    for words in (
        "1 treated (s), 2 untreated (U), 1 killed (K), 0 empty (.)",
        "Taxol: 0.0025 uM",
        "Kept as annotations: Zelllinie",
        "untreated wells hold different things and count as one group: DMSO, nothing",
    ):
        assert words in done.stdout
    found = json.loads(spheroidd("map", "check", german, "--role", "stauro=positive_control", "--json").stdout)
    assert [well["role"] for well in found["wells"]] == [
        "negative_control",
        "negative_control",
        "positive_control",
        "sample",
    ]


def test_check_tells_everything_that_is_wrong(german: Path) -> None:
    german.write_text(LIST + "D1;chief;;;\nE99;sample;;;\n")
    refused = spheroidd("map", "check", german)
    assert refused.exit_code == 2
    for words in (
        "3 things are wrong in it",
        "line 4: role is 'stauro'",
        "line 6: role is 'chief'",
        "line 7: 'E99' is on no plate",
    ):
        assert words in refused.stderr
    bad = spheroidd("map", "check", german, "--role", "stauro=boss")
    assert "'stauro=boss' maps no word to a role" in bad.stderr


def test_check_holds_a_map_against_its_configuration(tmp_path: Path) -> None:
    path = tmp_path / "map.csv"
    path.write_text("well,role,z_start_um\nA01,untreated,-9000\nA02,untreated,\n")
    assert spheroidd("map", "check", path).exit_code == 0
    refused = spheroidd("map", "check", path, "--config", EXAMPLES / "plan-96.toml")
    assert refused.exit_code == 2
    assert "A01: its first slice is at -9000 um, outside z_limits_um" in refused.stderr
    path.write_text("well,role,exposure_ms\nA01,chef,20\nA02,untreated,\n")
    settings = tmp_path / "watch.toml"
    text = (EXAMPLES / "watch-folder.toml").read_text()
    settings.write_text(text.replace("[source]", "[plate.roles]\nchef = 'negative_control'\n[source]", 1))
    refused = spheroidd("map", "check", path, "--config", settings)
    assert "the plate map says exposure_ms, and a matrix-screener source does not follow that" in refused.stderr


def test_convert_writes_the_plain_form_once(german: Path, tmp_path: Path) -> None:
    out = tmp_path / "plain.csv"
    arguments = ("map", "convert", german, "-o", out, "--role", "stauro=positive_control")
    assert spheroidd(*arguments).exit_code == 0
    assert out.read_text().splitlines() == [
        "well,role,compound,dose_um,patient,Zelllinie",
        "A01,negative_control,DMSO,,,MCF7",
        "A02,negative_control,,,,MCF7",
        "B01,positive_control,,,,",
        "C01,sample,Taxol,0.0025,,MCF7",
    ]
    assert "it is there already" in spheroidd(*arguments).stderr


def test_a_configuration_says_the_labs_words_and_the_catalog_keeps_annotations(german: Path, tmp_path: Path) -> None:
    tables = {
        "data": {"dir": str(tmp_path / "data")},
        "plate": {"name": "P1", "map": str(german), "roles": {"stauro": "positive_control"}},
        "source": {"kind": "emulator"},
    }
    config = build_config(tables, base=tmp_path, where="test")
    plate_map = config.plate_map()
    assert plate_map is not None
    assert plate_map[WellId.parse("B1")].treatment.role is WellRole.POSITIVE_CONTROL
    with Catalog.create_or_open(tmp_path / "data") as catalog:
        catalog.register_plate(plate_map, config.model_dump_json())
        catalog.register_plate(plate_map, config.model_dump_json())
        assert catalog.plate_map("P1") == plate_map
        assert dict(catalog.plate_map("P1")[WellId.parse("C1")].annotations) == {"Zelllinie": "MCF7"}
    relabelled = spheroidd("relabel", tmp_path / "data", german, "--reason", "none", "--dry-run")
    assert "it says of every well what plate P1 says already" in relabelled.stderr


def test_a_workbook_of_grids_is_converted_with_its_paths_beside_it(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    book.active.title = "compound"
    for row in ([None, 1, 2], ["A", "DMSO", "x"], [None, None, None], ["dose_um", 1, 2], ["A", None, 3.5]):
        book.active.append(row)
    book.save(tmp_path / "plate.xlsx")
    assert spheroidd("map", "convert", tmp_path / "plate.xlsx", "-o", tmp_path / "plate.csv").exit_code == 0
    one, two = read_plate_map(tmp_path / "plate.csv")
    assert one.treatment == Treatment(WellRole.NEGATIVE_CONTROL, "DMSO")
    assert two.treatment == Treatment(WellRole.SAMPLE, "x", 3.5)
