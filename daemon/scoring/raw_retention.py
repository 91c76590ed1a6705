"""Deletes raw frames that a plate is not to keep, once what was computed of them stands."""

import logging
from collections.abc import Container

from spheroidd.acquisition.store.computed_image import is_computed
from spheroidd.acquisition.store.kept_raw import drop_raw
from spheroidd.daemon.catalog.rows import stack_key
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.protocols.errors import StorageError
from spheroidd.protocols.sim_pattern import KeepRaw
from spheroidd.protocols.stack import StackKey

_MADE = "SELECT plate, well, stack FROM sim_slices WHERE plate = :plate"
_FINAL = f"""{_MADE} AND EXISTS (SELECT 1 FROM results r WHERE r.plate = sim_slices.plate AND r.well = sim_slices.well
  AND r.stack = sim_slices.stack AND r.model_sha256 = :model AND r.status = 'final')"""
_log = logging.getLogger(__name__)


class RawRetention:
    """`[store] keep_raw` of a plate whose rows are those of one model."""

    def __init__(self, catalog: Catalog, plate: str, model_sha256: str, keep: KeepRaw) -> None:
        self._catalog, self._keep = catalog, keep
        self._of = {"plate": plate, "model": model_sha256}
        self._dropped: set[StackKey] = set()
        self._refused: set[StackKey] = set()  # by the disk

    def drop(self, in_work: Container[StackKey]) -> None:
        """Delete what need not be kept, of stacks that nobody works on; to be called after a commit.

        What the disk refuses is tried again with the next call, and logged once.
        """
        if self._keep is KeepRaw.ALL:
            return
        root = self._catalog.path.parent
        for row in self._catalog.query(_MADE if self._keep is KeepRaw.NONE else _FINAL, self._of):
            key = stack_key(row)
            if key in self._dropped or key in in_work or self._catalog.is_widefield(key):
                continue
            if not is_computed(root, key):
                continue
            try:
                drop_raw(root, key, f"[store] keep_raw = {self._keep.value}")
                self._dropped.add(key)
            except StorageError as error:
                if key not in self._refused:
                    _log.warning("the raw frames of %s cannot be deleted yet: %s", key, error.what)
                self._refused.add(key)
