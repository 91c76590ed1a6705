"""Who may ask what: tokens with a role, kept as hashes in the data directory.

A token is "sph_<id>_<secret>" with a secret of 256 random bits, so one round of SHA-256 is enough to keep it. It is
shown once, when it is made; the file holds nothing that could be used in its place.
"""

import contextlib
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from spheroidd.protocols.durable import write_atomically
from spheroidd.protocols.errors import ConfigError, SpheroiddError, StorageError
from spheroidd.protocols.json_text import parse_json

TOKENS_NAME = "tokens.json"
PREFIX = "sph"
MAX_TOKENS = 1000
LOCK_S = 5.0


class Role(IntEnum):
    """What one may do; each may do what those before it may."""

    NONE = 0
    VIEWER = 1  # look
    OPERATOR = 2  # drive a plate
    ADMIN = 3  # take the controls from another

    @classmethod
    def named(cls, name: str) -> "Role":
        """The role of that name; ConfigError for another word."""
        if name.upper() not in cls.__members__ or name.lower() == "none":
            raise ConfigError(f"there is no role {name!r}", do="write viewer, operator or admin")
        return cls[name.upper()]


class UnknownCallerError(SpheroiddError):
    """No token, or one that is not valid (any more)."""


class ForbiddenError(SpheroiddError):
    """A valid token of a lesser role than is needed."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: the token's name, or "local"."""

    name: str
    role: Role


@dataclass(frozen=True, slots=True)
class Token:
    """What is kept of a token. Times are seconds since 1970."""

    id: str
    name: str
    role: str
    sha256: str
    created_s: float
    expires_s: float


class TokenFile:
    """The tokens of a data directory; read anew whenever the file was changed."""

    def __init__(self, data_dir: Path, now: Callable[[], float] = time.time) -> None:
        self.path, self._now = data_dir / TOKENS_NAME, now
        self._seen: tuple[int, int, int] | None = None
        self._tokens: dict[str, Token] = {}

    def create(self, name: str, role: Role, valid_s: float) -> str:
        """Make a token and return it: this is the only time it can be read. ConfigError for a name that is in use."""
        name = " ".join(name.split())
        if not name or len(name) > 64 or not name.isprintable():
            raise ConfigError(f"{name!r} is no name for a token", do="write whose it is, in 1 to 64 characters")
        if not 60 <= valid_s <= 10 * 366 * 86_400:
            raise ConfigError(f"a token cannot be valid for {valid_s:g} s", do="choose from a minute to ten years")
        with self._changing() as tokens:
            if any(token.name == name and token.expires_s > self._now() for token in tokens.values()):
                raise ConfigError(f"there is a token named {name!r}", do="revoke it first, or choose another name")
            for old in [token.id for token in tokens.values() if token.expires_s <= self._now()]:
                del tokens[old]
            if len(tokens) >= MAX_TOKENS:
                raise ConfigError(f"there are {MAX_TOKENS} tokens", where=str(self.path), do="revoke some")
            token_id, secret = secrets.token_hex(4), secrets.token_hex(32)
            created_s = self._now()
            tokens[token_id] = Token(
                token_id, name, role.name.lower(), _digest(token_id, secret), created_s, created_s + valid_s
            )
        return f"{PREFIX}_{token_id}_{secret}"

    def revoke(self, name_or_id: str) -> int:
        """Remove the tokens of that name or id; how many. ConfigError where there is none."""
        with self._changing() as tokens:
            gone = [token.id for token in tokens.values() if name_or_id in (token.id, token.name)]
            if not gone:
                do = "`spheroidd token list` shows those there are"
                raise ConfigError(f"there is no token {name_or_id!r}", where=str(self.path), do=do)
            for token_id in gone:
                del tokens[token_id]
        return len(gone)

    def tokens(self) -> list[Token]:
        """Every token, the expired ones too, oldest first."""
        self._refresh()
        return sorted(self._tokens.values(), key=lambda token: token.created_s)

    def authenticate(self, text: str) -> Caller:
        """Whose token this is; UnknownCallerError where it is nobody's, or has expired."""
        self._refresh()
        prefix, _, rest = text.partition("_")
        token_id, _, secret = rest.partition("_")
        token = self._tokens.get(token_id)
        expected = token.sha256 if token else _digest("", "")
        right = hmac.compare_digest(_digest(token_id, secret).encode(), expected.encode(errors="replace"))
        if prefix != PREFIX or token is None or not right:
            raise UnknownCallerError("the token is not known here", do="ask an admin for `spheroidd token create`")
        if self._now() >= token.expires_s:
            what = f"the token of {token.name!r} has expired"
            raise UnknownCallerError(what, do="ask an admin for a new one: `spheroidd token create`")
        return Caller(token.name, Role.named(token.role))

    def _refresh(self) -> None:
        try:
            found = self.path.stat()
        except FileNotFoundError:
            self._seen, self._tokens = None, {}
            return
        except OSError as error:
            raise StorageError(
                f"cannot be read: {error.strerror}", where=str(self.path), do="check its rights"
            ) from error
        seen = (found.st_mtime_ns, found.st_size, found.st_ino)
        if seen != self._seen:
            self._tokens = self._read()
            self._seen = seen

    def _read(self) -> dict[str, Token]:
        try:
            rows: list[dict[str, Any]] = parse_json(self.path.read_text(encoding="utf-8"))["tokens"]
            return {row["id"]: Token(**row) for row in rows}
        except OSError as error:
            raise StorageError(
                f"cannot be read: {error.strerror}", where=str(self.path), do="check its rights"
            ) from error
        except (ValueError, KeyError, TypeError) as error:
            do = "restore it, or remove it and make new tokens"
            raise ConfigError(f"not a file of tokens: {error!r}", where=str(self.path), do=do) from error

    def _unreadable(self, error: OSError) -> StorageError:
        return StorageError(f"cannot be read: {error.strerror}", where=str(self.path), do="check its rights")

    @contextlib.contextmanager
    def _changing(self) -> Iterator[dict[str, Token]]:
        """The tokens, written back whole at the end: a reader sees the old file or the new one."""
        try:
            with FileLock(self.path.with_suffix(".lock"), timeout=LOCK_S):
                tokens = self._read() if self.path.exists() else {}
                yield tokens
                self._write({"version": 1, "tokens": [asdict(token) for token in tokens.values()]})
        except Timeout:
            raise ConfigError("another program changes the tokens", where=str(self.path), do="try again") from None
        except OSError as error:
            do = "give the directory of a run, with the right to write to it"
            raise StorageError(f"cannot be written: {error.strerror}", where=str(self.path), do=do) from error

    def _write(self, content: dict[str, Any]) -> None:
        write_atomically(self.path, json.dumps(content, indent=1).encode(), private=True)


def _digest(token_id: str, secret: str) -> str:
    return hashlib.sha256(f"{token_id}:{secret}".encode()).hexdigest()
