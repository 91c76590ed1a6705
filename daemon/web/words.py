"""Every word that the page shows, in one table: its own, and by their codes those that the daemon says.

What it says as a text alone (a reason in the catalog, a refusal, an answer, an alarm) is in the table under its English
text, by which the page knows it again. `/words.json` gives the table. Translated and named in `[service] http_words` it
stands in place of the English one; what it lacks stays English, and so does what a person or an instrument wrote.
"""

import json
import re
from pathlib import Path
from typing import Any

from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.faults import FaultCode
from spheroidd.protocols.json_text import parse_json
from spheroidd.protocols.phrase import Phrase
from spheroidd.protocols.phrases import PHRASES
from spheroidd.protocols.regular_file import read_regular_text
from spheroidd.protocols.result_columns import COLUMNS, ResultColumn

Words = dict[str, str]
FILE = "page_words.json"
SENTENCES = "told_sentences.json"  # made from the sources by tests/daemon/web/told_sentences.py
MAX_WORDS = 5000  # of a table, of which the page has about 2500
_BRACES = re.compile(r"\{\w+\}")
_LABELS = {  # of columns that people see nowhere else in a column of their own
    "well": "Well",
    "compound": "Compound",
    "dose_um": "Dose",
    "patient": "Patient",
    "role": "Role",
    "status": "State",
    "excluded": "Excluded",
    "exclusion_reason": "Excluded because",
    "reason": "Reason",
}


def english() -> Words:
    """The whole table, as it ships."""
    own: Words = _shipped(FILE)
    told = {text: text for text in _shipped(SENTENCES)}
    columns = {f"column_{column.name}": _label(column) for column in COLUMNS}
    meanings = {f"column_{column.name}_meaning": column.text for column in COLUMNS}
    faults = {f"fault_{code.value}": code.meaning for code in FaultCode}
    return {**told, **own, **PHRASES, **columns, **meanings, **faults}


def _shipped(name: str) -> Any:
    return json.loads((Path(__file__).parent / name).read_text(encoding="utf-8"))


def _label(column: ResultColumn) -> str:
    return _LABELS.get(column.name) or (column.shown.label if column.shown else column.name)


def words(translation: Path | None) -> Words:
    """The table that the page gets; ConfigError where a translation is none of it."""
    found = english()
    return found if translation is None else found | _translated(translation, found)


def needed(table: Words) -> Words:
    """What of it the page has to be sent: a sentence of the daemon that is not translated is shown as it came."""
    return {name: text for name, text in table.items() if " " not in name or name != text}


def told(text: str, table: Words) -> str:
    """What is drawn here and not on the page: a phrase in the table's words, with the same values; another as it is."""
    if not isinstance(text, Phrase):
        return text
    values = {f"{{{name}}}": told(value, table) for name, value in text.values.items()}
    return _BRACES.sub(lambda brace: values[brace[0]], table[text.code])


def _translated(path: Path, known: Words) -> Words:
    """Each text of a translation, with the same {values} as the one that it stands for."""
    try:
        given = parse_json(read_regular_text(path))
    except (OSError, ValueError) as error:
        raise ConfigError(f"the page's words cannot be read: {error}", where=str(path), do=_DO) from error
    if not isinstance(given, dict) or len(given) > MAX_WORDS:
        raise ConfigError("the page's words are no table", where=str(path), do=_DO)
    for name, text in given.items():
        if name not in known:
            raise ConfigError(f"the page has no words {name[:80]!r}", where=str(path), do=_DO)
        if not isinstance(text, str) or set(_BRACES.findall(text)) - set(_BRACES.findall(known[name])):
            do = f"translate {known[name]!r}, and keep what stands in braces"
            raise ConfigError(f"the page cannot show its words {name!r}", where=str(path), do=do)
    return given


_DO = "begin with the page's own table, /words.json, and translate its texts"
