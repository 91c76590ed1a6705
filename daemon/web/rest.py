"""REST out of the wire contract: its google.api.http annotations say which path is which method. Knows no endpoint.

Paths, parameters and JSON follow Google's HTTP transcoding and ProtoJSON, with the contract's own field names
(`v_control`, as in tables and on the command line; the other spelling, `vControl`, is read as well). Knows no web
server either: `web` gives it paths and bytes.
"""

import re
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import unquote_to_bytes

from google.api import annotations_pb2
from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from spheroidd.daemon.web.problems import RequestError
from spheroidd.protocols import spheroidd_pb2 as wire
from spheroidd.protocols import spheroidd_pb2_grpc as wire_grpc
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.json_text import parse_json

SERVICE = wire.DESCRIPTOR.services_by_name["Spheroidd"]
DO_READ = "/openapi.json says what can be asked, and how"
LARGEST = 4e9  # seconds: a time of the next century
_VARIABLE = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Route:
    """One binding of a method: verb and path template, and the names of the fields that stand in the path."""

    verb: str
    template: str
    method: MethodDescriptor
    takes_body: bool
    pattern: re.Pattern[str]

    @property
    def full_name(self) -> str:
        """The method as gRPC calls it."""
        return f"/{SERVICE.full_name}/{self.method.name}"

    @property
    def variables(self) -> list[str]:
        """The fields of the request that stand in the path."""
        return _VARIABLE.findall(self.template)


def routes(methods: Iterable[MethodDescriptor] = SERVICE.methods) -> list[Route]:
    """Every binding of every method that has one."""
    found = []
    for method in methods:
        options = method.GetOptions()
        if options.HasExtension(annotations_pb2.http):
            rule = options.Extensions[annotations_pb2.http]
            found += [_route(method, one) for one in (rule, *rule.additional_bindings)]
    return found


def _route(method: MethodDescriptor, rule: Any) -> Route:
    verb = rule.WhichOneof("pattern")
    template, takes_body = getattr(rule, verb), bool(rule.body)
    if verb == "custom" or rule.body not in ("", "*") or rule.response_body:
        raise NotImplementedError(f"{method.name}: only get, put, post, patch and delete, with no body or all of it")
    parts = _VARIABLE.split(template)  # text and names by turns
    pattern = "".join(f"(?P<{part}>[^/]+)" if n % 2 else re.escape(part) for n, part in enumerate(parts))
    return Route(verb.upper(), template, method, takes_body, re.compile(pattern))


def is_stream(method: MethodDescriptor) -> bool:
    """Whether it answers with a stream."""
    return bool(method.server_streaming)


class HttpContext:
    """What the servicer may ask of a call that came over HTTP; the part of grpc.ServicerContext that it uses."""

    def __init__(
        self,
        metadata: tuple[tuple[str, str], ...] = (),
        limit_s: float | None = None,
        ending: threading.Event | None = None,
    ) -> None:
        self._metadata, self._ending, self._active = metadata, ending or threading.Event(), True
        self._deadline_s = None if limit_s is None else time.monotonic() + limit_s

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        """The header that says who asks."""
        return self._metadata

    def time_remaining(self) -> float | None:
        """How long the caller waits; None where it did not say."""
        return None if self._deadline_s is None else max(0.0, self._deadline_s - time.monotonic())

    def is_active(self) -> bool:
        """Whether anybody still listens."""
        return self._active and not self._ending.is_set()

    def cancel(self) -> None:
        """Nobody listens any more."""
        self._active = False


class Transcoder:
    """Finds the method of a path, makes its request, and calls it on the servicer."""

    def __init__(self, servicer: wire_grpc.SpheroiddServicer) -> None:
        self._servicer, self._routes = servicer, routes()

    def find(self, verb: str, raw_path: str) -> tuple[Route, dict[str, str]]:
        """The route of a path that is still percent-encoded, and the fields in it.

        RequestError for a path there is not (404), or not with this verb (405).
        """
        fits = [(route, match) for route in self._routes if (match := route.pattern.fullmatch(raw_path))]
        if not fits:
            raise RequestError(404, "there is no such path", where=raw_path[:200], do=DO_READ)
        for route, match in fits:
            if route.verb == verb:
                return route, {name: _decoded(text) for name, text in match.groupdict().items()}
        allowed = ", ".join(sorted({route.verb for route, _ in fits}))
        raise RequestError(405, f"{verb} cannot be used here", do=f"use {allowed}", headers={"allow": allowed})

    def call(self, route: Route, request: Message, context: HttpContext) -> Message:
        """Call a method with one answer. Raises what the servicer raises."""
        return cast(Message, self._bound(route)(request, context))

    def stream(self, route: Route, request: Message, context: HttpContext) -> Iterator[Message]:
        """Call a method with a stream of answers; run it in one thread from its beginning to its end."""
        return cast(Iterator[Message], self._bound(route)(request, context))

    def _bound(self, route: Route) -> Any:
        return getattr(self._servicer, route.method.name)


def request_message(
    route: Route, in_path: Mapping[str, str], query: Iterable[tuple[str, str]], body: bytes = b""
) -> Message:
    """The request of a route out of its path, its query and its body; ConfigError names what does not fit."""
    message: Message = GetMessageClass(route.method.input_type)()
    pairs = list(query)
    if route.takes_body:
        if pairs:
            raise ConfigError(f"{pairs[0][0]!r} is no parameter of the query here", do="put it into the body")
        values = _object(body)
    else:
        values = _from_query(message, pairs)
    names = {field.json_name: field.name for field in message.DESCRIPTOR.fields}
    values = {names.get(name, name): value for name, value in values.items()}
    for name, text in in_path.items():
        if values.setdefault(name, text) != text:
            raise ConfigError(f"{name} is {text!r} in the path and another one beside it", do="write it once")
    try:
        json_format.ParseDict(values, message)
    except (json_format.ParseError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise ConfigError(f"the request does not fit: {str(error)[:300]}", do=DO_READ) from None
    for field, value in message.ListFields():
        if isinstance(value, int | float) and not -largest(field) <= value <= largest(field):
            raise ConfigError(f"{field.name} is {value:g}", do=f"write at most {largest(field):g}")
    return message


def largest(field: Any) -> float:
    """The largest number a request may hold: beyond it neither a clock nor SQLite can follow. NaN is not within it."""
    return LARGEST if field.type == FieldDescriptor.TYPE_DOUBLE else 2**63 - 1


def resume(message: Message, last_event_id: str | None) -> None:
    """Let a stream go on after the event that a client saw last; without one, or of a stream that is over, as asked."""
    if not last_event_id or "after_sequence" not in message.DESCRIPTOR.fields_by_name:
        return
    instance, _, sequence = last_event_id.rpartition(":")
    if not (sequence.isascii() and sequence.isdecimal() and len(sequence) < 19):
        raise ConfigError("Last-Event-ID is not that of an event", do="send the last one, or none")
    request: Any = message
    request.after_sequence = int(sequence)
    if "instance" in message.DESCRIPTOR.fields_by_name:
        request.instance = instance


def event_id(message: Message) -> str:
    """The name of an event of a stream: its sequence number, after its daemon's name where it has one."""
    instance = getattr(message, "instance", "")
    return f"{instance}:{getattr(message, 'sequence', 0)}" if instance else str(getattr(message, "sequence", 0))


def to_json(message: Message) -> bytes:
    """A message as ProtoJSON on one line. What is not known is left out; a zero is there."""
    return json_format.MessageToJson(message, preserving_proto_field_name=True, indent=None).encode()


def _decoded(text: str) -> str:
    try:
        return unquote_to_bytes(text).decode("utf-8")
    except UnicodeDecodeError:
        raise ConfigError("the path is not UTF-8", where=text[:200], do="percent-encode it as UTF-8") from None


def _object(body: bytes) -> dict[str, Any]:
    if not body.strip():
        return {}
    try:
        found = parse_json(body, parse_constant=_no_number, object_pairs_hook=_once_each)
    except ValueError as error:
        raise ConfigError(f"the body is not JSON: {str(error)[:200]}", do="send one JSON object, in UTF-8") from None
    if not isinstance(found, dict):
        raise ConfigError("the body is not a JSON object", do="send one, such as {}")
    return found


def _no_number(word: str) -> None:
    raise ValueError(f"{word} is no number")


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice in one object")
    return found


def _from_query(message: Message, pairs: list[tuple[str, str]]) -> dict[str, Any]:
    fields = {name: field for field in message.DESCRIPTOR.fields for name in (field.name, field.json_name)}
    values: dict[str, Any] = {}
    for name, text in pairs:
        field = fields.get(name)
        if field is None or field.message_type is not None:
            known = ", ".join(field.name for field in message.DESCRIPTOR.fields) or "none"
            raise ConfigError(f"there is no parameter {name[:100]!r}", do=f"those of this path are: {known}")
        if field.is_repeated:
            values.setdefault(field.name, []).append(_scalar(field, text))
        elif field.name in values:
            raise ConfigError(f"{field.name} is there twice", do="write it once")
        else:
            values[field.name] = _scalar(field, text)
    return values


def _scalar(field: Any, text: str) -> Any:
    """Texts are read as numbers by ProtoJSON itself, but not as booleans."""
    return {"true": True, "false": False}.get(text, text) if field.type == FieldDescriptor.TYPE_BOOL else text
