"""The service beside a catalog: what it shows, what it takes, and whom it refuses."""

import json
import math
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from google.protobuf import descriptor_pb2, json_format
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from typer.testing import CliRunner

from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.cli import console as cli
from spheroidd.daemon.pipeline import orders
from spheroidd.daemon.service.authorization import least_roles, needed_role
from spheroidd.daemon.service.messages import last_change
from spheroidd.daemon.service.server import Service
from spheroidd.daemon.service.status_remote import from_message
from spheroidd.daemon.service.tokens import Role, TokenFile
from spheroidd.daemon.service.viewers import Viewers
from spheroidd.protocols import spheroidd_pb2 as wire
from spheroidd.protocols.errors import ConfigError, StorageError
from spheroidd.protocols.spheroidd_pb2_grpc import SpheroiddStub
from spheroidd.protocols.stack import StackKey
from spheroidd.protocols.stack_end import Ending, StackEnd
from spheroidd.protocols.well import WellId
from tests.daemon.service.rig import MODEL, PLAN, Main, beat, fill, many_changes, refusal, running

CALL_S = 20.0
METHODS = [method.name for method in wire.DESCRIPTOR.services_by_name["Spheroidd"].methods]


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    fill(tmp_path)
    return tmp_path


@pytest.fixture
def served(data_dir: Path) -> Iterator[tuple[Service, Main]]:
    with running(data_dir) as both:
        yield both


@pytest.fixture
def main(served: tuple[Service, Main]) -> Main:
    return served[1]


@pytest.fixture
def channel(served: tuple[Service, Main]) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(f"127.0.0.1:{served[0].port}") as channel:
        yield channel


@pytest.fixture
def stub(channel: grpc.Channel) -> SpheroiddStub:
    return SpheroiddStub(channel)


def refused(call: object, request: object, **options: object) -> tuple[grpc.StatusCode, object]:
    with pytest.raises(grpc.RpcError) as caught:
        call(request, timeout=CALL_S, **options)  # type: ignore[operator]
    return refusal(caught.value)


# -- looking


def test_the_status_is_that_of_the_catalog(stub: SpheroiddStub, data_dir: Path) -> None:
    found = stub.GetStatus(wire.GetStatusRequest(), timeout=CALL_S)
    assert (found.state, found.plate, dict(found.wells)) == ("running", "P1", {"queued": 1, "provisional": 1})
    assert found.HasField("slices_done")
    assert found.slices_done == 0
    assert found.data_dir == str(data_dir)
    assert found.sequence >= 1


def test_a_well_that_a_person_skipped_is_told_as_left_out_and_not_as_failed(
    channel: grpc.Channel, data_dir: Path
) -> None:
    with Catalog.create_or_open(data_dir) as catalog:
        key = StackKey("P1", WellId(0, 1))
        catalog.expect(replace(PLAN, key=key))
        catalog.end_stack(key, Ending(StackEnd.SKIPPED, "mould"))
        beat(catalog, 8)
    told = SpheroiddStub(channel).WatchStatus(wire.WatchStatusRequest(), timeout=CALL_S)
    found = next(one for one in told if one.slices_done == 8)
    assert [(one.well, one.status, one.reason) for one in found.left_out] == [("A02", "skipped", "mould")]
    assert list(found.failed) == []
    again = from_message(found, "here")
    assert [(one.well, one.status) for one in again.left_out] == [("A02", "skipped")]
    assert (again.failed, again.exit_code) == ((), 0)


def test_a_watcher_that_comes_back_gets_only_what_is_newer(stub: SpheroiddStub, data_dir: Path) -> None:
    first = next(iter(stub.WatchStatus(wire.WatchStatusRequest(), timeout=CALL_S)))
    again = wire.WatchStatusRequest(instance=first.instance, after_sequence=first.sequence)
    stream = stub.WatchStatus(again, timeout=CALL_S)
    with Catalog.create_or_open(data_dir) as catalog:
        beat(catalog, 7)
    newer = next(iter(stream))
    assert newer.sequence > first.sequence
    assert newer.instance == first.instance
    other = wire.WatchStatusRequest(instance="of yesterday", after_sequence=10**6)
    assert next(iter(stub.WatchStatus(other, timeout=CALL_S))).sequence >= newer.sequence


def test_a_row_that_changes_is_told_before_main_shows_its_next_sign_of_life(
    stub: SpheroiddStub, data_dir: Path
) -> None:
    first = next(iter(stub.WatchStatus(wire.WatchStatusRequest(), timeout=CALL_S)))
    many_changes(data_dir, 1)
    again = wire.WatchStatusRequest(instance=first.instance, after_sequence=first.sequence)
    newer = next(one for one in stub.WatchStatus(again, timeout=CALL_S) if one.changes != first.changes)
    with Catalog.read_only(data_dir) as catalog:
        assert newer.changes == last_change(catalog) > first.changes
    assert newer.heartbeat_s == first.heartbeat_s


def test_a_viability_of_zero_is_told_and_an_unknown_one_is_not(stub: SpheroiddStub) -> None:
    scored, waiting = stub.ListResults(wire.ListResultsRequest(plate="P1"), timeout=CALL_S).results
    assert json_format.MessageToDict(scored)["vCount"] == 0.0
    assert scored.model_sha256 == MODEL
    assert json_format.MessageToDict(waiting) == {
        "plate": "P1",
        "well": "A02",
        "stack": 0,
        "status": "queued",
        "reason": "not imaged yet",
        "nSlicesExpected": 0,
        "nSlicesAcked": 0,
        "role": "sample",
        "compound": "drug",
        "doseUm": 0.0,
        "excluded": False,
    }


def test_every_change_of_a_result_comes_once_and_in_order(stub: SpheroiddStub, data_dir: Path) -> None:
    stream = stub.WatchResults(wire.WatchResultsRequest(after_sequence=0), timeout=CALL_S)
    first, second = next(stream), next(stream)
    assert [change.result.n_dead for change in (first, second)] == [4, 5]
    many_changes(data_dir, 3)
    assert [next(stream).sequence for _ in range(3)] == [3, 4, 5]
    again = stub.WatchResults(wire.WatchResultsRequest(after_sequence=first.sequence), timeout=CALL_S)
    assert next(again) == second


def test_models_and_plates(stub: SpheroiddStub) -> None:
    models = stub.ListModels(wire.ListModelsRequest(), timeout=CALL_S).models
    assert models[0].name == "emulator"
    assert [model.n_results for model in models if model.sha256 == MODEL] == [1]
    (plate,) = stub.ListPlates(wire.ListPlatesRequest(), timeout=CALL_S).plates
    assert (plate.name, plate.submitted, plate.running) == ("P1", False, True)


def test_an_unknown_plate_is_refused_with_what_to_do(stub: SpheroiddStub) -> None:
    code, info = refused(stub.ListResults, wire.ListResultsRequest(plate="P9"))
    assert (code, info.reason, info.domain) == (grpc.StatusCode.INVALID_ARGUMENT, "CONFIG_ERROR", "spheroidd")
    assert "P9" in info.metadata["what"]
    assert info.metadata["do"]


# -- ordering

ORDERS = [
    ("PausePlate", {}, orders.Pause(who="local")),
    ("PausePlate", {"when": wire.PAUSE_WHEN_AFTER_WELL}, orders.Pause(who="local", after_well=True)),
    ("ResumePlate", {"plate": "P1"}, orders.Resume(who="local", plate="P1")),
    ("AbortPlate", {"reason": "spilt"}, orders.Abort(who="local", reason="spilt")),
    ("SkipWell", {"well": "b3"}, orders.SkipWell(who="local", well=WellId(1, 2))),
    ("RepeatWell", {"well": "A01"}, orders.RepeatWell(who="local", well=WellId(0, 0))),
    ("ReorderWells", {"wells": ["b3", "A1"]}, orders.ReorderWells(who="local", wells=(WellId(1, 2), WellId(0, 0)))),
    ("Rescore", {"plate": "P1", "model": "emulator"}, orders.Rescore(who="local", plate="P1", model="emulator")),
    ("StartPlate", {"plate": "P1"}, orders.StartPlate(who="local", plate="P1")),
    ("FinishPush", {}, orders.FinishPush(who="local")),
    ("StopDaemon", {}, orders.Stop(who="local")),
]


@pytest.mark.parametrize(("method", "fields", "order"), ORDERS, ids=[type(o).__name__ for *_, o in ORDERS])
def test_an_order_reaches_main_and_is_answered(
    stub: SpheroiddStub, main: Main, method: str, fields: dict[str, object], order: orders.Order
) -> None:
    answer = getattr(stub, method)(getattr(wire, f"{method}Request")(**fields), timeout=CALL_S)
    assert (answer.done, answer.state) == ("it is done", "paused")
    assert main.orders == [order]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (orders.RefusedError("it is too late", do="start again"), grpc.StatusCode.FAILED_PRECONDITION),
        (StorageError("no room", where="/data", do="make room"), grpc.StatusCode.RESOURCE_EXHAUSTED),
        (ConfigError("ä 50 µm", do="write ß"), grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
def test_what_main_refuses_is_told_in_full(
    stub: SpheroiddStub, main: Main, error: ConfigError, code: grpc.StatusCode
) -> None:
    main.refusal = error
    found, info = refused(stub.PausePlate, wire.PausePlateRequest())
    assert found is code
    assert [info.metadata[name] for name in ("what", "where", "do")] == [error.what, error.where, error.do]


def test_an_order_past_its_deadline_is_not_carried_out_later(
    stub: SpheroiddStub, served: tuple[Service, Main], monkeypatch: pytest.MonkeyPatch
) -> None:
    (service, main), withdrawn = served, threading.Event()
    submit = service.inbox.submit

    def noted(order: orders.Order, timeout_s: float) -> orders.Done:
        try:
            return submit(order, timeout_s)
        finally:
            withdrawn.set()

    monkeypatch.setattr(service.inbox, "submit", noted)
    with main.busy():
        with pytest.raises(grpc.RpcError) as caught:
            stub.PausePlate(wire.PausePlateRequest(), timeout=1.0)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert withdrawn.wait(CALL_S)
    stub.ResumePlate(wire.ResumePlateRequest(), timeout=CALL_S)
    assert main.orders == [orders.Resume(who="local")]


@pytest.mark.parametrize("well", ["../A01", "..", "A01/../B01", "", "A00", "ZZ99", "A01\x00"])
def test_a_name_that_is_no_well_is_refused(stub: SpheroiddStub, main: Main, well: str) -> None:
    for call in (
        lambda: refused(stub.SkipWell, wire.SkipWellRequest(well=well)),
        lambda: refused(stub.GetPushProgress, wire.GetPushProgressRequest(plate="P1", well=well)),
    ):
        assert call()[0] is grpc.StatusCode.INVALID_ARGUMENT
    assert main.orders == []


@pytest.mark.parametrize("plate", ["..", "../P1", "a/b", "CON", "x" * 65])
def test_a_name_that_is_no_plate_is_refused(stub: SpheroiddStub, data_dir: Path, plate: str) -> None:
    config = f"[plate]\nname = '{plate}'\n[source]\nkind = 'emulator'\n"
    for call, request in (
        (stub.StartPlate, wire.StartPlateRequest(plate=plate)),
        (stub.ListResults, wire.ListResultsRequest(plate=plate)),
        (stub.SubmitPlate, wire.SubmitPlateRequest(config_toml=config)),
    ):
        assert refused(call, request)[0] is grpc.StatusCode.INVALID_ARGUMENT
    assert not list((data_dir / "plans").glob("*"))


def test_a_plate_is_submitted_checked_and_listed(stub: SpheroiddStub) -> None:
    config = "[plate]\nname = 'P2'\n[source]\nkind = 'push'\n"
    given = wire.SubmitPlateRequest(config_toml=config, plate_map_csv="well,role\nA01,negative_control\nA02,empty\n")
    answer = stub.SubmitPlate(given, timeout=CALL_S)
    assert (answer.plate, answer.n_wells) == ("P2", 1)
    plates = stub.ListPlates(wire.ListPlatesRequest(), timeout=CALL_S).plates
    assert {plate.name: plate.submitted for plate in plates} == {"P1": False, "P2": True}


def test_plates_that_differ_by_capitals_alone_are_one_folder_on_some_systems(stub: SpheroiddStub) -> None:
    csv = "well,role\nA01,negative_control\n"
    for name in ("Plate1", "Plate1"):
        config = f"[plate]\nname = '{name}'\n[source]\nkind = 'push'\n"
        stub.SubmitPlate(wire.SubmitPlateRequest(config_toml=config, plate_map_csv=csv), timeout=CALL_S)
    given = wire.SubmitPlateRequest(config_toml=config.replace("Plate1", "plate1"), plate_map_csv=csv)
    code, info = refused(stub.SubmitPlate, given)
    assert (code, info.metadata["what"]) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "'plate1' differs from the plate 'Plate1' by capital letters alone",
    )


@pytest.mark.parametrize(
    ("config", "csv", "what"),
    [
        ("[plate", "", "not TOML"),
        ("[plate]\nname='P2'\n[data]\ndir='/etc'", "", "[data]"),
        ("[plate]\nname='P2'\n[service]\naddress='0.0.0.0:1'", "", "[service]"),
        ("[source]\nkind='push'", "", "plate.name"),
        ("[plate]\nname='P2'\n[source]\nkind='pusch'", "", "pusch"),
        ("[plate]\nname='P2'\n[source]\nkind='push'\n[inference]\nmodel='/etc/passwd'", "", "inference.model"),
        ("[plate]\nname='P2'\n[source]\nkind='push'", "well,role\nZZ99,sample\n", "on no plate"),
        ("[plate]\nname='P2'\nmap='/etc/passwd'\n[source]\nkind='push'", "", "names a file of the daemon's"),
        ("x = " + "[" * 5000, "", "nested too deep"),
        ("[plate]\nname='P2'\n[store]\nmin_free_gb=" + "1" * 5000, "", "a number is too long"),
        ("[plate]\nname='P2'\nmap='../map.csv'\n[source]\nkind='push'", "", "names a file of the daemon's"),
    ],
)
def test_a_plate_that_cannot_be_run_is_refused(stub: SpheroiddStub, config: str, csv: str, what: str) -> None:
    code, info = refused(stub.SubmitPlate, wire.SubmitPlateRequest(config_toml=config, plate_map_csv=csv))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert what in info.metadata["what"]


def test_two_operators_cannot_drive_at_once(stub: SpheroiddStub, main: Main) -> None:
    ours = stub.TakeControl(wire.TakeControlRequest(holder="Ann"), timeout=CALL_S)
    code, info = refused(stub.PausePlate, wire.PausePlateRequest())
    assert (code, info.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "CONTROL_HELD_ERROR")
    assert "Ann" in info.metadata["what"]
    assert refused(stub.TakeControl, wire.TakeControlRequest(holder="Bob"))[1].reason == "CONTROL_HELD_ERROR"
    stub.PausePlate(wire.PausePlateRequest(lease=ours.lease), timeout=CALL_S)
    for found in stub.WatchStatus(wire.WatchStatusRequest(), timeout=CALL_S):
        if found.HasField("control"):
            assert (found.control.holder, found.control.lease) == ("Ann", "")
            break
    stub.ReleaseControl(wire.ReleaseControlRequest(lease=ours.lease), timeout=CALL_S)
    stub.ResumePlate(wire.ResumePlateRequest(), timeout=CALL_S)
    assert [type(order).__name__ for order in main.orders] == ["Pause", "Resume"]


def test_nothing_can_be_pushed_where_no_run_takes_it(stub: SpheroiddStub) -> None:
    opened = wire.PushPlan(plate="P1", well="A02", channels=["488"], n_z=1, height=1, width=1, pixel_um=1, z_step_um=1)
    with pytest.raises(grpc.RpcError) as caught:
        list(stub.PushSlices(iter([wire.PushSlicesRequest(open=opened)]), timeout=CALL_S))
    assert refusal(caught.value)[0] is grpc.StatusCode.FAILED_PRECONDITION


@pytest.mark.parametrize("missing", ["n_z", "pixel_um"])
def test_a_plan_without_a_number_is_refused(stub: SpheroiddStub, missing: str) -> None:
    opened = wire.PushPlan(plate="P1", well="A02", channels=["488"], n_z=1, height=1, width=1, pixel_um=1, z_step_um=1)
    opened.ClearField(missing)  # type: ignore[arg-type]
    with pytest.raises(grpc.RpcError) as caught:
        list(stub.PushSlices(iter([wire.PushSlicesRequest(open=opened)]), timeout=CALL_S))
    code, info = refusal(caught.value)
    assert (code, info.metadata["what"]) == (grpc.StatusCode.INVALID_ARGUMENT, f"{missing} is missing")


# -- who may


@pytest.mark.parametrize("method", METHODS)
def test_nobody_calls_anything_without_a_token_where_one_is_needed(data_dir: Path, method: str) -> None:
    with running(data_dir, local_role="none") as (service, main):
        with grpc.insecure_channel(f"127.0.0.1:{service.port}") as channel:
            stub = SpheroiddStub(channel)
            kind = wire.DESCRIPTOR.services_by_name["Spheroidd"].methods_by_name[method]
            request = GetMessageClass(kind.input_type)()
            call = getattr(stub, method)
            with pytest.raises(grpc.RpcError) as caught:
                list(call(iter([request]) if kind.client_streaming else request, timeout=CALL_S))
        assert refusal(caught.value)[0] is grpc.StatusCode.UNAUTHENTICATED
        assert main.orders == []


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)


@pytest.mark.parametrize("local_role", ["none", "admin"])
def test_each_role_may_do_its_own_and_no_more(data_dir: Path, local_role: str) -> None:
    tokens = TokenFile(data_dir)
    viewer = bearer(tokens.create("eve", Role.VIEWER, 3600))
    operator = bearer(tokens.create("ann", Role.OPERATOR, 3600))
    with running(data_dir, local_role=local_role) as (service, main):
        with grpc.insecure_channel(f"127.0.0.1:{service.port}") as channel:
            stub = SpheroiddStub(channel)
            assert stub.GetStatus(wire.GetStatusRequest(), timeout=CALL_S, metadata=viewer).plate == "P1"
            code, info = refused(stub.PausePlate, wire.PausePlateRequest(), metadata=viewer)
            assert (code, info.reason) == (grpc.StatusCode.PERMISSION_DENIED, "FORBIDDEN_ERROR")
            stub.PausePlate(wire.PausePlateRequest(), timeout=CALL_S, metadata=operator)
            forced = wire.TakeControlRequest(force=True)
            assert refused(stub.TakeControl, forced, metadata=operator)[0] is grpc.StatusCode.PERMISSION_DENIED
        assert main.orders == [orders.Pause(who="ann")]


def test_an_expired_or_unknown_token_is_refused_even_where_none_is_needed(data_dir: Path) -> None:
    yesterday = TokenFile(data_dir, lambda: time.time() - 86_400)
    expired = bearer(yesterday.create("ann", Role.ADMIN, 3600))
    with running(data_dir) as (service, _), grpc.insecure_channel(f"127.0.0.1:{service.port}") as channel:
        stub = SpheroiddStub(channel)
        for given in (expired, bearer("sph_1_2"), (("authorization", "Basic abc"),)):
            code, _info = refused(stub.GetStatus, wire.GetStatusRequest(), metadata=given)
            assert code is grpc.StatusCode.UNAUTHENTICATED


def test_looking_takes_a_viewer_and_all_else_an_operator() -> None:
    roles = {method: needed_role(f"/spheroidd.v1.Spheroidd/{method}") for method in METHODS}
    looking = {method for method, role in roles.items() if role is Role.VIEWER}
    assert looking == {m for m in METHODS if m.startswith(("Get", "List", "Watch"))}
    assert {role for method, role in roles.items() if method not in looking} == {Role.OPERATOR}


def test_a_method_that_says_no_role_or_that_nobody_knows_is_an_admins() -> None:
    silent = descriptor_pb2.FileDescriptorProto(name="silent.proto", package="silent.v1", syntax="proto3")
    silent.message_type.add(name="Nothing")
    service = silent.service.add(name="Silent")
    service.method.add(name="FormatDisk", input_type=".silent.v1.Nothing", output_type=".silent.v1.Nothing")
    pool = DescriptorPool()
    pool.Add(silent)
    assert least_roles(pool.FindServiceByName("silent.v1.Silent").methods) == {}
    assert needed_role("/silent.v1.Silent/FormatDisk") is Role.ADMIN


# -- health, reflection, and those who misbehave


def test_its_health_can_be_asked_without_a_token(data_dir: Path) -> None:
    asked = health_pb2.HealthCheckRequest(service="spheroidd.v1.Spheroidd")
    with (
        running(data_dir, local_role="none") as (service, _),
        grpc.insecure_channel(f"127.0.0.1:{service.port}") as channel,
    ):
        answer = health_pb2_grpc.HealthStub(channel).Check(asked, timeout=CALL_S)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_it_can_be_called_through_reflection_without_its_contract(channel: grpc.Channel) -> None:
    """As grpcurl does: the names of the services, the method's types, a call in JSON."""
    database = ProtoReflectionDescriptorDatabase(channel)
    assert "spheroidd.v1.Spheroidd" in database.get_services()
    method = DescriptorPool(database).FindServiceByName("spheroidd.v1.Spheroidd").FindMethodByName("ListResults")
    request = json_format.ParseDict({"plate": "P1"}, GetMessageClass(method.input_type)())
    call = channel.unary_unary(
        "/spheroidd.v1.Spheroidd/ListResults",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=GetMessageClass(method.output_type).FromString,
    )
    found = json_format.MessageToDict(call(request, timeout=CALL_S))
    assert [row["well"] for row in found["results"]] == ["A01", "A02"]


def test_a_viewer_that_stops_reading_is_cut_and_nobody_else_notices(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many_changes(data_dir, 1000, n_words=5000)  # 40 MB: far more than the network's own buffers hold
    monkeypatch.setattr("spheroidd.daemon.service.server.Viewers", lambda *_: Viewers(patience_s=0.3))
    with running(data_dir) as (service, _), grpc.insecure_channel(f"127.0.0.1:{service.port}") as channel:
        stub = SpheroiddStub(channel)
        stuck = stub.WatchResults(wire.WatchResultsRequest(after_sequence=0))
        next(stuck)
        assert stub.GetStatus(wire.GetStatusRequest(), timeout=CALL_S).plate == "P1"
        deadline_s = time.monotonic() + CALL_S
        while len(service._viewers) and time.monotonic() < deadline_s:
            time.sleep(0.05)
        assert len(service._viewers) == 0
        with pytest.raises(grpc.RpcError) as caught:
            for _ in stuck:
                pass
        assert caught.value.code() is grpc.StatusCode.CANCELLED


def test_too_many_viewers_are_refused_and_calls_still_answered(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spheroidd.daemon.service.server.Viewers", lambda *_: Viewers(most=2))
    with running(data_dir) as (service, _), grpc.insecure_channel(f"127.0.0.1:{service.port}") as channel:
        stub = SpheroiddStub(channel)
        streams = [stub.WatchStatus(wire.WatchStatusRequest(), timeout=CALL_S) for _ in range(2)]
        for stream in streams:
            next(stream)
        with pytest.raises(grpc.RpcError) as caught:
            next(stub.WatchStatus(wire.WatchStatusRequest(), timeout=CALL_S))
        assert refusal(caught.value)[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert stub.GetStatus(wire.GetStatusRequest(), timeout=CALL_S).plate == "P1"


@pytest.mark.parametrize("period_s", [math.inf, -math.inf, math.nan, 1e300, -1.0], ids=str)
def test_a_period_that_no_clock_can_wait_is_refused(data_dir: Path, period_s: float) -> None:
    with running(data_dir) as (service, _), grpc.insecure_channel(f"127.0.0.1:{service.port}") as channel:
        with pytest.raises(grpc.RpcError) as caught:
            next(SpheroiddStub(channel).WatchStatus(wire.WatchStatusRequest(period_s=period_s)))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "period_s" in caught.value.details()


def test_a_viewer_ahead_of_the_history_gets_what_comes_next(data_dir: Path) -> None:
    with running(data_dir) as (service, _), grpc.insecure_channel(f"127.0.0.1:{service.port}") as channel:
        stream = SpheroiddStub(channel).WatchResults(wire.WatchResultsRequest(after_sequence=2**64 - 1), timeout=1.0)
        with pytest.raises(grpc.RpcError) as caught:
            next(stream)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def test_a_daemon_that_ends_ends_its_streams_and_says_so(data_dir: Path) -> None:
    errors: list[grpc.RpcError] = []

    def watch(stub: SpheroiddStub, started: threading.Event) -> None:
        try:
            for _ in stub.WatchStatus(wire.WatchStatusRequest(), timeout=CALL_S):
                started.set()
        except grpc.RpcError as error:
            errors.append(error)

    started = threading.Event()
    with running(data_dir) as (service, _):
        assert (data_dir / "service.json").exists()
        channel = grpc.insecure_channel(f"127.0.0.1:{service.port}")
        thread = threading.Thread(target=watch, args=(SpheroiddStub(channel), started))
        thread.start()
        assert started.wait(CALL_S)
    thread.join()
    channel.close()
    assert refusal(errors[0])[1].reason == "ENDING_ERROR"
    assert not (data_dir / "service.json").exists()


def test_a_port_that_is_taken_is_refused_at_the_start(served: tuple[Service, Main], data_dir: Path) -> None:
    with pytest.raises(ConfigError, match="cannot use"), running(data_dir, address=f"127.0.0.1:{served[0].port}"):
        pass


def test_the_command_asks_the_daemon_and_says_so(served: tuple[Service, Main], data_dir: Path) -> None:
    address = f"127.0.0.1:{served[0].port}"
    told = CliRunner().invoke(cli.app, ["status", "--address", address])
    assert told.exit_code == 0, told.output
    assert f"the daemon at {address}" in told.stdout
    assert "1 queued  1 provisional" in told.stdout
    asked = json.loads(CliRunner().invoke(cli.app, ["status", "--address", address, "--json"]).stdout)
    assert (asked["asked"], asked["service"], asked["wells"]) == ("daemon", address, {"queued": 1, "provisional": 1})
    read = json.loads(CliRunner().invoke(cli.app, ["status", str(data_dir), "--json"]).stdout)
    assert read["asked"] == "catalog"
    assert asked.keys() == read.keys()


def test_the_command_says_where_nobody_answers() -> None:
    told = CliRunner().invoke(cli.app, ["status", "--address", "127.0.0.1:1"])
    assert told.exit_code == 1
    assert "127.0.0.1:1: the call failed" in told.stderr
    assert "To do: check" in told.stderr


def test_tokens_are_made_listed_and_revoked(data_dir: Path) -> None:
    made = CliRunner().invoke(cli.app, ["token", "create", "eve", str(data_dir)])
    assert made.exit_code == 0
    assert TokenFile(data_dir).authenticate(made.stdout.strip()).name == "eve"
    listed = CliRunner().invoke(cli.app, ["token", "list", str(data_dir)]).stdout
    assert "viewer" in listed
    assert made.stdout.strip().rpartition("_")[2] not in listed
    assert CliRunner().invoke(cli.app, ["token", "revoke", "eve", str(data_dir)]).exit_code == 0
    assert TokenFile(data_dir).tokens() == []


@pytest.mark.parametrize("command", ["pause", "resume", "abort", "stop"])
def test_an_order_without_a_daemon_is_refused(tmp_path: Path, command: str) -> None:
    told = CliRunner().invoke(cli.app, [command, str(tmp_path)])
    assert told.exit_code == 1
    assert "no daemon runs here" in told.stderr
