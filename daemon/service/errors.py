"""The error tree as gRPC says it: a status code, and google.rpc.ErrorInfo with what, where and what to do."""

import re
from typing import Any

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from spheroidd.daemon.service.tokens import ForbiddenError, UnknownCallerError
from spheroidd.protocols.errors import (
    BusyError,
    ConfigError,
    InstrumentError,
    LateError,
    MissingError,
    ModelError,
    RefusedError,
    SpheroiddError,
    StackError,
    StorageError,
)

DOMAIN = "spheroidd"
RETRY_S = 1
_CODES: dict[type[SpheroiddError], grpc.StatusCode] = {
    UnknownCallerError: grpc.StatusCode.UNAUTHENTICATED,
    ForbiddenError: grpc.StatusCode.PERMISSION_DENIED,
    BusyError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    MissingError: grpc.StatusCode.NOT_FOUND,
    LateError: grpc.StatusCode.DEADLINE_EXCEEDED,
    RefusedError: grpc.StatusCode.FAILED_PRECONDITION,
    ConfigError: grpc.StatusCode.INVALID_ARGUMENT,
    InstrumentError: grpc.StatusCode.FAILED_PRECONDITION,
    StackError: grpc.StatusCode.FAILED_PRECONDITION,
    StorageError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    ModelError: grpc.StatusCode.FAILED_PRECONDITION,
}
_KINDS = {kind.__name__: kind for kind in _CODES}


def to_status(error: SpheroiddError) -> status_pb2.Status:
    """What a client gets. `reason` is the error's class in capitals: CONFIG_ERROR, CONTROL_HELD_ERROR, ..."""
    code = next((_CODES[kind] for kind in type(error).__mro__ if kind in _CODES), grpc.StatusCode.INTERNAL)
    info = error_details_pb2.ErrorInfo(
        reason=reason(type(error)),
        domain=DOMAIN,
        metadata={"what": error.what, "where": error.where, "do": error.do, "exit_code": str(error.exit_code)},
    )
    details: list[error_details_pb2.ErrorInfo | error_details_pb2.RetryInfo] = [info]
    if isinstance(error, BusyError):
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.seconds = RETRY_S
        details.append(retry)
    packed = [any_pb2.Any() for _ in details]
    for place, detail in zip(packed, details, strict=True):
        place.Pack(detail)
    return status_pb2.Status(code=code.value[0], message=str(error), details=packed)


def reason(kind: type[SpheroiddError]) -> str:
    """ "CONFIG_ERROR" of ConfigError."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind.__name__).upper()


def from_call(error: grpc.RpcError, where: str) -> SpheroiddError:
    """The same error on the client's side; one of the network's own as RefusedError that says where it happened."""
    from grpc_status import rpc_status

    status = rpc_status.from_call(error)
    for detail in status.details if status is not None else ():
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info) and info.domain == DOMAIN:
            kind = next((k for k in _KINDS.values() if reason(k) == info.reason), RefusedError)
            return kind(info.metadata["what"], where=info.metadata["where"], do=info.metadata["do"])
    call: Any = error  # every error of a call that was begun is also a grpc.Call
    code, words = call.code(), call.details()
    do = "check that the daemon runs and that address, certificate and token are right"
    return RefusedError(f"the call failed: {code.name}: {words}", where=where, do=do)
