"""That the catalog cannot be written, said beside it: the one thing of a daemon that cannot stand in the catalog.

The file has its size from the daemon's start on and is overwritten in place, so that a full disk still takes it.
"""

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spheroidd.daemon.catalog.rows import Fault
from spheroidd.protocols.errors import SpheroiddError
from spheroidd.protocols.faults import FaultCode
from spheroidd.protocols.json_text import parse_json

NAME = "outage.json"
_BYTES = 4096
_MOST = 600  # letters of a sentence


@dataclass(frozen=True, slots=True)
class OutageNote:
    """The daemon's state and the fault behind it; `heartbeat_s` is main's last sign of life, since 1970."""

    state: str
    heartbeat_s: float
    fault: Fault


def prepare(data_dir: Path) -> None:
    """Take the room for a note; there is none now."""
    _write(data_dir, {}, create=True)


def write(data_dir: Path, state: str, error: SpheroiddError, since_s: float, now_s: float) -> None:
    """Say that the catalog still refuses. A disk that refuses this as well has it that nothing is said."""
    words = {"kind": type(error).__name__, "what": error.what, "where": error.where, "do": error.do}
    times = {"since_s": since_s, "heartbeat_s": now_s}
    _write(data_dir, {"state": state, **times, **{name: word[:_MOST] for name, word in words.items()}})


def clear(data_dir: Path) -> None:
    """It can be written again."""
    _write(data_dir, {})


def remove(data_dir: Path) -> None:
    """The daemon is gone."""
    with contextlib.suppress(OSError):
        (data_dir / NAME).unlink()


def read(data_dir: Path) -> OutageNote | None:
    """What a running daemon says; None where it says nothing."""
    try:
        said = parse_json((data_dir / NAME).read_bytes())
        kind, what, where, do = (str(said[name]) for name in ("kind", "what", "where", "do"))
        fault = Fault(FaultCode.STORAGE_CATALOG, "", kind, what, where, do, float(said["since_s"]), None)
        return OutageNote(str(said["state"]), float(said["heartbeat_s"]), fault)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(data_dir: Path, said: dict[str, Any], *, create: bool = False) -> None:
    text = json.dumps(said).encode("ascii").ljust(_BYTES)
    with contextlib.suppress(OSError), (data_dir / NAME).open("wb" if create else "r+b", buffering=0) as file:
        file.write(text)
