"""A stream of messages as Server-Sent Events. One thread reads the stream, at the pace at which the client takes it.

A client that goes away ends the stream within a second; one that stops reading holds one message and nothing else.
"""

from collections.abc import Callable, Iterator, MutableMapping
from functools import partial
from typing import Any

import anyio
from anyio import from_thread, to_thread
from google.protobuf.message import Message

from spheroidd.daemon.web.problems import MEDIA_TYPE as PROBLEM
from spheroidd.daemon.web.problems import http_status, problem_headers, problem_json
from spheroidd.daemon.web.rest import HttpContext, event_id, to_json
from spheroidd.protocols.errors import BusyError, SpheroiddError

MEDIA_TYPE = "text/event-stream"
OPEN_S = 0.3  # a stream that is refused says so at once; one that has nothing to tell yet is opened after that long
BEAT_S = 15.0  # a comment in that time, so that a dead connection is found and none is thought dead
RETRY_MS = 2000
Scope = MutableMapping[str, Any]
Receive = Callable[[], Any]
Send = Callable[[MutableMapping[str, Any]], Any]


class EventStream:
    """An ASGI answer. `start` gives the stream; it is called, and read, in one thread.

    `limiter` has a place for each stream that may be open.
    """

    def __init__(
        self, start: Callable[[], Iterator[Message]], context: HttpContext, limiter: anyio.CapacityLimiter
    ) -> None:
        self._start, self._context, self._limiter = start, context, limiter
        self._open = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; where all places are taken, by a refusal: no stream waits and says nothing."""
        try:
            self._limiter.acquire_on_behalf_of_nowait(self)
        except anyio.WouldBlock:
            most = int(self._limiter.total_tokens)
            await self._refuse(send, BusyError(f"{most} streams are open", do="close one, or ask without a stream"))
            return
        try:
            await self._stream(receive, send)
        finally:
            self._limiter.release_on_behalf_of(self)

    async def _stream(self, receive: Receive, send: Send) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(self._watch, receive, group.cancel_scope)
            group.start_soon(self._beat, send)
            try:
                await to_thread.run_sync(partial(self._pump, send), limiter=anyio.CapacityLimiter(1))
            finally:
                self._context.cancel()
            group.cancel_scope.cancel()

    async def _watch(self, receive: Receive, scope: anyio.CancelScope) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._context.cancel()
        scope.cancel()

    async def _beat(self, send: Send) -> None:
        await anyio.sleep(OPEN_S)
        await self._give(send, f"retry: {RETRY_MS}\n\n".encode())
        while self._context.is_active():
            await anyio.sleep(BEAT_S)
            await self._give(send, b": still here\n\n")

    def _pump(self, send: Send) -> None:
        try:
            for message in self._start():
                from_thread.run(self._give, send, _event(message))
                if not self._context.is_active():
                    break
        except SpheroiddError as error:
            from_thread.run(self._refuse, send, error)
        else:
            from_thread.run(self._end, send)

    async def _give(self, send: Send, body: bytes) -> None:
        if not self._open:
            self._open = True
            headers = [(b"content-type", MEDIA_TYPE.encode()), (b"cache-control", b"no-store")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": True})

    async def _refuse(self, send: Send, error: SpheroiddError) -> None:
        if self._open:
            await self._give(send, b"event: problem\ndata: " + problem_json(error) + b"\n\n")
            await self._end(send)
            return
        self._open = True
        given = {"content-type": PROBLEM, "cache-control": "no-store", **problem_headers(error)}
        headers = [(name.encode(), value.encode()) for name, value in given.items()]
        await send({"type": "http.response.start", "status": http_status(error), "headers": headers})
        await send({"type": "http.response.body", "body": problem_json(error)})

    async def _end(self, send: Send) -> None:
        await self._give(send, b"")
        await send({"type": "http.response.body", "body": b""})


def _event(message: Message) -> bytes:
    name = message.DESCRIPTOR.name
    return f"event: {name}\nid: {event_id(message)}\ndata: ".encode() + to_json(message) + b"\n\n"
