"""Tokens and the lease of the controls: who may, until when, and what is kept of it."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spheroidd.daemon.service.control_lease import ControlHeldError, ControlLease
from spheroidd.daemon.service.tokens import Caller, ForbiddenError, Role, TokenFile, UnknownCallerError
from spheroidd.protocols.errors import ConfigError, SpheroiddError

OPERATOR, ADMIN = Caller("ann", Role.OPERATOR), Caller("root", Role.ADMIN)


class Time:
    def __init__(self) -> None:
        self.now_s = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def tokens(tmp_path: Path, time: Time) -> TokenFile:
    return TokenFile(tmp_path, time)


@pytest.mark.parametrize("role", [Role.VIEWER, Role.OPERATOR, Role.ADMIN])
def test_a_token_says_whose_it_is(tokens: TokenFile, role: Role) -> None:
    assert tokens.authenticate(tokens.create("Ann at the scope", role, 3600)) == Caller("Ann at the scope", role)


def test_the_file_holds_no_secret_and_is_the_owners_alone(tokens: TokenFile) -> None:
    token = tokens.create("ann", Role.ADMIN, 3600)
    kept = tokens.path.read_text()
    assert token.rpartition("_")[2] not in kept
    assert json.loads(kept)["tokens"][0]["name"] == "ann"
    if os.name == "posix":
        assert tokens.path.stat().st_mode & 0o077 == 0


def test_an_expired_token_is_refused_and_says_so(tokens: TokenFile, time: Time) -> None:
    token = tokens.create("ann", Role.VIEWER, 3600)
    time.now_s += 3599
    tokens.authenticate(token)
    time.now_s += 1
    with pytest.raises(UnknownCallerError, match="has expired"):
        tokens.authenticate(token)


def test_a_revoked_token_is_refused_by_another_process_at_once(tokens: TokenFile, tmp_path: Path, time: Time) -> None:
    token = tokens.create("ann", Role.VIEWER, 3600)
    running = TokenFile(tmp_path, time)
    running.authenticate(token)
    tokens.revoke("ann")
    with pytest.raises(UnknownCallerError):
        running.authenticate(token)


@given(st.text(max_size=200))
@settings(deadline=None)
def test_no_other_text_is_a_token(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    with pytest.raises(UnknownCallerError):
        TokenFile(tmp_path_factory.getbasetemp()).authenticate(text)


@pytest.mark.parametrize("change", [lambda t: t[:-1] + ("0" if t[-1] != "0" else "1"), str.upper, lambda t: t[4:]])
def test_a_token_that_is_nearly_right_is_refused(tokens: TokenFile, change: object) -> None:
    token = tokens.create("ann", Role.ADMIN, 3600)
    with pytest.raises(UnknownCallerError):
        tokens.authenticate(change(token))  # type: ignore[operator]


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"tokens": [{"id": 1}]}', "\x00"])
def test_a_damaged_file_lets_nobody_in(tokens: TokenFile, content: str) -> None:
    token = tokens.create("ann", Role.ADMIN, 3600)
    tokens.path.write_text(content)
    with pytest.raises(SpheroiddError):
        tokens.authenticate(token)


@pytest.mark.parametrize("name", ["", "  ", "x" * 65, "a\x00b"])
def test_a_name_that_nobody_can_read_is_refused(tokens: TokenFile, name: str) -> None:
    with pytest.raises(ConfigError):
        tokens.create(name, Role.VIEWER, 3600)


def test_two_tokens_of_one_name_are_refused_until_the_first_has_expired(tokens: TokenFile, time: Time) -> None:
    tokens.create("ann", Role.VIEWER, 3600)
    with pytest.raises(ConfigError, match="there is a token named"):
        tokens.create("ann", Role.ADMIN, 3600)
    time.now_s += 3600
    tokens.create("ann", Role.ADMIN, 3600)
    assert [token.role for token in tokens.tokens()] == ["admin"]


@pytest.mark.parametrize("role", ["none", "root", ""])
def test_an_unknown_role_is_refused(role: str) -> None:
    with pytest.raises(ConfigError):
        Role.named(role)


# -- the controls


def test_the_second_operator_is_refused_until_the_first_lets_go(time: Time) -> None:
    lease = ControlLease(time)
    first = lease.take(OPERATOR, "Ann", 60, "", force=False)
    with pytest.raises(ControlHeldError, match="reserved by Ann"):
        lease.take(OPERATOR, "Bob", 60, "", force=False)
    with pytest.raises(ControlHeldError):
        lease.check("")
    lease.check(first.secret)
    lease.release(first.secret)
    lease.check("")


def test_a_lease_ends_by_itself_unless_it_is_renewed(time: Time) -> None:
    lease = ControlLease(time)
    first = lease.take(OPERATOR, "", 60, "", force=False)
    time.now_s += 59
    assert lease.take(OPERATOR, "", 60, first.secret, force=False).secret == first.secret
    time.now_s += 59
    with pytest.raises(ControlHeldError):
        lease.check("other")
    time.now_s += 1
    lease.check("other")
    assert lease.current() is None


def test_only_an_admin_takes_the_controls_by_force(time: Time) -> None:
    lease = ControlLease(time)
    first = lease.take(OPERATOR, "Ann", 60, "", force=False)
    with pytest.raises(ForbiddenError):
        lease.take(OPERATOR, "Bob", 60, "", force=True)
    lease.take(ADMIN, "Bob", 60, "", force=True)
    with pytest.raises(ControlHeldError, match="reserved by Bob"):
        lease.check(first.secret)


@pytest.mark.parametrize("seconds", [0.0, 9.9, 3601.0, float("nan")])
def test_a_lease_has_a_sensible_length(seconds: float) -> None:
    with pytest.raises(ConfigError):
        ControlLease().take(OPERATOR, "Ann", seconds, "", force=False)


@pytest.mark.parametrize("letter", ["é", "\ud800"], ids=["no ASCII", "half a pair"])
def test_a_digest_that_is_no_ascii_is_nobodys(tokens: TokenFile, letter: str) -> None:
    token = tokens.create("ann", Role.VIEWER, 3600)
    content = json.loads(tokens.path.read_text())
    content["tokens"][0]["sha256"] = letter + content["tokens"][0]["sha256"][1:]
    tokens.path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(UnknownCallerError):
        tokens.authenticate(token)
