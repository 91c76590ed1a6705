"""What the wire contract says of its methods, messages and fields, in the words of its own comments.

Generated code keeps no comments, so they are read from the .proto that is installed beside it. It reads that file, not
any file: one declaration a line, comments above it or behind it.
"""

import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from spheroidd.protocols import spheroidd_pb2 as wire

_COMMENT = re.compile(r"\s*//\s?(.*)")
_OPENS = re.compile(r"\s*(message|enum|service)\s+(\w+)\s*\{(\})?")
_RPC = re.compile(r"\s*rpc\s+(\w+)\(")
_FIELD = re.compile(r"\s*(?:(?:optional|repeated)\s+)?(?:map<.*>\s+|[\w.]+\s+)?(\w+)\s*=\s*\d+\s*;\s*(?://\s*(.*))?$")


@cache
def contract_comments() -> dict[str, str]:
    """Comments by name: "Status", "Status.eta_s", "GetStatus"; a name that has none is not there."""
    path = Path(wire.__file__).with_name("spheroidd.proto")
    return comments(path.read_text(encoding="utf-8").splitlines())


def comments(lines: Iterable[str]) -> dict[str, str]:
    """The comments of declarations: those on the lines right above, and the one behind."""
    found: dict[str, str] = {}
    above: list[str] = []
    inside = ""
    for line in lines:
        if comment := _COMMENT.fullmatch(line):
            above.append("" if comment[1].startswith("--") else comment[1])
            continue
        if opens := _OPENS.match(line):
            inside, name, behind = opens[2], opens[2], ""
        elif rpc := _RPC.match(line):
            name, behind = rpc[1], ""
        elif field := _FIELD.match(line):
            name, behind = f"{inside}.{field[1]}", field[2] or ""
        else:
            above = []
            continue
        words = " ".join(part for part in (*above, behind) if part).strip()
        if words:
            found[name] = words
        above = []
    return found
