"""The guard of everything that HTTP serves: which Host and Origin may ask, and which headers every answer carries.

A web page of somebody else, open in the operator's browser, can reach this computer's own ports too. It is told by
its Origin; a name that was pointed here behind the browser's back is told by the Host.
"""

from collections.abc import Callable, Iterable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import Response

from spheroidd.daemon.config.model import ServiceConfig
from spheroidd.daemon.web.problems import MEDIA_TYPE, RequestError, http_status, problem_headers, problem_json
from spheroidd.protocols.errors import SpheroiddError

ZARR = "/zarr/"  # what programs in a browser of other origins may read, where the configuration names them
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
_SECURITY = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
Scope = MutableMapping[str, Any]
Receive = Callable[[], Any]
Send = Callable[[MutableMapping[str, Any]], Any]


def answer(error: SpheroiddError) -> Response:
    """A refusal as an answer."""
    return Response(problem_json(error), http_status(error), problem_headers(error), MEDIA_TYPE)


def known_hosts(settings: ServiceConfig) -> frozenset[str]:
    """The names under which the daemon may be asked, without port."""
    host = settings.http_address.rpartition(":")[0].lower()
    named = [settings.name] if settings.name else []
    return frozenset(name.lower() for name in (*LOOPBACK, host, *named, *settings.http_hosts))


def origin(address: str) -> str:
    """The origin of a web address."""
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc}".lower()


class Guard:
    """ASGI middleware around all of it."""

    def __init__(self, app: Callable[..., Any], hosts: Iterable[str], origins: Iterable[str]) -> None:
        self._app, self._hosts, self._origins = app, frozenset(hosts), frozenset(o.lower() for o in origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or refuse it."""
        if scope["type"] != "http":
            return
        headers = Headers(scope=scope)
        shared: dict[str, str] = {}
        try:
            self._check_host(headers)
            shared = self._check_origin(scope, headers)
        except SpheroiddError as error:
            inner: Any = answer(error)
        else:
            preflight = scope["method"] == "OPTIONS" and bool(shared)
            inner = Response(status_code=204) if preflight else self._app

        async def send_guarded(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_SECURITY | shared)
            await send(message)

        await inner(scope, receive, send_guarded)

    def _check_host(self, headers: Headers) -> None:
        given = headers.getlist("host")
        name = _without_port(given[0]) if len(given) == 1 else ""
        if name not in self._hosts:
            do = 'use localhost, or name it in [service] http_hosts = ["..."]'
            raise RequestError(421, f"this is not the host {name[:100]!r}", do=do)

    def _check_origin(self, scope: Scope, headers: Headers) -> dict[str, str]:
        """Refuse what comes from another site; the headers by which a site that is named may read."""
        origin = headers.get("origin")
        if origin is None:
            site = headers.get("sec-fetch-site", "none")
            visits = scope["method"] == "GET" and headers.get("sec-fetch-mode") == "navigate"
            if site not in ("none", "same-origin") and not visits:
                raise RequestError(403, "another site asks through your browser", do="open the page itself")
            return {}
        if origin.lower() == f"{scope['scheme']}://{headers['host']}".lower():
            return {}
        if origin.lower() in self._origins and scope["path"].startswith(ZARR) and scope["method"] in _READING:
            return {
                "access-control-allow-origin": origin,
                "access-control-allow-methods": "GET, HEAD",
                "access-control-allow-headers": "authorization, range",
                "access-control-allow-private-network": "true",
                "access-control-expose-headers": "content-length, content-range, etag",
                "cross-origin-resource-policy": "cross-origin",
                "vary": "origin",
            }
        do = "open the page itself; [service] http_viewers names those that may read the images"
        raise RequestError(403, f"the origin {origin[:100]!r} may not ask here", do=do)


_READING = ("GET", "HEAD", "OPTIONS")


def _without_port(host: str) -> str:
    name, colon, port = host.lower().rpartition(":")
    return name if colon and (not port or port.isdecimal()) else host.lower()


async def on_error(request: Request, error: Exception) -> Response:
    """A SpheroiddError as its problem; anything else as one that says no more than that it happened."""
    if isinstance(error, SpheroiddError):
        return answer(error)
    status = getattr(error, "status_code", 500)
    headers = dict(getattr(error, "headers", None) or {})
    if status == 404:
        return answer(RequestError(404, "there is no such path", where=request.url.path[:200], do="begin at /"))
    if status < 500:
        what = str(getattr(error, "detail", "refused"))
        return answer(RequestError(status, what, do="/openapi.json says what can be asked, and how", headers=headers))
    do = "look into the daemon's log, and tell its developers"
    return answer(RequestError(500, "an error inside the daemon", do=do))
