"""`python -m tests.cases [WORD ...]`: every case, or those whose kind or name holds a word; a table, and exit code 1
where one is not as it should be.
"""

import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.cases.case import Driven, Outcome
from tests.cases.every import every_case


def chosen(words: list[str]) -> Iterator[Driven]:
    """The cases that one of the words is in; all without any."""
    for one in every_case():
        if not words or any(word.lower() in f"{one.kind} {one.name}".lower() for word in words):
            yield one


def main() -> int:
    """Run them, each in a folder of its own, and tell."""
    screen, start = Console(width=170 if not sys.stdout.isatty() else None), time.monotonic()
    table = Table("kind", "case", "what happened", "ok", box=None, pad_edge=False, header_style="bold")
    found: list[Outcome] = []
    for one in chosen(sys.argv[1:]):
        with tempfile.TemporaryDirectory(prefix="spheroidd-case-", ignore_cleanup_errors=True) as folder:
            for outcome in one.outcomes(Path(folder)):
                found.append(outcome)
                happened = outcome.happened if outcome.ok else outcome.happened[-700:]
                table.add_row(outcome.kind, outcome.case, happened, "ok" if outcome.ok else "WRONG")
    screen.print(table, highlight=False)
    wrong = sum(not outcome.ok for outcome in found)
    screen.print(f"{len(found)} cases, {wrong} wrong, {time.monotonic() - start:.0f} s")
    return 1 if wrong or not found else 0


if __name__ == "__main__":
    sys.exit(main())
