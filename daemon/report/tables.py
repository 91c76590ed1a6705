"""The report's tables in words: plates, key figures, IC50s, findings, wells."""

import statistics
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from spheroidd.daemon.analysis.curves import CurveOfPlate
from spheroidd.daemon.report import captions
from spheroidd.daemon.report import wording as words
from spheroidd.daemon.report.content import PlateContent
from spheroidd.daemon.report.curves import tested_doses
from spheroidd.daemon.report.document import Column, CompoundContent, Row, TableBlock
from spheroidd.daemon.report.heatmap import trust
from spheroidd.daemon.report.well_entry import WellEntry
from spheroidd.inference.quality.plate_series import LIMITS, QualityLimits
from spheroidd.protocols.dose import CurveStatus
from spheroidd.protocols.quality import PlateQuality, QualityFlag, Verdict
from spheroidd.protocols.result_columns import Place, seen_in
from spheroidd.protocols.results import WellResult


def plate_line(plate: PlateContent) -> str:
    """What kind of plate it is, in a line."""
    compounds = {entry.treatment.compound for entry in plate.imaged if entry.treatment.compound}
    parts = [
        _counted(len(plate.imaged), "imaged well"),
        plate.tally,
        _counted(len(compounds), "compound") if compounds else "no compound",
        _patients(plate.patients),
    ]
    imaged = dict(plate.facts).get("Imaged", words.UNKNOWN)
    return " · ".join(part for part in (*parts, f"imaged {imaged}" if imaged != words.UNKNOWN else "") if part)


def _patients(names: tuple[str, ...]) -> str:
    return f"patient{'s' if len(names) > 1 else ''} {words.listed(names, 6)}" if names else ""


def _counted(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}"


def key_figures(quality: PlateQuality, limits: QualityLimits = LIMITS) -> Iterator[tuple[str, str, str]]:
    """Name, value, and what it takes to pass: the figures by which a plate is judged."""
    z_note = f"pass from {limits.z_prime_pass:g}, fail below {limits.z_prime_warn:g}"
    yield "Robust Z'", words.fixed(quality.z_prime, 2), z_note
    yield "Robust SSMD", words.fixed(quality.ssmd, 1), "distance of the controls over their spread"
    cv = words.fixed(quality.control_cv, 1, " %")
    yield "CV of untreated", cv, f"at most {limits.control_cv:g} %, fail above {limits.control_cv_fail:g} %"
    yield "Edge / inner", words.fixed(quality.edge_ratio, 2), f"{limits.edge_low:g} to {limits.edge_high:g}"
    untreated = f"median {words.number(quality.negative_median)}"
    yield "Untreated wells", str(quality.n_negative), untreated if quality.negative_median is not None else "none"
    killed = f"median {words.number(quality.positive_median)}"
    yield "Killed wells", str(quality.n_positive), killed if quality.positive_median is not None else "none"


OVERVIEW_COLUMNS = (
    Column("Plate", "name", 80),
    Column("Verdict", "text", 92),
    Column("Wells", "text", 120),
    Column("Robust Z'", "text", 42),
    Column("CV of untreated", "text", 56),
    Column("Edge / inner", "text", 46),
    Column("IC50 known", "text", 46),
)


def overview_table(plates: Iterable[PlateContent], anchors: Iterable[str]) -> TableBlock:
    """One row for each plate of a report on several, which leads to the plate's chapter."""
    rows = (Row(_overview_cells(plate), link=anchor) for plate, anchor in zip(plates, anchors, strict=True))
    return TableBlock(captions.overview(), OVERVIEW_COLUMNS, tuple(rows))


def _overview_cells(plate: PlateContent) -> tuple[str, ...]:
    known = sum(words.known_ic50(curve.fit) is not None for curve in plate.curves)
    return (
        plate.name,
        words.VERDICTS[plate.quality.verdict] + (", provisional" if plate.provisional else ""),
        plate.tally,
        words.fixed(plate.quality.z_prime, 2),
        words.fixed(plate.quality.control_cv, 1, " %"),
        words.fixed(plate.quality.edge_ratio, 2),
        f"{known} of {len(plate.curves)}",
    )


class Ic50Row(NamedTuple):
    """One curve in the table."""

    compound: str
    patient: str
    numbers: tuple[str, ...]
    said: str


IC50_COLUMNS = (
    Column("IC50, relative", "number", 52),
    Column("95 %, µM", "number", 58),
    Column("IC50, absolute", "number", 48),
    Column("95 %, µM", "number", 58),
    Column("Hill", "number", 24),
    Column("Top", "number", 27),
    Column("Bottom", "number", 31),
    Column("AUC", "number", 27),
    Column("E max", "number", 28),
    Column("n", "number", 17),
    Column("p", "number", 30),
)
_ROOM = 482 - sum(column.width for column in IC50_COLUMNS)  # for the names, of the width of a page's text


def _headed(heads: Sequence[str]) -> tuple[Column, ...]:
    """The columns of a curve's figures behind those of names, which share the room that is left."""
    return (*(Column(head, "name", _ROOM / len(heads)) for head in heads), *IC50_COLUMNS)


def ic50_table(found: Iterable[CurveOfPlate], *, with_patient: bool) -> TableBlock:
    """The curves of a plate; with a column of patients where its wells have any."""
    heads = ("Compound", "Patient") if with_patient else ("Compound",)
    rows = (
        Row((row.compound, *((row.patient,) if with_patient else ()), *row.numbers), note=row.said)
        for row in ic50_rows(found)
    )
    return TableBlock(captions.ic50_table(), _headed(heads), tuple(rows), note_head="What is known")


def compound_table(compound: CompoundContent) -> TableBlock:
    """The curves of one compound: whose cells, on which plate, and what is known."""
    heads = ("Patient", "Plate") if compound.with_plate else ("Patient",)
    rows = (
        Row((row.patient, *((curve.plate,) if compound.with_plate else ()), *row.numbers), note=row.said)
        for curve, row in zip(compound.curves, ic50_rows(compound.curves), strict=True)
    )
    return TableBlock(captions.compound_fits(), _headed(heads), tuple(rows), note_head="What is known")


DOSE_COLUMNS = (
    Column("Dose", "text", 60),
    Column("Wells", "number", 30),
    Column("Median, %", "number", 45),
    Column("Lowest", "number", 40),
    Column("Highest", "number", 40),
    Column("Which wells", "words", 160),
)


def dose_table(compound: CompoundContent) -> TableBlock:
    """The responses behind one compound's curves, dose by dose; wells that take no part are named with the reason."""
    heads = ("Patient", "Plate") if compound.with_plate else ("Patient",)
    columns = (*(Column(head, "name", 60) for head in heads), *DOSE_COLUMNS)
    rows = [
        Row((curve.patient or words.UNKNOWN, *((curve.plate,) if compound.with_plate else ()), *cells))
        for curve in compound.curves
        for cells in _doses_of(curve)
    ]
    return TableBlock(captions.doses(), columns, tuple(rows))


def _doses_of(curve: CurveOfPlate) -> Iterator[tuple[str, ...]]:
    groups = [(0.0, list(zip(curve.control_wells, curve.control_responses, strict=True)))]
    points = list(zip(curve.doses_um, curve.wells, curve.responses, curve.excluded, strict=True))
    for dose_um in sorted({point[0] for point in points} | {missing.dose_um for missing in curve.missing}):
        groups.append(
            (dose_um, [(well, value) for dose, well, value, out in points if dose == dose_um and out is None])
        )
    left_out = [(dose, f"{well} excluded: {out}") for dose, well, _, out in points if out is not None]
    left_out += [(0.0, f"{well} excluded: {why}") for well, _, why in curve.excluded_controls]
    left_out += [(one.dose_um, f"{one.well} without a figure: {one.reason}") for one in curve.missing]
    scale = 100.0 if curve.metric == "v_count" else 1.0
    for dose_um, wells in groups:
        values = [scale * value for _, value in wells]
        said = [*(", ".join(well for well, _ in wells),), *(why for dose, why in left_out if dose == dose_um)]
        known = (statistics.median(values), min(values), max(values)) if values else (None, None, None)
        yield (
            words.dose(dose_um) if dose_um else "untreated",
            str(len(values)),
            *(words.fixed(value) for value in known),
            "; ".join(part for part in said if part) or words.UNKNOWN,
        )


def ic50_rows(found: Iterable[CurveOfPlate]) -> Iterator[Ic50Row]:
    """One row for each curve; a figure that is not known is a dash, a censored IC50 says on which side it lies.

    Slope and plateaus are told where an IC50 is: beyond the tested doses they are guesses.
    """
    for curve in found:
        fit = curve.fit
        known = words.known_ic50(fit)
        instead = words.censored(fit, tested_doses(curve)) if known is None else words.UNKNOWN
        about = "about " if fit.status is CurveStatus.APPROXIMATE else ""
        shape = (fit.hill, 2), (fit.top, 1), (fit.bottom, 1)
        numbers = (
            instead if fit.ic50_rel is None else f"{about}{words.estimate(fit.ic50_rel)} µM",
            words.interval(fit.ic50_rel_lo, fit.ic50_rel_hi),
            words.UNKNOWN if fit.ic50_abs is None else f"{about}{words.estimate(fit.ic50_abs)} µM",
            words.interval(fit.ic50_abs_lo, fit.ic50_abs_hi),
            *(words.fixed(value if known else None, places) for value, places in shape),
            words.fixed(fit.auc),
            words.fixed(fit.e_max),
            str(fit.n),
            words.probability(fit.p_effect),
        )
        yield Ic50Row(curve.compound, curve.patient or words.UNKNOWN, numbers, _said(curve))


def _said(curve: CurveOfPlate) -> str:
    fit = curve.fit
    plain = fit.status is CurveStatus.OK and fit.ic50_rel is not None
    head = fit.words.said if plain or not fit.reason else fit.reason
    excluded = sum(out is not None for out in curve.excluded)
    parts = (
        head,
        *fit.warnings,
        f"{_counted(excluded, 'well')} excluded" if excluded else "",
        f"{_counted(len(curve.missing), 'well')} without a figure" if curve.missing else "",
        "provisional" if curve.provisional else "",
    )
    return words.sentence("; ".join(part for part in parts if part))


FINDING_COLUMNS = (
    Column("Finding", "name", 74),
    Column("Weight", "text", 38),
    Column("Wells", "name", 82),
    Column("What was found", "text", 160),
    Column("What to do", "words", 128),
)
_ALIKE = 6  # findings of one kind that are told one by one
_WEIGHTS = (Verdict.FAIL, Verdict.WARN, Verdict.UNKNOWN, Verdict.PASS)


def finding_table(flags: Sequence[QualityFlag]) -> TableBlock:
    """The findings on a plate."""
    return TableBlock(captions.findings(), FINDING_COLUMNS, tuple(Row(cells) for cells in finding_rows(flags)))


def finding_rows(flags: Sequence[QualityFlag]) -> Iterator[tuple[str, str, str, str, str]]:
    """The findings, gravest first; where many wells have one of a kind they share a row."""
    kinds: dict[tuple[int, str], list[QualityFlag]] = {}
    for flag in flags:
        kinds.setdefault((_WEIGHTS.index(flag.verdict), flag.code), []).append(flag)
    for (_, code), alike in sorted(kinds.items(), key=lambda kind: kind[0][0]):
        for flag in alike if len(alike) <= _ALIKE else alike[:1]:
            wells = flag.wells if len(alike) <= _ALIKE else tuple(dict.fromkeys(w for f in alike for w in f.wells))
            what = (
                flag.what if len(alike) <= _ALIKE else f"{len(alike)} findings, listed beside their wells; {flag.what}"
            )
            yield code, flag.verdict.value, words.listed(wells), words.sentence(what), words.sentence(flag.do)


_FIGURES = seen_in(Place.REPORT)
_WIDTHS = {"text": 40.0, "integer": 28.0, "number": 36.0, "truth": 28.0}
_WITH_INTERVAL = 58.0
WELL_COLUMNS = (
    Column("Well", "text", 28),
    Column("Treatment", "name", 66),
    Column("Patient", "name", 40),
    *(
        Column(
            shown.title,
            "name" if column.kind == "text" else "number",
            _WITH_INTERVAL if shown.ends else _WIDTHS[column.kind],
        )
        for column, shown in _FIGURES
    ),
    Column("Notes", "words", 60),
    Column("Slices", "number", 36),
    Column("State, reason, findings", "words", 64),
)
_MAY_BE_LEFT_OUT = ("Patient", "Notes", *(shown.title for _, shown in _FIGURES if not shown.always))


def well_table(entries: Sequence[WellEntry]) -> TableBlock:
    """One row for each stack of each imaged well; a column that nothing is known of in any row is left out."""
    rows = [(trust(entry), _well_cells(entry, result)) for entry in entries for result in entry.results]
    shown = [
        place
        for place, column in enumerate(WELL_COLUMNS)
        if column.head not in _MAY_BE_LEFT_OUT or any(cells[place] != words.UNKNOWN for _, cells in rows)
    ]
    return TableBlock(
        captions.wells(),
        tuple(WELL_COLUMNS[place] for place in shown),
        tuple(Row(tuple(cells[place] for place in shown), state=word) for word, cells in rows),
    )


def _well_cells(entry: WellEntry, result: WellResult) -> tuple[str, ...]:
    slices = f"{result.n_slices_acked}/{result.n_slices_expected}" if result.n_slices_expected else words.UNKNOWN
    return (
        f"{entry.well}" + (f" ({result.stack + 1})" if len(entry.results) > 1 else ""),
        words.treatment(entry.treatment),
        entry.treatment.patient or words.UNKNOWN,
        *(column.in_words(result, unit=False, unknown=words.UNKNOWN) for column, _ in _FIGURES),
        words.notes(entry.annotations),
        slices,
        entry.state_in_words,
    )
