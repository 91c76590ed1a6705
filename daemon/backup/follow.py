"""A backup beside a run: a pass every so often, and one more when the daemon has ended."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from spheroidd.daemon.system.lock import is_locked

LOOK_S = 0.5  # how soon the daemon's end is noticed


def followed(data_dir: Path, every_s: float, say: Callable[[str], None]) -> Iterator[int]:
    """Count the passes that are due: every `every_s`, and a last one after the daemon's end. For ever without a daemon,
    which a person ends.
    """
    give_way()
    seen, number = False, 0
    while True:
        running = is_locked(data_dir) is not False
        seen |= running
        yield number
        number += 1
        if seen and not running:
            say("the daemon has ended, and all of it is in the backup")
            return
        due_s = time.monotonic() + every_s
        while time.monotonic() < due_s and not (seen and is_locked(data_dir) is False):
            time.sleep(LOOK_S)


def give_way() -> None:
    """Let whoever images or scores on this computer go first."""
    process = psutil.Process()
    process.nice(psutil.BELOW_NORMAL_PRIORITY_CLASS if psutil.WINDOWS else 10)
    if hasattr(process, "ionice"):
        process.ionice(psutil.IOPRIO_VERYLOW if psutil.WINDOWS else psutil.IOPRIO_CLASS_IDLE)
