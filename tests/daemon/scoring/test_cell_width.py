"""Which stacks the table of widths has."""

from types import SimpleNamespace
from typing import Any, cast

from spheroidd.daemon.catalog.reader import CatalogReader
from spheroidd.daemon.scoring.cell_width import stack_widths
from spheroidd.protocols.stack import StackKey
from spheroidd.protocols.well import WellId


def row(well: str, n_live: int | None, n_dead: int | None) -> Any:
    result = SimpleNamespace(n_live=n_live, n_dead=n_dead, model_sha256="m", cell_diameter_um=None, trust_flags=None)
    return SimpleNamespace(result=result, key=StackKey("P1", WellId.parse(well)), exclusion=None)


def test_a_stack_in_which_nothing_was_counted_yet_is_no_stack_without_cells() -> None:
    rows = [row("A01", 20, 3), row("A02", None, None), row("A03", None, 7), row("A04", 0, 0)]
    catalog = SimpleNamespace(result_rows=lambda plate, model: rows, mask_evidence=lambda plate, model: {})
    found = stack_widths(cast(CatalogReader, catalog), "P1")
    assert [(one.name, one.n_cells) for one in found] == [("A01", 23), ("A03", 7), ("A04", 0)]
