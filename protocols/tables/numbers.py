"""The one reader of numbers in tables: what a point or a comma means is decided for a whole column, never for a cell.

In `1,234` the comma may be a decimal sign or separate thousands. A column decides where one of its cells can only be
read one way (`1,5`, `0,123`, `1,234,567`, `1,234.5`, `1,234E-3`); where none can, and where two cells contradict each
other, the column is refused with both readings. A table that is itself separated by commas, or whose other columns
prove decimal points, tells `points=True`: there `1.234` is 1.234.
"""

import math
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from spheroidd.protocols.errors import ConfigError

MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", ".", "-", "--", "#n/a"})

_SPACES = " \u00a0\u2009\u202f"  # plain, no-break, thin, narrow no-break: all separate thousands somewhere
_APOSTROPHES = "'\u2019"
_MINUS = str.maketrans({"\u2212": "-"})
_SHAPE = re.compile(
    rf"([+-]?)([0-9]{{1,3}}(?:[{_SPACES}{_APOSTROPHES}][0-9]{{3}})+(?:[.,][0-9]*)?|[0-9.,]+)(E[+-]?[0-9]+)?"
)
_PLAIN = r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
_GROUPED = r"(?:[1-9][0-9]{0,2}(?:,[0-9]{3})+|[1-9][0-9]?(?:,[0-9]{2})+,[0-9]{3})(?:\.[0-9]*)?"  # the second: lakhs


class ExactNumber(str):
    """A cell that its file holds as a number (a workbook's): Python's own notation, so nothing is to be decided."""

    __slots__ = ()


class Sign(Enum):
    """What a point or a comma stands for in a column."""

    DECIMAL = "decimal sign"
    THOUSANDS = "thousands separator"


@dataclass(frozen=True, slots=True)
class NumberStyle:
    """What a column's decimal sign is ("." or ","), and whether the other sign separates thousands in it.

    >>> NumberStyle(",").read("1,5"), NumberStyle(",", grouped=True).read("1.234,5"), NumberStyle(".").read("1,5")
    (1.5, 1234.5, None)
    """

    decimal: str = "."
    grouped: bool = False

    def read(self, cell: str) -> float | None:
        """The number in a cell; None for anything else, and for what is not finite."""
        if isinstance(cell, ExactNumber):
            return _finite(cell)
        return self._text(_tidy(cell))

    def _text(self, text: str) -> float | None:
        match = _SHAPE.fullmatch(text)
        if not match:
            return None
        sign, digits, exponent = match[1], match[2], match[3] or ""
        digits = re.sub(rf"[{_SPACES}{_APOSTROPHES}]", "", digits)
        if self.decimal == ",":
            digits = digits.translate(str.maketrans(".,", ",."))
        if re.fullmatch(_PLAIN, digits):
            return _finite(sign + digits + exponent)
        if self.grouped and not exponent and re.fullmatch(_GROUPED, digits):
            return _finite(sign + digits.replace(",", ""))
        return None


def read_numbers(
    cells: Sequence[str],
    *,
    column: str,
    line: Callable[[int], str],
    points: bool = False,
    missing: Collection[str] = MISSING,
) -> list[float]:
    """A column's numbers, NaN where a cell is one of the `missing` words (case-folded).

    `line(i)` is the place of cell i, for the messages. ConfigError where the column could be read in two ways, and
    for a cell that is no number.

    >>> read_numbers(["1,5", "na", "1,234"], column="dose", line="line {}".format)
    [1.5, nan, 1.234]
    """
    style = number_style(cells, column=column, line=line, points=points)
    found = []
    for i, cell in enumerate(cells):
        value = style.read(cell)
        if value is None and cell.strip().casefold() not in missing:
            raise not_a_number(cell, column, line(i))
        found.append(math.nan if value is None else value)
    return found


def not_a_number(cell: str, column: str, where: str) -> ConfigError:
    """The refusal of a cell, with what to write instead."""
    do = "write a number with a decimal point"
    text = cell.strip()
    if text[:1] in ("<", ">", "\u2264", "\u2265"):
        do = "write the value at the limit, or leave the cell empty"
    elif re.match(r"[+-]?[0-9.,]*[0-9]\s*[^0-9.,\s]", text):
        do = "write a number without its unit, or nothing"
    return ConfigError(f"{cell!r} in column {column!r} is not a number", where=where, do=do)


def number_style(cells: Sequence[str], *, column: str, line: Callable[[int], str], points: bool = False) -> NumberStyle:
    """What points and commas stand for in a column; cells that are no numbers in any style are left out.

    ConfigError, with the cell and both readings, where that could be two things.

    >>> number_style(["0.5", "1.000"], column="od", line=str)
    NumberStyle(decimal='.', grouped=False)
    """
    texts = [(i, text) for i, cell in enumerate(cells) if (text := _numeric_text(cell))]
    comma, point = (_decided(texts, sign, column, line) for sign in ",.")
    if point is None and points:
        point = Sign.DECIMAL
    commas, points_at = _first(texts, ","), _first(texts, ".")
    for sign, role, i in ((",", comma, commas), (".", point, points_at)):
        if role is None and i is not None:
            raise _unclear(cells[i], sign, column, line(i))
    if commas is not None and points_at is not None and comma is not None and comma is point:
        what = f"{cells[commas]!r} and {cells[points_at]!r} in column {column!r} have two kinds of {comma.value}"
        raise ConfigError(what, where=line(max(commas, points_at)), do=_DO)
    decimal = "," if comma is Sign.DECIMAL or (comma is None and point is Sign.THOUSANDS) else "."
    return NumberStyle(decimal, grouped=Sign.THOUSANDS in (comma, point))


def proves_points(cells: Iterable[str]) -> bool:
    """Whether a column can only have decimal points: evidence for the other columns of its table.

    >>> proves_points(["37.0", "x"]), proves_points(["1.000"]), proves_points(["1.5", "1,5"])
    (True, False, False)
    """
    texts = [text for cell in cells if (text := _numeric_text(cell))]
    roles = [_role(text, ".") for text in texts if "." in text]
    return Sign.DECIMAL in roles and Sign.THOUSANDS not in roles and not any("," in text for text in texts)


_DO = "write numbers with decimal points and without thousands separators"


def _decided(texts: Sequence[tuple[int, str]], sign: str, column: str, line: Callable[[int], str]) -> Sign | None:
    """What the cells with this sign prove it to be; None where none proves anything, refused where two contradict."""
    proofs: dict[Sign, tuple[int, str]] = {}
    for i, text in texts:
        if sign in text and (role := _role(text, sign)) is not None:
            proofs.setdefault(role, (i, text))
    if len(proofs) == 2:
        (i, one), (j, other) = proofs.values()
        both = f"{Sign.DECIMAL.value} in one cell and a {Sign.THOUSANDS.value} in another: {one!r} and {other!r}"
        raise ConfigError(f"in column {column!r} {sign!r} is a {both}", where=line(max(i, j)), do=_DO)
    return next(iter(proofs), None)


def _role(text: str, sign: str) -> Sign | None:
    """What a sign stands for in one cell that holds it; None where it could be both."""
    other = "." if sign == "," else ","
    as_decimal = NumberStyle(sign, grouped=other in text)._text(text) is not None
    as_thousands = NumberStyle(other, grouped=True)._text(text) is not None
    if as_decimal == as_thousands:
        return None
    return Sign.DECIMAL if as_decimal else Sign.THOUSANDS


def _unclear(cell: str, sign: str, column: str, where: str) -> ConfigError:
    text = cell.strip()
    one, other = text.replace(sign, ""), text.replace(sign, ".")
    return ConfigError(f"{text!r} in column {column!r} could be {one} or {other}", where=where, do=_DO)


def _first(texts: Sequence[tuple[int, str]], sign: str) -> int | None:
    return next((i for i, text in texts if sign in text), None)


def _numeric_text(cell: str) -> str:
    """The cell, tidied, if some style reads it as a number; "" otherwise."""
    if isinstance(cell, ExactNumber):
        return ""
    text = _tidy(cell)
    return text if any(NumberStyle(sign, grouped=True)._text(text) is not None for sign in ".,") else ""


def _tidy(cell: str) -> str:
    return cell.strip().translate(_MINUS).replace("e", "E")


def _finite(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
