"""The wells of a plate as quality control sees them: limits, values, and which controls judge which wells."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from spheroidd.inference.quality.control_statistics import MIN_CONTROLS, ControlFigures, control_figures, known
from spheroidd.protocols.phrase import phrase
from spheroidd.protocols.plate import Treatment, WellRole
from spheroidd.protocols.well import WellId

NEGATIVE, POSITIVE = WellRole.NEGATIVE_CONTROL, WellRole.POSITIVE_CONTROL
NAMELESS = "without a name"  # stands for wells whose map names no patient, beside wells whose map does


@dataclass(frozen=True, slots=True)
class QualityLimits:
    """What passes. Percent, or plain ratios; a lab that knows its assay gives its own."""

    z_prime_pass: float = 0.5
    z_prime_warn: float = 0.3  # below this the plate fails
    control_cv: float = 20.0
    control_cv_fail: float = 40.0
    edge_low: float = 0.9
    edge_high: float = 1.1
    outlier_z: float = 3.5
    trend_change: float = 0.15  # over the whole plate or run
    trend_z: float = 3.0
    few_controls: int = 6  # fewer than that and Z' itself is uncertain
    patient_level: float = 0.2  # how far a patient's controls may lie from all controls of the plate
    smallest_spread: float = 0.01  # of the untreated median: wells are not measured better than that
    flagged_share: float = 0.1  # of the wells; with more the plate as a whole is in doubt


LIMITS = QualityLimits()


@dataclass(frozen=True, slots=True)
class WellValue:
    """One well's viability in the metric's own unit, None where there is none; `order` is its turn in the imaging.

    A well that is `pending` has none yet: it is still to be imaged or scored.
    """

    well: WellId
    treatment: Treatment
    value: float | None
    order: int | None = None
    reason: str | None = None  # why there is no value
    pending: bool = False


@dataclass(frozen=True, slots=True)
class Series:
    """The wells of one patient and the controls they are judged by. `patient` is empty for one series a plate."""

    patient: str
    figures: ControlFigures
    negative: Mapping[WellId, float]

    @property
    def named(self) -> str:
        """How its flags begin."""
        return phrase("of-patient", patient=self.patient) if self.patient else ""

    def relative(self) -> dict[WellId, float]:
        """Its untreated controls over their median; empty where that is not above 0."""
        middle = self.figures.negative_median
        return {} if middle is None or middle <= 0 else {well: value / middle for well, value in self.negative.items()}


def series_of(wells: Sequence[WellValue]) -> Iterator[Series]:
    """One series for each patient that has untreated controls of its own, or one for the whole plate.

    A patient with fewer than MIN_CONTROLS killed controls of its own is judged against all killed ones of the plate:
    what is dead is dead in every patient, what is healthy is not equally bright.
    """
    untreated = {entry.treatment.patient for entry in wells if entry.treatment.role is NEGATIVE}
    patients = sorted(untreated, key=lambda name: name or "") if len(untreated) > 1 else [None]
    all_killed = values_of(wells, POSITIVE)
    for patient in patients:
        own = wells if len(patients) == 1 else [entry for entry in wells if entry.treatment.patient == patient]
        negative, positive = values_of(own, NEGATIVE), values_of(own, POSITIVE)
        killed = positive if len(positive) >= MIN_CONTROLS else all_killed
        figures = control_figures(tuple(negative.values()), tuple(killed.values()))
        yield Series((patient or NAMELESS) if len(patients) > 1 else "", figures, negative)


def values_of(wells: Iterable[WellValue], role: WellRole) -> dict[WellId, float]:
    """The values of the wells of one role, those without a value left out."""
    return {
        entry.well: value
        for entry in wells
        if entry.treatment.role is role and (value := known(entry.value)) is not None
    }


def treated_alike(wells: Sequence[WellValue]) -> list[list[tuple[WellValue, float]]]:
    """Wells with a value, grouped by patient and treatment; controls of one role and patient belong together."""
    groups: dict[tuple[object, ...], list[tuple[WellValue, float]]] = {}
    for entry in wells:
        value, treatment = known(entry.value), entry.treatment
        if value is None or (treatment.role is WellRole.SAMPLE and treatment.compound is None):
            continue  # samples of which nothing is said are not replicates of each other
        drug = (treatment.compound, treatment.dose_um) if treatment.role is WellRole.SAMPLE else ()
        groups.setdefault((treatment.role, treatment.patient, *drug), []).append((entry, value))
    return list(groups.values())


def names_of(wells: Iterable[WellId]) -> tuple[str, ...]:
    """Wells as flags name them, row by row."""
    return tuple(str(well) for well in sorted(wells))
