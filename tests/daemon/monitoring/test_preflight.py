"""The preflight: each thing that would spoil a run is found, and said with what to do."""

import json
import shutil
import subprocess
import sys
import time
import types
from pathlib import Path
from typing import Any, Literal, NamedTuple

import psutil
import pytest
from pydantic import BaseModel
from rich.console import Console

from spheroidd.daemon.catalog.writer import Catalog, RunState
from spheroidd.daemon.config import source_registry as sources
from spheroidd.daemon.config.model import Config, build_config
from spheroidd.daemon.monitoring import preflight as doctor
from spheroidd.daemon.monitoring.preflight import Check, Verdict, preflight
from spheroidd.daemon.system.lock import acquire_lock
from spheroidd.inference.network.model_card import find_weights
from spheroidd.protocols.errors import InstrumentError, StorageError, TryLaterError
from spheroidd.protocols.events import SliceDurable
from spheroidd.protocols.plate import PlateMap, PlateWell, Treatment, WellRole
from spheroidd.protocols.stack import CHANNELS, StackKey, StackPlan
from spheroidd.protocols.well import WellId

KEY = StackKey("P1", WellId(0, 0))
PLAN = StackPlan(KEY, CHANNELS, 100, 1000, 1000, 0.1, 0.5)  # 400 MB
MAP = PlateMap("P1", (PlateWell(KEY.well, Treatment(WellRole.SAMPLE)),))


class ScopeSettings(BaseModel):
    kind: Literal["scope"] = "scope"
    answers: bool = True
    knows_its_plans: bool = True


class Scope:
    Settings = ScopeSettings
    plate_map = MAP

    def __init__(self, settings: ScopeSettings, *_: object) -> None:
        self.settings = settings

    def check(self) -> None:
        if not self.settings.answers:
            raise InstrumentError("nobody answers", where="10.0.0.7:8895", do="switch the microscope on")

    def plans(self) -> Any:
        return (PLAN,) if self.settings.knows_its_plans else iter((PLAN,))

    def close(self) -> None:
        pass


@pytest.fixture(autouse=True)
def scope(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("made_up_scope")
    module.Scope = Scope  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "made_up_scope", module)
    monkeypatch.setitem(sources._BUILT_IN, "scope", "made_up_scope:Scope")


def configured(folder: Path, **tables: dict[str, object]) -> Config:
    base: dict[str, Any] = {"source": {"kind": "scope"}, "data": {"dir": "data"}, "store": {"min_free_gb": 1.0}}
    return build_config(
        {name: {**base.get(name, {}), **tables.get(name, {})} for name in {*base, *tables}}, base=folder
    )


def check(config: Config, name: str) -> Check:
    return next(found for found in preflight(config) if found.name == name)


def free_bytes(monkeypatch: pytest.MonkeyPatch, free: float) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: types.SimpleNamespace(total=10**13, used=0, free=free))


def test_all_is_well_and_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free_bytes(monkeypatch, 1e12)
    monkeypatch.setattr(doctor, "SLOW_SYNC_MS", 1e9)
    checks = preflight(configured(tmp_path))
    assert {found.name: found.verdict for found in checks} == dict.fromkeys(
        [
            "lock",
            "data directory",
            "catalog",
            "file system",
            "fsync",
            "clock",
            "source",
            "disk space",
            "model",
            "regressor",
            "device",
            "precision",
        ],
        Verdict.PASS,
    )
    assert doctor.exit_code(checks) == 0
    doctor.require(checks)
    assert list(tmp_path.iterdir()) == []
    console = Console(width=200)
    with console.capture() as captured:
        console.print(doctor.to_screen(checks))
    assert "A run can start." in captured.get()
    assert len(json.loads(doctor.to_json(checks))) == 12


@pytest.mark.parametrize(
    ("free", "verdict"),
    [(2e9, Verdict.PASS), (1.5e9, Verdict.WARN), (1.2e9, Verdict.FAIL), (0.9e9, Verdict.FAIL)],
)
def test_the_whole_plate_must_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: float, verdict: Verdict
) -> None:
    """400 MB raw are at most 573 MB with pyramid and masks, and 1 GB stays free."""
    free_bytes(monkeypatch, free)
    found = check(configured(tmp_path), "disk space")
    assert found.verdict is verdict
    assert "0.6 GB at most are to come" in found.what
    assert bool(found.do) is (verdict is not Verdict.PASS)


def test_what_is_stored_already_needs_no_room_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free_bytes(monkeypatch, 1.1e9)
    config = configured(tmp_path)
    assert check(config, "disk space").verdict is Verdict.FAIL
    with Catalog.create_or_open(config.data.dir) as catalog:
        catalog.register_plate(MAP, "{}")
        catalog.expect(PLAN)
        with catalog.transaction():
            for index in PLAN.indices():
                catalog.acknowledge(SliceDurable(KEY, index, 1, 0.0), 1.0)
    assert check(config, "disk space").verdict is Verdict.PASS


@pytest.mark.parametrize(("free", "verdict"), [(2e9, Verdict.PASS), (0.5e9, Verdict.FAIL)])
def test_a_source_that_only_watches_cannot_say_how_much_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: float, verdict: Verdict
) -> None:
    free_bytes(monkeypatch, free)
    found = check(configured(tmp_path, source={"knows_its_plans": False}), "disk space")
    assert found.verdict is verdict
    assert "does not say" in found.what


def test_a_source_that_does_not_answer(tmp_path: Path) -> None:
    found = check(configured(tmp_path, source={"answers": False}), "source")
    assert (found.verdict, found.what) == (Verdict.FAIL, "10.0.0.7:8895: nobody answers")
    assert found.do == "switch the microscope on"


def test_another_daemon(tmp_path: Path) -> None:
    config = configured(tmp_path)
    with acquire_lock(config.data.dir):
        checks = preflight(config)
    assert next(found for found in checks if found.name == "lock").verdict is Verdict.FAIL
    assert "source" not in {found.name for found in checks}  # the instrument belongs to the other one now
    with pytest.raises(TryLaterError, match="another spheroidd"):
        doctor.require(checks)


def test_a_data_directory_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor.tempfile, "NamedTemporaryFile", refuse)
    checks = preflight(configured(tmp_path))
    assert next(found for found in checks if found.name == "data directory").verdict is Verdict.FAIL
    with pytest.raises(StorageError, match="Permission denied"):
        doctor.require(checks)


def test_a_damaged_catalog(tmp_path: Path) -> None:
    config = configured(tmp_path)
    config.data.dir.mkdir()
    (config.data.dir / "catalog.sqlite").write_bytes(b"scribble" * 1000)
    found = check(config, "catalog")
    assert found.verdict is Verdict.FAIL
    assert "no SQLite database" in found.what


class Partition(NamedTuple):
    mountpoint: str
    fstype: str
    opts: str


@pytest.mark.parametrize(
    ("fstype", "opts", "verdict"),
    [("ext4", "rw", "pass"), ("NTFS", "rw,fixed", "pass"), ("cifs", "rw", "warn"), ("NTFS", "rw,remote", "warn")],
)
def test_a_network_share_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fstype: str, opts: str, verdict: str
) -> None:
    partitions = [Partition("/" if tmp_path.drive == "" else tmp_path.anchor, "ext4", "rw")]
    partitions.append(Partition(str(tmp_path.resolve()), fstype, opts))
    monkeypatch.setattr(psutil, "disk_partitions", lambda all: partitions)
    assert check(configured(tmp_path), "file system").verdict == verdict


def test_a_slow_disk_is_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "SLOW_SYNC_MS", -1.0)
    assert check(configured(tmp_path), "fsync").verdict is Verdict.WARN


def test_a_clock_that_went_back_is_warned_of(tmp_path: Path) -> None:
    config = configured(tmp_path)
    with Catalog.create_or_open(config.data.dir) as catalog:
        catalog.set_run_state(RunState("0.1", 1, "stopped", 0.0, time.time() + 7200))
    found = check(config, "clock")
    assert found.verdict is Verdict.WARN
    assert "119 min in the future" in found.what or "120 min in the future" in found.what


def test_altered_weights_are_refused(tmp_path: Path) -> None:
    shipped = find_weights()
    weights = tmp_path / "mine.safetensors"
    weights.write_bytes(shipped.read_bytes()[:-1] + b"\x01")
    shutil.copy(shipped.with_suffix(".json"), weights.with_suffix(".json"))
    found = check(configured(tmp_path, inference={"model": "mine.safetensors"}), "model")
    assert found.verdict is Verdict.FAIL
    assert "their card says" in found.what
    weights.write_bytes(shipped.read_bytes())
    assert check(configured(tmp_path, inference={"model": "mine.safetensors"}), "model").verdict is Verdict.PASS


@pytest.mark.parametrize(("code", "verdict"), [(0, Verdict.PASS), (1, Verdict.FAIL)])
def test_a_gpu_is_asked_for_in_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, verdict: Verdict
) -> None:
    answer = subprocess.CompletedProcess([], code, "Tesla T4\n", "Traceback\nAssertionError: no CUDA\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: answer)
    found = check(configured(tmp_path, inference={"device": "cuda:0"}), "device")
    assert found.verdict is verdict
    assert ("Tesla T4" if code == 0 else "AssertionError: no CUDA") in found.what


def test_a_configuration_that_is_wrong_is_the_one_thing_said(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text("[source]\nkind = 'scope'\n[store]\nslab_z = 0\n", encoding="utf-8")
    [found] = doctor.examine(path)
    assert found.verdict is Verdict.FAIL
    assert f"{path}, line 4" in found.what
    path.write_text("[source]\nkind = 'scope'\n[plate]\nmap = 'nowhere.csv'\n", encoding="utf-8")
    [found] = doctor.examine(path)
    assert "cannot read the plate map" in found.what


def test_without_a_configuration_the_machine_is_looked_at() -> None:
    assert [found.name for found in doctor.examine(None)] == ["clock", "model", "regressor", "device", "precision"]
