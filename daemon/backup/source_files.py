"""The files of a data directory that a backup has, and in which order: each slice that the catalog's copy acknowledges
is in what is copied after it, in the ring or in a shard, however the daemon goes on meanwhile.
"""

import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from spheroidd.acquisition.store.leftovers import PLATE_END, RING_END
from spheroidd.acquisition.store.ring_file import copy_held
from spheroidd.acquisition.store.shard import IMAGE_CODEC
from spheroidd.acquisition.store.stack_files import unsealed_stacks
from spheroidd.daemon.backup.copying import Fill
from spheroidd.daemon.config.submitted_plates import DRAFT, FOLDER
from spheroidd.protocols.durable import PARTIAL

SourceFile = tuple[str, Fill | None, bool]
"""A path within the data directory, how its content is written where it is not copied as it is, whether it changes
under its name and time (and so is copied anew each time)."""


def files_to_copy(data_dir: Path, plates: Sequence[str]) -> Iterator[SourceFile]:
    """Rings first: what leaves one is in a shard by then."""
    for plate in plates:
        yield from _rings(data_dir, plate)
    for plate in plates:
        for path in _walk(data_dir / f"{plate}{PLATE_END}"):
            yield path.relative_to(data_dir).as_posix(), None, False
    for path in _walk(data_dir / FOLDER):
        yield path.relative_to(data_dir).as_posix(), None, False


def _rings(data_dir: Path, plate: str) -> Iterator[SourceFile]:
    """The rings that slices of a stack under way may lie in."""
    waiting = {stack.stack_id for stack in unsealed_stacks(data_dir, plate, IMAGE_CODEC)}
    if waiting:
        for path in sorted((data_dir / f"{plate}{RING_END}").glob("*.ring")):
            yield path.relative_to(data_dir).as_posix(), partial(copy_held, stack_ids=waiting), True


def _walk(folder: Path) -> Iterator[Path]:
    """Regular files, without what is being written and what was set aside as damaged; no link is followed."""
    for where, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith(DRAFT))
        for name in sorted(names):
            path = Path(where, name)
            if not name.endswith(PARTIAL) and ".damaged-" not in name and path.is_file() and not path.is_symlink():
                yield path
