"""A row's trust from the scheduler to everything that is handed out: failed and doubtful wells are told everywhere."""

import json
import sqlite3
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console, RenderableType
from typer.testing import CliRunner

from spheroidd.daemon.analysis.curves import curve_points, curves
from spheroidd.daemon.analysis.plate_quality import plate_quality
from spheroidd.daemon.catalog.audit_verification import verify
from spheroidd.daemon.catalog.kept_standings import KeptStandings
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.cli.console import app
from spheroidd.daemon.export.tables import curves_table
from spheroidd.daemon.monitoring import status
from spheroidd.daemon.report.heatmap import trust as word_of
from spheroidd.daemon.report.tables import well_table
from spheroidd.daemon.scoring.exclusions import exclude_well
from spheroidd.daemon.service.messages import changes_after, status_message
from spheroidd.daemon.service.status_remote import from_message
from spheroidd.daemon.web.plate_view import entries, plate_view, well_view
from spheroidd.protocols.results import Related, WellStatus
from spheroidd.protocols.stack import CHANNELS, StackKey
from spheroidd.protocols.trust import MEANINGS, Trust, TrustFlag, failed_reason
from spheroidd.protocols.well import WellId
from tests.daemon.report import plates
from tests.daemon.web.rig import said
from tests.faults.plate_runs import run, spheroidd, write_config

FAILED_CONTROL, CONTROLS = WellId(0, 3), [WellId(0, column) for column in range(3)]
FAILED, DOUBTFUL = WellId(1, 2), WellId(1, 3)
NO_CELL, CLIPPED = MEANINGS[TrustFlag.NO_CELL], MEANINGS[TrustFlag.CLIPPED]


def judged(data: Path, well: WellId, *flags: TrustFlag) -> None:
    """Give a row these flags, as a relation of the plate would."""
    trust = Trust.FAIL if any(MEANINGS[flag].weight is Trust.FAIL for flag in flags) else Trust.CHECK
    key = StackKey("P1", well)
    with Catalog.create_or_open(data) as catalog:
        (before,) = [row.related for row in catalog.measurements("P1", plates.MODEL) if row.key == key]
        failed = Related(before.status, failed_reason(flags))
        given = failed if trust is Trust.FAIL else before
        catalog.update_related(key, plates.MODEL, replace(given, trust=trust, trust_flags=flags), "judged")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Four untreated wells and eight doses; one control and one dose failed on their images, one dose is clipped."""
    doses = {WellId(1, n): plates.sample("drug", dose) for n, dose in enumerate(plates.DOSES_UM)}
    wells = plates.plate_map("P1", dict.fromkeys((*CONTROLS, FAILED_CONTROL), plates.UNTREATED) | doses)
    plates.register(tmp_path, wells)
    live = {well: 1e5 * plates.share_alive(doses[well].dose_um or 0.0, 3.0) for well in doses}
    plates.score(tmp_path, wells, live | dict.fromkeys((*CONTROLS, FAILED_CONTROL), 1e5))
    judged(tmp_path, FAILED, TrustFlag.NO_CELL)
    judged(tmp_path, FAILED_CONTROL, TrustFlag.CAMERA_NOISE)
    judged(tmp_path, DOUBTFUL, TrustFlag.CLIPPED)
    return tmp_path


def command(*words: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "220"})
    return done.exit_code, done.output


def test_a_failed_row_keeps_what_was_measured_and_gives_no_viability(data: Path) -> None:
    with Catalog.read_only(data) as catalog:
        (row,) = [row for row in catalog.results() if row.well == str(FAILED)]
        (kept,) = [row.measurement for row in catalog.measurements("P1", plates.MODEL) if row.key.well == FAILED]
    assert (row.v_count, row.v_control, row.v_score) == (None, None, None)
    assert row.reason == f"its images failed: {NO_CELL.meaning}"
    assert (row.trust, row.trust_flags) == (Trust.FAIL, ("no-cell",))
    assert row.n_live == kept.n_live
    assert row.live_um3 == kept.live_um3
    assert kept.quantiles


def test_a_doubtful_row_keeps_its_viability(data: Path) -> None:
    with Catalog.read_only(data) as catalog:
        (row,) = [row for row in catalog.results() if row.well == str(DOUBTFUL)]
    assert (row.trust, row.trust_flags) == (Trust.CHECK, ("clipped",))
    assert row.v_count is not None
    assert row.v_control is not None


def test_v_count_comes_back_when_the_row_fails_no_more_and_the_history_holds(data: Path) -> None:
    with Catalog.create_or_open(data) as catalog:
        key = StackKey("P1", FAILED)
        catalog.update_related(key, plates.MODEL, Related(WellStatus.FINAL, None, 80.0, trust=Trust.OK), "looked at")
        (row,) = [row for row in catalog.results() if row.well == str(FAILED)]
        (kept,) = [row.measurement for row in catalog.measurements("P1", plates.MODEL) if row.key == key]
        assert row.v_count == kept.v_count is not None
        assert verify(catalog).intact


def test_the_same_measurement_again_changes_no_failed_row(data: Path) -> None:
    with Catalog.create_or_open(data) as catalog:
        key = StackKey("P1", FAILED)
        (kept,) = [row.measurement for row in catalog.measurements("P1", plates.MODEL) if row.key == key]
        assert not catalog.record_measurement(key, kept, 2.0)
        assert [row.v_count for row in catalog.results() if row.well == str(FAILED)] == [None]


def test_failed_wells_stay_out_of_the_curve_and_the_curve_says_which_and_why(data: Path) -> None:
    with Catalog.read_only(data) as catalog:
        (points,) = curve_points(catalog, "P1", "v_control")
        (counted,) = curve_points(catalog, "P1", "v_count")
        (curve,) = curves(catalog, "P1")
    assert str(FAILED) not in points.wells
    assert str(FAILED) not in counted.wells
    assert points.control_wells == tuple(str(well) for well in CONTROLS)
    assert [one.well for one in points.failed] == [str(FAILED), str(FAILED_CONTROL)]
    (warning,) = [one for one in curve.fit.warnings if "left out" in one]
    assert warning.startswith(f"2 wells left out ({FAILED}, {FAILED_CONTROL}): ")
    assert NO_CELL.meaning in warning
    assert MEANINGS[TrustFlag.CAMERA_NOISE].meaning in warning
    (row,) = curves_table([curve]).rows
    assert (row["n_failed"], row["n_missing"]) == (2, 1)
    assert warning in row["warnings"]


def test_a_curve_of_sound_wells_says_nothing(data: Path) -> None:
    for well in (FAILED, FAILED_CONTROL):
        exclude_well(data, str(well), "no spheroid")
    with Catalog.read_only(data) as catalog:
        (points,) = curve_points(catalog, "P1")
    assert points.warnings == ()


def test_a_failed_control_is_no_control_of_the_plate(data: Path) -> None:
    with Catalog.read_only(data) as catalog:
        assert plate_quality(catalog, "P1").n_negative == len(CONTROLS)


@pytest.mark.parametrize(("name", "words"), [("status", CLIPPED.sentence), ("results", " check ")])
def test_somebody_is_told_to_look_until_the_wells_are_excluded(data: Path, name: str, words: str) -> None:
    code, text = command(name, data)
    assert code == 1
    assert words in " ".join(text.split())
    assert command(name, data, "--json")[0] == 1
    for well in (FAILED, FAILED_CONTROL):
        exclude_well(data, str(well), "no spheroid")
    with Catalog.create_or_open(data) as catalog:
        left = [row.result.well for row in catalog.result_rows() if row.to_look_at]
    # the exclusion related the plate anew, and no rule finds anything in these measurements
    assert left == []
    assert command(name, data)[0] == 0


def test_status_names_each_doubtful_well_here_and_from_afar(data: Path) -> None:
    with Catalog.read_only(data) as catalog:
        here = status.look(data, catalog)
    there = from_message(status_message(here), "localhost:1")
    for found in (here, there):
        assert {one.well: (one.trust, one.trust_flags) for one in found.doubtful} == {
            str(FAILED): (Trust.FAIL, ("no-cell",)),
            str(FAILED_CONTROL): (Trust.FAIL, ("camera-noise",)),
            str(DOUBTFUL): (Trust.CHECK, ("clipped",)),
        }
        assert found.exit_code == status.ATTENTION


def test_who_looks_once_sees_what_who_looks_again_sees_with_figures_or_without(data: Path) -> None:
    with Catalog.read_only(data) as catalog:
        seen = [
            replace(status.look(data, catalog, 1.0, kept, figures=figures), disk_free_gb=0.0)
            for kept in (None, KeptStandings())
            for figures in (True, False)
        ]
    full, bare, full_again, bare_again = seen
    assert (full, bare) == (full_again, bare_again)
    assert [one.live_um3 is None for one in full.doubtful] != [one.live_um3 is None for one in bare.doubtful]
    assert status_message(full) == status_message(bare)
    assert shown(status.to_screen(full)) == shown(status.to_screen(bare))


def test_wells_that_are_doubtful_for_one_reason_are_told_in_one_line(data: Path) -> None:
    with Catalog.read_only(data) as catalog:
        here = status.look(data, catalog)
    (check,) = (one for one in here.doubtful if one.trust is Trust.CHECK)
    many = replace(here, doubtful=tuple(replace(check, well=f"A{n:02d}") for n in range(1, 41)), failed=(), faults=())
    (line,) = (line for line in shown(status.to_screen(many)).splitlines() if "trust check" in line)
    assert line.startswith("A01, A02, ")
    assert "A12 and 28 more trust check: " in line


def shown(part: RenderableType) -> str:
    console = Console(width=400)
    with console.capture() as captured:
        console.print(part)
    return captured.get()


def test_a_row_of_before_was_not_judged(data: Path) -> None:
    with sqlite3.connect(data / "catalog.sqlite") as connection:
        connection.execute("UPDATE results SET trust = NULL, trust_flags = NULL")
    connection.close()
    code, text = command("results", data)
    assert code == 1  # not for want of a judgement: the rows are not as they were written
    assert text.count("not judged") == 12
    rows = json.loads(CliRunner().invoke(app, ["results", str(data), "--json"]).stdout)
    assert {(row["trust"], row["trust_flags"]) for row in rows} == {(None, None)}


def test_the_page_marks_the_well_and_says_why_in_its_panel(data: Path) -> None:
    with Catalog.read_only(data) as catalog:
        cells = {cell["well"]: cell for cell in plate_view(catalog, "P1", None)["wells"]}
        panel = well_view(catalog, "P1", FAILED, None)
        doubtful = well_view(catalog, "P1", DOUBTFUL, None)
    assert (cells[str(FAILED)]["trust"], cells[str(FAILED)]["flagged"], cells[str(FAILED)]["viability"]) == (
        "fail",
        True,
        None,
    )
    assert (cells[str(DOUBTFUL)]["trust"], cells[str(DOUBTFUL)]["flagged"]) == ("check", True)
    assert not cells["A01"]["flagged"]
    assert [said(flag["what"]) for flag in panel["stacks"][0]["flags"]] == [
        "no cell was found, neither living nor dead"
    ]
    assert said(doubtful["stacks"][0]["flags"][0]["do"]).startswith("compare")


def test_the_report_says_it_in_the_map_and_in_the_table(data: Path) -> None:
    with Catalog.read_only(data) as catalog:
        found = entries(catalog, "P1")
    assert (word_of(found[FAILED]), word_of(found[DOUBTFUL]), word_of(found[CONTROLS[0]])) == (
        "failed",
        "flagged",
        "ready",
    )
    table = well_table([found[FAILED], found[DOUBTFUL]])
    words = [" ".join(row.cells) for row in table.rows]
    assert NO_CELL.meaning in words[0]
    assert f"check: {CLIPPED.meaning}" in words[1]


def test_a_change_that_is_streamed_carries_the_flags_as_a_list(data: Path) -> None:
    with Catalog.read_only(data) as catalog:
        told = {one.result.well: list(one.result.trust_flags) for one in changes_after(catalog, 0, 1000)}
    assert told[str(FAILED)] == ["no-cell"]
    assert told[str(DOUBTFUL)] == ["clipped"]


@pytest.mark.parametrize(("high", "held"), [(250.0, False), (60_000.0, True)])
def test_a_run_with_limits_says_of_each_well_whether_they_held_it(tmp_path: Path, high: float, held: bool) -> None:
    """In a real process, from pixels to the exit code."""
    limits = {channel: {"low": 100.0, "high": high, "mean": 150.0, "sd": 50.0} for channel in CHANNELS}
    source = {"compounds": 0, "negative_controls": 1, "positive_controls": 1}
    config = write_config(tmp_path, source=source, limits=limits)
    ended = run(config)
    code, text = command("results", tmp_path / "data", "--json")
    rows = json.loads(text)
    assert ended == any(row["trust"] == "fail" for row in rows), config.with_suffix(".log").read_text()
    assert any("clipped" in row["trust_flags"] for row in rows) is not held
    assert code == any(row["trust"] != "ok" for row in rows)
    assert {row["status"] for row in rows} == {"final"}
    with Catalog.read_only(tmp_path / "data") as catalog:
        assert verify(catalog).intact


def test_a_replay_of_noise_ends_with_1_and_names_its_wells(tmp_path: Path) -> None:
    """Every row is there, and none of them holds a viability."""
    rows = ["well,role,path,pixel_um,z_step_um"]
    for seed, well in enumerate(("A01", "B02")):
        noise = np.random.default_rng(seed).normal(100, 3, (2, 12, 64, 64)).astype(np.uint16)
        np.save(tmp_path / f"{well}.npy", noise)
        rows.append(f"{well},sample,{well}.npy,0.5,1.0")
    (tmp_path / "map.csv").write_text("\n".join(rows), encoding="utf-8")
    words = ("replay", str(tmp_path / "map.csv"), str(tmp_path / "data"), "--model", "threshold", "--threads", "1")
    done = spheroidd(*words, "--plain")
    said = " ".join(done.stdout.split())
    assert done.returncode == 1, done.stderr
    assert "2 of 2 wells have a row" in said
    assert "2 to be looked at, 2 of them without viability because their images failed: A01, B02;" in said
    with Catalog.read_only(tmp_path / "data") as catalog:
        assert {(row.status, row.trust) for row in catalog.results()} == {(WellStatus.FINAL, Trust.FAIL)}
