"""The plate's controls: every untreated and every killed well, their medians, and how far apart they are."""

import statistics
from collections.abc import Sequence

from spheroidd.daemon.report import wording as words
from spheroidd.daemon.report.axes import Axis, linear_axis
from spheroidd.daemon.report.drawing import BLUE, GREY, INK, RULE, VERMILLION, Dot, Drawing, Line, Path, Shape, Text
from spheroidd.daemon.report.well_entry import WellEntry
from spheroidd.inference.quality.control_statistics import robust_sd
from spheroidd.inference.quality.position_effects import is_edge, plate_format
from spheroidd.protocols.plate import WellRole
from spheroidd.protocols.quality import PlateQuality

WIDTH, LEFT, RIGHT, ROW, TOP = 482.0, 58.0, 12.0, 26.0, 8.0
ROWS = (("untreated", WellRole.NEGATIVE_CONTROL, BLUE), ("killed", WellRole.POSITIVE_CONTROL, VERMILLION))


def controls_strip(entries: Sequence[WellEntry], quality: PlateQuality) -> Drawing | None:
    """Dots of the controls along one axis; None for a plate that has none with a figure.

    The tint spans median +- 3 x 1.4826 MAD, so that the gap between the two tints is what Z' measures.
    """
    found = {role: _values(entries, role, quality.metric) for _, role, _ in ROWS}
    values = [value for dots in found.values() for _, value in dots]
    if not values:
        return None
    plate = plate_format(entry.well for entry in entries)
    axis = linear_axis(min(0.0, *values), max(values) * 1.04, LEFT, WIDTH - RIGHT)
    bottom = TOP + ROW * len(ROWS)
    shapes = _ticks(axis, bottom, words.METRICS.get(quality.metric, quality.metric))
    for number, (name, role, ink) in enumerate(ROWS):
        y = TOP + ROW * (number + 0.5)
        shapes.append(Text(LEFT - 8, y + 2.3, f"{name} ({len(found[role])})", 6.5, "end"))
        shapes += _row(found[role], axis, y, ink, plate)
    return Drawing(WIDTH, bottom + 24, "Untreated and killed controls of the plate", tuple(shapes))


def _values(entries: Sequence[WellEntry], role: WellRole, metric: str) -> list[tuple[WellEntry, float]]:
    chosen = [entry for entry in entries if entry.treatment.role is role]
    return [(entry, value) for entry in chosen if (value := entry.figure(metric)) is not None]


def _ticks(axis: Axis, bottom: float, label: str) -> list[Shape]:
    shapes: list[Shape] = [Line(axis.start, bottom, axis.stop, bottom, GREY)]
    for value, name in axis.ticks:
        x = axis.at(value)
        shapes += [
            Line(x, TOP, x, bottom, RULE, 0.3),
            Line(x, bottom, x, bottom + 2, GREY),
            Text(x, bottom + 9, name, 6, "middle", GREY),
        ]
    return [*shapes, Text((axis.start + axis.stop) / 2, bottom + 19, label, 6.5, "middle", GREY)]


def _row(
    dots: Sequence[tuple[WellEntry, float]], axis: Axis, y: float, ink: str, plate: tuple[int, int]
) -> list[Shape]:
    kept = [value for entry, value in dots if entry.excluded is None]
    shapes: list[Shape] = []
    if kept:
        median = statistics.median(kept)
        reach = 3 * robust_sd(kept) if len(kept) > 2 else 0.0
        left, right = (min(max(axis.at(median + side * reach), axis.start), axis.stop) for side in (-1, 1))
        corners = ((left, y - 8), (right, y - 8), (right, y + 8), (left, y + 8))
        shapes = [
            Path(corners, ink=None, fill=ink, opacity=0.12, closed=True),
            Line(axis.at(median), y - 9, axis.at(median), y + 9, ink, 1.4),
        ]
    for place, (entry, value) in enumerate(dots):
        spread = (place * 0.618034 % 1 - 0.5) * 11  # the golden ratio keeps neighbours apart, the same way each time
        shapes += _mark(entry, axis.at(value), y + spread, ink, is_edge(entry.well, plate), f"{value:.1f}")
    return shapes


def _mark(entry: WellEntry, x: float, y: float, ink: str, edge: bool, value: str) -> list[Shape]:
    """One well: a diamond on the plate's edge, hollow where excluded, ringed and named where it stands out."""
    fill, line = (None, ink) if entry.excluded else (ink, "#ffffff")
    tip = f"{entry.well}: {value}; {entry.state_in_words}"
    corners = ((x, y - 2.5), (x + 2.5, y), (x, y + 2.5), (x - 2.5, y))
    shapes: list[Shape] = [
        Path(corners, line, 0.5, fill, closed=True, tip=tip) if edge else Dot(x, y, 1.9, fill, line, 0.5, tip)
    ]
    if entry.excluded or any(flag.code in STANDS_OUT for flag in entry.flags):
        shapes += [Dot(x, y, 3.8, None, INK, 0.5), Text(x + 5.2, y + 2, str(entry.well), 5.5)]
    return shapes


STANDS_OUT = ("bad-control", "outlier", "replicates-differ")
