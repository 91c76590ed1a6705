"""The command line's side of the service: finds the daemon of a data directory, or one elsewhere, and asks it."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc

from spheroidd.daemon.service.errors import from_call
from spheroidd.daemon.service.tls import client_credentials
from spheroidd.daemon.system.address_files import ServiceAddress, read_address
from spheroidd.daemon.system.lock import is_locked
from spheroidd.protocols import spheroidd_pb2 as wire
from spheroidd.protocols import spheroidd_pb2_grpc as wire_grpc
from spheroidd.protocols.errors import RefusedError

T = TypeVar("T")
CALL_S = 20.0
PUSH = "/spheroidd.v1.Spheroidd/PushSlices"
TOKEN_VARIABLE, LEASE_VARIABLE = "SPHEROIDD_TOKEN", "SPHEROIDD_LEASE"
CERTIFICATE_VARIABLE, KEY_VARIABLE = "SPHEROIDD_CLIENT_CERTIFICATE", "SPHEROIDD_CLIENT_KEY"


class DaemonClient:
    """A connection to one daemon; a context manager. Errors are those the daemon raised, of the same classes."""

    def __init__(self, address: ServiceAddress, token: str | None = None) -> None:
        self.address = address
        options = [("grpc.max_receive_message_length", -1), ("grpc.http2.max_frame_size", 4 << 20)]
        if address.certificate is None:
            self._channel = grpc.insecure_channel(address.address, options)
        else:
            if address.name:
                options.append(("grpc.ssl_target_name_override", address.name))  # type: ignore[arg-type]
            shown = client_credentials(Path(address.certificate), _path(CERTIFICATE_VARIABLE), _path(KEY_VARIABLE))
            self._channel = grpc.secure_channel(address.address, shown, options)
        self.stub = wire_grpc.SpheroiddStub(self._channel)
        token = token if token is not None else os.environ.get(TOKEN_VARIABLE)
        self.metadata = (("authorization", f"Bearer {token}"),) if token else ()
        self.lease = os.environ.get(LEASE_VARIABLE, "")

    @classmethod
    def of(cls, data_dir: Path) -> Self:
        """The daemon that runs on a data directory; RefusedError where none does, or it does not serve."""
        if is_locked(data_dir) is False:
            raise RefusedError("no daemon runs here", where=str(data_dir), do="start one: `spheroidd run CONFIG.toml`")
        address = read_address(data_dir)
        if address is None:
            do = "write [service] enabled = true, or wait until it has started"
            raise RefusedError("the daemon does not say where it can be asked", where=str(data_dir), do=do)
        return cls(address)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channel.close()

    def call(self, method: Callable[..., T], request: Any, timeout_s: float = CALL_S) -> T:
        """Call a method of `stub`; raises what the daemon refused it with."""
        try:
            return method(request, timeout=timeout_s, metadata=self.metadata)
        except grpc.RpcError as error:
            raise from_call(error, self.address.address) from None

    def push(self, messages: Iterator[bytes], timeout_s: float | None) -> Any:
        """A PushSlices call with requests that are serialized already; see `push_client`."""
        begin: Any = self._channel.stream_stream(PUSH, None, wire.PushSlicesResponse.FromString)
        return begin(messages, timeout=timeout_s, metadata=self.metadata)


def _path(variable: str) -> Path | None:
    value = os.environ.get(variable)
    return Path(value) if value else None
