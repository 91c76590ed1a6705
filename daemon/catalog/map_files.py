"""Whether two maps of a plate name the same files for its wells: a stack is stored once, from one of them."""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import BinaryIO

from spheroidd.protocols.plate import PlateMap
from spheroidd.protocols.well import WellId

_SAMPLES, _SAMPLE_BYTES = 8, 16_384


def other_files(known: PlateMap, given: PlateMap, stored: Collection[WellId]) -> Iterator[tuple[WellId, Path, Path]]:
    """The `stored` wells for which the maps name different files, with both; a well without a path names none."""
    old = {entry.well: entry.paths for entry in known if entry.well in stored}
    for entry in given:
        for channel, path in entry.paths.items():
            before = old.get(entry.well, {}).get(channel)
            if before is not None and not _same_file(before, path.absolute()):
                yield entry.well, before, path


def _same_file(before: Path, now: Path) -> bool:
    """Whether it is one file, moved or copied. Files of another plate have the same names and, unpacked, sizes."""
    if before == now:
        return True
    if before.name != now.name:
        return before.exists() and now.exists() and before.samefile(now)
    if not before.is_file() or not now.is_file():
        return not before.exists() or (before.is_dir() and now.is_dir() and before.samefile(now))
    return before.samefile(now) or _samples(before) == _samples(now)


def _samples(path: Path) -> tuple[int, list[bytes]]:
    """A file's size, and some of its bytes."""
    size = path.stat().st_size
    with path.open("rb") as file:
        return size, [_read_at(file, at * size // _SAMPLES) for at in range(_SAMPLES)]


def _read_at(file: BinaryIO, offset: int) -> bytes:
    file.seek(offset)
    return file.read(_SAMPLE_BYTES)
