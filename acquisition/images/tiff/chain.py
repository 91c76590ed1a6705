"""The list of a TIFF's planes, followed without tifffile: bounded in time and memory whatever the file says.

A file may lead its reader round in a circle, or promise more than it holds; both are found here, by the offsets alone,
before anything is allocated.
"""

import struct
from pathlib import Path
from typing import BinaryIO

from spheroidd.acquisition.images.file_kind import check_regular
from spheroidd.protocols.errors import StackError

MAX_PLANES = 200_000  # 4 GiB of planes of 128 x 84 pixels; no stack comes near
MAX_TAGS = 1000  # of one plane; Micro-Manager writes 20
_VALUE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_SIGNS = (b"II", b"MM", b"EP")
DO_AGAIN = "copy it again, or record the well again"


def check_offsets(path: Path) -> None:
    """Raise StackError where the list of planes turns back on itself, breaks off after some, or has too many, or where
    tags lie beyond the end: tifffile goes round some of them for ever.

    A file that is no TIFF, or has not even a first plane, is left to the reader that says so.
    """
    n_bytes = check_regular(path)
    with path.open("rb") as file:
        _follow(file, n_bytes, path)


def _follow(file: BinaryIO, n_bytes: int, path: Path) -> None:
    head = file.read(16)
    form = _form(head)
    if form is None:
        if head[:2] in _SIGNS and len(head) == 16:  # raw formats of cameras, which tifffile follows all the same
            raise _damaged(path, f"not a whole TIFF: its version is {head[2:4].hex()}, not 42 or 43")
        return
    order, big = form
    offset = struct.unpack_from(order + ("Q" if big else "I"), head, 8 if big else 4)[0]
    seen: dict[int, int] = {}
    described = 0
    while offset:
        if offset in seen:
            raise _damaged(path, f"the list of its planes leads from plane {len(seen)} back to plane {seen[offset]}")
        if len(seen) >= MAX_PLANES:
            raise _damaged(path, f"the list of its planes has more than {MAX_PLANES}")
        seen[offset] = len(seen) + 1
        plane = _plane(file, offset, order, big=big)
        if plane is None and len(seen) > 1:
            raise _damaged(path, f"the list of its planes breaks off after {len(seen) - 1}")
        if plane is None:
            return
        tags, offset = plane
        if not tags:
            raise _damaged(path, f"plane {len(seen)} has no description")
        ends = [(at + length, length) for at, length in tags]
        if any(end > n_bytes for end, _ in ends):
            raise _damaged(path, f"the description of plane {len(seen)} lies beyond its end")
        described += sum(length for _, length in ends)
        if described > 2 * n_bytes + 2**20:
            raise _damaged(path, f"its planes' descriptions promise more than the file's {n_bytes} bytes")


def _form(head: bytes) -> tuple[str, bool] | None:
    """Byte order, and whether it is a BigTIFF; None where it is neither kind."""
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    if order is None or len(head) < 8:
        return None
    magic = struct.unpack_from(order + "H", head, 2)[0]
    if magic == 43 and len(head) == 16:
        return order, True
    return (order, False) if magic == 42 else None


def _plane(file: BinaryIO, offset: int, order: str, *, big: bool) -> tuple[list[tuple[int, int]], int] | None:
    """Where a plane's long tags lie, as (offset, bytes), and the next plane's offset; None where the list breaks."""
    count_bytes, tag_bytes, inline, value = (8, 20, 8, "Q") if big else (2, 12, 4, "I")
    file.seek(offset)
    head = file.read(count_bytes)
    if len(head) < count_bytes:
        return None
    n_tags = struct.unpack(order + ("Q" if big else "H"), head)[0]
    if n_tags > MAX_TAGS:
        return None
    table = file.read(n_tags * tag_bytes + inline)
    if len(table) < n_tags * tag_bytes + inline:
        return None
    tags = []
    for _, kind, count, at in struct.iter_unpack(order + "HH" + 2 * value, table[: n_tags * tag_bytes]):
        length = _VALUE_BYTES.get(kind, 1) * count
        tags.append((at, length) if length > inline else (0, 0))
    return tags, struct.unpack(order + value, table[n_tags * tag_bytes :])[0]


def _damaged(path: Path, what: str) -> StackError:
    return StackError(what, where=str(path), do=DO_AGAIN)
