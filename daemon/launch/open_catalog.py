"""The catalog for as long as a daemon is at work, and what is said where a disk ends it."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.monitoring.event_log import tell
from spheroidd.protocols.errors import SpheroiddError, StorageError
from spheroidd.protocols.faults import FaultCode

REFUSALS = (FaultCode.STORAGE_CATALOG, FaultCode.STORAGE)


@contextmanager
def open_catalog(data_dir: Path) -> Iterator[Catalog]:
    """Open it for writing; made where there is none. Errors as of `Catalog.create_or_open`.

    A StorageError that ends what is done inside, or comes before it, says so in its words and in the log; a catalog
    that takes it keeps it as an alarm until the next daemon is at work.
    """
    try:
        with Catalog.create_or_open(data_dir) as catalog:
            for fault in catalog.faults():  # an earlier daemon ended with it, and now the disk takes what is written
                if fault.code == FaultCode.STORAGE_CATALOG:
                    catalog.clear_fault(FaultCode.STORAGE_CATALOG)
            try:
                yield catalog
            except StorageError as error:
                with suppress(SpheroiddError):  # a disk that is still full: the log and the terminal have it
                    catalog.raise_fault(REFUSALS[error.where != str(catalog.path)], error.of_the_end())
                raise
    except StorageError as error:
        ended = error.of_the_end()
        tell("daemon-ended", None, logging.CRITICAL, what=ended.what, where=ended.where, do=ended.do)
        raise ended from error
