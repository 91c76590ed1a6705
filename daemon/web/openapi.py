"""OpenAPI 3.1 of the REST side, made from the wire contract's descriptors and comments; nothing is written twice.

What a column of a result row means is said by the list of columns.
"""

from collections.abc import Iterable
from functools import cache
from importlib.metadata import version
from typing import Any

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, MethodDescriptor

from spheroidd.daemon.service.authorization import needed_role
from spheroidd.daemon.service.tokens import Role
from spheroidd.daemon.web import event_stream, problems
from spheroidd.daemon.web.proto_comments import contract_comments
from spheroidd.daemon.web.rest import Route, is_stream, largest, routes
from spheroidd.protocols import spheroidd_pb2 as wire
from spheroidd.protocols.result_columns import ROW

JSON = dict[str, Any]
_F = FieldDescriptor
_INTEGERS = {
    _F.TYPE_INT32: ("int32", -(2**31), 2**31 - 1),
    _F.TYPE_UINT32: ("uint32", 0, 2**32 - 1),
    _F.TYPE_FIXED32: ("uint32", 0, 2**32 - 1),
    _F.TYPE_INT64: ("int64", -(2**63), 2**63 - 1),
    _F.TYPE_UINT64: ("uint64", 0, 2**63 - 1),
}
_LONG = (_F.TYPE_INT64, _F.TYPE_UINT64)  # ProtoJSON writes these as texts, since JavaScript would round them
_ABOUT = """\
The same calls as the gRPC service `spheroidd.v1.Spheroidd`, with the same roles and the same words. What is not known
is left out of an answer; a zero is never left out. 64-bit integers are texts. A refusal is a problem (RFC 9457) that
says what, where and what to do. Streams are Server-Sent Events; a reader that comes back sends `Last-Event-ID`."""


def openapi() -> JSON:
    """The whole document."""
    return _document()


@cache
def _document() -> JSON:
    schemas: JSON = {"Problem": _PROBLEM}
    paths: dict[str, JSON] = {}
    seen: set[str] = set()
    for route in routes():
        _add_message(schemas, route.method.output_type)
        paths.setdefault(route.template, {})[route.verb.lower()] = _operation(route, seen)
        seen.add(route.method.name)
    return {
        "openapi": "3.1.0",
        "info": {"title": "spheroidd", "version": version("spheroidd"), "description": _ABOUT},
        "servers": [{"url": "/"}],
        "security": [{"token": []}, {}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "description": _TOKEN}},
        },
    }


def _operation(route: Route, seen: set[str]) -> JSON:
    method = route.method
    words = contract_comments().get(method.name, "")
    by = "".join(name.title() for name in route.variables) if method.name in seen else ""
    found: JSON = {
        "operationId": f"{method.name}By{by}" if by else method.name,
        "summary": words.partition(". ")[0].rstrip(".") or method.name,
        "description": f"{words}\n\nTakes the role {_role(route)}.".strip(),
        "parameters": [*_parameters(route), *([_LAST_EVENT] if is_stream(method) else [])],
        "responses": {"200": _answer(method), "default": _REFUSED},
    }
    if route.takes_body:
        left = [field for field in method.input_type.fields if field.name not in route.variables]
        schema = _object(left, f"{method.input_type.name}.") | {"additionalProperties": False}
        found["requestBody"] = {"required": False, "content": {"application/json": {"schema": schema}}}
    return found


def _role(route: Route) -> str:
    role = needed_role(route.full_name)
    return "viewer" if role <= Role.VIEWER else role.name.lower()


def _parameters(route: Route) -> list[JSON]:
    found = []
    for field in route.method.input_type.fields:
        place = "path" if field.name in route.variables else "query"
        if place == "query" and route.takes_body:
            continue
        one: JSON = {"name": field.name, "in": place, "required": place == "path", "schema": _schema(field, asked=True)}
        if place == "path":
            one["schema"] |= {"minLength": 1} if one["schema"]["type"] == "string" else {}
        words = contract_comments().get(f"{route.method.input_type.name}.{field.name}")
        found.append(one | ({"description": words} if words else {}))
    return found


def _answer(method: MethodDescriptor) -> JSON:
    name = method.output_type.name
    link = {"$ref": f"#/components/schemas/{name}"}
    if is_stream(method):
        words = f"Events named {name}; the data of each is that schema in JSON."
        return {"description": words, "content": {event_stream.MEDIA_TYPE: {"schema": {"type": "string"}}}}
    return {"description": name, "content": {"application/json": {"schema": link}}}


def _add_message(schemas: JSON, message: Descriptor) -> None:
    """A message and all that it holds."""
    if message.name in schemas:
        return
    words = contract_comments().get(message.name)
    schemas[message.name] = _object(message.fields, f"{message.name}.") | ({"description": words} if words else {})
    for field in message.fields:
        inner = field.message_type
        if inner is not None and not inner.GetOptions().map_entry:
            _add_message(schemas, inner)


def _object(fields: Iterable[FieldDescriptor], prefix: str) -> JSON:
    properties = {}
    for field in fields:
        words = _RESULT_TEXTS.get(prefix + field.name) or contract_comments().get(prefix + field.name)
        properties[field.name] = _schema(field) | ({"description": words} if words else {})
    return {"type": "object", "properties": properties}


def _schema(field: FieldDescriptor, *, asked: bool = False) -> JSON:
    """A field as ProtoJSON writes it; `asked`: as it stands in a query, where a number is a number."""
    inner = field.message_type
    if inner is not None and inner.GetOptions().map_entry:
        return {"type": "object", "additionalProperties": _single(inner.fields_by_name["value"], asked)}
    single = _single(field, asked)
    return {"type": "array", "items": single} if field.is_repeated else single


def _single(field: FieldDescriptor, asked: bool) -> JSON:
    if field.message_type is not None:
        return {"$ref": f"#/components/schemas/{field.message_type.name}"}
    if field.enum_type is not None:
        return _words_of(field.enum_type)
    if field.type in _INTEGERS:
        name, low, high = _INTEGERS[field.type]
        if field.type in _LONG and not asked:
            return {"type": "string", "format": name, "pattern": "^-?[0-9]{1,20}$"}
        return {"type": "integer", "format": name, "minimum": low, "maximum": high}
    if asked and field.type == _F.TYPE_DOUBLE:
        return {**_PLAIN[field.type], "minimum": -largest(field), "maximum": largest(field)}
    return dict(_PLAIN[field.type])


def _words_of(enum: EnumDescriptor) -> JSON:
    words = (f"{value.name}: {text}" for value in enum.values if (text := _meaning(enum, value.name)))
    return {"type": "string", "enum": [value.name for value in enum.values], "description": "; ".join(words)}


def _meaning(enum: EnumDescriptor, value: str) -> str | None:
    return contract_comments().get(f"{enum.name}.{value}")


_RESULT_TEXTS = {f"{wire.Result.DESCRIPTOR.name}.{column.name}": column.text for column in ROW}
_PLAIN: dict[int, JSON] = {
    _F.TYPE_STRING: {"type": "string"},
    _F.TYPE_BOOL: {"type": "boolean"},
    _F.TYPE_DOUBLE: {"type": "number", "format": "double"},
    _F.TYPE_BYTES: {"type": "string", "contentEncoding": "base64"},
}
_PROBLEM: JSON = {
    "type": "object",
    "description": "What was refused and why (RFC 9457), with where and what to do.",
    "required": ["type", "title", "status", "detail", "reason"],
    "properties": {
        "type": {"type": "string", "format": "uri"},
        "title": {"type": "string", "description": "what"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "reason": {"type": "string", "description": "CONFIG_ERROR, CONTROL_HELD_ERROR, ...; the same over gRPC"},
        "where": {"type": "string"},
        "do": {"type": "string"},
    },
}
_REFUSED: JSON = {
    "description": "refused",
    "content": {problems.MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
}
_LAST_EVENT: JSON = {
    "name": "Last-Event-ID",
    "in": "header",
    "required": False,
    "description": "the id of the last event seen: the stream goes on after it",
    "schema": {"type": "string"},
}
_TOKEN = "`spheroidd token create` makes one; programs of the daemon's own computer may need none"
