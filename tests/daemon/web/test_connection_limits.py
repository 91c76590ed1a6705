"""Connections that send nothing, little or too much, and readers that do not read: nobody else is kept out."""

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.config.model import ServiceConfig
from spheroidd.daemon.service.viewers import MAX_VIEWERS
from spheroidd.daemon.web import connection_limits
from spheroidd.daemon.web.server import WebServer
from tests.daemon.service.rig import beat, fill, many_changes, running
from tests.daemon.service.test_tls import Authority
from tests.daemon.web.rig import CALL_S, asked

HALF = b"GET / HTTP/1.1\r\nHost: loc"


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    fill(tmp_path / "data")
    return tmp_path / "data"


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), CALL_S)


def ended(one: socket.socket) -> bool:
    """Whether the other side closes a connection before the test's own patience is over."""
    try:
        while one.recv(1 << 16):
            pass
    except ConnectionError:
        pass
    except TimeoutError:
        return False
    return True


@contextmanager
def half_open(port: int, n: int) -> Iterator[list[socket.socket]]:
    with ExitStack() as stack:
        opened = []
        for _ in range(n):
            opened.append(stack.enter_context(connected(port)))
            opened[-1].sendall(HALF)
        yield opened


def test_half_open_connections_keep_no_health_check_out(data_dir: Path) -> None:
    with asked(data_dir) as (client, _, _):
        for _ in range(2):
            with half_open(client.port, connection_limits.MAX_CONNECTIONS + 5):
                for path in ("/healthz", "/v1/status", "/"):
                    assert client.get(path).status == 200


SLOW_BODY = (
    b"POST /v1/plates HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 900\r\n\r\n{"
)
STREAM = b"GET /v1/status:watch HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.parametrize("sent", [SLOW_BODY, STREAM], ids=["bodies that do not end", "streams"])
def test_requests_without_an_end_keep_no_health_check_out(data_dir: Path, sent: bytes) -> None:
    with asked(data_dir) as (client, _, _), ExitStack() as stack:
        for _ in range(connection_limits.MAX_CONNECTIONS + 20):
            stack.enter_context(connected(client.port)).sendall(sent)
        assert client.get("/healthz").status == 200


def test_a_stream_for_which_there_is_no_place_is_refused_in_words(data_dir: Path) -> None:
    with asked(data_dir) as (client, _, _), ExitStack() as stack:
        opened = [stack.enter_context(connected(client.port)) for _ in range(MAX_VIEWERS)]
        for one in opened:
            one.sendall(STREAM)
        assert all(b" 200 " in one.recv(100) for one in opened)
        refused = client.get("/v1/status:watch")
        assert refused.status == 429
        assert b"close one" in refused.body


def test_the_longest_idle_goes_first_and_a_stream_at_work_stays(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_limits, "MAX_CONNECTIONS", 8)
    with asked(data_dir) as (client, _, _):
        stream = client.connect()
        stream.request("GET", "/v1/status:watch")
        answer = stream.getresponse()
        assert answer.readline()
        with half_open(client.port, 12) as opened:
            assert client.get("/healthz").status == 200
            assert ended(opened[0])
            opened[-1].sendall(b"alhost\r\nConnection: close\r\n\r\n")
            assert b" 200 " in opened[-1].recv(100)
            with Catalog.create_or_open(data_dir) as catalog:
                beat(catalog, 7)
            while b'"slices_done":7' not in answer.readline().replace(b": ", b":").replace(b'"7"', b"7"):
                pass
        answer.close()
        stream.close()


@pytest.mark.parametrize(
    "sent",
    [b"", HALF, b"GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n" + HALF],
    ids=["nothing", "half a head", "half of a second head"],
)
def test_a_head_that_does_not_come_in_time_ends_the_connection(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(connection_limits, "HEAD_S", 0.2)
    monkeypatch.setattr(connection_limits, "KEEP_ALIVE_S", 1)
    with asked(data_dir) as (client, _, _), connected(client.port) as one:
        one.sendall(sent)
        assert ended(one)


def trickle(one: socket.socket, line: bytes) -> None:
    deadline_s = time.monotonic() + CALL_S
    while time.monotonic() < deadline_s:
        one.sendall(line)
        time.sleep(0.02)


@pytest.mark.parametrize("line", [b"X-A: 1\r\n", b"x"], ids=["headers", "a header's bytes"])
def test_a_head_that_trickles_ends_all_the_same(data_dir: Path, monkeypatch: pytest.MonkeyPatch, line: bytes) -> None:
    monkeypatch.setattr(connection_limits, "HEAD_S", 0.5)
    with asked(data_dir) as (client, _, _), connected(client.port) as one:
        one.sendall(HALF + b"alhost\r\nX-B: ")
        with pytest.raises(ConnectionError):
            trickle(one, line)


def test_a_body_that_nobody_waits_for_ends_with_its_refusal(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_limits, "HEAD_S", 0.3)
    monkeypatch.setattr(connection_limits, "KEEP_ALIVE_S", 60)
    with asked(data_dir) as (client, _, _), connected(client.port) as one:
        one.sendall(b"POST /nothing HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n{")
        assert b" 404 " in one.recv(1 << 16)
        assert ended(one)


def test_a_client_that_goes_away_amid_its_body_is_no_fault_of_the_daemon(
    data_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with asked(data_dir) as (client, _, _):
        for _ in range(3):
            with connected(client.port) as one:
                one.sendall(b"POST /v1/plates HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
                assert client.get("/healthz").status == 200  # meanwhile the daemon waits for the rest
            assert client.get("/healthz").status == 200
    assert [record.getMessage() for record in caplog.records if record.exc_info] == []


def test_a_head_that_is_too_long_is_refused(data_dir: Path) -> None:
    with asked(data_dir) as (client, _, _), connected(client.port) as one:
        one.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-A: " + b"a" * (2 * connection_limits.MAX_HEAD_BYTES))
        assert ended(one)
        assert client.get("/healthz").status == 200


def test_a_reader_that_does_not_read_is_cut(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many_changes(data_dir, 1000, n_words=5000)  # 40 MB: far more than the network's own buffers hold
    monkeypatch.setattr(connection_limits, "WRITE_S", 0.3)
    with asked(data_dir) as (client, _, service), connected(client.port) as one:
        one.sendall(b"GET /v1/results:watch?after_sequence=0 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert one.recv(100)
        deadline_s = time.monotonic() + CALL_S
        while len(service._viewers) == 0 and time.monotonic() < deadline_s:
            time.sleep(0.02)
        while len(service._viewers) and time.monotonic() < deadline_s:
            time.sleep(0.05)
        assert len(service._viewers) == 0
        assert ended(one)


def test_a_handshake_that_does_not_come_ends_the_connection(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_limits, "HEAD_S", 0.3)
    pair = Authority(tmp_path).pair("daemon")
    settings = ServiceConfig(http_address="127.0.0.1:0", tls_certificate=pair.certificate, tls_key=pair.key)
    with ExitStack() as stack:
        service, _ = stack.enter_context(running(data_dir))
        web = stack.enter_context(WebServer(service, data_dir, settings))
        one = stack.enter_context(connected(web.port))
        one.sendall(b"\x16\x03\x01")
        assert ended(one)
