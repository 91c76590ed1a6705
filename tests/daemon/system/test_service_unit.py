"""The service's description, and what the service manager hears: a real socket, and systemd's own judgement."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import xml.etree.ElementTree
from collections.abc import Iterator
from pathlib import Path

import pytest

from spheroidd.daemon.system import service_unit
from spheroidd.daemon.system.systemd import READY, STOPPING, WATCHDOG, notify
from spheroidd.protocols.errors import ConfigError
from tests.daemon.monitoring.alarm_rig import hook
from tests.faults.plate_runs import COMMAND

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="there is no systemd on Windows")


@pytest.fixture
def manager(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[socket.socket]:
    """Stands for systemd: the socket that NOTIFY_SOCKET names."""
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as door:
        door.bind(path)
        door.settimeout(60.0)
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        yield door


@POSIX
def test_the_manager_hears(manager: socket.socket) -> None:
    assert notify(READY, "STATUS=idle")
    assert manager.recv(1000) == b"READY=1\nSTATUS=idle"


@POSIX
def test_an_abstract_name(monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.platform != "linux":
        pytest.skip("abstract names are Linux's own")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as door:
        door.bind(f"\0spheroidd-{os.getpid()}")
        monkeypatch.setenv("NOTIFY_SOCKET", f"@spheroidd-{os.getpid()}")
        assert notify(WATCHDOG)
        assert door.recv(1000) == b"WATCHDOG=1"


@pytest.mark.parametrize("address", ["", "relative", "/there/is/none"])
def test_nobody_hears_and_nothing_stops(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    assert not notify(READY)


@POSIX
def test_a_manager_that_does_not_listen_holds_nobody_up(manager: socket.socket) -> None:
    assert not all(notify("STATUS=" + "x" * 1000) for _ in range(10_000))


@POSIX
def test_a_daemon_says_ready_alive_and_stopping_and_that_it_was_killed(manager: socket.socket, tmp_path: Path) -> None:
    with hook() as server:
        config = tmp_path / "service.toml"
        config.write_text(f"[service]\nhttp = false\n[alarms.webhook]\nurl = '{server.url}'\n")
        command = [*COMMAND, "serve", str(tmp_path / "data"), "--config", str(config)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            heard(manager, READY)
            heard(manager, WATCHDOG)
        finally:
            process.kill()
            process.wait()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            server.wait_for(2)
            heard(manager, READY)
            process.send_signal(signal.SIGTERM)
            heard(manager, STOPPING)
            assert process.wait(60) == 0
        finally:
            process.kill()
            process.wait()
    assert server.taken() == [("raised", "daemon-killed"), ("ended", "daemon-killed")]


def heard(manager: socket.socket, word: str) -> None:
    deadline_s = time.monotonic() + 60.0
    while word not in manager.recv(1000).decode().split("\n"):
        assert time.monotonic() < deadline_s, f"the manager never heard {word}"


# The description


AWKWARD = ["plain", "with blank", 'a "quoted" one', "100 % $HOME \\n", "Grüße"]


@POSIX
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("name", AWKWARD)
@pytest.mark.parametrize("user", [True, False])
def test_systemd_finds_nothing_wrong(tmp_path: Path, name: str, user: bool) -> None:
    unit = tmp_path / "spheroidd.service"
    unit.write_text(service_unit.describe(tmp_path / name / "data", None, user=user, windows=False).text)
    answer = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    assert (answer.returncode, [line for line in answer.stderr.splitlines() if "spheroidd" in line]) == (0, [])


@pytest.mark.parametrize(
    ("part", "written"),
    [("a b", '"a b"'), ("50 %", '"50 %%"'), ("$HOME", '"$$HOME"'), ('say "a"', '"say \\"a\\""'), ("a\\b", '"a\\\\b"')],
)
def test_words_of_a_command_line(part: str, written: str) -> None:
    assert service_unit._quoted(part) == written


def test_a_whole_configuration_is_run_and_another_served(tmp_path: Path) -> None:
    config = tmp_path / "a.toml"
    for text, words in (
        ("[source]\nkind = 'emulator'\n", ['"run"', '"--plain"']),
        ("[service]\n", ['"serve"', '"--config"']),
    ):
        config.write_text(text)
        unit = service_unit.describe(tmp_path / "data", config, user=True, windows=False)
        [line] = [line for line in unit.text.splitlines() if line.startswith("ExecStart=")]
        assert all(word in line for word in words)
        assert f'"{config}"' in line
    config.write_text("[")
    with pytest.raises(ConfigError, match="cannot be read"):
        service_unit.describe(tmp_path, config, user=True)


def test_a_path_with_a_line_break_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="line break"):
        service_unit.describe(tmp_path / "a\nExecStartPre=evil", None, user=True, windows=False)


def test_for_windows(tmp_path: Path) -> None:
    found = service_unit.describe(tmp_path / "a & <b> c" / "data", None, user=False, windows=True)
    tree = xml.etree.ElementTree.fromstring(found.text)
    assert tree.findtext("arguments") is not None
    assert f'"{tmp_path / "a & <b> c" / "data"}"' in (tree.findtext("arguments") or "")
    assert tree.findtext("workingdirectory") == str(tmp_path / "a & <b> c")
    assert any("nssm install" in command for command in found.commands)


def test_installed_again_and_taken_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    found = service_unit.describe(tmp_path / "data", None, user=True, windows=False)
    assert not service_unit.uninstall(found)
    service_unit.install(found)
    service_unit.install(found)
    assert found.path == tmp_path / ".config" / "systemd" / "user" / "spheroidd.service"
    assert service_unit.uninstall(found)
    assert not found.path.exists()


def test_somebody_elses_unit_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    found = service_unit.describe(tmp_path / "data", None, user=True, windows=False)
    found.path.parent.mkdir(parents=True)
    found.path.write_text("[Service]\n")
    for act in (service_unit.install, service_unit.uninstall):
        with pytest.raises(ConfigError, match="something else"):
            act(found)
    assert found.path.read_text() == "[Service]\n"
