"""Raw frames that are not kept once their slices are made: deleted, and said to be so where they lay.

The ledger goes on saying what was acknowledged; the slices made of the frames stay in the plate's OME-Zarr.
"""

import shutil
from pathlib import Path

from spheroidd.acquisition.disk.durable_file import storage_errors
from spheroidd.acquisition.store import ngff
from spheroidd.protocols.errors import StorageError
from spheroidd.protocols.stack import StackKey

DROPPED = "frames_deleted"  # attribute: why


def drop_raw(root: Path, key: StackKey, why: str) -> None:
    """Delete a stack's raw frames, after saying so in their group; again is harmless. StorageError where the disk
    refuses: what is left is deleted with the next call.
    """
    group = ngff.raw_path(root, key)
    with storage_errors(group):
        own = ngff.read_attributes(group).get(ngff.OWN, {})
        if DROPPED not in own:
            ngff.write_group(group, {ngff.OWN: {**own, DROPPED: why}})
        frames = group / "0" / "c"
        if frames.is_dir():
            shutil.rmtree(frames)


def is_dropped(root: Path, key: StackKey) -> bool:
    """Whether a stack's raw frames were deleted on purpose."""
    return was_dropped(ngff.raw_path(root, key))


def was_dropped(group: Path) -> bool:
    """The same of the group of raw frames."""
    try:
        return DROPPED in ngff.read_attributes(group).get(ngff.OWN, {})
    except (OSError, StorageError):
        return False
