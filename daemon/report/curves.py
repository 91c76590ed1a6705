"""One dose-response plot for each compound and patient: points, curve, interval band, controls, IC50."""

import math
from collections.abc import Iterator, Sequence

from spheroidd.daemon.analysis.curves import CurveOfPlate
from spheroidd.daemon.report import wording as words
from spheroidd.daemon.report.axes import Axis, linear_axis, log_axis
from spheroidd.daemon.report.drawing import (
    BLUE,
    GREY,
    INK,
    NAVY,
    RULE,
    VERMILLION,
    Dot,
    Drawing,
    Line,
    Path,
    Shape,
    Text,
)
from spheroidd.inference.dose_response.fit import band, predict
from spheroidd.protocols.dose import CurveStatus

WIDTH, HEIGHT = 154.0, 124.0
LEFT, RIGHT, TOP, BOTTOM = 25.0, 4.0, 25.0, 24.0
CONTROL_ROOM = 16.0  # left of the doses: ln 0 does not exist, so the untreated wells stand beside the axis
STEPS = 72
TITLE_LETTERS = 40


def curve_plot(curve: CurveOfPlate, *, with_plate: bool = False) -> Drawing:
    """The plot of one curve; its second line says in words what is known of the IC50."""
    doses = tested_doses(curve)
    title = curve_title(curve) + (f" · {curve.plate}" if with_plate else "")
    said = words.ic50(curve.fit, doses)
    shapes: list[Shape] = [
        Text(LEFT, 8, words.shortened(title, TITLE_LETTERS), 6.8, bold=True),
        Text(LEFT, 17, _second_line(curve, doses), 6.2, ink=GREY),
    ]
    y = _response_axis(curve)
    x = log_axis(min(doses, default=0.1), max(doses, default=10.0), LEFT + CONTROL_ROOM, WIDTH - RIGHT)
    shapes += [*_frame(x, y, curve.metric), *_curve(curve, doses, x, y), *_points(curve, x, y)]
    shapes += _ic50_mark(curve, x, y)
    return Drawing(WIDTH, HEIGHT, f"Dose response of {title}: IC50 {said}", tuple(shapes))


def curve_title(curve: CurveOfPlate) -> str:
    """Compound and patient."""
    return curve.compound if curve.patient is None else f"{curve.compound} · {curve.patient}"


def tested_doses(curve: CurveOfPlate) -> tuple[float, ...]:
    """The doses above 0 that took part in the fit; all that were tested where none did."""
    kept = tuple(d for d, out in zip(curve.doses_um, curve.excluded, strict=True) if d > 0 and out is None)
    return kept or tuple(dose for dose in curve.doses_um if dose > 0)


def _second_line(curve: CurveOfPlate, doses: tuple[float, ...]) -> str:
    said, found = words.ic50(curve.fit, doses), words.known_ic50(curve.fit)
    so_far = ", so far" if curve.provisional else ""  # wells to come may say something else
    if found is not None:
        return f"IC50 {said}, {words.interval(found.low_um, found.high_um)}{so_far}"
    outside = (CurveStatus.CENSORED_LOW, CurveStatus.CENSORED_HIGH, CurveStatus.ALL_DEAD)
    status = curve.fit.words.said + so_far
    return f"IC50 {said}: {status}" if curve.fit.status in outside else words.shortened(status, 44)


def _response_axis(curve: CurveOfPlate) -> Axis:
    seen = [*curve.responses, *curve.control_responses, *(value for _, value, _ in curve.excluded_controls)]
    full = 1.0 if curve.metric == "v_count" else 100.0 if curve.metric.startswith("v_") else max(seen, default=1.0)
    return linear_axis(min(0.0, *seen, 0.0), max(full * 1.1, *seen, 0.0), HEIGHT - BOTTOM, TOP, 4)


def _frame(x: Axis, y: Axis, metric: str) -> list[Shape]:
    shapes: list[Shape] = [Line(LEFT, y.start, LEFT, y.stop, GREY), Line(x.start, y.start, x.stop, y.start, GREY)]
    shapes.append(Line(LEFT, y.start, x.start - 5, y.start, GREY))
    for offset in (-4.5, -2.0):  # the break between "no compound" and the lowest dose
        at = x.start + offset
        shapes.append(Line(at - 0.8, y.start + 2, at + 0.8, y.start - 2, GREY))
    for value, name in y.ticks:
        shapes += [
            Line(LEFT - 2, y.at(value), LEFT, y.at(value), GREY),
            Text(LEFT - 3.5, y.at(value) + 2, name, 5.5, "end", GREY),
        ]
    half = {"v_control": 50.0, "v_score": 50.0}.get(metric)
    if half is not None:
        shapes.append(Line(LEFT, y.at(half), x.stop, y.at(half), RULE, 0.5, (2, 2)))
    shapes.append(Text(LEFT + 5, y.start + 8, "0", 5.5, "middle", GREY))
    for value, name in x.ticks:
        shapes += [
            Line(x.at(value), y.start, x.at(value), y.start + 2, GREY),
            Text(x.at(value), y.start + 8, name, 5.5, "middle", GREY),
        ]
    shapes.append(Text((LEFT + x.stop) / 2, y.start + 17, "dose, µM", 6, "middle", GREY))
    shapes.append(Text(6, (y.start + y.stop) / 2, SHORT.get(metric, metric), 6, "middle", GREY, turned=True))
    return shapes


SHORT = {"v_control": "viability, %", "v_count": "live fraction", "v_score": "score, %", "live_um3": "live volume, µm³"}


def _curve(curve: CurveOfPlate, doses: tuple[float, ...], x: Axis, y: Axis) -> list[Shape]:
    """The fitted curve over the doses that were tested, no further, with the band of its 95 % interval."""
    if not curve.fit.parameters or not doses:
        return []
    low, high = math.log10(min(doses)), math.log10(max(doses))
    grid = [10 ** (low + (high - low) * n / STEPS) for n in range(STEPS + 1)] if high > low else [min(doses)]
    line = _inside([(x.at(at), y.at(value)) for at, value in zip(grid, predict(curve.fit, grid), strict=True)], y)
    shapes: list[Shape] = []
    lower, upper = (
        [(x.at(at), y.at(value)) for at, value in zip(grid, side, strict=True)] for side in _band(curve, grid)
    )
    around = _inside([*upper, *reversed(lower)], y)
    if len(around) > 2:  # the data may not determine the parameters well enough for a band
        shapes.append(Path(around, ink=None, fill=NAVY, opacity=0.14, closed=True))
    return [*shapes, Path(line, NAVY, 1.1)]


def _band(curve: CurveOfPlate, grid: list[float]) -> Iterator[list[float]]:
    return (side.tolist() for side in band(curve.fit, grid))


def _inside(points: Sequence[tuple[float, float]], y: Axis) -> list[tuple[float, float]]:
    """The points, held between the ends of the axis; without those that are no numbers."""
    return [(px, min(max(py, y.stop), y.start)) for px, py in points if math.isfinite(px) and math.isfinite(py)]


def _points(curve: CurveOfPlate, x: Axis, y: Axis) -> list[Shape]:
    controls = [
        *((w, value, None) for w, value in zip(curve.control_wells, curve.control_responses, strict=True)),
        *curve.excluded_controls,
    ]
    shapes: list[Shape] = []
    for place, (well, value, out) in enumerate(controls):
        spread = (place * 0.618034 % 1 - 0.5) * 6
        tip = f"{well}, untreated: {value:.1f}" + (f", left out of the fit: {out}" if out else "")
        fill, ink = (None, BLUE) if out else (BLUE, "#ffffff")
        shapes.append(Dot(LEFT + 5 + spread, y.at(value), 1.5, fill, ink, 0.4, tip))
    for dose, value, well, out in zip(curve.doses_um, curve.responses, curve.wells, curve.excluded, strict=True):
        at = x.at(dose) if dose > 0 else LEFT + 5
        tip = f"{well}, {words.dose(dose)}: {value:.1f}" + (f", left out of the fit: {out}" if out else "")
        fill, ink = (None, INK) if out else (INK, "#ffffff")
        shapes.append(Dot(at, y.at(value), 1.7, fill, ink, 0.5, tip))
    return shapes


def _ic50_mark(curve: CurveOfPlate, x: Axis, y: Axis) -> list[Shape]:
    """A line down from the curve at the IC50, and its interval as a bar on the axis."""
    found = words.known_ic50(curve.fit)
    if found is None or not curve.fit.parameters or not x.low <= found.um <= x.high:
        return []
    response = float(predict(curve.fit, [found.um])[0])
    at, height = x.at(found.um), y.at(min(max(response, y.low), y.high))
    left = x.at(max(found.low_um or x.low, x.low))
    right = x.at(min(found.high_um or x.high, x.high))
    diamond = ((at, height - 3), (at + 3, height), (at, height + 3), (at - 3, height))
    return [
        Line(at, height, at, y.start, VERMILLION, 0.6, (1.5, 1.5)),
        Line(left, y.start, right, y.start, VERMILLION, 2.0),
        Path(diamond, "#ffffff", 0.5, VERMILLION, closed=True),
    ]
