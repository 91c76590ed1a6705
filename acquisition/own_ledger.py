"""What the ledger of the run that stored a stack says of each of its images, where it still lies beside the stack.

The only reader of a ledger outside the daemon: it asks the view that is described for everybody (docs/schema.md).
"""

import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from spheroidd.acquisition.image_facts import Facts

CATALOG_NAME = "catalog.sqlite"
BUSY_S = 5.0  # a daemon that writes there is waited for
# Of the way that the images took then; the way they take now has its own.
_OF_THE_RUN = {"host_time_s", "file", "file_defects", "channels_told_apart"}
_FRAMES = """
SELECT channel, z, metadata_json FROM frames_view WHERE plate = ? AND well = ? AND stack = ?
"""


def recorded_facts(image: Path) -> Mapping[tuple[str, int], Facts]:
    """(channel, z) -> what was said of a stored image when it was taken.

    Nothing where the recording was copied without its ledger, or the ledger cannot be read: its pixels do not need it.
    """
    try:
        plate, row, column, stack = image.absolute().parts[-4:]
        catalog = image.absolute().parents[3] / CATALOG_NAME
        asked = (plate.removesuffix(".ome.zarr"), row + column, int(stack))
        if not catalog.is_file():
            return {}
        with closing(sqlite3.connect(f"{catalog.as_uri()}?mode=ro", uri=True, timeout=BUSY_S)) as connection:
            rows = connection.execute(_FRAMES, asked).fetchall()
        return {(channel, z): _said(json.loads(text)) for channel, z, text in rows}
    except (OSError, ValueError, sqlite3.Error):
        return {}


def _said(metadata: object) -> Facts:
    if not isinstance(metadata, dict):
        return {}
    return {
        name: value
        for name, value in metadata.items()
        if name not in _OF_THE_RUN and isinstance(value, int | float | str)
    }
