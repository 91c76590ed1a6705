"""Sentences that are told to people, each by a code that never changes: a text that still knows which one it is.

A `Phrase` is its English text wherever a text is wanted: in the catalog, the report, the terminal. Whoever shows it in
another language takes the template of its code from a table of their own and fills in the same values. What a person
wrote, and what an instrument or an operating system said, is no phrase.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Self

from spheroidd.protocols.phrases import PHRASES

_BRACES = re.compile(r"\{(\w+)\}")


class Phrase(str):
    """The English text of a sentence, with its code and values; what is made of it by hand is a text and no more."""

    code: str
    values: Mapping[str, str]

    def __new__(cls, code: str, values: Mapping[str, str]) -> Self:
        """KeyError for a code that is not in the table, and for a value that its sentence needs."""
        found = super().__new__(cls, _BRACES.sub(lambda brace: values[brace[1]], PHRASES[code]))
        found.code, found.values = code, values
        return found

    def __getnewargs__(self) -> tuple[str, Mapping[str, str]]:  # type: ignore[override]
        """What a copy, in this process or another, is made of."""
        return self.code, self.values


def phrase(code: str, /, **values: str) -> Phrase:
    """A sentence of the table; its values are texts, numbers as they are to be read.

    >>> found = phrase("control-cv", whose="", cv="23", bound="20")
    >>> found, found.code
    ("the untreated controls' CV is 23 %, above 20 %", 'control-cv')
    """
    return Phrase(code, values)


def all_of(texts: Iterable[str]) -> str:
    """Each once, in their order, as one phrase; empty where there are none.

    >>> all_of(["mould", "no light", "mould"])
    'mould; no light'
    """
    *others, last = dict.fromkeys(texts) or [""]
    found = last
    for one in reversed(others):
        found = phrase("all-of", first=one, rest=found)
    return found


def constant(text: str) -> str:
    """The phrase whose English text this is, where it is one without values: a catalog keeps the text alone."""
    code = _CONSTANT.get(text)
    return text if code is None else Phrase(code, {})


def as_data(text: str) -> Any:
    """A text for whoever has a table of their own: code and values of a phrase, the text itself of any other.

    >>> as_data(phrase("of-well", well="B02", what=phrase("replicates-few")))
    ['of-well', {'well': 'B02', 'what': ['replicates-few']}]
    >>> as_data("mould")
    'mould'
    """
    if not isinstance(text, Phrase):
        return text
    return [text.code, {name: as_data(value) for name, value in text.values.items()}] if text.values else [text.code]


_CONSTANT = {text: code for code, text in PHRASES.items() if not _BRACES.search(text)}
