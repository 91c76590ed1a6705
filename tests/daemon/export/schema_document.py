"""Writes the tables of columns into docs/schema.md: `python -m tests.daemon.export.schema_document` (`make docs`)."""

import re

from spheroidd.daemon.export.tables import TABLES, Column
from spheroidd.protocols.trust import MEANINGS
from tests.places import DOCS

PATH = DOCS / "schema.md"


def with_columns(text: str) -> str:
    """The document with the first table under each heading "### wells", "### curves", ... made anew."""
    for name, made in {**{name: _table(columns) for name, columns in TABLES.items()}, "trust_flags": _flags()}.items():
        found = re.search(rf"^### {name}$.*?\n\n((?:\|[^\n]*\n)+)", text, re.MULTILINE | re.DOTALL)
        if found is None:
            raise ValueError(f"docs/schema.md has no table under the heading {name}")
        text = text[: found.start(1)] + made + text[found.end(1) :]
    return text


def _table(columns: tuple[Column, ...]) -> str:
    rows = (f"| `{column.name}` | {column.kind} | {column.unit} | {column.meaning} |\n" for column in columns)
    return "| column | kind | unit | meaning |\n|---|---|---|---|\n" + "".join(rows)


def _flags() -> str:
    rows = (f"| `{flag}` | {found.weight} | {found.meaning} | {found.do} |\n" for flag, found in MEANINGS.items())
    return "| flag | trust | meaning | what to do |\n|---|---|---|---|\n" + "".join(rows)


if __name__ == "__main__":
    PATH.write_text(with_columns(PATH.read_text(encoding="utf-8")), encoding="utf-8")
