"""The web server beside the daemon: its port, its certificate, its end, and readers that do not read."""

import http.client
import json
import os
import socket
import ssl
import subprocess
import threading
from pathlib import Path

import pytest
from pydantic import ValidationError

from spheroidd.daemon.config.model import ServiceConfig
from spheroidd.daemon.service.tokens import Role, TokenFile
from spheroidd.daemon.system.address_files import read_page
from spheroidd.daemon.web.request_guard import known_hosts
from spheroidd.daemon.web.server import WebServer, page_alone
from spheroidd.protocols.errors import ConfigError
from tests.daemon.service.rig import fill, many_changes, running
from tests.daemon.service.test_tls import Authority
from tests.daemon.web.rig import Client, asked
from tests.faults.plate_runs import COMMAND, spheroidd


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    fill(tmp_path / "data")
    return tmp_path / "data"


def test_a_port_that_is_taken_is_no_reason_not_to_image(data_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, running(data_dir) as (service, _):
        port = other.getsockname()[1]
        with WebServer(service, data_dir, ServiceConfig(http_address=f"127.0.0.1:{port}")) as web:
            assert web.moved
            assert web.port != port
            assert read_page(data_dir) == web.url
        assert read_page(data_dir) is None


def test_an_address_of_another_computer_is_refused(data_dir: Path, tmp_path: Path) -> None:
    pair = Authority(tmp_path).pair("daemon")
    settings = ServiceConfig(http_address="203.0.113.9:80", tls_certificate=pair.certificate, tls_key=pair.key)
    with running(data_dir) as (service, _), pytest.raises(ConfigError, match=r"cannot use 203\.0\.113\.9"):
        WebServer(service, data_dir, settings).__enter__()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"http_address": "0.0.0.0:8040"}, "can be reached from other computers"),
        ({"http_address": "8040"}, "http_address"),
        ({"http_viewers": ["https://viewer.example"]}, "http_viewers"),
        ({"http_viewers": ["javascript:{url}"]}, "http_viewers"),
    ],
)
def test_settings_that_are_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        ServiceConfig.model_validate(settings)


def test_names_of_this_computer() -> None:
    settings = ServiceConfig(http_address="localhost:1", http_hosts=("Scope-PC",), name="scope.lab")
    assert known_hosts(settings) == {"localhost", "127.0.0.1", "[::1]", "scope-pc", "scope.lab"}


def test_beyond_this_computer_it_takes_tls_and_a_token(data_dir: Path, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.pair("daemon")
    token = TokenFile(data_dir).create("v", Role.VIEWER, 600)
    settings = ServiceConfig(http_address="0.0.0.0:0", tls_certificate=pair.certificate, tls_key=pair.key)
    with running(data_dir) as (service, _), WebServer(service, data_dir, settings) as web:
        assert web.url == f"https://localhost:{web.port}/"
        trusted = ssl.create_default_context(cafile=str(authority.certificate))
        statuses = []
        for headers in ({}, {"authorization": f"Bearer {token}"}):
            connection = http.client.HTTPSConnection("localhost", web.port, context=trusted, timeout=20)
            connection.request("GET", "/v1/status", headers=headers)
            statuses.append(connection.getresponse().status)
            connection.close()
        assert statuses == [401, 200]
        plain = http.client.HTTPConnection("localhost", web.port, timeout=20)
        plain.request("GET", "/v1/status")
        with pytest.raises((http.client.HTTPException, OSError)):
            plain.getresponse()
        plain.close()


@pytest.mark.parametrize("signed", [False, True])
def test_a_certificate_is_used_on_this_computer_too(data_dir: Path, tmp_path: Path, signed: bool) -> None:
    authority = Authority(tmp_path)
    pair = authority.pair("daemon")
    files = {"tls_certificate": pair.certificate, "tls_key": pair.key}
    if signed:
        files["tls_client_ca"] = authority.certificate
    settings = ServiceConfig(http_address="127.0.0.1:0", **files)
    with running(data_dir) as (service, _), WebServer(service, data_dir, settings) as web:
        assert web.url == f"https://localhost:{web.port}/"
        plain = http.client.HTTPConnection("127.0.0.1", web.port, timeout=20)
        plain.request("GET", "/healthz")
        with pytest.raises((http.client.HTTPException, ConnectionError)):
            plain.getresponse()
        plain.close()
        trusted = ssl.create_default_context(cafile=str(authority.certificate))
        if signed:
            trusted.load_cert_chain(pair.certificate, pair.key)
        connection = http.client.HTTPSConnection("localhost", web.port, context=trusted, timeout=20)
        connection.request("GET", "/v1/status")
        assert connection.getresponse().status == (401 if signed else 200)  # signed clients still need a token
        connection.close()


def test_a_key_of_another_certificate_is_refused_at_the_start(data_dir: Path, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    one, other = authority.pair("one"), authority.pair("other")
    settings = ServiceConfig(http_address="0.0.0.0:0", tls_certificate=one.certificate, tls_key=other.key)
    with running(data_dir) as (service, _), pytest.raises(ConfigError, match="cannot use its certificate"):
        WebServer(service, data_dir, settings).__enter__()


def test_a_reader_that_does_not_read_keeps_nobody_waiting(data_dir: Path) -> None:
    """Ten megabytes are to be sent; the thread that sends them waits, and everything else goes on."""
    many_changes(data_dir, 2000, n_words=700)
    with asked(data_dir) as (client, _, _):
        stuck = client.connect()
        stuck.request("GET", "/v1/results:watch?after_sequence=0")
        assert stuck.getresponse().status == 200
        for _ in range(20):
            assert client.get("/v1/status").status == 200
        stuck.close()


def test_streams_end_with_the_daemon(data_dir: Path) -> None:
    begun, ended = threading.Event(), threading.Event()
    with asked(data_dir) as (client, _, _):
        connection = client.connect()
        connection.request("GET", "/v1/status:watch")
        answer = connection.getresponse()

        def read() -> None:
            try:
                while answer.readline():
                    begun.set()
            except (http.client.HTTPException, OSError):
                pass
            ended.set()

        threading.Thread(target=read, daemon=True).start()
        assert begun.wait(20)
    assert ended.wait(20)
    connection.close()


def test_the_command_says_where_the_page_is(data_dir: Path) -> None:
    missing = spheroidd("page", str(data_dir), "--print")
    assert missing.returncode == 2
    assert "no daemon with a page runs here" in missing.stderr


def test_a_finished_plate_has_a_page_without_a_daemon(data_dir: Path, tmp_path: Path) -> None:
    words = tmp_path / "words.de.json"
    words.write_text('{"language": "de", "the body is too large": "zu viel"}', encoding="utf-8")
    before = {path.name for path in data_dir.iterdir()}
    with page_alone(data_dir, "127.0.0.1:0", words) as web:
        client = Client(web.port)
        assert '"the body is too large": "zu viel"' in client.get("/").body.decode()
        assert client.get("/words.json").json["alarms"] == "Alarms"
        assert client.get("/page/me").json["role"] == "viewer"
        assert client.get("/page/plate?plate=P1").status == 200
        refused = client.post("/v1/run:pause", {"when": "PAUSE_WHEN_AFTER_WELL"})
        assert refused.status == 403
        assert {path.name for path in data_dir.iterdir()} - before <= {"catalog.sqlite-shm", "catalog.sqlite-wal"}


@pytest.mark.parametrize(
    ("address", "words"),
    [("0.0.0.0:0", "for this computer alone|certificate|token"), ("nonsense", "address")],
)
def test_a_page_without_a_daemon_is_for_this_computer_alone(data_dir: Path, address: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words), page_alone(data_dir, address):
        pass


def test_a_page_needs_a_plate(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no plate was ever run here"), page_alone(tmp_path, "127.0.0.1:0"):
        pass


@pytest.mark.skipif(os.name == "nt", reason="Windows has no signal that only asks a process to end")
def test_the_command_serves_a_finished_plate_until_it_is_told_to_end(data_dir: Path) -> None:
    command = [*COMMAND, "page", str(data_dir), "--no-browser", "--address", "127.0.0.1:0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline().strip().rstrip("/").rpartition(":")[2])
        assert Client(port).get("/healthz").status in (200, 503)
        process.terminate()
        _, said = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "takes no orders" in said


@pytest.mark.parametrize("text", ["", "{", "[]", '{"url": 1}', '{"url": "javascript:alert(1)"}', json.dumps({"a": 1})])
def test_a_damaged_address_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "page.json").write_text(text)
    assert read_page(tmp_path) is None
