"""`spheroidd run` from a configuration to rows, in a real process, looked at as its users would."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorstore
import yaozarrs
import zarr
from rich.console import Console

from spheroidd.daemon.catalog.audit_chain import Action
from spheroidd.daemon.catalog.audit_trail import events
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.export.tables import wells_table
from spheroidd.daemon.launch import run as launched
from spheroidd.daemon.report.provenance import plate_facts
from spheroidd.inference.network.model_card import read_card
from spheroidd.inference.viability.regressor import ViabilityRegressor
from spheroidd.protocols.plate import PlateMap, PlateWell, Treatment, WellRole
from spheroidd.protocols.results import Precision, WellStatus
from spheroidd.protocols.stack import StackKey
from spheroidd.protocols.stack_end import Ending, StackEnd
from spheroidd.protocols.well import WellId
from tests.faults.plate_runs import N_Z, ledger, run, spheroidd, write_config

ROW_KEYS = {
    *("plate", "well", "stack", "status", "reason", "n_slices_expected", "n_slices_acked", "live_um3", "dead_um3"),
    *("n_live", "n_dead", "v_count", "v_control", "v_score", "v_score_lo", "v_score_hi", "model_sha256"),
    *("normalisation", "precision", "latency_s", "role", "compound", "dose_um", "patient"),
}


def copied(config: Path, folder: Path) -> Path:
    """The configuration of a copy of what a run left, which may be changed."""
    shutil.copytree(config.parent / "data", folder / "data")
    return write_config(folder)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The configuration of a plate that was run to its end with the network that ships."""
    config = write_config(tmp_path_factory.mktemp("run"), model="default")
    assert run(config) == 0, config.with_suffix(".log").read_text()
    return config


def rows(config: Path) -> dict[str, dict[str, object]]:
    done = spheroidd("results", str(config.parent / "data"), "--json")
    assert done.returncode in (0, 1), done.stderr  # 1 where a well must be looked at
    return {row["well"]: row for row in json.loads(done.stdout)}


def test_every_well_has_one_final_row_with_every_figure(finished: Path) -> None:
    found = rows(finished)
    assert len(found) == 5
    for row in found.values():
        assert row.keys() >= ROW_KEYS
        assert row["status"] == WellStatus.FINAL
        assert row["n_slices_acked"] == row["n_slices_expected"] == 2 * N_Z
        assert all(row[key] is not None for key in ("live_um3", "v_count", "v_control", "v_score", "latency_s"))
        assert row["normalisation"] == "plate"
        assert row["precision"] in list(Precision)
    controls = [row["v_control"] for row in found.values() if row["role"] == "negative_control"]
    assert np.median(controls) == pytest.approx(100.0)  # type: ignore[arg-type]
    killed = [row["v_control"] for row in found.values() if row["role"] == "positive_control"]
    assert all(value < 50 for value in killed)  # type: ignore[operator]


def test_rows_become_final_in_the_open(finished: Path) -> None:
    """The first control is scored before the second: its row was provisional, and the change is kept."""
    with Catalog.read_only(finished.parent / "data") as catalog:
        changes = catalog.result_changes()
    statuses = [change.new["status"] for change in changes]
    assert "provisional" in statuses
    assert statuses.count("final") >= 5
    assert all(change.reason for change in changes)


def test_the_trail_says_which_model_and_regressor_the_numbers_are_from(finished: Path) -> None:
    with Catalog.read_only(finished.parent / "data") as catalog:
        (started,) = (one for one in events(catalog) if one.action == Action.RUN_STARTED)
    assert started.new_json is not None
    told = json.loads(started.new_json)
    assert told["model_sha256"] == read_card().sha256
    assert told["regressor_sha256"] == ViabilityRegressor.load().sha256


def test_the_plate_is_valid_for_others(finished: Path) -> None:
    import ome_zarr_io

    plate = finished.parent / "data" / "P1.ome.zarr"
    yaozarrs.validate_zarr_store(str(plate))
    report = ome_zarr_io.validate(plate, strict=True)
    assert report.is_valid, str(report)


@pytest.mark.parametrize("array", ["A/01/0/0", "A/01/0/labels/live/0", "A/03/0/labels/dead/0"])
def test_zarr_python_and_tensorstore_read_the_same(finished: Path, array: str) -> None:
    image = finished.parent / "data" / "P1.ome.zarr"
    ours = zarr.open_array(image / array, mode="r")[:]
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(image / array)}}
    theirs = tensorstore.open(spec).result().read().result()
    assert np.array_equal(ours, theirs)
    assert np.count_nonzero(ours) > 0


def test_status_says_that_all_is_done(finished: Path) -> None:
    done = spheroidd("status", str(finished.parent / "data"), "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["running"] is False
    assert json.loads(done.stdout)["wells"] == {"final": 5}


def test_running_it_again_changes_nothing(finished: Path) -> None:
    before = ledger(finished)
    assert run(finished) == 0
    assert ledger(finished) == before


@pytest.mark.parametrize(
    ("how", "code", "words"),
    [(StackEnd.SKIPPED, 0, "4 of 5 wells have a row, 1 skipped"), (StackEnd.SHORT, 1, "4 of 5 wells have a row;")],
    ids=str,
)
def test_a_well_that_a_person_skipped_does_not_fail_a_plate_and_a_short_one_does(
    finished: Path, tmp_path: Path, how: StackEnd, code: int, words: str
) -> None:
    config = copied(finished, tmp_path)
    sample = next(well for well, row in rows(config).items() if row["role"] == "sample")
    with Catalog.create_or_open(tmp_path / "data") as catalog:
        catalog.end_stack(StackKey("P1", WellId.parse(sample)), Ending(how, "it fell off"))
    done = spheroidd("score", str(tmp_path / "data"), "--missing")
    assert (done.returncode, words in " ".join(done.stdout.split())) == (code, True), done.stdout
    assert ("failed" in done.stdout, f"{sample} incomplete" in done.stdout) == (False, how is StackEnd.SHORT)
    assert rows(config)[sample]["status"] == how.status
    assert spheroidd("status", str(tmp_path / "data")).returncode == code


def test_scoring_again_by_each_stacks_own_limits_logs_every_change(undisturbed: Path, tmp_path: Path) -> None:
    config = copied(undisturbed, tmp_path)
    before = ledger(config)
    done = spheroidd("score", str(tmp_path / "data"), "--normalisation", "stack")
    assert done.returncode == 0, done.stderr
    assert {row["normalisation"] for row in rows(config).values()} == {"stack"}
    assert {row["status"] for row in rows(config).values()} == {"final"}
    assert ledger(config).changes > before.changes
    assert ledger(config).slices == before.slices


def test_the_other_precision_stands_in_every_row_and_changes_little(finished: Path, tmp_path: Path) -> None:
    config = copied(finished, tmp_path)
    before, changes = rows(config), ledger(config).changes
    (own,) = {row["precision"] for row in before.values()}
    (other,) = set(Precision) - {own}
    done = spheroidd("score", str(tmp_path / "data"), "--precision", other)
    assert done.returncode == 0, done.stderr
    after = rows(config)
    assert {row["precision"] for row in after.values()} == {other}
    assert ledger(config).changes > changes
    for well, row in after.items():
        assert row["live_um3"] == pytest.approx(before[well]["live_um3"], rel=0.05), well
    changed = {well for well, row in after.items() if row["live_um3"] != before[well]["live_um3"]}
    assert changed, "no mask is another one"  # not every one: edges lie where the image has them
    with Catalog.read_only(config.parent / "data") as catalog:
        assert dict(plate_facts(catalog, "P1"))["Model's precision"] == other
        assert {row["precision"] for row in wells_table(catalog, ["P1"]).rows} == {other}


def test_a_second_plate_in_the_same_directory_is_told(tmp_path: Path) -> None:
    """Once, when it is new there: whoever goes on with a plate reads nothing."""
    wells = (PlateWell(WellId(0, 0), Treatment(WellRole.NEGATIVE_CONTROL)),)
    told = io.StringIO()
    with Catalog.create_or_open(tmp_path) as catalog:
        for plate in ("P1", "P1", "P2"):
            launched._tell_of_others(catalog, plate, Console(file=told, width=400))
            catalog.register_plate(PlateMap(plate, wells), "{}")
    text = told.getvalue()
    assert text.count("\n") == 1
    assert "holds P1 already: P2 is a further plate with controls of its own" in text
