"""All IC50s of a plate or of a screen along one axis of doses, so that compounds and patients can be compared."""

from collections.abc import Sequence

from spheroidd.daemon.analysis.curves import CurveOfPlate
from spheroidd.daemon.report import wording as words
from spheroidd.daemon.report.axes import Axis, log_axis
from spheroidd.daemon.report.curves import tested_doses
from spheroidd.daemon.report.drawing import GREY, NAVY, PALE, RULE, Box, Dot, Drawing, Line, Path, Shape, Text
from spheroidd.protocols.dose import CurveStatus

WIDTH, RIGHT, ROW, TOP = 482.0, 140.0, 10.5, 4.0
NARROW, WIDE, LETTER = 40.0, 150.0, 3.1  # room for names, and what a letter takes of it
ROWS_A_SHEET = 16  # a sheet that a page has no room for leaves less than a third of it blank
BELOW = (CurveStatus.CENSORED_LOW, CurveStatus.ALL_DEAD)


def forest(curves: Sequence[CurveOfPlate], *, with_plate: bool = False) -> list[Drawing]:
    """One row for each curve, compounds together; empty where no curve has a dose.

    A dot with its interval where the IC50 is known (hollow where only about), an arrow where it lies outside the
    doses, words where there is none.
    """
    doses = [dose for curve in curves for dose in tested_doses(curve)]
    if not doses:
        return []
    longest = max(len(_name(curve, with_plate)) for curve in curves)
    left = min(max(NARROW, LETTER * longest + 10), WIDE)
    axis = log_axis(min(doses) / 1.6, max(doses) * 1.6, left, WIDTH - RIGHT)
    first = {curve.compound: place for place, curve in reversed(list(enumerate(curves)))}
    ordered = sorted(curves, key=lambda curve: (first[curve.compound], curve.patient or "", curve.plate))
    rows = -(-len(ordered) // -(-len(ordered) // ROWS_A_SHEET))  # as many on each sheet
    sheets = [ordered[at : at + rows] for at in range(0, len(ordered), rows)]
    return [_sheet(sheet, axis, with_plate) for sheet in sheets]


def _sheet(curves: Sequence[CurveOfPlate], axis: Axis, with_plate: bool) -> Drawing:
    bottom = TOP + ROW * len(curves)
    shapes: list[Shape] = []
    compound = None
    shaded = False
    for place, curve in enumerate(curves):
        shaded = shaded if curve.compound == compound else not shaded
        compound = curve.compound
        y = TOP + ROW * (place + 0.5)
        if shaded:
            shapes.append(Box(0, y - ROW / 2, WIDTH, ROW, fill="#f6f7f9"))
        shapes += _row(curve, axis, y, with_plate)
    return Drawing(WIDTH, bottom + 22, "IC50 of each compound and patient", (*shapes, *_axis(axis, bottom)))


def _axis(axis: Axis, bottom: float) -> list[Shape]:
    shapes: list[Shape] = [Line(axis.start, bottom, axis.stop, bottom, GREY)]
    for value, name in axis.ticks:
        at = axis.at(value)
        shapes += [Line(at, TOP, at, bottom + 2, RULE, 0.3), Text(at, bottom + 9, name, 5.5, "middle", GREY)]
    return [*shapes, Text((axis.start + axis.stop) / 2, bottom + 18, "IC50, µM", 6, "middle", GREY)]


def _name(curve: CurveOfPlate, with_plate: bool) -> str:
    parts = (curve.compound, curve.patient, curve.plate if with_plate else None)
    return words.shortened(" · ".join(part for part in parts if part), int((WIDE - 10) / LETTER))


def _row(curve: CurveOfPlate, axis: Axis, y: float, with_plate: bool) -> list[Shape]:
    doses, found = tested_doses(curve), words.known_ic50(curve.fit)
    said = words.ic50(curve.fit, doses)
    if found is not None:
        said += f", {words.interval(found.low_um, found.high_um)}"
    shapes: list[Shape] = [
        Text(axis.start - 8, y + 2.1, _name(curve, with_plate), 6, "end"),
        Text(axis.stop + 10, y + 2.1, said, 6),
    ]
    if not doses:
        return shapes
    return [*shapes, Line(axis.at(min(doses)), y, axis.at(max(doses)), y, RULE, 0.8), *_mark(curve, axis, y, doses)]


def _mark(curve: CurveOfPlate, axis: Axis, y: float, doses: tuple[float, ...]) -> list[Shape]:
    fit, found = curve.fit, words.known_ic50(curve.fit)
    if found is not None:
        ends = (found.low_um or axis.low, found.um, found.high_um or axis.high)
        low, at, high = (axis.at(min(max(end, axis.low), axis.high)) for end in ends)
        about = fit.status is CurveStatus.APPROXIMATE
        fill, ink = (PALE, NAVY) if about else (NAVY, "#ffffff")
        line = Line(low, y, high, y, NAVY, 1.3)
        return [line, Box(at - 2, y - 2, 4, 4, fill, ink) if found.absolute else Dot(at, y, 2.2, fill, ink, 0.7)]
    if fit.status in BELOW or fit.status is CurveStatus.CENSORED_HIGH:
        below = fit.status in BELOW
        at, way = axis.at(min(doses) if below else max(doses)), -1 if below else 1
        return [Path(((at, y - 2.4), (at + way * 5, y), (at, y + 2.4)), None, 0, NAVY, closed=True)]
    return []
