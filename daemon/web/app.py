"""Everything that is served over HTTP, as one ASGI application: REST, OpenAPI, metrics, images, the page.

Its work is done in a bounded number of threads; more requests wait in line, and beyond `connection_limits` are refused.
"""

import json
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import anyio
from anyio import to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from spheroidd.daemon.config.model import ServiceConfig
from spheroidd.daemon.service.authorization import AuthInterceptor, is_wrong_token, needed_role
from spheroidd.daemon.service.server import Service
from spheroidd.daemon.service.tokens import Caller, Role
from spheroidd.daemon.service.viewers import MAX_VIEWERS
from spheroidd.daemon.web.event_stream import EventStream
from spheroidd.daemon.web.openapi import openapi
from spheroidd.daemon.web.problems import RequestError
from spheroidd.daemon.web.request_guard import Guard, known_hosts, on_error, origin
from spheroidd.daemon.web.rest import SERVICE, HttpContext, Transcoder, is_stream, request_message, resume
from spheroidd.daemon.web.rest import to_json as message_json
from spheroidd.daemon.web.zarr_files import ZarrFiles
from spheroidd.protocols.errors import SpheroiddError

T = TypeVar("T")
MAX_BODY_BYTES = 4 << 20  # a plate map of 1536 wells with long paths is a tenth of that
BODY_S = 30.0
LOOKERS, ORDERS = 8, 16  # threads: those that look never wait behind orders, which wait for main
LOOKING = f"/{SERVICE.full_name}/GetStatus"  # what one must be allowed to call in order to see the page's own things
EVERYTHING = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


class WebApp:
    """The application's parts. Where `ending` is set, its streams end."""

    def __init__(
        self,
        service: Service,
        gate: AuthInterceptor,
        data_dir: Path,
        settings: ServiceConfig,
        ending: threading.Event,
    ) -> None:
        self._transcoder, self._gate = Transcoder(service.servicer), gate
        self.failed_logins = service.failed_logins
        self._looking, self._ordering = anyio.CapacityLimiter(LOOKERS), anyio.CapacityLimiter(ORDERS)
        self._streaming = anyio.CapacityLimiter(MAX_VIEWERS)
        self._ending = ending
        self._openapi = json.dumps(openapi()).encode()
        self._zarr = ZarrFiles(data_dir)
        self._hosts, self._origins = known_hosts(settings), {origin(viewer) for viewer in settings.http_viewers}

    def application(self, extra: Sequence[BaseRoute] = ()) -> ASGIApp:
        """The whole application, guarded."""
        routes = [
            Route("/v1/{path:path}", self._rest, methods=EVERYTHING),
            Route("/openapi.json", self._document),
            Route("/zarr/{path:path}", self._file),
            *extra,
        ]
        handlers = {SpheroiddError: self._refuse, HTTPException: on_error, Exception: on_error}
        guard = Middleware(Guard, hosts=self._hosts, origins=self._origins)
        return Starlette(routes=routes, exception_handlers=handlers, middleware=[guard])

    def caller(self, request: Request, method: str = LOOKING) -> Caller:
        """Who asks, where they may call that method; UnknownCallerError or ForbiddenError where not."""
        return self._gate.check(method, _metadata(request))

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Do something that reads files or the catalog."""
        return await to_thread.run_sync(work, limiter=self._looking)

    async def _refuse(self, request: Request, error: Exception) -> Response:
        """A refusal; that of a token which is not valid is counted, and comes late."""
        if isinstance(error, SpheroiddError) and is_wrong_token(error, request.headers.keys()):
            peer = request.client.host if request.client else "unknown"
            with self.failed_logins.answering(peer, error) as delay_s:
                await anyio.sleep(delay_s)
        return await on_error(request, error)

    async def _rest(self, request: Request) -> Response | EventStream:
        route, in_path = self._transcoder.find(request.method, request.scope["raw_path"].decode("latin-1"))
        self._gate.check(route.full_name, _metadata(request))
        body = await _body(request) if route.takes_body else b""
        message = request_message(route, in_path, request.query_params.multi_items(), body)
        context = HttpContext(_metadata(request), _patience_s(request), self._ending)
        if is_stream(route.method):
            resume(message, request.headers.get("last-event-id"))
            start = partial(self._transcoder.stream, route, message, context)
            return EventStream(start, context, self._streaming)
        limiter = self._looking if needed_role(route.full_name) <= Role.VIEWER else self._ordering
        found = await to_thread.run_sync(partial(self._transcoder.call, route, message, context), limiter=limiter)
        return Response(message_json(found), headers={"cache-control": "no-store"}, media_type="application/json")

    async def _document(self, request: Request) -> Response:
        return Response(self._openapi, media_type="application/json")

    async def _file(self, request: Request) -> Response:
        self.caller(request)
        raw_path = request.scope["raw_path"].decode("latin-1")
        return await self.in_thread(partial(self._zarr.answer, raw_path.removeprefix("/zarr/")))


def _metadata(request: Request) -> tuple[tuple[str, str], ...]:
    return tuple(("authorization", value) for value in request.headers.getlist("authorization")[:1])


def _patience_s(request: Request) -> float | None:
    """How long the client waits at most (RFC 7240: `Prefer: wait=5`)."""
    for part in request.headers.get("prefer", "").split(","):
        name, _, value = part.partition("=")
        if name.strip().lower() == "wait" and value.strip().isdecimal():
            return min(float(value), 3600.0)
    return None


async def _body(request: Request) -> bytes:
    """The body of a request, if it is small enough and JSON."""
    found = bytearray()
    try:
        with anyio.fail_after(BODY_S):
            async for part in request.stream():
                found += part
                if len(found) > MAX_BODY_BYTES:
                    do = f"send at most {MAX_BODY_BYTES >> 20} MB"
                    raise RequestError(413, "the body is too large", do=do, headers={"connection": "close"})
    except ClientDisconnect:  # nobody is there to be told; the answer is for the caller's log alone
        raise RequestError(400, "the client went away before its body had come", do="send it again") from None
    except TimeoutError:
        raise RequestError(408, f"the body did not come within {BODY_S:g} s", do="send it again") from None
    if found and request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise RequestError(415, "the body is not said to be JSON", do="send `Content-Type: application/json`")
    return bytes(found)
