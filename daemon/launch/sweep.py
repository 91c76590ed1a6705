"""The daemon's first act with the lock in hand: what a killed one left of its scratch files is removed, and logged."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from spheroidd.acquisition.store.image_folder import within
from spheroidd.acquisition.store.leftovers import sweep_files, sweep_plates
from spheroidd.daemon.config.submitted_plates import DRAFT, FOLDER
from spheroidd.daemon.monitoring.event_log import tell

MAX_TOLD = 20


@contextmanager
def swept(data_dir: Path) -> Iterator[None]:
    """`sweep` on entering; nothing on leaving."""
    sweep(data_dir)
    yield


def sweep(data_dir: Path) -> list[Path]:
    """Remove leftovers of a data directory; call it with the lock held. What was removed."""
    removed = [*sweep_files(data_dir), *sweep_files(data_dir / FOLDER, "*", "*/*"), *_drafts(data_dir / FOLDER)]
    removed += sweep_plates(data_dir)
    if removed:
        names = [within(data_dir, path) for path in removed[:MAX_TOLD]]
        tell("leftovers-removed", count=len(removed), names=names)
    return removed


def _drafts(plans: Path) -> Iterator[Path]:
    for draft in plans.glob(f"{DRAFT}*"):
        if draft.is_dir() and not draft.is_symlink():
            with suppress(OSError):
                shutil.rmtree(draft)
                yield draft
