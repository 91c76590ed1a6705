"""The scrub finds real damage while the daemon is idle, keeps to its share, gives way, and goes on where it was."""

import json
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from spheroidd.daemon.catalog.reader import CatalogReader
from spheroidd.daemon.catalog.rows import RunState
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.config.alarm_settings import AlarmsConfig
from spheroidd.daemon.config.verification_settings import VerificationConfig
from spheroidd.daemon.monitoring.monitor import RunMonitor
from spheroidd.daemon.monitoring.status import _lines, look, to_json
from spheroidd.daemon.service.client import DaemonClient
from spheroidd.daemon.service.status_remote import from_message
from spheroidd.daemon.verification.last_verified import last_verified
from spheroidd.daemon.verification.scrub import Scrub, pause_s
from spheroidd.daemon.verification.scrub_state import NAME, ScrubState
from spheroidd.daemon.verification.verifier import verify
from spheroidd.protocols import spheroidd_pb2 as wire
from spheroidd.protocols.faults import FaultCode
from spheroidd.protocols.stack import StackKey
from tests.daemon.verification import damage
from tests.daemon.verification.plates import PLATE, make_plate
from tests.faults.plate_runs import COMMAND, kill, spheroidd

EAGER = VerificationConfig(share=1.0, quiet_s=0.0)
A01 = StackKey.parse("P1/A01/0")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_plate(tmp_path_factory.mktemp("plate") / "data")


@pytest.fixture
def data(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "data"))


def pass_of(data: Path, settings: VerificationConfig | None = EAGER) -> Scrub:
    """A scrub that has done all that is due."""
    scrub = Scrub(data, settings)
    with CatalogReader.read_only(data) as catalog:
        for _ in scrub.steps(catalog):
            pass
    return scrub


def test_a_whole_plate_is_read_and_nothing_is_found(data: Path) -> None:
    scrub = pass_of(data)
    assert scrub.found == {}
    state = ScrubState.read(data)
    assert state is not None
    assert state.finished_s is not None
    assert (state.progress.share_done, state.progress.damaged) == (None, 0)
    with Catalog.create_or_open(data) as catalog:
        with catalog.transaction():
            scrub.record(catalog)
        scrub.recorded()
        scrub.record(catalog)  # nothing new
        verified = last_verified(catalog, PLATE)
        assert len(catalog.query("SELECT 1 FROM audit WHERE action = 'verified'")) == 1
    assert verified is not None
    assert (verified.by, verified.slices, verified.slices_now, verified.damage) == ("scrub", 72, 72, 0)


@pytest.mark.parametrize(
    ("befall", "kind"),
    [
        (damage.flipped_bit, "damaged-shard"),
        (damage.deleted_shard, "missing-shard"),
        (damage.rewritten_slice, "other-pixels"),
        (damage.swapped_wells, "swapped"),
        (damage.other_label, "label"),
        (damage.edited_ledger, "other-pixels"),
        (damage.changed_pyramid, "pyramid"),
        (damage.voxel_size_on_disk, "metadata"),
    ],
)
def test_damage_is_found_as_verify_finds_it(data: Path, befall, kind: str) -> None:
    befall(data)
    found = pass_of(data).found
    alarm = found[FaultCode.SCRUB_DAMAGE, A01]
    told = {finding.kind.value for finding in verify(data).findings}
    assert kind in alarm.what
    assert kind in told
    assert alarm.do


def test_a_restored_stack_ends_its_alarm_and_a_damaged_one_keeps_it_for_the_next_daemon(data: Path) -> None:
    shard = damage.shard(data)
    kept = shard.read_bytes()
    damage.flipped_bit(data)
    assert set(pass_of(data).found) == {(FaultCode.SCRUB_DAMAGE, A01)}
    later = Scrub(data, EAGER)  # the next daemon, before it has read anything
    assert set(later.found) == {(FaultCode.SCRUB_DAMAGE, A01)}
    assert set(Scrub(data, None).found) == set(later.found)
    assert Scrub(data, VerificationConfig(scrub=False)).found == {}
    shard.write_bytes(kept)
    assert pass_of(data).found == {}  # no pass is due for a week, but what was damaged is read again


def test_an_interrupted_pass_goes_on_and_a_changed_stack_is_read_again(data: Path) -> None:
    first = Scrub(data, EAGER)
    with CatalogReader.read_only(data) as catalog:
        steps, n_first = first.steps(catalog), 0
        while len(first._state.done) < 2:
            n_first += next(steps)
        first._save()
        state = ScrubState.read(data)
        assert state is not None
        assert state.progress.share_done == pytest.approx(2 / 3, abs=1e-3)
        n_rest = sum(Scrub(data, EAGER).steps(catalog))
        assert n_rest == pytest.approx(n_first / 2, abs=1)
        assert sum(Scrub(data, EAGER).steps(catalog)) == 0, "a pass is due in a week"
        again = VerificationConfig(share=1.0, quiet_s=0.0, every_h=0.0)
        assert sum(Scrub(data, again).steps(catalog)) == pytest.approx(n_first * 1.5, abs=2)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"done": 3}', b'{"damage": {"x": 1}}'])
def test_a_state_that_is_damaged_is_none(data: Path, content: bytes) -> None:
    (data / NAME).write_bytes(content)
    assert ScrubState.read(data) is None
    pass_of(data)
    assert ScrubState.read(data) is not None


@pytest.mark.parametrize(
    ("cpu_s", "wall_s", "rest_s"),
    [(0.05, 0.05, 0.95), (0.0, 0.1, 1.9), (0.2, 0.1, 3.9)],
    ids=["as much of both", "the disk alone", "more threads than one"],
)
def test_it_rests_so_that_it_takes_no_more_than_its_share(cpu_s: float, wall_s: float, rest_s: float) -> None:
    assert pause_s(cpu_s, wall_s, 0.05) == pytest.approx(rest_s)
    assert max(cpu_s, wall_s) / (wall_s + pause_s(cpu_s, wall_s, 0.05)) == pytest.approx(0.05)
    assert pause_s(wall_s, wall_s, 1.0) == 0.0


@pytest.mark.parametrize(
    ("state", "worker", "may"),
    [
        ("idle", "idle", True),
        ("running", "idle", True),
        ("running", "scoring P1/A01/0", False),
        ("running", "measuring limits of P1/A01/0", False),
        ("storage fails", "idle", False),
        ("starting", "starting", False),
        ("stopping", "idle", False),
    ],
)
def test_it_reads_only_where_nobody_else_does(data: Path, state: str, worker: str, may: bool) -> None:
    with Catalog.create_or_open(data) as catalog:
        catalog.set_run_state(RunState("1", 1, state, 0.0, 0.0, worker=worker))
        assert Scrub(data, EAGER).may_read(catalog) is may


def test_it_waits_for_as_long_as_slices_come(data: Path) -> None:
    scrub = Scrub(data, VerificationConfig(quiet_s=3600.0))
    with CatalogReader.read_only(data) as catalog:
        assert not scrub.may_read(catalog)
        scrub._busy_s -= 3601.0
        assert scrub.may_read(catalog)
        scrub.disk_needed()
        assert not scrub.may_read(catalog)


def test_the_monitor_raises_and_ends_the_alarm_and_enters_the_pass(data: Path) -> None:
    damage.flipped_bit(data)
    with Catalog.create_or_open(data) as catalog:
        catalog.set_run_state(RunState("1", 1, "idle", 0.0, time.time()))
        with RunMonitor(data, catalog, AlarmsConfig(), EAGER) as monitor:
            deadline = time.monotonic() + 60
            while not catalog.faults() or last_verified(catalog, PLATE) is None:
                assert time.monotonic() < deadline, "nothing was found"
                with catalog.transaction():
                    monitor.record(acquiring=False)
                monitor.after_heartbeat("idle")
                time.sleep(0.1)
        assert {(fault.code, fault.key) for fault in catalog.faults()} == {("scrub-damage", str(A01))}
        verified = last_verified(catalog, PLATE)
    assert verified is not None
    assert (verified.by, verified.damage) == ("scrub", 1)


def test_a_daemon_that_waits_for_plates_scrubs_and_its_status_says_so(data: Path, tmp_path: Path) -> None:
    damage.deleted_shard(data)
    config = tmp_path / "serve.toml"
    config.write_text("[service]\nhttp = false\n[verification]\nshare = 1.0\nquiet_s = 0.0\n")
    with (tmp_path / "log").open("w") as log:
        command = [*COMMAND, "serve", str(data), "--config", str(config)]
        process = subprocess.Popen(command, stdout=log, stderr=log, text=True)
    try:
        deadline = time.monotonic() + 90
        while not (alarms := json.loads(spheroidd("alarms", str(data), "--json").stdout)):
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.2)
        with DaemonClient.of(data) as client:
            asked = from_message(client.call(client.stub.GetStatus, wire.GetStatusRequest()), "")
        with CatalogReader.read_only(data) as catalog:
            seen = look(data, catalog)
        assert asked.scrub is not None
        assert seen.scrub is not None
        assert asked.scrub.damaged == seen.scrub.damaged == 1
        assert json.loads(to_json(seen))["scrub"]["damaged"] == 1
        assert "1 stacks damaged" in "".join(str(value) for _, value in _lines(seen))
    finally:
        kill(process)
    assert [(alarm["code"], alarm["key"]) for alarm in alarms] == [("scrub-damage", str(A01))]
