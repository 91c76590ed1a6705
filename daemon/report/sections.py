"""The report's running order: every section once, as data that the HTML and the PDF both walk.

A new section is one function here and one row in BEFORE_PLATES, PLATE_SECTIONS, COMPOUND_SECTIONS or AFTER_PLATES.
"""

from collections.abc import Iterator
from typing import Literal

from spheroidd.daemon.analysis.curves import CurveOfPlate
from spheroidd.daemon.report import captions, tables
from spheroidd.daemon.report import patients as across
from spheroidd.daemon.report import wording as words
from spheroidd.daemon.report.content import MOST_SERIES, PlateContent
from spheroidd.daemon.report.controls import controls_strip
from spheroidd.daemon.report.curves import HEIGHT as TALL
from spheroidd.daemon.report.curves import WIDTH as PLOT
from spheroidd.daemon.report.curves import curve_plot
from spheroidd.daemon.report.document import (
    Block,
    Chapter,
    CompoundContent,
    FactsBlock,
    FigureBlock,
    KeyFigures,
    Note,
    Notice,
    Report,
    Section,
    VerdictBox,
    shown,
)
from spheroidd.daemon.report.drawing import Drawing, enlarged
from spheroidd.daemon.report.forest import forest
from spheroidd.daemon.report.heatmap import SHEET, plate_maps
from spheroidd.daemon.report.sim_depth import depth_plot

MOST_DOSES = 27  # rows for which a compound's page has room below three curves
# Of a compound's page, in points: what its heading, three captions and the head of its IC50s leave; a curve's IC50s;
# the pictures of a curve's doses; the heading of the table of doses, and one of its rows.
COMPOUND_POINTS, FIT_POINTS, STRIP_POINTS, DOSES_POINTS, ROW_POINTS = 500.0, 24.0, 76.0, 80.0, 12.5
_LARGE = {1: 0.7, 2: 0.96, 3: 0.96}  # of the width that there is for a plot: a lone one leaves room for its tables
_LARGE_ABOVE_PICTURES = 0.5  # of a lone one
ENOUGH_TO_COMPARE = 3  # IC50s on one axis: two stand side by side in the table already


def _overview(report: Report) -> list[Block]:
    """All plates in one table, and all their IC50s on one axis; nothing for a report on one plate."""
    if len(report.plates) < 2:
        return []
    sheets = forest(report.curves, with_plate=True)
    anchors = [_anchor(number) for number in range(len(report.plates))]
    return [tables.overview_table(report.plates, anchors), *_figure(sheets, captions.forest())]


def _across_patients(report: Report) -> list[Block]:
    found = across.patients_rows(report.curves)
    return [across.patients_table(found)] if found else []


def _opening(plate: PlateContent) -> list[Block]:
    quality = plate.quality
    reasons = tuple(words.sentence(reason) for reason in quality.reasons)
    return [
        Note(tables.plate_line(plate)),
        *([Notice("Provisional", plate.provisional)] if plate.provisional else []),
        VerdictBox(quality.verdict, words.VERDICTS[quality.verdict], reasons),
        KeyFigures(tuple(tables.key_figures(quality))),
    ]


def _maps(plate: PlateContent) -> list[Block]:
    return [FigureBlock(tuple(plate_maps(plate.entries)), captions.maps(plate))]


def _controls(plate: PlateContent) -> list[Block]:
    strip = controls_strip(plate.imaged, plate.quality)
    if strip is None:
        return [Note("No control well of this plate has a figure.")]
    return [FigureBlock((strip,), captions.controls(plate))]


def _dose_response(plate: PlateContent) -> list[Block]:
    if not plate.curves:
        return [Note("No well of this plate holds a compound at a dose.")]
    sheets = forest(plate.curves) if len(plate.curves) >= ENOUGH_TO_COMPARE else []
    plots = tuple(curve_plot(curve) for curve in plate.curves)
    return [
        tables.ic50_table(plate.curves, with_patient=bool(plate.patients)),
        *_figure(sheets, captions.forest()),
        FigureBlock(plots, captions.curves(plate), across=3),
    ]


def _example_images(plate: PlateContent) -> list[Block]:
    if not plate.pictures and not plate.unread:
        return [Note("No scored well whose images could be shown.")]
    pictures = [FigureBlock(plate.pictures, captions.pictures(plate), across=2)] if plate.pictures else []
    return [*pictures, *(Note(f"Not shown: {line}") for line in plate.unread)]


def _series(plate: PlateContent) -> list[Block]:
    """Of a plate of many curves the compounds' pages have them."""
    if len(plate.curves) > MOST_SERIES:
        return [Note(captions.SERIES_ELSEWHERE)] if plate.series else []
    if not plate.series:
        return []
    return [
        FigureBlock(tuple(one.drawing for one in plate.series), captions.series(len(plate.series), len(plate.curves)))
    ]


def _stripes(plate: PlateContent) -> list[Block]:
    plot = depth_plot(plate.stripes)
    if plot is None:
        return []
    pictures = [FigureBlock(plate.sim_pictures, captions.sim_pictures(), across=2)] if plate.sim_pictures else []
    return [*pictures, FigureBlock((plot,), captions.stripes(plate.stripes))]


def _findings(plate: PlateContent) -> list[Block]:
    if not plate.quality.flags:
        return [Note("Nothing stands out in the images or the figures of this plate.")]
    return [tables.finding_table(plate.quality.flags)]


def _wells(plate: PlateContent) -> list[Block]:
    return [tables.well_table(plate.imaged)]


def _provenance(plate: PlateContent) -> list[Block]:
    return [Note(f"Of plate {plate.name}"), FactsBlock(plate.facts)]


def _compound_curves(compound: CompoundContent) -> list[Block]:
    """The more curves there are, the smaller each is drawn."""
    plots = tuple(
        enlarged(curve_plot(curve, with_plate=compound.with_plate), _width(compound) / PLOT)
        for curve in compound.curves
    )
    return [FigureBlock(plots, captions.compound(compound), across=_across(compound))]


def _across(compound: CompoundContent) -> Literal[1, 2, 3]:
    n = len(compound.curves)
    return 1 if n == 1 else 2 if n == 2 else 3


def _width(compound: CompoundContent) -> float:
    """How wide each of a compound's curves is drawn."""
    across = _across(compound)
    share = _LARGE_ABOVE_PICTURES if across == 1 and compound.series else _LARGE[across]
    return SHEET / across * share


def _compound_fits(compound: CompoundContent) -> list[Block]:
    return [tables.compound_table(compound)]


def _compound_doses(compound: CompoundContent) -> list[Block]:
    """The table, where it has room below three curves, or below the curves and their pictures."""
    table, room = tables.dose_table(compound), MOST_DOSES
    if strips := _strips(compound):
        room = int((_left(compound) - strips * STRIP_POINTS - DOSES_POINTS) / ROW_POINTS)
    return [table] if len(table.rows) <= room else []


def _compound_series(compound: CompoundContent) -> list[Block]:
    shown = compound.series[: _strips(compound)]
    return [FigureBlock(shown, captions.series(len(shown), len(compound.curves)))] if shown else []


def _strips(compound: CompoundContent) -> int:
    """How many curves' doses can be shown in pictures, so that a compound keeps to its page."""
    return max(0, min(len(compound.series), int(_left(compound) / STRIP_POINTS)))


def _left(compound: CompoundContent) -> float:
    """What a compound's curves and IC50s leave of its page for pictures, in points."""
    across = _across(compound)
    plots = -(-len(compound.curves) // across) * _width(compound) * TALL / PLOT
    return COMPOUND_POINTS - plots - len(compound.curves) * FIT_POINTS


def _this_report(report: Report) -> list[Block]:
    return [FactsBlock(report.facts)]


BEFORE_PLATES: tuple[Section[Report], ...] = (
    Section("Overview", _overview),
    Section("Across patients", _across_patients),
)
PLATE_SECTIONS: tuple[Section[PlateContent], ...] = (
    Section("", _opening),
    Section("The plate", _maps),
    Section("Controls", _controls),
    Section("Dose response", _dose_response),
    Section("Example images", _example_images),
    Section("Doses in pictures", _series),
    Section("Structured illumination", _stripes),
    Section("Findings", _findings),
    Section("Wells", _wells),
    Section("Provenance", _provenance),
)
COMPOUND_SECTIONS: tuple[Section[CompoundContent], ...] = (
    Section("", _compound_curves),
    Section("Doses in pictures", _compound_series),
    Section("IC50s", _compound_fits),
    Section("Doses", _compound_doses),
)
AFTER_PLATES: tuple[Section[Report], ...] = (Section("This report", _this_report),)


def chapters(report: Report) -> Iterator[Chapter]:
    """What comes before the plates, each plate, what comes after, and each compound where they have pages."""
    yield Chapter("summary", "", shown(BEFORE_PLATES, report))
    for number, plate in enumerate(report.plates):
        heading = f"Plate {plate.name}" if len(report.plates) > 1 else ""
        yield Chapter(_anchor(number), heading, shown(PLATE_SECTIONS, plate))
    yield Chapter("this-report", "", shown(AFTER_PLATES, report))
    if report.compound_pages:
        for number, compound in enumerate(_compounds(report)):
            sections = shown(COMPOUND_SECTIONS, compound)
            yield Chapter(f"compound-{number + 1}", compound.name, sections, page_of_its_own=True)


def _compounds(report: Report) -> Iterator[CompoundContent]:
    """Each compound of the report with its curves, in the order in which they first come."""
    found: dict[str, list[CurveOfPlate]] = {}
    for curve in report.curves:
        found.setdefault(curve.compound, []).append(curve)
    for name, curves in found.items():
        series = tuple(one.drawing for plate in report.plates for one in plate.series if one.compound == name)
        yield CompoundContent(name, tuple(curves), with_plate=len(report.plates) > 1, series=series)


def _anchor(number: int) -> str:
    return f"plate-{number + 1}"


def _figure(drawings: list[Drawing], caption: str) -> list[Block]:
    return [FigureBlock(tuple(drawings), caption)] if drawings else []
