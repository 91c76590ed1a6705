"""Where the truth of a plate comes from: the emulator that made it, or a folder of masks, labels or drawings.

Of a recording that was imaged or replayed it is the recording's own, where that is known.

A folder holds, for a well such as A01, `A01_live.tif` and `A01_dead.tif` (as `spheroidd emulate` writes them; also .npy
and .zarr), or one file of both classes: `A01.xml` (TrakEM2), `A01.tif`, `A01.npy`, `A01.ome.zarr`. A `wells.csv` beside
them may say `v_true_fov` (0 to 1) by `well`. The folder's own `truth` folder is taken where it has one.
"""

import csv
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from spheroidd.daemon.catalog.reader import CatalogReader
from spheroidd.daemon.emulation.emulated_mtt import emulated_mtt
from spheroidd.daemon.emulation.known_truth import truth_of_run
from spheroidd.inference.agreement.overlap_metrics import read_truth
from spheroidd.inference.annotations.read import read_annotation
from spheroidd.inference.annotations.volume import LABELS, ClassNames
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.stack import StackKey, StackPlan
from spheroidd.protocols.well import WellId
from spheroidd.sim_emulator.source import EmulatorSource

Masks = dict[str, NDArray[np.bool_]]
_KINDS = (".tif", ".tiff", ".ome.tif", ".npy", ".npz", ".zarr", ".ome.zarr")
_OF_BOTH = (".xml", ".xml.gz", *(kind for kind in _KINDS if kind != ".npz"))
_SAMPLING = 0.02  # how far a drawing's voxel size may be from the stack's: typed numbers are rounded


class PlateTruth(Protocol):
    """What is true of a plate's wells, as far as anybody knows."""

    def masks(self, key: StackKey, plan: StackPlan) -> Masks:
        """True masks (z, y, x) by "live" and "dead" at the stack's own sampling; empty where this well has none."""
        ...

    def v_true(self, well: WellId) -> float | None:
        """The part of the field's cells that lives, 0 to 1; None where it is not known."""
        ...

    def mtt(self, wells: Iterable[WellId]) -> dict[str, float]:
        """What an assay says, percent of the untreated wells, for those wells of which it is known."""
        ...


class EmulatedTruth:
    """The emulator knows all of its plates, from their settings alone: nothing has to be kept beside the images."""

    def __init__(self, source: EmulatorSource) -> None:
        self._source = source

    def masks(self, key: StackKey, plan: StackPlan) -> Masks:
        """Masks as rendered; ConfigError where the stack was imaged with another geometry."""
        truth = self._source.truth(key.well, key.stack)
        masks = {"live": truth.live, "dead": truth.dead}
        _check_shapes(masks, plan, f"emulated well {key.well}")
        return masks

    def v_true(self, well: WellId) -> float | None:
        """Exact, of the cells in the field."""
        value = self._source.well_truth(well).v_true_fov
        return value if math.isfinite(value) else None

    def mtt(self, wells: Iterable[WellId]) -> dict[str, float]:
        """An emulated assay with its noise."""
        return emulated_mtt(self._source, wells)


class TruthFolder:
    """Masks, labels or drawings by well; see the module."""

    def __init__(self, folder: Path, names: ClassNames | None = None) -> None:
        if not folder.is_dir():
            do = "give the folder with A01_live.tif, A01.xml, ...; `spheroidd emulate` writes one called truth"
            raise ConfigError("there is no such folder", where=str(folder), do=do)
        inner = folder / "truth"
        self.folder = inner if inner.is_dir() else folder
        self._names = names
        self._v_true = _read_wells(self.folder / "wells.csv")

    def masks(self, key: StackKey, plan: StackPlan) -> Masks:
        """ConfigError where a file is not one of labels, or not of the stack's shape or voxel size."""
        own = {
            label: read_truth(path)
            for label in LABELS
            for path in [self._find(key.well, [f"_{label}{kind}" for kind in _KINDS])]
            if path is not None
        }
        both = None if own else self._find(key.well, list(_OF_BOTH))
        if both is not None:
            annotation = read_annotation(both)
            _check_spacing(annotation.spacing_um, plan, str(both))
            own = annotation.masks(self._names)
        _check_shapes(own, plan, f"{self.folder}, well {key.well}")
        return own

    def v_true(self, well: WellId) -> float | None:
        """Of wells.csv."""
        return self._v_true.get(well)

    def mtt(self, wells: Iterable[WellId]) -> dict[str, float]:
        """None: references are imported into the catalog."""
        return {}

    def _find(self, well: WellId, endings: list[str]) -> Path | None:
        found = [self.folder / f"{name}{ending}" for name in _spellings(well) for ending in endings]
        there = [path for path in found if path.exists()]
        if len(there) > 1:
            listed = ", ".join(path.name for path in there)
            raise ConfigError(f"well {well} has several truths: {listed}", where=str(self.folder), do="keep one")
        return there[0] if there else None


def plate_truth(catalog: CatalogReader, plate: str, folder: Path | None, names: ClassNames | None) -> PlateTruth:
    """The folder's truth, else that of the emulator which made the plate, or of the recording that was imaged.

    ConfigError for any other plate.
    """
    if folder is not None:
        return TruthFolder(folder, names)
    known = truth_of_run(catalog.path.parent, plate)
    if known is None:
        do = "give --truth FOLDER with A01_live.tif, A01.xml, ... of each well that was annotated"
        raise ConfigError(f"nobody knows the truth of plate {plate}", where=str(catalog.path), do=do)
    return EmulatedTruth(known) if isinstance(known, EmulatorSource) else TruthFolder(known, names)


def _spellings(well: WellId) -> tuple[str, ...]:
    """ "A01", and "A1" where that is another name."""
    return tuple(dict.fromkeys((str(well), f"{well.row_name}{well.column + 1}")))


def _check_shapes(masks: Masks, plan: StackPlan, where: str) -> None:
    for label, mask in masks.items():
        if mask.shape != (plan.n_z, plan.height, plan.width):
            what = f"the {label} truth is {mask.shape}, the stack is {(plan.n_z, plan.height, plan.width)} (z, y, x)"
            raise ConfigError(what, where=where, do="give the truth at the stack's own sampling")


def _check_spacing(spacing_um: tuple[float, float, float] | None, plan: StackPlan, where: str) -> None:
    wanted = (plan.z_step_um, plan.pixel_um, plan.pixel_um)
    if spacing_um and any(abs(a / b - 1) > _SAMPLING for a, b in zip(spacing_um, wanted, strict=True)):
        found = " x ".join(f"{v:g}" for v in spacing_um)
        what = f"its voxels are {found} um, the stack's {plan.z_step_um:g} x {plan.pixel_um:g} x {plan.pixel_um:g} um"
        raise ConfigError(what, where=where, do="annotate the stack at its own sampling, or correct the calibration")


def _read_wells(path: Path) -> dict[WellId, float]:
    if not path.is_file():
        return {}
    found = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            for row in csv.DictReader(file):
                value = float(row.get("v_true_fov") or "nan")
                if math.isfinite(value):
                    found[WellId.parse(row.get("well") or "")] = value
    except (OSError, ValueError, csv.Error, ConfigError) as error:
        do = "give a CSV with the columns well and v_true_fov (0 to 1), or remove it"
        raise ConfigError(f"cannot be read: {error}", where=str(path), do=do) from error
    return found
