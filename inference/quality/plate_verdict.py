"""Plate quality control: from the viabilities of one plate to a verdict, its reasons, and flags on wells.

Knows no catalog. Controls come from the same plate, never another, and where several patients share a plate each
patient's wells are judged by that patient's own controls; the plate's figures are then those of the patient whose Z' is
lowest, for a plate is as good as its worst series. Nothing is deleted: a flag names wells and says what to do.
"""

import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence

from spheroidd.inference.quality.control_statistics import MIN_CONTROLS, ControlFigures, known
from spheroidd.inference.quality.plate_series import (
    LIMITS,
    NAMELESS,
    NEGATIVE,
    POSITIVE,
    QualityLimits,
    Series,
    WellValue,
    names_of,
    series_of,
    treated_alike,
    values_of,
)
from spheroidd.inference.quality.position_effects import EdgeRatio, edge_ratio, is_edge, plate_format, trend
from spheroidd.inference.quality.well_flags import doubted_wells, excluded_wells, outliers
from spheroidd.protocols.phrase import all_of, constant, phrase
from spheroidd.protocols.plate import WellRole
from spheroidd.protocols.quality import PlateQuality, QualityFlag, Verdict
from spheroidd.protocols.well import WellId

__all__ = ["LIMITS", "QualityLimits", "WellValue", "judge_plate"]


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
    series = list(series_of(used))
    flags = [flag for one in series for flag in _control_flags(one, limits)]
    flags += _lost_controls(used)
    flags += _patients_apart(series, used, limits)
    edge = _edge(series, wells)
    flags += _edge_flags(edge, series, limits)
    flags += _trends(series, used, limits)
    unlike = list(outliers(used, series, _left_on_edge(edge, wells, limits), limits))
    flags += (flag for flag in unlike if flag.code == "bad-control")  # every other figure of the plate rests on them
    of_wells = [*(flag for flag in unlike if flag.code != "bad-control"), *stack_flags]
    flags += doubted_wells(of_wells, used, limits)
    verdict = _overall(flags, series)
    shown = min(series, key=_by_z_prime).figures
    return PlateQuality(
        plate=plate,
        metric=metric,
        verdict=verdict,
        reasons=_reasons(flags, verdict, shown, edge and edge.ratio),
        n_negative=len(values_of(used, NEGATIVE)),
        n_positive=len(values_of(used, POSITIVE)),
        negative_median=shown.negative_median,
        positive_median=shown.positive_median,
        z_prime=shown.z_prime,
        ssmd=shown.ssmd,
        signal_window=shown.signal_window,
        control_cv=shown.control_cv,
        edge_ratio=edge and edge.ratio,
        flags=(*flags, *of_wells, *excluded_wells(wells, excluded)),
    )


# -- flags on the plate ------------------------------------------------------------------------------------------------


def _control_flags(series: Series, limits: QualityLimits) -> Iterator[QualityFlag]:
    figures, whose = series.figures, series.named
    wells = names_of(series.negative)
    few = min(figures.n_negative, figures.n_positive)
    counts = {"whose": whose, "negative": str(figures.n_negative), "positive": str(figures.n_positive)}
    if few < MIN_CONTROLS:
        what = phrase("controls-too-few", **counts, least=str(MIN_CONTROLS))
        yield QualityFlag("too-few-controls", Verdict.UNKNOWN, wells, what, phrase("do-more-controls"))
    elif figures.separated is False:
        what = phrase("controls-not-separated", whose=whose)
        yield QualityFlag("controls-not-separated", Verdict.FAIL, wells, what, phrase("do-check-map"))
    elif few < limits.few_controls:
        what = phrase("controls-few", **counts)
        yield QualityFlag("few-controls", Verdict.WARN, wells, what, phrase("do-more-controls"))
    if figures.z_prime is not None and figures.z_prime < limits.z_prime_pass:
        fails = figures.z_prime < limits.z_prime_warn
        bound = limits.z_prime_warn if fails else limits.z_prime_pass
        what = phrase("z-prime-low", whose=whose, z=f"{figures.z_prime:.2f}", bound=f"{bound:g}")
        do = phrase("do-repeat-plate" if fails else "do-look-at-controls")
        yield QualityFlag("z-prime", Verdict.FAIL if fails else Verdict.WARN, wells, what, do)
    if figures.control_cv is not None and figures.control_cv > limits.control_cv:
        verdict = Verdict.FAIL if figures.control_cv > limits.control_cv_fail else Verdict.WARN
        what = phrase("control-cv", whose=whose, cv=f"{figures.control_cv:.0f}", bound=f"{limits.control_cv:g}")
        yield QualityFlag("control-cv", verdict, wells, what, phrase("do-bad-control"))
    if figures.n_negative >= MIN_CONTROLS and len(set(series.negative.values())) == 1:
        what = phrase("controls-constant", whose=whose, n=str(figures.n_negative))
        yield QualityFlag("constant-controls", Verdict.WARN, wells, what, phrase("do-different-wells"))


def _lost_controls(wells: Sequence[WellValue]) -> Iterator[QualityFlag]:
    controls = (entry for entry in wells if entry.treatment.role in (NEGATIVE, POSITIVE) and not entry.pending)
    lost = [entry for entry in controls if known(entry.value) is None]
    if lost:
        why = all_of(constant(entry.reason or "no value") for entry in lost)
        what = phrase("controls-lost", n=str(len(lost)), why=why)
        yield QualityFlag("control-lost", Verdict.WARN, names_of(e.well for e in lost), what, phrase("do-image-again"))


def _patients_apart(
    series: Sequence[Series], wells: Sequence[WellValue], limits: QualityLimits
) -> Iterator[QualityFlag]:
    """Viabilities in percent relate to the median of all untreated controls of the plate: say where that misleads."""
    if len(series) < 2:
        return
    overall = statistics.median(values_of(wells, NEGATIVE).values()) if values_of(wells, NEGATIVE) else 0.0
    for one in series:
        middle = one.figures.negative_median
        if middle is None or overall <= 0 or abs(middle / overall - 1) <= limits.patient_level:
            continue
        what = phrase("patient-level", whose=one.named, own=f"{middle:.3g}", all=f"{overall:.3g}")
        yield QualityFlag("patient-level", Verdict.WARN, names_of(one.negative), what, phrase("do-own-controls"))
    own = {one.patient for one in series}
    orphans = [e for e in wells if e.treatment.role is WellRole.SAMPLE and (e.treatment.patient or NAMELESS) not in own]
    if orphans:
        patients = ", ".join(sorted({entry.treatment.patient or NAMELESS for entry in orphans}))
        what, do = phrase("patient-without-controls", patients=patients), phrase("do-read-relative")
        yield QualityFlag("patient-without-controls", Verdict.WARN, names_of(e.well for e in orphans), what, do)


def _edge(series: Sequence[Series], wells: Sequence[WellValue]) -> EdgeRatio | None:
    """Over all series, each relative to its own median; excluded wells still say how large the plate is."""
    relative = {well: value for one in series for well, value in one.relative().items()}
    return edge_ratio(relative, plate_format(entry.well for entry in wells))


def _edge_flags(found: EdgeRatio | None, series: Sequence[Series], limits: QualityLimits) -> Iterator[QualityFlag]:
    if found is None or limits.edge_low <= found.ratio <= limits.edge_high:
        return
    wells = names_of(well for one in series for well in one.negative)
    percent = f"{100 * found.ratio:.0f}"
    if found.beyond_chance:
        what = phrase("edge-effect", percent=percent)
        yield QualityFlag("edge-effect", Verdict.WARN, wells, what, phrase("do-leave-edge"))
    else:
        what = phrase("edge-by-chance", percent=percent, edge=str(found.n_edge), inner=str(found.n_inner))
        yield QualityFlag("edge-effect", Verdict.UNKNOWN, wells, what, phrase("do-spread-controls"))


def _left_on_edge(found: EdgeRatio | None, wells: Sequence[WellValue], limits: QualityLimits) -> dict[WellId, float]:
    """The part of its value that each untreated control on the edge keeps; none without an edge effect worth the name.

    Only of untreated controls: of treated wells nobody measured it.
    """
    if found is None or not found.beyond_chance or found.ratio <= 0:
        return {}
    if limits.edge_low <= found.ratio <= limits.edge_high:
        return {}
    plate = plate_format(entry.well for entry in wells)
    controls = (entry.well for entry in wells if entry.treatment.role is NEGATIVE)
    return {well: found.ratio for well in controls if is_edge(well, plate)}


def _trends(series: Sequence[Series], wells: Sequence[WellValue], limits: QualityLimits) -> Iterator[QualityFlag]:
    """Drift over the run, gradients over rows and columns: among wells that were treated alike and mostly live."""
    highest = max((one.figures.negative_median or 0.0 for one in series), default=0.0)
    groups: list[list[tuple[WellValue, float]]] = []
    for group in treated_alike(wells):
        middle = statistics.median(value for _, value in group)
        if len(group) > 1 and middle > 0 and middle >= highest / 2:
            groups.append([(entry, value / middle) for entry, value in group])
    for code, sentence, position in _POSITIONS:
        placed = [[(p, v) for e, v in group if (p := position(e)) is not None] for group in groups]
        found = trend([group for group in placed if len(group) > 1])
        if found is None or abs(found.change) < limits.trend_change or abs(found.z) < limits.trend_z:
            continue
        what = phrase(sentence, percent=f"{100 * found.change:+.0f}", z=f"{found.z:.1f}")
        names = names_of(e.well for group in groups for e, _ in group)
        yield QualityFlag(code, Verdict.WARN, names, what, phrase("do-randomise"))


def _order(entry: WellValue) -> float | None:
    return entry.order


def _row(entry: WellValue) -> float | None:
    return entry.well.row


def _column(entry: WellValue) -> float | None:
    return entry.well.column


_POSITIONS: tuple[tuple[str, str, Callable[[WellValue], float | None]], ...] = (
    ("acquisition-drift", "drift-of-run", _order),
    ("row-gradient", "drift-of-rows", _row),
    ("column-gradient", "drift-of-columns", _column),
)


# -- the verdict -------------------------------------------------------------------------------------------------------


def _overall(flags: Sequence[QualityFlag], series: Sequence[Series]) -> Verdict:
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
    found = {"z": f"{figures.z_prime:.2f}"}
    if figures.control_cv is not None:
        found["cv"] = f"{figures.control_cv:.0f}"
    if edge is not None:
        found["edge"] = f"{edge:.2f}"
    return (phrase(_FIGURES["cv" in found, "edge" in found], **found),)


_FIGURES = {  # of a control's CV and of the edge
    (True, True): "figures-of-plate",
    (True, False): "figures-without-edge",
    (False, True): "figures-without-cv",
    (False, False): "figure-z-prime",
}


def _by_z_prime(series: Series) -> float:
    return 2.0 if series.figures.z_prime is None else series.figures.z_prime
