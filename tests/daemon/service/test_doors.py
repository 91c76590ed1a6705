"""Who may not come in: half-open calls, wrong tokens, tokens that were revoked while a stream is open."""

import json
import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from spheroidd.acquisition.sources.push import PushInlet
from spheroidd.daemon.catalog.rows import StackState
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.config.alarm_settings import AlarmsConfig
from spheroidd.daemon.monitoring import failed_logins
from spheroidd.daemon.monitoring.alarms import open_alarms
from spheroidd.daemon.monitoring.event_log import logging_to
from spheroidd.daemon.monitoring.failed_logins import ALARM_AT, FailedLogins
from spheroidd.daemon.monitoring.monitor import RunMonitor
from spheroidd.daemon.service import server, viewers
from spheroidd.daemon.service.tokens import Role, TokenFile, UnknownCallerError
from spheroidd.protocols import spheroidd_pb2 as wire
from spheroidd.protocols.events import StackOpened, StackSealed
from spheroidd.protocols.faults import FaultCode
from spheroidd.protocols.spheroidd_pb2_grpc import SpheroiddStub
from tests.daemon.service.rig import PLAN, fill, refusal, running
from tests.daemon.web.rig import asked

CALL_S = 60.0
GOAWAY = 0x7  # RFC 9113
WRONG = UnknownCallerError("the token is not known here", do="ask")


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    fill(tmp_path)
    return tmp_path


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def until(found: Callable[[], object]) -> None:
    deadline_s = time.monotonic() + CALL_S
    while not found():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


# -- half-open


def silent(ending: threading.Event) -> Iterator[bytes]:
    """A client that opens a call and sends nothing."""
    ending.wait(CALL_S)
    yield from ()


def half_open(channel: grpc.Channel, method: str, ending: threading.Event) -> grpc.Future:
    call = channel.stream_unary(method, request_serializer=None, response_deserializer=None)
    return call.future(silent(ending), timeout=CALL_S)


def frame_types(sent: bytes) -> list[int]:
    """Of the HTTP/2 frames in it: three bytes of length, one of type, five others, then what is that long."""
    types = []
    while sent:
        types.append(sent[3])
        sent = sent[9 + int.from_bytes(sent[:3]) :]
    return types


def test_a_connection_without_a_word_is_closed(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HANDSHAKE_MS", 300)
    with running(data_dir) as (service, _), socket.create_connection(("127.0.0.1", service.port), CALL_S) as one:
        sent = b"".join(iter(lambda: one.recv(1 << 16), b""))  # b"": the server has closed it
        assert frame_types(sent)[-1] == GOAWAY, sent


def test_more_connections_than_are_allowed_are_closed(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 3)
    with running(data_dir) as (service, _), ExitStack() as stack:
        opened = [socket.create_connection(("127.0.0.1", service.port), 1.0) for _ in range(8)]
        closed = 0
        for one in opened:
            stack.enter_context(one)
            try:
                while one.recv(1 << 16):
                    pass
                closed += 1
            except ConnectionError:
                closed += 1
            except TimeoutError:
                pass
        assert closed == 5


def test_half_open_calls_without_a_token_take_no_place(data_dir: Path) -> None:
    token, ending = TokenFile(data_dir).create("v", Role.VIEWER, 600), threading.Event()
    with ExitStack() as stack:
        service, _ = stack.enter_context(running(data_dir, local_role="none"))
        with grpc.insecure_channel(f"127.0.0.1:{service.port}") as channel:
            calls = [half_open(channel, "/spheroidd.v1.Spheroidd/GetStatus", ending) for _ in range(100)]
            calls += [half_open(channel, "/grpc.health.v1.Health/Watch", ending) for _ in range(20)]
            for call in calls:
                error = call.exception(CALL_S)
                assert isinstance(error, grpc.RpcError)
                assert error.code() is grpc.StatusCode.UNAUTHENTICATED
            stub = SpheroiddStub(channel)
            assert stub.GetStatus(wire.GetStatusRequest(), metadata=bearer(token), timeout=CALL_S).plate == "P1"
            ending.set()


def test_half_open_health_checks_take_few_places_and_not_for_long(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(viewers, "time", SimpleNamespace(monotonic=clock))
    token, ending = TokenFile(data_dir).create("v", Role.VIEWER, 600), threading.Event()
    with ExitStack() as stack:
        service, _ = stack.enter_context(running(data_dir, local_role="none"))
        with grpc.insecure_channel(f"127.0.0.1:{service.port}") as channel:
            stack.callback(ending.set)
            ended: queue.Queue[grpc.StatusCode] = queue.Queue()
            for _ in range(100):
                half_open(channel, "/grpc.health.v1.Health/Check", ending).add_done_callback(
                    lambda call: ended.put(call.code())
                )

            def next_codes(n: int) -> set[grpc.StatusCode]:
                return {ended.get(timeout=CALL_S) for _ in range(n)}

            assert next_codes(100 - server.STRANGERS) == {grpc.StatusCode.RESOURCE_EXHAUSTED}
            stub = SpheroiddStub(channel)
            assert stub.GetStatus(wire.GetStatusRequest(), metadata=bearer(token), timeout=CALL_S).plate == "P1"
            health_stub, question = health_pb2_grpc.HealthStub(channel), health_pb2.HealthCheckRequest()
            with pytest.raises(grpc.RpcError, match="of these calls are open"):
                health_stub.Check(question, timeout=CALL_S)
            assert ended.empty()
            clock.now_s += server.STRANGERS_S + 1
            assert next_codes(server.STRANGERS) == {grpc.StatusCode.CANCELLED}
            until(lambda: len(service._strangers) == 0)
            answer = health_stub.Check(question, timeout=CALL_S)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING


# -- wrong tokens


def fail(logins: FailedLogins, peer: str) -> float:
    with logins.answering(peer, WRONG) as delay_s:
        return delay_s


def test_each_failure_of_a_peer_doubles_its_own_delay_up_to_a_bound() -> None:
    clock = Clock()
    logins = FailedLogins(clock)
    assert [fail(logins, "a") for _ in range(7)] == [0.25, 0.5, 1.0, 2.0, 4.0, 4.0, 4.0]
    assert fail(logins, "b") == 0.25
    clock.now_s += failed_logins.WINDOW_S + 1
    assert fail(logins, "a") == 0.25
    assert logins.total == 9


def test_so_many_answers_wait_and_no_more() -> None:
    logins = FailedLogins()
    with ExitStack() as waiting:
        delays = [waiting.enter_context(logins.answering("a", WRONG)) for _ in range(failed_logins.MAX_DELAYED)]
        assert min(delays) > 0
        assert fail(logins, "a") == fail(logins, "b") == 0
    assert fail(logins, "a") > 0


def test_the_number_of_peers_is_bounded() -> None:
    logins = FailedLogins()
    for n in range(3 * failed_logins.MAX_PEERS):
        fail(logins, str(n))
    assert len(logins._peers) == failed_logins.MAX_PEERS


def test_many_failures_within_ten_minutes_are_an_alarm_that_ends() -> None:
    clock = Clock()
    logins = FailedLogins(clock)
    for n in range(ALARM_AT):
        assert logins.alarm() is None
        fail(logins, "192.0.2.7" if n % 3 else "192.0.2.8")
    alarm = logins.alarm()
    assert alarm is not None
    assert alarm.where == "most of them from 192.0.2.7"
    clock.now_s += failed_logins.WINDOW_S + 1
    assert logins.alarm() is None
    fail(logins, "192.0.2.7")
    assert logins.alarm() is None


def test_the_alarm_begins_and_ends_in_the_catalog(data_dir: Path) -> None:
    clock = Clock()
    with Catalog.create_or_open(data_dir) as catalog, RunMonitor(data_dir, catalog, AlarmsConfig()) as monitor:
        monitor.failed_logins._now = clock
        for later_s, stands in ((0.0, False), (1.0, True), (failed_logins.WINDOW_S + 2, False)):
            clock.now_s = 1000.0 + later_s
            for _ in range(ALARM_AT if stands else 0):
                fail(monitor.failed_logins, "192.0.2.7")
            monitor._watch.look(catalog)
            monitor.record(acquiring=False)
            assert (FaultCode.FAILED_LOGINS in {alarm.code for alarm in open_alarms(catalog)}) is stands


@pytest.mark.parametrize("door", ["grpc", "http"])
def test_a_wrong_token_is_counted_logged_and_answered_late_and_a_right_one_is_not(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, door: str
) -> None:
    monkeypatch.setattr(failed_logins, "FIRST_S", 0.1)
    right, wrong = TokenFile(data_dir).create("v", Role.VIEWER, 600), "sph_00000000_" + "1" * 64

    def ask(token: str | None) -> bool:
        if door == "http":
            return client.get("/v1/status", **({"authorization": f"Bearer {token}"} if token else {})).status == 200
        try:
            stub.GetStatus(wire.GetStatusRequest(), metadata=bearer(token) if token else (), timeout=CALL_S)
        except grpc.RpcError as error:
            return refusal(error)[0] is not grpc.StatusCode.UNAUTHENTICATED
        return True

    with logging_to(data_dir), asked(data_dir, local_role="none") as (client, _, service):
        with grpc.insecure_channel(f"127.0.0.1:{service.port}") as channel:
            stub = SpheroiddStub(channel)
            assert [ask(None), ask(right)] == [False, True]
            assert service.failed_logins.total == 0
            before_s = time.monotonic()
            assert [ask(wrong) for _ in range(4)] == [False] * 4
            assert time.monotonic() - before_s >= 0.1 + 0.2 + 0.4 + 0.8
            assert ask(right)
            assert service.failed_logins.total == 4
        text = client.get("/metrics", authorization=f"Bearer {right}").body.decode()
        assert "spheroidd_failed_logins_total 4.0" in text
    lines = [json.loads(line) for line in (data_dir / "logs" / "spheroidd.jsonl").read_text().splitlines()]
    told = [(line["peer"], line["failures"]) for line in lines if "authentication-failed" in json.dumps(line)]
    assert told == [("127.0.0.1", 1), ("127.0.0.1", 2), ("127.0.0.1", 4)]
    assert wrong not in json.dumps(lines)


def test_others_are_answered_while_wrong_tokens_wait(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failed_logins, "FIRST_S", 5.0)
    right = TokenFile(data_dir).create("v", Role.VIEWER, 600)
    with ExitStack() as stack:
        client, _, service = stack.enter_context(asked(data_dir, local_role="none"))
        with grpc.insecure_channel(f"127.0.0.1:{service.port}") as channel:
            stub = SpheroiddStub(channel)
            request, late = wire.GetStatusRequest(), bearer("wrong")
            waiting = [stub.GetStatus.future(request, metadata=late, timeout=CALL_S) for _ in range(6)]
            assert stub.GetStatus(request, metadata=bearer(right), timeout=CALL_S).plate == "P1"
            assert client.get("/healthz").status == 200
            assert client.get("/v1/status", authorization=f"Bearer {right}").status == 200
            assert not any(call.done() for call in waiting)


# -- revoked


@pytest.mark.parametrize("end", ["revoked", "expired"])
@pytest.mark.parametrize("method", ["WatchStatus", "WatchResults"])
def test_a_tokens_streams_end_with_it(data_dir: Path, monkeypatch: pytest.MonkeyPatch, method: str, end: str) -> None:
    tokens = TokenFile(data_dir)
    token = tokens.create("v", Role.VIEWER, 60)
    request = {
        "WatchStatus": wire.WatchStatusRequest(period_s=3600),
        "WatchResults": wire.WatchResultsRequest(after_sequence=0),
    }[method]
    with asked(data_dir) as (client, _, service), grpc.insecure_channel(f"127.0.0.1:{service.port}") as channel:
        stream = getattr(SpheroiddStub(channel), method)(request, metadata=bearer(token), timeout=CALL_S)
        page = client.connect()
        path = {"WatchStatus": "/v1/status:watch?period_s=3600", "WatchResults": "/v1/results:watch?after_sequence=0"}
        page.request("GET", path[method], headers={"authorization": f"Bearer {token}"})
        answer = page.getresponse()
        assert answer.status == 200
        if end == "revoked":
            assert tokens.revoke("v") == 1
        else:
            later_s = time.time() + 61
            monkeypatch.setattr(service._gate._tokens, "_now", lambda: later_s)
        with pytest.raises(grpc.RpcError) as caught:
            list(stream)
        assert refusal(caught.value)[0] is grpc.StatusCode.UNAUTHENTICATED
        last = answer.read().decode().split("event: ")[-1]
        assert last.startswith("problem")
        assert "UNKNOWN_CALLER_ERROR" in last
        answer.close()
        page.close()


def test_a_stream_without_a_token_goes_on_where_none_is_needed(data_dir: Path) -> None:
    TokenFile(data_dir).create("v", Role.VIEWER, 60)
    with asked(data_dir, address="127.0.0.1:0") as (client, _, _):
        page = client.connect()
        page.request("GET", "/v1/results:watch?after_sequence=0")
        answer = page.getresponse()
        TokenFile(data_dir).revoke("v")
        assert answer.status == 200
        lines = [answer.readline() for _ in range(4)]
        assert not any(b"problem" in line for line in lines)
        answer.close()
        page.close()


def test_a_push_ends_with_its_token_and_leaves_the_inlet(data_dir: Path) -> None:
    tokens, inlet, ending = TokenFile(data_dir), PushInlet(), threading.Event()
    token = tokens.create("instrument", Role.OPERATOR, 60)
    plan = wire.PushPlan(plate="P1", well="A01", channels=PLAN.channels, n_z=3, height=16, width=16)
    plan.pixel_um, plan.z_step_um = 0.1, 0.5

    def messages() -> Iterator[wire.PushSlicesRequest]:
        yield wire.PushSlicesRequest(open=plan)
        ending.wait(CALL_S)

    def take_up() -> None:
        found = inlet.next_plan(ending.is_set)
        assert found is not None
        inlet.opened(found)

    with running(data_dir, local_role="none") as (service, _), grpc.insecure_channel(f"127.0.0.1:{service.port}") as to:
        service.door.open("P1", inlet)
        run = threading.Thread(target=take_up)
        run.start()
        call = SpheroiddStub(to).PushSlices(messages(), metadata=bearer(token), timeout=CALL_S)
        assert next(call).HasField("opened")
        run.join()
        session = inlet.opened(PLAN)
        assert session is not None
        assert session.attached
        tokens.revoke("instrument")
        with pytest.raises(grpc.RpcError) as caught:
            list(call)
        assert refusal(caught.value)[0] is grpc.StatusCode.UNAUTHENTICATED
        assert not session.attached
        ending.set()


def test_a_start_that_never_ends_is_ended_with_a_word(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from spheroidd.daemon.service import server\n"
        "from spheroidd.daemon.config.model import ServiceConfig\n"
        "from spheroidd.daemon.catalog.writer import Catalog\n"
        "folder = Path(sys.argv[1]); Catalog.create_or_open(folder).close(); server.START_S = 0.2\n"
        "hung = server.Service(folder, ServiceConfig()); start = server.grpc.server\n"
        "def stuck(*args, **kwargs):\n"
        "    made = start(*args, **kwargs); made.start = lambda: time.sleep(60); return made\n"
        "server.grpc.server = stuck; hung.__enter__()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 4, done.stderr
    assert "it does not end by itself and is ended" in done.stderr


@pytest.mark.parametrize(
    ("state", "told"),
    [(StackState.ACQUIRING, "acquiring"), (StackState.STORED, "stored"), (StackState.SCORING, "stored")],
)
def test_a_push_ends_with_stored_although_a_worker_has_begun(data_dir: Path, state: StackState, told: str) -> None:
    inlet = PushInlet()
    with Catalog.create_or_open(data_dir) as catalog:
        catalog.set_stack_state(PLAN.key, state)
    plan = wire.PushPlan(plate="P1", well="A01", channels=PLAN.channels, n_z=3, height=16, width=16)
    plan.pixel_um, plan.z_step_um = 0.1, 0.5

    def take_up() -> None:
        found = inlet.next_plan(lambda: False)
        assert found is not None
        inlet.opened(found)
        inlet.told(StackOpened(found, {}))
        inlet.ended(found)
        inlet.told(StackSealed(found.key))

    with running(data_dir) as (service, _), grpc.insecure_channel(f"127.0.0.1:{service.port}") as to:
        service.door.open("P1", inlet)
        run = threading.Thread(target=take_up)
        run.start()
        *_, last = SpheroiddStub(to).PushSlices(iter([wire.PushSlicesRequest(open=plan)]), timeout=CALL_S)
        run.join()
    assert (last.end.status, last.end.n_acknowledged) == (told, 6)
