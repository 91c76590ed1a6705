"""What a killed daemon left is removed at the next start, and nothing else is."""

import json
import shutil
from pathlib import Path

import pytest

from spheroidd.acquisition.store import ngff
from spheroidd.acquisition.store.labels import read_label
from spheroidd.daemon.launch.sweep import sweep
from spheroidd.daemon.monitoring.event_log import logging_to
from spheroidd.protocols.stack import StackKey
from spheroidd.protocols.well import WellId
from tests.daemon.service.test_service_run import until
from tests.faults.plate_runs import kill, ledger, run, start, write_config

LEFT = (
    "service.json.0a1b2c3d.partial",
    "plans/P2/plate.toml.0a1b2c3d.partial",
    "P1.ome.zarr/zarr.json.12345.partial",
    "P1.ome.zarr/A/02/zarr.json.12345.partial",
    "P1.ome.zarr/A/02/0/labels/zarr.json.12345.partial",
    "P1.labels-in-work/A02-0-live-0a1b2c3d/zarr.json",
    "plans/.draft-x1/plate.toml",
    "P1.ring/ring-800.bin",
)
KEPT = (
    "report.partial",  # a person's own, by its name
    "notes.0a1b2c3d.partial.txt",
    "elsewhere/x.0a1b2c3d.partial",
    "P1.labels-in-work/mine/zarr.json",
    "P9.ring/ring-800.bin",  # its plate is not here: nobody knows
)


@pytest.fixture
def data(tmp_path: Path, undisturbed: Path) -> Path:
    """A finished plate."""
    shutil.copytree(undisturbed.parent / "data", tmp_path / "data")
    return tmp_path / "data"


def put(data: Path, *names: str) -> None:
    for name in names:
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_text("left", encoding="utf-8")


def test_only_what_is_ours_is_swept_and_the_log_says_so(data: Path) -> None:
    put(data, *LEFT, *KEPT)
    (data / "link.0a1b2c3d.partial").symlink_to(data / "catalog.sqlite")
    before = {path.relative_to(data).as_posix() for path in (data / "P1.ome.zarr").rglob("*")}
    with logging_to(data):
        removed = sweep(data)
    assert [name for name in LEFT if (data / name).exists()] == []
    assert [name for name in KEPT if not (data / name).exists()] == []
    assert (data / "link.0a1b2c3d.partial").is_symlink()
    after = {path.relative_to(data).as_posix() for path in (data / "P1.ome.zarr").rglob("*")}
    assert before - after == {name for name in LEFT if name.startswith("P1.ome.zarr")}
    lines = [json.loads(line) for line in (data / "logs" / "spheroidd.jsonl").read_text().splitlines()]
    assert [line["count"] for line in lines if line["event"] == "leftovers-removed"] == [len(removed)]
    assert sweep(data) == []


def test_a_ring_is_kept_as_long_as_a_stack_is_not_sealed(data: Path) -> None:
    put(data, "P1.ring/ring-800.bin")
    node = data / "P1.ome.zarr" / "A" / "02" / "0" / "zarr.json"
    node.write_text(node.read_text().replace('"sealed": true', '"sealed": false'))
    sweep(data)
    assert (data / "P1.ring" / "ring-800.bin").exists()


def test_a_mask_that_was_being_replaced_is_put_back(data: Path) -> None:
    key = StackKey("P1", WellId.parse("A02"))
    mask = read_label(data, key, "live")
    scratch = data / "P1.labels-in-work"
    scratch.mkdir(exist_ok=True)
    ngff.label_path(data, key, "live").rename(scratch / "A02-0-live-older")  # the kill comes between the two renames
    sweep(data)
    assert (read_label(data, key, "live") == mask).all()
    assert not scratch.exists()


def test_nothing_is_left_of_a_killed_run_once_another_has_ended(tmp_path: Path) -> None:
    config = write_config(tmp_path, source={"pace": "real", "slice_period_s": 0.02})
    process = start(config)
    until(lambda: process.poll() is not None or len(ledger(config).slices) > 20, "slices arrive")
    assert process.poll() is None
    kill(process)
    put(tmp_path / "data", *(name for name in LEFT if "ring" not in name))
    assert run(config) == 0, config.with_suffix(".log").read_text()
    names = [path.name for path in (tmp_path / "data").rglob("*")]
    assert [name for name in names if name.endswith((".partial", ".ring", ".labels-in-work", ".ring"))] == []
    assert [name for name in names if name.startswith(".draft-")] == []
