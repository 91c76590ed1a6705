"""A backup beside a run: a pass every so often, and one more when the daemon has ended."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from spheroidd.daemon.catalog.reader import CatalogReader
from spheroidd.daemon.monitoring.status import SILENT_S
from spheroidd.daemon.system.lock import is_locked
from spheroidd.protocols.errors import SpheroiddError

LOOK_S = 0.5  # how soon the daemon's end is noticed


def followed(data_dir: Path, every_s: float, say: Callable[[str], None]) -> Iterator[int]:
    """Count the passes that are due: every `every_s`, and a last one after the daemon's end, be it that it died before
    this began. Where none has run yet, or the last one ended as it should, it waits for the next, which a person may
    end.
    """
    give_way()
    seen, number = False, 0
    while True:
        running, died = _daemon(data_dir)
        seen |= running
        yield number
        if number == 0 and not running and not died:
            say("no daemon runs: what the next one does is backed up too; Ctrl-C ends this")
        number += 1
        if (seen or died) and not running:
            say("the daemon died, and all that it left is in the backup" if died else _ENDED)
            return
        due_s = time.monotonic() + every_s
        while time.monotonic() < due_s and not (seen and not _daemon(data_dir)[0]):
            time.sleep(LOOK_S)


_ENDED = "the daemon has ended, and all of it is in the backup"


def _daemon(data_dir: Path) -> tuple[bool, bool]:
    """Whether a daemon runs, and whether the last one ended without a word (kill -9, power cut)."""
    locked = is_locked(data_dir)
    if locked:
        return True, False
    try:
        with CatalogReader.read_only(data_dir) as catalog:
            run = catalog.run_state()
    except SpheroiddError:  # of a catalog that cannot be read the pass itself tells
        return False, False
    at_work = run is not None and run.state != "stopped"
    if locked is None and run is not None:  # who may not try the lock sees the daemon's sign of life
        alive = at_work and abs(time.time() - run.heartbeat_s) < SILENT_S
        return alive, at_work and not alive
    return False, at_work


def give_way() -> None:
    """Let whoever images or scores on this computer go first."""
    process = psutil.Process()
    process.nice(psutil.BELOW_NORMAL_PRIORITY_CLASS if psutil.WINDOWS else 10)
    if hasattr(process, "ionice"):
        process.ionice(psutil.IOPRIO_VERYLOW if psutil.WINDOWS else psutil.IOPRIO_CLASS_IDLE)
