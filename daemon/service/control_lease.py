"""The reservation of the controls, so that two people cannot drive one microscope at once."""

import hmac
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from spheroidd.daemon.service.tokens import Caller, ForbiddenError, Role
from spheroidd.protocols.errors import ConfigError, RefusedError

DEFAULT_S, SHORTEST_S, LONGEST_S = 60.0, 10.0, 3600.0


class ControlHeldError(RefusedError):
    """Somebody else has reserved the controls."""


@dataclass(frozen=True, slots=True)
class Lease:
    """Who holds the controls until when (seconds since 1970); `secret` is known to the holder alone."""

    holder: str
    expires_s: float
    secret: str


class ControlLease:
    """At most one lease at a time; without one, every operator may order. Safe for many threads."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now, self._lock = now, threading.Lock()
        self._lease: Lease | None = None

    def current(self) -> Lease | None:
        """The lease that stands, if any."""
        with self._lock:
            return self._current()

    def take(self, caller: Caller, holder: str, duration_s: float | None, secret: str, *, force: bool) -> Lease:
        """Reserve the controls, or renew the lease of this secret. ControlHeldError where another holds them."""
        duration_s = DEFAULT_S if duration_s is None else duration_s
        if not SHORTEST_S <= duration_s <= LONGEST_S:
            do = f"choose {SHORTEST_S:g} to {LONGEST_S:g} s and renew it"
            raise ConfigError(f"the controls cannot be reserved for {duration_s:g} s", do=do)
        if force and caller.role < Role.ADMIN:
            raise ForbiddenError("only an admin may take the controls from another", do="ask the holder, or an admin")
        name = " ".join(holder.split())[:64] or caller.name
        with self._lock:
            lease = self._current()
            if not force:
                self._check(lease, secret)
            kept = lease.secret if lease is not None and not force else secrets.token_hex(16)
            self._lease = Lease(name, self._now() + duration_s, kept)
            return self._lease

    def release(self, secret: str) -> None:
        """Give the controls free; ControlHeldError where another holds them."""
        with self._lock:
            self._check(self._current(), secret)
            self._lease = None

    def check(self, secret: str) -> None:
        """ControlHeldError where another holds the controls."""
        with self._lock:
            self._check(self._current(), secret)

    def _current(self) -> Lease | None:
        if self._lease is not None and self._now() >= self._lease.expires_s:
            self._lease = None
        return self._lease

    def _check(self, lease: Lease | None, secret: str) -> None:
        if lease is None or hmac.compare_digest(lease.secret.encode(), secret.encode()):
            return
        left_s = lease.expires_s - self._now()
        do = f"ask {lease.holder}, or wait {left_s:.0f} s, or let an admin take them with force"
        raise ControlHeldError(f"the controls are reserved by {lease.holder}", do=do)
