"""The report's figures: whatever the numbers, every shape stands on the sheet and every text is escaped."""

import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from spheroidd.daemon.analysis.curves import CurveOfPlate, CurvePoints, fit_points
from spheroidd.daemon.catalog.rows import Exclusion
from spheroidd.daemon.report import drawing, series
from spheroidd.daemon.report import fonts as report_fonts
from spheroidd.daemon.report import forest as report_forest
from spheroidd.daemon.report import heatmap as report_heatmap
from spheroidd.daemon.report import images as report_images
from spheroidd.daemon.report import wording as words
from spheroidd.daemon.report.axes import linear_axis, log_axis
from spheroidd.daemon.report.controls import controls_strip
from spheroidd.daemon.report.curves import curve_plot
from spheroidd.daemon.report.drawing import Drawing, svg
from spheroidd.daemon.report.pdf_drawing import Figure
from spheroidd.daemon.report.tables import ic50_rows
from spheroidd.daemon.report.well_entry import WellEntry
from spheroidd.protocols.dose import CurveStatus, DoseResponseFit
from spheroidd.protocols.plate import Treatment, WellRole
from spheroidd.protocols.quality import PlateQuality, QualityFlag, Verdict
from spheroidd.protocols.results import WellResult, WellStatus
from spheroidd.protocols.well import WellId
from tests.daemon.report import plates

NAME = 'a < b & "c" > d'


def points(doses, responses, controls=(100.0, 98.0, 102.0), excluded=None, compound="drug") -> CurvePoints:
    n = len(doses)
    return CurvePoints(
        plate="P1",
        patient=None,
        compound=compound,
        metric="v_control",
        doses_um=tuple(doses),
        responses=tuple(responses),
        wells=tuple(f"A{place + 1:02d}" for place in range(n)),
        excluded=tuple(excluded or [None] * n),
        control_responses=tuple(controls),
        control_wells=tuple(f"H{place + 1:02d}" for place in range(len(controls))),
        excluded_controls=(("H09", 55.0, "spilt"),),
        missing=(),
        provisional=False,
    )


def curve_of(*arguments, **options) -> CurveOfPlate:
    return fit_points([points(*arguments, **options)])[0]


def places(figure: Drawing) -> Iterator[tuple[float, float]]:
    for shape in figure.shapes:
        match shape:
            case drawing.Line():
                yield from ((shape.x1, shape.y1), (shape.x2, shape.y2))
            case drawing.Path():
                yield from shape.points
            case _:
                yield (shape.x, shape.y)


def check(figure: Drawing) -> ElementTree.Element:
    """The figure is well-formed, and nothing of it lies off the sheet or nowhere."""
    for x, y in places(figure):
        assert math.isfinite(x)
        assert math.isfinite(y)
        assert -1 <= x <= figure.width + 1
        assert -1 <= y <= figure.height + 1
    return ElementTree.fromstring(svg(figure))


# Axes


@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e9))
@settings(deadline=None)
@example(365141918.0, 1e-06)
def test_a_linear_axis_holds_its_values_between_its_ticks(low, span):
    axis = linear_axis(low, low + span, 0, 100)
    rounding = 1e-6 * max(span, 1e-6 * abs(low))
    assert axis.low <= low + rounding
    assert axis.high >= low + span - rounding
    assert 2 <= len(axis.ticks) <= 12
    assert axis.at(axis.low) == pytest.approx(0, abs=1e-6)
    assert axis.at(axis.high) == pytest.approx(100)


@given(st.floats(-6, 6), st.floats(0, 8))
@settings(deadline=None)
def test_a_dose_axis_has_a_few_ticks_inside(low, decades):
    axis = log_axis(10**low, 10 ** (low + decades), 0, 100)
    assert 1 <= len(axis.ticks) <= 8
    assert all(0 <= axis.at(value) <= 100 for value, _ in axis.ticks)


@pytest.mark.parametrize(
    ("low", "high", "names"),
    [(0, 118, ["0", "25", "50", "75", "100", "125"]), (0, 0.9, ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"])],
)
def test_ticks_are_numbers_that_people_expect(low, high, names):
    assert [name for _, name in linear_axis(low, high, 0, 1).ticks] == names


# Curves

RESPONSES = st.floats(-1e4, 1e6) | st.sampled_from([0.0, 100.0])


@given(st.lists(st.tuples(st.sampled_from([0.0, 1e-4, 0.1, 1.0, 10.0, 1e5]), RESPONSES), max_size=12))
@settings(deadline=None, max_examples=60)
def test_any_curve_can_be_drawn(seen):
    seen.sort()
    curve = curve_of([dose for dose, _ in seen], [value for _, value in seen])
    check(curve_plot(curve))
    for sheet in report_forest.forest([curve, replace(curve, patient="x" * 90)]):
        check(sheet)
    assert len(list(ic50_rows([curve]))) == 1


def fit_of(status: CurveStatus, **numbers: float) -> DoseResponseFit:
    empty = dict.fromkeys(
        ("ic50_rel", "ic50_rel_lo", "ic50_rel_hi", "ic50_abs", "ic50_abs_lo", "ic50_abs_hi", "hill", "top", "bottom")
    )
    return DoseResponseFit(
        "c", status, "", "LL.4", **{**empty, "p_effect": 1e-9, **numbers}, auc=50.0, e_max=5.0, n=9, parameters={}
    )


@pytest.mark.parametrize(
    ("status", "numbers", "said"),
    [
        (CurveStatus.OK, {"ic50_rel": 2.0}, "2.00 µM"),
        (CurveStatus.OK, {"ic50_abs": 2.0}, "2.00 µM (absolute)"),
        (CurveStatus.APPROXIMATE, {"ic50_rel": 0.5}, "about 0.500 µM"),
        (CurveStatus.INACTIVE, {"p_effect": 0.3}, "no effect shown"),
        (CurveStatus.INACTIVE, {"p_effect": None}, "no effect shown"),
        (CurveStatus.INACTIVE, {"p_effect": 9e-4}, "no IC50"),
        (CurveStatus.UNPLACED, {}, "not placed"),
        (CurveStatus.ALL_DEAD, {}, "< 0.1 µM"),
        (CurveStatus.CENSORED_LOW, {}, "< 0.1 µM"),
        (CurveStatus.CENSORED_HIGH, {}, "> 50 µM"),
        (CurveStatus.FAILED, {}, "not known"),
    ],
    ids=str,
)
def test_a_status_becomes_words_and_a_number_only_where_one_is_known(status, numbers, said):
    fit = fit_of(status, **numbers)
    assert words.ic50(fit, (0.1, 5.0, 50.0)) == said
    given = points((0.1, 50), (90, 10))
    curve = CurveOfPlate(**{name: getattr(given, name) for name in CurvePoints.__slots__}, fit=fit)
    row = next(iter(ic50_rows([curve])))
    assert (row.numbers[0] == words.UNKNOWN) == ("(absolute)" in said)
    if not numbers:
        assert row.numbers[1:7] == (words.UNKNOWN,) * 6


@pytest.mark.parametrize("status", [CurveStatus.INACTIVE, CurveStatus.OK, CurveStatus.CENSORED_HIGH], ids=str)
def test_what_is_said_of_a_curve_whose_wells_are_to_come_is_said_so_far(status):
    numbers = {"ic50_rel": 2.0} if status is CurveStatus.OK else {}
    given = {name: getattr(points((0.1, 50), (90, 10)), name) for name in CurvePoints.__slots__}
    for provisional in (True, False):
        curve = CurveOfPlate(**{**given, "provisional": provisional}, fit=fit_of(status, **numbers))
        line = [shape.words for shape in curve_plot(curve).shapes if isinstance(shape, drawing.Text)][1]
        assert line.endswith(", so far") == provisional


def test_excluded_points_are_hollow_and_say_why():
    curve = curve_of([0.1, 1.0, 10.0, 100.0], [99.0, 5.0, 20.0, 8.0], excluded=[None, f"spilt {NAME}", None, None])
    tree = check(curve_plot(curve))
    circles = [e for e in tree.iter() if e.tag == "circle" and e.get("fill") == "none"]
    assert [title.text for circle in circles for title in circle] == [
        "H09, untreated: 55.0, left out of the fit: spilt",
        f"A02, 1 µM: 5.0, left out of the fit: spilt {NAME}",
    ]


def test_the_curve_is_drawn_over_the_tested_doses_only():
    curve = curve_of(plates.DOSES_UM, [100 * plates.share_alive(dose, 1.0) for dose in plates.DOSES_UM])
    lines = [s for s in curve_plot(curve).shapes if isinstance(s, drawing.Path) and s.ink == drawing.NAVY]
    axis = log_axis(min(plates.DOSES_UM), max(plates.DOSES_UM), 41, 150)
    xs = [x for x, _ in lines[0].points]
    assert min(xs) == pytest.approx(axis.at(min(plates.DOSES_UM)))
    assert max(xs) == pytest.approx(axis.at(max(plates.DOSES_UM)))


# Series


def test_a_series_shows_the_middle_well_of_each_dose_after_the_untreated():
    doses = [0.1, 0.1, 0.1, 1.0, 10.0, 10.0]
    curve = curve_of(doses, [90.0, 80.0, 70.0, 50.0, 5.0, 6.0], excluded=[None, None, None, None, None, "spilt"])
    shown = [("untreated", "H01", 100.0), ("0.1 µM", "A02", 80.0), ("1 µM", "A04", 50.0), ("10 µM", "A05", 5.0)]
    assert series.chosen(curve) == shown


def test_a_long_series_goes_from_the_lowest_to_the_highest_dose():
    curve = curve_of([2.0**n for n in range(30)], [50.0] * 30)
    heads = [head for head, _, _ in series.chosen(curve)]
    assert len(heads) == series.MOST
    assert (heads[1], heads[-1]) == ("1 µM", words.dose(2.0**29))


def test_what_cannot_be_read_is_a_crossed_field_and_a_series_has_two_pictures_at_least():
    curve = curve_of([0.1, 1.0], [90.0, 10.0])
    entries = {WellId.parse(well): entry(WellId.parse(well)) for _, well, _ in series.chosen(curve)}
    image = report_images.Projection("488", np.eye(8), (), 1.0)
    seen = {"H01": (image,), "A01": (), "A02": (image, replace(image, channel="561"))}
    (found,) = series.series_of([curve], entries, lambda one: seen[str(one.well)])
    shapes = check_shapes(found.drawing)
    assert sum(isinstance(shape, drawing.Picture) for shape in shapes) == 2
    assert [shape.tip for shape in shapes if isinstance(shape, drawing.Box)] == ["A01: the images cannot be read"]
    assert series.series_of([curve], entries, lambda one: seen[str(one.well)] if str(one.well) != "H01" else ()) == ()


def check_shapes(made: Drawing) -> tuple[drawing.Shape, ...]:
    check(made)
    return made.shapes


# Plates


def result(well: WellId, status: WellStatus, value: float | None) -> WellResult:
    live = None if value is None else value * 3000
    counts = (None, None, None, None, None)
    return WellResult(
        "P1", str(well), 0, status, None, 8, 8, live, None, *counts[:3], value, *counts[:3], None, None, None, None
    )


def entry(well: WellId, status=WellStatus.FINAL, value: float | None = 50.0, flags=(), excluded=None) -> WellEntry:
    return WellEntry(well, plates.sample(NAME, 1.0), (result(well, status, value),), tuple(flags), excluded)


OUTLIER = QualityFlag("outlier", Verdict.WARN, ("A01",), "far from its replicates", "look")
PLATE_WIDE = QualityFlag("edge-effect", Verdict.WARN, ("A01", "A02"), "edges differ", "leave them empty")


@pytest.mark.parametrize(
    ("made", "kind"),
    [
        ({}, "ready"),
        ({"flags": [PLATE_WIDE]}, "ready"),
        ({"flags": [OUTLIER]}, "flagged"),
        ({"status": WellStatus.FAILED, "value": None}, "failed"),
        ({"status": WellStatus.INCOMPLETE, "value": None}, "failed"),
        ({"status": WellStatus.SKIPPED, "value": None}, "skipped"),
        ({"status": WellStatus.ABORTED, "value": None}, "aborted"),
        ({"status": WellStatus.STOPPED, "value": None}, "open"),
        ({"status": WellStatus.PROVISIONAL}, "open"),
        ({"status": WellStatus.QUEUED, "value": None}, "open"),
        ({"flags": [OUTLIER], "excluded": Exclusion("A01", "spilt", "Ada", "2026")}, "excluded"),
    ],
    ids=str,
)
def test_one_word_says_how_a_well_stands(made, kind):
    assert report_heatmap.trust(entry(WellId(0, 0), **made)) == kind


def test_a_well_that_was_skipped_first_and_then_imaged_is_ready():
    well = WellId(0, 0)
    both = (result(well, WellStatus.SKIPPED, None), result(well, WellStatus.FINAL, 50.0))
    assert report_heatmap.trust(WellEntry(well, plates.sample(NAME, 1.0), both)) == "ready"


def test_only_a_failed_well_has_the_colour_of_failure():
    wells = {WellId(0, n): status for n, status in enumerate(WellStatus)}
    sheets = report_heatmap.plate_maps({well: entry(well, status, None) for well, status in wells.items()})
    boxes = [shape for sheet in sheets for shape in sheet.shapes if isinstance(shape, drawing.Box) and shape.tip]
    red = {box.tip.partition(",")[0] for box in boxes if box.fill == drawing.VERMILLION}
    assert red == {str(well) for well, status in wells.items() if status.went_wrong}


@pytest.mark.parametrize("last", ["B03", "C04", "D06", "F08", "H12", "P24", "AF48"])
def test_maps_of_every_format(last):
    wells = [WellId(0, 0), WellId.parse(last)]
    for sheet in report_heatmap.plate_maps({well: entry(well) for well in wells}):
        check(sheet)


def test_a_well_without_a_figure_has_no_colour_of_the_scale_and_is_no_zero():
    known, unknown = WellId(0, 0), WellId(0, 1)
    figures = {known: entry(known, value=0.0), unknown: entry(unknown, WellStatus.FAILED, None)}
    boxes = [s for s in report_heatmap.plate_maps(figures)[0].shapes if isinstance(s, drawing.Box) and s.tip]
    zeros = [box.fill for box in boxes if box.tip.endswith(": 0.0")]
    assert zeros == [report_heatmap.viridis(0.0)] * 2  # of the two maps that show figures
    assert [box.fill for box in boxes if box.tip.startswith("A02: not known")] == [drawing.PALE] * 2


@given(st.floats(-10, 10))
def test_viridis_is_a_colour_whatever_the_share(share):
    assert len(bytes.fromhex(report_heatmap.viridis(share)[1:])) == 3


def test_viridis_ends_where_matplotlib_says():
    assert (report_heatmap.viridis(0), report_heatmap.viridis(1)) == ("#440154", "#fde725")


def test_controls_need_a_figure():
    quality = PlateQuality("P1", "v_control", Verdict.PASS, (), 2, 1, *[None] * 7, ())
    wells = {WellId(0, n): Treatment(role) for n, role in enumerate([WellRole.NEGATIVE_CONTROL] * 3)}
    entries = [WellEntry(w, of, (result(w, WellStatus.FINAL, 90.0 + w.column),)) for w, of in wells.items()]
    strip = controls_strip(entries, quality)
    assert strip is not None
    check(strip)
    assert controls_strip([replace(e, results=()) for e in entries], quality) is None


# Pictures, words, letters


def test_the_chosen_wells_are_controls_and_samples_from_end_to_end():
    samples = [entry(WellId(1, n), value=float(n)) for n in range(12)]
    control = WellEntry(WellId(0, 0), plates.UNTREATED, (result(WellId(0, 0), WellStatus.FINAL, 100.0),))
    failed = entry(WellId(2, 0), WellStatus.FAILED, None)
    chosen = report_images.choose([*samples, control, failed])
    assert chosen[0] is control
    assert [chosen[1].well.column, chosen[-1].well.column] == [11, 0]
    assert len(chosen) == 6
    assert len({one.well for one in chosen}) == 6


@pytest.mark.parametrize(("width_um", "bar_um"), [(100, 20), (24, 5), (400, 100), (0.9, 0.2)])
def test_a_scale_bar_is_a_round_length_that_fits(width_um, bar_um):
    assert report_images.scale_bar_um(width_um) == pytest.approx(bar_um)


def test_outlines_run_around_their_mask():
    shown = np.zeros((40, 60))
    mask = np.zeros((40, 60), bool)
    mask[10:20, 30:50] = True
    found = report_images.Projection("488", shown, report_images._outlines(mask), 0.5)
    xs, ys = zip(*found.outlines[0], strict=True)
    assert (min(xs), max(xs), min(ys), max(ys)) == pytest.approx((30, 50, 10, 20), abs=0.51)
    check(report_images.picture("A01", NAME, [found]))


@given(st.text(max_size=20))
def test_texts_are_escaped_in_figures(text):
    visible = "".join(c for c in text if c.isprintable())
    tree = ElementTree.fromstring(svg(Drawing(10, 10, visible, (drawing.Text(0, 0, visible),))))
    assert "".join(tree.itertext()) == visible


def test_letters_go_to_a_font_that_has_them():
    for text in ("Calcein µM", "Ωμέγα", "薬"):
        assert "".join(piece for piece, _ in report_fonts.runs(text)).replace("?", "") in text
    assert list(report_fonts.runs("Calcein µM – ±")) == [("Calcein µM – ±", report_fonts.PLAIN)]


def test_a_figure_keeps_its_shape_on_a_narrow_page():
    figure = Figure(Drawing(200, 100, "", ()))
    assert figure.wrap(100, 500) == (100, 50)
    assert figure.wrap(400, 500) == (200, 100)
