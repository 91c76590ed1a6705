"""Gives every parser bytes that nobody meant, and prints a table of what escaped.

    python -m tests.fuzz [--only WORD] [--executions 100000] [--seconds 120] [--minutes 0] [--seed N]
                         [--keep FOLDER] [--state FILE.json] [--out FILE.md]

An escape is an exception that is not one of our own errors, or an execution that took more than 3 s of the processor.
Its input goes to FOLDER. Exit code 1 where there was one. With --minutes it goes round the parsers, --seconds for each
of them, until all have had their executions; with --state it goes on, with other inputs, where the last run stopped.
"""

import argparse
import datetime
import faulthandler
import json
import logging
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz.campaign import Found, fuzz
from tests.fuzz.parsers import PARSERS, Parser

HANGS_S = 120  # then the process ends with where it stood
HEAD = "| parser | executions | refused | read | escapes |\n|---|---|---|---|---|"
TEXT = """# Bytes that nobody meant

`python -m tests.fuzz --minutes 90 --state FILE --out docs/fuzzing.md` wrote this on {when}: {total} executions of
{parsers} parsers in several runs of that day, {escapes} escapes left.

Each execution gives a parser a good input with bits flipped, pieces cut, copied or overwritten, or with what parsers
trip over put in. *refused*: it ended in an error of our own, which says what, where and what to do. *read*: what was
left was good enough. *escapes*: places of the code where any other exception came out, or where one input took more
than 3 s of the processor. {whole} of the parsers have had {each} executions; the others take several milliseconds
each, or were given less time. The escapes of earlier runs are mended, and each has a test.

{table}
"""


def main() -> int:
    """Fuzz all parsers, or some."""
    options = _options()
    logging.disable()  # libraries log what they refuse
    kept = _kept(options.state)
    found = {one.name: Found(**kept.get(one.name, {})) for one in PARSERS}
    print(f"seed {options.seed}\n{HEAD}")
    until_s, turn = time.monotonic() + 60 * options.minutes, 0
    while turn == 0 or time.monotonic() < until_s:
        waiting = [p for p in PARSERS if options.only in p.name and found[p.name].executions < options.executions]
        for one in waiting:
            if turn and time.monotonic() > until_s:
                break
            _turn(one, found[one.name], Random(f"{options.seed} {turn} {one.name}"), options)
            _keep(found, options)
        turn += 1
        if not waiting:
            break
    return int(any(each.escapes for each in found.values()))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="What parsers make of bytes that nobody meant.")
    parser.add_argument("--only", default="", help="parsers whose name holds this word")
    parser.add_argument("--executions", type=int, default=100_000, help="inputs for each parser")
    parser.add_argument("--seconds", type=float, default=120.0, help="at most so long for each parser")
    parser.add_argument("--minutes", type=float, default=0.0, help="round and round, until that long has passed")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="the same seed makes the same inputs")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-escapes"), help="where escapes' inputs go")
    parser.add_argument("--state", type=Path, help="keep the counts here, and go on from them where they are there")
    parser.add_argument("--out", type=Path, help="write the table here as Markdown")
    return parser.parse_args()


def _turn(one: Parser, found: Found, chance: Random, options: argparse.Namespace) -> None:
    """Its next inputs, told and counted with those before."""
    known, memory = set(found.escapes), Path("/dev/shm")  # a disk would be most of the time
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=memory if memory.is_dir() else None) as folder:
        alive = lambda: faulthandler.dump_traceback_later(HANGS_S, exit=True)  # noqa: E731
        fuzz(one, Path(folder), chance, options.executions, options.seconds, alive=alive, found=found)
    faulthandler.cancel_dump_traceback_later()
    print(f"| {one.name} | {found} |", flush=True)
    for place in found.escapes.keys() - known:
        options.keep.mkdir(parents=True, exist_ok=True)
        name = one.name.replace(" ", "-").replace(",", "").replace("/", "-")
        path = options.keep / f"{name}-{len(list(options.keep.glob(f'{name}-*')))}"
        path.write_bytes(found.inputs.pop(place))
        print(f"  {found.escapes[place]} at {place}: {path}", file=sys.stderr, flush=True)


def _kept(path: Path | None) -> dict[str, dict[str, Any]]:
    """What earlier runs counted, by the parser's name."""
    if path is None or not path.exists():
        return {}
    kept: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return kept


def _keep(found: dict[str, Found], options: argparse.Namespace) -> None:
    """After each turn, so that what ends the run in some other way leaves what was done."""
    if options.state:
        counts = {name: asdict(replace(each, inputs={})) for name, each in found.items()}
        options.state.write_text(json.dumps(counts, indent=1), encoding="utf-8")
    if options.out:
        options.out.write_text(document(found, options.executions), encoding="utf-8")


def document(found: dict[str, Found], wanted: int) -> str:
    """The page of the documentation."""
    return TEXT.format(
        when=datetime.datetime.now(datetime.UTC).date().isoformat(),
        total=f"{sum(each.executions for each in found.values()):,}",
        parsers=len(found),
        escapes=sum(len(each.escapes) for each in found.values()) or "no",
        whole=sum(each.executions >= wanted for each in found.values()),
        each=f"{wanted:,}",
        table="\n".join([HEAD, *(f"| {name} | {each} |" for name, each in found.items() if each.executions)]),
    )


if __name__ == "__main__":
    sys.exit(main())
