"""The report's table of compounds across patients: combined IC50s, ranked, each beside the most potent one."""

from collections.abc import Iterable, Sequence

from spheroidd.daemon.analysis.curves import CurveOfPlate
from spheroidd.daemon.report import captions
from spheroidd.daemon.report import wording as words
from spheroidd.daemon.report.document import Column, Row, TableBlock
from spheroidd.inference.dose_response.across_patients import Ic50Difference, PooledIc50, Rank, compare, pool, rank
from spheroidd.inference.dose_response.patient_curve import PatientCurve
from spheroidd.protocols.dose import CurveStatus

COLUMNS = (
    Column("Rank", "range", 44),
    Column("Compound", "name", 76),
    Column("IC50, mean", "range", 58),
    Column("95 %, µM", "range", 66),
    Column("Next patient, µM", "range", 72),
    Column("Spread", "range", 38),
    Column("Patients", "range", 40),
    Column("To the first", "range", 48),
    Column("p (Holm)", "range", 40),
)


def patients_table(rows: Iterable[Row]) -> TableBlock:
    """The compounds, numbers in columns and in words what is known where there is more."""
    return TableBlock(captions.patients(), COLUMNS, tuple(rows), note_head="What is known")


def patients_rows(found: Iterable[CurveOfPlate]) -> list[Row]:
    """One row for each compound, the most potent first; none where fewer than two patients have curves."""
    curves = [told for curve in found if (told := _patient_curve(curve)) is not None]
    if len({curve.patient for curve in curves}) < 2:
        return []
    ranks = rank(pool(curves))
    beside = _beside_the_first(curves, ranks)
    return [Row(_cells(place, beside.get(place.compound)), note=_said(place.pooled)) for place in ranks]


def _patient_curve(curve: CurveOfPlate) -> PatientCurve | None:
    """None for a curve of nobody, or of no dose."""
    doses = [dose for dose in curve.fitted()[0] if dose > 0]
    if curve.patient is None or not doses:
        return None
    return PatientCurve(curve.compound, curve.patient, curve.plate, min(doses), max(doses), curve.fit)


def _beside_the_first(curves: Sequence[PatientCurve], ranks: Sequence[Rank]) -> dict[str, Ic50Difference]:
    """Each compound against the most potent one whose IC50 is a number, within the patients that had both."""
    known = [place.compound for place in ranks if place.pooled.ic50_um is not None]
    pairs = [(other.compound, known[0]) for other in ranks if other.compound != known[0]] if known else []
    return {difference.first: difference for difference in compare(curves, pairs)}


def _cells(place: Rank, beside: Ic50Difference | None) -> tuple[str, ...]:
    one = place.pooled
    number = words.UNKNOWN if one.ic50_um is None else f"{words.estimate(one.ic50_um)} µM"
    if place.rank is None:
        stands = words.UNKNOWN
    else:
        stands = f"{place.rank}" if place.best == place.worst else f"{place.rank} ({place.best} to {place.worst})"
    fold = words.UNKNOWN if beside is None or beside.fold is None else f"{words.estimate(beside.fold)} times"
    return (
        stands,
        one.compound,
        number,
        words.interval(one.lo_um, one.hi_um) if one.n_patients > 1 else words.UNKNOWN,
        words.interval(one.new_patient_lo_um, one.new_patient_hi_um) if one.n_patients > 1 else words.UNKNOWN,
        words.fixed(one.between_patient_sd, 2),
        str(len(one.patients)),
        fold,
        words.probability(beside.p_holm) if beside is not None else words.UNKNOWN,
    )


def _said(one: PooledIc50) -> str:
    return words.sentence(one.reason) if one.status is not CurveStatus.OK or one.n_failed else ""
