"""The service beside a running daemon: binds, guards and serves; main only sees its inbox and its door for pushes.

Its threads submit orders and read the catalog over connections of their own. Nothing here can slow a frame down but
by the processor time it takes.
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from spheroidd.daemon.config.model import ServiceConfig, open_source
from spheroidd.daemon.config.submitted_plates import SubmittedPlates
from spheroidd.daemon.monitoring.failed_logins import FailedLogins
from spheroidd.daemon.pipeline.live_view import LiveView
from spheroidd.daemon.pipeline.orders import Inbox
from spheroidd.daemon.pipeline.view_trail import ViewTrail
from spheroidd.daemon.service.authorization import SERVICE, AuthInterceptor
from spheroidd.daemon.service.control_lease import ControlLease
from spheroidd.daemon.service.push_message import PushShortcut
from spheroidd.daemon.service.push_stream import PushDoor
from spheroidd.daemon.service.servicer import Servicer, control_message
from spheroidd.daemon.service.status_board import StatusBoard
from spheroidd.daemon.service.tls import server_credentials
from spheroidd.daemon.service.tokens import Role, TokenFile
from spheroidd.daemon.service.viewers import MAX_VIEWERS, Viewers
from spheroidd.daemon.system.address_files import ServiceAddress, remove_address, write_address
from spheroidd.daemon.system.clock import SystemClock
from spheroidd.daemon.system.last_resort import LastResort
from spheroidd.protocols import spheroidd_pb2 as wire
from spheroidd.protocols import spheroidd_pb2_grpc as wire_grpc
from spheroidd.protocols.errors import ConfigError, DaemonError

MAX_CALLS = 16  # at once, beside the streams; more are refused, not queued
MAX_MESSAGE_BYTES = 32 << 20  # one slice of the largest camera
MAX_CONNECTIONS = 256  # a socket and a few kB each; more are closed as they come
MAX_STREAMS = 2 * (MAX_VIEWERS + MAX_CALLS)  # of one connection: beyond what is served they only get refusals
HANDSHAKE_MS = 10_000  # TLS and HTTP/2's first frames, over the slowest line; a half-open connection ends with it
IDLE_MS = 600_000  # a connection without a call; a client opens the next one by itself
STRANGERS, STRANGERS_S = 8, 5.0  # health checks need no token: so many at once, and so long for their few bytes
GRACE_S = 1.0
RELEASE_S = 15.0  # for an instrument that somebody looked through
START_S = 60.0  # a start takes milliseconds; one that takes a minute never ends, and is ended so that it is seen
# How long a thread that computes may hold up one that answers. With Python's own 5 ms the p99 of GetStatus at 100
# planes/s is 11 ms, with this 8 ms (medians of 6), and pushes are as fast.
SWITCH_S = 0.001


def _options() -> list[tuple[str, int]]:
    return [
        ("grpc.so_reuseport", 0),  # two daemons on one port would share its calls
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.http2.max_frame_size", 4 << 20),  # a slice in one frame: a third faster than in the usual 16 kB
        ("grpc.http2.lookahead_bytes", 4 << 20),
        ("grpc.keepalive_time_ms", 20_000),  # finds a viewer whose computer was switched off
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
        ("grpc.max_allowed_incoming_connections", MAX_CONNECTIONS),
        ("grpc.max_concurrent_streams", MAX_STREAMS),
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS),
        ("grpc.max_connection_idle_ms", IDLE_MS),
    ]


class Service:
    """A context manager: serves from entering to leaving. ConfigError for an unusable address or certificate."""

    def __init__(self, data_dir: Path, settings: ServiceConfig, failed_logins: FailedLogins | None = None) -> None:
        self._data_dir, self._settings = data_dir, settings
        self.failed_logins = failed_logins or FailedLogins()
        self.inbox, self.door = Inbox(), PushDoor()
        plans = SubmittedPlates(data_dir)
        self.live = LiveView(lambda plate: open_source(plans.load(plate), SystemClock()), ViewTrail(data_dir))
        self._lease, self._viewers = ControlLease(), Viewers()
        self._board = StatusBoard(data_dir, self._add_what_only_the_service_knows)
        anonymous = Role.NONE
        if settings.local and settings.tls_client_ca is None:
            anonymous = Role[settings.local_role.upper()]
        self._strangers = Viewers(STRANGERS, STRANGERS_S)
        self._gate = AuthInterceptor(TokenFile(data_dir), anonymous, self.failed_logins, self._strangers)
        self.servicer = Servicer(
            data_dir,
            inbox=self.inbox,
            board=self._board,
            gate=self._gate,
            lease=self._lease,
            viewers=self._viewers,
            door=self.door,
            live=self.live,
        )
        self._health = health.HealthServicer()
        self.port = 0

    def __enter__(self) -> Self:
        sys.setswitchinterval(SWITCH_S)
        pool = ThreadPoolExecutor(MAX_VIEWERS + MAX_CALLS, thread_name_prefix="service")
        self._server = grpc.server(
            pool,
            interceptors=[self._gate, PushShortcut(self.servicer.push)],
            options=_options(),
            maximum_concurrent_rpcs=MAX_VIEWERS + MAX_CALLS,
        )
        self._pool = pool
        wire_grpc.add_SpheroiddServicer_to_server(self.servicer, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)
        self.port = self._bind()
        self._board.start()
        with LastResort() as bound:  # gRPC's own threads were once seen to wait for each other in here for ever
            bound.end_within(START_S, DaemonError.exit_code)
            self._server.start()
        for name in ("", SERVICE):
            self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        write_address(self._data_dir, self._address())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        remove_address(self._data_dir)
        self._health.enter_graceful_shutdown()
        self.inbox.close()
        self.live.forbid("the daemon is ending", RELEASE_S)
        self._board.close()  # lets the streams go
        self._server.stop(GRACE_S).wait()
        self._pool.shutdown(wait=True)

    @property
    def watched(self) -> bool:
        """Whether somebody follows a stream now."""
        return len(self._viewers) > 0

    @contextlib.contextmanager
    def looking(self) -> Iterator[Self]:
        """Without a port and without orders: what a page needs to show what is there, where no daemon runs.

        Instead of entering the service itself; nothing is written into the data directory.
        """
        self.inbox.close()
        self._board.start()
        try:
            yield self
        finally:
            self._board.close()

    def _bind(self) -> int:
        address = self._settings.address
        credentials = server_credentials(self._settings)
        try:
            if credentials is None:
                port = self._server.add_insecure_port(address)
            else:
                port = self._server.add_secure_port(address, credentials)
        except RuntimeError as error:
            port = 0
            reason = str(error)
        else:
            reason = "the port is taken, or the certificate cannot be used"
        if port == 0:
            do = "choose another port, or 127.0.0.1:0 for any that is free"
            raise ConfigError(f"the service cannot use {address}: {reason}", where="service.address", do=do)
        return port

    def _address(self) -> ServiceAddress:
        settings = self._settings
        host = settings.host if settings.local else "localhost"
        return ServiceAddress(
            address=f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}",
            pid=os.getpid(),
            certificate=str(settings.tls_certificate) if settings.tls_certificate else None,
            name=settings.name,
        )

    def _add_what_only_the_service_knows(self, status: wire.Status) -> None:
        self._viewers.cut_stuck()
        self._strangers.cut_stuck()
        status.orders_waiting = len(self.inbox)
        lease = self._lease.current()
        if lease is not None:
            status.control.CopyFrom(control_message(lease))
