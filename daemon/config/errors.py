"""From what pydantic says to what a person needs: the key, its line in the file, what is wrong, what to write."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

_HEADER = re.compile(r"\s*\[+\s*([^\[\]]+?)\s*\]+\s*(#.*)?$")
_ASSIGNMENT = re.compile(r"\s*((?:[\w-]+|\"[^\"]*\"|'[^']*')(?:\s*\.\s*(?:[\w-]+|\"[^\"]*\"|'[^']*'))*)\s*=")
_PART = re.compile(r"[\w-]+|\"[^\"]*\"|'[^']*'")


@dataclass(frozen=True, slots=True)
class ConfigFault:
    """One thing that is wrong with a configuration: where in the tree, what, and what to write."""

    location: tuple[str, ...]
    what: str
    do: str

    @property
    def key(self) -> str:
        """The key as one writes it: "store.slab_z"."""
        return ".".join(self.location)

    def line(self, text: str) -> int | None:
        """The line of the key in a TOML text, else of the nearest table around it; None where neither is there."""
        return line_of(text, self.location)


def line_of(text: str, location: Sequence[str]) -> int | None:
    """The 1-based line that sets the longest leading part of `location`; None where no part of it stands there."""
    best, found = 0, None
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _HEADER.match(line):
            table = path = _parts(header[1])
        elif assignment := _ASSIGNMENT.match(line):
            path = (*table, *_parts(assignment[1]))
        else:
            continue
        if best < len(path) <= len(location) and path == tuple(location[: len(path)]):
            best, found = len(path), number
    return found


def _parts(dotted: str) -> tuple[str, ...]:
    return tuple(part.strip("\"'") for part in _PART.findall(dotted))


def explain(
    error: ValidationError, model: type[BaseModel], given: Mapping[str, Any], prefix: tuple[str, ...] = ()
) -> list[ConfigFault]:
    """Every fault that `model` found in the tables `given`; `prefix` is the model's own place in the file."""
    faults: dict[tuple[str, ...], list[ConfigFault]] = {}
    for detail in error.errors(include_url=False):
        location = _location(detail["loc"], given, missing=detail["type"] == "missing")
        what, do = _words(dict(detail), model, location)
        faults.setdefault(location, []).append(ConfigFault((*prefix, *location), what, do))
    return [_of_union(members) for members in faults.values()]


def _of_union(members: Sequence[ConfigFault]) -> ConfigFault:
    """One fault of those that the members of a union report at one place: each that refused the same value says what
    it would take.
    """
    first = members[0]
    taken = dict.fromkeys(fault.do.removeprefix("write ") for fault in members if fault.what == first.what)
    return first if len(taken) == 1 else replace(first, do=f"write {', or '.join(taken)}")


def _location(parts: Iterable[int | str], given: object, *, missing: bool) -> tuple[str, ...]:
    """The keys among the parts: pydantic puts the names of union members between them."""
    keys: list[str] = []
    for part in parts:
        if isinstance(given, Mapping) and (part in given or missing):
            keys.append(str(part))
            given = given.get(part)
    return tuple(keys)


def _words(detail: Mapping[str, Any], model: type[BaseModel], location: tuple[str, ...]) -> tuple[str, str]:
    """What is wrong, and what to write instead."""
    key = location[-1] if location else ""
    kind, given, context = detail["type"], detail["input"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        return "there is no such key", _nearest(key, _allowed_keys(model, location[:-1]))
    if kind == "missing":
        return "the key is missing", f"add {key} = ..." if "." not in key else f"add {key}"
    if kind in ("literal_error", "enum"):
        return f"it is {given!r}", f"write {context['expected']}"
    if kind == "value_error":
        return str(context["error"]), _description(model, location)
    for prefix, advice in _ADVICE.items():
        if kind.startswith(prefix):
            return f"it is {given!r}", advice.format(**context)
    return f"it is {given!r}: {detail['msg']}", _description(model, location)


_ADVICE = {
    "greater_than_equal": "write {ge} or more",
    "greater_than": "write more than {gt}",
    "less_than_equal": "write {le} or less",
    "less_than": "write less than {lt}",
    "int": "write a whole number",
    "float": "write a number",
    "finite": "write a finite number",
    "bool": "write true or false",
    "path": "write a path in quotes",
    "model": "write a table in [brackets]",
    "dict": "write a table in [brackets]",
    "list": "write a list in [brackets]",
    "tuple": "write a list in [brackets]",
    "string_type": "write a text in double quotes",
}


def _nearest(key: str, allowed: Sequence[str]) -> str:
    near = difflib.get_close_matches(key, allowed, n=1, cutoff=0.5)
    listed = ", ".join(allowed)
    return f"write {near[0]} (the keys are {listed})" if near else f"remove it (the keys are {listed})"


def _allowed_keys(model: type[BaseModel], location: Iterable[str]) -> list[str]:
    owner = _model_at(model, location)
    return list(owner.model_fields) if owner else []


def _description(model: type[BaseModel], location: tuple[str, ...]) -> str:
    owner = _model_at(model, location[:-1])
    field = owner.model_fields.get(location[-1]) if owner and location else None
    return f"write {field.description}" if field and field.description else ""


def _model_at(model: type[BaseModel], location: Iterable[str]) -> type[BaseModel] | None:
    """The model that owns the keys of a table; None where a table is no model."""
    owner: type[BaseModel] | None = model
    pending: object = None  # the annotation of a mapping whose key comes next
    for key in location:
        if owner is None:
            owner, pending = _model_in(pending), None
            continue
        field = owner.model_fields.get(key)
        if field is None:
            return None
        mapping = any(get_origin(part) is dict for part in _alternatives(field.annotation))
        owner, pending = (None, field.annotation) if mapping else (_model_in(field.annotation), None)
    return owner


def _alternatives(annotation: object) -> tuple[object, ...]:
    return (annotation, *get_args(annotation))


def _model_in(annotation: object) -> type[BaseModel] | None:
    """The first model class anywhere in an annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part))), None)
