"""What curves of several plates and patients say of a compound: combined on log10 IC50, compared, and ranked.

The patient is the unit. Curves of one patient share that patient's IC50 and count once between patients, however many
wells and plates they stand on; the interval is for the mean of patients like these, and a second one for a further
patient. A censored or inactive curve takes part with what it knows ("above the highest dose"): see
`patient_curve.evidence_of`. Only a failed curve says nothing; it is counted and named in the reason.

Compounds are compared within patients, so what makes a patient's cells tough drops out, and so does a plate's shift
where both stand on one plate. Many comparisons are adjusted by Holm's method (Scand. J. Statist. 6, 1979).
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from spheroidd.inference.dose_response.patient_curve import PatientCurve, Which, evidence_of
from spheroidd.inference.dose_response.random_effects import Evidence, RandomEffects, combined, pooled
from spheroidd.protocols.dose import ALPHA, CurveStatus
from spheroidd.protocols.errors import ConfigError

_Z = 1.959964
APPROXIMATE_FOLD = 10.0  # as for a single curve: an interval wider than tenfold


@dataclass(frozen=True, slots=True)
class PatientIc50:
    """One patient's IC50 of a compound, from all their curves. A censored one has only the bound that is known."""

    patient: str
    ic50_um: float | None
    lo_um: float | None
    hi_um: float | None
    plates: tuple[str, ...]
    statuses: tuple[CurveStatus, ...]


@dataclass(frozen=True, slots=True)
class PooledIc50:
    """A compound across patients: geometric mean IC50, its 95 % interval, and where 95 % of further patients lie.

    `between_patient_sd` is in log10 units. For one patient `ic50_um` is that patient's, without an interval; where
    most patients are censored on one side, or the mean lies beyond all doses, there is no number, and `status` says on
    which side.
    """

    compound: str
    status: CurveStatus
    reason: str
    ic50_um: float | None
    lo_um: float | None
    hi_um: float | None
    new_patient_lo_um: float | None
    new_patient_hi_um: float | None
    between_patient_sd: float | None
    n_patients: int
    n_curves: int
    n_censored: int  # of the curves: their IC50 is known from one side only; they are in the estimate
    n_failed: int  # of the curves: no information; they are not
    patients: tuple[PatientIc50, ...]


@dataclass(frozen=True, slots=True)
class Ic50Difference:
    """Two compounds within the same patients. `fold` is IC50 of `first` over that of `second` (geometric mean).

    `p` tests that they are equal, `p_holm` is adjusted for all pairs compared together. `n_unpaired` patients have
    only one of the two, `n_uninformative` are censored to the same side in both; neither say anything.
    """

    first: str
    second: str
    fold: float | None
    lo: float | None
    hi: float | None
    p: float | None
    p_holm: float | None
    between_patient_sd: float | None
    n_patients: int
    n_unpaired: int
    n_uninformative: int
    reason: str


@dataclass(frozen=True, slots=True)
class Rank:
    """A compound's place, 1 the most potent; equal places for what cannot be told apart for lack of a number.

    `best` to `worst` is where it may stand by the intervals: one rank lower for each compound whose interval lies
    wholly below its own, and so on. None where nothing is known of it.
    """

    compound: str
    rank: int | None
    best: int | None
    worst: int | None
    pooled: PooledIc50


def pool(curves: Iterable[PatientCurve], which: Which = "rel", plate_sd: float = 0.0) -> tuple[PooledIc50, ...]:
    """Every compound across its patients, in the order in which compounds first appear.

    `plate_sd` (log10) is added to each curve's own error: what plates of one patient differ by, as
    `between_plate_sd` finds it. Where each patient has one plate it cannot be told from the patients' own spread.
    """
    return tuple(_pool(compound, mine, which, plate_sd) for compound, mine in _by(curves, "compound").items())


def _pool(compound: str, curves: Sequence[PatientCurve], which: Which, plate_sd: float) -> PooledIc50:
    evidence = {patient: _evidence(mine, which, plate_sd) for patient, mine in _by(curves, "patient").items()}
    doses = math.log10(min(c.dose_min_um for c in curves)), math.log10(max(c.dose_max_um for c in curves))
    patients = Counter(_side(combined(told)) for told in evidence.values() if told)
    found, beyond = _within_doses(pooled(list(evidence.values())), patients, doses)
    sides: Counter[str] = Counter(_side(evidence_of(curve, which)) for curve in curves)
    status = beyond or _status(found, sides, curves)
    mu, low, high, new_low, new_high = (
        _dose(value) for value in (found.mu, found.low, found.high, found.new_low, found.new_high)
    )
    return PooledIc50(
        compound,
        status,
        _reason(status, found, curves, sides, len(evidence)),
        mu,
        low,
        high,
        new_low,
        new_high,
        found.tau,
        found.n_patients,
        len(curves),
        sides["below"] + sides["above"],
        sides["nothing"],
        tuple(_patient(patient, mine, evidence[patient]) for patient, mine in _by(curves, "patient").items()),
    )


def _within_doses(
    found: RandomEffects, patients: Mapping[str, int], doses: tuple[float, float]
) -> tuple[RandomEffects, CurveStatus | None]:
    """A mean beyond every dose that was tested is no number, just as a curve's is not, nor is one that rests on a
    minority of patients while the others are censored to one side; the bound on the near side stays.
    """
    most = found.n_patients / 2
    if found.mu is not None and (found.mu > doses[1] or patients["above"] > most):
        return replace(found, mu=None, high=None, new_high=None), CurveStatus.CENSORED_HIGH
    if found.mu is not None and (found.mu < doses[0] or patients["below"] > most):
        return replace(found, mu=None, low=None, new_low=None), CurveStatus.CENSORED_LOW
    return found, None


def _side(evidence: Evidence | None) -> str:
    """Where an IC50 lies: "below" or "above" what is told, "number" where both sides are known, or "nothing"."""
    if evidence is None:
        return "nothing"
    if math.isinf(evidence.sd_below):
        return "below"
    return "above" if math.isinf(evidence.sd_above) else "number"


def _status(found: RandomEffects, sides: Mapping[str, int], curves: Sequence[PatientCurve]) -> CurveStatus:
    if found.mu is not None:
        open_ended = found.n_patients > 1 and (found.low is None or found.high is None)
        wide = (
            found.low is not None and found.high is not None and found.high - found.low > math.log10(APPROXIMATE_FOLD)
        )
        return CurveStatus.APPROXIMATE if open_ended or wide else CurveStatus.OK
    if sides["above"] == sides["below"]:
        return CurveStatus.FAILED
    if sides["below"] > sides["above"]:
        return CurveStatus.CENSORED_LOW
    inactive = sum(curve.fit.status is CurveStatus.INACTIVE for curve in curves)
    return CurveStatus.INACTIVE if inactive == sides["above"] else CurveStatus.CENSORED_HIGH


_SAID = {
    CurveStatus.APPROXIMATE: "the interval is wider than tenfold, or open",
    CurveStatus.INACTIVE: "no effect shown",
    CurveStatus.CENSORED_LOW: "below the doses",
    CurveStatus.CENSORED_HIGH: "above the doses",
    CurveStatus.FAILED: "nothing that can be placed",
}


def _reason(
    status: CurveStatus,
    found: RandomEffects,
    curves: Sequence[PatientCurve],
    sides: Mapping[str, int],
    n_patients: int,
) -> str:
    counts = Counter(curve.fit.status.value for curve in curves)
    said = [_SAID[status]] if status in _SAID else []
    if status is CurveStatus.INACTIVE and any((curve.fit.p_effect or 1.0) <= ALPHA for curve in curves):
        said = ["no IC50 beside an effect"]
    if found.mu is None and sides["number"]:
        said.append("too few patients have a number, or most are censored")
    if found.n_patients == 1 and found.mu is not None:
        said.append("one patient, who says nothing of how others differ")
    said.append(f"{found.n_patients} of {n_patients} patients")
    said.append("curves: " + ", ".join(f"{count} {name}" for name, count in counts.items()))
    if sides["nothing"]:
        said.append(f"{sides['nothing']} without information left out")
    return "; ".join(said)


def _evidence(curves: Iterable[PatientCurve], which: Which, plate_sd: float) -> list[Evidence]:
    told = (evidence_of(curve, which) for curve in curves)
    return [one.widened(plate_sd) for one in told if one is not None]


def _patient(patient: str, curves: Sequence[PatientCurve], evidence: Sequence[Evidence]) -> PatientIc50:
    plates = tuple(dict.fromkeys(curve.plate for curve in curves))
    statuses = tuple(curve.fit.status for curve in curves)
    if not evidence:
        return PatientIc50(patient, None, None, None, plates, statuses)
    one = combined(evidence)
    lo = None if math.isinf(one.sd_below) else 10 ** (one.at - _Z * one.sd_below)
    hi = None if math.isinf(one.sd_above) else 10 ** (one.at + _Z * one.sd_above)
    return PatientIc50(patient, None if lo is None or hi is None else 10**one.at, lo, hi, plates, statuses)


def between_plate_sd(curves: Iterable[PatientCurve], which: Which = "rel") -> float | None:
    """The sd (log10) between plates of one patient, beyond the curves' own errors; None where no patient has two.

    Method of moments over all compounds and patients with a number on two plates or more.
    """
    squares, errors, freedom = 0.0, 0.0, 0
    groups: dict[tuple[str, str], list[Evidence]] = {}
    for curve in curves:
        one = evidence_of(curve, which)
        if one is not None and math.isfinite(one.sd_below) and math.isfinite(one.sd_above):
            groups.setdefault((curve.compound, curve.patient), []).append(one)
    for group in groups.values():
        mean = sum(one.at for one in group) / len(group)
        squares += sum((one.at - mean) ** 2 for one in group)
        variances = [((one.sd_below + one.sd_above) / 2) ** 2 for one in group]
        errors += sum(variances) * (len(group) - 1) / len(group)
        freedom += len(group) - 1
    return math.sqrt(max(squares - errors, 0.0) / freedom) if freedom else None


def compare(
    curves: Iterable[PatientCurve], pairs: Iterable[tuple[str, str]], which: Which = "rel"
) -> tuple[Ic50Difference, ...]:
    """Each pair of compounds within the patients that have both; p values adjusted by Holm over all pairs given.

    ConfigError for a compound without any curve, or compared with itself.
    """
    by_compound = _by(curves, "compound")
    found = []
    for first, second in pairs:
        if first == second:
            raise ConfigError(f"{first!r} is compared with itself", do="name two different compounds")
        for name in (first, second):
            if name not in by_compound:
                raise ConfigError(f"there is no curve of {name!r}", do=f"choose from {', '.join(by_compound)}")
        found.append(_compare(first, second, by_compound[first], by_compound[second], which))
    adjusted = holm([difference.p for difference in found])
    return tuple(replace(difference, p_holm=p) for difference, p in zip(found, adjusted, strict=True))


def _compare(
    first: str, second: str, ours: Sequence[PatientCurve], theirs: Sequence[PatientCurve], which: Which
) -> Ic50Difference:
    one, other = _by(ours, "patient"), _by(theirs, "patient")
    shared = [patient for patient in one if patient in other]
    differences = [_within(one[patient], other[patient], which) for patient in shared]
    found = pooled(differences)
    n_unpaired = len(one.keys() ^ other.keys())
    n_uninformative = len(shared) - found.n_patients
    said = f"{found.n_patients} patients with both"
    said += f", {n_unpaired} with only one" if n_unpaired else ""
    said += f", {n_uninformative} where they cannot be distinguished" if n_uninformative else ""
    if found.n_patients == 1:
        said += "; one patient says nothing of others"
    elif found.mu is None and found.n_patients:
        said += "; all are censored to the same side"
    fold, lo, hi = (_dose(value) for value in (found.mu, found.low, found.high))
    return Ic50Difference(
        first, second, fold, lo, hi, found.p_zero, None, found.tau, found.n_patients, n_unpaired, n_uninformative, said
    )


def _within(ours: Sequence[PatientCurve], theirs: Sequence[PatientCurve], which: Which) -> list[Evidence]:
    """One patient's difference: on each plate that holds both, else between all curves of each."""
    one, other = _by(ours, "plate"), _by(theirs, "plate")
    plates = [plate for plate in one if plate in other]
    sides = [(one[plate], other[plate]) for plate in plates] or [(list(ours), list(theirs))]
    told = [(_evidence(left, which, 0.0), _evidence(right, which, 0.0)) for left, right in sides]
    return [combined(left).minus(combined(right)) for left, right in told if left and right]


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjusted for as many tests as have a p value; None stays None.

    >>> holm([0.01, None, 0.04, 0.03])
    [0.03, None, 0.06, 0.06]
    """
    order = sorted((p, at) for at, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    worst = 0.0
    for done, (p, at) in enumerate(order):
        worst = max(worst, min((len(order) - done) * p, 1.0))
        adjusted[at] = worst
    return adjusted


def rank(compounds: Iterable[PooledIc50]) -> tuple[Rank, ...]:
    """Compounds from the most potent to the least: below the doses first, above them last, failed ones at the end."""
    placed = sorted(compounds, key=_potency)
    bounds = [_bounds(compound) for compound in placed]
    ranks = []
    for compound, (low, high) in zip(placed, bounds, strict=True):
        if compound.status is CurveStatus.FAILED:
            ranks.append(Rank(compound.compound, None, None, None, compound))
            continue
        known = [b for b, other in zip(bounds, placed, strict=True) if other.status is not CurveStatus.FAILED]
        place = 1 + sum(_potency(other) < _potency(compound) for other in placed)
        best = 1 + sum(other_high < low for _, other_high in known)
        worst = len(known) - sum(other_low > high for other_low, _ in known)
        ranks.append(Rank(compound.compound, place, best, worst, compound))
    return tuple(ranks)


def _potency(compound: PooledIc50) -> tuple[bool, float]:
    """What compounds are sorted by; failed ones come last."""
    if compound.ic50_um is not None:
        return False, compound.ic50_um
    return compound.status is CurveStatus.FAILED, 0.0 if compound.status is CurveStatus.CENSORED_LOW else math.inf


def _bounds(compound: PooledIc50) -> tuple[float, float]:
    """Between what its IC50 lies; a censored compound is taken to lie beyond all that have a number."""
    if compound.ic50_um is None:
        place = _potency(compound)[1]
        return place, place
    return compound.lo_um or 0.0, compound.hi_um or math.inf


def _by(curves: Iterable[PatientCurve], key: Literal["compound", "patient", "plate"]) -> dict[str, list[PatientCurve]]:
    groups: dict[str, list[PatientCurve]] = {}
    for curve in curves:
        groups.setdefault(getattr(curve, key), []).append(curve)
    return groups


def _dose(log10_um: float | None) -> float | None:
    return None if log10_um is None else float(10.0**log10_um)
