"""The truth of a plate as files beside its images: of a phantom as it is known, of a recording as it was kept.

A01_live.tif, A01_dead.tif (0 or 1), A01_ids.tif (cell numbers), A01_cells.csv for every well; wells.csv
"""

import csv
import dataclasses
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import numpy as np
import tifffile

from spheroidd.protocols.stack import StackPlan
from spheroidd.sim_emulator.leica.tree import resolution
from spheroidd.sim_emulator.phantom import CellState
from spheroidd.sim_emulator.scene import Scene
from spheroidd.sim_emulator.source import EmulatorSource


class PlateTruth(Protocol):
    """Writes what is true of a plate's wells into a folder."""

    def write_well(self, plan: StackPlan, folder: Path) -> None:
        """Masks and the cells' table of one well."""
        ...

    def write_wells(self, plans: Sequence[StackPlan], path: Path) -> None:
        """The wells' rows, in one table."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class PhantomTruth:
    """Of a plate that is made up."""

    source: EmulatorSource

    def write_well(self, plan: StackPlan, folder: Path) -> None:
        """Masks and cell numbers plane by plane, and the cells' table."""
        _write_truth(self.source.scene(plan.key.well), plan, folder)

    def write_wells(self, plans: Sequence[StackPlan], path: Path) -> None:
        """The wells' rows."""
        _write_wells(self.source, plans, path)


@dataclasses.dataclass(frozen=True, slots=True)
class KeptTruth:
    """Of a recording that came with such a folder: it is copied, file by file."""

    folder: Path

    def write_well(self, plan: StackPlan, folder: Path) -> None:
        """Whatever is called after the well."""
        for path in sorted(self.folder.glob(f"{plan.key.well}[_.]*")):
            if path.is_dir():
                shutil.copytree(path, folder / path.name)
            else:
                shutil.copyfile(path, folder / path.name)

    def write_wells(self, plans: Sequence[StackPlan], path: Path) -> None:
        """The rows of these wells, where there are any."""
        table = self.folder / "wells.csv"
        if not table.is_file():
            return
        wells = {str(plan.key.well) for plan in plans}
        with table.open(newline="", encoding="utf-8-sig") as read, path.open("w", newline="", encoding="utf-8") as file:
            rows = csv.DictReader(read)
            writer = csv.DictWriter(file, rows.fieldnames or ())
            writer.writeheader()
            writer.writerows(row for row in rows if row.get("well") in wells)


def _write_truth(scene: Scene, plan: StackPlan, folder: Path) -> None:
    """Masks and cell numbers plane by plane, and the cells' table."""
    well = plan.key.well
    with ExitStack() as stack:
        files = [
            stack.enter_context(tifffile.TiffWriter(folder / f"{well}_{name}.tif", byteorder="<"))
            for name in ("live", "dead", "ids")
        ]
        rows = scene.cells()
        number = np.uint16 if rows["id"].max(initial=0) < 2**16 else np.uint32
        for plane in scene.planes_truth():
            for file, pixels in zip(files, plane, strict=True):
                page = pixels.astype(np.uint8 if pixels.dtype == bool else number)
                file.write(
                    page, compression="zlib", metadata=None, contiguous=False, software=False, **resolution(plan)
                )
    with (folder / f"{well}_cells.csv").open("w", newline="", encoding="utf-8") as table:
        writer = csv.writer(table)
        names = rows.dtype.names or ()
        writer.writerow(names)
        writer.writerows([_cell(name, row[name]) for name in names] for row in rows)


def _cell(name: str, value: np.generic) -> str:
    if name == "state":
        return CellState(int(value)).name.lower()
    return f"{value:.3f}" if isinstance(value, np.floating) else str(int(value))


def _write_wells(source: EmulatorSource, plans: Sequence[StackPlan], path: Path) -> None:
    rows = [dataclasses.asdict(source.well_truth(plan.key.well)) for plan in plans]
    with path.open("w", newline="", encoding="utf-8") as table:
        writer = csv.DictWriter(table, rows[0])
        writer.writeheader()
        writer.writerows({key: "" if value is None else value for key, value in row.items()} for row in rows)
