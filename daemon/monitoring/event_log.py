"""The log: one JSON object a line in `data_dir/logs/spheroidd.jsonl`, turned over when it is large.

Every line has `time` (UTC), `level` and `event`, and where it concerns them `plate`, `well` and `stack`.
A slice has no line (the catalog has a row for each); a stack has one when it opens and one when it is sealed.
"""

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

from spheroidd.daemon.catalog.audit_chain import utc
from spheroidd.daemon.scoring.messages import Scored
from spheroidd.daemon.scoring.pool import ScoringAbandoned, ScoringFailed, WorkerBroken, WorkerLost, WorkerReady
from spheroidd.protocols.events import (
    SlicesCameTwice,
    SourceFinished,
    StackHeld,
    StackOpened,
    StackPlanned,
    StackRejected,
    StackSealed,
    ThreadDied,
)
from spheroidd.protocols.stack import StackKey

FOLDER, NAME = "logs", "spheroidd.jsonl"
FILE_BYTES, OLD_FILES = 5_000_000, 5
ROOT = "spheroidd"  # what any part of the package warns of is logged too
_log = logging.getLogger("spheroidd.events")


class JsonLines(logging.Formatter):
    """A record as one line. What was given as `fields` stands beside the usual keys."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        fields: Mapping[str, Any] | None = getattr(record, "fields", None)
        line: dict[str, Any] = {"time": utc(record.created), "level": record.levelname.lower()}
        if fields is not None:
            line |= {"event": record.getMessage(), **fields}
        else:
            line |= {"event": "message", "source": record.name, "message": record.getMessage()}
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class LogFile(RotatingFileHandler):
    """Turns over where the system lets it, and goes on in the same file where a reader holds it (Windows).

    A full disk costs lines, never a frame: `lost` counts them, and the next line that can be written says so.
    """

    def __init__(self, data_dir: Path, file_bytes: int = FILE_BYTES) -> None:
        folder = data_dir / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        super().__init__(folder / NAME, maxBytes=file_bytes, backupCount=OLD_FILES, encoding="utf-8", delay=True)
        self.setFormatter(JsonLines())
        self.lost = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line, and before it how many were lost."""
        if self.lost:
            lost, self.lost = self.lost, 0
            gap = logging.LogRecord(record.name, logging.WARNING, "", 0, "lines-lost", None, None)
            gap.__dict__["fields"] = {"lines": lost}
            super().emit(gap)
            if self.lost:
                self.lost += lost
                return
        super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 -- the name is the library's
        """Count what could not be written."""
        self.lost += 1

    def rotate(self, source: str, dest: str) -> None:
        """Rename the full file, unless somebody has it open."""
        try:
            super().rotate(source, dest)
        except PermissionError:
            return


@contextmanager
def logging_to(data_dir: Path) -> Iterator[None]:
    """Log what this process does into a data directory. On a disk that refuses even the folder nothing is logged."""
    try:
        handler: logging.Handler = LogFile(data_dir)
    except OSError:
        handler = logging.NullHandler()
    logger = logging.getLogger(ROOT)
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(before)
        logger.removeHandler(handler)
        handler.close()


def tell(event: str, key: StackKey | None = None, level: int = logging.INFO, **fields: object) -> None:
    """Log something, with the stack it concerns."""
    place = {"plate": key.plate, "well": str(key.well), "stack": key.stack} if key else {}
    told = {name: value for name, value in fields.items() if value is not None}
    _log.log(level, "%s", event, extra={"fields": {**place, **told}})


def tell_event(event: object) -> None:
    """Log what main was told and has committed; the frequent ones (slices, blocks) have no line."""
    match event:
        case StackPlanned(plan):
            tell("stack-planned", plan.key, slices=plan.n_slices)
        case StackOpened(plan, found):
            tell("stack-opened", plan.key, slices=plan.n_slices, found=len(found))
        case StackSealed(key):
            tell("stack-sealed", key)
        case StackHeld(key):
            tell("stack-paused", key)
        case SlicesCameTwice(key, count, first):
            tell("slices-came-twice", key, logging.WARNING, slices=count, channel=first.channel, z=first.z)
        case StackRejected(key, error):
            tell("stack-rejected", key, logging.ERROR, what=error.what, do=error.do)
        case Scored():
            if event.measurement is not None:
                tell("stack-scored", event.key, cpu_s=round(event.measurement.cpu_s, 3))
        case ScoringFailed(key, error):
            tell("scoring-failed", key, logging.ERROR, what=error.what, do=error.do)
        case ScoringAbandoned(key):
            tell("scoring-abandoned", key)
        case WorkerReady(pid, model):
            tell("worker-ready", pid=pid, model_sha256=model)
        case WorkerLost(key, code, hung_s):
            tell("worker-lost", key, logging.ERROR, exit_code=code, hung_s=hung_s)
        case WorkerBroken(error):
            tell("worker-broken", None, logging.ERROR, what=error.what, do=error.do)
        case ThreadDied(name, failure):
            tell("thread-died", None, logging.CRITICAL, thread=name, error=repr(failure))
        case SourceFinished():
            tell("source-finished")
        case _:
            pass
