"""README and docs as their readers use them: pages, and the fenced blocks in them.

The convention: a command stands in a block of the language `sh`; a file that commands need in a block with a title.
Blocks are executed in order, one folder a page, by `tests/test_documentation.py`. A comment on the line before a block
says when it is not: `<!-- slow: why -->` leaves it to `pytest -m slow`, `<!-- not executed: why -->` names what it
requires: hardware, hours, a second terminal.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from tests.places import DOCS, ROOT

PAGES = tuple(sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS.rglob("*.md")]))

_MARK = re.compile(r"<!-- (slow|not executed): (.+) -->")
_TITLE = re.compile(r'title="([^"]+)"')


@dataclass(frozen=True)
class Fence:
    """One fenced block: where it stands, its language, the file it is, and why it is not executed at once."""

    page: Path
    line: int
    language: str
    title: str
    text: str
    mark: str  # "slow", "not executed" or ""

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT).as_posix()}:{self.line}"


def fences(page: Path) -> list[Fence]:
    """The page's fenced blocks in their order."""
    found: list[Fence] = []
    lines = page.read_text(encoding="utf-8").splitlines()
    start: int | None = None
    for number, line in enumerate(lines):
        if not line.startswith("```"):
            continue
        if start is None:
            start = number
            continue
        info = lines[start].removeprefix("```")
        title = _TITLE.search(info)
        mark = _MARK.fullmatch(lines[start - 1]) if start else None
        found.append(
            Fence(
                page,
                start + 1,
                info.split(" ", 1)[0],
                title.group(1) if title else "",
                "\n".join(lines[start + 1 : number]) + "\n",
                mark.group(1) if mark else "",
            )
        )
        start = None
    if start is not None:
        raise ValueError(f"{page}:{start + 1}: the block does not end")
    return found


def commands(text: str) -> list[list[str]]:
    """The words of each `spheroidd` command in a shell block, without comments, pipes and redirections."""
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        for part in re.split(r"\|\|?|&&|;|>", line.split(" #", 1)[0]):
            words = part.split()
            if "spheroidd" in words:
                found.append(words[words.index("spheroidd") + 1 :])
    return found
