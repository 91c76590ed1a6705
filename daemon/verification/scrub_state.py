"""How far the scrub has come and what it found: a small file beside the catalog, so that a daemon goes on with it."""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from spheroidd.daemon.verification.findings import Finding
from spheroidd.protocols.durable import write_atomically
from spheroidd.protocols.errors import SpheroiddError
from spheroidd.protocols.json_text import parse_json
from spheroidd.protocols.stack import StackKey

NAME = "scrub.state.json"


@dataclass(frozen=True, slots=True)
class ScrubProgress:
    """What a status says of it. Times are seconds since 1970; `finished_s` is None before the first pass has ended.

    `share_done` is that of the pass under way, 0 to 1 of the pixels, and None between two passes; `damaged` counts the
    stacks that are not as they were written.
    """

    finished_s: float | None
    share_done: float | None
    damaged: int


@dataclass(slots=True)
class ScrubState:
    """`done` holds by stack the digest of its ledger, `damage` what is wrong with each stack that is not whole."""

    started_s: float | None = None  # of the pass under way
    finished_s: float | None = None  # of the last one
    done_bytes: int = 0
    all_bytes: int = 0
    done: dict[str, str] = field(default_factory=dict)
    damage: dict[str, list[Finding]] = field(default_factory=dict)

    @property
    def progress(self) -> ScrubProgress:
        """In short."""
        share = None if self.started_s is None else min(1.0, self.done_bytes / max(1, self.all_bytes))
        return ScrubProgress(self.finished_s, None if share is None else round(share, 3), len(self.damage))

    def begin(self, now_s: float) -> None:
        """A pass over everything."""
        self.started_s, self.done_bytes, self.done = now_s, 0, {}

    def end(self, now_s: float) -> None:
        """It is over."""
        self.started_s, self.finished_s, self.done = None, now_s, {}

    @classmethod
    def read(cls, data_dir: Path) -> Self | None:
        """The state that was saved; None where there is none, or none that can be read: then all is done again."""
        with suppress(OSError, ValueError, KeyError, TypeError, AttributeError, SpheroiddError):
            said = parse_json((data_dir / NAME).read_bytes())
            return cls(
                _time(said["started_s"]),
                _time(said["finished_s"]),
                int(said["done_bytes"]),
                int(said["all_bytes"]),
                {str(name): str(digest) for name, digest in said["done"].items()},
                {
                    str(StackKey.parse(name)): [Finding.of(each) for each in found]
                    for name, found in said["damage"].items()
                },
            )
        return None

    def write(self, data_dir: Path) -> None:
        """Save it, whole or not at all; OSError where the disk refuses."""
        values: Mapping[str, Any] = {
            "started_s": self.started_s,
            "finished_s": self.finished_s,
            "done_bytes": self.done_bytes,
            "all_bytes": self.all_bytes,
            "done": self.done,
            "damage": {name: [finding.values() for finding in found] for name, found in self.damage.items()},
        }
        write_atomically(data_dir / NAME, json.dumps(values).encode())


def _time(value: object) -> float | None:
    return None if value is None else float(value)  # type: ignore[arg-type]
