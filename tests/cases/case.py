"""What a case is, and how it is driven: an input of our own, commands as processes, and what they must say.

A case stands for a kind of fault. `Case` has commands of its own; wells of a `Plate` share one run, because most of a
run's time is a network that loads.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

LIMIT_S = 300.0
PROGRAM = (sys.executable, "-c", "import sys; from spheroidd.daemon.cli import main; sys.exit(main())")
Check = Callable[[Path, str], str]
"""Looks at the folder of a case and at what a command printed; says what is wrong, or nothing."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One line of the table."""

    kind: str
    case: str
    happened: str
    ok: bool


class Driven(Protocol):
    """What can be driven in a folder of its own."""

    @property
    def kind(self) -> str:
        """Of which kind of the table it is."""

    @property
    def name(self) -> str:
        """What is tried."""

    def outcomes(self, folder: Path) -> Iterator[Outcome]:
        """Make the input, run the commands, and say what happened."""


@dataclass(frozen=True, slots=True)
class Step:
    """One command after `spheroidd`, its exit code, what must stand in its words and what must not, as text."""

    command: str
    code: int = 0
    says: tuple[str, ...] = ()
    never: tuple[str, ...] = ()
    check: Check | None = None

    def run(self, folder: Path) -> tuple[str, str]:
        """What it printed on one line, and what is wrong with that; the second is empty where nothing is."""
        done = spheroidd(folder, self.command)
        told = one_line(done.stdout + " " + done.stderr)
        faults = [] if done.returncode == self.code else [f"exit code {done.returncode}, not {self.code}"]
        faults += [f"it does not say {text!r}" for text in self.says if one_line(text) not in told]
        faults += [f"it says {text!r}" for text in self.never if one_line(text) in told]
        if not faults and self.check is not None and (wrong := self.check(folder, done.stdout)):
            faults.append(wrong)
        return told, "; ".join(faults)


@dataclass(frozen=True, slots=True)
class Case:
    """One input with its commands. `quick` ones run in the ordinary test suite, too."""

    kind: str
    name: str
    make: Callable[[Path], object]
    steps: tuple[Step, ...]
    quick: bool = False

    def outcomes(self, folder: Path) -> Iterator[Outcome]:
        """One line: what the last command said, or the first that went wrong."""
        self.make(folder)
        happened = ""
        for step in self.steps:
            told, wrong = step.run(folder)
            if wrong:
                yield Outcome(self.kind, self.name, f"{wrong}: `{step.command}` said {told[-600:]}", False)
                return
            happened = next((text for text in step.says), "") or happened or f"exit code {step.code}"
        yield Outcome(self.kind, self.name, happened, True)


Seen = Callable[[Path, str, Mapping[str, Any]], tuple[str, bool]]
"""Looks at the folder, a well and its row; says what happened and whether that is right."""


@dataclass(frozen=True, slots=True)
class PlateWell:
    """One case of a plate that is run as a whole: what it writes, by the columns of the map, and what is right."""

    kind: str
    name: str
    write: Callable[[Path, str], Mapping[str, object]]
    seen: Seen | None = None  # None: a well that others need


@dataclass(frozen=True, slots=True)
class Plate:
    """Wells that are replayed together, in a map of their own."""

    kind: str
    name: str
    wells: tuple[PlateWell, ...]
    options: str = ""
    quick: bool = False
    codes: Mapping[str, int] = field(default_factory=dict)  # exit codes of `results` and `status` for the plate

    def outcomes(self, folder: Path) -> Iterator[Outcome]:
        """One line a well."""
        rows = []
        for number, well in enumerate(self.wells):
            name = f"{chr(ord('A') + number // 12)}{number % 12 + 1:02d}"
            rows.append({"well": name, "role": "sample", **well.write(folder, name)})
        write_map(folder / "map.csv", rows)
        done = spheroidd(folder, f"replay map.csv d --name p {self.options}")
        shown = spheroidd(folder, "results d --json")
        found = {row["well"]: row for row in json.loads(shown.stdout or "[]")}
        for row, well in zip(rows, self.wells, strict=True):
            if well.seen is None:
                continue
            at = str(row["well"])
            if at not in found:
                yield Outcome(well.kind, well.name, f"no row: {one_line(done.stdout + done.stderr)[-300:]}", False)
                continue
            happened, ok = well.seen(folder, at, found[at])
            yield Outcome(well.kind, well.name, happened, ok)
        for command, code in self.codes.items():
            got = spheroidd(folder, f"{command} d").returncode
            yield Outcome(self.kind, f"{self.name}: `{command}`", f"exit code {got}", got == code)


def spheroidd(folder: Path, command: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder, as a process of its own; words are separated by spaces, quoted ones by `'`."""
    words = [a or b for a, b in re.findall(r"'([^']*)'|(\S+)", command)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "140", "PYTHONIOENCODING": "utf-8"}
    return subprocess.run(
        [*PROGRAM, *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=LIMIT_S,
        check=False,
    )


def one_line(text: str) -> str:
    """Words with one space between them: tables and long lines are broken anywhere."""
    return " ".join(text.split())


def write_map(path: Path, rows: list[dict[str, object]]) -> None:
    """A plate map with the columns that any row has."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = [",".join(columns), *(",".join(str(row.get(name, "")) for name in columns) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def written(name: str, text: str | bytes) -> Callable[[Path], object]:
    """Makes one file."""

    def make(folder: Path) -> object:
        path = folder / name
        return path.write_bytes(text) if isinstance(text, bytes) else path.write_text(text, encoding="utf-8")

    return make
