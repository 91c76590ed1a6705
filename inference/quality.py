"""Plate quality control: from the viabilities of one plate to a verdict, its reasons, and flags on wells.

Knows no catalog. Controls come from the same plate, never another, and where several patients share a plate each
patient's wells are judged by that patient's own controls; the plate's figures are then those of the patient whose Z' is
lowest, for a plate is as good as its worst series. Nothing is deleted: a flag names wells and says what to do.
"""

import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from spheroidd.inference.control_figures import MIN_CONTROLS, ControlFigures, control_figures, known
from spheroidd.inference.plate_position import EdgeRatio, edge_ratio, is_edge, plate_format, trend
from spheroidd.inference.replicates import deviants
from spheroidd.protocols.plate import Treatment, WellRole
from spheroidd.protocols.quality import PlateQuality, QualityFlag, Verdict
from spheroidd.protocols.well import WellId

NEGATIVE, POSITIVE = WellRole.NEGATIVE_CONTROL, WellRole.POSITIVE_CONTROL


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
    """One well's viability in the metric's own unit, None where there is none; `order` is its turn in the imaging."""

    well: WellId
    treatment: Treatment
    value: float | None
    order: int | None = None
    reason: str | None = None  # why there is no value


@dataclass(frozen=True, slots=True)
class _Series:
    """The wells of one patient and the controls they are judged by. `patient` is empty for one series a plate."""

    patient: str
    figures: ControlFigures
    negative: Mapping[WellId, float]

    @property
    def named(self) -> str:
        return f"patient {self.patient}: " if self.patient else ""


def judge_plate(
    plate: str,
    metric: str,
    wells: Iterable[WellValue],
    *,
    excluded: frozenset[str] = frozenset(),
    limits: QualityLimits = LIMITS,
    stack_flags: Sequence[QualityFlag] = (),
) -> PlateQuality:
    """Judge one plate by one metric. Wells named in `excluded` enter no figure and stay in the flags that name them.

    `stack_flags`, of the images themselves, are passed on and count as flagged wells. The answer does not depend on the
    order of `wells`.
    """
    wells = sorted(wells, key=lambda entry: entry.well)
    used = [entry for entry in wells if str(entry.well) not in excluded]
    series = list(_series(used))
    flags = [flag for one in series for flag in _control_flags(one, limits)]
    flags += _lost_controls(used)
    flags += _patients_apart(series, used, limits)
    edge = _edge(series, wells)
    flags += _edge_flags(edge, series, limits)
    flags += _trends(series, used, limits)
    well_flags = [
        *_outliers(used, series, _left_on_edge(edge, wells, limits), limits),
        *stack_flags,
        *_excluded(wells, excluded),
    ]
    flags += _too_many(well_flags, used, limits)
    verdict = _overall(flags, series)
    shown = min(series, key=_by_z_prime).figures
    return PlateQuality(
        plate=plate,
        metric=metric,
        verdict=verdict,
        reasons=_reasons(flags, verdict, shown, edge and edge.ratio),
        n_negative=sum(_has_value(entry, NEGATIVE) for entry in used),
        n_positive=sum(_has_value(entry, POSITIVE) for entry in used),
        negative_median=shown.negative_median,
        positive_median=shown.positive_median,
        z_prime=shown.z_prime,
        ssmd=shown.ssmd,
        signal_window=shown.signal_window,
        control_cv=shown.control_cv,
        edge_ratio=edge and edge.ratio,
        flags=(*flags, *well_flags),
    )


# -- which controls belong to which wells ------------------------------------------------------------------------------


def _series(wells: Sequence[WellValue]) -> Iterator[_Series]:
    """One series for each patient that has untreated controls of its own, or one for the whole plate.

    A patient with fewer than MIN_CONTROLS killed controls of its own is judged against all killed ones of the plate:
    what is dead is dead in every patient, what is healthy is not equally bright.
    """
    untreated = {entry.treatment.patient for entry in wells if entry.treatment.role is NEGATIVE}
    patients = sorted(untreated, key=lambda name: name or "") if len(untreated) > 1 else [None]
    all_killed = _values(wells, POSITIVE)
    for patient in patients:
        own = wells if len(patients) == 1 else [entry for entry in wells if entry.treatment.patient == patient]
        negative, positive = _values(own, NEGATIVE), _values(own, POSITIVE)
        killed = positive if len(positive) >= MIN_CONTROLS else all_killed
        figures = control_figures(tuple(negative.values()), tuple(killed.values()))
        yield _Series((patient or "without a name") if len(patients) > 1 else "", figures, negative)


def _values(wells: Iterable[WellValue], role: WellRole) -> dict[WellId, float]:
    return {
        entry.well: value
        for entry in wells
        if entry.treatment.role is role and (value := known(entry.value)) is not None
    }


def _has_value(entry: WellValue, role: WellRole) -> bool:
    return entry.treatment.role is role and known(entry.value) is not None


def _by_z_prime(series: _Series) -> float:
    return 2.0 if series.figures.z_prime is None else series.figures.z_prime


# -- flags on the plate ------------------------------------------------------------------------------------------------


def _control_flags(series: _Series, limits: QualityLimits) -> Iterator[QualityFlag]:
    figures, named = series.figures, series.named
    wells = _names(series.negative)
    few = min(figures.n_negative, figures.n_positive)
    counts = f"{figures.n_negative} untreated and {figures.n_positive} killed controls with a value"
    if few < MIN_CONTROLS:
        what = f"{named}{counts}; a Z' needs {MIN_CONTROLS} of each"
        yield QualityFlag(
            "too-few-controls", Verdict.UNKNOWN, wells, what, "give the plate 8 of each, on and off the edge"
        )
    elif figures.separated is False:
        what = f"{named}the untreated controls do not lie above the killed ones"
        yield QualityFlag("controls-not-separated", Verdict.FAIL, wells, what, "check the plate map and the stains")
    elif few < limits.few_controls:
        what = f"{named}{counts}: a Z' of so few is uncertain"
        yield QualityFlag("few-controls", Verdict.WARN, wells, what, "give the plate 8 of each, on and off the edge")
    if figures.z_prime is not None and figures.z_prime < limits.z_prime_pass:
        fails = figures.z_prime < limits.z_prime_warn
        bound = limits.z_prime_warn if fails else limits.z_prime_pass
        what = f"{named}robust Z' is {figures.z_prime:.2f}, below {bound:g}"
        do = "look at the control wells; repeat the plate" if fails else "look at the control wells before trusting it"
        yield QualityFlag("z-prime", Verdict.FAIL if fails else Verdict.WARN, wells, what, do)
    if figures.control_cv is not None and figures.control_cv > limits.control_cv:
        verdict = Verdict.FAIL if figures.control_cv > limits.control_cv_fail else Verdict.WARN
        what = f"{named}the untreated controls' CV is {figures.control_cv:.0f} %, above {limits.control_cv:g} %"
        yield QualityFlag("control-cv", verdict, wells, what, "look for a bad control; check seeding")
    if figures.n_negative >= MIN_CONTROLS and len(set(series.negative.values())) == 1:
        what = f"{named}all {figures.n_negative} untreated controls have the very same value"
        yield QualityFlag("constant-controls", Verdict.WARN, wells, what, "check that they are different wells")


def _lost_controls(wells: Sequence[WellValue]) -> Iterator[QualityFlag]:
    lost = [e for e in wells if e.treatment.role in (NEGATIVE, POSITIVE) and known(e.value) is None]
    if lost:
        words = "; ".join(dict.fromkeys(entry.reason or "no value" for entry in lost))
        what = f"{len(lost)} control wells have no value ({words})"
        yield QualityFlag("control-lost", Verdict.WARN, _names(e.well for e in lost), what, "image or score them again")


def _patients_apart(
    series: Sequence[_Series], wells: Sequence[WellValue], limits: QualityLimits
) -> Iterator[QualityFlag]:
    """Viabilities in percent relate to the median of all untreated controls of the plate: say where that misleads."""
    if len(series) < 2:
        return
    overall = statistics.median(_values(wells, NEGATIVE).values()) if _values(wells, NEGATIVE) else 0.0
    for one in series:
        middle = one.figures.negative_median
        if middle is None or overall <= 0 or abs(middle / overall - 1) <= limits.patient_level:
            continue
        what = f"{one.named}its untreated controls lie at {middle:.3g}, all of the plate at {overall:.3g}"
        do = "relate this patient's wells to its own controls before comparing patients"
        yield QualityFlag("patient-level", Verdict.WARN, _names(one.negative), what, do)
    own = {one.patient for one in series}
    orphans = [
        e for e in wells if e.treatment.role is WellRole.SAMPLE and (e.treatment.patient or "without a name") not in own
    ]
    if orphans:
        patients = ", ".join(sorted({entry.treatment.patient or "without a name" for entry in orphans}))
        what = f"patient {patients} has no untreated control of its own"
        do = "read its viabilities as relative to other patients' controls"
        yield QualityFlag("patient-without-controls", Verdict.WARN, _names(e.well for e in orphans), what, do)


def _edge(series: Sequence[_Series], wells: Sequence[WellValue]) -> EdgeRatio | None:
    """Over all series, each relative to its own median; excluded wells still say how large the plate is."""
    relative = {well: value for one in series for well, value in _relative(one).items()}
    return edge_ratio(relative, plate_format(entry.well for entry in wells))


def _edge_flags(found: EdgeRatio | None, series: Sequence[_Series], limits: QualityLimits) -> Iterator[QualityFlag]:
    if found is None or limits.edge_low <= found.ratio <= limits.edge_high:
        return
    wells = _names(well for one in series for well in one.negative)
    what = f"untreated controls on the edge are at {100 * found.ratio:.0f} % of the inner ones"
    if found.beyond_chance:
        do = "leave edge wells empty or fill them with medium; do not compare edge with inner wells"
        yield QualityFlag("edge-effect", Verdict.WARN, wells, what, do)
    else:
        what += f", which {found.n_edge} and {found.n_inner} wells of this spread can be by chance"
        do = "spread more untreated controls over edge and inner wells"
        yield QualityFlag("edge-effect", Verdict.UNKNOWN, wells, what, do)


def _left_on_edge(found: EdgeRatio | None, wells: Sequence[WellValue], limits: QualityLimits) -> dict[WellId, float]:
    """The part of its value that each untreated control on the edge keeps; none without an edge effect worth the name.

    Only of untreated controls: of treated wells nobody measured it.
    """
    if (
        found is None
        or not found.beyond_chance
        or found.ratio <= 0
        or limits.edge_low <= found.ratio <= limits.edge_high
    ):
        return {}
    plate = plate_format(entry.well for entry in wells)
    controls = (entry.well for entry in wells if entry.treatment.role is NEGATIVE)
    return {well: found.ratio for well in controls if is_edge(well, plate)}


def _relative(series: _Series) -> dict[WellId, float]:
    middle = series.figures.negative_median
    return {} if middle is None or middle <= 0 else {well: value / middle for well, value in series.negative.items()}


def _trends(series: Sequence[_Series], wells: Sequence[WellValue], limits: QualityLimits) -> Iterator[QualityFlag]:
    """Drift over the run, gradients over rows and columns: among wells that were treated alike and mostly live."""
    highest = max((one.figures.negative_median or 0.0 for one in series), default=0.0)
    groups: list[list[tuple[WellValue, float]]] = []
    for group in _treated_alike(wells):
        middle = statistics.median(value for _, value in group)
        if len(group) > 1 and middle > 0 and middle >= highest / 2:
            groups.append([(entry, value / middle) for entry, value in group])
    for code, words, position in _POSITIONS:
        placed = [[(p, v) for e, v in group if (p := position(e)) is not None] for group in groups]
        found = trend([group for group in placed if len(group) > 1])
        if found is None or abs(found.change) < limits.trend_change or abs(found.z) < limits.trend_z:
            continue
        what = f"viability of wells treated alike changes by {100 * found.change:+.0f} % {words} (z {found.z:.1f})"
        names = _names(e.well for group in groups for e, _ in group)
        yield QualityFlag(code, Verdict.WARN, names, what, "randomise the layout; shorten the run or the way")


def _order(entry: WellValue) -> float | None:
    return entry.order


def _row(entry: WellValue) -> float | None:
    return entry.well.row


def _column(entry: WellValue) -> float | None:
    return entry.well.column


_POSITIONS: tuple[tuple[str, str, Callable[[WellValue], float | None]], ...] = (
    ("acquisition-drift", "from the first imaged to the last", _order),
    ("row-gradient", "from the top row to the bottom row", _row),
    ("column-gradient", "from the first column to the last", _column),
)


# -- flags on wells ----------------------------------------------------------------------------------------------------


def _treated_alike(wells: Sequence[WellValue]) -> list[list[tuple[WellValue, float]]]:
    """Wells with a value, grouped by patient and treatment; controls of one role and patient belong together."""
    groups: dict[tuple[object, ...], list[tuple[WellValue, float]]] = {}
    for entry in wells:
        value, treatment = known(entry.value), entry.treatment
        if value is None or (treatment.role is WellRole.SAMPLE and treatment.compound is None):
            continue  # samples of which nothing is said are not replicates of each other
        drug = (treatment.compound, treatment.dose_um) if treatment.role is WellRole.SAMPLE else ()
        groups.setdefault((treatment.role, treatment.patient, *drug), []).append((entry, value))
    return list(groups.values())


def _outliers(
    wells: Sequence[WellValue], series: Sequence[_Series], edge: Mapping[WellId, float], limits: QualityLimits
) -> Iterator[QualityFlag]:
    """Wells unlike their replicates; `edge` holds what an edge effect leaves of a well's value, and is allowed for."""
    entries = {str(entry.well): entry for entry in wells}
    groups = [{str(e.well): v / edge.get(e.well, 1.0) for e, v in group} for group in _treated_alike(wells)]
    level = max((one.figures.negative_median or 0.0 for one in series), default=0.0)
    found = deviants(groups, limits.smallest_spread * max(level, 0.0), limits.outlier_z)
    if found is None:
        what = "no well has enough replicates on this plate to tell an outlier"
        yield QualityFlag("outliers-unknown", Verdict.UNKNOWN, (), what, "give each dose 3 replicates")
    for one in found or ():
        entry = entries[one.well]
        control = entry.treatment.role in (NEGATIVE, POSITIVE)
        code = "bad-control" if control else "replicates-differ" if one.n == 2 else "outlier"
        what = (
            f"{one.well} is at {entry.value:.3g}, its {one.n} replicates' median at {one.median:.3g} (z {one.z:+.1f})"
        )
        what += ", the edge effect allowed for" if entry.well in edge else ""
        do = "look at its images; exclude it by hand with a reason if they show why"
        yield QualityFlag(code, Verdict.WARN, (one.well,), what, do)


def _excluded(wells: Sequence[WellValue], excluded: frozenset[str]) -> Iterator[QualityFlag]:
    names = _names(entry.well for entry in wells if str(entry.well) in excluded)
    if names:
        what = f"{len(names)} wells were excluded by hand and enter no figure"
        yield QualityFlag("excluded", Verdict.PASS, names, what, "see the audit trail for who and why")


def _too_many(
    well_flags: Sequence[QualityFlag], wells: Sequence[WellValue], limits: QualityLimits
) -> Iterator[QualityFlag]:
    doubted = {well for flag in well_flags if flag.verdict in (Verdict.WARN, Verdict.FAIL) for well in flag.wells}
    n_wells = sum(entry.treatment.role is not WellRole.EMPTY for entry in wells)
    if len(doubted) > limits.flagged_share * n_wells:
        what = f"{len(doubted)} of {n_wells} wells carry a flag of their own"
        do = "look for one cause: stain, focus, seeding"
        yield QualityFlag("many-flagged-wells", Verdict.WARN, tuple(sorted(doubted)), what, do)


# -- the verdict -------------------------------------------------------------------------------------------------------


def _overall(flags: Sequence[QualityFlag], series: Sequence[_Series]) -> Verdict:
    verdicts = {flag.verdict for flag in flags}
    if Verdict.FAIL in verdicts:
        return Verdict.FAIL
    if all(one.figures.z_prime is None for one in series):
        return Verdict.UNKNOWN
    missing = any(one.figures.z_prime is None for one in series)
    return Verdict.WARN if Verdict.WARN in verdicts or missing else Verdict.PASS


def _reasons(
    flags: Sequence[QualityFlag], verdict: Verdict, figures: ControlFigures, edge: float | None
) -> tuple[str, ...]:
    """What speaks against the plate, worst first; for one that passes, the figures that speak for it."""
    if verdict is not Verdict.PASS:
        order = (Verdict.FAIL, Verdict.UNKNOWN, Verdict.WARN)
        return tuple(flag.what for kind in order for flag in flags if flag.verdict is kind)
    words = [f"robust Z' {figures.z_prime:.2f}"]
    if figures.control_cv is not None:
        words.append(f"control CV {figures.control_cv:.0f} %")
    if edge is not None:
        words.append(f"edge/inner {edge:.2f}")
    return (", ".join(words),)


def _names(wells: Iterable[WellId]) -> tuple[str, ...]:
    return tuple(str(well) for well in sorted(wells))
