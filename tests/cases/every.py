"""The table of all cases, kind by kind."""

from collections.abc import Iterator

from tests.cases import files
from tests.cases.case import Driven


def every_case() -> Iterator[Driven]:
    """A1 to D11."""
    yield from files.cases()
