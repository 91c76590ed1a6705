"""MTT references in the catalog: imported, replaced, listed, audited; and what does not fit a plate."""

import json
import sqlite3
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from spheroidd.daemon.catalog import audit_verification as audit_check
from spheroidd.daemon.catalog.audit_trail import events
from spheroidd.daemon.catalog.connection import CATALOG_NAME
from spheroidd.daemon.catalog.reader import CatalogReader
from spheroidd.daemon.catalog.references import known_references, references_of
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.cli import console as cli
from spheroidd.daemon.scoring.exclusions import exclude_well
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.plate import PlateMap, PlateWell, Treatment, WellRole
from spheroidd.protocols.well import WellId

WELLS = {
    "A01": Treatment(WellRole.NEGATIVE_CONTROL),
    "A02": Treatment(WellRole.NEGATIVE_CONTROL),
    "A03": Treatment(WellRole.SAMPLE, "drug", 1.0, "P7"),
    "A04": Treatment(WellRole.SAMPLE, "drug", 10.0, "P7"),
    "H12": Treatment(WellRole.EMPTY),
}


def spheroidd(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    with Catalog.create_or_open(folder) as catalog:
        wells = tuple(PlateWell(WellId.parse(well), treatment) for well, treatment in WELLS.items())
        catalog.register_plate(PlateMap("P1", wells), "{}")
    return folder


def csv(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mtt.csv"
    path.write_text(text, encoding="utf-8")
    return path


READINGS = "well,od\nA01,1.2\nA02,0.8\nA03,0.55\nA04,Error\nH12,0.1\n"


def test_an_import_is_kept_told_and_audited(data: Path, tmp_path: Path) -> None:
    done = spheroidd("reference", "import", data, csv(tmp_path, READINGS), "--who", "ann")
    assert done.exit_code == 0, done.output
    assert "3 MTT references from block 'od'" in done.output
    assert "A04: Error" in done.output
    listed = json.loads(spheroidd("reference", "list", data, "--json").output)
    assert {row["well"]: row["viability_percent"] for row in listed} == {
        "A01": pytest.approx(122.2222),
        "A02": pytest.approx(77.7778),
        "A03": pytest.approx(50.0),
        "A04": None,
    }
    with CatalogReader.read_only(data) as catalog:
        event = events(catalog)[-1]
        assert (event.action, event.who, event.plate) == ("references imported", "ann", "P1")
        assert json.loads(event.new_json or "")["blank_od"] == 0.1
        assert audit_check.verify(catalog).intact
        assert "A04" not in known_references(catalog, "P1")


def test_a_second_import_replaces_the_first_and_names_its_hash(data: Path, tmp_path: Path) -> None:
    spheroidd("reference", "import", data, csv(tmp_path, READINGS))
    again = spheroidd("reference", "import", data, csv(tmp_path, "well,viability\nA01,100\nA03,40\n"), "--json")
    assert json.loads(again.output)["missing"] == {"A02": "not in the file", "A04": "not in the file"}
    with CatalogReader.read_only(data) as catalog:
        assert known_references(catalog, "P1") == {"A01": 100.0, "A03": 40.0}
        first, second = (json.loads(event.new_json or "") for event in events(catalog)[-2:])
        assert json.loads(events(catalog)[-1].old_json or "") == {"references_sha256": first["references_sha256"]}
        assert first["references_sha256"] != second["references_sha256"]


def test_a_changed_row_is_found(data: Path, tmp_path: Path) -> None:
    spheroidd("reference", "import", data, csv(tmp_path, READINGS))
    connection = sqlite3.connect(data / CATALOG_NAME)
    connection.execute("UPDATE mtt_references SET viability_percent = 51 WHERE well = 'A03'")
    connection.commit()
    connection.close()
    with CatalogReader.read_only(data) as catalog:
        assert "its MTT references are not those" in " ".join(audit_check.verify(catalog).problems)


def test_an_excluded_control_is_none(data: Path, tmp_path: Path) -> None:
    exclude_well(data, "A01", "bubble")
    spheroidd("reference", "import", data, csv(tmp_path, READINGS))
    with CatalogReader.read_only(data) as catalog:
        assert known_references(catalog, "P1")["A02"] == pytest.approx(100)


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("well,od,viability\nA01,1,100\nA02,1,100\nA03,1,100\nA04,1,3\n", (), "--block: 'od', 'viability'"),
        ("well,od\nB01,1\n", (), "no blocks cover"),
        ("well,od\nA01,1\n", ("--block", "od"), "--blank"),
        ("well,od\nA01,1\n", ("--block", "od", "--blank", "H1", "--plate", "P2"), "no plate 'P2'"),
        ("well,od\nB01,1\n", ("--block", "od", "--blank", "none"), "no untreated well"),
    ],
)
def test_what_does_not_fit_is_told(
    data: Path, tmp_path: Path, text: str, options: tuple[str, ...], message: str
) -> None:
    done = spheroidd("reference", "import", data, csv(tmp_path, text), *options)
    assert done.exit_code == 2
    assert message in done.output
    with CatalogReader.read_only(data) as catalog:
        assert references_of(catalog, "P1") == {}
        with pytest.raises(ConfigError, match="no MTT references"):
            known_references(catalog, "P1")


def test_nothing_is_made_where_nothing_was_run(tmp_path: Path) -> None:
    assert spheroidd("reference", "import", tmp_path / "none", csv(tmp_path, READINGS)).exit_code == 2
    assert not (tmp_path / "none").exists()
