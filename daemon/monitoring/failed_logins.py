"""Calls with a token that is not valid: counted, logged, answered late, and an alarm where they are many.

A token has 256 random bits, so nobody guesses one; what this is for is that somebody who tries is seen, and slowed. A
valid token is never counted, delayed or refused for what others did from the same address. Nothing here grows with the
number of failures, and no token is ever written down.
"""

import contextlib
import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from spheroidd.daemon.monitoring.event_log import tell
from spheroidd.protocols.errors import RefusedError, SpheroiddError

WINDOW_S = 600.0
ALARM_AT = 20  # within the window: more than a person mistypes, less than a page with an old token asks in a minute
FIRST_S, LONGEST_S = 0.25, 4.0  # the answer's delay, doubled with each failure of a peer
MAX_DELAYED = 8  # answers that wait at once, a thread each over gRPC; more are given at once, so that none is held up
MAX_PEERS = 1024


@dataclass(slots=True)
class _Peer:
    failures: int
    last_s: float


class FailedLogins:
    """One for a daemon; safe for threads. `total` is the number since its start."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now, self._lock = now, threading.Lock()
        self._peers: OrderedDict[str, _Peer] = OrderedDict()
        self._recent: deque[tuple[float, str]] = deque(maxlen=ALARM_AT)
        self._delayed = threading.BoundedSemaphore(MAX_DELAYED)
        self.total = 0

    @contextlib.contextmanager
    def answering(self, peer: str, error: SpheroiddError) -> Iterator[float]:
        """Around the answer to a failure: how many seconds it is to wait."""
        delay_s = self._count(peer, error)
        waits = self._delayed.acquire(blocking=False)
        try:
            yield delay_s if waits else 0.0
        finally:
            if waits:
                self._delayed.release()

    def alarm(self) -> SpheroiddError | None:
        """What must be said of the last ten minutes; None where the failures were few."""
        with self._lock:
            recent = list(self._recent)
        if len(recent) < ALARM_AT or self._now() - recent[0][0] > WINDOW_S:
            return None
        peers = [peer for _, peer in recent]
        worst = max(sorted(set(peers)), key=peers.count)
        what = f"{ALARM_AT} calls or more within {WINDOW_S / 60:g} minutes had a token that is not valid"
        do = "see `spheroidd logs`; close an old page, or revoke and make new what others may have read"
        return RefusedError(what, where=f"most of them from {worst}", do=do)

    def _count(self, peer: str, error: SpheroiddError) -> float:
        """Count a failure and log it; how long its answer waits."""
        now_s = self._now()
        with self._lock:
            self.total += 1
            self._recent.append((now_s, peer))
            known = self._peers.pop(peer, None)
            failures = known.failures + 1 if known and now_s - known.last_s <= WINDOW_S else 1
            self._peers[peer] = _Peer(failures, now_s)
            if len(self._peers) > MAX_PEERS:
                self._peers.popitem(last=False)
        if failures.bit_count() == 1:  # the 1st, 2nd, 4th, 8th ...: a flood fills no log
            tell("authentication-failed", None, logging.WARNING, peer=peer, failures=failures, what=error.what)
        return min(LONGEST_S, FIRST_S * 2.0 ** min(failures - 1, 16))


def peer_of(address: str) -> str:
    """The computer of a gRPC peer, without the port that changes with each connection.

    >>> peer_of("ipv4:192.0.2.7:51712"), peer_of("ipv6:%5B::1%5D:51712")
    ('192.0.2.7', '::1')
    """
    kind, _, rest = address.partition(":")
    host = rest.rpartition(":")[0] if kind in ("ipv4", "ipv6") else address
    return host.removeprefix("%5B").removesuffix("%5D").strip("[]") or address
