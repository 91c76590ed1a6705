"""Whether the pixels of a file can be unpacked here: told when it is opened, not when its first plane is read."""

from pathlib import Path
from typing import Any

import tifffile

from spheroidd.protocols.errors import StackError

INSTALL = "pip install imagecodecs"
_WHOLE_BYTES = (8, 16, 32, 64)


class CodecError(StackError):
    """A whole file whose codec is not installed here: the person who set up this computer can mend it for all files."""


def check_codec(page: Any, path: Path) -> None:
    """Raise CodecError where the pixels of a TIFF's page cannot be unpacked with what is installed."""
    needs = _lacking(page)
    if needs is None:
        return
    what = f"its planes are packed with {needs}, which needs imagecodecs, and that is not installed or cannot do it"
    do = f"install it ({INSTALL}), or save the file uncompressed or with zlib (deflate)"
    raise CodecError(what, where=str(path), do=do)


def _lacking(page: Any) -> str | None:
    """The first thing about a page that cannot be undone here; None where all can."""
    for table, number in (
        (tifffile.TIFF.DECOMPRESSORS, page.compression),
        (tifffile.TIFF.UNPREDICTORS, page.predictor),
    ):
        try:
            table[number]
        except KeyError:
            return getattr(number, "name", None) or f"number {number}"
    bits = page.bitspersample
    if bits not in _WHOLE_BYTES and not _unpacks_bits():
        return f"{bits} bits a pixel"
    return None


def _unpacks_bits() -> bool:
    try:
        import imagecodecs
    except ImportError:
        return False
    return bool(imagecodecs.PACKINTS.available)
