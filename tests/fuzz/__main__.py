"""Gives every parser bytes that nobody meant, and prints a table of what escaped.

    python -m tests.fuzz [--only WORD] [--executions 100000] [--seconds 120] [--seed N] [--keep FOLDER]

An escape is an exception that is not one of our own errors, or an execution that took more than 3 s of the processor.
Its input goes to FOLDER. Exit code 1 where there was one.
"""

import argparse
import faulthandler
import logging
import sys
import tempfile
import time
from pathlib import Path
from random import Random

from tests.fuzz.campaign import Found, fuzz
from tests.fuzz.parsers import PARSERS

HANGS_S = 120  # then the process ends with where it stood


def main() -> int:
    """Fuzz all parsers, or some."""
    parser = argparse.ArgumentParser(description="What parsers make of bytes that nobody meant.")
    parser.add_argument("--only", default="", help="parsers whose name holds this word")
    parser.add_argument("--executions", type=int, default=100_000, help="inputs for each parser")
    parser.add_argument("--seconds", type=float, default=120.0, help="at most so long for each parser")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="the same seed makes the same inputs")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-escapes"), help="where escapes' inputs go")
    options = parser.parse_args()
    logging.disable()  # libraries log what they refuse
    escapes: list[Found] = []
    print(f"seed {options.seed}\n| parser | executions | refused | read | escapes |\n|---|---|---|---|---|")
    memory = Path("/dev/shm")  # a disk would be most of the time
    for one in PARSERS:
        if options.only not in one.name:
            continue
        with tempfile.TemporaryDirectory(prefix="fuzz-", dir=memory if memory.is_dir() else None) as folder:
            found = fuzz(
                one,
                Path(folder),
                Random(f"{options.seed} {one.name}"),
                options.executions,
                options.seconds,
                alive=lambda: faulthandler.dump_traceback_later(HANGS_S, exit=True),
            )
        faulthandler.cancel_dump_traceback_later()
        print(f"| {one.name} | {found} |", flush=True)
        for n, (place, (words, content)) in enumerate(found.escapes.items()):
            options.keep.mkdir(parents=True, exist_ok=True)
            path = options.keep / f"{one.name.replace(' ', '-').replace(',', '').replace('/', '-')}-{n}"
            path.write_bytes(content)
            print(f"  {words} at {place}: {path}", file=sys.stderr, flush=True)
        escapes += [found] * bool(found.escapes)
    return int(bool(escapes))


if __name__ == "__main__":
    sys.exit(main())
