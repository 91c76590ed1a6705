"""The table of kinds in docs/verify.md, made from `Kind`: `python -m tests.daemon.verification.findings_document`."""

from pathlib import Path

from spheroidd.daemon.verification.findings import Kind

DOCUMENT = Path(__file__).parents[3] / "docs" / "verify.md"
HEAD = "| kind | damage | when | what to do |\n|---|---|---|---|\n"


def table() -> str:
    return HEAD + "".join(
        f"| `{kind.value}` | {'yes' if kind.is_damage else 'no'} | {kind.meaning} | {kind.do} |\n" for kind in Kind
    )


def written() -> str:
    """The document with the table as it should be."""
    text = DOCUMENT.read_text(encoding="utf-8")
    before, _, rest = text.partition(HEAD)
    after = rest[rest.index("\n\n") + 1 :] if "\n\n" in rest else ""
    return before + table() + after


if __name__ == "__main__":
    DOCUMENT.write_text(written(), encoding="utf-8")
