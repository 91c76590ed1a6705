"""What a file's name says: which well, which stack of it, which channel, which slice. The user's own names are here.

A grammar takes a path relative to the watched folder, folders separated by "/", and answers with an ImageName, with
the reason why it is none of ours, or with None where it is no name of an image at all.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.stack import CHANNELS
from spheroidd.protocols.well import WellId


@dataclass(frozen=True, slots=True)
class ImageName:
    """Where an image belongs. `channel` is "488" or "561"; None where the file itself says it, as z is None for files
    that hold every slice, and below 0 for one that is numbered before the first.
    """

    well: WellId
    stack: int = 0
    channel: str | None = None
    z: int | None = None


class NameGrammar(Protocol):
    """How a microscope's program names its files."""

    def read(self, path: str) -> ImageName | str | None:
        """What a relative path says; a str is the reason why the file is not wanted."""
        ...


_PLACES = {
    "well": r"(?P<well>[A-Za-z]{1,2}0*[1-9][0-9]?)(?![0-9])",
    "row": r"(?P<row>[A-Za-z]{1,2}|0*[1-9][0-9]?(?![0-9]))",
    "column": r"(?P<column>0*[1-9][0-9]?)(?![0-9])",
    "channel": r"(?P<channel>[^/]+?)",
    "z": r"(?P<z>[0-9]{1,9})(?![0-9])",
    "field": r"(?P<field>[^/]+?)",
}
# Behind "*", "?" or a place of any text a name begins where its letters or digits do: the "A" of "AA01" and the "1" of
# "12" are not skipped.
_BEGINS = r"(?:(?<![A-Za-z])|(?-i:(?<=[a-z])(?=[A-Z])))"
_BEHIND_ANY = {
    "well": _BEGINS,
    "row": r"(?:(?<![0-9])(?=[0-9])|" + _BEGINS + "(?=[A-Za-z]))",
    "column": r"(?<![0-9])",
    "z": r"(?<![0-9])",
}
_PART = re.compile(r"\{([a-z]*)\}|(\*\*/?)|(\*)|(\?)|([^{*?]+|.)")


class NamePattern:
    """Names with places in them, such as "{well}/{channel}_z{z}.tif".

    {well} is a well (A1, a01), or {row} (letters or a number) and {column} are; {channel} what `channels` maps to 488
    and 561; {z} a slice number, the first of which is `first_z`; {field} one of `fields`, the well's stacks in that
    order. "*" is any text without "/", "**/" any folders, "?" one letter. Upper and lower case are one.

    >>> NamePattern("**/{well}_{channel}_z{z}.tif", {"488": "green"}).read("day 2/B03_green_z07.tif")
    ImageName(well=WellId(row=1, column=2), stack=0, channel='488', z=7)
    """

    def __init__(
        self, pattern: str, channels: Mapping[str, str] | None = None, fields: tuple[str, ...] = (), first_z: int = 0
    ) -> None:
        self._channels = {said.lower(): channel for channel, said in (channels or {}).items()}
        self._fields, self._first_z = {field: at for at, field in enumerate(fields)}, first_z
        self._regex = re.compile(_regex(pattern), re.IGNORECASE)
        self.places = frozenset(self._regex.groupindex)
        if not ("well" in self.places or {"row", "column"} <= self.places):
            raise ConfigError(f"source.pattern {pattern!r} does not say where the well is", do="write {well} into it")
        if "field" in self.places and not fields:
            raise ConfigError("source.pattern has {field}", do="write source.fields, the fields' names in order")

    def read(self, path: str) -> ImageName | str | None:
        """See `NameGrammar`."""
        match = self._regex.fullmatch(path)
        if match is None:
            return None
        said = match.groupdict()
        try:
            well = _well(said)
        except ConfigError as error:
            return error.what
        stack = self._fields.get(said["field"]) if "field" in said else 0
        if stack is None:
            return f"field {said['field']} is not among source.fields"
        channel = _channel(said["channel"], self._channels) if "channel" in said else None
        if "channel" in said and channel is None:
            return f"channel {said['channel']!r} is not among source.channels"
        z = int(said["z"]) - self._first_z if "z" in said else None
        return ImageName(well, stack, channel, z)


def _well(said: Mapping[str, str]) -> WellId:
    """The well; a row may be a number, as PerkinElmer's programs write it."""
    if "well" in said:
        return WellId.parse(said["well"])
    if said["row"].isdecimal():
        return WellId(int(said["row"]) - 1, int(said["column"]) - 1)
    return WellId.parse(f"{said['row']}{said['column']}")


def _channel(said: str, channels: Mapping[str, str]) -> str | None:
    if channels:
        return channels.get(said.lower())
    return said if said in CHANNELS else None


def _regex(pattern: str) -> str:
    parts: list[str] = []
    after_any = False
    tokens = list(_tokens(pattern))
    at = 0
    while at < len(tokens):
        kind, text = tokens[at]
        if kind == "place":
            if text not in _PLACES or f"(?P<{text}>" in "".join(parts):
                do = f"use each of {', '.join(f'{{{name}}}' for name in _PLACES)} at most once"
                raise ConfigError(f"source.pattern {pattern!r} has {{{text}}}", do=do)
            parts.append((_BEHIND_ANY.get(text, "") if after_any else "") + _PLACES[text])
        elif kind in _WILD and (stop := _next_of_its_kind(tokens, at)) is not None:
            # The first place where the text stands is as good as any other, because what follows may be anything:
            # without that, `*a*a*a*a` would try every way to share a long name out.
            parts.append(f"(?>{_WILD[kind]}?{''.join(said for _, said in tokens[at + 1 : stop])})")
            at = stop
            continue
        else:
            parts.append(_WILD.get(kind, text))
        after_any = kind in ("any", "letter") or (kind == "place" and text in ("channel", "field"))
        at += 1
    return "".join(parts)


_WILD = {"folders": "(?:[^/]+/)*", "any": "[^/]*"}


def _tokens(pattern: str) -> Iterator[tuple[str, str]]:
    """The pattern's parts, each with its kind; of wild ones of a kind in a row a single one."""
    before = ""
    for place, folders, any_text, letter, text in _PART.findall(pattern.replace("\\", "/")):
        kind = "place" if place else "folders" if folders else "any" if any_text else "letter" if letter else "text"
        if kind not in _WILD or kind != before:
            yield kind, place or ("[^/]" if letter else re.escape(text))
        before = kind


def _next_of_its_kind(tokens: Sequence[tuple[str, str]], at: int) -> int | None:
    """Where the next wild part of a kind stands, where nothing but text and letters lies between; None otherwise."""
    stop = at + 1
    while stop < len(tokens) and tokens[stop][0] in ("text", "letter"):
        stop += 1
    if stop == at + 1 or stop == len(tokens) or tokens[stop][0] != tokens[at][0]:
        return None
    starts_a_folder = tokens[stop - 1][1].endswith("/")  # where "**/" has to begin
    return stop if tokens[at][0] == "any" or starts_a_folder else None
