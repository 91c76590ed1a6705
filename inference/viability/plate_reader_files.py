"""Plate readers' files as blocks of readings: text of any encoding, CSV, or a workbook.

SoftMax Pro frames its blocks in a way of its own; every other reader's tables are found by their labels. Where
absorbance was read at a measuring and at a reference wavelength, their difference is a block of its own.
"""

import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from spheroidd.inference.viability.mtt import ReaderBlock
from spheroidd.inference.viability.reader_tables import table_blocks
from spheroidd.inference.viability.softmax import is_softmax, softmax_blocks
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.tables.sheets import Sheet, read_sheets

# The dyes of viability assays (formazans of MTT, XTT, MTS, WST; resazurin) absorb below 615 nm and not above 620 nm.
_MEASURED_NM, _REFERENCE_NM = range(400, 616), range(620, 751)


def read_reader_file(path: Path) -> tuple[ReaderBlock, ...]:
    """Every block of readings in a plate reader's file; ConfigError where there is none, saying what was seen."""
    sheets = read_sheets(path)
    blocks = list(itertools.chain.from_iterable(map(_blocks, sheets)))
    if not any(block.values for block in blocks):
        do = "export the plate from the reader again, or write a CSV with the columns well and od (or viability)"
        raise ConfigError(f"there is no reading in it: {_seen(sheets)}", where=str(path), do=do)
    return (*blocks, *_differences(blocks))


def _blocks(sheet: Sheet) -> Iterator[ReaderBlock]:
    return softmax_blocks(sheet) if is_softmax(sheet) else table_blocks(sheet)


def _seen(sheets: Sequence[Sheet]) -> str:
    """The first words of an unknown layout."""
    rows = [row for sheet in sheets for row in sheet.rows if any(row)]
    if not rows:
        return "it is empty"
    words = [" | ".join(cell for cell in row if cell)[:60] for row in rows[:3]]
    return f"{len(rows)} lines that begin with {'; '.join(map(repr, words))}, no picture of a plate, no column of wells"


def _differences(blocks: Sequence[ReaderBlock]) -> Iterator[ReaderBlock]:
    """Measured minus reference where a set of wells was read at exactly one wavelength of each kind.

    What a person called the readings (Spark) says nothing where the file holds these two alone.
    """
    groups: dict[tuple[object, ...], list[ReaderBlock]] = {}
    alone = len(blocks) == 2 and len({tuple(re.findall(r"plate ?\d+", block.name, re.I)) for block in blocks}) == 1
    for block in blocks:
        if block.wavelength_nm is not None:
            name = "" if alone else _same(block)
            groups.setdefault((frozenset(block.values) | frozenset(block.missing), name), []).append(block)
    for group in groups.values():
        if len(group) != 2:
            continue
        one, other = sorted(group, key=lambda block: block.wavelength_nm or 0)
        if one.wavelength_nm in _MEASURED_NM and other.wavelength_nm in _REFERENCE_NM:
            yield _difference(one, other)


def _same(block: ReaderBlock) -> str:
    """The name without what tells two wavelengths apart: "Label2", "Raw Data (690 2)", "Read 2:690"."""
    plain = block.name.replace(str(block.wavelength_nm), "")
    return re.sub(r"(label|read) ?\d+|\( \d\)", "", plain, flags=re.I)


def _difference(measured: ReaderBlock, reference: ReaderBlock) -> ReaderBlock:
    both = [well for well in measured.values if well in reference.values]
    values = {well: measured.values[well] - reference.values[well] for well in both}
    missing = {
        well: measured.missing.get(well) or reference.missing.get(well) or ""
        for well in (*measured.values, *measured.missing)
        if well not in values
    }
    name = measured.name.replace(str(measured.wavelength_nm), f"{measured.wavelength_nm}-{reference.wavelength_nm}")
    if name == measured.name:
        name = f"{measured.name} - {reference.name}"
    parts = (measured.name, reference.name)
    return ReaderBlock(name, measured.unit, values, missing, measured.wavelength_nm, reference.wavelength_nm, parts)
