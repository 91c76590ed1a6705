"""Receivers are told of alarms: once, in order, with an end, however often they refuse and whoever is killed."""

import hashlib
import hmac
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from email.message import Message
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Message as MessageHandler

from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.config.alarm_settings import AlarmsConfig, EmailConfig, WebhookConfig
from spheroidd.daemon.config.model import load_config, to_toml
from spheroidd.daemon.config.service_settings import read_alarms, read_settings
from spheroidd.daemon.monitoring import transports
from spheroidd.daemon.monitoring.alarm_test import send_test
from spheroidd.daemon.monitoring.event_log import logging_to
from spheroidd.daemon.monitoring.monitor import RunMonitor
from spheroidd.daemon.monitoring.notifications import DeliveryCursor, DeliveryState, next_notice
from spheroidd.daemon.monitoring.notifier import Notifier
from spheroidd.protocols.errors import ConfigError, NoRoomError
from tests.daemon.monitoring.alarm_rig import Hook, hook, plate, raise_alarm, says

RAISED, ENDED = "raised", "ended"


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with plate(tmp_path, now=time.time) as opened:
        yield opened


@contextmanager
def telling(data_dir: Path, url: str, **settings: Any) -> Iterator[Notifier]:
    config = WebhookConfig(url=url, timeout_s=5.0, **settings)
    deliver = transports.webhook(config, data_dir)
    notifier = Notifier(data_dir, "webhook", transports.address(config), deliver, pause_s=0.02)
    notifier.start()
    try:
        yield notifier
    finally:
        notifier.close()


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as door:
        return int(door.getsockname()[1])


def until(found: Callable[[], object], what: str) -> None:
    deadline_s = time.monotonic() + 30.0
    while not found():
        assert time.monotonic() < deadline_s, f"waited in vain until {what}"
        time.sleep(0.01)


# In order, once, with an end


def test_a_receiver_that_refuses_at_first_is_told_everything_in_order(tmp_path: Path, catalog: Catalog) -> None:
    with hook() as server, telling(tmp_path, server.url) as notifier:
        server.answer = lambda: 503
        raise_alarm(catalog, "stalled", "no slice has come")
        raise_alarm(catalog, "disk-short")
        catalog.clear_fault("stalled")
        until(lambda: notifier.problem is not None, "it is said that nobody can be told")
        assert notifier.problem is not None
        assert "HTTP 503" in notifier.problem.what
        server.answer = lambda: 204
        notifier.wake()
        server.wait_for(3)
        catalog.clear_fault("disk-short")
        notifier.wake()
        server.wait_for(4)
        raised_ended = [(RAISED, "stalled"), (RAISED, "disk-short"), (ENDED, "stalled"), (ENDED, "disk-short")]
        assert sorted(server.taken()[:3]) == sorted(raised_ended[:3])
        assert server.taken().index(raised_ended[0]) < server.taken().index(raised_ended[2])
        assert server.taken()[3] == raised_ended[3]
        until(lambda: notifier.problem is None, "all is well again")


def test_notices_come_in_the_order_of_time(tmp_path: Path) -> None:
    now = [time.time()]
    with closing(Catalog.create_or_open(tmp_path, now=lambda: now[0])) as catalog:
        for act, code in (
            (raise_alarm, "a"),
            (raise_alarm, "b"),
            (Catalog.clear_fault, "a"),
            (raise_alarm, "a"),
            (Catalog.clear_fault, "b"),
        ):
            now[0] += 1.0
            act(catalog, code)
        told, found = DeliveryCursor(0.0), []
        while notice := next_notice(catalog, tmp_path, told, "webhook"):
            told = told.after(notice)
            found.append((notice.event, notice.code))
        assert found == [(RAISED, "a"), (RAISED, "b"), (ENDED, "a"), (RAISED, "a"), (ENDED, "b")]


def test_an_alarm_that_stands_while_its_words_change_is_told_once(tmp_path: Path, catalog: Catalog) -> None:
    with hook() as server, telling(tmp_path, server.url) as notifier:
        for free in range(5):
            raise_alarm(catalog, "disk-short", f"{free} GB are free")
            notifier.wake()
        server.wait_for(1)
    assert server.taken() == [(RAISED, "disk-short")]


def test_what_was_over_before_anybody_listened_is_not_told(tmp_path: Path) -> None:
    with closing(Catalog.create_or_open(tmp_path, now=lambda: 1000.0)) as catalog:
        raise_alarm(catalog, "old")
        catalog.clear_fault("old")
        raise_alarm(catalog, "stands")
        with hook() as server, telling(tmp_path, server.url):
            server.wait_for(1)
    assert server.taken() == [(RAISED, "stands")]


def test_a_restart_tells_only_what_is_new(tmp_path: Path, catalog: Catalog) -> None:
    with hook() as server:
        raise_alarm(catalog, "stalled")
        with telling(tmp_path, server.url):
            server.wait_for(1)
        catalog.clear_fault("stalled")
        with telling(tmp_path, server.url):
            server.wait_for(2)
    assert server.taken() == [(RAISED, "stalled"), (ENDED, "stalled")]


def test_the_last_alarm_is_told_before_the_daemon_is_gone(tmp_path: Path, catalog: Catalog) -> None:
    with hook() as server:
        with telling(tmp_path, server.url):
            raise_alarm(catalog, "plate-stopped")
        assert server.taken() == [(RAISED, "plate-stopped")]


def test_a_receiver_is_not_told_that_it_could_not_be_told(tmp_path: Path, catalog: Catalog) -> None:
    raise_alarm(catalog, "webhook-undelivered")
    raise_alarm(catalog, "email-undelivered")
    with hook() as server, telling(tmp_path, server.url):
        server.wait_for(1)
    assert server.taken() == [(RAISED, "email-undelivered")]


_TELL = """
import sys, time
from pathlib import Path
from spheroidd.daemon.monitoring import transports
from spheroidd.daemon.config.alarm_settings import WebhookConfig
from spheroidd.daemon.monitoring.notifier import Notifier
data_dir, url = Path(sys.argv[1]), sys.argv[2]
Notifier(data_dir, "webhook", "here", transports.webhook(WebhookConfig(url=url), data_dir), pause_s=0.02).start()
time.sleep(60)
"""


def test_killed_between_delivery_and_mark_nothing_is_lost_and_the_copy_is_known(
    tmp_path: Path, catalog: Catalog
) -> None:
    raise_alarm(catalog, "one")
    raise_alarm(catalog, "two")
    with hook() as server:
        answers = iter([204, 0])  # the first is accepted; the second comes, but its acceptance never arrives
        server.answer = lambda: next(answers)
        process = subprocess.Popen([sys.executable, "-c", _TELL, str(tmp_path), server.url])
        try:
            server.wait_for(2, accepted=False)
        finally:
            process.kill()
            process.wait()
        catalog.clear_fault("one")
        server.answer = lambda: 204
        with telling(tmp_path, server.url):
            server.wait_for(3)
        ids = [body["id"] for _, body, _, _ in server.seen]
    assert server.taken() == [(RAISED, "one"), (RAISED, "two"), (ENDED, "one")]
    assert ids[1] == ids[2]  # the copy
    assert len(set(ids)) == 3


def test_a_mark_that_was_cut_off_is_no_reason_to_be_silent(tmp_path: Path) -> None:
    DeliveryState(tmp_path, "webhook", 5.0).keep(DeliveryCursor(5.0, 3, (2, 3)))
    assert DeliveryState(tmp_path, "webhook", 9.0).told == DeliveryCursor(5.0, 3, (2, 3))
    (tmp_path / "alarms-told-webhook.json").write_text('{"since_s": 5')
    assert DeliveryState(tmp_path, "webhook", 9.0).told == DeliveryCursor(9.0)


def test_a_catalog_that_cannot_be_written_is_told_of_at_once_and_ends(tmp_path: Path, catalog: Catalog) -> None:
    says(catalog, "stopped")
    with hook() as server:
        settings = AlarmsConfig(webhook=WebhookConfig(url=server.url))
        with logging_to(tmp_path), RunMonitor(tmp_path, catalog, settings) as monitor:
            full = NoRoomError("the disk is full", where="catalog.sqlite", do="make room")
            monitor.catalog_unwritable(full, "storage full")
            monitor.catalog_unwritable(full, "storage full")
            server.wait_for(1)
            monitor.after_heartbeat("running")
            server.wait_for(2)
    assert server.taken()[:2] == [(RAISED, "storage-catalog"), (ENDED, "storage-catalog")]
    assert server.seen[0][1]["alarm"] == server.seen[1][1]["alarm"]


# What is sent


def test_what_a_webhook_is_sent(tmp_path: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK_TOKEN", "t0ken")
    monkeypatch.setenv("HOOK_KEY", "k3y")
    raise_alarm(catalog, "stalled", "no slice\nhas come")
    with hook() as server, telling(tmp_path, server.url, token_env="HOOK_TOKEN", secret_env="HOOK_KEY"):
        server.wait_for(1)
    _, body, headers, raw = server.seen[0]
    assert headers["Authorization"] == "Bearer t0ken"
    assert headers["X-Spheroidd-Signature"] == "sha256=" + hmac.new(b"k3y", raw, hashlib.sha256).hexdigest()
    assert headers["Idempotency-Key"] == body["id"]
    assert body["text"] == "spheroidd critical: P1: no slice has come. To do: mend it."
    assert (body["severity"], body["do"], body["event"]) == ("critical", "mend it", RAISED)


@pytest.mark.parametrize(("status", "words"), [(302, "redirects"), (404, "HTTP 404"), (500, "HTTP 500")])
def test_why_a_webhook_cannot_be_told(tmp_path: Path, catalog: Catalog, status: int, words: str) -> None:
    raise_alarm(catalog, "stalled")
    with hook() as server:
        server.answer = lambda: status
        with telling(tmp_path, server.url) as notifier:
            until(lambda: notifier.problem is not None, "it is said")
            assert words in notifier.problem.what  # type: ignore[union-attr]
            assert "/hook" not in str(notifier.problem)
            server.answer = lambda: 204
            server.wait_for(1)
    assert {status for status, _, _, _ in server.seen} == {status, 204}


def test_nobody_at_the_address(tmp_path: Path, catalog: Catalog) -> None:
    raise_alarm(catalog, "stalled")
    with telling(tmp_path, f"http://127.0.0.1:{free_port()}/secret-path") as notifier:
        until(lambda: notifier.problem is not None, "it is said")
        assert "refused" in notifier.problem.what  # type: ignore[union-attr]
        assert "secret-path" not in str(notifier.problem)


def test_a_secret_that_is_not_set_is_said_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOOK_URL", raising=False)
    with pytest.raises(ConfigError, match="HOOK_URL is not set"):
        transports.webhook(WebhookConfig(url_env="HOOK_URL"), tmp_path)


class Letters(MessageHandler):
    """A mailbox that refuses a number of letters before it takes one."""

    def __init__(self, refusals: int) -> None:
        super().__init__()
        self.refusals = refusals
        self.letters: list[Message] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802 -- aiosmtpd's name
        if self.refusals:
            self.refusals -= 1
            return "451 try again later"
        return await super().handle_DATA(server, session, envelope)  # type: ignore[no-any-return]

    def handle_message(self, message: Message) -> None:
        self.letters.append(message)


def test_mail_is_refused_first_and_taken_then(tmp_path: Path, catalog: Catalog) -> None:
    mailbox = Letters(refusals=3)
    port = free_port()
    controller = Controller(mailbox, hostname="127.0.0.1", port=port)
    controller.start()
    try:
        to = ("a@x.org", "b@x.org")
        config = EmailConfig(host="127.0.0.1", port=port, security="none", sender="lab@x.org", to=to)
        notifier = Notifier(tmp_path, "email", "mail", transports.email(config, tmp_path), pause_s=0.02)
        notifier.start()
        raise_alarm(catalog, "stalled", "no slice\r\nBcc: eve@x.org")
        notifier.wake()
        until(lambda: mailbox.letters, "the first letter is there")
        catalog.clear_fault("stalled")
        notifier.close()
    finally:
        controller.stop()
    first, last = mailbox.letters
    assert (first["To"], first["Bcc"]) == ("a@x.org, b@x.org", None)
    assert first["Subject"] == "spheroidd critical: P1: no slice Bcc: eve@x.org"
    assert "To do: mend it" in first.get_payload()
    assert last["Subject"].startswith("spheroidd over: P1: no slice")
    assert first["Message-ID"].endswith("-raised@spheroidd>")


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({}, "one address"),
        ({"url": "http://x/", "url_env": "X"}, "one address"),
        ({"url": "ftp://x/"}, "pattern"),
        ({"url": "https://me:secret@x/"}, "holds a password"),
        ({"url": "http://x/", "token": "secret"}, "Extra inputs"),
    ],
    ids=str,
)
def test_a_webhook_that_is_none_is_refused(table: dict[str, str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        WebhookConfig.model_validate(table)


def test_a_password_never_crosses_the_network_in_the_clear() -> None:
    mail = {"host": "x", "sender": "a@x", "to": ["b@x"], "user": "a", "password_env": "P"}
    EmailConfig.model_validate(mail)
    with pytest.raises(ValueError, match="in the clear"):
        EmailConfig.model_validate({**mail, "security": "none"})


def test_a_full_disk_costs_a_mark_and_no_notice(
    tmp_path: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, target: Path) -> Path:
        raise OSError(28, os.strerror(28))

    with hook() as server, telling(tmp_path, server.url) as notifier:
        monkeypatch.setattr(Path, "replace", refuse)
        raise_alarm(catalog, "one")
        raise_alarm(catalog, "two")
        notifier.wake()
        server.wait_for(2)
    assert isinstance(server, Hook)
    assert server.taken() == [(RAISED, "one"), (RAISED, "two")]


def test_receivers_are_told_of_a_test(tmp_path: Path) -> None:
    config = tmp_path / "service.toml"
    with hook() as server:
        config.write_text(f"[alarms.webhook]\nurl = '{server.url}'\n")
        assert send_test(config, tmp_path) == {"webhook": ""}
        server.answer = lambda: 403
        assert send_test(config, tmp_path)["webhook"].startswith("HTTP 403")
    config.write_text("[alarms]\n")
    with pytest.raises(ConfigError, match="no receiver"):
        send_test(config, tmp_path)


WHOLE = """[source]
kind = "emulator"
preset = "unit"
[alarms]
stall_s = 30.0
[alarms.webhook]
url_env = "HOOK_URL"
[alarms.email]
host = "mail"
sender = "lab@x.org"
to = ["a@x.org"]
user = "lab"
password_env = "MAIL_PASSWORD"
"""


def test_the_configuration_shows_names_of_secrets_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK_URL", "https://hook/s3cret")
    path = tmp_path / "run.toml"
    path.write_text(WHOLE)
    config = load_config(path)
    shown = to_toml(config)
    assert "s3cret" not in shown + config.model_dump_json()
    path.write_text(shown)
    assert load_config(path).alarms == config.alarms
    path.write_text(WHOLE.replace("url_env", "urll"))
    with pytest.raises(ConfigError, match="urll") as caught:
        load_config(path)
    assert "line 7" in caught.value.where


def test_a_daemon_without_a_plate_has_alarms_too(tmp_path: Path) -> None:
    path = tmp_path / "service.toml"
    path.write_text("[service]\nhttp = false\n[alarms]\nstall_s = 5.0\n")
    assert (read_settings(path).http, read_alarms(path).stall_s) == (False, 5.0)
    assert read_alarms(None) == AlarmsConfig()
    path.write_text("[alarms]\nstall_s = -1.0\n")
    with pytest.raises(ConfigError, match="stall_s"):
        read_alarms(path)
