"""Reads the log back: all its files in order, what was asked for, and what comes while one watches."""

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from spheroidd.daemon.monitoring.event_log import FOLDER, NAME, OLD_FILES
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.json_text import parse_json
from spheroidd.protocols.well import WellId

LOOK_S = 0.5
_AGO = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd])")
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_SHOWN_APART = ("time", "level", "event", "plate", "well", "stack")

Line = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Asked:
    """Which lines are wanted: of one well, since a time (seconds since 1970)."""

    well: str | None = None
    since_s: float | None = None

    @classmethod
    def of(cls, well: str | None, since: str | None, now_s: float) -> "Asked":
        """From what a person wrote: "B03", and "2h", "30 m" or ISO 8601. ConfigError says what to write."""
        return cls(None if well is None else str(WellId.parse(well)), None if since is None else _since(since, now_s))

    def holds(self, line: Line) -> bool:
        """Whether a line is wanted."""
        if self.well is not None and line.get("well") != self.well:
            return False
        return self.since_s is None or _at_s(line) >= self.since_s


def log_files(data_dir: Path) -> list[Path]:
    """The log's files that are there, oldest first."""
    newest = data_dir / FOLDER / NAME
    old = [newest.with_name(f"{NAME}.{number}") for number in range(OLD_FILES, 0, -1)]
    return [path for path in (*old, newest) if path.is_file()]


def lines(data_dir: Path, asked: Asked) -> Iterator[Line]:
    """The wanted lines, oldest first. A line that a crash cut off is left out."""
    for path in log_files(data_dir):
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:  # turned over meanwhile
            continue
        yield from _parsed(text.splitlines(), asked)


def follow(data_dir: Path, asked: Asked, *, wait: Callable[[float], None] = time.sleep) -> Iterator[Line]:
    """The wanted lines that are written from now on, for ever; the file is held open no longer than it is read."""
    path = data_dir / FOLDER / NAME
    offset = path.stat().st_size if path.is_file() else 0
    rest = b""
    while True:
        size = path.stat().st_size if path.is_file() else 0
        if size < offset:  # turned over: the end of the old file first
            rest += _bytes(path.with_name(f"{NAME}.1"), offset)
            offset = 0
        new = _bytes(path, offset)
        offset += len(new)
        *whole, rest = (rest + new).split(b"\n")
        yield from _parsed([line.decode("utf-8", "replace") for line in whole], asked)
        wait(LOOK_S)


def in_words(line: Line) -> str:
    """A line for a person."""
    place = "/".join(str(line[name]) for name in ("plate", "well", "stack") if line.get(name) is not None)
    others = "  ".join(f"{name}={value}" for name, value in line.items() if name not in _SHOWN_APART)
    words = (str(line.get("time", "")), f"{line.get('level', ''):8}", str(line.get("event", "")), place, others)
    return "  ".join(word for word in words if word)


def _parsed(texts: list[str], asked: Asked) -> Iterator[Line]:
    for text in texts:
        try:
            line = parse_json(text)
        except ValueError:
            continue
        if isinstance(line, dict) and asked.holds(line):
            yield line


def _bytes(path: Path, offset: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read()
    except FileNotFoundError:
        return b""


def _at_s(line: Line) -> float:
    try:
        return datetime.fromisoformat(str(line.get("time"))).timestamp()
    except ValueError:
        return 0.0


def _since(text: str, now_s: float) -> float:
    if ago := _AGO.fullmatch(text.strip()):
        return now_s - float(ago[1]) * _SECONDS[ago[2]]
    try:
        moment = datetime.fromisoformat(text.strip())
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        do = 'write how long ago ("30m", "2h", "1d") or a time in UTC ("2026-03-01T14:00")'
        raise ConfigError(f"--since {text!r} is no time", do=do) from None
