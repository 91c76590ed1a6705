"""Refusals as HTTP tells them: RFC 9457 problem details with what, where and what to do. The words stay the error's."""

import json
from collections.abc import Mapping
from types import MappingProxyType

import grpc

from spheroidd.daemon.service.errors import RETRY_S, reason, to_status
from spheroidd.daemon.service.tokens import UnknownCallerError
from spheroidd.protocols.errors import SpheroiddError, StorageError

MEDIA_TYPE = "application/problem+json"
_STATUSES = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.FAILED_PRECONDITION: 409,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}
_BY_NUMBER = {code.value[0]: status for code, status in _STATUSES.items()}


class RequestError(SpheroiddError):
    """A request that HTTP itself has a word for: no such path, a foreign origin, a body that is too large."""

    def __init__(
        self, status: int, what: str, *, do: str, where: str = "", headers: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        super().__init__(what, where=where, do=do)
        self.status, self.headers = status, dict(headers)


def http_status(error: SpheroiddError) -> int:
    """The status of a refusal; 500 only for an error that nobody thought of."""
    if isinstance(error, RequestError):
        return error.status
    if isinstance(error, StorageError):
        return 503
    return _BY_NUMBER.get(to_status(error).code, 500)


def problem(error: SpheroiddError) -> dict[str, object]:
    """The problem details; `reason` is the word that gRPC uses too: CONFIG_ERROR, CONTROL_HELD_ERROR, ..."""
    word = reason(type(error))
    found: dict[str, object] = {
        "type": f"urn:spheroidd:problem:{word.lower().replace('_', '-')}",
        "title": error.what or "refused",
        "status": http_status(error),
        "detail": str(error),
        "reason": word,
    }
    return found | {name: value for name in ("where", "do") if (value := getattr(error, name))}


def problem_headers(error: SpheroiddError) -> dict[str, str]:
    """The headers that go with a refusal."""
    headers = dict(error.headers) if isinstance(error, RequestError) else {}
    if isinstance(error, UnknownCallerError):
        headers["www-authenticate"] = 'Bearer realm="spheroidd"'
    if http_status(error) in (429, 503):
        headers["retry-after"] = str(RETRY_S)
    return headers


def problem_json(error: SpheroiddError) -> bytes:
    """The problem details as JSON."""
    return json.dumps(problem(error)).encode()
