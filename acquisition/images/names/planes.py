"""Which plane of a stack each file of a folder is, by the names of all of them together.

A letter means two things in such names: "C" is a row of wells and a channel, "Z" a row and a slice. So no single name
is believed: of the places where a letter stands before a number, the one that differs from file to file is meant.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from spheroidd.acquisition.images.names.leica import leica_letters
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.well import WellId

_Z = re.compile(r"(?:^|[^a-z])z(?:slice|step|plane)?[-_=]?(\d{1,9})(?!\d)", re.IGNORECASE)
_C = re.compile(r"(?:^|[^a-z])c(?:h|hannel)?[-_=]?(\d{1,9})(?!\d)", re.IGNORECASE)
_W = re.compile(r"(?:^|[^a-z])w([1-9])(?!\d)")  # MetaMorph's wavelength; wells are in capitals
_OPERETTA = re.compile(r"r\d+c\d+f\d+p(\d{1,9})-ch(\d{1,9})", re.IGNORECASE)
_ENDING = re.compile(r"(\.ome)?\.tiff?$", re.IGNORECASE)
_BETWEEN = re.compile(r"[_\s]+|--")
_OTHER_AXIS = re.compile(r"(t|time|f|fov|field|p|pos|position|s|site|xy|m|tile|l|a)[-_]?\d+", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class PlaneNames:
    """(channel, z) -> a file's name; channels are numbers as the names have them, or 0, 1, ... by their words.

    `words` is what the names call each channel and no other, "" where they do not. `doubts` is what a person should
    know of the numbers.
    """

    files: dict[tuple[int, int], str]
    words: dict[int, str]
    doubts: tuple[str, ...] = field(default=())


class PlaneNameError(ValueError):
    """The names are not those of one stack; its text says why."""


def read_plane_names(names: Sequence[str]) -> PlaneNames:
    """Sort names into planes; those that say no slice are left out. PlaneNameError where they are of several stacks."""
    stems = {name: _ENDING.sub("", name) for name in names}
    z_of, c_of = _leica_or_operetta(stems)
    if not z_of:
        z_of = _numbers(stems, _Z, "slice")
        stems = {name: stem for name, stem in stems.items() if name in z_of}
        c_of = _numbers(stems, _C, "channel")
        if len(set(c_of.values())) < 2:  # a row C, or a lone channel
            waves = _numbers(stems, _W, "wavelength")
            c_of = waves if len(set(waves.values())) > 1 else _by_words(stems) or c_of
    files: dict[tuple[int, int], str] = {}
    for name, z in z_of.items():
        plane = c_of.get(name, 0), z
        if plane in files:
            raise PlaneNameError(f"{files[plane]} and {name} are both channel {plane[0]} z {z}")
        files[plane] = name
    channels = {
        channel: [stems[name] for (c, _), name in files.items() if c == channel] for channel, _ in sorted(files)
    }
    return PlaneNames(files, _words(channels), tuple(_doubts(files)))


def _leica_or_operetta(stems: dict[str, str]) -> tuple[dict[str, int], dict[str, int]]:
    """Slice and channel of the names that follow a program's own grammar, where any does."""
    z_of: dict[str, int] = {}
    c_of: dict[str, int] = {}
    for name, stem in stems.items():
        letters, operetta = leica_letters(name), _OPERETTA.fullmatch(stem.partition("sk")[0])
        if "Z" in letters:
            z_of[name], c_of[name] = letters["Z"], letters.get("C", 0)
        elif operetta:
            z_of[name], c_of[name] = int(operetta[1]), int(operetta[2])
    return z_of, c_of


def _numbers(stems: dict[str, str], letter: re.Pattern[str], called: str) -> dict[str, int]:
    """Each name's number behind a letter; the place where they differ where it stands several times, else the last."""
    found = {name: [int(digits) for digits in letter.findall(stem)] for name, stem in stems.items()}
    found = {name: numbers for name, numbers in found.items() if numbers}
    counts = {len(numbers) for numbers in found.values()}
    if len(counts) != 1:
        return {name: numbers[-1] for name, numbers in found.items()}
    differ = [at for at in range(counts.pop()) if len({numbers[at] for numbers in found.values()}) > 1]
    if len(differ) > 1:
        first = next(iter(found))
        raise PlaneNameError(f"{len(differ)} numbers of its names could be the {called}, as in {first}")
    return {name: numbers[differ[0] if differ else -1] for name, numbers in found.items()}


def _by_words(stems: dict[str, str]) -> dict[str, int]:
    """Channels told apart by words ("GFP", "PI") where no name numbers them: those in which the names differ."""
    words = {name: _BETWEEN.split(_Z.sub("", stem)) for name, stem in stems.items()}
    lengths = {len(of) for of in words.values()}
    if len(lengths) != 1:
        return {}
    columns = [{of[at] for of in words.values()} for at in range(lengths.pop())]
    differ = [at for at, column in enumerate(columns) if len(column) > 1]
    called = {name: " ".join(of[at] for at in differ) for name, of in words.items()}
    said = sorted(set(called.values()))
    if len(said) < 2 or any(len(columns[at]) != len(said) for at in differ):  # they differ in more than a channel
        return {}
    for kind, is_it in (("wells", _is_well), ("fields or time points", _OTHER_AXIS.fullmatch)):
        if all(is_it(word) for word in said):
            raise PlaneNameError(f"its names are of several {kind}: {', '.join(said[:5])}")
    return {name: said.index(word) for name, word in called.items()}


def _is_well(word: str) -> bool:
    try:
        WellId.parse(word)
    except ConfigError:
        return False
    return True


def _words(channels: dict[int, list[str]]) -> dict[int, str]:
    """The words that all names of a channel have, and no other channel's."""
    common = {
        channel: set.intersection(*(set(_BETWEEN.split(stem)) for stem in of)) for channel, of in channels.items()
    }
    return {
        channel: " ".join(sorted(own - set().union(*(of for other, of in common.items() if other != channel))))
        for channel, own in common.items()
    }


def _doubts(files: dict[tuple[int, int], str]) -> list[str]:
    first_z, channels = min((z for _, z in files), default=0), sorted({channel for channel, _ in files})
    doubts = []
    if first_z > 1:
        doubts.append(f"its slices are numbered from {first_z}: look whether those before were lost")
    if len(channels) > 1 and channels[0] > 1:
        numbers = ", ".join(map(str, channels))
        doubts.append(f"its channels are numbered {numbers}: look whether these are columns of wells")
    return doubts
