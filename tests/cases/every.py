"""The table of all cases, kind by kind."""

from collections.abc import Iterator

from tests.cases import curves, files, hands, plates, tables
from tests.cases.case import Driven


def every_case() -> Iterator[Driven]:
    """A1 to D11."""
    yield from plates.cases()
    yield from files.cases()
    yield from tables.cases()
    yield from hands.cases()
    yield from curves.cases()
