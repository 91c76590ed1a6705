"""Writes the table of faults into docs/service.md: `python -m tests.protocols.fault_document` (`make docs`)."""

import re

from spheroidd.protocols.faults import FaultCode
from tests.places import DOCS

PATH = DOCS / "service.md"
_HEAD = "| code | severity | ended by | stands when |\n|---|---|---|---|\n"


def with_faults(text: str) -> str:
    """The document with its table of faults made anew."""
    rows = (f"| `{code}` | {code.severity} | {code.ended_by} | {code.meaning} |\n" for code in FaultCode)
    made, n = re.subn(re.escape(_HEAD) + r"(?:\|[^\n]*\n)*", lambda _: _HEAD + "".join(rows), text)
    if n != 1:
        raise ValueError(f"docs/service.md holds {n} tables of faults and not one")
    return made


if __name__ == "__main__":
    PATH.write_text(with_faults(PATH.read_text(encoding="utf-8")), encoding="utf-8")
