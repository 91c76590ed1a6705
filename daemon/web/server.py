"""HTTP beside a running daemon: one thread with a web server, over the same servicer and the same tokens as gRPC.

It is never a reason not to image: where its port is taken it moves to another, and says so; what fails in it stays in
it. Where no daemon runs, it serves what is there to be looked at.
"""

import contextlib
import logging
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from pydantic import ValidationError
from rich.console import Console

from spheroidd.daemon.config.model import ServiceConfig
from spheroidd.daemon.service.authorization import AuthInterceptor
from spheroidd.daemon.service.tls import read_pem
from spheroidd.daemon.service.tokens import Role, TokenFile
from spheroidd.daemon.service.viewers import Viewers
from spheroidd.daemon.system.address_files import remove_page, write_page
from spheroidd.protocols.errors import ConfigError

if TYPE_CHECKING:
    import uvicorn

    from spheroidd.daemon.service.server import Service

GRACE_S = 2
LAST_LOOK_S = 1.5  # so long a page that is open has to see how the run ended: the status is looked up twice a second
_log = logging.getLogger(__name__)


class WebServer:
    """A context manager: serves from entering to leaving. ConfigError for an unusable address or certificate.

    `url` is where the page is; `moved` says that the port which was asked for was taken. One that is not `announced`
    leaves no word of itself in the data directory.
    """

    def __init__(self, service: "Service", data_dir: Path, settings: ServiceConfig, *, announced: bool = True) -> None:
        self._service, self._data_dir, self._settings = service, data_dir, settings
        self._announced = announced
        anonymous = Role.NONE
        if settings.http_local and settings.tls_client_ca is None:
            anonymous = Role[settings.local_role.upper()]
        self._gate = AuthInterceptor(TokenFile(data_dir), anonymous, service.failed_logins, Viewers())
        self._server: uvicorn.Server | None = None
        self._ending = threading.Event()
        self.url, self.port, self.moved = "", 0, False

    def __enter__(self) -> Self:
        self._check_certificate()
        self._check_words()
        self._socket = self._bind()
        # asyncio only sees to this for sockets it made itself; without it each small answer waits 40 ms
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.port = self._socket.getsockname()[1]
        self.url = (
            f"{'http' if self._settings.tls_certificate is None else 'https'}://{_name(self._settings)}:{self.port}/"
        )
        self._thread = threading.Thread(target=self._serve, name="web", daemon=True)
        self._thread.start()
        if self._announced:
            write_page(self._data_dir, self.url)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._announced:
            remove_page(self._data_dir)
        if kind is None and self._service.watched:
            time.sleep(LAST_LOOK_S)
        self._ending.set()
        if self._server is not None:
            self._server.should_exit = True
        self._thread.join(2 * GRACE_S + 5)

    def _bind(self) -> socket.socket:
        host, port = self._settings.http_host, int(self._settings.http_address.rpartition(":")[2])
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            return socket.create_server((host, port), family=family, backlog=64)
        except (OSError, OverflowError):
            self.moved = True
        try:
            return socket.create_server((host, 0), family=family, backlog=64)
        except OSError as error:
            do = "write an address of this computer, such as 127.0.0.1:8040"
            what = f"the page cannot use {self._settings.http_address}: {error.strerror or error}"
            raise ConfigError(what, where="service.http_address", do=do) from error

    def _serve(self) -> None:
        """The thread's work. What it needs is imported here, so that the daemon itself starts without waiting."""
        try:
            import uvicorn

            from spheroidd.daemon.web import connection_limits as limits
            from spheroidd.daemon.web.app import WebApp
            from spheroidd.daemon.web.page import page_routes

            app = WebApp(self._service, self._gate, self._data_dir, self._settings, self._ending)
            config = uvicorn.Config(
                app.application(page_routes(app, self._data_dir, self._settings)),
                loop="asyncio",
                http=limits.BoundedConnection,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                limit_concurrency=limits.MAX_CONNECTIONS + limits.RESERVE,
                h11_max_incomplete_event_size=limits.MAX_HEAD_BYTES,
                timeout_keep_alive=limits.KEEP_ALIVE_S,
                timeout_graceful_shutdown=GRACE_S,
                **self._tls(),
            )
            self._server = uvicorn.Server(config)
            if not self._ending.is_set():
                limits.serve(self._server, [self._socket])
        except Exception:
            _log.exception("the page has ended; the run goes on")
        finally:
            self._socket.close()  # who asks now is refused, not left to wait

    def _check_certificate(self) -> None:
        """Refuse at the start what TLS could not use; uvicorn would only say so in its own thread."""
        found = self._tls()
        if not found:
            return
        for name in ("tls_certificate", "tls_key"):
            read_pem(getattr(self._settings, name), f"service.{name}", b"CERTIFICATE" if "cert" in name else b"KEY")
        try:
            ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(
                found["ssl_certfile"], found["ssl_keyfile"], password=""
            )
        except (OSError, ssl.SSLError) as error:
            what = f"the page cannot use its certificate: {error}"
            raise ConfigError(what, where="service.tls_certificate", do="give a certificate and its own key") from error

    def _check_words(self) -> None:
        """Refuse at the start, too, a translation that the page could not show."""
        if self._settings.http_words is not None:
            from spheroidd.daemon.web.words import words

            words(self._settings.http_words)

    def _tls(self) -> dict[str, Any]:
        """TLS wherever there is a certificate, on this computer too; where an authority is named, only its clients."""
        settings = self._settings
        if settings.tls_certificate is None:
            return {}
        found: dict[str, Any] = {
            "ssl_certfile": str(settings.tls_certificate),
            "ssl_keyfile": str(settings.tls_key),
        }
        if settings.tls_client_ca is not None:
            found |= {"ssl_ca_certs": str(settings.tls_client_ca), "ssl_cert_reqs": ssl.CERT_REQUIRED}
        return found


def _name(settings: ServiceConfig) -> str:
    """The host as it stands in a web address."""
    host = settings.http_host
    if host in ("0.0.0.0", "::") or (settings.http_local and settings.tls_certificate is not None):
        return settings.name or "localhost"  # a certificate is made for a name
    return f"[{host}]" if ":" in host else host


@contextlib.contextmanager
def page_alone(data_dir: Path, address: str, words: Path | None = None) -> Iterator["WebServer"]:
    """The page of a data directory on which no daemon runs: it shows what is there and takes no order.

    On this computer without a token, as a viewer. Writes nothing, so a daemon may start beside it. ConfigError where
    no plate was ever run there, for an address that is not one of this computer, and for words that are no translation.
    """
    from spheroidd.daemon.catalog.reader import CatalogReader
    from spheroidd.daemon.service.server import Service

    CatalogReader.read_only(data_dir).close()
    try:
        settings = ServiceConfig(http_address=address, local_role="viewer", http_words=words)
    except ValidationError as error:
        what = "; ".join(one["msg"].removeprefix("Value error, ") for one in error.errors())
        raise ConfigError(what, where=address, do="write an address such as 127.0.0.1:8040") from error
    if not settings.http_local:
        do = "write an address of this computer; for others run a daemon, which knows certificates and tokens"
        raise ConfigError("a page without a daemon is for this computer alone", where=address, do=do)
    with (
        Service(data_dir, settings).looking() as service,
        WebServer(service, data_dir, settings, announced=False) as web,
    ):
        yield web


@contextlib.contextmanager
def page_beside(
    service: "Service | None", data_dir: Path, settings: ServiceConfig, console: Console
) -> Iterator["WebServer | None"]:
    """The page, as long as the run lasts, where it is wanted; says where it is."""
    if service is None or not settings.http:
        yield None
        return
    with WebServer(service, data_dir, settings) as web:
        moved = f" ({settings.http_address} is taken)" if web.moved else ""
        console.print(f"page: {web.url}{moved}", highlight=False)
        yield web
