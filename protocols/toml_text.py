"""TOML, read so that every text which is none is refused in one way."""

import tomllib
from typing import Any


def parse_toml(text: str) -> dict[str, Any]:
    """The tables of a text; tomllib.TOMLDecodeError for whatever cannot be read.

    The standard library's own reader lets out a RecursionError for lists nested some hundred deep, and a bare
    ValueError for a number of more digits than Python converts.

    >>> parse_toml("x = " + "1" * 5000)
    Traceback (most recent call last):
    tomllib.TOMLDecodeError: a number is too long
    """
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise tomllib.TOMLDecodeError("it is nested too deep") from None
    except tomllib.TOMLDecodeError:
        raise
    except ValueError:
        raise tomllib.TOMLDecodeError("a number is too long") from None
