"""Texts in tables that spreadsheets open: a text that a spreadsheet would take for a formula is written as a text.

A name such as `=HYPERLINK(...)` would be carried out by whoever opens the table. So a text that begins with one of the
signs of a formula gets an apostrophe before it, and loses it where this program reads the table again; one that begins
with apostrophes and such a sign gets one more, so that every text comes back as it was. A text that is a plain number
is left alone: numbers stay numbers.
"""

import re

_FORMULA = re.compile(r"'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")  # the last four: the full-width = + - @
_GUARDED = re.compile(r"''*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_NUMBER = re.compile(r"[+-]?(\d+(?:\.\d*)?|\.\d+)([eE][+-]?\d+)?")


def is_formula(text: str) -> bool:
    """Whether a spreadsheet could take a text for a formula.

    >>> is_formula("=1+1"), is_formula("-5.2e-3"), is_formula("5-FU")
    (True, False, False)
    """
    return _FORMULA.match(text) is not None and _NUMBER.fullmatch(text) is None


def guarded(text: str) -> str:
    """A text as it is written into a CSV file.

    >>> guarded("=1+1"), guarded("-5"), guarded("'=1")
    ("'=1+1", '-5', "''=1")
    """
    return f"'{text}" if is_formula(text) else text


def unguarded(cell: str) -> str:
    """The text that `guarded` wrote as this cell.

    >>> unguarded("'=1+1"), unguarded("'tis")
    ('=1+1', "'tis")
    """
    return cell[1:] if cell[:1] == "'" and _GUARDED.match(cell) else cell
