"""The gate of the service: who may call what, and how a refusal is told. Every call passes it."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor
from grpc_status import rpc_status

from spheroidd.daemon.monitoring.failed_logins import FailedLogins, peer_of
from spheroidd.daemon.service.errors import to_status
from spheroidd.daemon.service.tokens import Caller, ForbiddenError, Role, TokenFile, UnknownCallerError
from spheroidd.daemon.service.viewers import Viewers
from spheroidd.protocols import spheroidd_pb2 as wire
from spheroidd.protocols.errors import ConfigError, SpheroiddError

_log = logging.getLogger(__name__)
_SERVICE = wire.DESCRIPTOR.services_by_name["Spheroidd"]
SERVICE = _SERVICE.full_name
HEALTH = "/grpc.health.v1.Health/"
HEALTH_CHECK = f"{HEALTH}Check"
REFLECTION = "/grpc.reflection."
Metadata = Iterable[tuple[str, str | bytes]]


def needed_role(method: str) -> Role:
    """The least role for a method ("/package.Service/Method"), as the wire contract's option `least_role` has it.

    A method without that option, or one that the contract does not know, takes an admin.
    """
    if method == HEALTH_CHECK:
        return Role.NONE
    if method.startswith((HEALTH, REFLECTION)):  # a health stream takes a thread for as long as it is open
        return Role.VIEWER
    return LEAST_ROLES.get(method, Role.ADMIN)


def least_roles(methods: Iterable[MethodDescriptor]) -> dict[str, Role]:
    """By "/package.Service/Method", the least role of each method that has the option `least_role`."""
    found = {}
    for method in methods:
        role = method.GetOptions().Extensions[wire.least_role]
        if role != wire.ROLE_UNSPECIFIED:
            found[f"/{method.containing_service.full_name}/{method.name}"] = Role(role)
    return found


LEAST_ROLES = least_roles(_SERVICE.methods)


class AuthInterceptor(grpc.ServerInterceptor):
    """Lets a call in by its token. `anonymous` is what a call without one may do.

    `failed_logins` counts tokens that are not valid; `strangers` bounds the calls that need none.
    """

    def __init__(self, tokens: TokenFile, anonymous: Role, failed_logins: FailedLogins, strangers: Viewers) -> None:
        self._tokens, self._anonymous = tokens, anonymous
        self._failed_logins, self._strangers = failed_logins, strangers

    def caller(self, metadata: Metadata | None) -> Caller:
        """Who calls; UnknownCallerError for a token that is not valid, or for none where one is needed."""
        given = next((value for key, value in metadata or () if key == "authorization"), None)
        if given is not None:
            text = given.decode("ascii", "replace") if isinstance(given, bytes) else given
            scheme, _, token = text.partition(" ")
            if scheme.lower() != "bearer":
                do = "send the metadata `authorization: Bearer <token>`"
                raise UnknownCallerError(f"authorization by {scheme[:20]!r} is not known", do=do)
            return self._tokens.authenticate(token.strip())
        return Caller("local", self._anonymous)

    def check(self, method: str, metadata: Metadata | None) -> Caller:
        """Who calls, where they may call this method; UnknownCallerError or ForbiddenError where not."""
        needed = needed_role(method)
        if needed is Role.NONE:
            return Caller("anybody", Role.NONE)
        caller = self.caller(metadata)
        if caller.role is Role.NONE:
            do = "send the metadata `authorization: Bearer <token>`; `spheroidd token create` makes one"
            raise UnknownCallerError("a token is needed", do=do)
        if caller.role < needed:
            what = f"{caller.name} is a {caller.role.name.lower()}, and this takes an {needed.name.lower()}"
            raise ForbiddenError(what, do="use a token of that role")
        return caller

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Any],
        details: grpc.HandlerCallDetails,
    ) -> Any:
        """See grpc.ServerInterceptor."""
        handler = continuation(details)
        if handler is None:
            return None
        try:
            caller = self.check(details.method, details.invocation_metadata)
        except SpheroiddError as error:
            return self._refusing(handler, error, details.invocation_metadata)
        return self._patient(handler) if caller.role is Role.NONE else _telling(handler)

    def _refusing(self, handler: Any, error: SpheroiddError, metadata: Metadata | None) -> Any:
        """A method that only refuses. It takes a stream, whatever the method takes: so no message is waited for."""
        wrong = is_wrong_token(error, (key for key, _ in metadata or ()))

        def refuse(requests: Any, context: grpc.ServicerContext) -> Any:
            if wrong:
                with self._failed_logins.answering(peer_of(context.peer()), error) as delay_s:
                    time.sleep(delay_s)
            raise error

        return grpc.stream_unary_rpc_method_handler(
            _tells(refuse), handler.request_deserializer, handler.response_serializer
        )

    def _patient(self, handler: Any) -> Any:
        """A method for everybody, which waits a bounded time for its request, and for a bounded number of them."""

        def call(requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
            with self._strangers.admit(context) as stranger, stranger.sending():
                request = next(requests, None)
                if request is None:
                    raise ConfigError("the call ended before its request", do="send one message")
                return handler.unary_unary(request, context)

        return grpc.stream_unary_rpc_method_handler(
            _tells(call), handler.request_deserializer, handler.response_serializer
        )


def is_wrong_token(error: SpheroiddError, names: Iterable[str]) -> bool:
    """Whether a call was refused for a token (or what stands in its place), and not for having none."""
    return isinstance(error, UnknownCallerError) and "authorization" in names


def _telling(handler: Any) -> Any:
    """The handler with its errors told in full."""
    takes, gives = handler.request_streaming, handler.response_streaming
    kinds = {(False, False): "unary_unary", (False, True): "unary_stream", (True, False): "stream_unary"}
    kind = kinds.get((takes, gives), "stream_stream")
    function = getattr(handler, kind)
    told = _tells_each(function) if gives else _tells(function)
    make = getattr(grpc, f"{kind}_rpc_method_handler")
    return make(told, handler.request_deserializer, handler.response_serializer)


def _tells(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(request: Any, context: grpc.ServicerContext) -> Any:
        try:
            return function(request, context)
        except SpheroiddError as error:
            context.abort_with_status(rpc_status.to_status(to_status(error)))

    return call


def _tells_each(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        try:
            yield from function(request, context)
        except SpheroiddError as error:
            context.abort_with_status(rpc_status.to_status(to_status(error)))

    return call
