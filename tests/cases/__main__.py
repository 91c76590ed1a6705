"""`python -m tests.cases [WORD ...]`: every case, or those whose kind or name holds a word; a line each, and exit code 1
where one is not as it should be.
"""

import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.cases.case import Driven, Outcome
from tests.cases.every import every_case


def chosen(words: list[str]) -> Iterator[Driven]:
    """The cases that one of the words is in; all without any."""
    for one in every_case():
        if not words or any(word.lower() in f"{one.kind} {one.name}".lower() for word in words):
            yield one


def main() -> int:
    """Run them, each in a folder of its own, and tell."""
    start, found = time.monotonic(), list[Outcome]()
    for one in chosen(sys.argv[1:]):
        with tempfile.TemporaryDirectory(prefix="spheroidd-case-", ignore_cleanup_errors=True) as folder:
            for outcome in one.outcomes(Path(folder)):
                found.append(outcome)
                happened = outcome.happened[:110] if outcome.ok else outcome.happened
                print(
                    f"{'ok   ' if outcome.ok else 'WRONG'} {outcome.kind:25} {outcome.case:60} {happened}", flush=True
                )
    wrong = sum(not outcome.ok for outcome in found)
    print(f"{len(found)} cases, {wrong} wrong, {time.monotonic() - start:.0f} s")
    return 1 if wrong or not found else 0


if __name__ == "__main__":
    sys.exit(main())
