"""Three plates queue up for a daemon of its own process: reordered, held, run one after the other, told of, kept."""

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from spheroidd.daemon.catalog.plate_queue import queued_plates
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.protocols import spheroidd_pb2 as wire
from spheroidd.protocols.errors import RefusedError
from tests.daemon.monitoring.alarm_rig import hook
from tests.daemon.service.test_service_run import EMULATED, serving, state, until
from tests.faults.plate_runs import kill, spheroidd

FAST = EMULATED.replace('pace = "real"\nslice_period_s = 0.2', 'pace = "fast"').replace("doses = 2", "doses = 1")
MAP = "well,role,compound,dose_um\nA01,negative_control,,\nA02,positive_control,,\n"


def states(folder: Path) -> list[tuple[str, str, bool]]:
    with Catalog.read_only(folder / "data") as catalog:
        return [(one.plate, one.state, one.held) for one in queued_plates(catalog)]


def test_a_day_with_three_plates(tmp_path: Path) -> None:
    with hook() as receiver:
        settings = tmp_path / "daemon.toml"
        zone = '[service]\nhttp = false\ntime_zone = "Asia/Tokyo"\n'
        settings.write_text(f'{zone}[alarms.webhook]\nurl = "{receiver.url}"\n')
        with serving(tmp_path, "--config", str(settings)) as (process, client):
            for name in ("P1", "P2", "P3"):
                given = wire.SubmitPlateRequest(config_toml=FAST.replace("P1", name))
                client.call(client.stub.SubmitPlate, given)
            data = str(tmp_path / "data")
            assert spheroidd("queue", "move", "P3,P1", data).stdout.startswith("P3, P1 will be run next")
            assert spheroidd("queue", "hold", "P2", data).returncode == 0
            assert states(tmp_path) == [("P3", "waiting", False), ("P1", "waiting", False), ("P2", "waiting", True)]
            with pytest.raises(RefusedError, match="no plate is being run"):
                client.call(client.stub.GoOn, wire.GoOnRequest())
            started = client.call(client.stub.StartQueue, wire.StartQueueRequest())
            assert started.done == "plate P3 starts; the queue goes on after it"
            until(lambda: [one[1] for one in states(tmp_path)].count("finished") == 2, "two plates are finished")
            queue = lambda: client.call(client.stub.ListQueue, wire.ListQueueRequest())  # noqa: E731
            until(lambda: not queue().goes_on, "the daemon waits")
            assert queue().why == "no plate waits that is not held"
            finished = lambda: [body for _, body, _, _ in receiver.seen if body["event"] == "finished"]  # noqa: E731
            until(lambda: len(finished()) == 2, "both are told")
            told: list[dict[str, Any]] = finished()
            assert [body["plate"] for body in told] == ["P3", "P1"]
            assert all(body["text"].startswith(f"spheroidd finished: plate {body['plate']}: 4 of 4") for body in told)
            assert all("Asia/Tokyo" in body["what"] and "quality" in body["what"] for body in told)
            assert {one.verdict for one in queue().plates if one.state == "finished"} == {b["what"] for b in told}
            kill(process)
        with serving(tmp_path) as (_, client):
            assert states(tmp_path)[0] == ("P2", "waiting", True)
            assert client.call(client.stub.GetSubmission, wire.GetSubmissionRequest(plate="P2")).config_toml
            client.call(client.stub.RemovePlate, wire.RemovePlateRequest(plate="P2"))
            assert {name for name, _, _ in states(tmp_path)} == {"P1", "P3"}
            shown = spheroidd("queue", "show", str(tmp_path / "data")).stdout
            assert "finished" in shown
            assert "No plate starts by itself." in shown


def test_a_table_hands_in_a_plate_a_row(tmp_path: Path) -> None:
    config, table = tmp_path / "day.toml", tmp_path / "plates.csv"
    config.write_text(
        "[plate]\nname = 'any'\n[plate.roles]\n'DMSO ctrl' = 'negative_control'\n[source]\nkind = 'push'\n"
    )
    table.write_text("name,map\nP1,one.csv\nP2,two.csv\n")
    (tmp_path / "one.csv").write_text(MAP)
    (tmp_path / "bad.csv").write_text(MAP + "A03,chief,,\nZZ9,sample,,\n")
    (tmp_path / "two.csv").write_text(MAP.replace("negative_control", "DMSO ctrl"))
    with serving(tmp_path):
        done = spheroidd("submit", str(config), str(tmp_path / "data"), "--plates", str(table))
        assert done.stdout.splitlines() == [f"plate {name} is submitted, 2 wells to image" for name in ("P1", "P2")]
        assert states(tmp_path) == [("P1", "waiting", False), ("P2", "waiting", False)]
        for text, where in (
            ("name,map\nP3,none.csv\n", "none.csv"),
            ("name,map\nP3,one.csv\nP3,one.csv\n", "line 3"),
            ("plate,map\nP3,one.csv\n", "plates.csv"),
            ("name,map\n", "plates.csv"),
            ("Name;Map\nP3;bad.csv\nP4;none.csv\n", "2 plates cannot be handed in"),
            ("Name;Map\nP3;bad.csv\nP4;one.csv\n", "2 things are wrong in it"),
        ):
            table.write_text(text)
            refused = spheroidd("submit", str(config), str(tmp_path / "data"), "--plates", str(table))
            assert refused.returncode == 2
            assert where in refused.stderr
        config.write_text(config.read_text() + "[inference]\nmodel = '/etc/passwd'\n")
        table.write_text("name,map\nP3,one.csv\nP4,one.csv\n")
        refused = spheroidd("submit", str(config), str(tmp_path / "data"), "--plates", str(table))
        assert refused.returncode == 2
        assert "inference.model: there are no such weights" in refused.stderr
        assert len(states(tmp_path)) == 2


def test_an_aborted_plate_ends_the_queue(tmp_path: Path) -> None:
    slow = EMULATED.replace("doses = 2", "doses = 1")
    with serving(tmp_path) as (_, client), closing(Catalog.read_only(tmp_path / "data")):
        for name in ("P1", "P2"):
            client.call(client.stub.SubmitPlate, wire.SubmitPlateRequest(config_toml=slow.replace("P1", name)))
        client.call(client.stub.StartQueue, wire.StartQueueRequest())
        until(lambda: state(client) == "running", "the first plate is imaged")
        client.call(client.stub.AbortPlate, wire.AbortPlateRequest(reason="spilt"))
        until(lambda: state(client) == "idle", "it has ended")
        queue = client.call(client.stub.ListQueue, wire.ListQueueRequest())
        assert [(one.plate, one.state) for one in queue.plates] == [("P2", "waiting"), ("P1", "finished")]
        assert (queue.goes_on, queue.why) == (False, "plate P1 was aborted")
        assert "aborted" in queue.plates[1].verdict
