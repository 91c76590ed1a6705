"""`spheroidd evaluate` on a plate: every scored well's masks and viabilities beside what is true of them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spheroidd.acquisition.store import ngff
from spheroidd.acquisition.store.labels import label_attributes, read_label
from spheroidd.daemon.catalog.lookup import the_plate, the_well
from spheroidd.daemon.catalog.references import references_of
from spheroidd.daemon.catalog.rows import ResultRow
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.evaluation.truth import PlateTruth, plate_truth
from spheroidd.inference.agreement.overlap_metrics import Agreement, agreement
from spheroidd.inference.agreement.surface_dice import surface_agreement
from spheroidd.inference.annotations.volume import ClassNames
from spheroidd.inference.preprocessing.resample import Spacing
from spheroidd.protocols.errors import ConfigError, StorageError
from spheroidd.protocols.plate import Treatment
from spheroidd.protocols.results import WellStatus
from spheroidd.protocols.stack import StackKey
from spheroidd.protocols.well import WellId

TOLERANCE_UM = 1.0  # a voxel of the shipped network; a person draws no finer
Tell = Callable[[str, int, int], None]  # well, done, in all


@dataclass(frozen=True, slots=True)
class LabelFigures:
    """One mask beside its truth; the surface figure is None where it was not asked for."""

    overlap: Agreement
    surface_dice: float | None


@dataclass(frozen=True, slots=True)
class WellFigures:
    """One well: its masks' figures by label, and its viabilities in percent beside their references (None: unknown)."""

    plate: str
    well: str
    stack: int
    treatment: Treatment
    labels: dict[str, LabelFigures]
    v_count: float | None = None
    v_count_true: float | None = None
    v_score: float | None = None
    v_score_lo: float | None = None
    v_score_hi: float | None = None
    v_control: float | None = None
    mtt: float | None = None

    @property
    def patient(self) -> str:
        """Whose cells; wells without a patient's name belong to their plate's one unknown patient."""
        return self.treatment.patient or f"{self.plate}, no patient"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A plate's figures, of which model, and the wells that were left out with the reason for each."""

    title: str
    model_sha256: str
    tolerance_um: float | None
    reference: str  # where the MTT figures come from: "imported", "emulated" or ""
    wells: tuple[WellFigures, ...]
    left_out: dict[str, str]
    precision: str = ""  # what the network computed in; empty where the rows do not say


def label_figures(
    mask: NDArray[np.bool_], truth: NDArray[np.bool_], spacing_um: Spacing, tolerance_um: float | None
) -> LabelFigures:
    """Overlap, and with a tolerance the surfaces' agreement, of two masks (z, y, x)."""
    near = None if tolerance_um is None else surface_agreement(mask, truth, spacing_um, tolerance_um).dice
    return LabelFigures(agreement(mask, truth), near)


def evaluate_plate(
    data_dir: Path,
    *,
    plate: str | None = None,
    truth: Path | None = None,
    names: ClassNames | None = None,
    well: str | None = None,
    tolerance_um: float | None = TOLERANCE_UM,
    tell: Tell = lambda well, done, total: None,
) -> Evaluation:
    """Compare every scored well of a plate, or one, with its truth; excluded wells and wells without
    any truth are left out.

    ConfigError where no well can be compared, or a truth does not fit its stack.
    """
    with Catalog.read_only(data_dir) as catalog:
        name = the_plate(catalog, plate)
        known = plate_truth(catalog, name, truth, names)
        rows = catalog.result_rows(name)
        if well is not None:
            chosen = the_well(catalog, name, well)
            rows = [row for row in rows if row.result.well == chosen]
        imported = {
            well: one.viability_percent
            for well, one in references_of(catalog, name).items()
            if one.viability_percent is not None
        }
        mtt = imported or known.mtt(entry.well for entry in catalog.plate_map(name).imaged())
        found: list[WellFigures] = []
        left_out: dict[str, str] = {}
        for done, row in enumerate(rows, start=1):
            key = StackKey(name, WellId.parse(row.result.well), row.result.stack)
            reason = _unusable(row)
            if reason is None:
                figures = _well(data_dir, catalog, key, row, known, mtt, tolerance_um)
                if figures.labels or figures.v_count_true is not None or figures.mtt is not None:
                    found.append(figures)
                else:
                    reason = "it has no truth"
            if reason is not None:
                left_out[f"{key.well}/{key.stack}" if key.stack else str(key.well)] = reason
            tell(str(key.well), done, len(rows))
    if not found:
        told = "; ".join(f"{well}: {reason}" for well, reason in list(left_out.items())[:4]) or "it has no scored well"
        do = "give --truth with the truth of wells that are scored"
        raise ConfigError(f"no well of plate {name} can be compared ({told})", where=str(data_dir), do=do)
    reference = "imported" if imported else "emulated" if mtt else ""
    models, precision = (_each(getattr(row.result, fact) for row in rows) for fact in ("model_sha256", "precision"))
    return Evaluation(f"plate {name}", models, tolerance_um, reference, tuple(found), left_out, precision)


def _well(
    data_dir: Path,
    catalog: Catalog,
    key: StackKey,
    row: ResultRow,
    known: PlateTruth,
    mtt: dict[str, float],
    tolerance_um: float | None,
) -> WellFigures:
    plan, result = catalog.plan(key), row.result
    spacing_um = (plan.z_step_um, plan.pixel_um, plan.pixel_um)
    labels = {}
    for label, true in known.masks(key, plan).items():
        mask = _mask(data_dir, key, label, result.model_sha256)
        if mask is not None:
            labels[label] = label_figures(mask, true, spacing_um, tolerance_um)
    v_true = known.v_true(key.well)
    return WellFigures(
        key.plate,
        str(key.well),
        key.stack,
        row.treatment,
        labels,
        v_count=None if result.v_count is None else 100 * result.v_count,
        v_count_true=None if v_true is None else 100 * v_true,
        v_score=result.v_score,
        v_score_lo=result.v_score_lo,
        v_score_hi=result.v_score_hi,
        v_control=result.v_control,
        mtt=mtt.get(str(key.well)),
    )


def _mask(data_dir: Path, key: StackKey, label: str, model_sha256: str | None) -> NDArray[np.bool_] | None:
    """The stored mask; None where the stack has no such channel. StorageError where damaged or another model's."""
    if not ngff.label_path(data_dir, key, label).is_dir():
        return None
    if label_attributes(data_dir, key, label).get("model_sha256") not in (None, model_sha256):
        what = f"its {label} mask was made by another model than its row"
        raise StorageError(what, where=f"{data_dir}, {key}", do="score the plate again: spheroidd score DATA")
    return read_label(data_dir, key, label)


def _unusable(row: ResultRow) -> str | None:
    if row.exclusion is not None:
        return f"excluded: {row.exclusion.reason}"
    if row.result.status not in (WellStatus.FINAL, WellStatus.PROVISIONAL):
        return row.result.reason or row.result.status.value
    return None


def _each(values: Iterable[str | None]) -> str:
    """What the rows say, each once, with commas between them."""
    return ", ".join(sorted({value for value in values if value}))
