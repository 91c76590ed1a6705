"""The support bundle: of use, and without secrets, names and images, whatever is broken."""

import json
import zipfile
from pathlib import Path

import pytest

from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.monitoring.event_log import logging_to, tell
from spheroidd.daemon.monitoring.support_bundle import without_secrets, write_bundle
from spheroidd.protocols.errors import ConfigError, StackError, StorageError
from spheroidd.protocols.plate import PlateMap, PlateWell, Treatment, WellRole
from spheroidd.protocols.well import WellId
from tests.daemon.monitoring.alarm_rig import A01

PATIENTS = ("Smith", "Smith-Jones", "Müller", "7")
SECRETS = ("hunter2", "T0PSECRET", "oncall@clinic.org", "hooks.example")
CONFIG = {
    "data": {"dir": "/data/run"},
    "alarms": {
        "webhook": {"url": "https://hooks.example/T0PSECRET", "token_env": "HOOK_TOKEN", "timeout_s": 5.0},
        "email": {"host": "mail.clinic", "to": ["oncall@clinic.org"], "password_env": "MAIL_PASSWORD"},
    },
    "source": {
        "kind": "x",
        "url": "http://me:hunter2@scope/",
        "api_key": "hunter2",
        "nested": [{"password": "hunter2"}],
    },
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    with Catalog.create_or_open(folder) as catalog, logging_to(folder):
        wells = tuple(
            PlateWell(WellId(0, column), Treatment(WellRole.SAMPLE, "drug", 1.0, patient))
            for column, patient in enumerate(PATIENTS)
        )
        catalog.register_plate(PlateMap("P1", wells), json.dumps(CONFIG))
        catalog.raise_fault("quality-patient", StackError("patient Smith-Jones has no controls; Müller has"))
        tell("said", A01, what="of Smith: see https://me:hunter2@x/?key=T0PSECRET")
    (folder / "P1.ome.zarr").mkdir()
    (folder / "P1.ome.zarr" / "image").write_bytes(b"PIXELS")
    return folder


def contents(path: Path) -> dict[str, str]:
    with zipfile.ZipFile(path) as bundle:
        assert bundle.testzip() is None
        return {name: bundle.read(name).decode() for name in bundle.namelist()}


def test_what_is_in_it(data: Path, tmp_path: Path) -> None:
    parts = write_bundle(data, tmp_path / "b.zip")
    found = contents(tmp_path / "b.zip")
    assert [part.name for part in parts] == list(found)
    assert all(part.name in found["README.txt"] for part in parts[1:])
    assert json.loads(found["catalog.json"])["rows"]["wells"] == len(PATIENTS)
    assert json.loads(found["catalog.json"])["audit_head"].count(":") == 1
    assert json.loads(found["versions.json"])["packages"]["numpy"]
    assert json.loads(found["faults.json"])[0]["code"] == "quality-patient"
    assert {check["name"] for check in json.loads(found["doctor.json"])} >= {"clock", "model"}
    assert json.loads(found["log.jsonl"])["event"] == "said"
    assert "P1.ome.zarr/" in found["files.txt"]


def test_what_is_not_in_it(data: Path, tmp_path: Path) -> None:
    write_bundle(data, tmp_path / "b.zip")
    found = "\n".join(contents(tmp_path / "b.zip").values())
    for secret in (*SECRETS, "Smith", "Jones", "Müller", "PIXELS"):
        assert secret not in found, secret
    assert "HOOK_TOKEN" in found  # the name of a variable, not what it holds
    assert "patient-" in found


def test_names_where_they_are_asked_for(data: Path, tmp_path: Path) -> None:
    write_bundle(data, tmp_path / "b.zip", with_names=True)
    found = "\n".join(contents(tmp_path / "b.zip").values())
    assert "Smith-Jones" in found
    assert not any(secret in found for secret in SECRETS)


def test_a_bundle_is_made_of_what_is_broken(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    write_bundle(data, tmp_path / "b.zip")
    assert "no plate was ever run here" in contents(tmp_path / "b.zip")["status.json"]
    (data / "catalog.sqlite").write_bytes(b"no database at all" * 100)
    with pytest.raises(ConfigError, match="cannot be hidden"):
        write_bundle(data, tmp_path / "c.zip")
    write_bundle(data, tmp_path / "c.zip", with_names=True)
    assert "not available" in contents(tmp_path / "c.zip")["catalog.json"]


def test_where_it_cannot_be_made(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such directory"):
        write_bundle(tmp_path / "none", tmp_path / "b.zip")
    with pytest.raises(StorageError, match="cannot be written"):
        write_bundle(data, tmp_path / "no" / "b.zip")


def test_secrets_of_a_tree() -> None:
    kept = without_secrets(CONFIG)
    assert kept["alarms"]["webhook"] == {"url": "https://(removed)", "token_env": "HOOK_TOKEN", "timeout_s": 5.0}
    assert kept["source"]["nested"] == [{"password": "(removed)"}]
    assert kept["data"] == CONFIG["data"]
