"""Daemons in processes of their own, driven from outside as an operator and an instrument's program would."""

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Set
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import google_crc32c
import grpc
import numpy as np
import pytest

from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.service.client import DaemonClient
from spheroidd.daemon.service.push_client import push_stack
from spheroidd.daemon.system.address_files import ADDRESS_NAME
from spheroidd.protocols import spheroidd_pb2 as wire
from spheroidd.protocols.errors import RefusedError, SpheroiddError
from spheroidd.protocols.sim_pattern import ChannelOptics, SimPattern
from spheroidd.protocols.stack import Frame, SliceIndex, StackKey, StackPlan
from spheroidd.protocols.well import WellId
from tests import warm_start
from tests.faults import plate_runs
from tests.faults.plate_runs import kill, ledger, spheroidd, start, unreadable, write_config
from tests.warm_start import Process

PATIENCE_S = 120.0
OF_WELL = 2 * plate_runs.N_Z  # slices of the emulated plate
CHANNELS = ("488", "561")
N_Z = 12
HEIGHT = WIDTH = 96
PUSHED = """[plate]
name = "P1"
[store]
min_free_gb = 0.0
[source]
kind = "push"
patience_s = 1.0
[inference]
model = "threshold"
threads = 1
normalisation = "stack"
"""
MAP = "well,role,compound,dose_um\nA01,negative_control,,\nA02,sample,drug,1.0\n"


def until(found: Callable[[], object], what: str) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not found():
        assert time.monotonic() < deadline_s, f"waited in vain until {what}"
        time.sleep(0.05)


@contextmanager
def serving(folder: Path, *options: str) -> Iterator[tuple[Process, DaemonClient]]:
    """`spheroidd serve` on `folder/data`."""
    data = folder / "data"
    data.mkdir(exist_ok=True)
    (data / ADDRESS_NAME).unlink(missing_ok=True)
    with (folder / "serve.log").open("ab") as log:
        process = warm_start.start(("serve", str(data), *options), stdout=log, stderr=log)
    try:
        until((data / ADDRESS_NAME).exists, (folder / "serve.log").read_text)  # type: ignore[arg-type]
        with DaemonClient.of(data) as client:
            yield process, client
    finally:
        kill(process)


def pixels(well: str, channel: str, z: int) -> bytes:
    seed = [ord(letter) for letter in well + channel] + [z]
    return np.random.default_rng(seed).integers(90, 900, (HEIGHT, WIDTH)).astype("<u2").tobytes()


class Instrument:
    """A program that pushes one stack and keeps what was acknowledged."""

    def __init__(self, client: DaemonClient, well: str, pause_s: float = 0.0, n_z: int = N_Z) -> None:
        self.well, self._pause_s, self._n_z = well, pause_s, n_z
        self.acknowledged: dict[tuple[str, int], int] = {}
        self.missing: list[tuple[str, int]] = []
        self.end: wire.PushEnd | None = None
        self._opened = threading.Event()
        self._call = client.stub.PushSlices(self._messages(), timeout=PATIENCE_S)

    def _messages(self) -> Iterator[wire.PushSlicesRequest]:
        plan = wire.PushPlan(
            plate="P1",
            well=self.well,
            stack=0,
            channels=CHANNELS,
            n_z=self._n_z,
            height=HEIGHT,
            width=WIDTH,
            pixel_um=1.0,
            z_step_um=2.0,
        )
        yield wire.PushSlicesRequest(open=plan)
        self._opened.wait(PATIENCE_S)
        for channel, z in self.missing:
            time.sleep(self._pause_s)
            image = pixels(self.well, channel, z)
            given = wire.PushedSlice(channel=channel, z=z, pixels=image, crc32c=google_crc32c.value(image))
            yield wire.PushSlicesRequest(slice=given)

    def push(self) -> None:
        """Push what the daemon lacks, to the end of the call."""
        for answer in self._call:
            if answer.HasField("opened"):
                self.missing = sorted(
                    ((c.channel, z) for c in answer.opened.channels for z in c.missing), key=lambda i: i[::-1]
                )
                self._opened.set()
            for each in answer.acknowledged.slices:
                self.acknowledged[each.channel, each.z] = each.crc32c
            if answer.HasField("end"):
                self.end = answer.end


def submit(client: DaemonClient, plate_map: str = MAP) -> None:
    client.call(client.stub.SubmitPlate, wire.SubmitPlateRequest(config_toml=PUSHED, plate_map_csv=plate_map))
    start_plate(client)


def start_plate(client: DaemonClient) -> None:
    client.call(client.stub.StartPlate, wire.StartPlateRequest(plate="P1"), PATIENCE_S)
    until(lambda: state(client) == "running", "the plate runs")


def state(client: DaemonClient) -> str:
    return client.call(client.stub.GetStatus, wire.GetStatusRequest()).state


def push_in_parts(client: DaemonClient, well: str) -> None:
    """With the ready client: a program that fails after five slices, comes again, and once more when all is there."""
    plan = StackPlan(StackKey("P1", WellId.parse(well)), CHANNELS, N_Z, HEIGHT, WIDTH, 1.0, 2.0)
    asked: list[int] = []

    def frames(wanted: Set[SliceIndex], stop: int = N_Z * 2) -> Iterator[Frame]:
        asked.append(len(wanted))
        for n, index in enumerate(sorted(wanted, key=lambda index: index.z)):
            if n == stop:
                raise TimeoutError("the camera hangs")
            image = np.frombuffer(pixels(well, index.channel, index.z), "<u2").reshape(HEIGHT, WIDTH)
            yield Frame(plan.key, index, image, 5.0)

    durable: list[SliceIndex] = []
    with pytest.raises(TimeoutError, match="the camera hangs"):
        durable.extend(push_stack(client, plan, lambda wanted: frames(wanted, stop=5), PATIENCE_S))
    assert asked == [N_Z * 2]
    with pytest.raises(SpheroiddError, match="another geometry"):
        list(push_stack(client, replace(plan, n_z=N_Z + 1), frames, PATIENCE_S))
    second = list(push_stack(client, plan, frames, PATIENCE_S))
    assert sorted(second) == sorted(plan.indices())
    assert set(second[: len(durable)]) == set(durable)
    assert asked[1:] == [N_Z * 2 - 5]


def push_raw(client: DaemonClient, well: str) -> None:
    """Raw frames of noise in both colours: they hold no pattern, and become widefield."""
    optics = ChannelOptics("488", 515.0, 0.3), ChannelOptics("561", 617.0, 0.3)
    raw = SimPattern(1, 3, optics=optics)
    plan = StackPlan(StackKey("P1", WellId.parse(well)), CHANNELS, 2, HEIGHT, WIDTH, 0.25, 2.0, raw=raw)

    def frames(wanted: Set[SliceIndex]) -> Iterator[Frame]:
        for index in sorted(wanted):
            rng = np.random.default_rng(plan.plane_of(index))
            yield Frame(plan.key, index, rng.integers(90, 900, plan.frame_shape).astype(np.uint16), 5.0)

    assert sorted(push_stack(client, plan, frames, PATIENCE_S)) == sorted(plan.indices())


def test_pushed_slices_survive_a_kill_and_the_rest_follows(tmp_path: Path) -> None:
    """What was acknowledged before the kill is in the ledger; afterwards the program is told what is missing."""
    config = tmp_path / "plate.toml"  # where `ledger` and `unreadable` look for the data
    with serving(tmp_path) as (process, client):
        submit(client, MAP + "A03,sample,drug,2.0\n")
        first = Instrument(client, "A01", pause_s=0.02)
        pushing = threading.Thread(target=lambda: _broken(first))
        pushing.start()
        until(lambda: len(first.acknowledged) >= 7, "some slices are acknowledged")
        process.kill()
        pushing.join()
    kept = ledger(config).slices
    assert {("A01", 0, *index): crc for index, crc in first.acknowledged.items()}.items() <= kept.items()
    assert len(kept) < N_Z * 2

    with serving(tmp_path) as (_, client):
        start_plate(client)
        for well, n_z, words in (("A01", N_Z + 1, "another geometry"), ("B05", N_Z, "no well B05")):
            with pytest.raises(grpc.RpcError, match=words):  # and the run goes on
                Instrument(client, well, n_z=n_z).push()
        second = Instrument(client, "A01")
        second.push()
        # One may be durable whose row was not written yet: that is taken up, and not asked for again.
        assert not {("A01", 0, *index) for index in second.missing} & kept.keys()
        assert set(second.acknowledged) == set(second.missing)
        assert second.end is not None
        assert (second.end.status, second.end.n_acknowledged) == ("stored", N_Z * 2)
        again = Instrument(client, "A01")
        again.push()
        assert again.missing == []
        push_in_parts(client, "A02")
        push_raw(client, "A03")
        until(lambda: state(client) == "idle", "the plate is scored")
        rows = client.call(client.stub.ListResults, wire.ListResultsRequest(plate="P1")).results
        assert {row.well: row.status for row in rows} == {"A01": "final", "A02": "final", "A03": "final"}
        client.call(client.stub.StopDaemon, wire.StopDaemonRequest())
    found = ledger(config).slices
    assert sum(key[0] == "A03" for key in found) == 2 * 2 * 3
    found = {key: crc for key, crc in found.items() if key[0] != "A03"}
    expected = {
        (well, 0, channel, z): google_crc32c.value(pixels(well, channel, z))
        for well in ("A01", "A02")
        for channel in CHANNELS
        for z in range(N_Z)
    }
    assert found == expected
    assert unreadable(config, found) == []


def _broken(instrument: Instrument) -> None:
    with suppress(grpc.RpcError):
        instrument.push()


def acquired(config: Path, well: str) -> int:
    path = config.parent / "data" / "catalog.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("SELECT count(*) FROM slices WHERE well = ?", (well,)).fetchone()[0])


def at_rest(config: Path, well: str) -> int:
    """How many slices of a well are there once none is on its way any more."""
    last = -1
    while (now := acquired(config, well)) != last:
        last = now
        time.sleep(0.5)
    return now


@pytest.fixture
def plate(tmp_path: Path) -> Iterator[tuple[Path, Process]]:
    """A plate that is run at a slow pace, in the middle of its first well."""
    config = write_config(tmp_path, source={"pace": "real", "slice_period_s": 0.3})
    process = start(config)
    try:
        data = config.parent / "data"
        until(lambda: (data / ADDRESS_NAME).exists() or process.poll() is not None, "it serves")
        until(lambda: acquired(config, "A01") > 2, "slices arrive")
        yield config, process
    finally:
        kill(process)


def test_a_plate_is_driven_from_the_command_line(plate: tuple[Path, Process]) -> None:
    config, process = plate
    data = str(config.parent / "data")

    def order(*words: str) -> str:
        done = spheroidd(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    with DaemonClient.of(config.parent / "data") as client:
        client.call(client.stub.PausePlate, wire.PausePlateRequest())  # the well would be whole before a command starts
        until(lambda: state(client) == "paused", "it is paused")
        order("pause", data)
        before = at_rest(config, "A01")
        assert "A03 is skipped" in order("skip", "A03", data, "--reason", "fell off")
        with pytest.raises(RefusedError, match="still to be imaged"):
            client.call(client.stub.RepeatWell, wire.RepeatWellRequest(well="A01"))
        assert acquired(config, "A01") == before < OF_WELL
        order("resume", data)
        until(lambda: ledger(config).states["A01"][0] not in ("queued", "acquiring"), "the first well is whole")
        assert acquired(config, "A01") == OF_WELL
        repeated = client.call(client.stub.RepeatWell, wire.RepeatWellRequest(well="A01"))
        assert "stack 1" in repeated.done
        after_well = wire.PausePlateRequest(when=wire.PAUSE_WHEN_AFTER_WELL)
        client.call(client.stub.PausePlate, after_well)
        until(lambda: state(client) == "paused", "the well under way is whole")
        assert acquired(config, "A01") % OF_WELL == acquired(config, "A02") % OF_WELL == 0
        client.call(client.stub.AbortPlate, wire.AbortPlateRequest(reason="spilt"))
    assert process.wait(PATIENCE_S) == 1
    with Catalog.read_only(config.parent / "data") as catalog:
        trail = catalog.query("SELECT who, well, reason, new_json FROM audit WHERE action = 'ordered' ORDER BY seq")
    ordered = [(event["who"], event["well"], json.loads(event["new_json"])["order"]) for event in trail]
    names = ("Pause", "Pause", "SkipWell", "Resume", "RepeatWell", "Pause", "Abort")
    assert ordered == [("local", {"SkipWell": "A03", "RepeatWell": "A01"}.get(name), name) for name in names]
    found = ledger(config)
    assert (found.ends["A03"], found.ends["B02"]) == ("skipped", "aborted")
    assert "by local: fell off" in str(found.states["A03"][1])
    assert "by local: spilt" in str(found.states["B02"][1])
    assert unreadable(config, found.slices) == []
    assert "no daemon runs here" in spheroidd("pause", data).stderr


EMULATED = """[plate]
name = "P1"
[store]
min_free_gb = 0.0
[source]
kind = "emulator"
preset = "unit"
pace = "real"
slice_period_s = 0.2
compounds = 1
doses = 2
negative_controls = 2
positive_controls = 1
[inference]
model = "threshold"
threads = 1
"""


def submit_emulated(client: DaemonClient) -> str:
    """Submit it and start it; what the start was answered with."""
    client.call(client.stub.SubmitPlate, wire.SubmitPlateRequest(config_toml=EMULATED))
    done: str = client.call(client.stub.StartPlate, wire.StartPlateRequest(plate="P1"), PATIENCE_S).done
    return done


def test_the_first_plate_of_a_daemon_that_waits_begins_at_a_well(tmp_path: Path) -> None:
    config = tmp_path / "plate.toml"
    with serving(tmp_path, "--from-well", "B01") as (_, client):
        assert submit_emulated(client) == "plate P1 starts at well B01"
        until(lambda: acquired(config, "B01") > 2, "slices of the well it begins at arrive")
        assert [acquired(config, well) for well in ("A01", "A02", "A03")] == [0, 0, 0]


def test_a_plate_without_the_well_it_is_to_begin_at_is_refused_and_then_begins_as_planned(tmp_path: Path) -> None:
    config = tmp_path / "plate.toml"
    assert "well" in spheroidd("serve", str(tmp_path / "data"), "--from-well", "well 3").stderr
    with serving(tmp_path, "--from-well", "H12") as (_, client):
        submit_emulated(client)
        faults = lambda: client.call(client.stub.GetStatus, wire.GetStatusRequest()).faults  # noqa: E731
        until(faults, "it is refused")
        (fault,) = [fault for fault in faults() if "H12" in fault.what]
        assert (fault.where, "name a well of the plate map" in fault.do) == ("--from-well", True)
        until(lambda: state(client) == "idle", "it waits again")
        again = client.call(client.stub.StartPlate, wire.StartPlateRequest(plate="P1"), PATIENCE_S)
        assert again.done == "plate P1 starts"
        until(lambda: acquired(config, "A01") > 0, "slices of the first well arrive")
