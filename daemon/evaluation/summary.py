"""What the wells of an evaluation say together: pooled and by patient, with intervals that draw whole patients."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from spheroidd.daemon.evaluation.plate import Evaluation, WellFigures
from spheroidd.inference.agreement.method_comparison import PairedFigures, Spread, paired_figures, spread
from spheroidd.inference.annotations.volume import LABELS

MASK_FIGURES = ("dice", "iou", "precision", "recall", "surface_dice")
# name -> (estimate, reference), both in percent
PAIRS: dict[str, tuple[Callable[[WellFigures], float | None], Callable[[WellFigures], float | None]]] = {
    "v_score against MTT": (lambda well: well.v_score, lambda well: well.mtt),
    "v_control against MTT": (lambda well: well.v_control, lambda well: well.mtt),
    "v_count against truth": (lambda well: well.v_count, lambda well: well.v_count_true),
}


@dataclass(frozen=True, slots=True)
class Summary:
    """Mask figures by label and name, viabilities by pair, how often the score's 90 % interval held the reference."""

    masks: dict[str, dict[str, Spread]]
    viability: dict[str, PairedFigures]
    coverage_90: float | None


def mask_figure(well: WellFigures, label: str, name: str) -> float | None:
    """One figure of one mask; None where the well has no such mask or figure."""
    figures = well.labels.get(label)
    if figures is None:
        return None
    value = figures.surface_dice if name == "surface_dice" else getattr(figures.overlap, name)
    return None if value is None else float(value)


def pairs(wells: Iterable[WellFigures], name: str) -> list[tuple[WellFigures, float, float]]:
    """The wells of which both the estimate and the reference of a pair are known, with the two."""
    estimate, reference = PAIRS[name]
    found = ((well, estimate(well), reference(well)) for well in wells)
    return [(well, given, true) for well, given, true in found if given is not None and true is not None]


def summarise(wells: Sequence[WellFigures]) -> Summary:
    """All wells together; an interval needs two patients or more."""
    masks: dict[str, dict[str, Spread]] = {}
    for label in LABELS:
        for name in MASK_FIGURES:
            known = [(value, well.patient) for well in wells if (value := mask_figure(well, label, name)) is not None]
            if known:
                masks.setdefault(label, {})[name] = spread(*map(list, zip(*known, strict=True)))
    viability = {}
    for name in PAIRS:
        found = pairs(wells, name)
        if found:
            owners, given, true = zip(*found, strict=True)
            viability[name] = paired_figures(given, true, [well.patient for well in owners])
    return Summary(masks, viability, _coverage(wells))


def by_patient(wells: Sequence[WellFigures]) -> dict[str, Summary]:
    """The same for each patient alone, in the order of their names."""
    patients = sorted({well.patient for well in wells})
    return {patient: summarise([well for well in wells if well.patient == patient]) for patient in patients}


def _coverage(wells: Iterable[WellFigures]) -> float | None:
    held = [
        well.v_score_lo <= well.mtt <= well.v_score_hi
        for well in wells
        if well.mtt is not None and well.v_score_lo is not None and well.v_score_hi is not None
    ]
    return sum(held) / len(held) if held else None


def record(evaluation: Evaluation) -> dict[str, Any]:
    """The evaluation as plain values: what was compared, the pooled summary, each patient's, each well's."""
    return {
        "title": evaluation.title,
        "model_sha256": evaluation.model_sha256,
        "precision": evaluation.precision or None,
        "surface_tolerance_um": evaluation.tolerance_um,
        "mtt": evaluation.reference or None,
        "pooled": asdict(summarise(evaluation.wells)),
        "by_patient": {patient: asdict(found) for patient, found in by_patient(evaluation.wells).items()},
        "wells": [_well(well) for well in evaluation.wells],
        "left_out": evaluation.left_out,
    }


def _well(well: WellFigures) -> dict[str, Any]:
    masks = {
        label: {name: mask_figure(well, label, name) for name in MASK_FIGURES}
        for label in LABELS
        if label in well.labels
    }
    names = ("v_count", "v_count_true", "v_score", "v_score_lo", "v_score_hi", "v_control", "mtt")
    treatment = well.treatment
    return {
        "plate": well.plate,
        "well": well.well,
        "stack": well.stack,
        "role": treatment.role.value,
        "compound": treatment.compound,
        "dose_um": treatment.dose_um,
        "patient": treatment.patient,
        **masks,
        **{f"{name}_percent": getattr(well, name) for name in names},
    }
