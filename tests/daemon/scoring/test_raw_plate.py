"""A plate from raw frames to rows, in real processes: whole, killed and taken up, and with a pattern that is wrong."""

import csv
import json
import sqlite3
import time
from pathlib import Path

import numpy as np
import pytest
import yaozarrs

from spheroidd.acquisition.store import ngff
from spheroidd.acquisition.store.kept_raw import is_dropped
from spheroidd.acquisition.store.stack_files import read_stack
from spheroidd.daemon.catalog.reader import CatalogReader
from spheroidd.daemon.monitoring.failed_logins import FailedLogins
from spheroidd.daemon.reconstruction.stored_raw import estimate_stored
from spheroidd.daemon.web.live_images import LiveImages
from spheroidd.daemon.web.metrics import Metrics
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.stack import StackKey
from spheroidd.protocols.well import WellId
from tests.faults.plate_runs import kill, run, spheroidd, start, write_config

FIELD = {"preset": "sim", "n_z": 7, "height": 192, "width": 192, "field_z_um": 6.0, "seed": 1}
PLATE = {"compounds": 0, "negative_controls": 1, "positive_controls": 0}
N_FRAMES = 7 * 2 * 15


def raw_plate(
    folder: Path, keep_raw: str = "all", sim: dict | None = None, camera: tuple[dict, ...] = (), **raw
) -> Path:
    """`camera` is what happens to single frames, `raw` the pattern and what is wrong with it."""
    source = {**FIELD, **PLATE, "raw": {"dose": 3.0, **raw}, "faults": list(camera)}
    return write_config(folder, source=source, keep_raw=keep_raw, sim=sim)


def asked(config: Path, sql: str) -> list[tuple]:
    with sqlite3.connect(config.parent / "data" / "catalog.sqlite") as connection:
        return connection.execute(sql).fetchall()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = raw_plate(tmp_path_factory.mktemp("raw"))
    assert run(config) == 0, config.with_suffix(".log").read_text()
    return config


KEY = StackKey("P1", WellId(0, 0))


def test_every_raw_frame_is_in_the_ledger_and_the_row_is_final(finished: Path) -> None:
    assert asked(finished, "SELECT count(*), max(z) FROM slices") == [(N_FRAMES, 7 * 15 - 1)]
    assert asked(finished, "SELECT status FROM results") == [("final",)]


def test_frames_names_slice_angle_and_phase_of_each(finished: Path) -> None:
    rows = list(csv.DictReader(spheroidd("frames", str(finished.parent / "data")).stdout.splitlines()))
    assert len(rows) == N_FRAMES
    assert [(row["z"], row["angle"], row["phase"]) for row in rows if row["channel"] == "488"] == [
        (str(z), str(angle), str(phase)) for z in range(7) for angle in range(3) for phase in range(5)
    ]


def test_no_frame_counts_as_dropped(finished: Path) -> None:
    with CatalogReader.read_only(finished.parent / "data") as catalog:
        text = Metrics(finished.parent / "data", FailedLogins()).text(catalog).decode()
    assert "spheroidd_slices_dropped 0.0" in text.splitlines()


def test_patterns_are_kept_with_their_quality_and_slices_with_their_modulation(finished: Path) -> None:
    assert asked(finished, "SELECT channel, usable FROM sim_patterns") == [("488", 1), ("561", 1)]
    told = json.loads(spheroidd("sim", "check", str(finished.parent / "data"), "--json").stdout)
    (stack,) = told[0]["stacks"]
    assert len(stack["slices"]) == 14
    live = [one["method"] for one in stack["slices"] if one["channel"] == "488"]
    assert live[:5] == ["sim"] * 5
    assert all(
        angle["frequency_per_um"] == pytest.approx(1.7476, rel=2e-3) for angle in told[0]["patterns"][0]["angles"]
    )


def test_the_pattern_of_a_run_is_estimated_anew(finished: Path) -> None:
    data = finished.parent / "data"
    found = estimate_stored(data)
    assert [(str(one.key), one.estimate.channel) for one in found] == [("P1/A01/0", "488"), ("P1/A01/0", "561")]
    with CatalogReader.read_only(data) as catalog:
        assert {one.estimate.channel: one.estimate for one in found} == catalog.sim_patterns("P1")[KEY]
    with pytest.raises(ConfigError, match="no raw frames of well B02"):
        estimate_stored(data, WellId(1, 1))


def test_what_others_see_is_an_image_that_says_it_is_computed(finished: Path) -> None:
    data = finished.parent / "data"
    own = ngff.read_attributes(ngff.image_path(data, KEY))[ngff.OWN]
    assert (own["complete"], own["sealed"], own["computed"]["widefield_channels"]) == (True, True, [])
    assert own["computed"]["estimates"].keys() == {"488", "561"}
    assert read_stack(data, KEY).shape == (2, 7, 192, 192)
    yaozarrs.validate_zarr_store(str(ngff.plate_path(data, "P1")))


def test_nothing_of_it_is_found_wrong(finished: Path) -> None:
    done = spheroidd("verify", str(finished.parent / "data"))
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_killed_run_is_taken_up_and_gives_the_same(finished: Path, tmp_path: Path) -> None:
    config = raw_plate(tmp_path)
    process = start(config)
    catalog, until = config.parent / "data" / "catalog.sqlite", time.monotonic() + 120
    while time.monotonic() < until and not (catalog.exists() and _acked(config) >= 40):
        time.sleep(0.02)
    kill(process)
    assert _acked(config) >= 40
    assert run(config) == 0, config.with_suffix(".log").read_text()
    ledger = "SELECT channel, z, crc32c FROM slices ORDER BY channel, z"
    assert asked(config, ledger) == asked(finished, ledger)
    row = "SELECT live_um3, n_live, v_count, status FROM results"
    assert asked(config, row) == asked(finished, row)
    images = [read_stack(one.parent / "data", KEY) for one in (config, finished)]
    np.testing.assert_array_equal(*images)


@pytest.mark.slow
def test_a_replay_of_its_raw_frames_gives_the_same(finished: Path, tmp_path: Path) -> None:
    done = spheroidd("replay", str(finished.parent / "data"), str(tmp_path / "data"), "--plain", "--model", "threshold")
    assert done.returncode == 0, done.stdout + done.stderr
    again = tmp_path / "config.toml"
    for sql in (
        "SELECT channel, z, crc32c FROM slices ORDER BY channel, z",
        "SELECT live_um3, n_live, v_count, status FROM results",
    ):
        assert asked(again, sql) == asked(finished, sql)


@pytest.mark.parametrize("keep_raw", ["none", pytest.param("until_scored", marks=pytest.mark.slow)])
def test_frames_of_a_given_pattern_that_are_not_kept_are_scored_again_from_their_slices(
    finished: Path, tmp_path: Path, keep_raw: str
) -> None:
    """The pattern is that of another run of the same plate, so that everything comes out the same."""
    known = tmp_path / "pattern.json"
    known.write_text(spheroidd("sim", "estimate", str(finished.parent / "data"), "--json").stdout)
    given = {f"pattern_{channel}": str(known) for channel in ("488", "561")}
    config = raw_plate(tmp_path, keep_raw=keep_raw, sim=given)
    assert run(config) == 0, config.with_suffix(".log").read_text()
    data = config.parent / "data"
    assert asked(config, "SELECT count(*) FROM sim_patterns") == [(0,)]  # no stack was asked
    assert is_dropped(data, KEY)
    assert not list(ngff.raw_path(data, KEY).rglob("c/*"))
    assert spheroidd("verify", str(data)).returncode == 0
    row = "SELECT live_um3, n_live, v_count, status FROM results"
    before = asked(config, row)
    done = spheroidd("score", str(data))
    assert done.returncode == 0, done.stdout + done.stderr
    assert asked(config, row) == before == asked(finished, row)
    assert asked(config, "SELECT count(*) FROM slices") == [(N_FRAMES,)]


def test_the_stack_under_way_is_shown(finished: Path) -> None:
    data = finished.parent / "data"
    with CatalogReader.read_only(data) as catalog:
        picture = LiveImages(data).live(catalog)
    assert picture is not None
    assert picture.n_slices == 14


def _acked(config: Path) -> int:
    try:
        return int(asked(config, "SELECT count(*) FROM slices")[0][0])
    except sqlite3.OperationalError:
        return 0  # it is being made


@pytest.mark.slow
def test_a_plate_with_a_flipped_pattern_goes_on_in_widefield_and_says_so(tmp_path: Path) -> None:
    config = raw_plate(tmp_path, faults=[{"kind": "flipped"}])
    assert run(config) == 0, config.with_suffix(".log").read_text()
    faults = dict(asked(config, "SELECT code, what FROM faults"))
    assert "write flip_y = true" in faults["sim-pattern"]
    assert "the plate goes on in widefield" in faults["sim-pattern"]
    ((status, trust, flags),) = asked(config, "SELECT status, trust, trust_flags FROM results")
    assert (status, trust in ("check", "fail")) == ("final", True)
    assert "sim-widefield" in flags
    checked = spheroidd("sim", "check", str(config.parent / "data"))
    assert checked.returncode == 1
    own = ngff.read_attributes(ngff.image_path(config.parent / "data", KEY))[ngff.OWN]
    assert own["computed"]["widefield_channels"] == ["488", "561"]


FRAME, PLACE = {"z": 3, "angle": 1, "phase": 2, "times": 1}, {"angle": 1, "phase": 2}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("camera", "pattern", "fault", "check", "flagged"),
    [
        ([{"kind": "drop", **FRAME}], [], ("stack-incomplete", "channel 488 z 3 angle 1 phase 2"), "", None),
        ([{"kind": "duplicate", **FRAME}], [], None, "488 in P1/A01/0: the pattern of 488 is known", False),
        ([], [{"kind": "brighter", "degrees": 10, **PLACE}], None, "angle 1 phase 2 has 10% more light", False),
        ([], [{"kind": "stuck", "phase": 2}], None, "angle 1: phases 1 and 2 are the same", False),
        ([], [{"kind": "order"}], ("sim-pattern", "do not lie in the order z-angle-phase"), "the same direction", True),
        ([], [{"kind": "dead", "channel": "561"}], ("sim-pattern", "561: angle 0"), "no stripes found", True),
    ],
    ids=["lost", "doubled", "brighter", "stuck", "order", "dead"],
)
def test_a_fault_of_frames_or_pattern_is_told_by_its_name(
    tmp_path: Path, camera: list, pattern: list, fault: tuple[str, str] | None, check: str, flagged: bool | None
) -> None:
    """What is told, and how the row is flagged; of a stack that lacks a frame there is none until it is taken again."""
    config = raw_plate(tmp_path, camera=tuple(camera), faults=pattern)
    assert run(config) == (1 if flagged is None else 0), config.with_suffix(".log").read_text()
    told = dict(asked(config, "SELECT code, what FROM faults"))
    if fault is None:
        assert told == {}
    else:
        assert fault[1] in told[fault[0]]
    rows = asked(config, "SELECT status, trust_flags FROM results")
    said = " ".join(spheroidd("sim", "check", str(config.parent / "data")).stdout.split())
    assert check in said
    if flagged is None:
        assert rows == []
        assert run(raw_plate(tmp_path)) == 0, config.with_suffix(".log").read_text()
        rows, flagged = asked(config, "SELECT status, trust_flags FROM results"), False
    assert rows == [("final", '["sim-widefield"]' if flagged else "[]")]
