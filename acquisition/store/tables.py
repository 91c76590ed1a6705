"""Tables beside images, as ngio and the Fractal tools read them: `<group>/tables/<name>/table.csv`, and what it is.

What is not known is an empty cell. A table is replaced as a whole, and listed by its group only once it is there.
Layout: ngio's table specification, version 1, with its CSV backend (BioVisionCenter/ngio, docs "Table specs").
"""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from spheroidd.acquisition.disk.durable_file import make_directories, storage_errors, write_durably
from spheroidd.acquisition.store import ngff
from spheroidd.protocols.plate import PlateMap, PlateWell

FILE = "table.csv"
CONDITIONS = "conditions"
VERSION = "1"
_OF_WELL = ("row", "column", "role", "compound", "dose_um", "patient")


@dataclass(frozen=True, slots=True)
class Table:
    """A table: its kind, the names of its columns, and a cell of each in every row; None is not known."""

    name: str
    kind: Literal["condition_table", "feature_table"]
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def text(self) -> bytes:
        """The file: RFC 4180, UTF-8, lines that end with a line feed."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows([["" if cell is None else cell for cell in row] for row in self.rows])
        return out.getvalue().encode()


def write_table(group: Path, table: Table) -> None:
    """Put a table into a plate's or an image's group, durably; StorageError where the disk refuses.

    Nothing is written where nothing changes.
    """
    folder = group / ngff.TABLES / table.name
    with storage_errors(folder):
        make_directories(group, [folder])
        text = table.text()
        if not (folder / FILE).exists() or (folder / FILE).read_bytes() != text:
            write_durably(folder / FILE, [text])
        ngff.write_group(folder, table_attributes(table))
        list_tables(group)


def table_attributes(table: Table) -> dict[str, Any]:
    """What the group of a table says of it."""
    return {"type": table.kind, "table_version": VERSION, "backend": "csv", **table.attributes}


def list_tables(group: Path) -> None:
    """Name every table of a group that is whole."""
    names = sorted(path.parent.name for path in (group / ngff.TABLES).glob("*/zarr.json"))
    ngff.write_group(group / ngff.TABLES, {"tables": names})


def write_conditions(root: Path, plate_map: PlateMap) -> None:
    """Put what each well holds beside the plate's images; nothing where no stack is stored yet."""
    plate = ngff.plate_path(root, plate_map.name)
    if (plate / "zarr.json").exists():
        write_table(plate, conditions(plate_map))


def conditions(plate_map: PlateMap) -> Table:
    """What each well of a plate holds, with the plate map's further columns, so that viewers can filter by it."""
    further = list(dict.fromkeys(name for entry in plate_map for name in entry.annotations if name not in _OF_WELL))
    rows = [[*_of_well(entry), *(entry.annotations.get(name) for name in further)] for entry in plate_map]
    return Table(CONDITIONS, "condition_table", [*_OF_WELL, *further], rows)


def _of_well(entry: PlateWell) -> Iterable[object]:
    of = entry.treatment
    return (entry.well.row_name, entry.well.column + 1, of.role.value, of.compound, of.dose_um, of.patient)
