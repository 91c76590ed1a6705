"""A plate without killed wells: its limits move while wells arrive, and the last ones score every row."""

import json
from pathlib import Path
from typing import Any

import pytest

from spheroidd.daemon.catalog.audit_chain import Action
from spheroidd.daemon.catalog.audit_trail import events
from spheroidd.daemon.catalog.audit_verification import verify
from spheroidd.daemon.catalog.rows import dump_limits
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.protocols.results import WellStatus
from tests.faults.plate_runs import run, spheroidd, write_config

SOURCE = {
    "n_z": 24,
    "negative_controls": 2,
    "positive_controls": 0,
    "compounds": 1,
    "doses": 3,
    "top_dose_um": 300.0,
    "seed": 2,
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = write_config(tmp_path_factory.mktemp("moving"), source=SOURCE)
    assert run(config) == 0
    return config


def catalog_of(config: Path) -> Catalog:
    return Catalog.read_only(config.parent / "data")


def test_every_final_row_was_scored_with_the_plates_last_limits(finished: Path) -> None:
    with catalog_of(finished) as catalog:
        last = catalog.locked_limits("P1")
        assert last is not None
        used = catalog.query("SELECT status, limits_json FROM results")
        moved = [event for event in events(catalog) if event.action == Action.LIMITS_MOVED]
        assert moved
        assert verify(catalog).problems == ()
    assert [(row["status"], row["limits_json"]) for row in used] == [("final", dump_limits(last))] * 5


def test_no_row_is_final_before_the_last_well_has_been_seen(finished: Path) -> None:
    with catalog_of(finished) as catalog:
        changes = catalog.result_changes()
    first_final = next(number for number, change in enumerate(changes) if change.new["status"] == "final")
    seen = {str(change.key.well) for change in changes[:first_final]}
    assert len(seen) == 5


def test_a_second_run_moves_nothing(finished: Path) -> None:
    with catalog_of(finished) as catalog:
        before = len(catalog.result_changes())
    assert run(finished) == 0
    with catalog_of(finished) as catalog:
        assert len(catalog.result_changes()) == before
        assert {result.status for result in catalog.results("P1")} == {WellStatus.FINAL}


def test_limits_that_the_settings_give_never_move(tmp_path: Path) -> None:
    given = {"low": 110.0, "high": 400.0, "mean": 170.0, "sd": 60.0}
    config = write_config(tmp_path, source={**SOURCE, "doses": 1}, limits={"488": given, "561": given})
    assert run(config) == 1  # as far off as these are, the cells look like debris: somebody has to look
    done = spheroidd("results", str(config.parent / "data"), "--json")
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    with catalog_of(config) as catalog:
        assert not [event for event in events(catalog) if event.action == Action.LIMITS_MOVED]
        assert catalog.locked_limits("P1") is not None
    assert {row["status"] for row in rows} == {"final"}
