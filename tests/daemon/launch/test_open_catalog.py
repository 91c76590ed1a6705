"""A disk that ends the daemon, at its start too: the terminal, the log and, where it takes it, the catalog say so."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.launch.open_catalog import open_catalog
from spheroidd.daemon.monitoring.event_log import FOLDER, NAME, logging_to
from spheroidd.protocols.errors import GOES_ON, NoRoomError, StorageError
from spheroidd.protocols.faults import FaultCode
from tests.faults.campaign import INTERPOSED
from tests.faults.disks import NoDiskError, small_disk
from tests.faults.plate_runs import write_config
from tests.places import ROOT

AGAIN = "then start it again: it goes on where it stopped"


def logged(data_dir: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (data_dir / FOLDER / NAME).read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("kept_bytes", [0, 30_000], ids=["not a byte", "some pages"])
def test_a_disk_that_is_full_when_the_catalog_is_made_is_named_with_what_to_do(tmp_path: Path, kept_bytes: int) -> None:
    try:
        with small_disk(tmp_path, size_mb=1) as disk:
            (disk / FOLDER).mkdir()
            (disk / FOLDER / NAME).write_bytes(b" " * 4000)  # the log has a page; what follows fits into it
            (disk / "ballast").write_bytes(bytes((1 << 20) - 8192 - kept_bytes))
            with (
                pytest.raises(NoRoomError, match=r"the disk is full.*so the daemon ended") as caught,
                open_catalog(disk),
            ):
                raise AssertionError("it was opened")
    except NoDiskError as reason:
        pytest.skip(str(reason))
    assert caught.value.where == str(disk / "catalog.sqlite")
    assert caught.value.what.startswith("the disk is full")
    assert AGAIN in caught.value.do
    assert GOES_ON not in caught.value.do


def test_a_disk_that_ends_the_daemon_is_in_the_log_and_an_alarm_until_the_next_one(tmp_path: Path) -> None:
    where = str(tmp_path / "catalog.sqlite")
    with pytest.raises(NoRoomError, match="so the daemon ended"), logging_to(tmp_path), open_catalog(tmp_path):
        raise NoRoomError("the disk is full", where=where, do=f"free some space; {GOES_ON}")
    (line,) = [line for line in logged(tmp_path) if line["event"] == "daemon-ended"]
    assert (line["level"], line["what"]) == ("critical", "the disk is full, so the daemon ended")
    assert (line["where"], line["do"]) == (where, f"free some space; {AGAIN}")
    with Catalog.read_only(tmp_path) as catalog:
        (fault,) = catalog.faults()
    assert (fault.code, fault.what, fault.do) == (FaultCode.STORAGE_CATALOG, line["what"], line["do"])
    with open_catalog(tmp_path) as catalog:
        assert catalog.faults() == []


def test_what_another_file_refuses_is_no_alarm_of_the_catalog(tmp_path: Path) -> None:
    with pytest.raises(StorageError), open_catalog(tmp_path):
        raise StorageError("the disk fails", where=str(tmp_path / "P1.ome.zarr"), do="check the disk")
    with Catalog.read_only(tmp_path) as catalog:
        assert [fault.code for fault in catalog.faults()] == [FaultCode.STORAGE]


@pytest.mark.parametrize(
    ("number", "words"),
    [("ENOSPC", "the disk is full: nothing was acknowledged"), ("EROFS", "the catalog cannot be written")],
)
def test_a_run_whose_first_commits_are_refused_says_what_where_and_what_to_do(
    tmp_path: Path, number: str, words: str
) -> None:
    config, data = write_config(tmp_path), tmp_path / "data"
    at_fourth = {"FAULT": f"daemon:ledger-commit:{number}:4:1", "FAULT_FIRED": str(tmp_path / "fired")}
    command = [*INTERPOSED, "run", str(config), "--plain"]
    done = subprocess.run(command, env=os.environ | at_fourth, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (tmp_path / "fired").exists()
    assert done.returncode == 4
    assert f"{data / 'catalog.sqlite'}: {words}, so the daemon ended" in done.stderr
    assert AGAIN in done.stderr
    assert [line["event"] for line in logged(data)] == ["daemon-ended"]
