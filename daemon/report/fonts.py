"""Fonts of the PDF: Bitstream Vera, which reportlab brings along, and for other letters a font of this computer.

They are embedded, so that a page looks the same wherever it is read. A letter that no font found here can write becomes
"?"; the HTML shows it. Only Chinese, Japanese and Korean without a font file are left to the reader's own fonts.
"""

import os
import sys
from collections.abc import Iterator
from functools import cache
from itertools import groupby
from pathlib import Path

from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.cidfonts import UnicodeCIDFont
from reportlab.pdfbase.ttfonts import TTFError, TTFont

PLAIN, BOLD = "Vera", "VeraBd"
SIZE = 0.9  # Vera's letters are larger than their size says: with this they are as large as Helvetica's
UNKNOWN_LETTER = "?"
# Wide ranges first; the first that has a letter writes it.
_FILES = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "LiberationSans-Regular.ttf",
    "segoeui.ttf",
    "arial.ttf",
    "Arial Unicode.ttf",
    "msyh.ttc",
    "YuGothM.ttc",
    "malgun.ttf",
    "wqy-zenhei.ttc",
)
# Chinese, Japanese and Korean without a font file: readers bring these themselves.
_ASIAN = (("STSong-Light", "gb2312"), ("HeiseiKakuGo-W5", "shift_jis"), ("HYGothic-Medium", "euc_kr"))


def _own(name: str) -> frozenset[int]:
    """Register a font of reportlab's; the letters that it has."""
    font = TTFont(name, f"{name}.ttf")
    pdfmetrics.registerFont(font)
    return frozenset(font.face.charToGlyph)


_OWN = {name: _own(name) for name in (PLAIN, BOLD)}


def runs(text: str, font: str = PLAIN) -> Iterator[tuple[str, str]]:
    """A text in pieces, each with the font that can write it."""
    for name, letters in groupby(text, lambda letter: _font_of(letter, font)):
        piece = "".join(letters)
        yield (piece, name) if name else (UNKNOWN_LETTER * len(piece), font)


def width(text: str, size: float, font: str = PLAIN) -> float:
    """How wide a text of a font's own size is, in points."""
    return sum(pdfmetrics.stringWidth(piece, name, size) for piece, name in runs(text, font))


@cache
def _font_of(letter: str, font: str) -> str | None:
    if letter.isspace() or ord(letter) in _OWN[font]:
        return font
    for name, letters in _found():
        if ord(letter) in letters:
            return name
    for name, encoding in _ASIAN:
        if _has(letter, encoding):
            pdfmetrics.registerFont(UnicodeCIDFont(name))
            return name
    return None


def _has(letter: str, encoding: str) -> bool:
    try:
        letter.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


@cache
def _found() -> tuple[tuple[str, frozenset[int]], ...]:
    """The fonts of this computer that can be embedded, with the letters they have."""
    fonts = []
    for path in _paths():
        try:
            font = TTFont(path.stem, str(path))
        except (TTFError, OSError):  # another kind of outlines, or a damaged file: the next one may do
            continue
        pdfmetrics.registerFont(font)
        fonts.append((path.stem, frozenset(font.face.charToGlyph)))
    return tuple(fonts)


def _paths() -> Iterator[Path]:
    files = {path.name.lower(): path for folder in _folders() if folder.is_dir() for path in folder.rglob("*.tt[fc]")}
    return (files[name.lower()] for name in _FILES if name.lower() in files)


def _folders() -> tuple[Path, ...]:
    if sys.platform == "win32":
        return (Path(os.environ.get("WINDIR", r"C:\Windows")) / "Fonts",)
    if sys.platform == "darwin":
        return (Path("/System/Library/Fonts"), Path("/Library/Fonts"), Path.home() / "Library/Fonts")
    return (Path("/usr/share/fonts"), Path("/usr/local/share/fonts"), Path.home() / ".local/share/fonts")
