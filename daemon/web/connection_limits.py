"""How long, and how much, a connection to the page may take: half-open and idle ones keep nobody out.

A connection costs a socket and a few kilobytes from its first byte on, long before anything says who it is. So one that
has not sent a whole request head in time is closed, and where all places are taken the one that has waited longest
without a request under way gives up its place: the next caller, a health check among them, is always heard.
"""

import asyncio
from functools import partial
from typing import Any

import h11
from uvicorn import Config, Server
from uvicorn.protocols.http.h11_impl import H11Protocol

MAX_CONNECTIONS = 160  # 64 streams, 24 calls at work, a browser's six for each viewer of a lab: twice that
RESERVE = 32  # requests beyond that, while those that were closed for them have not ended yet
MAX_HEAD_BYTES = 16 << 10  # a token, a Host and what a browser adds are 2 kB
HEAD_S = 10.0  # a whole request head, and before it the TLS handshake, over the slowest line
KEEP_ALIVE_S = 20  # the page asks every second or two
WRITE_S = 60.0  # how long an answer waits for a reader that does not read, as long as gRPC's viewers


class BoundedConnection(H11Protocol):
    """One connection, closed by what the module says."""

    _deadline: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None
    idle_since_s = 0.0

    @property
    def at_work(self) -> bool:
        """Whether a request is whole and its answer is not."""
        answering = self.cycle is not None and not self.cycle.response_complete
        return answering and self.conn.their_state is not h11.SEND_BODY

    def connection_made(self, transport: Any) -> None:
        """See asyncio.Protocol."""
        super().connection_made(transport)
        self._wait_for_head(HEAD_S)
        if len(self.connections) >= MAX_CONNECTIONS:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        for timer in (self._deadline, self._unread):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        """What came is read; a request that begins to be worked on stops the clock."""
        before = self.cycle
        super().handle_events()
        if self.cycle is not before and self._deadline is not None:
            self._deadline.cancel()

    def on_response_complete(self) -> None:
        """The next request may come. What is left of this one's body is not waited for any longer than that."""
        unread_body = self.conn.their_state is h11.SEND_BODY
        self._wait_for_head(HEAD_S if unread_body else HEAD_S + KEEP_ALIVE_S)
        super().on_response_complete()

    def pause_writing(self) -> None:
        """The reader does not read: for so long, and no longer."""
        super().pause_writing()
        self._unread = self.loop.call_later(WRITE_S, self.transport.abort)

    def resume_writing(self) -> None:
        """It reads again."""
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()

    def _wait_for_head(self, seconds: float) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self.idle_since_s = self.loop.time()
        self._deadline = self.loop.call_later(seconds, self.transport.abort)

    def _make_room(self) -> None:
        """Close the connection that has been idle or half open for longest; uvicorn refuses where none is."""
        idle = [one for one in self.connections if isinstance(one, BoundedConnection) and not one.at_work]
        oldest = min(idle, key=lambda one: (one is self, one.idle_since_s))
        if oldest is not self:
            self.connections.discard(oldest)
            oldest.transport.abort()


def new_loop(config: Config) -> asyncio.AbstractEventLoop:
    """A loop whose servers give a TLS handshake no more time than a request's head."""
    make: Any = config.get_loop_factory() or asyncio.new_event_loop
    loop: asyncio.AbstractEventLoop = make()
    if config.is_ssl:
        limited = partial(loop.create_server, ssl_handshake_timeout=HEAD_S)
        loop.create_server = limited  # type: ignore[method-assign]
    return loop


def serve(server: Server, sockets: Any) -> None:
    """Serve until `server.should_exit`."""
    with asyncio.Runner(loop_factory=partial(new_loop, server.config)) as runner:
        runner.run(server.serve(sockets=sockets))
