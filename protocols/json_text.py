"""JSON, read so that every text which is none is refused in one way."""

import json
from typing import Any


def parse_json(text: str | bytes, **hooks: Any) -> Any:
    """The value of a text; json.JSONDecodeError, which is a ValueError, for whatever cannot be read.

    The standard library's own reader lets out a RecursionError for lists nested some thousand deep, and a bare
    ValueError for a number of more digits than Python converts. `hooks` are those of `json.loads`.

    >>> parse_json("[" * 5000)
    Traceback (most recent call last):
    json.decoder.JSONDecodeError: it is nested too deep: line 1 column 1 (char 0)
    """
    try:
        return json.loads(text, **hooks)
    except RecursionError:
        raise json.JSONDecodeError("it is nested too deep", "", 0) from None
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise
    except ValueError as error:
        raise json.JSONDecodeError(str(error)[:_MOST], "", 0) from None


_MOST = 200  # letters of Python's own words
