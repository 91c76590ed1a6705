"""Dose-response data as a GraphPad Prism project (.pzfx): one XY table for each patient, one data set a compound.

Prism's older, open format: XML with a `Table` of one `XColumn` (dose in micromolar) and a `YColumn` for each data set,
whose `Subcolumn`s are replicates. Untreated wells stand in the row of dose 0 of every data set. A well that a person
excluded keeps its value and carries `Excluded="1"`, which Prism shows struck through and leaves out of its analyses.
An empty cell is an empty `<d/>`.
"""

import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import NamedTuple

from spheroidd.daemon.analysis.curves import CurvePoints
from spheroidd.daemon.export.mihcsme import xml_text

MOST_DATA_SETS = 100  # of one table; what is more goes into another of the same patient
_NUMBERED = {"XFormat": "numbers", "YFormat": "replicates", "TableType": "XY", "EVFormat": "AsteriskAfterNumber"}


class Cell(NamedTuple):
    """One replicate."""

    response: float
    excluded: bool


def write_pzfx(curves: Sequence[CurvePoints], path: Path, facts: Mapping[str, str]) -> None:
    """Write the data of a plate's curves; `facts` are shown on Prism's info sheet. OSError passes through."""
    root = ET.Element("GraphPadPrismFile", PrismXMLVersion="5.00")
    now = datetime.now(UTC).isoformat(timespec="seconds")
    program = {"CreatedByProgram": "spheroidd", "CreatedByVersion": facts.get("version", ""), "Login": ""}
    ET.SubElement(ET.SubElement(root, "Created"), "OriginalVersion", {**program, "DateTime": now})
    _add_info(root, facts)
    tables = _tables(curves)
    sequence = ET.SubElement(root, "TableSequence")
    for number in range(len(tables)):
        ET.SubElement(sequence, "Ref", {"ID": f"Table{number}"} | ({} if number else {"Selected": "1"}))
    for number, (title, group) in enumerate(tables):
        root.append(_table(f"Table{number}", title, group))
    ET.indent(root)
    ET.ElementTree(root).write(path, encoding="UTF-8", xml_declaration=True)


def _add_info(root: ET.Element, facts: Mapping[str, str]) -> None:
    ET.SubElement(ET.SubElement(root, "InfoSequence"), "Ref", ID="Info0", Selected="1")
    info = ET.SubElement(root, "Info", ID="Info0")
    ET.SubElement(info, "Title").text = "Project info 1"
    ET.SubElement(info, "Notes").text = "Dose in micromolar. Struck-through values were excluded by a person."
    for name, value in facts.items():
        constant = ET.SubElement(info, "Constant")
        ET.SubElement(constant, "Name").text = xml_text(name)
        ET.SubElement(constant, "Value").text = xml_text(value)


def _tables(curves: Sequence[CurvePoints]) -> list[tuple[str, list[CurvePoints]]]:
    """The curves of one plate, patient and metric together, in tables that Prism can hold; titles are unique."""
    groups: dict[tuple[str, str, str], list[CurvePoints]] = {}
    for curve in curves:
        groups.setdefault((curve.plate, curve.patient or "", curve.metric), []).append(curve)
    tables = []
    for (plate, patient, metric), group in groups.items():
        title = " ".join(part for part in (plate, patient, metric) if part)
        pieces = [group[start : start + MOST_DATA_SETS] for start in range(0, len(group), MOST_DATA_SETS)]
        tables += [(title if len(pieces) == 1 else f"{title} ({n})", piece) for n, piece in zip(count(1), pieces)]
    return tables


def _table(identity: str, title: str, curves: Sequence[CurvePoints]) -> ET.Element:
    columns = [_cells(curve) for curve in curves]
    doses = sorted({dose for cells in columns for dose in cells})
    replicates = max((len(found) for cells in columns for found in cells.values()), default=1)
    table = ET.Element("Table", {"ID": identity, "Replicates": str(replicates), **_NUMBERED})
    ET.SubElement(table, "Title").text = xml_text(title)
    x = ET.SubElement(table, "XColumn", Width="81", Decimals="4", Subcolumns="1")
    ET.SubElement(x, "Title").text = "dose (uM)"
    _subcolumn(x, [Cell(dose, excluded=False) for dose in doses])
    for curve, cells in zip(curves, columns, strict=True):
        y = ET.SubElement(table, "YColumn", Width=str(81 * replicates), Decimals="2", Subcolumns=str(replicates))
        ET.SubElement(y, "Title").text = xml_text(curve.compound)
        for turn in range(replicates):
            column = [cells.get(dose, []) for dose in doses]
            _subcolumn(y, [found[turn] if turn < len(found) else None for found in column])
    return table


def _cells(curve: CurvePoints) -> dict[float, list[Cell]]:
    """The replicates of each dose, the untreated wells at 0."""
    cells: dict[float, list[Cell]] = {}
    for response in curve.control_responses:
        cells.setdefault(0.0, []).append(Cell(response, excluded=False))
    for _, response, _ in curve.excluded_controls:
        cells.setdefault(0.0, []).append(Cell(response, excluded=True))
    for dose, response, reason in zip(curve.doses_um, curve.responses, curve.excluded, strict=True):
        cells.setdefault(dose, []).append(Cell(response, excluded=reason is not None))
    return cells


def _subcolumn(parent: ET.Element, cells: Sequence[Cell | None]) -> None:
    column = ET.SubElement(parent, "Subcolumn")
    for cell in cells:
        d = ET.SubElement(column, "d", {"Excluded": "1"} if cell is not None and cell.excluded else {})
        if cell is not None:
            d.text = repr(cell.response)
