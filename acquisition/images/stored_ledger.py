"""What the ledger of the run that stored a stack says of each of its images, where it still lies beside the stack.

The only reader of a ledger outside the daemon: it asks the view that is described for everybody (docs/schema.md).
"""

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from spheroidd.acquisition.images.metadata.image_metadata import Facts
from spheroidd.acquisition.store.image_folder import data_directory_of
from spheroidd.protocols.errors import StackError
from spheroidd.protocols.json_text import parse_json

CATALOG_NAME = "catalog.sqlite"
BUSY_S = 5.0  # a daemon that writes there is waited for
UNREAD = "facts_unread"
"""Under this name an image's own metadata say why nothing else is known of it."""
# Of the way that the images took then; the way they take now has its own.
_OF_THE_RUN = {"host_time_s", "file", "file_defects", "channels_told_apart", UNREAD}
_FRAMES = """
SELECT channel, z, metadata_json FROM frames_view WHERE plate = ? AND well = ? AND stack = ?
"""


@dataclass(frozen=True, slots=True)
class Recorded:
    """(channel, z) -> what was said of a stored image when it was taken; `unread` says why nothing can be known."""

    facts: Mapping[tuple[str, int], Facts] = field(default_factory=lambda: MappingProxyType({}))
    unread: StackError | None = None


def read_ledger(image: Path) -> Recorded:
    """What the ledger beside a stored stack says of its images.

    Nothing, and nothing to complain of, where the recording was copied without its ledger. Its pixels need none, so a
    ledger that is there and cannot be read raises nothing either: it comes back as `unread`, for a person to be told.
    """
    place = image.absolute().parts
    if len(place) < 5 or not place[-1].isdecimal():
        return Recorded()
    plate, row, column, stack = place[-4:]
    catalog = data_directory_of(image.absolute().parents[3]) / CATALOG_NAME
    try:
        if not catalog.exists():
            return Recorded()
        if not catalog.is_file():  # SQLite would wait for a pipe
            raise OSError("it is not a regular file")
        rows = _rows(catalog, (plate.removesuffix(".ome.zarr"), row + column, int(stack)))
        return Recorded({(channel, z): _said(text) for channel, z, text in rows})
    except (OSError, TypeError, ValueError, sqlite3.Error) as error:
        what = f"stage position, exposure and time of its images are not known: the catalog cannot be read ({error})"
        do = "the images are taken all the same; to have the rest, put back this file and the -wal beside it from a "
        do += "copy of the run, and replay into a new data directory"
        return Recorded(unread=StackError(what, where=str(catalog), do=do))


def _rows(catalog: Path, asked: tuple[str, str, int]) -> list[tuple[str, int, str]]:
    """The stack's images. In a folder that cannot be written SQLite cannot make the memory that it shares with a
    writer; then, where no writer left a log behind, the file is read as one that never changes.
    """
    uri, log = catalog.as_uri(), catalog.with_name(f"{CATALOG_NAME}-wal")
    try:
        return _select(f"{uri}?mode=ro", asked)
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF not in _NOT_OPENED or (log.exists() and log.stat().st_size):
            raise
        return _select(f"{uri}?immutable=1", asked)


_NOT_OPENED = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)


def _select(uri: str, asked: tuple[str, str, int]) -> list[tuple[str, int, str]]:
    with closing(sqlite3.connect(uri, uri=True, timeout=BUSY_S)) as connection:
        return connection.execute(_FRAMES, asked).fetchall()


def _said(text: str) -> Facts:
    metadata = parse_json(text)
    if not isinstance(metadata, dict):
        raise ValueError(f"an image's metadata are {text[:40]!r}")
    return {
        name: value
        for name, value in metadata.items()
        if name not in _OF_THE_RUN and isinstance(value, int | float | str)
    }
