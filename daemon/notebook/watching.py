"""Following a plate while a daemon writes it: the catalog is looked at again and again, and nothing else is asked."""

import time
from collections.abc import Iterator

from spheroidd.daemon.catalog.reader import CatalogReader
from spheroidd.daemon.monitoring.status import look
from spheroidd.daemon.notebook.plate import Plate
from spheroidd.protocols.errors import ConfigError

LEAST_S = 0.1  # between two looks: each reads how every well stands


def watch_plate(plate: Plate, *, interval_s: float, timeout_s: float | None) -> Iterator[Plate]:
    """See `spheroidd.watch`. ConfigError for an interval below 0.1 s, at once and not at the first look."""
    if not interval_s >= LEAST_S:
        raise ConfigError(f"interval_s is {interval_s}", where="spheroidd.watch", do=f"give {LEAST_S} s or more")
    return _changes(plate, interval_s, None if timeout_s is None else time.monotonic() + timeout_s)


def _changes(plate: Plate, interval_s: float, until_s: float | None) -> Iterator[Plate]:
    plate.refresh()
    yield plate
    while not plate.over:
        # Asked before the catalog is read: what a daemon wrote before it ended is still seen.
        running = _is_running(plate)
        if plate.refresh():
            yield plate
        if not running or (until_s is not None and time.monotonic() >= until_s):
            return
        if not plate.over:
            time.sleep(interval_s)


def _is_running(plate: Plate) -> bool:
    with CatalogReader.read_only(plate.data_dir) as catalog:
        return look(plate.data_dir, catalog, figures=False).running
