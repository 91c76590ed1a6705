"""Many executions of one parser, and what escaped from it."""

import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from spheroidd.protocols.errors import SpheroiddError
from tests.fuzz.mutations import mutated
from tests.fuzz.parsers import Parser
from tests.places import ROOT

SLOW_S = 3.0  # of the processor: no input of some kilobytes is worth more


@dataclass(slots=True)
class Found:
    """What became of the inputs. `escapes` holds by place the words, `inputs` the bytes of the first one there."""

    executions: int = 0
    refused: int = 0
    read: int = 0
    escapes: dict[str, str] = field(default_factory=dict)
    inputs: dict[str, bytes] = field(default_factory=dict)

    def __str__(self) -> str:
        """Cells of the table."""
        return f"{self.executions:,} | {self.refused:,} | {self.read:,} | {len(self.escapes)}"

    def escaped(self, place: str, words: str, content: bytes) -> None:
        """Keep it, where it is the first one of that place."""
        if place not in self.escapes:
            self.escapes[place], self.inputs[place] = words, content


def fuzz(
    parser: Parser,
    folder: Path,
    chance: Random,
    executions: int,
    seconds: float,
    alive: Callable[[], object] = lambda: None,
    found: Found | None = None,
) -> Found:
    """Mutations of the good inputs, and mutations of what was read though it was one already; counted in `found`."""
    seeds, take = parser.set_up(folder)
    pool, found = list(seeds), found or Found()
    if not seeds:
        return found
    until_s = time.monotonic() + seconds
    with warnings.catch_warnings(action="ignore"):
        while found.executions < executions and time.monotonic() < until_s:
            if found.executions % 100 == 0:
                alive()
            content = mutated(chance.choice(pool), chance)
            if _execute(take, content, found) and len(pool) < 200 and len(content) < 200_000:
                pool.append(content)
    return found


def _execute(take: Callable[[bytes], object], content: bytes, found: Found) -> bool:
    """Whether it was read; what escapes is kept."""
    found.executions += 1
    began_s = time.process_time()
    try:
        take(content)
        found.read += 1
        read = True
    except SpheroiddError:
        found.refused += 1
        read = False
    except Exception as error:
        found.escaped(_place(error), f"{type(error).__name__}: {str(error)[:120]}", content)
        read = False
    spent_s = time.process_time() - began_s
    if spent_s > SLOW_S:
        found.escaped("slow", f"{spent_s:.1f} s", content)
    return read


def _place(error: BaseException) -> str:
    """The innermost line of this project that it came through, and its kind."""
    frames = [(Path(frame.filename).resolve(), frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    within = [(path.relative_to(ROOT), line) for path, line in frames if path.is_relative_to(ROOT)]
    ours = [f"{path}:{line}" for path, line in within if path.parts[0] not in (".venv", "tests")]
    return f"{ours[-1] if ours else '?'} {type(error).__name__}"
