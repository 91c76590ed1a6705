"""What is done with one fault: a plate in real processes, the fault, the plate again to its end, and a verdict.

The verdict reads what is on disk with plain sqlite3 and zarr-python, and compares it with the same plate left alone.
"""

import os
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.plate_runs import COMMAND, Ledger, kill, ledger, unreadable, write_config
from tests.places import ROOT

INTERPOSED = (sys.executable, "-m", "tests.faults.interposed")
HUNG = "HANGS: the daemon did not end"
WHOLE = {"n_z": 24}  # the usual suite takes half a stack
END_S = 240.0  # a plate of five small stacks, beside whatever else the computer does


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one fault did. `happened` is how often; a fault that was never reached says nothing and counts as none."""

    happened: int
    lost: int  # acknowledged slices that are gone, changed or unreadable
    wrong: int  # wells with another number than the undisturbed plate, or without one and without a reason
    sees: str  # what a person sees of it


@dataclass(slots=True)
class Trial:
    """One plate with one fault. `folder` is its own; `chance` makes it repeatable."""

    folder: Path
    truth: Ledger
    undisturbed: Path
    chance: random.Random
    source: Mapping[str, Any] = field(default_factory=dict)
    seen: dict[tuple[str, int, str, int], int] = field(default_factory=dict)
    lost: int = 0
    running: list[subprocess.Popen[str]] = field(default_factory=list)

    def config(self, **inference: Any) -> Path:
        """The configuration of the small plate, in this trial's folder."""
        return write_config(self.folder, source={**WHOLE, **self.source}, **inference)

    def start(self, config: Path, fault: str | None = None) -> subprocess.Popen[str]:
        """The daemon, with a fault in it."""
        environment = {**os.environ, "FAULT_FIRED": str(self.folder / "fired")}
        environment.pop("FAULT", None)
        if fault:
            environment["FAULT"] = fault
        with config.with_suffix(".log").open("a") as log:
            process = subprocess.Popen(
                [*(INTERPOSED if fault else COMMAND), "run", str(config), "--plain"],
                cwd=ROOT,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=os.name == "posix",
            )
        self.running.append(process)
        return process

    def end(self, process: subprocess.Popen[str]) -> int | None:
        """Its exit code; None, and it is killed, where it does not end in time: that is a hang."""
        try:
            return process.wait(END_S)
        except subprocess.TimeoutExpired:
            kill(process)
            return None

    def look(self, config: Path) -> None:
        """Remember what is acknowledged, and count what was and is no more."""
        now = ledger(config).slices
        self.lost += sum(now.get(key) != crc for key, crc in self.seen.items())
        self.seen = now

    def until(self, condition: Callable[[], object], timeout_s: float = 120.0) -> bool:
        """Wait for it; False where it does not come to that."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True

    @property
    def fired(self) -> bool:
        """Whether the fault was reached."""
        return (self.folder / "fired").exists()

    def verdict(
        self,
        config: Path,
        happened: int,
        sees: str,
        *,
        failed: Set[str] = frozenset(),
        besides: Set[str] = frozenset(),
        damaged: Set[str] = frozenset(),
    ) -> Verdict:
        """Compare with the undisturbed plate, but for the wells `besides`. Those in `failed` must say why they have no
        number; the images of those in `damaged` are what the fault befell, and are not looked at.
        """
        self.look(config)
        now = ledger(config)
        lost = self.lost + len(
            unreadable(config, {key: crc for key, crc in now.slices.items() if key[0] not in damaged})
        )
        wrong = 0
        for well, rows in self.truth.results.items():
            if well in besides:
                continue
            if well in failed:
                state, reason = now.states.get(well, ("", None))
                wrong += bool(now.results.get(well)) and now.results[well] != rows
                wrong += not now.results.get(well) and not (state in ("failed", "incomplete") and reason)
            else:
                wrong += now.results.get(well) != rows
        return Verdict(happened, lost, wrong, sees)

    def close(self) -> None:
        """Leave nothing running and nothing on the disk."""
        for process in self.running:
            kill(process)
        shutil.rmtree(self.folder, ignore_errors=True)


def told(config: Path) -> str:
    """The codes of all faults that the run raised, in words for the table; "nothing" where it raised none."""
    path = config.parent / "data" / "catalog.sqlite"
    if not path.exists():
        return "nothing"
    with sqlite3.connect(path) as connection:
        codes = [code for (code,) in connection.execute("SELECT DISTINCT code FROM faults ORDER BY code")]
    return ", ".join(codes) or "nothing"
